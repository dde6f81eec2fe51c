"""Checks a configuration, its data and its checkpoint before any worker starts: `python -m fcn.check
train|eval`.

Prints one JSON object: ok, errors, warnings, config (resolved), data. Imports no framework.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import yaml

from fcn import checkpoint
from fcn.answer import Parser, answer
from fcn.architecture import parameter_count
from fcn.config import Config, load_config
from fcn.data.listing import describe, read_list, scan_list
from fcn.data.order import steps_per_epoch
from fcn.data.records import DataSet, check_labels, open_dataset
from fcn.data.samples import check_all
from fcn.errors import ConfigError, DataError, WeightsError
from fcn.pretrained import check_pretrained
from fcn.vgg16 import read_vgg16

_BYTES = 4  # of a float32 value


def check_train(config: Config, world_size: int, run_root: Path) -> Tuple[Dict[str, Any], List[str]]:
    """Facts about the data and warnings; raises FcnError on what would stop the run."""
    if not config.data_file:
        raise ConfigError(
            "data_file: no training data named; `fcn-launch data build` makes a MindRecord file"
        )
    data = open_dataset(config.data_file)
    check_labels(data, config.num_classes, config.ignore_label)
    global_batch = config.batch_over(world_size)
    if data.samples < global_batch:
        raise DataError(
            f"{config.data_file}: {data.samples} samples are fewer than one step takes "
            f"({world_size} ranks, global batch {global_batch}); lower batch_size, or use fewer devices"
        )
    if config.data_root and config.data_lst:
        read_list(config.data_root, config.data_lst)  # `eval` will want it when the training is over
    warnings: List[str] = []
    if config.ckpt_vgg16:
        warnings += read_vgg16(Path(config.ckpt_vgg16), config).warnings
    if config.ckpt_pre_trained:
        check_pretrained(Path(config.ckpt_pre_trained), config)
    warnings += _disk(config, data, global_batch, run_root)
    return {
        "samples": data.samples,
        "fingerprint": data.fingerprint,
        "files": [str(f) for f in data.files],
    }, warnings


def _disk(config: Config, data: DataSet, global_batch: int, run_root: Path) -> List[str]:
    """Compare what the run will keep with what the disk has: full after days is too late."""
    arch = config.architecture
    one = (parameter_count(arch) + parameter_count(arch, trainable_only=True)) * _BYTES
    steps = config.train_epochs * steps_per_epoch(data.samples, global_batch)
    kept = min(config.keep_checkpoint_max, -(-steps // config.save_steps))
    free = shutil.disk_usage(_existing(run_root)).free
    # While one is being written, the one it replaces is still there.
    if free < 2 * one:
        raise ConfigError(
            f"train_dir: {run_root}: {_size(free)} free, two checkpoints of this network take "
            f"{_size(2 * one)}; free space, or set train_dir to another disk"
        )
    if free < (kept + 1) * one:
        fits = max(1, int(free // one) - 1)
        return [
            f"keep_checkpoint_max: {kept} checkpoints will take {_size(kept * one)}, {run_root} has "
            f"{_size(free)} free; set keep_checkpoint_max={fits} or lower, or save_steps higher"
        ]
    return []


def _size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def check_eval(config: Config, checkpoints: Optional[Path]) -> Tuple[Config, Dict[str, Any], List[str]]:
    """The configuration with its checkpoint chosen and the network's shape taken from it, facts, warnings."""
    warnings: List[str] = []
    if checkpoints is not None:
        found, warnings = checkpoint.newest(checkpoints)
        if found is None:
            damaged = "".join(f"\n  {line}" for line in warnings)
            raise WeightsError(f"{checkpoints}: no usable checkpoint{damaged}")
    elif not config.ckpt_file:
        raise ConfigError("ckpt_file: no checkpoint named; give --ckpt FILE or --run RUN")
    else:
        path = Path(config.ckpt_file)
        if path.is_file() and not path.with_suffix(".json").is_file():
            found = None  # from elsewhere: shapes are checked when it is loaded
            warnings = [f"{path}: has no manifest, so neither its bytes nor its normalisation can be checked"]
        else:
            found = checkpoint.verify(path)
    if found is not None:
        norm = found.manifest["normalisation"]
        stored = {
            **found.manifest["architecture"],
            "image_mean": norm["image_mean"],
            "image_std": norm["image_std"],
        }
        known = {**config.model_dump(), **stored, "ckpt_file": str(found.path)}
        config, _ = load_config(base=known)
    if not config.data_root or not config.data_lst:
        raise ConfigError("data_root, data_lst: no validation list named; give --root DIR and --list FILE")
    items, problems = scan_list(config.data_root, config.data_lst)
    problems += check_all(items, config.num_classes, config.ignore_label)[1]
    if problems:
        raise DataError(describe(config.data_lst, problems))
    return config, {"images": len(items)}, warnings


def main(argv: Optional[List[str]] = None) -> int:
    """Print the answer; 0 where all is well, 2 where something is not."""

    def work() -> Dict[str, Any]:
        args = _parser().parse_args(argv)
        config, warnings = _load(args)
        if args.verb == "train":
            data, more = check_train(config, args.world_size, Path(config.train_dir))
        else:
            config, data, more = check_eval(config, args.checkpoints)
        resolved = _with_absolute_paths(config)
        return {"errors": [], "warnings": warnings + more, "config": resolved, "data": data}

    return answer(work)


def _parser() -> Parser:
    parser = Parser(prog="python -m fcn.check", allow_abbrev=False)
    parser.add_argument("verb", choices=["train", "eval"])
    parser.add_argument("--config", help="YAML file or recipe")
    parser.add_argument("--run", type=Path, help="start from the configuration in this run's run.yaml")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--world-size", type=int, default=1)
    parser.add_argument("--checkpoints", type=Path, help="eval: the newest good checkpoint of this folder")
    return parser


def _load(args: argparse.Namespace) -> Tuple[Config, List[str]]:
    frozen = yaml.safe_load((args.run / "run.yaml").read_text())["config"] if args.run else {}
    return load_config(args.config, args.overrides, frozen)


def _with_absolute_paths(config: Config) -> Dict[str, Any]:
    """Workers may have another working directory."""
    values = config.model_dump()
    for key in ("data_file", "data_root", "data_lst", "ckpt_vgg16", "ckpt_pre_trained", "ckpt_file"):
        values[key] = str(Path(values[key]).absolute()) if values[key] else ""
    return values


if __name__ == "__main__":
    sys.exit(main())
