"""A worker without MindSpore that follows the worker contract and misbehaves on order.

Settings are `key=value` arguments; a fault is `fault=NAME@STEP:RANK`, e.g. fault=raise@2:1.

    steps, step_s      how many steps and how long each takes
    term=ignore|exit   SIGTERM does nothing, or makes it exit with code 7
    children=1         leaves a child in its group and one in a session of its own, both ignoring SIGTERM
    save_s             how long it saves after SIGUSR2 before it exits 75
    say=TEXT           printed before the first step; escapes are understood, the bytes may be invalid UTF-8
"""

import json
import os
import signal
import sys
import time

SETTINGS = dict(argument.split("=", 1) for argument in sys.argv[1:])
RANK = int(os.environ.get("RANK_ID", "0"))
CHILD = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
)


def number(name: str, default: float) -> float:
    return float(SETTINGS.get(name, default))


def send(event: str, **fields: object) -> None:
    if "FCN_STATUS_FD" in os.environ:
        line = json.dumps({"event": event, **fields}) + "\n"
        os.write(int(os.environ["FCN_STATUS_FD"]), line.encode())


def save_and_leave(*_: object) -> None:
    send("phase", phase="save")
    time.sleep(number("save_s", 0))
    os._exit(75)


def bear_children() -> None:
    import subprocess

    for own_session in (False, True):
        child = subprocess.Popen(
            [sys.executable, "-S", "-c", CHILD], stdout=subprocess.PIPE, start_new_session=own_session
        )
        assert child.stdout is not None
        child.stdout.readline()  # it ignores SIGTERM from here on


def fail(name: str) -> None:
    if name == "raise":
        try:
            raise ValueError(f"rank {RANK} was told to fail")
        except ValueError as error:
            send("error", type="ValueError", message=str(error), traceback=f"ValueError: {error}")
            raise
    if name == "exit":
        sys.exit(3)
    if name == "exit0":
        sys.exit(0)
    if name == "hang":
        time.sleep(600)
    os.kill(os.getpid(), signal.Signals["SIG" + name.upper()])


def listen() -> None:
    """Says back the first line of the control pipe."""
    with os.fdopen(int(os.environ["FCN_CONTROL_FD"])) as control:
        send("metric", heard=json.loads(control.readline()))


def main() -> None:
    signal.signal(signal.SIGUSR2, save_and_leave)
    if "term" in SETTINGS:
        signal.signal(
            signal.SIGTERM, signal.SIG_IGN if SETTINGS["term"] == "ignore" else lambda *_: os._exit(7)
        )
    if SETTINGS.get("children"):
        bear_children()
    text = SETTINGS.get("say", f"rank {RANK} begins\n").encode().decode("unicode_escape")
    os.write(1, text.encode("latin-1"))
    send("phase", phase="train")
    if SETTINGS.get("listen"):
        listen()
    fault, _, where = SETTINGS.get("fault", "").partition("@")
    for step in range(1, int(number("steps", 3)) + 1):
        if where == f"{step}:{RANK}":
            fail(fault)
        time.sleep(number("step_s", 0))
        send(
            "step", step=step, epoch=1, loss=1 / step, lr=0.1, samples=8, total_steps=int(number("steps", 3))
        )
    send("phase", phase="done")


main()
