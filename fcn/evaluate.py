"""Mean IoU over a list of images at their own size, shared out over the ranks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Sequence, Tuple

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from fcn.architecture import STRIDE
from fcn.config import Config
from fcn.data.listing import Item, read_image, read_list, read_mask
from fcn.distributed import World
from fcn.metrics import Scores, confusion, scores
from fcn.model import Normalise
from fcn.pictures import contact_sheet, save_mask
from fcn.status import Status

# Each padded shape is compiled once, so large images share coarse ones.
_COARSE_STEP = 128
_FINE_UP_TO = 256
_SHEET_ROWS = 8


class Predictor(nn.Cell):
    """uint8 BGR images (N, H, W, 3) -> class ids (N, H, W) int32.

    The class of the largest probability, summed over `scales` of the image and, with `flip`, their mirror
    images.
    """

    def __init__(self, net: nn.Cell, config: Config) -> None:
        super().__init__(auto_prefix=False)
        self.normalise = Normalise(config.image_mean, config.image_std)
        self.net = net
        self.scales = tuple(config.scales)
        self.flip = config.flip
        self.plain = self.scales == (1.0,) and not config.flip

    def construct(self, images: Tensor) -> Tensor:
        images = self.normalise(images)
        if self.plain:
            return self.net(images).argmax(axis=1)
        total = self._probabilities(images, self.scales[0])
        for scale in self.scales[1:]:
            total = total + self._probabilities(images, scale)
        return total.argmax(axis=1)

    def _probabilities(self, images: Tensor, scale: float) -> Tensor:
        size = images.shape[2:]
        # Rounded, and cut back by the network: any scale will do.
        scaled = _resize(images, (max(1, round(size[0] * scale)), max(1, round(size[1] * scale))))
        result = ops.softmax(self.net(scaled), axis=1)
        if self.flip:
            result = result + ops.softmax(self.net(scaled.flip((3,))), axis=1).flip((3,))
        return _resize(result, size)


def _resize(images: Tensor, size: Tuple[int, int]) -> Tensor:
    if images.shape[2:] == size:
        return images
    return ops.interpolate(images, size=size, mode="bilinear", align_corners=False)


@dataclass
class _Sample:
    item: Item
    image: np.ndarray
    truth: np.ndarray

    @property
    def padded_shape(self) -> Tuple[int, int]:
        height, width = self.truth.shape
        return _padded(height), _padded(width)


def _padded(side: int) -> int:
    step = STRIDE if side <= _FINE_UP_TO else _COARSE_STEP
    return -(-side // step) * step


def evaluate(
    net: nn.Cell, config: Config, world: World, status: Status, out: Path, masks: Optional[Path]
) -> Scores:
    """Score `net` on the validation list of `config`.

    The result is the same for every world size: an image's prediction depends on the image alone, and the
    integer confusion matrices are summed exactly. Writes `out/contact_sheet.png` (image, mask, prediction) on
    rank 0, and with `masks` each image's predicted mask at its own size as an indexed PNG.
    """
    items = read_list(Path(config.data_root), Path(config.data_lst))
    predictor = Predictor(net, config).set_train(False)
    matrix = np.zeros((config.num_classes, config.num_classes), np.int64)
    sheet: List[Tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    mean = np.round(config.image_mean).astype(np.uint8)
    done = 0
    for batch in _batches(items[world.rank :: world.size], config.eval_batch_size):
        predictions = _predict(predictor, batch, config.eval_batch_size, mean)
        for sample, predicted in zip(batch, predictions):
            matrix += confusion(sample.truth, predicted, config.num_classes, config.ignore_label)
            if masks is not None:
                save_mask(masks / f"{sample.item.name}.png", predicted.astype(np.uint8))
            if len(sheet) < _SHEET_ROWS:
                sheet.append((sample.image, sample.truth, predicted.astype(np.uint8)))
        done += len(batch)
        status.send("eval", done=min(done * world.size, len(items)), total=len(items))
    if world.rank == 0:
        contact_sheet(sheet, out / "contact_sheet.png")
    return scores(world.gather_sum(matrix))


def _batches(items: Sequence[Item], size: int) -> Iterator[List[_Sample]]:
    """Samples of one padded shape together, at most `size` at a time, read ahead by a thread."""
    waiting: Dict[Tuple[int, int], List[_Sample]] = {}
    with ThreadPoolExecutor(1) as reader:
        ahead = [reader.submit(_read, item) for item in items[:size]]
        for index in range(len(items)):
            if index + size < len(items):
                ahead.append(reader.submit(_read, items[index + size]))
            sample = ahead.pop(0).result()
            group = waiting.setdefault(sample.padded_shape, [])
            group.append(sample)
            if len(group) == size:
                yield waiting.pop(sample.padded_shape)
    yield from waiting.values()


def _read(item: Item) -> _Sample:
    return _Sample(item, read_image(item.image_path), read_mask(item.mask_path))


def _predict(predictor: nn.Cell, batch: Sequence[_Sample], size: int, mean: np.ndarray) -> List[np.ndarray]:
    """Class ids of each sample at its own size. The batch is filled up so that each shape is one graph."""
    height, width = batch[0].padded_shape
    images = np.empty((size, height, width, 3), np.uint8)
    images[:] = mean  # what padding means to the network: normalised, it is nearly zero
    for row, sample in zip(images, batch):
        row[: sample.truth.shape[0], : sample.truth.shape[1]] = sample.image
    predicted = predictor(Tensor(images, ms.uint8)).asnumpy()
    return [p[: s.truth.shape[0], : s.truth.shape[1]] for p, s in zip(predicted, batch)]
