"""The files of a plan: what an attempt ran with, for a person, for `source` and for HCCL.

rank_table.json   rank-00.env ...   scheduler.env   plan.json (everything)   ranks.txt   peers.json
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Sequence, Tuple

from launcher import rank_table_forms
from launcher.errors import UserError
from launcher.files import sync_file_system, sync_folder, write_synced
from launcher.plan_types import PEERS, RANK_TABLE, Plan
from launcher.resources import folder

if TYPE_CHECKING:
    import jinja2

_COLUMNS = ("RANK", "HOST", "DEVICE", "ADDRESS", "LOG")
_FEW_FILES = 64  # which are synced one by one; of more the whole file system is, which others may have filled
_MARK = "\0"  # around what differs between processes, in a text that the template gives for all of them


def ranks_text(plan: Plan) -> str:
    """rank -> host -> device -> address -> log, a line each, for people."""
    processes = ((p.rank, p.host, p.device_id, p.address, p.log) for p in plan.processes)
    return columns([_COLUMNS, *processes])


def columns(rows: Sequence[Sequence[object]]) -> str:
    """Rows of cells as lines with columns; None is a dash."""
    cells = [["-" if cell is None else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells)
    return "\n".join(lines) + "\n"


def render(plan: Plan, has_run: bool) -> Dict[str, str]:
    """File name -> text of every file of the plan. has_run: whether the run directory holds its run.yaml."""
    files = {"plan.json": _json(plan.to_dict()), "ranks.txt": ranks_text(plan)}
    if plan.rank_table is not None:
        files[RANK_TABLE] = rank_table_forms.to_text(plan.rank_table)
    if plan.world_size > 1:
        files[PEERS] = json.dumps(plan.peers) + "\n"
    for process, text in zip(plan.processes, _env_texts(plan, _missing_by_hand(plan, has_run))):
        files[f"{process.name}.env"] = text
    return files


def _json(values: Dict[str, Any]) -> str:
    """A line for each process and each other value: with an indent, Python's encoder is ten times slower."""
    processes = ",\n".join(map(json.dumps, values["processes"]))
    others = (f"{json.dumps(name)}: {json.dumps(values[name])},\n" for name in values if name != "processes")
    return "{\n" + "".join(others) + f'"processes": [\n{processes}\n]\n' + "}\n"


def _env_texts(plan: Plan, missing: List[str]) -> Iterator[str]:
    """The environment file of each process.

    The template is rendered once for all processes that have the same variables, with marks in the place of
    what differs.
    """
    template = env_template()
    quote = lru_cache(maxsize=None)(shlex.quote)
    texts: Dict[Tuple[str, ...], List[str]] = {}
    for process in plan.processes:
        device = "" if process.device_id is None else f", device {process.device_id}"
        head = {"name": process.name, "place": process.host + device, "command": shlex.join(process.argv)}
        values = {name: quote(value) for name, value in process.env.items()}
        names = tuple(values)
        if names not in texts:
            marked = {name: f"{_MARK}{name}{_MARK}" for name in (*names, *(f"@{name}" for name in head))}
            heading = {name: marked[f"@{name}"] for name in head}
            text = template.render(plan=plan, variables=names, of=marked, missing=missing, **heading)
            texts[names] = text.split(_MARK)
        values.update({f"@{name}": value for name, value in head.items()})
        yield "".join(values[part] if i % 2 else part for i, part in enumerate(texts[names]))


def _missing_by_hand(plan: Plan, has_run: bool) -> List[str]:
    """What the processes could not be started without, and only `train` or `eval` makes."""
    missing = [] if has_run else ["the run folder with its run.yaml, the configuration of the workers"]
    if plan.master_address is not None and plan.master_port is None:
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
        write = write_synced if len(files) <= _FEW_FILES else Path.write_text
        for name, text in files.items():
            write(temporary / name, text)
        if len(files) > _FEW_FILES:
            sync_file_system(temporary)
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


@cache
def env_template() -> jinja2.Template:
    """Of an environment file. It takes as long as the agents take to start: to be called while they do."""
    import jinja2  # a third of the time that `plan` may take, so only where files are written

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder("templates")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("rank.env.j2")
