"""Mean IoU over a list of images at their own size, shared out over the ranks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Sequence, Tuple

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from PIL import Image

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
    """uint8 BGR images (N, H, W, 3) -> class ids (N, H, W).

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


def _padded(side: int) -> int:
    step = STRIDE if side <= _FINE_UP_TO else _COARSE_STEP
    return -(-side // step) * step


def evaluate(
    net: nn.Cell, config: Config, world: World, status: Status, out: Path, masks: Optional[Path]
) -> Scores:
    """Score `net` on the validation list of `config`.

    The result is the same for every world size: so are the batches, and the integer confusion matrices are
    summed exactly. Writes `out/contact_sheet.png` (image, mask, prediction) on
    rank 0, and with `masks` each image's predicted mask at its own size as an indexed PNG.
    """
    items = read_list(Path(config.data_root), Path(config.data_lst))
    predictor = Predictor(net, config).set_train(False)
    matrix = np.zeros((config.num_classes, config.num_classes), np.int64)
    sheet: List[Tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    mean = np.round(config.image_mean).astype(np.uint8)
    done = 0
    share = batches_of(items, config.eval_batch_size)[world.rank :: world.size]
    for batch in _read_ahead(share):
        status.enter("eval", done)
        predictions = _predict(predictor, batch, config.eval_batch_size, mean)
        for sample, predicted in zip(batch, predictions):
            matrix += confusion(sample.truth, predicted, config.num_classes, config.ignore_label)
            if masks is not None:
                target = masks / f"{sample.item.name}.png"
                target.parent.mkdir(parents=True, exist_ok=True)  # a name may have folders in it
                save_mask(target, predicted.astype(np.uint8))
            if len(sheet) < _SHEET_ROWS:
                sheet.append((sample.image, sample.truth, predicted.astype(np.uint8)))
        done += len(batch)
        status.send("eval", done=min(done * world.size, len(items)), total=len(items))
    if world.rank == 0:
        contact_sheet(sheet, out / "contact_sheet.png")
    return scores(world.gather_sum(matrix))


def batches_of(items: Sequence[Item], size: int) -> List[List[Item]]:
    """Items of one padded shape together, at most `size` of them: the same batches for every world size.

    The last bits of a prediction can depend on the place in the batch, so a batch goes to a rank as a whole.
    """
    groups: Dict[Tuple[int, int], List[Item]] = {}
    for item in items:
        with Image.open(item.image_path) as picture:  # reads the header alone
            width, height = picture.size
        groups.setdefault((_padded(height), _padded(width)), []).append(item)
    return [group[i : i + size] for group in groups.values() for i in range(0, len(group), size)]


def _read_ahead(batches: Sequence[List[Item]]) -> Iterator[List[_Sample]]:
    """The batches' images and masks; while one is predicted the next is read."""
    with ThreadPoolExecutor(1) as reader:
        waiting = [reader.submit(_read, batch) for batch in batches[:1]]
        for following in batches[1:]:
            samples = waiting.pop().result()
            waiting.append(reader.submit(_read, following))
            yield samples
        yield from (last.result() for last in waiting)


def _read(batch: Sequence[Item]) -> List[_Sample]:
    return [_Sample(item, read_image(item.image_path), read_mask(item.mask_path)) for item in batch]


def _predict(predictor: nn.Cell, batch: Sequence[_Sample], size: int, mean: np.ndarray) -> List[np.ndarray]:
    """Class ids of each sample at its own size. The batch is filled up so that each shape is one graph."""
    height, width = map(_padded, batch[0].truth.shape)
    images = np.empty((size, height, width, 3), np.uint8)
    images[:] = mean  # what padding means to the network: normalised, it is nearly zero
    for row, sample in zip(images, batch):
        row[: sample.truth.shape[0], : sample.truth.shape[1]] = sample.image
    predicted = predictor(Tensor(images, ms.uint8)).asnumpy()
    return [p[: s.truth.shape[0], : s.truth.shape[1]] for p, s in zip(predicted, batch)]
