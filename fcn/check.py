"""Checks a verb's configuration, data and checkpoint before any worker starts: `python -m fcn.check VERB`.

Prints one JSON object: ok, errors, warnings, config (resolved), data, and the verb's options for its worker.
Imports no framework.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import yaml

from fcn.answer import Parser, answer
from fcn.architecture import STRIDE, parameter_count
from fcn.check_export import FORMATS, check_export
from fcn.check_resume import check_resume
from fcn.check_use import check_eval, check_predict, new_folder, require_room, with_checkpoint
from fcn.checkpoint import STATES_KEPT
from fcn.config import Config
from fcn.config_file import given, load_config
from fcn.data.listing import read_list
from fcn.data.order import steps_per_epoch
from fcn.data.records import DataSet, check_labels, open_dataset
from fcn.errors import ConfigError, DataError
from fcn.files import free_bytes, in_megabytes
from fcn.pretrained import check_pretrained
from fcn.schedule import start_rate
from fcn.vgg16 import read_vgg16

_BYTES = 4  # of a float32 value


def check_train(
    config: Config, world_size: int, run_root: Path, platform: str = "cpu", begins: bool = True
) -> Tuple[Dict[str, Any], List[str]]:
    """Facts about data and initial weights, and warnings; raises FcnError on what would stop the run.

    begins: False where it goes on from a checkpoint, and needs no weights to start from.
    """
    if not config.data_file:
        raise ConfigError(
            "data_file: no training data named; `fcn-launch data build` makes a MindRecord file"
        )
    data = _check_steps(config, world_size, platform)
    global_batch = config.batch_over(world_size)
    if config.eval_epochs:
        check_eval(config)
    elif config.data_root and config.data_lst:
        read_list(config.data_root, config.data_lst)  # `eval` will want it when the training is over
    warnings: List[str] = []
    weights: List[str] = []
    if config.ckpt_vgg16 and begins:
        vgg16 = read_vgg16(Path(config.ckpt_vgg16), config)
        weights += vgg16.report
        warnings += vgg16.warnings
    if config.ckpt_pre_trained and begins:
        weights += check_pretrained(Path(config.ckpt_pre_trained), config)
    if config.freeze_bn and begins and not config.ckpt_pre_trained:
        warnings.append(
            "freeze_bn: the batch norms of layers that start anew stay at mean 0, variance 1; it is meant "
            "for going on from an FCN-8s checkpoint (ckpt_pre_trained)"
        )
    warnings += _disk(config, data, global_batch, run_root)
    if config.scale_lr:
        warnings.append(
            f"scale_lr: base_lr {config.base_lr:g} becomes {start_rate(config, global_batch):g}: the global "
            f"batch is {global_batch}, batch_size {config.batch_size}"
        )
    return {
        "samples": data.samples,
        "fingerprint": data.fingerprint,
        "files": [str(f) for f in data.files],
        "weights": weights,
    }, warnings


def check_bench(config: Config, world_size: int, platform: str) -> Dict[str, Any]:
    """Facts about the data, where there are any; raises FcnError on what would stop the steps."""
    if config.data_file:
        return {"samples": _check_steps(config, world_size, platform).samples}
    _global_batch(config, world_size, platform)
    return {}


def _check_steps(config: Config, world_size: int, platform: str) -> DataSet:
    global_batch = _global_batch(config, world_size, platform)
    data = open_dataset(config.data_file)
    check_labels(data, config.num_classes, config.ignore_label)
    if data.samples < global_batch:
        raise DataError(
            f"{config.data_file}: {data.samples} samples are fewer than one step takes "
            f"({world_size} ranks, global batch {global_batch}); lower batch_size, or use fewer devices"
        )
    return data


def _global_batch(config: Config, world_size: int, platform: str) -> int:
    if config.sync_bn and platform == "cpu":
        raise ConfigError(
            "sync_bn: MindSpore has no CPU kernel for synchronised batch norm; leave it out here, or set "
            "freeze_bn=true where batches are too small for statistics"
        )
    total = config.batch_over(world_size)
    images = total // (world_size * config.accumulate_steps)
    if images == 1 and config.crop_size <= STRIDE and not config.freeze_bn:
        raise ConfigError(
            f"crop_size {config.crop_size}, one image at a time: batch norm of fc6 has a single value, and "
            f"no variance; set crop_size above {STRIDE}, or a larger batch_size"
        )
    return total


def _disk(config: Config, data: DataSet, global_batch: int, run_root: Path) -> List[str]:
    """Compare what the run will keep with what the disk has: full after days is too late."""
    arch = config.architecture
    weights = parameter_count(arch) * (2 if config.ema_decay else 1) * _BYTES
    state = parameter_count(arch, trainable_only=True) * _BYTES
    steps_of_epoch = steps_per_epoch(data.samples, global_batch)
    saves = -(-config.train_epochs * steps_of_epoch // config.save_steps)
    kept = min(max(config.keep_checkpoint_max, STATES_KEPT), saves)
    if config.keep_every_epochs:
        kept += config.train_epochs // config.keep_every_epochs
    # The best one is kept apart.
    best = 1 if config.eval_epochs else 0
    # While one is being written, the one it replaces is still there.
    least = (2 + best) * weights + 2 * state
    free = free_bytes(run_root)
    if free < least:
        raise ConfigError(
            f"train_dir: {run_root}: {in_megabytes(free)} free, {2 + best} checkpoints of this network take "
            f"{in_megabytes(least)}; free space, or set train_dir to another disk"
        )
    states = min(kept, STATES_KEPT) * state
    if free < (kept + best + 1) * weights + states + state:
        fits = max(STATES_KEPT, int((free - states - state) // weights) - best - 1)
        fewer = f"keep_checkpoint_max={fits} or lower, or " if fits < config.keep_checkpoint_max else ""
        return [
            f"keep_checkpoint_max: {kept} checkpoints{' and the best one' * best} will take "
            f"{in_megabytes((kept + best) * weights + states)}, {run_root} has {in_megabytes(free)} free; "
            f"set {fewer}save_steps or keep_every_epochs higher, or train_dir to another disk"
        ]
    return []


def main(argv: Optional[List[str]] = None) -> int:
    """Print the answer; 0 where all is well, 2 where something is not."""

    def work() -> Dict[str, Any]:
        args = _parser().parse_args(argv)
        if args.verb == "checkpoint":
            return {"ckpt_file": given("ckpt_file", args.config, args.overrides) or ""}
        if args.verb == "resume":
            return _check_resume(args)
        config, warnings = _load(args)
        options: Dict[str, Any] = {}
        if args.verb == "train":
            data, more = check_train(config, args.world_size, Path(config.train_dir), args.platform)
            # Both are the run's, also where it goes on with fewer devices.
            config = config.model_copy(update={"global_batch": config.batch_over(args.world_size)})
            options = {"world_size": args.world_size}
        elif args.verb == "bench":
            data, more = check_bench(config, args.world_size, args.platform), []
        else:
            config, more = with_checkpoint(config, args.checkpoints)
            data, options, images = _check_use(args, config)
            more += images
        resolved = {"config": _with_absolute_paths(config), "data": data, "options": options}
        return {"errors": [], "warnings": warnings + more, **resolved}

    return answer(work)


def _check_resume(args: argparse.Namespace) -> Dict[str, Any]:
    going = check_resume(args.run, args.overrides, args.world_size)
    config = going.config.on(args.world_size, going.planned)
    data, warnings = check_train(config, args.world_size, args.run, args.platform, begins=going.step == 0)
    return {
        "errors": [],
        "warnings": warnings,
        "config": _with_absolute_paths(going.config),
        "data": data,
        "step": going.step,
        "total_steps": going.total_steps,
        "lines": [*going.lines, *data["weights"]],
    }


def _check_use(args: argparse.Namespace, config: Config) -> Tuple[Dict[str, Any], Dict[str, Any], List[str]]:
    """Facts, options and warnings of a verb that uses a trained network."""
    if args.verb == "eval":
        facts = check_eval(config)
        return facts, {"save_masks": new_folder("--save-masks", args.save_masks)}, []
    if args.verb == "export":
        dims = (args.batch, args.height, args.width)
        wanted = (args.format, args.out, args.overwrite, dims, args.check)
        return {}, *check_export(config, *wanted, args.platform)
    images, pixels, warnings = check_predict(args.images)
    if args.save_prob:
        require_room("--save-prob", Path(args.out), _BYTES * config.num_classes * pixels)
    out = new_folder("--out", args.out)
    return {"images": len(images)}, {"images": images, "out": out, "save_prob": args.save_prob}, warnings


def _parser() -> Parser:
    parser = Parser(prog="python -m fcn.check", allow_abbrev=False)
    verbs = parser.add_subparsers(dest="verb", required=True)
    parsers = {}
    for verb in ("train", "resume", "bench", "eval", "predict", "export"):
        one = parsers[verb] = verbs.add_parser(verb, allow_abbrev=False)
        one.add_argument("--config", help="YAML file or recipe")
        one.add_argument("--run", type=Path, help="start from the configuration in this run's run.yaml")
        one.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
        if verb in ("train", "resume", "bench", "export"):
            one.add_argument("--platform", choices=["cpu", "ascend"], default="cpu")
        if verb in ("train", "resume", "bench"):
            one.add_argument("--world-size", type=int, default=1)
        else:
            one.add_argument("--checkpoints", type=Path, help="take the newest good one of this folder")
    named = verbs.add_parser("checkpoint", help="the ckpt_file that is named, unchecked", allow_abbrev=False)
    named.add_argument("--config")
    named.add_argument("--set", dest="overrides", action="append", default=[])
    parsers["eval"].add_argument("--save-masks", metavar="DIR")
    parsers["predict"].add_argument("images", nargs="+", metavar="IMAGE_OR_DIR")
    parsers["predict"].add_argument("--out", required=True, metavar="DIR")
    parsers["predict"].add_argument("--save-prob", action="store_true")
    parsers["export"].add_argument("--format", choices=FORMATS, required=True)
    parsers["export"].add_argument("--out", metavar="FILE")
    parsers["export"].add_argument("--overwrite", action="store_true")
    parsers["export"].add_argument("--check", metavar="IMAGE")
    for size in ("--batch", "--height", "--width"):
        parsers["export"].add_argument(size, type=int)
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
