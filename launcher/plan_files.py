"""The files of a plan: what an attempt ran with, for a person, for `source` and for HCCL.

rank_table.json   rank-00.env ...   scheduler.env   plan.json (everything)   ranks.txt   peers.json
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Dict, List

from launcher import rank_table_forms
from launcher.errors import UserError
from launcher.files import sync_folder, write_synced
from launcher.plan import PEERS, RANK_TABLE, Plan
from launcher.resources import folder

if TYPE_CHECKING:
    import jinja2

_COLUMNS = ("RANK", "HOST", "DEVICE", "ADDRESS", "LOG")


def ranks_text(plan: Plan) -> str:
    """rank -> host -> device -> address -> log, a line each, for people."""
    rows = [_COLUMNS] + [
        tuple("-" if cell is None else str(cell) for cell in (p.rank, p.host, p.device_id, p.address, p.log))
        for p in plan.processes
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)
    return "\n".join(lines) + "\n"


def render(plan: Plan, has_run: bool) -> Dict[str, str]:
    """File name -> text of every file of the plan. has_run: whether the run directory holds its run.yaml."""
    files = {"plan.json": json.dumps(plan.to_dict(), indent=2) + "\n", "ranks.txt": ranks_text(plan)}
    if plan.rank_table is not None:
        files[RANK_TABLE] = rank_table_forms.to_text(plan.rank_table)
    if plan.world_size > 1:
        files[PEERS] = json.dumps(plan.peers) + "\n"
    template = _environment().get_template("rank.env.j2")
    missing = _missing_by_hand(plan, has_run)
    for process in plan.processes:
        command = shlex.join(process.argv)
        text = template.render(plan=plan, process=process, command=command, missing=missing)
        files[f"{process.name}.env"] = text
    return files


def _missing_by_hand(plan: Plan, has_run: bool) -> List[str]:
    """What the processes could not be started without, and only `train` or `eval` makes."""
    missing = [] if has_run else ["the run folder with its run.yaml, the configuration of the workers"]
    if plan.rendezvous != "none" and plan.master_port is None:
        missing.append(f"the port on {plan.master_address}, which is chosen when the run starts")
    return missing


def write_plan(plan: Plan, target: Path) -> List[str]:
    """Writes the plan's files into `target`, all or none, and returns their names.

    Also makes the log folders that the environments name. Raises UserError when the folder cannot be written,
    or holds something: the record of what ran is never overwritten.
    """
    target = Path(target)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise UserError(f"{target}: exists and is not an empty folder; name a new one")
        temporary.mkdir(parents=True)
        run_dir = Path(plan.processes[0].env["FCN_RUN_DIR"])
        files = render(plan, has_run=(run_dir / "run.yaml").is_file())
        for name, text in files.items():
            write_synced(temporary / name, text)
        sync_folder(temporary)
        temporary.rename(target)
        sync_folder(target.parent)
        for process in plan.processes:
            if "ASCEND_PROCESS_LOG_PATH" in process.env:
                Path(process.env["ASCEND_PROCESS_LOG_PATH"]).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{target}: the plan cannot be written: {error.strerror}; name a folder that can be written"
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return sorted(files)


def _environment() -> jinja2.Environment:
    import jinja2  # a third of the time that `plan` may take, so only where files are written

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder("templates")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["quote"] = shlex.quote
    return environment
