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

from fcn.config import Config, load_config
from fcn.errors import FcnError
from fcn.status import Status


def main(argv: Optional[List[str]] = None) -> None:
    """Run the verb; ends the process with the worker's exit code."""
    parser = argparse.ArgumentParser(prog="python -m fcn.worker", description="One rank of FCN-8s training.")
    parser.add_argument("verb", choices=["train", "eval"])
    parser.add_argument("--run-dir", default=os.environ.get("FCN_RUN_DIR", "runs/by-hand"))
    parser.add_argument("--config", help="YAML file or recipe; default: config of RUN_DIR/run.yaml")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--save-masks", type=Path, metavar="DIR", help="eval: write predicted masks there")
    args = parser.parse_args(argv)
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    # Until the trainer takes it over, the request to leave must not kill a rank that is still starting.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    status = Status()
    try:
        _run(args, status)
    except Exception as error:
        status.error(error)
        if isinstance(error, FcnError):
            sys.exit(f"error: {error}")
        raise


def _run(args: argparse.Namespace, status: Status) -> None:
    status.phase("init")
    run_dir = Path(args.run_dir)
    config = _config(run_dir, args)
    from fcn import distributed, platform  # MindSpore's import takes a second: bad usage is told before it

    device = platform.set_up()
    world = distributed.join()
    print(f"rank {world.rank} of {world.size} on {device.name}", flush=True)
    if args.verb == "train":
        from fcn.data.records import open_dataset
        from fcn.train import Trainer

        status.phase("data")
        # fcn.check has read every byte before the ranks were started.
        data = open_dataset(config.data_file, verify=False)
        code = Trainer(config, data, run_dir, device, world, status).run()
    else:
        code = _evaluate(config, run_dir, args.save_masks, device, world, status)
    status.phase("done")
    world.leave(code)


def _config(run_dir: Path, args: argparse.Namespace) -> Config:
    if args.config or args.overrides:
        return load_config(args.config, args.overrides)[0]
    return Config(**yaml.safe_load((run_dir / "run.yaml").read_text())["config"])


def _evaluate(config, run_dir, masks, device, world, status) -> int:  # type: ignore[no-untyped-def]
    from fcn.checkpoint import load
    from fcn.evaluate import evaluate
    from fcn.train import build_network
    from fcn.weights import load_strictly, network_parameters

    status.phase("data")
    net = build_network(config, device)
    load_strictly(net, network_parameters(load(Path(config.ckpt_file))[0]), config.ckpt_file)
    status.phase("eval")
    result = evaluate(net, config, world, status, run_dir, masks)
    if world.rank == 0:
        fields = {"checkpoint": config.ckpt_file, **result.as_dict()}
        (run_dir / "eval.json").write_text(json.dumps(fields, indent=1))
        status.send("metric", **fields)
        print(f"mean IoU {result.mean_iou}", flush=True)
    return 0


if __name__ == "__main__":
    main()
