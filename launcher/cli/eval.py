"""`fcn-launch eval`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple

import click

from launcher.cli.common import check, json_option, option, trainer_options
from launcher.cluster import cluster_from, load_cluster
from launcher.errors import ExitCode, UserError

if TYPE_CHECKING:
    from launcher.cluster import Cluster
    from launcher.run import Run

WORKER_COMMAND = ("-m", "fcn.worker", "eval")
CLUSTER_OF_A_LONE_FILE = "1xcpu.yaml"  # runs on every machine


@click.command("eval")
@click.option("--run", "run_name", metavar="RUN", help="Its newest checkpoint.  [default: the newest run]")
@click.option("--ckpt", metavar="FILE", help="This checkpoint.")
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
    from launcher.console import make_console
    from launcher.launch import launch
    from launcher.run import Run, find_run

    if run_name and ckpt:
        raise UserError("--run and --ckpt: give one of them")
    if any(item.startswith("ckpt_file=") for item in overrides):
        raise UserError("--set ckpt_file: name the checkpoint with --ckpt FILE")
    trained = None if ckpt else find_run(settings.runs_dir, run_name, verb="train", needs_checkpoint=True)
    cluster = _cluster(settings.cluster, trained)
    names = {"data_root": root, "data_lst": list_file, "ckpt_file": ckpt, "train_dir": settings.runs}
    overrides += tuple(f"{key}={value}" for key, value in names.items() if value)
    answer = check("eval", [*option("--config", config), *_of_run(trained)], overrides)
    folder = _new_folder(save_masks)
    run = Run.create(
        Path(answer["config"]["train_dir"]), cluster, "eval", sys.argv, answer["config"], answer["data"]
    )
    masks = option("--save-masks", folder)
    code = launch(run, cluster, (*WORKER_COMMAND, *masks), "eval", make_console(as_json))
    if code is ExitCode.DONE:
        result = json.loads((run.path / "eval.json").read_bytes())
        click.echo(json.dumps(result) if as_json else _describe(result, run, folder))
    sys.exit(code)


def _cluster(name: Optional[str], trained: Optional[Run]) -> Cluster:
    if name is not None:
        return load_cluster(name)
    if trained is not None:
        record = trained.record()["cluster"]
        return cluster_from({k: v for k, v in record.items() if k != "source"}, record["source"])
    return load_cluster(CLUSTER_OF_A_LONE_FILE)


def _of_run(trained: Optional[Run]) -> List[str]:
    if trained is None:
        return []
    return ["--run", str(trained.path), "--checkpoints", str(trained.path / "checkpoints")]


def _new_folder(name: Optional[str]) -> Optional[Path]:
    """The folder for masks, made now: after an hour of evaluation is too late to learn that it cannot be."""
    if name is None:
        return None
    folder = Path(name).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UserError(f"--save-masks {name}: is not empty; nothing is overwritten; give a new folder")
    except OSError as error:
        raise UserError(
            f"--save-masks {name}: cannot be made: {error.strerror}; give another folder"
        ) from None
    return folder


def _describe(result: Dict[str, Any], run: Run, masks: Optional[Path]) -> str:
    lines = [f"checkpoint      {result['checkpoint']}"]
    for label, value in enumerate(result["iou"]):
        lines.append(f"class {label:<3} IoU   {'absent' if value is None else f'{value:.4f}'}")
    lines += [
        f"pixel accuracy  {result['pixel_accuracy']:.4f}",
        f"mean IoU        {result['mean_iou']:.4f}",
        f"pictures        {run.path / 'contact_sheet.png'}",
    ]
    return "\n".join(lines + ([f"masks           {masks}"] if masks else []))
