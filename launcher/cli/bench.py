"""`fcn-launch bench`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple

import click

from launcher.cli.common import check, json_option, need_cluster, option, trainer_options
from launcher.cluster import load_cluster
from launcher.errors import ExitCode

if TYPE_CHECKING:
    from launcher.chips import Chip
    from launcher.run import Run

WORKER_COMMAND = ("-m", "fcn.worker", "bench")

# What rank 0 reports when a part of the start is over, and what that part was
_STARTED = ("started", None, "agents, plan, processes")
_PHASES = (
    ("phase", "init", "python"),
    ("phase", "data", "device and rendezvous"),
    ("phase", "compile", "network"),
    ("phase", "train", "compilation and first step"),
)


@click.command()
@click.option("--steps", type=click.IntRange(1), default=20, show_default=True, help="Steps to time.")
@trainer_options
@json_option
@click.pass_obj
def bench(
    settings: Any, steps: int, config: Optional[str], overrides: Tuple[str, ...], as_json: bool
) -> None:
    """Time training steps on every device of --cluster: images/s, TFLOPS, share of the device's peak.

    With `data_file` the batches are read, and waiting for them is counted; without, they are drawn once.
    """
    from launcher.console import make_console
    from launcher.launch import launch
    from launcher.run import Run

    cluster = load_cluster(need_cluster(settings.cluster))
    overrides += (f"train_dir={settings.runs}",) if settings.runs else ()
    arguments = [*option("--config", config), *option("--world-size", cluster.world_size)]
    answer = check("bench", [*arguments, *option("--platform", cluster.chip.platform)], overrides)
    root = Path(answer["config"]["train_dir"])
    run = Run.create(root, cluster, "bench", sys.argv, answer["config"], answer["data"], {"steps": steps})
    code = launch(run, cluster, WORKER_COMMAND, "bench", make_console(as_json))
    if code is ExitCode.DONE:
        figures = json.loads((run.path / "bench.json").read_bytes())
        figures["start_s"] = _start(run)
        click.echo(json.dumps(figures) if as_json else "\n".join(_describe(figures, cluster.chip)))
    sys.exit(code)


def _start(run: Run) -> Dict[str, float]:
    """Seconds of each part of the start, as rank 0 saw them."""
    seconds: Dict[str, float] = {}
    parts = iter((_STARTED, *_PHASES))
    kind, phase, name = next(parts)
    before_ns = None
    for event in run.events():
        before_ns = event["time_ns"] if before_ns is None else before_ns
        if (event["event"], event.get("phase")) == (kind, phase) and event.get("rank", 0) == 0:
            seconds[name] = (event["time_ns"] - before_ns) / 1e9
            before_ns = event["time_ns"]
            kind, phase, name = next(parts, ("", None, ""))
    return seconds


def _describe(figures: Dict[str, Any], chip: Chip) -> List[str]:
    tflops, wait = figures["tflops_per_device"], figures["data_wait"]
    peak = "its peak is not known here"
    if chip.peak_tflops is not None:
        peak = f"{tflops / chip.peak_tflops:.1%} of the {chip.peak_tflops:g} of its peak"
    lines = [(name, f"{seconds:8.2f} s") for name, seconds in figures["start_s"].items()]
    side, devices = figures["crop_size"], f"{figures['world_size']} x {chip.product}"
    lines += [
        (
            "step",
            f"{figures['step_s']:8.3f} s, {figures['step_s_min']:.3f} at best: {figures['global_batch']} "
            f"images of {side}x{side} on {devices}, median of {figures['steps']} steps",
        ),
        ("images", f"{figures['images_per_s']:8.2f} /s"),
        ("arithmetic", f"{tflops:8.4g} TFLOPS a device, {peak}"),
        ("waiting for data", "not measured: no data_file" if wait is None else f"{wait:8.1%} of a step"),
    ]
    return [f"{name:<28} {text}" for name, text in lines]
