"""Which parameters of a file fit a network, by name and shape. Imports no framework."""

from __future__ import annotations

from typing import Collection, List, Mapping, Sequence, Tuple

from fcn.errors import WeightsError

Shapes = Mapping[str, Tuple[int, ...]]

_NAMES_SHOWN = 6


def abridged(names: Sequence[str]) -> str:
    """The first of many names and the number of the others; 'nothing' where there is none."""
    more = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + f" and {more} more" * (more > 0) if names else "nothing"


def require_fit(given: Shapes, needed: Shapes, source: str, may_lack: Collection[str] = ()) -> None:
    """Raises WeightsError that lists every missing, unexpected and misshapen name."""
    problems: List[Tuple[str, List[str]]] = [
        ("missing", [name for name in needed if name not in given and name not in may_lack]),
        ("unexpected", [name for name in given if name not in needed]),
        (
            "of another shape",
            [
                f"{name} {shape}, needed {needed[name]}"
                for name, shape in given.items()
                if name in needed and shape != needed[name]
            ],
        ),
    ]
    if any(names for _, names in problems):
        lines = [f"  {len(names)} {what}: {', '.join(names)}" for what, names in problems if names]
        raise WeightsError(f"{source}: does not fit this network; nothing was loaded\n" + "\n".join(lines))
