"""Readers of single fields of a cluster file: a value in, what it means out, or `Wrong`."""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Callable, List, Optional, Tuple

from launcher.chips import CHIPS, MAX_WORKERS_PER_HOST
from launcher.yaml_lines import Wrong, one_of

GPU_WORDS = ("gpu", "cuda", "nvidia")


def device_kind(value: Any) -> str:
    if isinstance(value, str) and value.lower() in GPU_WORDS:
        what = f"'{value}' cannot be used: MindSpore 2.10 has no GPU build"
        raise Wrong(what, remedy="write `device_kind: cpu` to train on this machine's processor")
    return one_of(CHIPS)(value)


def text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise Wrong(
            f"{value!r} is not text", remedy="" if value in ("", None) else f"put it in quotes: '{value}'"
        )
    return value


def program(value: Any) -> str:
    if "/" in text(value) and not value.startswith("/"):
        raise Wrong(f"'{value}' depends on the folder that one is in", remedy="write the path from / on")
    return str(value)


def is_name(value: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9._:-]+", value) is not None


def name(value: Any) -> str:
    if not is_name(text(value)):
        raise Wrong(
            f"{value!r} cannot be a host's name", "letters, digits, and . _ - only", "rename the host"
        )
    return str(value)


def host_address(value: Any) -> str:
    try:
        return ip(value)
    except Wrong as wrong:
        # MS_SCHED_HOST takes no names
        remedy = f"write an address; `getent hosts {value}` shows that of a name"
        raise Wrong(wrong.what, remedy=remedy) from None


def ip(value: Any) -> str:
    try:
        address = ipaddress.ip_address(text(value))
    except ValueError:
        raise Wrong(f"{value!r} is not an IP address") from None
    if address.is_unspecified or address.is_multicast:
        raise Wrong(f"{value!r} is not the address of one machine")
    return str(address)


def prefix(value: Any) -> Tuple[str, ...]:
    if isinstance(value, str):
        raise Wrong(f"{value!r} is one text", remedy=f"write [{', '.join(value.split())}]")
    if not isinstance(value, list) or not value:
        raise Wrong(f"{value!r} is not a list of words")
    return tuple(text(str(word) if type(word) is int else word) for word in value)


def mapping(value: Any) -> Any:
    """A field left empty, as by commenting out all its lines, is absent; the rest is checked elsewhere."""
    return {} if value is None else value


def host_list(value: Any) -> List[Any]:
    if not isinstance(value, list) or not value:
        raise Wrong(f"{value!r} is not a list of hosts")
    return value


def number(kind: type, low: float, high: float) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        is_number = isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
        if not is_number or not low <= value <= high:
            raise Wrong(f"{value!r} is out of range" if is_number else f"{value!r} is not a number")
        return kind(value)

    return read


def yes_or_no(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Wrong(f"{value!r} is neither true nor false")
    return value


def device_id(value: Any) -> Optional[int]:
    """JSON knows no integer keys, so that `"4"` is the device 4 too."""
    if isinstance(value, str) and value.isdecimal() and value.isascii():
        value = int(value)
    usable = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MAX_WORKERS_PER_HOST
    return value if usable else None
