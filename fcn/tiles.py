"""Cutting an image that is too large for one call of the network into tiles that overlap. Pure."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from math import ceil, lcm
from typing import List, NamedTuple, Sequence, Tuple

from fcn.architecture import STRIDE

# Of a tile, pixels as the network sees them: about 3 GB of activations at the published width
SIDE = 2048
# The same at the image's size, where there is a probability for each class: 1.4 GB for 21
SIDE_OF_IMAGE = 4096
# What a pixel of the scores depends on, pixels as the network sees them: fc6 sees 404 (Long, Shelhamer,
# Darrell, CVPR 2015, section 4.1), and the three upsamplings mix neighbours of 32, 16 and 8 pixels.
MARGIN = 9 * STRIDE


class Tile(NamedTuple):
    """A part of an image, with pixels around it that are computed and thrown away.

    Attributes:
        seen: what the network sees.
        kept: the part of the image that it answers for.
    """

    seen: Tuple[slice, slice]
    kept: Tuple[slice, slice]

    @property
    def kept_of_seen(self) -> Tuple[slice, slice]:
        """`kept`, counted from the corner of `seen`."""
        rows, columns = (
            slice(kept.start - seen.start, kept.stop - seen.start) for seen, kept in zip(self.seen, self.kept)
        )
        return rows, columns


def tiles(height: int, width: int, scales: Sequence[float] = (1.0,), side: int = SIDE) -> List[Tile]:
    """Tiles of one size that together keep each pixel once, with the answers of the whole image.

    scales: at which the network sees the image. side: of the largest tile that it sees.

    The corner of a tile lies where the whole image's scaled pixels and the network's grid of 32 of them both
    have a corner. A scale that is no fraction of small numbers has no such places nearby; its answers near
    the edges of tiles are then as good as those of a shifted image.
    """
    grid = STRIDE * lcm(*(Fraction(scale).limit_denominator(10).denominator for scale in scales))
    margin = _up(MARGIN / min(1.0, *scales), grid)
    largest = max(min(side / max(scales), SIDE_OF_IMAGE), 2 * margin + 2 * grid)
    spans = [_spans(length, int(largest), margin, grid) for length in (height, width)]
    return [
        Tile((rows, columns), (kept_rows, kept_columns))
        for (rows, kept_rows), (columns, kept_columns) in product(*spans)
    ]


def _up(length: float, grid: int) -> int:
    return ceil(length / grid) * grid


def _spans(length: int, largest: int, margin: int, grid: int) -> List[Tuple[slice, slice]]:
    """What is seen and what is kept along one axis."""
    if length <= largest:
        return [(slice(0, length), slice(0, length))]
    # The last tile ends where the image does, and begins on the grid as the others do.
    side = length - _up(length - largest, grid)
    step = (side - 2 * margin) // grid * grid
    count = ceil((length - side) / step) + 1
    starts = [min(index * step, length - side) for index in range(count)]
    ends = [start + side - margin for start in starts[:-1]] + [length]
    return [
        (slice(start, start + side), slice(begin, end))
        for start, begin, end in zip(starts, [0, *ends[:-1]], ends)
    ]
