"""One training step of all ranks, as graphs."""

from __future__ import annotations

from typing import Any, List, Optional, Tuple

import mindspore as ms
import numpy as np
from mindspore import ParameterTuple, Tensor, nn, ops

from fcn.config import Config
from fcn.distributed import SumOverRanks, World, gradient_sum
from fcn.loss import PixelCrossEntropy
from fcn.loss_scale import LossScale
from fcn.model import Normalise
from fcn.optimizer import Momentum
from fcn.platform import Platform


class TrainStep(nn.Cell):
    """The last slice of a step, and the update.

    The loss is the sum over the global batch divided by its valid pixels, so neither the number of ranks and
    slices nor which of them holds the ignored pixels matters.

    Inputs: images (n, H, W, 3) uint8 BGR; labels (n, H, W) uint8; totals (2,), this rank's valid pixels in
    all slices and 1 where it was asked to stop; learning_rate (); scale (), the factor on the loss; earlier
    (), what the slices before added to this rank's loss.

    Returns (2 + world size,): loss, ranks that were asked to stop, then a 1 for each rank whose own share of
    the loss is not finite. And (), whether the gradients were finite; where they were not, nothing changes.
    """

    def __init__(self, net: nn.Cell, config: Config, world: World, check_overflow: bool) -> None:
        super().__init__(auto_prefix=False)
        self.net = net
        self.normalise = Normalise(config.image_mean, config.image_std)
        self.loss = PixelCrossEntropy(config.num_classes, config.ignore_label, config.class_weights)
        self.optimizer = Momentum(list(net.trainable_params()), config)
        self.weights = self.optimizer.parameters
        self.gradients = ops.value_and_grad(self._scaled_loss, None, weights=self.weights)
        self.sum = SumOverRanks(world.size)
        self.gradient_sum = gradient_sum(self.weights, world.size)
        self.check_overflow = check_overflow
        self.clip_norm = config.clip_norm
        self.rank_mark = Tensor(np.eye(world.size, dtype=np.float32)[world.rank])
        self.map = ops.HyperMap()
        self.pending = (
            self.weights.clone(prefix="pending", init="zeros") if config.accumulate_steps > 1 else None
        )
        self.ema_decay = config.ema_decay
        moving = [p for p in net.get_parameters() if not p.requires_grad]  # batch norm's statistics
        self.averaged = ParameterTuple([*self.weights, *moving])
        self.average = _start_average(self.averaged) if config.ema_decay else None

    def _scaled_loss(self, images: Tensor, labels: Tensor, factor: Tensor) -> Tensor:
        # Divided before the backward pass: gradients of a sum over millions of pixels do not fit half
        # precision.
        return self.loss(self.net(self.normalise(images)), labels) * factor

    def share(
        self, images: Tensor, labels: Tensor, totals: Tensor, scale: Tensor
    ) -> Tuple[Tensor, Tuple[Tensor, ...], Tensor]:
        """Loss and gradients of a slice, both times `scale`, and the totals of all ranks."""
        totals = self.sum(totals)
        # An all-ignored batch has loss 0, not 0 / 0.
        valid = ops.select(totals[0] > 0, totals[0], Tensor(1.0, ms.float32))
        loss, gradients = self.gradients(images, labels, scale / valid)
        return loss, gradients, totals

    def construct(
        self,
        images: Tensor,
        labels: Tensor,
        totals: Tensor,
        learning_rate: Tensor,
        scale: Tensor,
        earlier: Tensor,
    ) -> Tuple[Tensor, Tensor]:
        loss, gradients, totals = self.share(images, labels, totals, scale)
        loss = loss + earlier
        if self.pending is not None:
            gradients = self.map(ops.add, gradients, self.pending)
        gradients = self.gradient_sum(gradients)
        finite = Tensor(True)
        if self.check_overflow:
            gradients = self.map(ops.partial(_times, 1.0 / scale), gradients)
            # Ascend looks at a register of the device, in which other ranks' overflows do not show.
            overflow = 1.0 - ms.amp.all_finite(gradients).astype(ms.float32)
            finite = self.sum(overflow.reshape(1))[0] == 0
        if finite:
            loss = ops.depend(loss, self._update(gradients, learning_rate))
        if self.pending is not None:
            loss = ops.depend(loss, self.map(_clear, ops.depend(self.pending, loss)))
        bad = ops.logical_not(ops.isfinite(loss)).astype(ms.float32) * self.rank_mark
        report = ops.concat((loss.reshape(1), bad))
        report = self.sum(report)
        return ops.concat((report[:1] / scale, totals[1:], report[1:])), finite

    def _update(self, gradients: Tuple[Tensor, ...], learning_rate: Tensor) -> Any:
        if self.clip_norm:
            gradients = ops.clip_by_global_norm(gradients, self.clip_norm)
        updated = self.optimizer(gradients, learning_rate)
        if self.average is not None:
            values = ops.depend(self.averaged, updated)
            updated = self.map(ops.partial(_move_average, self.ema_decay), self.average, values)
        return updated


class Accumulate(nn.Cell):
    """A slice of a step before the last: adds its gradients to the step's, returns its share of the loss."""

    def __init__(self, step: TrainStep) -> None:
        super().__init__(auto_prefix=False)
        self.step = step
        self.map = ops.HyperMap()

    def construct(self, images: Tensor, labels: Tensor, totals: Tensor, scale: Tensor) -> Tensor:
        """Inputs as TrainStep's."""
        loss, gradients, _ = self.step.share(images, labels, totals, scale)
        return ops.depend(loss, self.map(ops.assign_add, self.step.pending, gradients))


def _start_average(values: ParameterTuple) -> ParameterTuple:
    """The moving average starts at the present values, under `ema.NAME`."""
    return values.clone(prefix="ema", init="same")


def _times(factor: Tensor, gradient: Tensor) -> Tensor:
    return gradient * factor


def _clear(pending: ms.Parameter) -> Tensor:
    return ops.assign(pending, ops.zeros_like(pending))


def _move_average(decay: float, average: ms.Parameter, weight: Tensor) -> Tensor:
    return ops.assign(average, average * decay + weight * (1.0 - decay))


class Steps:
    """Runs steps on batches, slice by slice, with the loss scale that precision asks for."""

    def __init__(self, net: nn.Cell, config: Config, device: Platform, world: World) -> None:
        self.config = config
        mixed = device.precision(config) != "O0"
        self.loss_scale = LossScale(config.loss_scale if mixed else 1.0, mixed and config.dynamic_loss_scale)
        # With the number of ranks: the loss is divided by the pixels of all of them, and what one adds to the
        # gradient would be too small for half precision.
        self._scale_of_ranks = world.size if mixed else 1
        self.graph = TrainStep(net, config, world, check_overflow=mixed).set_train()
        self._accumulate: Optional[nn.Cell] = None
        if config.accumulate_steps > 1:
            self._accumulate = Accumulate(self.graph).set_train()

    def run(
        self, images: np.ndarray, labels: np.ndarray, rate: float, stop: bool = False
    ) -> Tuple[float, bool, List[int], bool]:
        """One step on this rank's samples: images (n, H, W, 3) and labels (n, H, W), uint8.

        stop: whether this rank was asked to. Returns the loss, whether any rank was asked to stop, the ranks
        whose share of the loss is not finite, and whether the gradients were; `loss_scale` wants to know.
        """
        totals = Tensor(np.array([self.valid(labels), stop], np.float32))
        scale = Tensor(self.loss_scale.value * self._scale_of_ranks, ms.float32)
        slices = self.config.accumulate_steps
        parts = zip(np.split(images, slices), np.split(labels, slices))
        *first, last = [(Tensor(image), Tensor(label)) for image, label in parts]
        earlier = Tensor(0.0, ms.float32)
        for part in first:
            assert self._accumulate is not None
            earlier = earlier + self._accumulate(*part, totals, scale)
        report, finite = self.graph(*last, totals, Tensor(rate, ms.float32), scale, earlier)
        loss, stops, *bad = report.asnumpy().tolist()
        bad_ranks = [rank for rank, is_bad in enumerate(bad) if is_bad]
        return loss, stops > 0, bad_ranks, bool(finite.asnumpy())

    def compile(self, images: int) -> None:
        """Compile the graphs for a rank's `images` samples of a step, without running them."""
        side, images = self.config.crop_size, images // self.config.accumulate_steps
        batch = (
            Tensor(np.zeros((images, side, side, 3), np.uint8)),
            Tensor(np.zeros((images, side, side), np.uint8)),
        )
        totals, number = Tensor(np.zeros(2, np.float32)), Tensor(0.0, ms.float32)
        if self._accumulate is not None:
            self._accumulate.compile(*batch, totals, number)
        self.graph.compile(*batch, totals, number, number, number)

    def valid(self, labels: np.ndarray) -> float:
        """Pixels that count, each as much as its class."""
        weights = self.config.class_weights
        if not weights:  # the usual case, quickly: the device waits
            return float(np.count_nonzero(labels != self.config.ignore_label))
        counts = np.bincount(labels.reshape(-1), minlength=256)
        return float(counts[: len(weights)] @ np.array(weights))
