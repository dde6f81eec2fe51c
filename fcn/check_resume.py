"""Checks whether a run can go on, and with what: another result than before is never made unnoticed.

Imports no framework.
"""

from __future__ import annotations

from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence

import yaml

from fcn import checkpoint
from fcn.checkpoint import Checkpoint
from fcn.config import Config
from fcn.config_file import load_config
from fcn.data.order import steps_per_epoch
from fcn.data.records import open_dataset
from fcn.errors import ConfigError, DataError, WeightsError
from fcn.schedule import learning_rate

# What may change when a run goes on: where its data are, how it reads, saves and scores. Files of data are
# compared by their content.
FREE = {
    *("data_file", "data_root", "data_lst", "data_workers"),
    *("save_steps", "keep_checkpoint_max", "keep_every_epochs"),
    *("eval_epochs", "eval_batch_size", "ckpt_file"),
}
EXTENDED = "train_epochs"  # may grow
INSTRUCTIONS = "ONEDNN_MAX_CPU_ISA"  # in a worker's environment: those that it computes with


class Resumption(NamedTuple):
    """How a run goes on.

    Attributes:
        config: what run.yaml is to hold from now on.
        planned: the number of devices that it was made for.
        step: done so far; 0 where there is no checkpoint.
        lines: what a person should know, damaged checkpoints first.
    """

    config: Config
    planned: int
    step: int
    total_steps: int
    lines: List[str]


def check_resume(run: Path, overrides: Sequence[str], world_size: int) -> Resumption:
    """What the run in this directory would do with these overrides on so many devices.

    Raises FcnError: another model, data set or number of classes, a setting that changes the result, devices
    that cannot share the global batch. That the data are whole is still to be checked.
    """
    record = yaml.safe_load((run / "run.yaml").read_text())
    planned = int(record["options"]["world_size"])
    before = Config(**record["config"])
    config, remarks = load_config(None, overrides, record["config"])
    _require_same_result(before, config)
    made = config.on(world_size, planned)
    data = open_dataset(config.data_file, verify=False)
    if data.fingerprint != record["data"]["fingerprint"]:
        raise DataError(
            f"data_file: {data.path}: is not the data set that {run} was trained on "
            f"({record['config']['data_file']}); name that one, or start another run"
        )
    found, damaged = checkpoint.newest(run / "checkpoints", to_resume=True)
    global_batch = config.batch_over(planned)
    epoch_steps = steps_per_epoch(data.samples, global_batch)
    total_steps = config.train_epochs * epoch_steps
    lines = [*remarks, *damaged]
    if found is None:
        lines.append(f"{run}: no checkpoint to go on from: it begins at step 1")
    else:
        _require_own(found, config, global_batch)
        lines.append(f"goes on from {found.path}, step {found.step} of {total_steps}")
        lines += _extension(before, config, found.step, epoch_steps, global_batch)
        lines += inexact(found.manifest, made, world_size, _installed())
    return Resumption(config, planned, found.step if found else 0, total_steps, lines)


def _require_same_result(before: Config, now: Config) -> None:
    old, new = before.model_dump(), now.model_dump()
    refused = [
        f"{key}: {new[key]!r} in place of {old[key]!r} changes the result; leave it out, or start another run"
        for key in new
        if key not in FREE and key != EXTENDED and old[key] != new[key]
    ]
    if now.train_epochs < before.train_epochs:
        refused.append(
            f"train_epochs: {now.train_epochs} is below the run's {before.train_epochs}; it may only grow"
        )
    if refused:
        raise ConfigError("\n".join(refused))


def _require_own(found: Checkpoint, config: Config, global_batch: int) -> None:
    """Raises WeightsError where the checkpoint was made by another training, and was put here."""
    theirs = {**found.manifest["architecture"], **found.manifest["normalisation"]}
    theirs.update(seed=found.manifest["seed"], global_batch=found.manifest["global_batch"])
    ours = {**config.model_dump(mode="json"), "global_batch": global_batch}
    wrong = [
        f"{key} {value!r}, not {ours[key]!r}"
        for key, value in theirs.items()
        if key in ours and not _same(value, ours[key])
    ]
    if wrong:
        raise WeightsError(f"{found.path}: is of another training: {', '.join(wrong)}; take it away")


def _same(one: Any, other: Any) -> bool:
    return list(one) == list(other) if isinstance(one, (list, tuple)) else bool(one == other)


def _extension(before: Config, now: Config, step: int, epoch_steps: int, global_batch: int) -> List[str]:
    """What more epochs do to the learning rate."""
    if now.train_epochs == before.train_epochs:
        return []
    epochs = f"train_epochs: {now.train_epochs} in place of {before.train_epochs}"
    if now.lr_schedule == "step":
        return [f"{epochs}: the learning rate stays what lr_steps {now.lr_steps} make it"]
    old, new = (learning_rate(config, step, epoch_steps, global_batch) for config in (before, now))
    was = f"in place of {old:.4g}" if step < before.train_epochs * epoch_steps else "where it had ended"
    return [
        f"{epochs}: lr_schedule {now.lr_schedule} is stretched: step {step + 1} has learning rate {new:.4g} "
        f"{was}; the steps before keep what they had, so that it is not the training that so many epochs "
        "would have been from the start"
    ]


def inexact(
    manifest: Mapping[str, Any], config: Config, world_size: int, here: Mapping[str, Optional[str]]
) -> List[str]:
    """Why the result is not to the last bit that of a run without the interruption.

    config: as it is on these devices. here: what else decides last bits, by name, as far as it is known.
    """
    lines = []
    if manifest["world_size"] != world_size:
        images = config.batch_over(world_size) // (world_size * config.accumulate_steps)
        slices = f"{config.accumulate_steps} slices of " if config.accumulate_steps > 1 else ""
        before = manifest["world_size"]
        lines.append(
            f"{world_size} device{'s' * (world_size > 1)} in place of {before}: the same global batches in "
            f"the same order at the same rates, each device with {slices}{images}; not to the last bit what "
            f"{before} would give: sums have another order, and batch norm's statistics are those of a "
            "device's slice"
        )
    then = {**manifest["versions"], INSTRUCTIONS: manifest["onednn_max_cpu_isa"]}
    changed = [f"{name} {now} in place of {then[name]}" for name, now in here.items() if now != then[name]]
    if changed:
        lines.append(f"{', '.join(changed)}: may not give the same last bits")
    return lines


def _installed() -> Dict[str, Optional[str]]:
    with suppress(PackageNotFoundError):
        return {name: version(name) for name in ("mindspore", "numpy")}
    return {}  # only workers have MindSpore, and will say it
