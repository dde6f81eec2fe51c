"""Build a data set: check every sample of a list, then write MindRecord files and their manifest."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shlex
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence

import numpy as np

from fcn.data import listing, records
from fcn.data.samples import CHUNK_SAMPLES, THREADS, Checked, Progress, check_all, chunks, record, warn
from fcn.errors import DataError
from fcn.files import seal, sync

# MindRecord pads each file to a header and whole pages; its defaults make 50 MB of ten tiny samples. A header
# of 4 MB lists some 20,000 pages, 80 GB a file.
_PAGE_BYTES = 4 << 20
_HEADER_BYTES = 4 << 20
_SHARDS_MAX = 1000  # MindRecord's own limit
_NOT_IN_FILE_NAMES = "\\/:*?\"<>|`&';"  # MindRecord refuses them


@dataclass(frozen=True)
class BuildOptions:
    """What to build, from what.

    Attributes:
        shuffle: mix the physical order of the rows, drawn from `seed`. Ids, fingerprint and training do
            not depend on it: training draws its own order over the ids.
        decoded: store pixels rather than compressed files, for hosts where decoding them is the limit. The
            fingerprint does not depend on it: training sees the same bytes.
        rebuild: the command to name in the manifest where it is not `data build` with these options.
    """

    root: Path
    list_file: Path
    out: Path
    shards: int = 1
    shuffle: bool = False
    seed: int = 1
    num_classes: int = 21
    ignore_label: int = 255
    decoded: bool = False
    overwrite: bool = False
    rebuild: Optional[str] = None


def build_dataset(options: BuildOptions) -> Dict[str, Any]:
    """Check and write a data set; returns what the command prints.

    All samples are checked before any is written. The files are written in a folder beside the target and
    move to their names only when complete, the manifest last.

    Raises:
        DataError: bad options; files that exist already; or every bad sample with its line of the list.
    """
    return build_datasets([options])[0]


def build_datasets(several: Sequence[BuildOptions]) -> List[Dict[str, Any]]:
    """As `build_dataset`; no set is written before the samples of all are checked."""
    for options in several:
        check_options(options)
    with ExitStack() as stack:
        folders = [stack.enter_context(_building_folder(options.out)) for options in several]
        for options in several:
            refuse_existing(options)
        checked = [_check_samples(options) for options in several]
        return [_write(*work) for work in zip(folders, checked, several)]


def _write(folder: Path, checked: Sequence[Checked], options: BuildOptions) -> Dict[str, Any]:
    _check_room(folder, checked, options)
    stored = _write_records(folder, checked, options)
    manifest = _write_manifest(folder, checked, stored, options)
    _move_into_place(folder, options.out)
    return _summary(manifest, options)


def _check_samples(options: BuildOptions) -> List[Checked]:
    items, problems = listing.scan_list(options.root, options.list_file)
    checked, more = check_all(items, options.num_classes, options.ignore_label, options.decoded)
    problems += more
    if problems:
        count = f"{len(problems)} bad line{'s' if len(problems) > 1 else ''}"
        raise DataError(f"{listing.describe(options.list_file, problems)}\n{count}; no data set was written")
    if options.shards > len(checked):
        raise DataError(f"{options.list_file}: lists {len(checked)} samples; give at most as many --shards")
    turned = [sample.item.image_path for sample in checked if sample.turned]
    if turned:
        what = "1 image carries" if len(turned) == 1 else f"{len(turned)} images carry"
        what += " an EXIF rotation, which training and evaluation ignore"
        warn(f"{what}: their masks must be labelled on the pixels as stored; the first is {turned[0]}")
    return checked


def refuse_existing(options: BuildOptions) -> None:
    """Raises DataError where a set of that name is there and is not to be replaced."""
    existing = records.related_files(options.out)
    if existing and not options.overwrite:
        raise DataError(f"{existing[0]}: exists already; give another --out, or replace it with --overwrite")


def check_options(options: BuildOptions) -> None:
    """Raises DataError for values that no data set can have."""
    if not 1 <= options.shards <= _SHARDS_MAX:
        raise DataError(f"--shards {options.shards}: must be 1 to {_SHARDS_MAX}")
    if not 2 <= options.num_classes <= 255:
        rule = "must be 2 to 255: masks have 8 bits, and one value is the ignore label"
        raise DataError(f"--num-classes {options.num_classes}: {rule}")
    if not options.num_classes <= options.ignore_label <= 255:
        rule = f"must be {options.num_classes} to 255: no class, and 8 bits"
        raise DataError(f"--ignore-label {options.ignore_label}: {rule}")
    if options.seed < 0:
        raise DataError(f"--seed {options.seed}: must not be negative")
    out = options.out
    if out.is_dir():
        raise DataError(f"--out {out}: is a folder; give a file in it, {out / 'train.mindrecord'}")
    if out.name[-1:].isdigit() or set(out.name) & set(_NOT_IN_FILE_NAMES) or out.name != out.name.strip():
        rule = f"end in a digit (shards do), hold any of {_NOT_IN_FILE_NAMES} or start or end in a space"
        raise DataError(f"--out {out}: the name must not {rule}; give X.mindrecord")


@contextmanager
def _building_folder(out: Path) -> Iterator[Path]:
    """An empty folder beside the target, ours alone; what a killed build left in it is removed."""
    folder = out.with_name(f".{out.name}.building")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise DataError(f"{out.parent}: cannot be written: {error.strerror}; give another --out") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise DataError(f"{out}: another build of it is under way; wait for its end or stop it") from error
    try:
        for left in folder.iterdir():
            left.unlink()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _check_room(folder: Path, checked: Sequence[Checked], options: BuildOptions) -> None:
    page = _page_bytes(checked)
    largest = max(sample.record_bytes for sample in checked)
    # what is left of a page is less than the sample that did not fit
    needed = sum(sample.record_bytes for sample in checked) * page // (page - largest)
    needed += options.shards * (_HEADER_BYTES + 2 * page)
    free = shutil.disk_usage(folder).free
    if needed > free:
        what = f"needs up to {needed >> 20:,} MB and has {free >> 20:,} MB free"
        raise DataError(f"{options.out.parent}: {what}; make room or give another --out")


def _page_bytes(checked: Sequence[Checked]) -> int:
    """A power of two of at least twice the largest sample: MindRecord refuses rows that do not fit a page."""
    largest = max(sample.record_bytes for sample in checked)
    return max(_PAGE_BYTES, 1 << (2 * largest - 1).bit_length())


@dataclass(frozen=True)
class _Stored:
    """What was written.

    Attributes:
        row_ids: the sample id of each physical row, over all files.
        shard_samples: how many rows each file has.
        digests: of each sample, see `records.digest`.
    """

    row_ids: List[int]
    shard_samples: List[int]
    digests: List[str]


def _write_records(folder: Path, checked: Sequence[Checked], options: BuildOptions) -> _Stored:
    """Write the files, read them back and compare."""
    # takes seconds, so not before the samples are known to be good
    from mindspore.mindrecord import FileWriter, MindRecordException

    order = np.arange(len(checked))
    if options.shuffle:
        np.random.default_rng(options.seed).shuffle(order)
    # MindRecord deals the rows of a call out to the shards in equal runs, any rest to shards that it draws
    # from the clock: whole multiples keep the files of one list nearly the same from build to build.
    chunk_samples = options.shards * -(-CHUNK_SAMPLES // options.shards)
    digests: Dict[int, str] = {}
    progress = Progress("wrote", len(checked))
    try:
        writer = FileWriter(str(folder.resolve() / options.out.name), shard_num=options.shards)
        writer.set_header_size(_HEADER_BYTES)
        writer.set_page_size(_page_bytes(checked))
        writer.add_schema({name: {"type": kind} for name, kind in records.COLUMNS.items()})
        writer.add_index(["id"])
        with ThreadPoolExecutor(THREADS) as pool:
            for chunk in chunks(order.tolist(), chunk_samples):
                rows = list(pool.map(lambda i: record(i, checked[i], options.decoded), chunk))
                digests.update({row["id"]: records.digest(**row) for row in rows})
                writer.write_raw_data(rows)  # parallel_writer=True loses rows without an error
                progress.add(len(chunk))
        writer.commit()
        return _read_back(folder, digests)
    except (RuntimeError, MindRecordException) as error:
        free = f"{shutil.disk_usage(folder).free >> 20:,} MB are free there"
        raise DataError(
            f"{options.out}: MindRecord cannot write it: {records.reason(error)}; {free}"
        ) from error


def _read_back(folder: Path, digests: Dict[int, str]) -> _Stored:
    row_ids: List[int] = []
    shard_samples: List[int] = []
    for file in sorted(file for file in folder.iterdir() if file.suffix != ".db"):
        before = len(row_ids)
        for row in records.read_rows([str(file)]):
            row_ids.append(row["id"])
            if digests.get(row["id"]) != records.digest(**row):
                raise RuntimeError(f"sample {row['id']} does not read back as it was written")
        shard_samples.append(len(row_ids) - before)
    if sorted(row_ids) != list(range(len(digests))):
        raise RuntimeError(f"{len(digests)} samples written, {len(set(row_ids))} read back")
    return _Stored(row_ids, shard_samples, [digests[sample_id] for sample_id in range(len(digests))])


def _write_manifest(
    folder: Path, checked: Sequence[Checked], stored: _Stored, options: BuildOptions
) -> Dict[str, Any]:
    with ThreadPoolExecutor(THREADS) as pool:
        files = list(pool.map(records.file_entry, sorted(folder.iterdir())))
    pixels = np.sum([sample.pixels for sample in checked], axis=0)
    ignored = int(pixels[options.ignore_label])
    pixels[options.ignore_label] = 0
    images = np.sum([sample.pixels > 0 for sample in checked], axis=0)
    images[options.ignore_label] = 0
    hashes = "\n".join(f"{sample.image_sha} {sample.ids_sha}" for sample in checked)
    manifest = seal(
        {
            "format": records.MANIFEST_FORMAT,
            "version": records.MANIFEST_VERSION,
            "samples": len(checked),
            "shards": options.shards,
            "num_classes": options.num_classes,
            "ignore_label": options.ignore_label,
            "class_pixels": pixels[: options.num_classes].tolist(),
            "ignored_pixels": ignored,
            "class_images": images[: options.num_classes].tolist(),
            "image_sizes": {
                "width": _spread([sample.width for sample in checked]),
                "height": _spread([sample.height for sample in checked]),
            },
            "decoded": options.decoded,
            "fingerprint": hashlib.sha256(hashes.encode()).hexdigest(),
            "rebuild": options.rebuild or _rebuild_command(options),
            "files": files,
            "row_ids": stored.row_ids,
            "shard_samples": stored.shard_samples,
            "names": [sample.item.name for sample in checked],
            "digests": stored.digests,
        }
    )
    records.manifest_path(folder / options.out.name).write_text(json.dumps(manifest, indent=1))
    return manifest


def _spread(values: Sequence[int]) -> Dict[str, float]:
    return {"min": min(values), "median": float(np.median(values)), "max": max(values)}


def _rebuild_command(options: BuildOptions) -> str:
    words = ["fcn-launch", "data", "build", "--root", options.root.absolute()]
    words += [
        "--list",
        options.list_file.absolute(),
        "--out",
        options.out.absolute(),
        "--shards",
        options.shards,
    ]
    words += ["--num-classes", options.num_classes, "--ignore-label", options.ignore_label]
    words += ["--shuffle", "--seed", options.seed] if options.shuffle else []
    words += ["--decoded"] if options.decoded else []
    return shlex.join([*map(str, words), "--overwrite"])


def _move_into_place(folder: Path, out: Path) -> None:
    """Readers refuse a set without a manifest, so an old one goes first and the new one comes last."""
    manifest = records.manifest_path(folder / out.name)
    mode = manifest.stat().st_mode & 0o777  # what the umask gives; MindRecord makes its files 0600
    for file in folder.iterdir():
        file.chmod(mode)
        sync(file)
    replaced = records.files_in_manifest(out)
    records.manifest_path(out).unlink(missing_ok=True)
    sync(out.parent)
    for old in replaced:
        old.unlink(missing_ok=True)
    for file in sorted(folder.iterdir()):
        if file != manifest:
            file.rename(out.with_name(file.name))
    sync(out.parent)
    manifest.rename(records.manifest_path(out))
    sync(out.parent)


def _summary(manifest: Dict[str, Any], options: BuildOptions) -> Dict[str, Any]:
    keys = (
        "samples",
        "shards",
        "num_classes",
        "ignore_label",
        "class_pixels",
        "ignored_pixels",
        "fingerprint",
    )
    size = sum(entry["size"] for entry in manifest["files"])
    return {"data_file": str(options.out), **{key: manifest[key] for key in keys}, "bytes": size}
