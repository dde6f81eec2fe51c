"""YAML files written by people: every mistake is reported with its line and field, all of them at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Set,
    Tuple,
    TypeVar,
    Union,
)

from launcher.errors import UserError

Where = Tuple[Union[str, int], ...]  # ("hosts", 1, "devices") is hosts[1].devices
T = TypeVar("T")
REQUIRED: Any = object()


class Problem(NamedTuple):
    """One mistake in a file: the field, what is wrong with it, what was expected there, what to do."""

    where: Where
    what: str
    expected: str
    remedy: str


class Wrong(Exception):
    """Raised by the reader of a field; `expected` and `remedy` replace those of the field where given."""

    def __init__(self, what: str, expected: str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.what, self.expected, self.remedy = what, expected, remedy


@dataclass(frozen=True)
class Document:
    """A YAML file: its plain `value`, the line of each field, and the mistakes that YAML itself lets pass."""

    path: str
    value: Any
    lines: Mapping[Where, int] = field(default_factory=dict)
    problems: Tuple[Problem, ...] = ()

    def line(self, where: Where) -> Optional[int]:
        """Line of the field, or of the nearest one around it that the file has; None without a file."""
        while where and where not in self.lines:
            where = where[:-1]
        return self.lines.get(where)

    def error(self, problems: Iterable[Problem]) -> UserError:
        """All problems as one error, `FILE:LINE: field: what; expected ...; remedy` a line, in file order."""
        located = sorted(((self.line(p.where), p) for p in problems), key=lambda pair: pair[0] or 0)
        return UserError("\n".join(self._text(line, problem) for line, problem in located))

    def _text(self, line: Optional[int], problem: Problem) -> str:
        place = self.path if line is None else f"{self.path}:{line}"
        what = f"{name_of(problem.where)}: {problem.what}"
        return f"{place}: {what}; expected {problem.expected}; {problem.remedy}"


def name_of(where: Where) -> str:
    """`hosts[1].devices` for ("hosts", 1, "devices")."""
    parts = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in where)
    return "".join(parts).lstrip(".") or "the file"


def nearest(word: str, known: Iterable[str]) -> Optional[str]:
    """The known word that `word` is most likely a slip of."""
    import difflib  # for mistakes alone

    matches = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


def one_of(known: Iterable[str]) -> Callable[[Any], str]:
    """Reader of a field that takes one of a few words."""
    words = list(known)

    def read(value: Any) -> str:
        if value in words:
            return str(value)
        close = nearest(str(value), words)
        raise Wrong(f"unknown value {value!r}", remedy=f"did you mean '{close}'?" if close else "")

    return read


def as_is(value: Any) -> Any:
    """Reader of a field whose value is checked elsewhere."""
    return value


class Fields:
    """The fields of one mapping, taken one by one. Mistakes go to `problems`, and reading goes on."""

    def __init__(self, value: Any, where: Where, problems: List[Problem], expected: str) -> None:
        self._where, self._problems = where, problems
        self._known: List[str] = []
        self._usable = isinstance(value, dict)
        self._given: Dict[Any, Any] = value if isinstance(value, dict) else {}
        if not self._usable:
            remedy = "write its fields as `name: value` lines"
            problems.append(Problem(where, f"{value!r} is not a mapping", expected, remedy))

    def take(
        self, name: str, read: Callable[[Any], T], expected: str, remedy: str, default: Any = REQUIRED
    ) -> Any:
        """The field's value as `read` gives it; `default` when absent; None when it is wrong or missing."""
        self._known.append(name)
        if name not in self._given:
            if default is REQUIRED and self._usable:
                self.note(name, Wrong("is missing"), expected, remedy)
            return None if default is REQUIRED else default
        try:
            return read(self._given[name])
        except Wrong as wrong:
            self.note(name, wrong, expected, remedy)
            return None

    def note(self, name: str, wrong: Wrong, expected: str, remedy: str) -> None:
        where = (*self._where, name)
        self._problems.append(Problem(where, wrong.what, wrong.expected or expected, wrong.remedy or remedy))

    def close(self) -> None:
        """Refuses every field that was not taken."""
        for name in self._given:
            if name not in self._known:
                close = nearest(str(name), self._known)
                remedy = f"did you mean '{close}'?" if close else "remove it"
                expected = f"one of {', '.join(self._known)}"
                self._problems.append(Problem((*self._where, str(name)), "unknown field", expected, remedy))


def read_yaml(path: Path) -> Document:
    """Reads one YAML document. Raises UserError when there is no such file or it is not YAML.

    Keys given twice in one mapping, of which plain YAML silently takes the last, come as `problems`.
    """
    import yaml

    loader_class: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C one is ten times quicker
    try:
        loader = loader_class(path.read_bytes())
        try:
            node = loader.get_single_node()
            lines: Dict[Where, int] = {}
            problems: List[Problem] = []
            if node is not None:
                _locate(loader, node, (), lines, problems, set())
            value = None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}; give the path of a YAML file") from None
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        what = getattr(error, "problem", None) or str(error)
        remedy = "correct this line or the one before; indent with spaces"
        raise UserError(f"{place}: not valid YAML: {what}; expected a YAML mapping; {remedy}") from None
    return Document(str(path), value, lines, tuple(problems))


def _locate(
    loader: Any, node: Any, where: Where, lines: Dict[Where, int], problems: List[Problem], seen: Set[int]
) -> None:
    """Notes the line of everything below a node; an aliased node keeps the place where it was met first."""
    lines.setdefault(where, node.start_mark.line + 1)
    if id(node) in seen:
        return
    seen.add(id(node))
    if node.id == "sequence":
        for index, item in enumerate(node.value):
            _locate(loader, item, (*where, index), lines, problems, seen)
    elif node.id == "mapping":
        for key, value in node.value:
            if key.id != "scalar" or key.tag.endswith(":merge"):
                continue
            written = loader.construct_object(key)
            place = (*where, written if type(written) in (int, str) else str(written))
            line = key.start_mark.line + 1
            if place in lines:
                what = f"is given twice, in line {lines[place]} and in line {line}"
                problems.append(Problem(place, what, "one value", "remove one of them"))
            lines[place] = line
            _locate(loader, value, place, lines, problems, seen)
