"""Class ids and probabilities of images of any size: what evaluation and prediction share."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

import cv2
import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from fcn.architecture import STRIDE
from fcn.config import Config
from fcn.distributed import World
from fcn.errors import DataError
from fcn.model import Normalise
from fcn.network import inference_network, set_inference_weights
from fcn.platform import Platform
from fcn.status import Status
from fcn.tiles import tiles

Size = Tuple[int, int]  # height and width, pixels
Shape = Tuple[int, int, int]  # rows, height and width of the graph's input

# Each padded shape is a graph to compile, so large images share coarse ones. Of PASCAL VOC's images, at most
# 500 pixels a side, this pads 11 % more pixels in 6 shapes; steps of 32 throughout are 6 % in 30 shapes.
_COARSE_STEP = 128
_FINE_UP_TO = 256
# `eval_batch_size` is meant for images of the size that the network is trained on; of larger ones a batch
# takes fewer, so that any image size needs about the same memory.
_BATCH_PIXELS = 512 * 512
_BATCHES_MIN = 8  # where there are as many images: a short list is to keep the devices of a server busy, too


class Predictor(nn.Cell):
    """uint8 BGR images (N, H, W, 3) -> class ids uint8 (N, H, W), probabilities float32 (N, classes, H, W).

    The probabilities are the mean over `scales` of the image and, with `flip`, their mirror images; the id is
    that of the largest.
    """

    def __init__(self, net: nn.Cell, config: Config) -> None:
        super().__init__(auto_prefix=False)
        self.normalise = Normalise(config.image_mean, config.image_std)
        self.net = net
        self.scales = tuple(config.scales)
        self.flip = config.flip
        self.views = len(config.scales) * (2 if config.flip else 1)

    def construct(self, images: Tensor) -> Tuple[Tensor, Tensor]:
        images = self.normalise(images)
        total = self._probabilities(images, self.scales[0])
        for scale in self.scales[1:]:
            total = total + self._probabilities(images, scale)
        if self.views > 1:
            total = total / self.views
        return total.argmax(axis=1).astype(ms.uint8), total

    def _probabilities(self, images: Tensor, scale: float) -> Tensor:
        size = images.shape[2:]
        # Rounded, and cut back by the network: any scale will do.
        scaled = _resize(images, (max(1, round(size[0] * scale)), max(1, round(size[1] * scale))))
        result = self._softmax(scaled)
        if self.flip:
            result = result + self._softmax(scaled.flip((3,))).flip((3,))
        return _resize(result, size)

    def _softmax(self, images: Tensor) -> Tensor:
        return ops.softmax(self.net(images), axis=1)


def _resize(images: Tensor, size: Size) -> Tensor:
    if images.shape[2:] == size:
        return images
    return ops.interpolate(images, size=size, mode="bilinear", align_corners=False)


@dataclass(frozen=True)
class Batch:
    """Images for one call of the graph.

    Attributes:
        members: their places in the list of images.
        shape: of the graph's input; rows past the members are fillers.
    """

    members: Tuple[int, ...]
    shape: Shape


def plan_batches(sizes: Sequence[Size], images_max: int, largest_scale: float = 1.0) -> List[Batch]:
    """Batches of images of one padded shape, with as few fillers as can be. Pure.

    They do not depend on the number of ranks, and a rank takes whole ones: the last bits of a prediction can
    depend on the place in the batch.

    Args:
        sizes: of each image.
        images_max: most images of 512 x 512 pixels in a batch; of larger ones fewer.
        largest_scale: factor on height and width at which the network sees the images.
    """
    images_max = min(images_max, ceil(len(sizes) / _BATCHES_MIN))
    groups: Dict[Size, List[int]] = {}
    for place, (height, width) in enumerate(sizes):
        groups.setdefault((padded(height), padded(width)), []).append(place)
    batches = []
    for (height, width), places in groups.items():
        pixels = height * width * max(1.0, largest_scale) ** 2
        most = max(1, min(images_max, int(images_max * _BATCH_PIXELS / pixels)))
        rows = ceil(len(places) / ceil(len(places) / most))
        for start in range(0, len(places), rows):
            batches.append(Batch(tuple(places[start : start + rows]), (rows, height, width)))
    return batches


def padded(side: int) -> int:
    """Height or width of the graph's input for an image's, pixels."""
    step = STRIDE if side <= _FINE_UP_TO else _COARSE_STEP
    return ceil(side / step) * step


@dataclass(frozen=True)
class Sample:
    """What was read of an image: uint8 BGR (height, width, 3), and its mask where it has one."""

    place: int
    image: np.ndarray
    truth: Optional[np.ndarray] = None


@dataclass(frozen=True)
class Prediction:
    """Class ids uint8 (height, width) of a sample at its own size.

    `probabilities` float32 (classes, height, width) where they were asked for.
    """

    sample: Sample
    ids: np.ndarray
    probabilities: Optional[np.ndarray]


class Inference:
    """A network with weights to be loaded, for images of any size, shared out over the ranks."""

    def __init__(
        self, config: Config, device: Platform, world: World, status: Status, with_probabilities: bool = False
    ) -> None:
        self._config, self._world, self._status = config, world, status
        self._net = inference_network(config, device)
        self._predictor = Predictor(self._net, config).set_train(False)
        self._with_probabilities = with_probabilities

    def load(self, values: Mapping[str, Any], source: str) -> None:
        """Take these parameters; raises WeightsError, which names `source`, where they do not fit."""
        set_inference_weights(self._net, values, self._config, source)

    def predict(self, sizes: Sequence[Size], read: Callable[[int], Sample]) -> Iterator[Prediction]:
        """The predictions of this rank's share. While a batch is computed, the next one's images are read.

        Args:
            sizes: of all images.
            read: the sample at a place in the list; called on several threads.
        """
        config, world = self._config, self._world
        batches = plan_batches(sizes, config.eval_batch_size, max(config.scales))
        done = 0
        mine = self._read_ahead(batches[world.rank :: world.size], read)
        for turn, (samples, shape) in enumerate(mine):
            self._status.enter("eval", done)
            yield from self._predict(samples, shape)
            # Of all ranks, which take turns of one batch each. Rank 0 has a batch in every turn.
            done += sum(len(batch.members) for batch in batches[turn * world.size : (turn + 1) * world.size])
            self._status.send("eval", done=done, total=len(sizes))

    def _read_ahead(
        self, batches: Sequence[Batch], read: Callable[[int], Sample]
    ) -> Iterator[Tuple[List[Sample], Shape]]:
        with ThreadPoolExecutor(self._config.data_workers) as readers:
            waiting = [readers.submit(read, place) for batch in batches[:1] for place in batch.members]
            for batch, following in zip(batches, [*batches[1:], None]):
                samples = [one.result() for one in waiting]
                waiting = [readers.submit(read, place) for place in following.members] if following else []
                yield samples, batch.shape

    def _predict(self, samples: Sequence[Sample], shape: Shape) -> List[Prediction]:
        all_ids, all_probabilities = self._compute(fill(samples, shape, self._config.image_mean))
        predictions = []
        for row, sample in enumerate(samples):
            height, width = sample.image.shape[:2]
            part = None if all_probabilities is None else all_probabilities[row, :, :height, :width]
            predictions.append(Prediction(sample, all_ids[row, :height, :width], part))
        return predictions

    def _compute(self, images: np.ndarray) -> Tuple[np.ndarray, Optional[np.ndarray]]:
        """Ids of padded images and, where they are asked for, probabilities; of large ones in tiles."""
        number, height, width = images.shape[:3]
        all_ids = np.empty((number, height, width), np.uint8)
        all_probabilities = None
        if self._with_probabilities:
            all_probabilities = np.empty((number, self._config.num_classes, height, width), np.float32)
        for tile in tiles(height, width, self._config.scales):
            (down, across), (rows, columns), (own_rows, own_columns) = tile.seen, tile.kept, tile.kept_of_seen
            ids, probabilities = self._predictor(Tensor(np.ascontiguousarray(images[:, down, across])))
            all_ids[:, rows, columns] = ids.asnumpy()[:, own_rows, own_columns]
            if all_probabilities is not None:
                kept = probabilities.asnumpy()[:, :, own_rows, own_columns]
                all_probabilities[:, :, rows, columns] = kept
        return all_ids, all_probabilities


def fill(samples: Sequence[Sample], shape: Shape, mean: Sequence[float]) -> np.ndarray:
    """The images as uint8 (rows, height, width, 3), padded at the bottom and on the right.

    mean: the padding, which OpenCV rounds to grey levels; normalised it is nearly zero, as the network pads
        inside.
    """
    rows, height, width = shape
    images = np.zeros((rows, height, width, 3), np.uint8)
    for row, sample in zip(images, samples):
        below, right = height - sample.image.shape[0], width - sample.image.shape[1]
        if min(below, right) < 0:
            raise DataError(f"image {sample.place + 1} of the list has grown since its size was read")
        cv2.copyMakeBorder(sample.image, 0, below, 0, right, cv2.BORDER_CONSTANT, dst=row, value=mean)
    return images
