"""A trained network as a file for other programs: ONNX, MindIR or AIR, compared with the network it is of."""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Mapping, Optional, Sequence, Tuple

import cv2
import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from fcn.check_export import Dims, described_in, require_free
from fcn.config import Config
from fcn.data.classes import class_names
from fcn.data.listing import read_image
from fcn.errors import WeightsError
from fcn.files import sha256_of, sync, write_atomic
from fcn.inference import Sample, fill
from fcn.job import Job
from fcn.model import Normalise
from fcn.network import inference_network, set_inference_weights
from fcn.weights import read_checkpoint

# Float32 sums in another order differ by less; a border, colour or weight that is wrong by more.
TOLERANCE = 1e-4  # largest difference of a score, as a share of the largest score

_DRAWN_SIZE = (203, 310)  # no multiples of 32

Outputs = Tuple[np.ndarray, np.ndarray]  # scores and classes


class Exported(nn.Cell):
    """uint8 BGR images (N, H, W, 3) -> float32 scores (N, classes, H, W), uint8 classes (N, H, W)."""

    def __init__(self, net: nn.Cell, config: Config) -> None:
        super().__init__(auto_prefix=False)
        self.normalise = Normalise(config.image_mean, config.image_std)
        self.net = net

    def construct(self, images: Tensor) -> Tuple[Tensor, Tensor]:
        scores = self.net(self.normalise(images))
        return scores, scores.argmax(axis=1).astype(ms.uint8)


@dataclass(frozen=True)
class Comparison:
    """What a file gives beside what the network gives, on one image.

    Attributes:
        image: its file; None: drawn.
        shape: of what both were given.
        largest_difference, largest_score: of all scores.
        other_pixels: that are of another class.
    """

    image: Optional[str]
    shape: Sequence[int]
    largest_difference: float
    largest_score: float
    other_pixels: int


def work(job: Job) -> int:
    """Write `options["out"]` and the JSON that describes it; returns the exit code.

    Raises WeightsError, and leaves no file behind, where what was written does not give what the network
    gives.
    """
    options = job.options
    config = job.config
    # How to compute it is for the file's runtime to choose.
    net = inference_network(config, replace(job.device, for_onednn=False))
    read = read_checkpoint(config.ckpt_file, config)
    weights = set_inference_weights(net, read, config, config.ckpt_file)
    del read  # half a gigabyte, as the weights are
    exported = Exported(net, config).set_train(False)
    dims: Dims = tuple(options["dims"])
    facts = _facts(config, options["format"], dims)
    file = Path(options["out"])
    job.status.phase("save")
    with _folder_beside(file) as folder:
        written = folder / file.name
        if options["format"] == "onnx":
            _write_onnx(written, weights, config, dims, facts)
        else:
            _write_by_mindspore(written, exported, options["format"], dims, facts)
        del weights
        if options["format"] in _RUNNERS:
            job.status.phase("eval")
            runner = _RUNNERS[options["format"]]
            facts["comparison"] = asdict(_compare(exported, runner(written), options, config))
        written.chmod(0o644)
        sync(written)
        facts.update(file=file.name, size=written.stat().st_size, sha256=sha256_of(written))
        require_free(file, options["overwrite"])
        described_in(file).unlink(missing_ok=True)  # it does not describe the new file
        written.replace(file)
        write_atomic(described_in(file), json.dumps(facts, indent=1) + "\n")
    return 0


@contextmanager
def _folder_beside(file: Path) -> Iterator[Path]:
    """A folder on the file's disk to write in: what a killed export has left is found there, and removed."""
    folder = file.with_name(f".{file.name}.writing")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _facts(config: Config, file_format: str, dims: Dims) -> Dict[str, Any]:
    """What the file takes, gives and comes from."""
    rows, height, width = (size or name for size, name in zip(dims, ("batch", "height", "width")))
    manifest = Path(config.ckpt_file).with_suffix(".json")
    known = json.loads(manifest.read_text()) if manifest.is_file() else {}
    return {
        "format": file_format,
        "images": {
            "type": "uint8",
            "shape": [rows, height, width, 3],
            "colour": "BGR",
            "image_mean": list(config.image_mean),
            "image_std": list(config.image_std),
            "normalised_by": "the graph",
        },
        "scores": {"type": "float32", "shape": [rows, config.num_classes, height, width]},
        "classes": {"type": "uint8", "shape": [rows, height, width]},
        "class_names": class_names(config.num_classes),
        "ignore_label": config.ignore_label,
        "checkpoint": {"file": config.ckpt_file, **{k: known.get(k) for k in ("sha256", "epoch", "step")}},
    }


def _write_onnx(
    file: Path, weights: Mapping[str, np.ndarray], config: Config, dims: Dims, facts: Mapping[str, Any]
) -> None:
    import onnx

    from fcn import onnx_graph

    model = onnx_graph.build(weights, config.architecture, config.image_mean, config.image_std, dims)
    onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in facts.items()})
    onnx.checker.check_model(model)
    onnx.save(model, str(file))


def _write_by_mindspore(
    file: Path, exported: nn.Cell, file_format: str, dims: Dims, facts: Mapping[str, Any]
) -> None:
    def describe(model: Any) -> None:
        for key, value in facts.items():
            model.user_info[key] = json.dumps(value)

    images = Tensor(np.zeros([*(size or 1 for size in dims), 3], np.uint8))
    more = {"custom_func": describe} if file_format == "mindir" else {}
    ms.export(exported, images, file_name=str(file), file_format=file_format.upper(), **more)


def _compare(
    network: nn.Cell, run: Callable[[np.ndarray], Outputs], options: Mapping[str, Any], config: Config
) -> Comparison:
    """Raises WeightsError where the largest difference is above the tolerance."""
    images = _images(options["image"], options["dims"], config)
    scores, classes = (output.asnumpy() for output in network(Tensor(images)))
    its_scores, its_classes = run(images)
    difference = float(np.abs(its_scores - scores).max())
    largest = float(np.abs(scores).max())
    if not difference <= TOLERANCE * largest:
        raise WeightsError(
            f"{options['out']}: not written: its scores differ by up to {difference:.3g} from the network's, "
            f"of which the largest is {largest:.3g}; please report it, with the versions in run.yaml"
        )
    other = int((its_classes != classes).sum())
    return Comparison(options["image"], list(images.shape), difference, largest, other)


def _images(path: Optional[str], dims: Dims, config: Config) -> np.ndarray:
    """The image, and its mirror image where the graph takes two, as the graph takes them: uint8 (N, H, W, 3).

    Cut and padded with the mean colour, never scaled; drawn where there is no file.
    """
    if path is None:
        image = np.random.default_rng(0).integers(0, 256, (*_DRAWN_SIZE, 3), np.uint8)
    else:
        image = read_image(path)
    rows, height, width = (dims[0] or 2, dims[1] or image.shape[0], dims[2] or image.shape[1])
    image = image[:height, :width]
    samples = [Sample(row, cv2.flip(image, 1) if row % 2 else image) for row in range(rows)]
    return fill(samples, (rows, height, width), config.image_mean)


def _run_onnx(file: Path) -> Callable[[np.ndarray], Outputs]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return lambda images: tuple(session.run(["scores", "classes"], {"images": images}))


def _run_mindir(file: Path) -> Callable[[np.ndarray], Outputs]:
    cell = nn.GraphCell(ms.load(str(file)))
    return lambda images: tuple(output.asnumpy() for output in cell(Tensor(images)))


# Who else can run a format here. What runs AIR is made of it by another program.
_RUNNERS = {"onnx": _run_onnx, "mindir": _run_mindir}
