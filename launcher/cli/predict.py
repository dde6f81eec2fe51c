"""`fcn-launch predict`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Optional, Tuple

import click

from launcher.cli.common import check, json_option, option, trainer_options
from launcher.cli.trained import find_trained, run_on, trained_options
from launcher.errors import ExitCode


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE_OR_DIR...")
@click.option("--out", required=True, metavar="DIR", help="New folder for what is predicted.")
@click.option(
    "--save-prob",
    is_flag=True,
    help="Write class probabilities too: .npy, float32, 4 MB a megapixel and class.",
)
@trained_options
@trainer_options
@json_option
@click.pass_obj
def predict(
    settings: Any,
    images: Tuple[str, ...],
    out: str,
    save_prob: bool,
    run_name: Optional[str],
    ckpt: Optional[str],
    best: bool,
    config: Optional[str],
    overrides: Tuple[str, ...],
    as_json: bool,
) -> None:
    """Predict the masks of images of any size; of a folder, those of all images in it.

    Writes masks/NAME.png (class ids in VOC's palette), overlays/NAME.jpg and contact_sheet.png. Without
    options: the newest run's newest checkpoint on that run's devices.
    """
    trained = find_trained(settings, run_name, ckpt, best, config, overrides)
    overrides += (f"train_dir={settings.runs}",) if settings.runs else ()
    arguments = [*images, f"--out={out}", *(["--save-prob"] if save_prob else [])]
    answer = check("predict", [*arguments, *option("--config", config), *trained.arguments], overrides)
    run, code = run_on(trained.cluster, "predict", answer, as_json)
    if code is ExitCode.DONE:
        folder = Path(answer["options"]["out"])
        parts = ("masks", "overlays", *(["probabilities"] if save_prob else []), "contact_sheet.png")
        result = {"images": answer["data"]["images"], **{Path(p).stem: str(folder / p) for p in parts}}
        lines = (f"{title.replace('_', ' '):<15} {value}" for title, value in result.items())
        click.echo(json.dumps(result) if as_json else "\n".join(lines))
    sys.exit(code)
