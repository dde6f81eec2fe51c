"""One rank from start to end: `python -m fcn.worker train|eval`.

Under fcn-launch the configuration comes from the run directory. By hand, without a launcher, it is one rank:
`python -m fcn.worker train --run-dir DIR --config FILE --set key=value`.
"""

from __future__ import annotations

import argparse
import faulthandler
import io
import os
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, Dict, List, Optional, TextIO, Tuple

import yaml

from fcn.checkpoint import listed
from fcn.config import Config
from fcn.config_file import load_config
from fcn.errors import ConfigError, FcnError
from fcn.job import Job
from fcn.status import Status
from fcn.stop import StopRequest

# Where the `work(job)` of each verb is
VERBS = {
    "train": "fcn.train",
    "eval": "fcn.evaluate",
    "predict": "fcn.predict",
    "export": "fcn.export",
    "bench": "fcn.bench",
}
_BY_HAND = ("train", "eval")  # the others have options that a run.yaml brings


def main(argv: Optional[List[str]] = None) -> None:
    """Run the verb; ends the process with the worker's exit code."""
    parser = argparse.ArgumentParser(prog="python -m fcn.worker", description="One rank of FCN-8s.")
    parser.add_argument("verb", choices=list(VERBS))
    parser.add_argument("--run-dir", default=os.environ.get("FCN_RUN_DIR", "runs/by-hand"))
    parser.add_argument("--config", help="YAML file or recipe; not used where RUN_DIR has a run.yaml")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    args = parser.parse_args(argv)
    log_what_fits()
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


def log_what_fits() -> None:
    """Standard output and error are the rank's log: what its disk does not take, full or broken, is lost from
    now on, and ends nothing.
    """
    sys.stdout, sys.stderr = _forgiving(sys.stdout), _forgiving(sys.stderr)


def _forgiving(stream: TextIO) -> TextIO:
    file = io.BufferedWriter(_Log(stream.fileno(), "w", closefd=False))
    return io.TextIOWrapper(file, stream.encoding, stream.errors, line_buffering=True)


class _Log(io.FileIO):
    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:  # no disk: nobody reads on
            raise
        except OSError:
            return len(data)


def _run(args: argparse.Namespace, status: Status, stop: StopRequest) -> None:
    status.phase("init")
    run_dir = Path(args.run_dir)
    config, options = _request(run_dir, args)
    from fcn import distributed, platform  # MindSpore's import takes a second: bad usage is told before it

    device = platform.set_up()
    status.enter("join", 0)
    world = distributed.join(device, status)
    print(f"rank {world.rank} of {world.size} on {device.name}", flush=True)
    config = config.on(world.size, options.get("world_size", world.size))
    work = import_module(VERBS[args.verb]).work
    code = work(Job(config, options, run_dir, device, world, status, stop))
    status.phase("done")
    world.leave(code)


def _request(run_dir: Path, args: argparse.Namespace) -> Tuple[Config, Dict[str, Any]]:
    """The run's frozen configuration and options; by hand, what the command line says."""
    if (run_dir / "run.yaml").is_file():
        record = yaml.safe_load((run_dir / "run.yaml").read_text())
        return Config(**record["config"]), record["options"] or {}
    if args.verb == "train" and listed(run_dir / "checkpoints"):
        raise ConfigError(f"--run-dir {run_dir}: holds checkpoints of another run; give another folder")
    if args.verb not in _BY_HAND:
        raise ConfigError(f"--run-dir {run_dir}: has no run.yaml; `fcn-launch {args.verb}` makes one")
    return load_config(args.config, args.overrides)[0], {}


if __name__ == "__main__":
    main()
