"""Mean IoU over a list of images at their own size, shared out over the ranks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, List, Mapping, Optional

import numpy as np

from fcn.config import Config
from fcn.data.classes import class_names
from fcn.data.listing import image_size, read_image, read_list, read_mask
from fcn.distributed import World
from fcn.errors import DataError
from fcn.files import write_atomic
from fcn.inference import Inference, Prediction, Sample
from fcn.job import Job
from fcn.metrics import Scores, confusion, scores
from fcn.pictures import SHEET_ROWS, confusion_picture, contact_sheet, save_mask
from fcn.platform import Platform
from fcn.status import Status
from fcn.weights import read_checkpoint


def work(job: Job) -> int:
    """Evaluate this rank's share of the images; rank 0 writes `eval.json`. Returns the exit code."""
    config, masks = job.config, job.options.get("save_masks")
    evaluator = Evaluator(config, job.device, job.world, job.status)
    job.status.phase("eval")
    values = read_checkpoint(config.ckpt_file, config)
    result = evaluator.score(values, config.ckpt_file, job.run_dir, Path(masks) if masks else None)
    if job.world.rank == 0:
        names = class_names(config.num_classes)
        confusion_picture(result.confusion, names, job.run_dir / "confusion.png")
        facts = {"checkpoint": config.ckpt_file, "images": len(evaluator.items), "classes": names}
        write_atomic(job.run_dir / "eval.json", json.dumps({**facts, **result.as_dict()}, indent=1) + "\n")
        job.status.send("metric", mean_iou=result.mean_iou, pixel_accuracy=result.pixel_accuracy)
        print(f"mean IoU {result.mean_iou}", flush=True)
    return 0


class Evaluator:
    """Scores weights on the validation list of `config`, again and again during a training.

    The result is the same for every world size: so are the batches, and the integer confusion matrices are
    summed exactly.
    """

    def __init__(self, config: Config, device: Platform, world: World, status: Status) -> None:
        self.config, self.world, self.status = config, world, status
        self.items = read_list(Path(config.data_root), Path(config.data_lst))
        self.sizes = [image_size(item.image_path) for item in self.items]
        self.inference = Inference(config, device, world, status)

    def score(
        self,
        values: Mapping[str, Any],
        source: str,
        out: Optional[Path] = None,
        masks: Optional[Path] = None,
    ) -> Scores:
        """Mean IoU and its parts of a network with these parameters, all ranks together.

        Args:
            values: parameters by name; every rank must have the same.
            source: where they come from, for the error where they do not fit.
            out: folder for `contact_sheet.png` (image, mask, prediction), which rank 0 writes.
            masks: folder for each image's predicted mask at its own size, as an indexed PNG.
        """
        self.status.enter("eval", 0)
        self.inference.load(values, source)
        matrix = np.zeros((self.config.num_classes,) * 2, np.int64)
        sheet: List[List[np.ndarray]] = []
        for prediction in self.inference.predict(self.sizes, self._read):
            truth = prediction.sample.truth
            assert truth is not None
            matrix += self._count(prediction, truth)
            if masks is not None:
                self._save(prediction, masks)
            if len(sheet) < SHEET_ROWS:
                sheet.append([prediction.sample.image, truth, prediction.ids])
        if self.world.rank == 0 and out is not None:
            contact_sheet(sheet, out / "contact_sheet.png")
        return scores(self.world.gather_sum(matrix))

    def _read(self, place: int) -> Sample:
        item = self.items[place]
        return Sample(place, read_image(item.image_path), read_mask(item.mask_path))

    def _count(self, prediction: Prediction, truth: np.ndarray) -> np.ndarray:
        config = self.config
        try:
            return confusion(truth, prediction.ids, config.num_classes, config.ignore_label)
        except DataError as error:
            raise DataError(f"{self.items[prediction.sample.place].mask_path}: {error}") from None

    def _save(self, prediction: Prediction, masks: Path) -> None:
        target = masks / f"{self.items[prediction.sample.place].name}.png"
        target.parent.mkdir(parents=True, exist_ok=True)  # a name may have folders in it
        save_mask(target, prediction.ids)
