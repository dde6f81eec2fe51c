"""The run directory: everything that is known of a run, whether or not a launcher is alive."""

from __future__ import annotations

import json
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Mapping, Optional, Sequence

from launcher.errors import ExitCode, UserError
from launcher.files import append_line, write_atomic
from launcher.run_lock import last_launcher
from launcher.yaml_lines import read_yaml

if TYPE_CHECKING:
    from launcher.cluster_types import Cluster

CHECKPOINTS = "checkpoints"  # folders of a run
BEST = "checkpoints/best"

_STAMP = "%Y%m%d-%H%M%S"  # local time, as people look for "the run of last night"


@dataclass(frozen=True)
class Attempt:
    """One start of all processes: attempt-001/ with its plan and its logs. `number` counts from 1."""

    number: int
    folder: Path

    @property
    def plan_folder(self) -> Path:
        return self.folder / "plan"

    def logs(self) -> List[Path]:
        """The logs of its processes by name: rank-00.log, rank-01.log, ..., scheduler.log."""
        return sorted(path for path in self.folder.glob("*.log") if not path.name.startswith("agent-"))


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that is whole as far as its size tells; `manifest`: the JSON beside it."""

    path: Path
    step: int
    epoch: Optional[int]
    manifest: Mapping[str, Any]


class Run:
    """One run directory. Reading methods work on a run that somebody else is writing."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(
        cls,
        root: Path,
        cluster: Cluster,
        verb: str,
        command: Sequence[str],
        config: Optional[Mapping[str, Any]] = None,
        data: Optional[Mapping[str, Any]] = None,
        options: Optional[Mapping[str, Any]] = None,
        folder: Optional[Path] = None,
    ) -> Run:
        """Makes a new run directory under `root`, or at `folder`, and freezes what it runs in its run.yaml.

        command: the argv that the person typed. config, options: the worker's resolved configuration and the
        options of its verb, opaque here.
        Raises UserError where the directory can not be written or `folder` already holds a run.
        """
        record = {
            "verb": verb,
            "command": list(command),
            "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "cluster": {"source": cluster.source, **cluster.to_dict()},
            "config": None if config is None else dict(config),
            "options": None if options is None else dict(options),
            "versions": versions(),
            "data": None if data is None else dict(data),
        }
        try:
            path = _new_folder(root, Path(cluster.source).stem) if folder is None else _given_folder(folder)
            (path / CHECKPOINTS).mkdir(exist_ok=True)
            write_atomic(path / "run.yaml", _yaml(record))
        except OSError as error:
            raise _refusal(error, root if folder is None else folder) from None
        return cls(path.absolute())

    @classmethod
    def open(cls, path: Path) -> Run:
        """An existing run. Raises UserError where `path` is none."""
        if not (path / "run.yaml").is_file():
            raise UserError(f"{path}: not a run directory (it has no run.yaml); give the path of a run")
        return cls(path.absolute())

    def record(self) -> Dict[str, Any]:
        """What run.yaml holds. Raises UserError where it cannot be read, or is no record of a run."""
        path = self.path / "run.yaml"
        record = read_yaml(path).value
        if not isinstance(record, dict) or "verb" not in record:
            raise UserError(f"{path}: damaged: not the record of a run; give another run")
        return record

    def new_attempt(self) -> Attempt:
        """Makes the folder of the next attempt; an earlier one is never written again. Raises UserError."""
        number = max((attempt.number for attempt in self.attempts()), default=0) + 1
        attempt = Attempt(number, self.path / f"attempt-{number:03}")
        try:
            attempt.folder.mkdir()
        except OSError as error:
            raise _refusal(error, attempt.folder) from None
        return attempt

    def attempts(self) -> List[Attempt]:
        """The attempts by number."""
        numbers = (re.fullmatch(r"attempt-(\d+)", path.name) for path in self.path.glob("attempt-*"))
        return [
            Attempt(int(match.group(1)), self.path / match.group(0))
            for match in sorted(filter(None, numbers), key=lambda match: int(match.group(1)))
        ]

    def journal(self, event: Mapping[str, Any]) -> None:
        """Appends an event to events.jsonl. Raises OSError."""
        append_line(self.path / "events.jsonl", json.dumps(event))

    def events(self) -> Iterator[Dict[str, Any]]:
        """The journal, oldest first; a line that a crash cut short is passed over."""
        try:
            lines = (self.path / "events.jsonl").read_bytes().splitlines()
        except FileNotFoundError:
            return
        for line in lines:
            try:
                yield json.loads(line)
            except ValueError:
                continue

    def write_status(self, status: Mapping[str, Any]) -> None:
        """Replaces status.json. Raises OSError."""
        write_atomic(self.path / "status.json", json.dumps(status, indent=1) + "\n")

    def status(self) -> Optional[Dict[str, Any]]:
        """What status.json holds; None where there is none."""
        try:
            return dict(json.loads((self.path / "status.json").read_bytes()))
        except (FileNotFoundError, ValueError):
            return None

    def is_running(self) -> Optional[bool]:
        """Whether a launcher is at work on it; None where that can not be known: it is on another host."""
        launcher = last_launcher(self.path)
        return False if launcher is None else launcher.is_alive()

    def is_finished(self) -> bool:
        """Whether its last launch has done all that there was to do."""
        ends = [event for event in self.events() if event.get("event") in ("attempt", "end", "resume")]
        return bool(ends) and ends[-1].get("exit_code") == ExitCode.DONE

    def change(self, **fields: Any) -> None:
        """Replaces these entries of run.yaml. Raises UserError."""
        path = self.path / "run.yaml"
        try:
            write_atomic(path, _yaml({**self.record(), **fields}))
        except OSError as error:
            raise _refusal(error, path) from None

    def checkpoints(self, folder: str = CHECKPOINTS) -> List[Checkpoint]:
        """Those of CHECKPOINTS or BEST, newest first: every `.ckpt` that has the size its manifest says."""
        found = [_checkpoint(path) for path in (self.path / folder).glob("*.json")]
        return sorted(filter(None, found), key=lambda checkpoint: checkpoint.step, reverse=True)


def newest_run(root: Path, verb: Optional[str] = None, needs: Optional[str] = None) -> Optional[Run]:
    """The run under `root` that was made last, of this verb and with a checkpoint in `needs` where given.

    None where there is none. Runs whose run.yaml cannot be read are passed over.
    """
    return next((run for run in _newest_first(root, verb) if needs is None or run.checkpoints(needs)), None)


def _newest_first(root: Path, verb: Optional[str]) -> Iterator[Run]:
    found = sorted(root.glob("*/run.yaml"), key=lambda path: (path.stat().st_mtime_ns, path), reverse=True)
    runs = (Run(path.parent.absolute()) for path in found)
    return (run for run in runs if _has_verb(run, verb))


def _has_verb(run: Run, verb: Optional[str]) -> bool:
    try:
        return run.record()["verb"] == verb or verb is None
    except UserError:
        return False


def find_interrupted(root: Path, name: Optional[str] = None) -> Run:
    """The training of this path or name; without one the newest that is neither finished nor running.

    Where all are finished, or run, the newest of those. Raises UserError where there is none.
    """
    if name is not None:
        return _named_run(root, name, "train")
    runs = list(_newest_first(root, "train"))
    left = (run for run in runs if not run.is_finished() and run.is_running() is not True)
    found = next(left, None) or next((run for run in runs if not run.is_finished()), None)
    if found is None and not runs:
        raise UserError(f"{root}: holds no training yet; give the path of one, or start one with `train`")
    return found or runs[0]


def find_run(
    root: Path, name: Optional[str] = None, verb: Optional[str] = None, needs: Optional[str] = None
) -> Run:
    """The run of this path or, below `root`, of this name; without a name the newest, of `verb` if given.

    needs: CHECKPOINTS or BEST, in which it must have a checkpoint. Raises UserError where there is none.
    """
    run = newest_run(root, verb, needs) if name is None else _named_run(root, name, verb)
    if run is None and needs:
        run = newest_run(root, verb)  # to say what it lacks
    if run is None:
        kind = f"run of `{verb}`" if verb else "run"
        raise UserError(f"{root}: holds no {kind} yet; give the path of one, or start one with `train`")
    if needs and not run.checkpoints(needs):
        newest = " (the newest run)" if name is None else ""
        lacks = "best checkpoint yet (eval_epochs keeps one)" if needs == BEST else "checkpoint yet"
        raise UserError(
            f"{run.path}{newest}: has no {lacks}; wait for its first one, or give a run that has one"
        )
    return run


def _named_run(root: Path, name: str, verb: Optional[str]) -> Run:
    paths = [path for path in (Path(name), root / name) if (path / "run.yaml").is_file()]
    if not paths:
        raise UserError(f"{name}: no run directory (one has a run.yaml), neither here nor in {root}")
    run = Run(paths[0].absolute())
    if verb is not None and run.record()["verb"] != verb:
        raise UserError(f"{name}: is a run of `{run.record()['verb']}`; expected one of `{verb}`")
    return run


def versions() -> Dict[str, Optional[str]]:
    """Versions of what decides a result; None: not installed. Read off folder names: imports are slow."""
    found: Dict[str, Optional[str]] = {"python": sys.version.split()[0]}
    for name in ("fcn-launch", "mindspore", "numpy"):
        pattern = name.replace("-", "_") + "-*.dist-info"
        folders = (path for entry in sys.path if entry for path in Path(entry).glob(pattern))
        first = next(folders, None)
        found[name] = None if first is None else first.name[len(name) + 1 : -len(".dist-info")]
    return found


def _yaml(record: Mapping[str, Any]) -> str:
    import yaml

    return str(yaml.dump(dict(record), Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=False))


def _refusal(error: OSError, where: Path) -> UserError:
    return UserError(
        f"{error.filename or where}: the run directory can not be written: {error.strerror};"
        " choose another one, make room, or change its permissions"
    )


def _new_folder(root: Path, name: str) -> Path:
    stem = f"{time.strftime(_STAMP)}-{name}"
    root.mkdir(parents=True, exist_ok=True)
    for count in range(1, 1000):
        path = root / (stem if count == 1 else f"{stem}-{count}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise UserError(f"{root / stem}: a thousand runs began in this second; wait for one")


def _given_folder(folder: Path) -> Path:
    if (folder / "run.yaml").exists():
        raise UserError(f"{folder}: already holds a run; give a new folder, nothing there was touched")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _checkpoint(manifest_path: Path) -> Optional[Checkpoint]:
    path = manifest_path.with_suffix(".ckpt")
    try:
        manifest = json.loads(manifest_path.read_bytes())
        if path.stat().st_size != manifest["size"]:
            return None
        return Checkpoint(path, int(manifest["step"]), manifest.get("epoch"), manifest)
    except (OSError, ValueError, KeyError, TypeError):
        return None
