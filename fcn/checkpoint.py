"""Checkpoints: save, verify, choose, load.

A checkpoint is two files and a manifest, with names that differ in their ends:

    FCN8s-3_330.ckpt                what is scored: weights, batch-norm statistics, moving averages
    FCN8s-3_330.state.safetensors   what only going on needs: the optimizer's moments
    FCN8s-3_330.json                the manifest: size and sha256 of both, step, ... and its own checksum

The manifest comes last: without it there is no checkpoint. MindSpore writes neither a checksum nor to stable
storage, and loads a file that was cut short without a word. Nothing here but `load` imports it.
"""

from __future__ import annotations

import errno
import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from fcn.errors import SaveError, WeightsError
from fcn.files import (
    in_megabytes,
    is_sealed,
    make_folder,
    seal,
    sha256_of,
    sha256_on_disk,
    sync,
    write_atomic,
    write_blocks,
)
from fcn.tensor_files import Arrays, ckpt, safetensors

FORMAT = 2
META_KEY = "fcn_meta"  # the manifest's description travels inside the .ckpt as well
STATES_KEPT = 2  # of the newest: one to go on from, and one more should the first be damaged
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that is complete and unaltered."""

    path: Path
    manifest: Mapping[str, Any]

    @property
    def step(self) -> int:
        return int(self.manifest["step"])


def manifest_of(path: Path) -> Path:
    """The manifest of a `.ckpt`."""
    return path.with_suffix(".json")


def state_of(path: Path) -> Path:
    """The file beside a `.ckpt` that going on needs."""
    return path.with_suffix(".state.safetensors")


def save(
    folder: Path,
    name: str,
    weights: Arrays,
    state: Optional[Arrays],
    manifest: Mapping[str, Any],
    wrote: Callable[[int], None] = lambda count: None,
) -> Path:
    """Write `folder/name.ckpt`, its state unless that is None, and its manifest; returns the `.ckpt`.

    A kill or a power cut at any moment leaves the others good, and this one whole or without a manifest that
    verifies.
    `manifest` must hold `step`; `wrote` is told of bytes that the disk has taken. Raises SaveError.
    """
    target = folder / f"{name}.ckpt"
    text = json.dumps(dict(manifest))
    needed = sum(map(len, ckpt(weights, {META_KEY: text})))
    needed += 0 if state is None else sum(map(len, safetensors(state)))
    taken = 0

    def count(size: int) -> None:
        nonlocal taken
        taken += size
        wrote(size)

    def write(path: Path, blocks: Any) -> Dict[str, Any]:
        size, sha256 = write_blocks(_writing(path), blocks, count)
        return {"size": size, "sha256": sha256}

    placed: List[Path] = []

    def place(path: Path) -> None:
        _writing(path).replace(path)
        placed.append(path)

    try:
        make_folder(folder)
        _sweep(folder)
        facts = write(target, ckpt(weights, {META_KEY: text}))
        if state is not None:
            facts["state"] = write(state_of(target), safetensors(state))
            place(state_of(target))
        place(target)
        sync(folder)
        description = seal({"format": FORMAT, "file": target.name, **facts, **manifest})
        write_atomic(manifest_of(target), json.dumps(description, indent=1) + "\n")
    except OSError as error:
        with suppress(OSError):
            _sweep(folder)
            if not manifest_of(target).exists():
                for path in placed:
                    path.unlink()
        reason = error.strerror or str(error)
        if error.errno in _NO_ROOM:
            reason += f", {in_megabytes(max(needed - taken, 1))} more are needed"
        raise SaveError(f"{target}: not saved: {reason}") from error
    return target


def _writing(path: Path) -> Path:
    return path.with_name(f".{path.name}.writing")


def _sweep(folder: Path) -> None:
    """Remove what a save left that was killed, or found the disk full."""
    for unfinished in folder.glob(".*.writing"):
        unfinished.unlink()


def retire(saved: Path, keep: Optional[int]) -> None:
    """Delete what its successors have made superfluous, once `saved` has been read back.

    Of the checkpoints up to the step of `saved`, the newest `keep` stay and those that are permanent; the
    state stays of the newest STATES_KEPT. Later ones were passed over, as they are damaged: they are neither
    counted nor deleted. keep None: `saved` alone stays. Raises WeightsError where it is not what was written.
    """
    ours = _sealed_manifest(saved)
    found = [one for one in _manifests(saved.parent) if keep is None or one[0] <= ours["step"]]
    if keep is None:
        surplus = [path for _, path, _ in found if path != saved]
    else:
        surplus = [path for _, path, manifest in found if not manifest.get("permanent")][keep:]
    stateless = [path for _, path, _ in found[STATES_KEPT:] if state_of(path).exists()]
    if surplus or stateless:
        verify(saved, to_resume="state" in ours, digest_of=sha256_on_disk)
    for path in surplus:
        # The manifest first: a file without one is not taken for a checkpoint.
        for file in (manifest_of(path), path, state_of(path)):
            file.unlink(missing_ok=True)
    for path in stateless:
        state_of(path).unlink(missing_ok=True)


def _manifests(folder: Path) -> List[Tuple[int, Path, Dict[str, Any]]]:
    """Step, `.ckpt` and manifest of all that have one of their own which can be read, newest first."""
    found = []
    for path in folder.glob("*.json"):
        with suppress(ValueError, KeyError, TypeError, OSError):
            manifest = json.loads(path.read_text())
            if manifest["file"] == f"{path.stem}.ckpt":
                found.append((int(manifest["step"]), path.with_suffix(".ckpt"), manifest))
    return sorted(found, key=lambda one: one[:2], reverse=True)


def listed(folder: Path, of_step: Optional[int] = None) -> List[Path]:
    """The checkpoints of a folder that have a manifest, newest first. They may still be damaged."""
    return [path for step, path, _ in _manifests(folder) if of_step in (None, step)]


def newest(folder: Path, to_resume: bool = False) -> Tuple[Optional[Checkpoint], List[str]]:
    """The newest checkpoint that verifies, and a line on each that does not and is newer, or may be.

    to_resume: it must have its state too; those that are too old to have one are passed over in silence.
    """
    paths = listed(folder)
    damaged = [
        f"{path}: has no manifest of its own, as after a save that was cut short; it is passed over"
        for path in sorted(set(folder.glob("*.ckpt")) - set(paths))
    ]
    for place, path in enumerate(paths):
        if to_resume and place >= STATES_KEPT and not state_of(path).exists():
            continue
        try:
            return verify(path, to_resume), damaged
        except WeightsError as error:
            damaged.append(str(error))
    return None, damaged


def verify(path: Path, to_resume: bool = False, digest_of: Callable[[Path], str] = sha256_of) -> Checkpoint:
    """Compare a checkpoint, and where it is `to_resume` its state, with its manifest.

    Raises WeightsError that says what is wrong with which file.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such checkpoint")
    manifest = _sealed_manifest(path)
    _compare(path, manifest, digest_of)
    if to_resume:
        if "state" not in manifest:
            raise WeightsError(f"{path}: was saved without the state that going on needs; use another one")
        _compare(state_of(path), manifest["state"], digest_of)
    return Checkpoint(path, manifest)


def _sealed_manifest(path: Path) -> Dict[str, Any]:
    """What the manifest of a `.ckpt` holds. Raises WeightsError where it is damaged, or of another format."""
    manifest_path = manifest_of(path)
    try:
        manifest = dict(json.loads(manifest_path.read_text()))
        version, _ = manifest["format"], [manifest[key] for key in ("size", "sha256", "step")]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise WeightsError(f"{manifest_path}: no usable manifest of {path.name} ({error})") from None
    if version != FORMAT or not is_sealed(manifest):
        what = "damaged" if version == FORMAT else f"of format {version}, not {FORMAT}"
        raise WeightsError(f"{manifest_path}: the manifest is {what}; use another checkpoint")
    return manifest


def _compare(path: Path, facts: Mapping[str, Any], digest_of: Callable[[Path], str]) -> None:
    """Raises WeightsError where a file has not the size and sha256 that were saved."""
    try:
        size = path.stat().st_size
        wrong = (
            f"has {size} bytes, its manifest says {facts['size']}"
            if size != facts["size"]
            else ""
            if digest_of(path) == facts["sha256"]
            else "its bytes are not those that were saved (sha256 differs)"
        )
    except OSError as error:
        wrong = f"can not be read: {error.strerror}"
    if wrong:
        raise WeightsError(f"{path}: {wrong}; use another one")


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


def load_state(path: Path) -> Dict[str, Any]:
    """What only going on needs: NumPy arrays by name. `path`: the `.ckpt`, verified to resume."""
    from safetensors.numpy import load_file

    return dict(load_file(state_of(path)))
