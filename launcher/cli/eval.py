"""`fcn-launch eval`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple

import click

from launcher.cli.common import check, json_option, option, trainer_options
from launcher.cli.trained import find_trained, run_on, trained_options
from launcher.errors import ExitCode

if TYPE_CHECKING:
    from launcher.run import Run


@click.command("eval")
@trained_options
@click.option("--root", metavar="DIR", help="Root folder of the validation images.")
@click.option("--list", "list_file", metavar="FILE", help="Validation list.")
@click.option("--save-masks", metavar="DIR", help="Write each predicted mask there, as an indexed PNG.")
@trainer_options
@json_option
@click.pass_obj
def eval_(
    settings: Any,
    run_name: Optional[str],
    ckpt: Optional[str],
    best: bool,
    root: Optional[str],
    list_file: Optional[str],
    save_masks: Optional[str],
    config: Optional[str],
    overrides: Tuple[str, ...],
    as_json: bool,
) -> None:
    """Score a checkpoint: mean IoU and IoU of each class, every image at its own size.

    Without options: the newest run's newest checkpoint, that run's validation list, that run's devices.
    """
    trained = find_trained(settings, run_name, ckpt, best, config, overrides)
    names = {"data_root": root, "data_lst": list_file, "train_dir": settings.runs}
    overrides += tuple(f"{key}={value}" for key, value in names.items() if value)
    masks = option("--save-masks", save_masks)
    answer = check("eval", [*option("--config", config), *trained.arguments, *masks], overrides)
    run, code = run_on(trained.cluster, "eval", answer, as_json)
    if code is ExitCode.DONE:
        result = json.loads((run.path / "eval.json").read_bytes())
        click.echo(json.dumps(result) if as_json else _describe(result, run, answer["options"]["save_masks"]))
    sys.exit(code)


def _describe(result: Dict[str, Any], run: Run, masks: Optional[str]) -> str:
    lines = ["CLASS                  IOU  ACCURACY  PIXELS"]
    rows = zip(result["classes"], result["iou"], result["accuracy"], result["confusion"])
    counted = sum(map(sum, result["confusion"])) or 1
    for label, (name, iou, accuracy, row) in enumerate(rows):
        title = name if name == str(label) else f"{label:>2} {name}"
        lines.append(f"{title:<18} {_share(iou)}   {_share(accuracy)}  {sum(row) / counted:6.2%}")
    scores = ("mean_iou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou")
    titles = ("mean IoU", "pixel accuracy", "mean accuracy", "frequency-weighted IoU")
    facts: List[Tuple[str, Any]] = [(title, f"{result[key]:.4f}") for title, key in zip(titles, scores)]
    facts += [("images", result["images"]), ("checkpoint", result["checkpoint"])]
    facts += [("pictures", run.path / "contact_sheet.png"), ("", run.path / "confusion.png")]
    facts += [("masks", masks)] if masks else []
    return "\n".join([*lines, "", *(f"{title:<22}  {value}" for title, value in facts)])


def _share(value: Optional[float]) -> str:
    return "absent" if value is None else f"{value:.4f}"
