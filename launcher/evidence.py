"""What a failed process has said of the reason: the error that it ended with, and what it is a sign of. Pure.

A log is full of words that look like reasons: warnings of what was survived, errors that came of others. So
the last error alone is believed, and the rest of the log where that error is known to say nothing.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import List, Optional, Sequence, Tuple

HEADER = "Traceback (most recent call last):"
CHAINED = (
    "The above exception was the direct cause of the following exception:",
    "During handling of the above exception, another exception occurred:",
)
MESSAGE_LINES = 10  # of an exception; a program that survived it goes on with lines of its own
LINE_CHARACTERS = 200

_LOG_LINE = re.compile(r"\[(DEBUG|INFO|WARNING|ERROR|CRITICAL|EXCEPTION)\]")  # of MindSpore and CANN
_ERROR_LINE = re.compile(r"\[(ERROR|CRITICAL|EXCEPTION)\]|([\w.]*(Error|Exception)|(?i:error|fatal))\b.*:")
# What MindSpore puts behind a message, for its own developers.
_APPENDIX = re.compile(
    r"- (The Function Call Stack|The Traceback of Net|C\+\+ Call Stack|Framework Unexpected)"
)


class Sign(Enum):
    """What an error can be a sign of, other than a fault of the code."""

    PORT_TAKEN = "port taken"  # the planned one: between the agent's look for it and the process's own use
    DISK_FULL = "disk full"
    LOST_PEER = "lost peer"  # what a rank says when another one is gone
    DEVICE = "device"  # it, or its link, is broken or held by a process of before
    MISPLACED = "misplaced"  # ranks are not where the plan has them


_SIGNS = (
    (Sign.PORT_TAKEN, re.compile(r"Address already in use|Failed to bind(?! the IP)|\bbind\b.*failed")),
    (Sign.MISPLACED, re.compile(r"is not where the plan has it|was to be rank \d+ of")),  # fcn.identity
    (Sign.DISK_FULL, re.compile(r"No space left on device|Disk quota exceeded")),
    (
        Sign.DEVICE,
        re.compile(
            r"EI0019|EJ000[123]|Failed to bind the IP port|failed ret\(-67\)"
            r"|(Device|ts) lost heartb|Device is abnormal"
        ),
    ),
    (
        Sign.LOST_PEER,
        re.compile(
            r"Launch kernel failed: \S*(AllReduce|AllGather|AlltoAll|ReduceScatter|Broadcast-|Barrier-)"
            r"|AllReduceCPUKernelMod launch failed|ReduceScatter wait receiving"
            r"|total number of timed out node|is timed out. It may exit with exception"
            r"|Failed to initialize distributed job cluster"
            r"|ranks have come to '\w+' in|no answer from \S+:\d+ in"  # fcn.distributed
            # CANN: a peer's notification, socket, link, packet or answer, or a task, did not come in time
            r"|EI0002|EI0006|EI0009|EI0013|EI0015|EE1002|Heartbeat Lost Occurred"
            r"|Connection (reset|closed) by peer|Connection refused|Broken pipe"
        ),
    ),
)
# MindSpore's errors of the start have one text for everything; the reason is a warning above it.
_SAYS_NOTHING = re.compile(r"Failed to initialize (the master node|distributed job cluster)")


def sign(error: Sequence[str], log: Sequence[str]) -> Optional[Sign]:
    """What an error is a sign of; None: of a fault of the code. log: the lines that came before it."""
    text = "\n".join(error)
    if _SAYS_NOTHING.search(text):
        text = "\n".join((*error, *log))
    return next((sign for sign, pattern in _SIGNS if pattern.search(text)), None)


def last_error(log: Sequence[str]) -> Tuple[str, ...]:
    """The last error in the lines of a log: the exception of the last traceback, with those that it came of;
    without a traceback the last error lines in a row. Empty where there is neither."""
    return tuple(_last_exceptions(log) or _last_error_lines(log))


def _last_exceptions(log: Sequence[str]) -> List[str]:
    found: List[str] = []
    chained, where = False, "outside"
    for line in log:
        if line.endswith(HEADER):
            found = found if chained else []
            chained, where = False, "frames"
        elif where == "frames" and not line.startswith(" "):
            where, left = "message", MESSAGE_LINES
        elif line in CHAINED:
            chained, where = True, "outside"
        if where == "message":
            if _LOG_LINE.match(line) or _APPENDIX.match(line) or left == 0:
                where = "outside"
            else:
                found.append(line)
                left -= 1
    return found


def _last_error_lines(log: Sequence[str]) -> List[str]:
    found: List[str] = []
    after_error = False
    for line in log:
        is_error = _ERROR_LINE.match(line) is not None
        if is_error:
            found = [*found, line] if after_error else [line]
        after_error = is_error
    return found


def one_line(text: str) -> str:
    """An error as a sentence can hold it: without the rules and the appendices of MindSpore's."""
    words: List[str] = []
    for line in text.splitlines():
        if _APPENDIX.match(line):
            break
        words.append(line.strip(" -=\t"))
    joined = " ".join(filter(None, words))
    return joined if len(joined) <= LINE_CHARACTERS else joined[:LINE_CHARACTERS] + " ..."
