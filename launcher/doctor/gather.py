"""What runs on each host: every check's `gather`, all at a time. Standard library only.

The doctor starts it behind the host's prefix as `python -m launcher.agent --examine doctor` and speaks JSON
lines with it: `ping` is answered by `pong`, as an agent does; `examine` with names of checks and a Request by
one `fact` a check as it is known, and `done`. The end of stdin ends it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from typing import Any, Callable, Dict, Iterable, Tuple

from launcher.doctor import CHECKS
from launcher.doctor.check import Check, Request
from launcher.errors import Unreadable

LIMIT_S = 8.0  # a driver or a file system that hangs; below what the doctor itself waits

Tell = Callable[[Dict[str, Any]], None]


def serve() -> None:
    """Answers on stdout what is asked on stdin."""
    lock = threading.Lock()

    def tell(message: Dict[str, Any]) -> None:
        with lock:
            sys.stdout.write(json.dumps(message) + "\n")
            sys.stdout.flush()

    for line in sys.stdin:
        message = json.loads(line)
        if message.pop("op") == "ping":
            tell({"event": "pong", "id": message["id"], "time_ns": time.time_ns()})
        else:
            names = message.pop("checks")
            examine(Request.from_dict(message), [check for check in CHECKS if check.name in names], tell)
            tell({"event": "done"})
    os._exit(0)  # a thread may wait for ever


def examine(request: Request, checks: Iterable[Check], tell: Tell) -> None:
    """Gathers the facts, and tells each: with its `value`, or with the reason why it is `unknown`."""

    def look(check: Check) -> None:
        try:
            tell({"event": "fact", "name": check.name, "value": check.gather(request)})
        except Exception as error:
            is_told = isinstance(error, (Unreadable, OSError))
            why = str(error) if is_told else f"{type(error).__name__}: {error}"
            tell({"event": "fact", "name": check.name, "unknown": why})

    end = time.monotonic() + LIMIT_S
    threads = {check.name: threading.Thread(target=look, args=(check,), daemon=True) for check in checks}
    for thread in threads.values():
        thread.start()
    for name, thread in threads.items():
        thread.join(max(0.0, end - time.monotonic()))
        if thread.is_alive():
            tell({"event": "fact", "name": name, "unknown": f"no answer within {LIMIT_S:g} s"})


def quick(request: Request) -> Tuple[Dict[str, Any], Dict[str, str]]:
    """Facts of the quick part, and the reasons of those that are unknown; for an agent's hello."""
    told: list = []
    checks = [check for check in CHECKS if check.quick and (request.devices or not check.ascend)]
    examine(request, checks, told.append)
    facts = {fact["name"]: fact["value"] for fact in told if "value" in fact}
    return facts, {fact["name"]: fact["unknown"] for fact in told if "unknown" in fact}
