"""One rank from start to end: `python -m fcn.worker train|eval`.

Under fcn-launch the configuration comes from the run directory. By hand, without a launcher, it is one rank:
`python -m fcn.worker train --run-dir DIR --config FILE --set key=value`.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import signal
import sys
from pathlib import Path
from typing import List, Optional

import yaml

from fcn.checkpoint import listed
from fcn.config import Config, load_config
from fcn.errors import ConfigError, FcnError
from fcn.files import write_atomic
from fcn.status import Status
from fcn.stop import PREEMPTED, StopRequest


def main(argv: Optional[List[str]] = None) -> None:
    """Run the verb; ends the process with the worker's exit code."""
    parser = argparse.ArgumentParser(prog="python -m fcn.worker", description="One rank of FCN-8s training.")
    parser.add_argument("verb", choices=["train", "eval"])
    parser.add_argument("--run-dir", default=os.environ.get("FCN_RUN_DIR", "runs/by-hand"))
    parser.add_argument("--config", help="YAML file or recipe; not used where RUN_DIR has a run.yaml")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--save-masks", type=Path, metavar="DIR", help="eval: write predicted masks there")
    args = parser.parse_args(argv)
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    stop = StopRequest()
    status = Status()
    try:
        _run(args, status, stop)
    except Exception as error:
        status.error(error)
        if isinstance(error, FcnError):
            sys.exit(f"error: {error}")
        raise


def _run(args: argparse.Namespace, status: Status, stop: StopRequest) -> None:
    status.phase("init")
    run_dir = Path(args.run_dir)
    config = _config(run_dir, args)
    from fcn import distributed, platform  # MindSpore's import takes a second: bad usage is told before it

    device = platform.set_up()
    world = distributed.join(device)
    print(f"rank {world.rank} of {world.size} on {device.name}", flush=True)
    if args.verb == "train":
        from fcn.data.records import open_dataset
        from fcn.train import Trainer

        status.phase("data")
        # fcn.check has read every byte before the ranks were started.
        data = open_dataset(config.data_file, verify=False)
        code = Trainer(config, data, run_dir, device, world, status, stop).run()
    else:
        code = _evaluate(config, run_dir, args.save_masks, device, world, status)
    status.phase("done")
    world.leave(code)


def _config(run_dir: Path, args: argparse.Namespace) -> Config:
    """The run's frozen configuration; by hand, what the command line says."""
    if (run_dir / "run.yaml").is_file():
        return Config(**yaml.safe_load((run_dir / "run.yaml").read_text())["config"])
    if args.verb == "train" and listed(run_dir / "checkpoints"):
        raise ConfigError(f"--run-dir {run_dir}: holds checkpoints of another run; give another folder")
    return load_config(args.config, args.overrides)[0]


def _evaluate(config, run_dir, masks, device, world, status) -> int:  # type: ignore[no-untyped-def]
    from fcn.evaluate import evaluate
    from fcn.train import build_network
    from fcn.weights import load_strictly, read_checkpoint

    # Nothing would be saved: leave at once.
    signal.signal(signal.SIGUSR2, lambda *_: os._exit(PREEMPTED))
    status.phase("data")
    net = build_network(config, device, for_training=False)
    load_strictly(net, read_checkpoint(config.ckpt_file, config), config.ckpt_file)
    status.phase("eval")
    result = evaluate(net, config, world, status, run_dir, masks)
    if world.rank == 0:
        fields = {"checkpoint": config.ckpt_file, **result.as_dict()}
        write_atomic(run_dir / "eval.json", json.dumps(fields, indent=1) + "\n")
        status.send("metric", mean_iou=result.mean_iou, pixel_accuracy=result.pixel_accuracy)
        print(f"mean IoU {result.mean_iou}", flush=True)
    return 0


if __name__ == "__main__":
    main()
