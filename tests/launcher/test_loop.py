from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from launching import environment

from launcher.agent import processes
from launcher.loop import FROZEN_S, Loop


def test_who_is_heard_comes_before_a_time_that_is_over():
    loop, order = Loop(), []
    read, write = os.pipe()
    loop.after(0, "limit", lambda: order.append("over"))
    loop.listen(read, lambda: order.append(os.read(read, 9)))
    os.write(write, b"word")
    loop.wait()
    assert order == [b"word", "over"]
    loop.close()
    os.close(read)
    os.close(write)


def test_what_a_thread_has_found_out_comes_back_and_so_does_its_error():
    loop, found = Loop(), []
    loop.in_thread(lambda: 7, found.append)
    while not found:
        loop.wait()
    assert found == [7]
    loop.in_thread(lambda: 1 // 0, found.append)
    with pytest.raises(ZeroDivisionError):
        loop.wait()
    loop.close()


def test_who_waits_for_a_thread_no_more_keeps_no_descriptor_of_it():
    before, found, ended = open_descriptors(), [], threading.Event()
    loop = Loop()
    loop.in_thread(ended.wait, found.append)
    loop.close()
    assert len(open_descriptors()) == len(before) + 1  # the thread's own
    ended.set()
    while open_descriptors() != before:
        time.sleep(0.01)
    assert not found


def open_descriptors():
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def test_the_time_in_which_it_was_stopped_does_not_count():
    code = (
        "import os, sys; from launcher.loop import Loop; loop, order = Loop(), []\n"
        "loop.listen(0, lambda: order.append(os.read(0, 9).decode()))\n"
        "loop.after(0.5, 'limit', lambda: order.append('over'))\n"
        "print('waiting', flush=True); loop.wait(); print(*order, flush=True)\n"
        "while 'over' not in order: loop.wait()\n"
    )
    argv = [sys.executable, "-S", "-c", code]
    with subprocess.Popen(
        argv, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdout.readline() == b"waiting\n"
        while processes.look(process.pid).state != "S":  # not asleep in its wait yet
            time.sleep(0.01)
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.5 + FROZEN_S + 0.5)
        process.stdin.write(b"word")
        process.send_signal(signal.SIGCONT)
        assert process.stdout.readline() == b"word\n"
        assert process.wait() == 0
