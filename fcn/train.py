"""The training loop of one rank."""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import closing, nullcontext
from dataclasses import asdict
from typing import Any, Dict, Iterator, List, Optional, Tuple

import mindspore as ms
import numpy as np

from fcn import inject, resume
from fcn.check_resume import INSTRUCTIONS, inexact
from fcn.checkpoint import STATES_KEPT, Checkpoint
from fcn.compile_cache import compile_cache
from fcn.data.order import steps_per_epoch
from fcn.data.pipeline import train_batches
from fcn.data.records import DataSet, open_dataset
from fcn.evaluate import Evaluator
from fcn.job import Job
from fcn.loss_scale import LossScale
from fcn.metrics_file import MetricsFile
from fcn.network import build_network
from fcn.saver import Saver
from fcn.schedule import learning_rate, start_rate
from fcn.step import Steps
from fcn.stop import PREEMPTED
from fcn.weights import initialise

VERSIONS = {"mindspore": ms.__version__, "numpy": np.__version__}


def work(job: Job) -> int:
    """Train this rank's share of a run; returns the exit code."""
    job.status.phase("data")
    # fcn.check has read every byte before the ranks were started.
    return Trainer(job, open_dataset(job.config.data_file, verify=False)).run()


class Trainer:
    """Trains one rank's share of a run."""

    def __init__(self, job: Job, data: DataSet) -> None:
        self.config, self.world, self.status, self.stop = job.config, job.world, job.status, job.stop
        self.data = data
        self.folder = job.run_dir / "checkpoints"
        self._cache = compile_cache(job.run_dir, self.config, self.world)
        self.metrics = MetricsFile(job.run_dir) if self.world.rank == 0 else None
        config = self.config
        self.global_batch = config.batch_over(self.world.size)
        self.epoch_steps = steps_per_epoch(data.samples, self.global_batch)
        self.total_steps = config.train_epochs * self.epoch_steps
        if config.scale_lr:
            self._say(f"base_lr {config.base_lr} scaled to {start_rate(config, self.global_batch)}")
        found, damaged = resume.choose(self.folder, self.world)
        self.net = build_network(config, job.device)
        weights = [] if found else initialise(self.net, config, data, self.world)
        for line in [*damaged, *weights]:
            self._say(line)
        self.steps = Steps(self.net, config, job.device, self.world)
        self.evaluator: Optional[Evaluator] = None
        if config.eval_epochs:
            self.evaluator = Evaluator(config, job.device, self.world, self.status)
        keep = max(config.keep_checkpoint_max, STATES_KEPT)
        saves = self.world.rank == 0
        self.saver = Saver(self.folder, self._weights(), self._moments(), keep, job.status, saves)
        self.start_step = 0
        if found:
            self._go_on_from(found)

    def run(self) -> int:
        """Train to the last epoch. Returns the exit code: 0, or 75 where the run was asked to leave early."""
        with closing(self.saver):
            if self._evaluation_is_due(self.start_step):  # perhaps it was broken off
                self._evaluate(self.start_step)
            code = self._take_steps() if self.start_step < self.total_steps else 0
            self.saver.finish(stay=code == 0)
        return code

    def _take_steps(self) -> int:
        self.status.phase("compile")
        batches = train_batches(
            self.data,
            self.config,
            start_step=self.start_step,
            total_steps=self.total_steps,
            global_batch=self.global_batch,
            rank=self.world.rank,
            world=self.world.size,
        )
        with closing(batches):
            with self._cache:
                self.steps.compile(self.global_batch // self.world.size)
            self.stop.agree_with_others()
            for step in range(self.start_step + 1, self.total_steps + 1):
                stop = self._one_step(step, batches)
                if step == self.start_step + 1:
                    self.status.phase("train")
                last, evaluate = step == self.total_steps, self._evaluation_is_due(step)
                waits = last or evaluate or stop
                if waits or step % self.config.save_steps == 0 or self._is_permanent(step):
                    self._save(step, last=waits)
                else:
                    self.saver.tell()
                if stop and (evaluate or not last):
                    return PREEMPTED  # with seconds left: it is evaluated when the run goes on
                if evaluate:
                    self._evaluate(step)
        return 0

    def _go_on_from(self, found: Checkpoint) -> None:
        resume.restore(found, self._state(), self.data)
        manifest = found.manifest
        self.start_step = found.step
        self.steps.loss_scale = LossScale(**manifest["loss_scale"])
        self._say(f"going on from {found.path}, step {found.step} of {self.total_steps}")
        here = {**VERSIONS, INSTRUCTIONS: os.environ.get(INSTRUCTIONS)}
        for line in inexact(manifest, self.config, self.world.size, here):
            self._say(line)

    def _one_step(self, step: int, batches: Iterator[Any]) -> bool:
        epoch, step_in_epoch = self._place(step)
        rate = learning_rate(self.config, step - 1, self.epoch_steps, self.global_batch)
        started = time.perf_counter()
        self.status.enter("data", step)
        inject.before(step)
        images, labels, ids = next(batches)
        fed = time.perf_counter()
        self.status.enter("step", step)
        loss, stop, bad_ranks, finite = self.steps.run(images, labels, rate, self.stop.asked)
        ended = time.perf_counter()
        self._say(f"epoch: {epoch} step: {step_in_epoch}, loss is {loss}")
        where = f"epoch {epoch} step {step_in_epoch}"
        if bad_ranks:
            raise FloatingPointError(self._not_finite(where, loss, bad_ranks, ids))
        self._tell(
            "step",
            step=step,
            epoch=epoch,
            step_in_epoch=step_in_epoch,
            loss=loss,
            lr=rate,
            samples=self.global_batch,
            total_steps=self.total_steps,
            data_s=round(fed - started, 4),
            step_s=round(ended - started, 4),
            skipped_steps=self.steps.loss_scale.skipped + (not finite),
        )
        self.steps.loss_scale.update(finite, where)
        return stop

    def _not_finite(self, where: str, loss: float, bad_ranks: List[int], ids: np.ndarray) -> str:
        ranks = ", ".join(map(str, bad_ranks))
        mine = f"; its samples: {', '.join(map(str, ids.tolist()))}" if self.world.rank in bad_ranks else ""
        return (
            f"the loss is {loss} at {where}, from rank {ranks}{mine}; lower base_lr, or look for a label "
            f"that is neither a class nor ignore_label; nothing was saved; earlier checkpoints: {self.folder}"
        )

    def _tell(self, event: str, **fields: Any) -> None:
        self.status.send(event, **fields)
        if self.metrics is not None:
            self.metrics.append(event, **fields)

    def _say(self, text: str) -> None:
        if self.world.rank == 0:
            print(text, flush=True)

    def _place(self, step: int) -> Tuple[int, int]:
        """Epoch and step within it, both counted from 1."""
        epoch, step_in_epoch = divmod(step - 1, self.epoch_steps)
        return epoch + 1, step_in_epoch + 1

    def _evaluation_is_due(self, step: int) -> bool:
        if self.evaluator is None or not self._ends_epoch(step):
            return False
        return self._place(step)[0] % self.config.eval_epochs == 0 or step == self.total_steps

    def _ends_epoch(self, step: int) -> bool:
        return step > 0 and step % self.epoch_steps == 0

    def _is_permanent(self, step: int) -> bool:
        """Whether the checkpoint of a step is kept for good."""
        every = self.config.keep_every_epochs
        return every > 0 and self._ends_epoch(step) and self._place(step)[0] % every == 0

    def _evaluate(self, step: int) -> None:
        """Score the present weights, which were saved, on all ranks; rank 0 keeps the best."""
        assert self.evaluator is not None
        self.saver.finish(stay=False)
        unsaved = int(self.world.gather_sum(np.array([self.saver.has_failed], np.int64))[0])
        with self.status.during("eval"), nullcontext() if unsaved else self.stop.leaving_at_once():
            result = self.evaluator.score(self._weights_to_score(), f"the weights of step {step}")
        epoch, _ = self._place(step)
        if self.world.rank == 0:
            self._tell(
                "metric",
                step=step,
                epoch=epoch,
                mean_iou=result.mean_iou,
                pixel_accuracy=result.pixel_accuracy,
            )
            print(f"epoch: {epoch}, mean IoU {result.mean_iou}", flush=True)
        self.saver.save(step, self._name(step), self._manifest(step), regular=False, score=result.mean_iou)

    def _weights_to_score(self) -> Dict[str, np.ndarray]:
        """What is evaluated: the moving average where there is one, rank 0's batch-norm statistics."""
        values = {parameter.name: parameter.asnumpy() for parameter in self.net.get_parameters()}
        if self.steps.graph.average is not None:
            values.update(
                {p.name: a.asnumpy() for p, a in zip(self.steps.graph.averaged, self.steps.graph.average)}
            )
        moving = [name for name in values if ".moving_" in name]
        of_rank_0 = self.world.from_rank_0(np.concatenate([values[name] for name in moving]))
        ends = np.cumsum([values[name].size for name in moving])
        values.update(zip(moving, np.split(of_rank_0, ends[:-1])))
        return values

    def _save(self, step: int, last: bool) -> None:
        if self.metrics is not None:
            self.metrics.sync()
        self.saver.save(step, self._name(step), self._manifest(step), regular=True, last=last)

    def _name(self, step: int) -> str:
        """Of a checkpoint."""
        epoch, step_in_epoch = self._place(step)
        return f"{self.config.model}-{epoch}_{step_in_epoch}"

    def _weights(self) -> List[ms.Parameter]:
        """What can be scored: weights, batch-norm statistics, their moving average."""
        return [*self.net.get_parameters(), *(self.steps.graph.average or ())]

    def _moments(self) -> List[ms.Parameter]:
        return list(self.steps.graph.optimizer.moments)

    def _state(self) -> List[Tuple[str, ms.Parameter]]:
        """Everything that the next step depends on, by name."""
        return [(parameter.name, parameter) for parameter in (*self._weights(), *self._moments())]

    def _manifest(self, step: int) -> Dict[str, Any]:
        config = self.config
        text = json.dumps(config.model_dump(), sort_keys=True)
        return {
            "step": step,
            "epoch": self._place(step)[0],
            "permanent": self._is_permanent(step),
            "loss_scale": self.steps.loss_scale.state(),
            "architecture": {"model": config.model, **asdict(config.architecture)},
            "normalisation": config.normalisation,
            "seed": config.seed,
            "config_sha256": hashlib.sha256(text.encode()).hexdigest(),
            "data_fingerprint": self.data.fingerprint,
            "world_size": self.world.size,
            "global_batch": self.global_batch,
            "onednn_max_cpu_isa": os.environ.get(INSTRUCTIONS),
            "versions": VERSIONS,
        }
