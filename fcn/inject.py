"""Faults that a worker brings upon itself, to rehearse what the launcher makes of them. No MindSpore here.

`fcn-launch train --inject` gives one rank FCN_INJECT=FAULT@STEP. Everything is real: signals, errors of the
kernel, processes. Nothing but the order to do it is artificial.
"""

from __future__ import annotations

import os
import signal
import sys
import time

VARIABLE = "FCN_INJECT"
SLOW_S = 1.0  # what a slow rank takes longer for each step
FOREVER_S = 1e6
CHILD = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(1e6)"
)


def before(step: int) -> None:
    """Do the fault of FCN_INJECT, if it is time: for a worker that is about to do `step`, counted from 1."""
    fault, _, at = os.environ.get(VARIABLE, "").partition("@")
    if fault == "slow" and step >= int(at):
        time.sleep(SLOW_S)
    elif fault and step == int(at):
        print(f"injected fault: {fault} before step {step}", flush=True)
        FAULTS[fault]()


def bear_children() -> None:
    """Two children that ignore SIGTERM: one in this process's group, one in a session of its own."""
    import subprocess  # here: a test's many small workers start without it

    for own_session in (False, True):
        child = subprocess.Popen(
            [sys.executable, "-S", "-c", CHILD], stdout=subprocess.PIPE, start_new_session=own_session
        )
        assert child.stdout is not None
        child.stdout.readline()  # it ignores SIGTERM from here on


def _crash() -> None:
    os._exit(1)


def _raise() -> None:
    raise RuntimeError("this rank was told to fail (--inject raise)")


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _segv() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _hang() -> None:
    time.sleep(FOREVER_S)


def _spin() -> None:
    while True:
        pass


def _exit0_early() -> None:
    os._exit(0)


def _disk_full() -> None:
    """Its log is on a full disk from now on; the kernel's /dev/full needs no rights and no file system."""
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, 1)
    os.dup2(full, 2)
    print("a line for a full disk", flush=True)


def _agent_killed() -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(FOREVER_S)  # its end ends this process


def _worker_grandchild() -> None:
    bear_children()
    _crash()


FAULTS = {
    "crash": _crash,
    "raise": _raise,
    "oom": _kill,  # as the kernel does when memory runs out
    "segv": _segv,
    "hang": _hang,
    "stop": _stop,
    "spin": _spin,
    "exit0-early": _exit0_early,
    "disk-full": _disk_full,
    "agent-killed": _agent_killed,
    "worker-grandchild": _worker_grandchild,
}
