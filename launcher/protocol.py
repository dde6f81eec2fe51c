"""The messages between the supervisor and a host's agent: JSON objects, one a line, over the agent's stdio.

To the agent (`op`), on its stdin, whose end is the end of the lease:

    find     folder; answered by `found`
    start    processes: [{name, rank, argv, env, log, cpus: to be bound to, none: any}, ...], log_dir, cwd,
             token
    ping     id; answered by `pong`
    signal   rank (None: every rank), signal: number; to the main process of the rank alone
    probe    answered by `probe`
    stacks   first: whose stack matters most; all stacks go to the logs; answered by `stacks`
    stop     grace_s; SIGTERM to the process groups, after the grace SIGKILL to everything; 0 kills at once

From the agent (`event`), on its stdout; the host is clean when it has ended after `done`:

    hello    protocol, facts: see launcher/agent/observe.py
    found    folder, is_there: whether this host has such a folder
    pong     id, time_ns; at most every HEALTH_S seconds health: see launcher/agent/health.py; where there are
             Ascend devices, now and then devices: see launcher/agent/device_watch.py
    abandoned  pids: processes of a run that nobody watched any more, which were found here and killed
    started  name, rank, pid
    status   name, rank, time_ns, data: a line that the worker wrote to FCN_STATUS_FD
    exit     name, rank, code or signal (the other is None), time_ns, stopped: whether a stop had reached it
             before, out_of_memory: whether the kernel did it for that reason, None where unknown, tail: last
             lines of its log unless the code is 0; none where the file system does not give them
    probe    processes: {name: what launcher/agent/probe.py sees of it}, of those that have not ended
    stacks   taken: names of the processes whose stacks are in their logs
    failed   message: the agent could not do what it was told; everything on the host is stopped
    done     left: ids of processes that SIGKILL did not end (blocked in the kernel)

`time_ns` is CLOCK_REALTIME of the agent's host. Standard library only: an agent has nothing else.
"""

from __future__ import annotations

import json
import os
import selectors

VERSION = 4  # an agent of another version of fcn-launch is refused by name
PING_S = 2.0
HEALTH_S = 10.0
# Where a network lies between them, the one that hears nothing for so long counts the other as lost. Thus a
# host that is cut off has killed its processes soon after it was given up, and before they run elsewhere.
SILENCE_S = 8.0
LEASE_S = 10.0
FROZEN_S = 1.0  # who sleeps so much longer than it wanted to was stopped, by SIGSTOP or with its machine
LISTEN_S = 2 * PING_S  # what it then gives the other to be heard, before it takes the silence for a loss
READ_BYTES = 1 << 16
MAX_LINE_BYTES = 16 << 20  # more without a newline is not a message
MAX_PENDING_BYTES = 8 << 20  # above it what may be lost (progress) is dropped: a stuck reader costs no memory
NOISE_LINES = 20


def encode(message: dict) -> bytes:
    """One message as a line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


class Inbox:
    """Messages that arrive on a file descriptor.

    Lines that are no JSON object (a login banner, a warning of ssh) are kept in `noise`, the last few: they
    are what explains a channel that never speaks.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.eof = False
        self.noise: list[str] = []
        self._rest = b""

    def read(self) -> list[dict]:
        """What has arrived, after one read; sets `eof` at the end. An unfinished last line is dropped."""
        try:
            data = os.read(self.fd, READ_BYTES)
        except BlockingIOError:
            return []
        except OSError:  # a terminal that hung up
            data = b""
        if not data:
            self.eof = True
            return []
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_LINE_BYTES:
            self._rest = b""
        return [message for message in map(self._decode, lines) if message is not None]

    def drain(self) -> list[dict]:
        """Everything that is there to be read on a non-blocking descriptor."""
        messages: list[dict] = []
        while not self.eof:
            before, rest = len(messages), self._rest
            messages += self.read()
            if len(messages) == before and self._rest == rest:
                break
        return messages

    def _decode(self, line: bytes) -> dict | None:
        try:
            message = json.loads(line.decode())
            if b"\\ud" in line.lower():
                message = _writable(message)
        except (ValueError, RecursionError):
            message = None
        if isinstance(message, dict):
            return message
        if line.strip():
            self.noise = [*self.noise, line.decode(errors="replace").rstrip()][-NOISE_LINES:]
        return None


def _writable(message: object) -> object:
    """The message without halves of surrogate pairs, which Python has for bytes of a path that are no UTF-8:
    nothing could print or encode them."""
    return json.loads(json.dumps(message, ensure_ascii=False).encode(errors="replace"))


class Outbox:
    """Messages on their way out of a file descriptor that must never block its writer."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.broken = False  # the reader is gone
        self._bytes = bytearray()
        os.set_blocking(fd, False)

    @property
    def pending(self) -> bool:
        return bool(self._bytes) and not self.broken

    def put(self, message: dict, may_drop: bool = False) -> None:
        """Sends now what the reader takes; the rest with later calls of `flush`."""
        if may_drop and len(self._bytes) > MAX_PENDING_BYTES:
            return
        self._bytes += encode(message)
        self.flush()

    def flush(self) -> None:
        """Sends what the reader takes now."""
        while self.pending:
            try:
                sent = os.write(self.fd, self._bytes)
            except BlockingIOError:
                return
            except OSError:
                self.broken = True
                return
            del self._bytes[:sent]

    def watch(self, selector: selectors.BaseSelector) -> None:
        """Has `flush` called, as the selector's data, for as long as something is pending."""
        watched = self.fd in selector.get_map()
        if self.pending and not watched:
            selector.register(self.fd, selectors.EVENT_WRITE, self.flush)
        elif watched and not self.pending:
            selector.unregister(self.fd)

    def drain(self) -> None:
        """Waits until everything is sent or the reader is gone."""
        os.set_blocking(self.fd, True)
        self.flush()
