"""PASCAL VOC 2012, alone or with SBD: the lists, the masks and both data sets.

With SBD the training list is `trainaug`: VOC's train list and all that SBD has labelled, without the images
of VOC's validation list. An image that both have labelled keeps VOC's mask, which has the ignore label round
the objects. A VOC folder in which both are merged already (`trainaug.txt` and `SegmentationClassAug/`) is
taken as it is. The lists that are written name files by their whole paths, so that any root goes with them.
"""

from __future__ import annotations

import shlex
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Callable, Collection, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple, Union

from fcn.data import listing, sbd
from fcn.data.build import BuildOptions, build_datasets, check_options, refuse_existing
from fcn.data.samples import CHUNK_SAMPLES, THREADS, Progress, chunks, warn
from fcn.errors import DataError
from fcn.files import write_atomic
from fcn.pictures import save_mask

OFFICIAL_IMAGES = {"train": 1464, "trainaug": 10582, "val": 1449}

_LISTS = "ImageSets/Segmentation"
_MERGED_MASKS = "SegmentationClassAug"
_CONVERTED_MASKS = "cls_png"
_NAMES_SHOWN_MAX = 5


@dataclass(frozen=True)
class VocOptions:
    """The folders `VOCdevkit/VOC2012` and, if wanted, `benchmark_RELEASE`, and the folder to make."""

    voc: Path
    out: Path
    sbd: Optional[Path] = None
    shards: int = 4
    decoded: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class _Sample:
    """The files of a name; `mat` is what `mask` has to be converted from, if anything."""

    image: Path
    mask: Path
    mat: Optional[Path] = None


def make_voc(options: VocOptions) -> Dict[str, Any]:
    """Write train.txt, val.txt, converted masks of SBD, train.mindrecord and val.mindrecord.

    Raises:
        DataError: bad options; folders that are not those of VOC and SBD; every name without its files, and
            every bad sample, before a data set is written.
    """
    voc, sbd_folder = _sources(options)
    _check_out(options, voc, sbd_folder)
    train, val = read_names(voc / _LISTS / "train.txt"), read_names(voc / _LISTS / "val.txt")
    more = _further_names(voc, sbd_folder)
    names = {"train": train_names(train, val, more), "val": list(val)}
    leaked = set(val) & (set(train) if sbd_folder else {*train, *more})  # SBD has VOC's val images by design
    warnings = _warnings(names, leaked, kind="trainaug" if more else "train")

    if not names["train"]:
        raise DataError(f"{voc / _LISTS}: train.txt names validation images alone; fetch the lists again")
    listed_at = {**more, **val, **train}
    find = partial(_find, voc, sbd_folder, options.out / _CONVERTED_MASKS, labelled_by_voc={*train, *val})
    found = _find_all(find, [*names["train"], *names["val"]], listed_at)
    with _removed_on_error([path for path in _written(options.out) if not path.exists()]):
        try:
            _convert([sample for sample in found.values() if sample.mat])
            for split, members in names.items():
                _write_list(options.out / f"{split}.txt", [found[name] for name in members])
        except OSError as error:
            where = error.filename or options.out
            raise DataError(f"{where}: cannot be written: {error.strerror}; give another --out") from error
        built = build_datasets([_build_options(options, split, len(names[split])) for split in names])
    lists = {f"{split}_list": str(options.out / f"{split}.txt") for split in names}
    return {**dict(zip(names, built)), "root": str(options.out), **lists, "warnings": warnings}


def _sources(options: VocOptions) -> Tuple[Path, Optional[Path]]:
    """The folders `VOC2012` and `benchmark_RELEASE/dataset`, also where a folder above them is given."""
    voc = _folder_with(f"{_LISTS}/val.txt", "--voc", options.voc, ("VOC2012", "VOCdevkit/VOC2012"))
    if options.sbd is None:
        return voc, None
    sbd.reader()
    return voc, _folder_with("cls", "--sbd", options.sbd, ("dataset", "benchmark_RELEASE/dataset"))


def _folder_with(content: str, option: str, given: Path, below: Sequence[str]) -> Path:
    for folder in (given, *(given / name for name in below)):
        if (folder / content).exists():
            return folder
    raise DataError(f"{option} {given}: has no {content}; give the folder {below[-1]}")


def _check_out(options: VocOptions, voc: Path, sbd_folder: Optional[Path]) -> None:
    out = options.out
    if out.exists() and not out.is_dir():
        raise DataError(f"--out {out}: is a file; give a folder")
    sources = [voc, voc / _LISTS, *([sbd_folder] if sbd_folder else [])]
    if any(out.resolve() == folder.resolve() for folder in sources):
        raise DataError(f"--out {out}: holds the data that is read; give another folder")
    for split in ("train", "val"):
        check_options(_build_options(options, split, samples=options.shards))
        refuse_existing(_build_options(options, split, samples=options.shards))
    existing = [path for path in _written(out) if path.exists()]
    if existing and not options.overwrite:
        raise DataError(f"{existing[0]}: exists already; give another --out, or replace it with --overwrite")


def _written(out: Path) -> List[Path]:
    """What is written beside the data sets."""
    return [out / name for name in ("train.txt", "val.txt", _CONVERTED_MASKS)]


@contextmanager
def _removed_on_error(paths: Sequence[Path]) -> Iterator[None]:
    """A sample that is bad shows late; the same command goes through once it is mended."""
    try:
        yield
    except BaseException:
        for path in filter(Path.exists, paths):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        raise


def _build_options(options: VocOptions, split: str, samples: int) -> BuildOptions:
    return BuildOptions(
        root=options.out,
        list_file=options.out / f"{split}.txt",
        out=options.out / f"{split}.mindrecord",
        shards=min(options.shards, samples),
        decoded=options.decoded,
        overwrite=options.overwrite,
        rebuild=_rebuild_command(options),
    )


def _rebuild_command(options: VocOptions) -> str:
    words = ["fcn-launch", "data", "voc", "--voc", options.voc.absolute()]
    words += ["--sbd", options.sbd.absolute()] if options.sbd else []
    words += ["--out", options.out.absolute(), "--shards", options.shards]
    words += ["--decoded"] if options.decoded else []
    return shlex.join([*map(str, words), "--overwrite"])


def read_names(list_file: Path) -> Dict[str, str]:
    """The names of a list, in its order, and the line that has each, as FILE:LINE.

    A path to an image counts as the name of its file: `/JPEGImages/2007_000032.jpg` is 2007_000032.

    Raises:
        DataError: where the list cannot be read, or is empty.
    """
    names: Dict[str, str] = {}
    for number, words in listing.entries(list_file):
        names.setdefault(Path(words[0]).stem, f"{list_file}:{number}")
    if not names:
        raise DataError(f"{list_file}: lists no image; fetch it again")
    return names


def train_names(train: Iterable[str], val: Iterable[str], more: Iterable[str]) -> List[str]:
    """All names of `train` and `more`, each once, but none of `val`."""
    held_out = set(val)
    return [name for name in dict.fromkeys([*train, *more]) if name not in held_out]


def _further_names(voc: Path, sbd_folder: Optional[Path]) -> Dict[str, str]:
    """What there is to train on beyond VOC's own list."""
    if sbd_folder is not None:
        return {**read_names(sbd_folder / "train.txt"), **read_names(sbd_folder / "val.txt")}
    if (voc / _LISTS / "trainaug.txt").is_file() and (voc / _MERGED_MASKS).is_dir():
        return read_names(voc / _LISTS / "trainaug.txt")
    return {}


def _warnings(names: Dict[str, List[str]], leaked: Collection[str], kind: str) -> List[str]:
    """What is not as in the published set; also printed, because the work takes minutes from here."""
    warnings = []
    if leaked:
        shown = ", ".join(sorted(leaked)[:_NAMES_SHOWN_MAX])
        what = f"{len(leaked)} names of the training list are in the validation list too"
        warnings.append(f"{what} ({shown}, ...); they are left out of training")
    for split, official in (("train", kind), ("val", "val")):
        count, expected = len(names[split]), OFFICIAL_IMAGES[official]
        if count != expected:
            text = f"{split}: {count:,} images, PASCAL VOC 2012 has {expected:,} in {official}"
            warnings.append(f"{text}; right for a part of it, otherwise check the lists")
    for text in warnings:
        warn(text)
    return warnings


def _find(
    voc: Path, sbd_folder: Optional[Path], converted: Path, name: str, labelled_by_voc: Collection[str]
) -> Union[_Sample, str]:
    """The files of a name, or what is missing."""
    images = [voc / "JPEGImages" / f"{name}.jpg"]
    masks = [voc / "SegmentationClass" / f"{name}.png", voc / _MERGED_MASKS / f"{name}.png"]
    mat = None
    if sbd_folder is not None:
        images.append(sbd_folder / "img" / f"{name}.jpg")
    if sbd_folder is not None and name not in labelled_by_voc:
        mat = masks[1] = sbd_folder / "cls" / f"{name}.mat"
    image, mask = (next((path for path in paths if path.is_file()), None) for paths in (images, masks))
    if image is None or mask is None:
        looked_for = " and ".join(map(str, images if image is None else masks))
        return f"{name}: has no {'image' if image is None else 'mask'}: looked for {looked_for}"
    return _Sample(image, converted / f"{name}.png", mat) if mask == mat else _Sample(image, mask)


def _find_all(
    find: Callable[..., Union[_Sample, str]], names: Sequence[str], listed_at: Dict[str, str]
) -> Dict[str, _Sample]:
    found = {name: find(name=name) for name in names}
    missing = [f"{listed_at[name]}: {what}" for name, what in found.items() if isinstance(what, str)]
    if missing:
        remedy = "fetch what is missing, or take the names off the lists"
        raise DataError("\n".join([*missing, f"{len(missing)} names without their files; {remedy}"]))
    return {name: sample for name, sample in found.items() if isinstance(sample, _Sample)}


def _convert(samples: Sequence[_Sample]) -> None:
    """Write the masks that SBD has as MATLAB files as indexed PNG files.

    Raises:
        DataError: naming every file that cannot be read.
    """
    if not samples:
        return
    samples[0].mask.parent.mkdir(parents=True, exist_ok=True)
    progress = Progress("converted", len(samples))
    problems: List[str] = []
    with ThreadPoolExecutor(THREADS) as pool:
        for chunk in chunks(samples, CHUNK_SAMPLES):
            problems += [problem for problem in pool.map(_convert_one, chunk) if problem]
            progress.add(len(chunk))
    if problems:
        raise DataError("\n".join([*problems, f"{len(problems)} bad files; no data set was written"]))


def _convert_one(sample: _Sample) -> str:
    """What went wrong, if anything."""
    assert sample.mat is not None
    try:
        save_mask(sample.mask, sbd.read_mask(sample.mat))
    except DataError as error:
        return str(error)
    return ""


def _write_list(list_file: Path, samples: Sequence[_Sample]) -> None:
    """A tab between the paths lets them have blanks."""
    lines = [f"{sample.image.absolute()}\t{sample.mask.absolute()}\n" for sample in samples]
    list_file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(list_file, "".join(lines))
