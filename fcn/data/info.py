"""What is in a data set, as its manifest says, and a contact sheet of some of its samples."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Dict, List, Optional

import cv2
import numpy as np

from fcn.data import records
from fcn.data.classes import class_names
from fcn.data.listing import READ_BGR
from fcn.errors import DataError
from fcn.files import write_atomic
from fcn.pictures import SHEET_ROWS, contact_sheet, overlay


def describe(data_file: Path, sheet: Optional[Path] = None) -> Dict[str, Any]:
    """The facts about a data set; writes a contact sheet of samples spread evenly over it.

    Presence and sizes of the files are checked, their checksums are not: see verify.py.

    Args:
        data_file: as for `open_dataset`.
        sheet: the PNG to write; one that exists and is another picture stays as it is and is an error. None:
            `X.mindrecord.png`, which is replaced: it may be of a data set that was there before.

    Raises:
        DataError: a data set that cannot be opened or read, or a sheet that cannot be written.
    """
    dataset = records.open_dataset(data_file, verify=False)
    manifest = records.read_manifest(data_file)[1]
    replace = sheet is None
    sheet = sheet or dataset.path.with_name(dataset.path.name + ".png")
    _write_sheet(dataset, sheet, replace)
    sizes = {entry["name"]: entry["size"] for entry in manifest["files"]}
    names = [Path(file).name for file in dataset.files]
    return {
        "data_file": str(dataset.path),
        "samples": dataset.samples,
        "shards": [
            {"file": name, "samples": samples, "bytes": sizes[name]}
            for name, samples in zip(names, manifest["shard_samples"])
        ],
        "bytes": sum(sizes.values()),
        "decoded": manifest["decoded"],
        "fingerprint": dataset.fingerprint,
        "ignore_label": dataset.ignore_label,
        "image_sizes": manifest["image_sizes"],
        "classes": [
            {"label": label, "name": name, "pixels": pixels, "images": images}
            for label, (name, pixels, images) in enumerate(
                zip(class_names(dataset.num_classes), dataset.class_pixels, manifest["class_images"])
            )
        ],
        "ignored_pixels": manifest["ignored_pixels"],
        "sheet": str(sheet),
    }


def _write_sheet(dataset: records.DataSet, sheet: Path, replace: bool) -> None:
    with TemporaryDirectory() as folder:
        drawn = Path(folder) / "sheet.png"
        contact_sheet(_sheet_rows(dataset), drawn, ("image", "mask", "both"))
        content = drawn.read_bytes()
    try:
        if not replace and sheet.exists() and sheet.read_bytes() != content:
            raise DataError(f"{sheet}: exists already and is another picture; give another --sheet")
        sheet.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(sheet, content)
    except OSError as error:
        raise DataError(f"{sheet}: cannot be written: {error.strerror}; give another --sheet") from error


def _sheet_rows(dataset: records.DataSet) -> List[List[np.ndarray]]:
    ids = np.linspace(0, dataset.samples - 1, min(SHEET_ROWS, dataset.samples)).round().astype(int)
    pictures = []
    for row in records.read_rows(dataset.files, dataset.rows[ids].tolist()):
        image = cv2.imdecode(np.frombuffer(row["data"], np.uint8), READ_BGR)
        mask = cv2.imdecode(np.frombuffer(row["label"], np.uint8), cv2.IMREAD_UNCHANGED)
        if image is None or mask is None or mask.shape != image.shape[:2]:
            raise DataError(f"{dataset.path}: sample {row['id']} is damaged; see `data verify`")
        pictures.append([image, mask, overlay(image, mask)])
    return pictures
