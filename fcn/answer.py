"""How a verb of the trainer answers the launcher: one JSON object on stdout, for people to read on stderr."""

from __future__ import annotations

import argparse
import json
from typing import Any, Callable, Dict, NoReturn

from fcn.errors import ConfigError, FcnError

BAD_INPUT = 2  # exit codes
INTERRUPTED = 130


class Parser(argparse.ArgumentParser):
    """A parser whose refusals are answers too."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see `{self.prog} --help`")


def answer(work: Callable[[], Dict[str, Any]]) -> int:
    """Print `ok` with what `work` returns, or with its errors; returns the exit code."""
    try:
        result: Dict[str, Any] = {"ok": True, **work()}
        code = 0
    except FcnError as error:
        result, code = {"ok": False, "errors": str(error).splitlines()}, BAD_INPUT
    except KeyboardInterrupt:
        result, code = {"ok": False, "errors": ["interrupted"]}, INTERRUPTED
    print(json.dumps(result))
    return code
