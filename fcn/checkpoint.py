"""Checkpoints: save, verify, choose, load.

A checkpoint is a MindSpore `.ckpt` file with a manifest of the same name beside it (`.json`): MindSpore
writes neither a checksum nor to stable storage, and loads a file that was cut short without a word. Verifying
imports no framework.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

from fcn.errors import WeightsError
from fcn.files import is_sealed, seal, sha256_of, sync, write_atomic

FORMAT = 1
META_KEY = "fcn_meta"  # the manifest's description travels inside the file as well


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that is complete and unaltered."""

    path: Path
    manifest: Mapping[str, Any]

    @property
    def step(self) -> int:
        return int(self.manifest["step"])


def save(
    folder: Path, name: str, parameters: List[Tuple[str, Any]], manifest: Mapping[str, Any], keep: int
) -> Path:
    """Write `folder/name.ckpt` and its manifest so that a kill at any moment leaves the older ones good.

    `parameters` are names and MindSpore parameters; `manifest` must hold `step`. Then the oldest are deleted
    until `keep` are left. Raises OSError where the disk refuses.
    """
    import mindspore as ms

    folder.mkdir(parents=True, exist_ok=True)
    for unfinished in folder.glob(".*.writing.ckpt*"):  # of a save that was killed, or found the disk full
        unfinished.unlink()
    target = folder / f"{name}.ckpt"
    writing = folder / f".{name}.writing.ckpt"
    entries = [{"name": key, "data": value} for key, value in parameters]
    ms.save_checkpoint(entries, str(writing), append_dict={META_KEY: json.dumps(dict(manifest))})
    writing.chmod(0o644)
    sync(writing)
    facts = {"size": writing.stat().st_size, "sha256": sha256_of(writing)}
    target.with_suffix(".json").unlink(missing_ok=True)  # it does not vouch for the new file
    writing.replace(target)
    sync(folder)
    description = seal({"format": FORMAT, "file": target.name, **facts, **manifest})
    write_atomic(target.with_suffix(".json"), json.dumps(description, indent=1) + "\n")
    _retire(folder, keep)
    return target


def _retire(folder: Path, keep: int) -> None:
    for path in listed(folder)[keep:]:
        # The manifest first: a file without one is not taken for a checkpoint.
        path.with_suffix(".json").unlink(missing_ok=True)
        path.unlink(missing_ok=True)


def listed(folder: Path, of_step: Optional[int] = None) -> List[Path]:
    """The checkpoints of a folder that have a manifest, newest first. They may still be damaged."""
    steps = []
    for manifest in folder.glob("*.json"):
        try:
            description = json.loads(manifest.read_text())
            steps.append((int(description["step"]), manifest.with_suffix(".ckpt")))
        except (ValueError, KeyError, TypeError, OSError):
            continue
    return [path for step, path in sorted(steps, reverse=True) if of_step in (None, step)]


def newest(folder: Path) -> Tuple[Optional[Checkpoint], List[str]]:
    """The newest checkpoint that verifies, and a line on each newer one that does not."""
    damaged: List[str] = []
    for path in listed(folder):
        try:
            return verify(path), damaged
        except WeightsError as error:
            damaged.append(str(error))
    return None, damaged


def verify(path: Path) -> Checkpoint:
    """Compare a checkpoint with its manifest. Raises WeightsError that says what is wrong with which file."""
    if not path.is_file():
        raise WeightsError(f"{path}: no such checkpoint")
    manifest_path = path.with_suffix(".json")
    try:
        manifest = json.loads(manifest_path.read_text())
        size, digest, version = manifest["size"], manifest["sha256"], manifest["format"]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise WeightsError(f"{manifest_path}: no usable manifest of {path.name} ({error})") from None
    if version != FORMAT or not is_sealed(manifest):
        what = "damaged" if version == FORMAT else f"of format {version}, not {FORMAT}"
        raise WeightsError(f"{manifest_path}: the manifest is {what}; use another checkpoint")
    if path.stat().st_size != size:
        raise WeightsError(
            f"{path}: has {path.stat().st_size} bytes, its manifest says {size}; use another one"
        )
    if sha256_of(path) != digest:
        raise WeightsError(
            f"{path}: its bytes are not those that were saved (sha256 differs); use another one"
        )
    return Checkpoint(path, manifest)


def load(path: Path) -> Tuple[Dict[str, Any], Optional[Dict[str, Any]]]:
    """Parameters by name, as MindSpore parameters, and the description saved with them (None for a foreign
    file).
    """
    import mindspore as ms

    try:
        parameters = ms.load_checkpoint(str(path))
    except (ValueError, OSError, RuntimeError, TypeError) as error:
        raise WeightsError(f"{path}: MindSpore cannot read it: {str(error).splitlines()[0]}") from None
    text = parameters.pop(META_KEY, None)
    return parameters, json.loads(str(text)) if text is not None else None
