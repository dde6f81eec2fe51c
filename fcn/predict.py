"""Masks, overlays and class probabilities of images without masks, shared out over the ranks."""

from __future__ import annotations

from pathlib import Path
from typing import List

import cv2
import numpy as np

from fcn.data.listing import image_size, read_image
from fcn.inference import Inference, Prediction, Sample
from fcn.job import Job
from fcn.pictures import SHEET_ROWS, contact_sheet, overlay, save_mask
from fcn.weights import read_checkpoint

_JPEG_QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 90]


def work(job: Job) -> int:
    """Predict this rank's share of `options["images"]`; returns the exit code.

    Writes into `options["out"]` masks/NAME.png (indexed, VOC palette), overlays/NAME.jpg, with
    `options["save_prob"]` probabilities/NAME.npy, and rank 0 contact_sheet.png. The probabilities are float32
    (classes, height, width), as they were computed: their argmax is the mask.
    """
    config, options = job.config, job.options
    paths = [Path(path) for path in options["images"]]
    out = Path(options["out"])
    inference = Inference(config, job.device, job.world, job.status, options["save_prob"])
    inference.load(read_checkpoint(config.ckpt_file, config), config.ckpt_file)
    job.status.phase("eval")
    for name in ("masks", "overlays", *(["probabilities"] if options["save_prob"] else [])):
        (out / name).mkdir(parents=True, exist_ok=True)
    sheet: List[List[np.ndarray]] = []
    sizes = [image_size(path) for path in paths]
    for prediction in inference.predict(sizes, lambda place: Sample(place, read_image(paths[place]))):
        row = _save(prediction, out, paths[prediction.sample.place].stem)
        if len(sheet) < SHEET_ROWS:
            sheet.append(row)
    if job.world.rank == 0:
        contact_sheet(sheet, out / "contact_sheet.png", ("image", "prediction", "overlay"))
    return 0


def _save(prediction: Prediction, out: Path, name: str) -> List[np.ndarray]:
    """Write what was predicted of an image; returns its row of the contact sheet."""
    image, ids = prediction.sample.image, prediction.ids
    tinted = overlay(image, ids)
    save_mask(out / "masks" / f"{name}.png", ids)
    (out / "overlays" / f"{name}.jpg").write_bytes(cv2.imencode(".jpg", tinted, _JPEG_QUALITY)[1].tobytes())
    if prediction.probabilities is not None:
        np.save(out / "probabilities" / f"{name}.npy", prediction.probabilities)
    return [image, ids, tinted]
