"""The catalogue of known errors: what a line of a log means, and what to do about it.

errors.yaml holds it. The CANN toolkit's own list of codes, where it is installed, adds those that it lacks.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple

from launcher import cann

FILE = Path(__file__).with_name("errors.yaml")
TOOLKIT = "/usr/local/Ascend/ascend-toolkit/latest"  # where nothing else is said
TOOLKIT_CODES = ("runtime/conf/error_manager/error_code.json", "conf/error_manager/error_code.json")

_CODE = r"E[1-9A-Z]\d{4}"
_ENDING = r"(?:Error|Exception|Interrupt|Iteration)"  # of an exception's name
_WHOLE_CODE = re.compile(rf"(?<![\w-]){_CODE}(?![\w-])")
_RESULT = r"507\d{3}"  # what CANN's runtime returns where device, driver or itself failed (aclError)
_WHOLE_RESULT = re.compile(rf"(?:[Cc]ode(?: is)?|ret|result|failed)[\s:=\[]*({_RESULT})(?!\d)")
_EXCEPTION = re.compile(rf"(?:^|\] ?|: )(?:[A-Za-z_][\w.]*\.)?([A-Z_]\w*{_ENDING})(?=: |:?$)")
_MILD = r"(?:WARNING|WARN|INFO|DEBUG|TRACE|EVENT)"
# As MindSpore and CANN mark them, at the beginning or behind a time, among the fields of Python's logging, as
# torch does; and Python's warnings.
_IS_MILD = re.compile(rf"\[{_MILD}\]|^[\d\s:,.T/|-]*{_MILD}\b|\s[-|]\s{_MILD}\s[-|:]|\[W[\d ]|Warning: ")
_IS_SEVERE = re.compile(r"\[(?:ERROR|CRITICAL|EXCEPTION|FATAL)\]")
_LEVEL_CHARACTERS = 160  # in which a line says how severe it is


class Role(Enum):
    """What an error is in the chain of those that follow each other."""

    CAUSE = "cause"
    CONSEQUENCE = "consequence"  # of what happened to another process
    SYMPTOM = "symptom"  # something broke here; what is said elsewhere explains it


ROLES = tuple(Role)  # in one process: a consequence says more than the exception that it became


@dataclass(frozen=True)
class Signature:
    """One known error. codes, exceptions, says: as in errors.yaml; each of them is enough."""

    name: str
    cause: str
    remedy: str
    source: str
    role: Role = Role.CAUSE
    codes: Tuple[str, ...] = ()
    exceptions: Tuple[str, ...] = ()
    says: Tuple[str, ...] = ()
    warns: bool = False

    def position(self, line: str) -> int:
        """Where in a line that has it the error is told, as near as that is known."""
        texts = (*self.codes, *self.exceptions, *self.says)
        places = (line.find(max(text.split("*"), key=len)) for text in texts)
        return min((place for place in places if place >= 0), default=0)


_Text = Tuple[str, Tuple[str, ...], Signature]  # longest part, all parts if several, whose it is


class Catalogue:
    """Signatures, and which of them a line has."""

    def __init__(
        self, signatures: Sequence[Signature], toolkit: Optional[Dict[str, Signature]] = None
    ) -> None:
        """toolkit: signatures by CANN's code, for the codes that have no signature of their own."""
        self.signatures = tuple(signatures)
        self._toolkit = toolkit or {}
        self._order = {signature.name: place for place, signature in enumerate(signatures)}
        self._codes = {code: s for s in reversed(self.signatures) for code in s.codes}
        self._exceptions = {name: s for s in reversed(self.signatures) for name in s.exceptions}
        # the longest part is the rarest: looked for first
        self._texts = [
            (max(parts, key=len), parts if len(parts) > 1 else (), signature)
            for signature in self.signatures
            for parts in (tuple(filter(None, text.split("*"))) for text in signature.says)
        ]
        self._warnings = [text for text in self._texts if text[2].warns]
        longest = (text for text, _, _ in self._texts)
        self._something = re.compile("|".join([_CODE, _RESULT, _ENDING, _any_of(longest)]))

    def find(self, line: str) -> Optional[Signature]:
        """What a line of a log tells; of several, a cause before a consequence before a symptom."""
        if not is_severe(line):
            return self._best(_texts_in(line, self._warnings))
        if self._something.search(line) is None:
            return None  # almost every line; the rest is slow
        found = _texts_in(line, self._texts)
        codes = [*_WHOLE_CODE.findall(line), *_WHOLE_RESULT.findall(line)]
        found += filter(None, map(self._by_code, codes))
        found += filter(None, map(self._by_exception, _EXCEPTION.findall(line)))
        return self._best(found)

    def _best(self, found: Iterable[Signature]) -> Optional[Signature]:
        return min(
            found, key=lambda each: (ROLES.index(each.role), self._order.get(each.name, -1)), default=None
        )

    def _by_exception(self, name: str) -> Optional[Signature]:
        return self._exceptions.get(name) or self._exceptions.get("*")

    def _by_code(self, code: str) -> Optional[Signature]:
        """By the whole code, here or in the toolkit; else what its module is."""
        return (
            self._codes.get(code)
            or self._toolkit.get(code)
            or self._codes.get(code[:3] + "*")
            or (self._codes.get(code[:2] + "*"))
        )


def is_severe(line: str) -> bool:
    """Whether a line is marked as an error, or not at all: not as a warning or less."""
    start = line[:_LEVEL_CHARACTERS]
    mild = _IS_MILD.search(start)
    return mild is None or _IS_SEVERE.search(start, 0, mild.start()) is not None


def _texts_in(line: str, texts: Iterable[_Text]) -> List[Signature]:
    return [
        signature
        for longest, parts, signature in texts
        if longest in line and (not parts or _in_order(parts, line))
    ]


def _in_order(parts: Sequence[str], line: str) -> bool:
    position = 0
    for part in parts:
        position = line.find(part, position)
        if position < 0:
            return False
        position += len(part)
    return True


def _any_of(texts: Iterable[str]) -> str:
    """A pattern that finds each of the texts: equal beginnings once, without which it is ten times slower."""
    root: Dict[str, Any] = {}
    for text in texts:
        node = root
        for character in text:
            node = node.setdefault(character, {})
        node[""] = {}

    def pattern(node: Dict[str, Any]) -> str:
        if "" in node:
            return ""
        branches = [re.escape(character) + pattern(following) for character, following in node.items()]
        return branches[0] if len(branches) == 1 else f"(?:{'|'.join(branches)})"

    return pattern(root)


@lru_cache(maxsize=1)
def catalogue() -> Catalogue:
    """The one that ships, with this host's toolkit."""
    import yaml

    families = yaml.load(FILE.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    signatures = [_signature(entry) for family in families.values() for entry in family]
    return Catalogue(signatures, toolkit_codes())


def _signature(entry: Dict[str, Any]) -> Signature:
    return Signature(
        name=entry["name"],
        cause=entry["cause"],
        remedy=entry["remedy"],
        source=entry["source"],
        role=Role(entry.get("role", "cause")),
        codes=_listed(entry.get("code")),
        exceptions=_listed(entry.get("exception")),
        says=_listed(entry.get("says")),
        warns=entry.get("warns", False),
    )


def _listed(value: Any) -> Tuple[str, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


def toolkit_codes() -> Dict[str, Signature]:
    """What the installed CANN toolkit says of its codes; empty where there is none, or it is unreadable."""
    for path in (Path(home) / file for home in [*cann.homes(), TOOLKIT] for file in TOOLKIT_CODES):
        try:
            entries = json.loads(path.read_bytes())["error_info_list"]
            return {entry["ErrCode"]: _of_toolkit(entry, path) for entry in entries}
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return {}


def _of_toolkit(entry: Dict[str, Any], path: Path) -> Signature:
    """An entry as the toolkit has it; "N/A" is its word for nothing."""
    code, suggestion = entry["ErrCode"], entry.get("suggestion") or {}
    said = {key: text for key, text in {**entry, **suggestion}.items() if text and text != "N/A"}
    return Signature(
        name=code,
        cause=str(said.get("Possible Cause") or said.get("ErrMessage") or f"CANN reported {code}."),
        remedy=str(said.get("Solution") or "Read the line, and the first ERROR of this process's plog."),
        source=str(path),
        role=Role.SYMPTOM if code[2:] >= "9000" else Role.CAUSE,  # from there on CANN's inner errors
        codes=(code,),
    )
