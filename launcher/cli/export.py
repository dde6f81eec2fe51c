"""`fcn-launch export`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

import click

from launcher.cli.common import check, json_option, option, trainer_options
from launcher.cli.trained import CLUSTER_OF_A_LONE_FILE, find_trained, run_on, trained_options
from launcher.cluster import load_cluster
from launcher.errors import ExitCode


@click.command()
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["onnx", "mindir", "air"]),
    required=True,
    help="What to write.",
)
@click.option("--out", metavar="FILE", help="File to write.  [default: CHECKPOINT.FORMAT in this folder]")
@click.option("--overwrite", is_flag=True, help="Replace the file where it exists.")
@click.option("--batch", type=click.IntRange(1), help="Images that the file takes at a time.")
@click.option("--height", type=click.IntRange(1), help="Their height in pixels.")
@click.option("--width", type=click.IntRange(1), help="Their width in pixels.")
@click.option("--check", "image", metavar="IMAGE", help="Compare the file with the network on this image.")
@trained_options
@trainer_options
@json_option
@click.pass_obj
def export(
    settings: Any,
    file_format: str,
    out: Optional[str],
    overwrite: bool,
    batch: Optional[int],
    height: Optional[int],
    width: Optional[int],
    image: Optional[str],
    run_name: Optional[str],
    ckpt: Optional[str],
    best: bool,
    config: Optional[str],
    overrides: Tuple[str, ...],
    as_json: bool,
) -> None:
    """Write a trained network as a file for other programs, and compare the two.

    \b
    The file takes   images   uint8 (N, H, W, 3), BGR as OpenCV reads them, 0 to 255
    and gives        scores   float32 (N, classes, H, W), before any softmax
                     classes  uint8 (N, H, W), the class of the largest score

    It normalises and pads by itself. ONNX takes any number and size of images where --batch, --height and
    --width do not fix them; mindir and air have fixed ones, one image of crop_size by default. FILE.json
    beside the file says all of it, and ONNX has it in its metadata.

    onnx and mindir are written on this machine's CPU, air on the first device of --cluster. What was written
    is compared on --check, or the first image of the validation list, by onnxruntime or MindSpore; where it
    differs no file is left.
    """
    trained = find_trained(settings, run_name, ckpt, best, config, overrides)
    cluster = trained.cluster if file_format == "air" else load_cluster(CLUSTER_OF_A_LONE_FILE)
    overrides += (f"train_dir={settings.runs}",) if settings.runs else ()
    words = {
        **{"--format": file_format, "--out": out, "--check": image, "--config": config},
        **{"--batch": batch, "--height": height, "--width": width, "--platform": cluster.chip.platform},
    }
    arguments = [word for name, value in words.items() for word in option(name, value)]
    arguments += ["--overwrite"] if overwrite else []
    answer = check("export", [*arguments, *trained.arguments], overrides)
    device = cluster.hosts[0].devices[0].id
    _, code = run_on(cluster.only_device(device), "export", answer, as_json)
    if code is ExitCode.DONE:
        file = Path(answer["options"]["out"])
        facts = json.loads(file.with_name(f"{file.name}.json").read_bytes())
        click.echo(json.dumps(facts) if as_json else _describe(file, facts))
    sys.exit(code)


def _describe(file: Path, facts: Dict[str, Any]) -> str:
    lines = [("file", f"{file}, {facts['size'] / 1e6:,.1f} MB")]
    for name in ("images", "scores", "classes"):
        shape = ", ".join(map(str, facts[name]["shape"]))
        colour = ", BGR" if name == "images" else ""
        lines.append((name, f"{facts[name]['type']} ({shape}){colour}"))
    lines.append(("compared", _comparison(facts.get("comparison"))))
    return "\n".join(f"{name:<12} {text}" for name, text in lines)


def _comparison(facts: Optional[Dict[str, Any]]) -> str:
    if facts is None:
        return "no: nothing here runs this format"
    images, height, width, _ = facts["shape"]
    return (
        f"on {facts['image'] or 'a drawn image'} ({images} x {width}x{height}): largest difference of a "
        f"score {facts['largest_difference']:.2g}, largest score {facts['largest_score']:.3g}; "
        f"{facts['other_pixels']:,} of {images * height * width:,} pixels of another class"
    )
