"""One agent as the supervisor holds it: the process, its two channels, and what it said when it failed."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from pathlib import Path
from typing import Dict, List, Mapping, Optional

from launcher.clocks import Clock
from launcher.engines.base import checkout
from launcher.errors import PreflightError
from launcher.logfile import tail
from launcher.protocol import PING_S, SILENCE_S, Inbox, Outbox

REASON_LINES = 6
EXIT_LIMIT_S = 1.0  # between the end of its output and the end of the process
FIRST_PINGS = 5  # one after the other: the first answers wait for the agent's imports


class AgentLink:
    """A started agent. Its stdin is the lease: closing it ends everything on that host."""

    def __init__(self, host: str, argv: List[str], log: Path, environment: Mapping[str, str]) -> None:
        """Starts `argv`, its stderr in `log`. Raises PreflightError where it can not be started."""
        self.host = host
        self.argv = argv
        self.log = log
        self.facts: Optional[dict] = None  # from its hello
        self.has_folder = False  # it has found the run directory
        self.may_run = False  # it was told to start processes
        self.done = False
        self.clock = Clock()
        self.heard_ns = 0  # by our clock, when it said its last word
        self.unanswered = 0  # pings since then
        self.gave_up = False  # for its silence
        self.released_s = float("inf")  # monotonic, when the lease was taken from it
        self._ping_id = 0
        self._ping_ns = 0  # when the last one was sent, by a clock that is never set
        try:
            with log.open("ab") as errors:
                self.process = subprocess.Popen(
                    argv,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    env=with_checkout(environment),
                    start_new_session=True,  # Ctrl-C is for the supervisor, which stops in order
                )
        except OSError as error:
            raise PreflightError(
                f"host {host}: its agent can not be started: {error.strerror}: {error.filename};"
                f" the command was: {shlex.join(argv)}",
                host,
            ) from None
        assert self.process.stdin is not None and self.process.stdout is not None
        self.inbox = Inbox(self.process.stdout.fileno())
        self.outbox = Outbox(self.process.stdin.fileno())

    def read(self) -> List[dict]:
        """What the agent has said since; its end is no word."""
        messages = self.inbox.read()
        if messages:
            # A supervisor that was held up reads it long after.
            said_ns = messages[-1].get("time_ns")
            self.heard_ns = time.time_ns() if said_ns is None else self.clock.correct(said_ns).time_ns
            self.unanswered = 0
        return messages

    def ping(self) -> None:
        """Asks for a sign of life and the time there; also renews the lease."""
        self._ping_id += 1
        self.unanswered += 1
        self._ping_ns = time.monotonic_ns()
        self.outbox.put({"op": "ping", "id": self._ping_id})

    def on_pong(self, message: dict) -> None:
        """Learns of the host's clock. An answer to an older ping than the last tells too little."""
        if message["id"] != self._ping_id:
            return
        self.clock.add(message["time_ns"], time.time_ns(), time.monotonic_ns() - self._ping_ns)
        if self._ping_id < FIRST_PINGS:
            self.ping()

    @property
    def is_silent(self) -> bool:
        """Whether it has missed so many pings. Counted, not timed: a launcher that was stopped sent none."""
        return (self.unanswered + 1) * PING_S >= SILENCE_S and not self.outbox.broken

    @property
    def ended(self) -> bool:
        """Its output has ended: the agent has, or the way to it."""
        return self.inbox.eof

    @property
    def released(self) -> bool:
        """Whether the lease was taken from it."""
        return self.released_s != float("inf")

    def release(self) -> None:
        """Takes the lease: guard and agent kill at once."""
        assert self.process.stdin is not None
        self.outbox.broken = True
        if not self.released:
            self.released_s = time.monotonic()
            self.process.stdin.close()

    def kill_unheard(self) -> None:
        """Ends one that is on its way, perhaps for ever: nothing runs there."""
        if self.facts is None:
            self.process.kill()

    def close(self, limit_s: float = EXIT_LIMIT_S) -> None:
        """Ends the process for good, reaps it, and removes its log if it said nothing."""
        self.release()
        self.kill_unheard()
        try:
            self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        if self.log.exists() and self.log.stat().st_size == 0:
            self.log.unlink()

    @property
    def by_hand(self) -> str:
        """What to do about an agent that has not come up."""
        return f"try the command by hand: {shlex.join(self.argv)}"

    def reason(self, limit_s: float = EXIT_LIMIT_S) -> str:
        """Why it is gone: its exit, and the last lines that it or the way to it printed."""
        try:
            code = self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            how = "its output ended"
        else:
            how = _ended(code)
        return "; ".join(filter(None, [how, self.said()]))

    def said(self) -> str:
        """The last lines that the agent, or the way to it, printed besides its messages."""
        return "; ".join([*self.inbox.noise, *tail(str(self.log), REASON_LINES)][-REASON_LINES:])


def _ended(code: int) -> str:
    """How what ended with this code did; above 128 it tells of a signal, as shells and ssh do."""
    number = -code if code < 0 else code - 128
    if number in set(signal.Signals):
        return f"its agent was killed by {signal.Signals(number).name}"
    return f"exit code {code}" if code else "the connection to it ended"


def with_checkout(environment: Mapping[str, str]) -> Dict[str, str]:
    """The environment in which `-m launcher.agent` and `-m fcn.worker` are found, installed or not."""
    folder = checkout()
    if folder is None:
        return dict(environment)
    path = [str(folder), environment.get("PYTHONPATH", "")]
    return {**environment, "PYTHONPATH": os.pathsep.join(filter(None, path))}
