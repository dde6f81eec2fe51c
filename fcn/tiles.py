"""Cutting an image that is too large for one call of the network into tiles that overlap. Pure."""

from __future__ import annotations

from itertools import product
from math import ceil
from typing import List, NamedTuple, Tuple

from fcn.architecture import STRIDE

SIDE = 2048  # of a tile, pixels as the network sees them: about 3 GB of activations at the published width
# What a pixel of the scores depends on: fc6 sees 404 pixels (Long, Shelhamer, Darrell, CVPR 2015, figure 3's
# network), and the three upsamplings mix neighbours of 32, 16 and 8 pixels.
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


def tiles(height: int, width: int, side: int = SIDE) -> List[Tile]:
    """Tiles of one size, at most `side` high and wide, that together keep each pixel once.

    height, width: multiples of the network's stride. At scale 1 the answers are those of the whole image.
    """
    side = max(side, 3 * MARGIN)
    return [
        Tile((rows, columns), (kept_rows, kept_columns))
        for (rows, kept_rows), (columns, kept_columns) in product(_spans(height, side), _spans(width, side))
    ]


def _spans(length: int, side: int) -> List[Tuple[slice, slice]]:
    """What is seen and what is kept along one axis."""
    if length <= side:
        return [(slice(0, length), slice(0, length))]
    step = side - 2 * MARGIN
    count = ceil((length - 2 * MARGIN) / step)
    starts = [min(index * step, length - side) for index in range(count)]
    ends = [start + side - MARGIN for start in starts[:-1]] + [length]
    return [
        (slice(start, start + side), slice(begin, end))
        for start, begin, end in zip(starts, [0, *ends[:-1]], ends)
    ]
