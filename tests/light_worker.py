"""A worker without MindSpore that follows the worker contract and misbehaves on order.

It does the faults of fcn/inject.py as the trainer does, and otherwise what its `key=value` arguments say:

    steps, step_s      how many steps and how long each takes
    collective=GAP_S   every step ends when all ranks have ended it, over sockets; a rank that has lost
                       another one fails GAP_S later
    stall=STEP         with `collective`: at this step of the first attempt the ranks wait for ever
    error=TEXT         what a rank says that has lost another one
    faults=FAULT@STEP:RANK,...  what --inject would order, one for each attempt
    silent=1           nothing is said on the status pipe
    phase=NAME:STEP:S  S seconds are spent in this phase before this step; several are joined by commas
    disk=STEP:S        rank 0 waits S seconds in the kernel (state D) before this step, as for a disk
    term=ignore|exit   SIGTERM does nothing, or makes it exit with code 7
    children=1         leaves a child in its group and one in a session of its own, both ignoring SIGTERM
    marks=FOLDER       leaves FOLDER/start-RANK with its process id and the time of its first line
    meet=PORT          where `collective` meets, in place of MASTER_PORT
    noise=LINES        prints so many lines before each step, of all that a terminal has to bear
    save_s             how long it saves after SIGUSR2 before it exits 75
    save=fail          it can not save then
    say=TEXT           printed before the first step; escapes are understood, the bytes may be invalid UTF-8
"""

import faulthandler
import json
import os
import signal
import sys
import time

from fcn import inject

SETTINGS = dict(argument.split("=", 1) for argument in sys.argv[1:])
RANK = int(os.environ.get("RANK_ID", os.environ.get("RANK", "0")))  # RANK is torchrun's
SIZE = int(os.environ.get("RANK_SIZE", os.environ.get("WORLD_SIZE", os.environ.get("MS_WORKER_NUM", "1"))))
MEETING_LIMIT_S = 30.0


def number(name: str, default: float) -> float:
    return float(SETTINGS.get(name, default))


def send(event: str, **fields: object) -> None:
    if event == "error":
        fields["time_ns"] = time.time_ns()
    if "FCN_STATUS_FD" in os.environ and "silent" not in SETTINGS:
        line = json.dumps({"event": event, **fields}) + "\n"
        os.write(int(os.environ["FCN_STATUS_FD"]), line.encode())


def save_and_leave(*_: object) -> None:
    send("phase", phase="save")
    time.sleep(number("save_s", 0))
    if "save" in SETTINGS:
        send("save_failed", step=1, message="no room")
    os._exit(75)


class Collective:
    """All ranks wait for all: each tells rank 0, which answers when it has heard of every other one."""

    def __init__(self) -> None:
        import socket

        port = SETTINGS.get("meet") or os.environ["MASTER_PORT"]
        address = (os.environ.get("MASTER_ADDR", "127.0.0.1"), int(port))
        if RANK == 0:
            with socket.create_server(address, backlog=SIZE) as server:
                server.settimeout(MEETING_LIMIT_S)
                self.peers = [server.accept()[0] for _ in range(1, SIZE)]
        else:
            self.peers = [retried(lambda: socket.create_connection(address))]

    def wait(self, step: int) -> None:
        """Until all ranks are here; the end of this one, GAP_S late, where one of them is gone."""
        try:
            self._exchange(step)
        except OSError:
            for peer in self.peers:
                peer.close()  # rank 0 has the others know
            time.sleep(number("collective", 0))
            fail_at_once(SETTINGS.get("error", "Connection reset by peer"))

    def _exchange(self, step: int) -> None:
        if RANK:
            self.peers[0].sendall(b".")
        for peer in self.peers:
            if not peer.recv(1):
                raise ConnectionError
        if RANK == 0:
            if step == number("stall", 0) and os.environ["FCN_ATTEMPT"] == "1":
                self.peers[0].recv(1)
            for peer in self.peers:
                peer.sendall(b".")


def fail_at_once(text: str) -> None:
    """The end of a rank to the millisecond: an interpreter takes ten of them to clean up."""
    send("error", type="ConnectionError", message=text, traceback=f"ConnectionError: {text}")
    os.write(2, f"ConnectionError: {text}\n".encode())
    os._exit(1)


def retried(connect):  # type: ignore[no-untyped-def]
    """Rank 0 may not listen yet."""
    end = time.monotonic() + MEETING_LIMIT_S
    while True:
        try:
            return connect()
        except ConnectionRefusedError:
            if time.monotonic() > end:
                raise
            time.sleep(0.01)


def order_fault() -> None:
    """The fault that `faults` has for this attempt, if it is for this rank."""
    orders = SETTINGS.get("faults", "").split(",")
    attempt = int(os.environ.get("FCN_ATTEMPT", "1"))
    order, _, rank = orders[attempt - 1].partition(":") if attempt <= len(orders) else ("", "", "")
    if rank == str(RANK):
        os.environ[inject.VARIABLE] = order


def pass_phases(step: int) -> None:
    for order in filter(None, SETTINGS.get("phase", "").split(",")):
        name, at, seconds = order.split(":")
        if int(at) == step:
            send("phase", phase=name)
            time.sleep(float(seconds))
            send("phase", phase="train")


def wait_for_disk(step: int) -> None:
    """The kernel holds who spawns a child until that has opened its files: here, the end of a pipe."""
    at, _, seconds = SETTINGS.get("disk", "").partition(":")
    if RANK != 0 or at != str(step):
        return
    import subprocess
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        pipe = f"{folder}/pipe"
        os.mkfifo(pipe)
        with subprocess.Popen(["sh", "-c", f"sleep {seconds}; : > {pipe}"]):
            opened = [(os.POSIX_SPAWN_OPEN, 0, pipe, os.O_RDONLY, 0)]
            os.waitpid(os.posix_spawn("/bin/true", ["true"], {}, file_actions=opened), 0)


def train(steps: int) -> None:
    collective = Collective() if "collective" in SETTINGS and SIZE > 1 else None
    noise = Noise() if "noise" in SETTINGS else None
    for step in range(1, steps + 1):
        pass_phases(step)
        send("enter", what="data", step=step)
        inject.before(step)
        wait_for_disk(step)
        if noise is not None:
            noise.make(int(number("noise", 0)))
        time.sleep(number("step_s", 0))
        send("enter", what="step", step=step)
        if collective is not None:
            collective.wait(step)
        send("step", step=step, epoch=1, loss=1 / step, lr=0.1, samples=8, total_steps=steps)
    if noise is not None:
        mark("noise", f"{noise.length} {noise.digest.hexdigest()}")


class Noise:
    """Lines to print, and what all of them were."""

    KINDS = (b"line %d of a log\n", b"\xff\xfe\x80 %d no UTF-8\n", b"\r progress %d %%", b"%d without an end")

    def __init__(self) -> None:
        import hashlib

        self.digest, self.length, self.count = hashlib.sha256(), 0, 0

    def make(self, lines: int) -> None:
        for _ in range(lines):
            self.count += 1
            line = self.KINDS[self.count % 4 if self.count % 100 < 4 else 0] % self.count
            os.write(1, line)
            self.digest.update(line)
            self.length += len(line)


def mark(name: str, text: str) -> None:
    """Written whole or not at all: others wait for it."""
    unfinished = f"{SETTINGS['marks']}/.{name}-{RANK}"
    with open(unfinished, "w") as file:  # noqa: PTH123
        file.write(text)
    os.replace(unfinished, f"{SETTINGS['marks']}/{name}-{RANK}")  # noqa: PTH105


def main() -> None:
    if os.environ.get("MS_ROLE") == "MS_SCHED":
        return  # msrun starts every program once more as its scheduler
    if "marks" in SETTINGS:
        mark("start", f"{os.getpid()} {time.time_ns()}")
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    signal.signal(signal.SIGUSR2, save_and_leave)
    if "term" in SETTINGS:
        signal.signal(
            signal.SIGTERM, signal.SIG_IGN if SETTINGS["term"] == "ignore" else lambda *_: os._exit(7)
        )
    if SETTINGS.get("children"):
        inject.bear_children()
    text = SETTINGS.get("say", f"rank {RANK} begins\n").encode().decode("unicode_escape")
    os.write(1, text.encode("latin-1"))
    send("phase", phase="train")
    order_fault()
    try:
        train(int(number("steps", 3)))
    except Exception as error:
        send(
            "error",
            type=type(error).__name__,
            message=str(error),
            traceback=f"{type(error).__name__}: {error}",
        )
        raise
    send("phase", phase="done")


main()
