"""The training loop, and its step as one graph."""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from fcn import checkpoint
from fcn.config import Config
from fcn.data.order import steps_per_epoch
from fcn.data.pipeline import train_batches
from fcn.data.records import DataSet
from fcn.distributed import SumOverRanks, World, gradient_sum
from fcn.loss import PixelCrossEntropy, ValidPixels
from fcn.model import FCN8s, Normalise, start_as_in_the_paper
from fcn.platform import Platform
from fcn.schedule import cosine_by_epoch
from fcn.status import Status
from fcn.stop import PREEMPTED, StopRequest
from fcn.weights import initialise


class TrainStep(nn.Cell):
    """One step of all ranks: images (n, H, W, 3) uint8 BGR, labels (n, H, W) uint8, stop () -> loss, stop.

    The loss is the sum over the global batch divided by its valid pixels, so neither the number of ranks nor
    which of them holds the ignored pixels matters. `stop` comes back summed over the ranks: all of them learn
    in the same step that one was asked to leave.
    """

    def __init__(
        self, net: nn.Cell, optimizer: nn.Optimizer, config: Config, platform: Platform, world: World
    ) -> None:
        super().__init__(auto_prefix=False)
        self.net = net
        self.optimizer = optimizer
        self.normalise = Normalise(config.image_mean, config.image_std)
        self.loss = PixelCrossEntropy(config.num_classes, config.ignore_label)
        self.valid_pixels = ValidPixels(config.ignore_label)
        # With the number of ranks: the loss is divided by the pixels of all of them, and what one adds to the
        # gradient would be too small for half precision.
        self.scale = config.loss_scale * world.size if platform.mixed_precision else 1.0
        self.sum = SumOverRanks(world.size)
        self.weights = optimizer.parameters
        self.gradients = ops.value_and_grad(self._scaled_loss, None, weights=self.weights)
        self.gradient_sum = gradient_sum(self.weights, world.size)
        self.map = ops.HyperMap()

    def _scaled_loss(self, images: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
        # Divided before the backward pass: gradients of a sum over millions of pixels do not fit half
        # precision.
        return self.loss(self.net(self.normalise(images)), labels) * (self.scale / valid)

    def construct(self, images: Tensor, labels: Tensor, stop: Tensor) -> Tuple[Tensor, Tensor]:
        sums = self.sum(ops.stack((self.valid_pixels(labels), stop)))
        valid = ops.maximum(sums[0], Tensor(1.0, ms.float32))  # an all-ignored batch has loss 0
        loss, gradients = self.gradients(images, labels, valid)
        gradients = self.gradient_sum(gradients)
        if self.scale != 1.0:
            gradients = self.map(ops.partial(_unscale, 1.0 / self.scale), gradients)
        loss = self.sum(loss) / self.scale
        return ops.depend(loss, self.optimizer(gradients)), sums[1]


def _unscale(factor: float, gradient: Tensor) -> Tensor:
    return gradient * factor


def build_network(config: Config, platform: Platform, for_training: bool = True) -> nn.Cell:
    """The network with this platform's precision; weights drawn from the run's seed."""
    ms.set_seed(config.seed)  # ranks must start equal: MindSpore sends no weights around
    net = FCN8s(config.architecture, platform.fc6_as_matmul and for_training)
    if config.paper_init:
        start_as_in_the_paper(net)
    return ms.amp.auto_mixed_precision(net, platform.amp_level) if platform.mixed_precision else net


def freeze_batch_norm(net: nn.Cell) -> None:
    """Use and keep the moving statistics; gamma and beta go on learning."""
    for _, cell in net.cells_and_names():
        if isinstance(cell, nn.BatchNorm2d):
            cell.use_batch_statistics = False


class Trainer:
    """Trains one rank's share of a run."""

    def __init__(
        self,
        config: Config,
        data: DataSet,
        run_dir: Path,
        platform: Platform,
        world: World,
        status: Status,
        stop: StopRequest,
    ) -> None:
        self.config, self.data, self.world, self.status, self.stop = config, data, world, status, stop
        self.folder = run_dir / "checkpoints"
        self.global_batch = config.batch_over(world.size)
        self.epoch_steps = steps_per_epoch(data.samples, self.global_batch)
        self.total_steps = config.train_epochs * self.epoch_steps
        self.net = build_network(config, platform)
        for line in initialise(self.net, config, data, world):
            print(line, flush=True)
        if config.freeze_bn:
            freeze_batch_norm(self.net)
        self.optimizer = nn.Momentum(
            self.net.trainable_params(), config.base_lr, config.momentum, weight_decay=config.weight_decay
        )
        self.step = TrainStep(self.net, self.optimizer, config, platform, world).set_train()

    def run(self) -> int:
        """Train to the last epoch. Returns the exit code: 0, or 75 where the run was asked to leave early."""
        self.status.phase("compile")
        batches = train_batches(
            self.data,
            self.config,
            start_step=0,
            total_steps=self.total_steps,
            global_batch=self.global_batch,
            rank=self.world.rank,
            world=self.world.size,
        )
        with closing(batches):
            for step in range(1, self.total_steps + 1):
                stop = self._one_step(step, batches)
                last = step == self.total_steps
                if last or stop or step % self.config.save_steps == 0:
                    self._save(step)
                if stop and not last:
                    return PREEMPTED
                if step == 1:
                    self.status.phase("train")
        return 0

    def _one_step(self, step: int, batches: Iterator[Any]) -> bool:
        epoch, step_in_epoch = self._place(step)
        learning_rate = cosine_by_epoch(self.config.base_lr, epoch - 1, self.config.train_epochs)
        if step_in_epoch == 1:
            ops.assign(self.optimizer.learning_rate, Tensor(learning_rate, ms.float32))
        started = time.perf_counter()
        self.status.enter("data", step)
        images, labels, _ = next(batches)
        fed = time.perf_counter()
        self.status.enter("step", step)
        asked = Tensor(float(self.stop.asked), ms.float32)
        loss_tensor, stop = self.step(Tensor(images), Tensor(labels), asked)
        loss = float(loss_tensor.asnumpy())
        ended = time.perf_counter()
        self.status.send(
            "step",
            step=step,
            epoch=epoch,
            loss=loss,
            lr=learning_rate,
            samples=self.global_batch,
            total_steps=self.total_steps,
            data_s=round(fed - started, 4),
            step_s=round(ended - started, 4),
        )
        if self.world.rank == 0:
            print(f"epoch: {epoch} step: {step_in_epoch}, loss is {loss}", flush=True)
        if not np.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss} at epoch {epoch} step {step_in_epoch}; lower base_lr, or look for a "
                f"label that is neither a class nor ignore_label; earlier checkpoints: {self.folder}"
            )
        return bool(stop.asnumpy() > 0)

    def _place(self, step: int) -> Tuple[int, int]:
        """Epoch and step within it, both counted from 1."""
        epoch, step_in_epoch = divmod(step - 1, self.epoch_steps)
        return epoch + 1, step_in_epoch + 1

    def _save(self, step: int) -> None:
        """Rank 0 writes; the others go on and wait in the next step."""
        if self.world.rank != 0:
            return
        self.status.enter("save", step)
        epoch, step_in_epoch = self._place(step)
        path = checkpoint.save(
            self.folder,
            f"{self.config.model}-{epoch}_{step_in_epoch}",
            self._state(),
            self._manifest(step, epoch),
            self.config.keep_checkpoint_max,
        )
        self.status.send("checkpoint", path=str(path), step=step)

    def _state(self) -> List[Tuple[str, Any]]:
        """Everything that the next step depends on: weights, batch-norm statistics, momentum."""
        parameters = list(self.net.get_parameters()) + list(self.optimizer.moments)
        return [(parameter.name, parameter) for parameter in parameters]

    def _manifest(self, step: int, epoch: int) -> Dict[str, Any]:
        config = self.config
        text = json.dumps(config.model_dump(), sort_keys=True)
        return {
            "step": step,
            "epoch": epoch,
            "architecture": {"model": config.model, **asdict(config.architecture)},
            "normalisation": config.normalisation,
            "seed": config.seed,
            "config_sha256": hashlib.sha256(text.encode()).hexdigest(),
            "data_fingerprint": self.data.fingerprint,
            "world_size": self.world.size,
            "global_batch": self.global_batch,
            "onednn_max_cpu_isa": os.environ.get("ONEDNN_MAX_CPU_ISA"),
            "versions": {"mindspore": ms.__version__, "numpy": np.__version__},
        }
