"""A data set on disk: MindRecord files and the manifest that vouches for them.

MindRecord has no checksums: a flipped byte, a file of another set under the right name and rows lost in
writing are all read without a word. `X.mindrecord.json` beside the files `X.mindrecord` (one shard) or
`X.mindrecord0`, `X.mindrecord1`, ... holds what they must be. This module reads; build.py writes.
"""

from __future__ import annotations

import hashlib
import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple, Union

import numpy as np

from fcn.errors import DataError
from fcn.files import is_sealed, sha256_of

MANIFEST_FORMAT = "fcn-launch data set"
MANIFEST_VERSION = 1

# MindRecord's schema; `id` is the sample's index in the list it was built from, `label` and `data` are the
# mask and the image as samples.py packs them.
COLUMNS = {"id": "int64", "file_name": "string", "label": "bytes", "data": "bytes"}

_HASH_THREADS = 4


@dataclass(frozen=True, eq=False)
class DataSet:
    """An opened data set.

    Attributes:
        path: `X.mindrecord`, whether or not a file of just that name exists.
        files: the MindRecord files in shard order.
        samples: how many there are; their ids are 0..samples-1 in the order of the list.
        rows: int64 (samples,): the physical row of each sample id, over all files in shard order.
        num_classes, ignore_label: what every mask was checked against.
        class_pixels: pixels of each class over all masks, (num_classes,).
        fingerprint: hash of all images and masks in list order, whatever the shards or the order of rows.
        rebuild: the command that makes the set again.
    """

    path: Path
    files: Tuple[str, ...]
    samples: int
    rows: np.ndarray
    num_classes: int
    ignore_label: int
    class_pixels: Tuple[int, ...]
    fingerprint: str
    rebuild: str


def manifest_path(path: Path) -> Path:
    """Where the manifest of the set `X.mindrecord` is."""
    return path.with_name(path.name + ".json")


def open_dataset(data_file: Union[str, Path], verify: bool = True) -> DataSet:
    """Find a data set and check its files against its manifest.

    Args:
        data_file: `X.mindrecord`, or one of its shards (`X.mindrecord0`).
        verify: also compare the sha256 of every file; presence and sizes are always checked.

    Raises:
        DataError: naming each file that is missing, truncated, altered or foreign, and the way to rebuild.
    """
    dataset, manifest = read_manifest(data_file)
    faults = file_faults(dataset, manifest, verify)
    if faults:
        lines = [f"{dataset.path.with_name(name)}: {fault}" for name, fault in faults.items()]
        raise DataError("\n".join([*lines, f"build the data set again:\n  {dataset.rebuild}"]))
    return dataset


def read_manifest(data_file: Union[str, Path]) -> Tuple[DataSet, Dict[str, Any]]:
    """The data set that a manifest describes, and all that the manifest says; no other file is looked at.

    Raises:
        DataError: where the manifest is missing, damaged, or of another data set than `data_file`.
    """
    given = Path(data_file)
    path = _find(given)
    manifest = _read_manifest(manifest_path(path))
    try:
        dataset = _dataset(path, manifest)
        if given != path and given.name not in [entry["name"] for entry in manifest["files"]]:
            raise DataError(
                f"{given}: is not a file of the data set {path}; give {path}, or build the data set again:\n"
                f"  {dataset.rebuild}"
            )
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(manifest_path(path)) from error
    return dataset, manifest


def file_faults(dataset: DataSet, manifest: Dict[str, Any], verify: bool) -> Dict[str, str]:
    """What is wrong with the files, by their names: presence and size, and with `verify` the sha256."""
    entries = manifest["files"]
    with ThreadPoolExecutor(_HASH_THREADS) as pool:
        faults = pool.map(lambda entry: _fault(dataset.path.parent, entry, verify), entries)
        return {entry["name"]: fault for entry, fault in zip(entries, faults) if fault}


def read_rows(files: Sequence[str], rows: Optional[Sequence[int]] = None) -> Iterator[Dict[str, Any]]:
    """The rows as {"id": int, "file_name": str, "label": bytes, "data": bytes}.

    Args:
        files: MindRecord files.
        rows: the physical rows to read, in this order; all where it is None.

    Raises:
        RuntimeError: where MindRecord cannot read a file; see `reason`.
    """
    import mindspore.dataset as ds  # takes seconds

    sampler = None if rows is None else ds.SubsetSampler(list(rows))
    order = {"shuffle": False} if sampler is None else {"sampler": sampler}
    found = ds.MindDataset(list(files), list(COLUMNS), num_parallel_workers=1, **order)
    for sample_id, name, label, data in found.create_tuple_iterator(num_epochs=1, output_numpy=True):
        yield {"id": int(sample_id), "file_name": str(name), "label": label.tobytes(), "data": data.tobytes()}


def digest(id: int, file_name: str, label: bytes, data: bytes) -> str:  # noqa: A002 (the column's name)
    """Hex sha256 of a row, its columns kept apart."""
    head = f"{id} {file_name} {len(label)} ".encode()
    return hashlib.sha256(head + label + data).hexdigest()


def check_labels(dataset: DataSet, num_classes: int, ignore_label: int) -> None:
    """Refuse a data set whose masks hold labels that a configuration has no meaning for.

    Raises:
        DataError: naming the classes or the ignore label that do not fit.
    """
    unknown = [label for label, pixels in enumerate(dataset.class_pixels) if pixels and label >= num_classes]
    if unknown:
        raise DataError(
            f"{dataset.path}: has pixels of class {', '.join(map(str, unknown))}, but num_classes is "
            f"{num_classes}; set num_classes={dataset.num_classes}"
        )
    if ignore_label != dataset.ignore_label:
        raise DataError(
            f"{dataset.path}: was built with ignore label {dataset.ignore_label}, but ignore_label is "
            f"{ignore_label}; set ignore_label={dataset.ignore_label} or build the data set again"
        )


def file_entry(path: Path) -> Dict[str, Any]:
    """What a manifest says about a file."""
    return {"name": path.name, "size": path.stat().st_size, "sha256": sha256_of(path)}


def reason(error: Exception) -> str:
    """The line of a MindRecord error that says what happened, out of a page of frames and C++ call stack."""
    found = re.search(r"\[ERROR\] (.+)", str(error))
    return found.group(1) if found else str(error).strip()


def related_files(path: Path) -> List[Path]:
    """Every existing file that belongs to a set of this name: records, their indexes, the manifest."""
    name = re.compile(re.escape(path.name) + r"(\d*(\.db)?|\.json)")
    return sorted(file for file in path.parent.glob("*") if name.fullmatch(file.name))


def files_in_manifest(path: Path) -> List[Path]:
    """The files that the manifest of `path` names; none where it is missing or unreadable."""
    try:
        manifest = _read_manifest(manifest_path(path))
        return [path.with_name(str(entry["name"])) for entry in manifest["files"]]
    except (DataError, KeyError, TypeError, ValueError):
        return []


def _find(given: Path) -> Path:
    """The path that the manifest is named after: the one given, or without the shard's number."""
    candidates = [given, given.with_name(re.sub(r"(?<=.)\d+$", "", given.name))]
    for path in candidates:
        if manifest_path(path).is_file():
            return path
    command = f"fcn-launch data build --root DIR --list FILE --out {candidates[-1]}"
    if any(related_files(path) for path in candidates):
        raise DataError(
            f"{given}: has no manifest {manifest_path(candidates[-1])}. MindRecord files carry no checksums, "
            "so without it damage and lost rows would go unseen; it is also missing after an interrupted "
            f"rebuild. Build the data set again:\n  {command} --overwrite"
        )
    raise DataError(f"{given}: no such data set. Build it:\n  {command}")


def _read_manifest(path: Path) -> Dict[str, Any]:
    try:
        manifest = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise _damaged(path) from error
    if not isinstance(manifest, dict) or manifest.get("format") != MANIFEST_FORMAT:
        raise DataError(f"{path}: is not the manifest of a data set; give the file that `data build` wrote")
    if manifest.get("version") != MANIFEST_VERSION:
        raise DataError(
            f"{path}: is of manifest version {manifest.get('version')}, this program reads version "
            f"{MANIFEST_VERSION}; build the data set again with this program:\n  {manifest.get('rebuild')}"
        )
    if not is_sealed(manifest):
        raise _damaged(path, manifest.get("rebuild"))
    return manifest


def _damaged(path: Path, rebuild: Optional[str] = None) -> DataError:
    command = rebuild or "fcn-launch data build --root DIR --list FILE --out X.mindrecord --overwrite"
    return DataError(f"{path}: the manifest is damaged; build the data set again:\n  {command}")


def _dataset(path: Path, manifest: Dict[str, Any]) -> DataSet:
    samples = int(manifest["samples"])
    names = [str(entry["name"]) for entry in manifest["files"]]
    return DataSet(
        path=path,
        files=tuple(str(path.parent / name) for name in names if not name.endswith(".db")),
        samples=samples,
        rows=_row_of_each_id(manifest["row_ids"], samples),
        num_classes=int(manifest["num_classes"]),
        ignore_label=int(manifest["ignore_label"]),
        class_pixels=tuple(int(pixels) for pixels in manifest["class_pixels"]),
        fingerprint=str(manifest["fingerprint"]),
        rebuild=str(manifest["rebuild"]),
    )


def _row_of_each_id(row_ids: Sequence[int], samples: int) -> np.ndarray:
    ids = np.asarray(row_ids, np.int64)
    if not np.array_equal(np.sort(ids), np.arange(samples)):
        raise ValueError("row_ids is not a permutation of the sample ids")
    return np.argsort(ids)


def _fault(folder: Path, entry: Dict[str, Any], verify: bool) -> Optional[str]:
    """What is wrong with a file, if anything."""
    path = folder / str(entry["name"])
    try:
        size = path.stat().st_size
        if size != entry["size"]:
            kind = "is truncated" if size < entry["size"] else "is not the file it was"
            return f"{kind}: {size:,} bytes, {entry['size']:,} when it was built"
        if verify and sha256_of(path) != entry["sha256"]:
            return "is not the file that was built: damaged, or of another data set (sha256 differs)"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return None
