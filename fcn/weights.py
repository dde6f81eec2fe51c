"""Weights that come from elsewhere: a VGG16, an FCN-8s checkpoint."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any, Collection, Dict, List, Mapping

import mindspore as ms
import numpy as np
from mindspore import nn

from fcn import calibrate
from fcn.architecture import STRIDE
from fcn.checkpoint import load
from fcn.config import Config
from fcn.data.pipeline import train_batches
from fcn.data.records import DataSet
from fcn.distributed import World
from fcn.pretrained import choose, report, require_classes, require_same_meaning, shapes_of
from fcn.strict import abridged, require_fit
from fcn.vgg16 import Vgg16, read_vgg16


def initialise(net: nn.Cell, config: Config, data: DataSet, world: World) -> List[str]:
    """Load what the configuration names into a fresh network.

    data: training images, whose statistics batch norms made from biases take. Returns a report for the
    person at the keyboard; raises FcnError.
    """
    if config.ckpt_vgg16:
        return _from_vgg16(net, config, data, world)
    if config.ckpt_pre_trained:
        return _from_fcn8s(net, config)
    return []


def _from_vgg16(net: nn.Cell, config: Config, data: DataSet, world: World) -> List[str]:
    vgg16 = read_vgg16(Path(config.ckpt_vgg16), config)
    values, lines = vgg16.values, [*vgg16.report, *vgg16.warnings]
    if vgg16.folded:
        images = _training_images(config, data)
        values = {**values, **_statistics(vgg16, images, world)}
        lines.append(
            f"  {len(vgg16.folded)} layers with biases became batch norms; their statistics are those of "
            f"{len(images)} training images"
        )
    anew = [parameter.name for parameter in net.get_parameters() if parameter.name not in values]
    load_strictly(net, values, config.ckpt_vgg16, may_lack=anew)
    return [*lines, f"  start anew: {abridged(anew)}"]


def _training_images(config: Config, data: DataSet) -> np.ndarray:
    """The training's first crops as the encoder gets them, float32 (N, 3, H, W); the same on every rank."""
    count = min(calibrate.IMAGES, data.samples)
    first = train_batches(data, config, start_step=0, total_steps=1, global_batch=count, rank=0, world=1)
    with closing(first):
        images = next(first)[0]
    normalised = (images - np.array(config.image_mean, np.float32)) / np.array(config.image_std, np.float32)
    more = -config.crop_size % STRIDE
    return np.pad(normalised.transpose(0, 3, 1, 2), ((0, 0), (0, 0), (0, more), (0, more)))


def _statistics(vgg16: Vgg16, images: np.ndarray, world: World) -> Dict[str, np.ndarray]:
    """Batch norms with statistics of images, shared out over the ranks, the same on all of them."""
    mine = calibrate.observe(vgg16.values, vgg16.folded, images[world.rank :: world.size])
    moments = np.zeros((len(images), *mine.shape[1:]))
    moments[world.rank :: world.size] = mine
    # As integers: where one rank has a value the others have zero bits, so that the sum is exact.
    moments = world.gather_sum(moments.view(np.int64)).view(np.float64)
    return calibrate.with_statistics(vgg16.values, vgg16.folded, moments.mean(axis=0))


def _from_fcn8s(net: nn.Cell, config: Config) -> List[str]:
    path = Path(config.ckpt_pre_trained)
    values, description = load(path)
    names, left_out = choose(path, shapes_of(values), description, config)
    weights = {name: _weight(values, name) for name in names}
    load_strictly(net, weights, str(path), may_lack=config.filter_list)
    others = len(values) - len(names) - len(left_out)
    return [*report(path, names, left_out), f"  not needed: {others} values of the optimizer and counters"]


def read_checkpoint(path: str, config: Config) -> Dict[str, Any]:
    """The network's parameters in an FCN-8s checkpoint; their moving average where it holds one.

    Raises WeightsError where it predicts another number of classes, or was trained with another normalisation
    or other skip scales.
    """
    values, description = load(Path(path))
    shapes = shapes_of(values)
    require_same_meaning(path, description, config)
    require_classes(path, shapes, config)
    which = ", their moving average" if any(f"ema.{name}" in values for name in shapes) else ""
    print(f"{path}: {len(shapes)} parameters loaded{which}", flush=True)
    return {name: _weight(values, name) for name in shapes}


def _weight(values: Mapping[str, Any], name: str) -> Any:
    return values.get(f"ema.{name}", values[name])


def load_strictly(
    net: nn.Cell, values: Mapping[str, Any], source: str, may_lack: Collection[str] = ()
) -> None:
    """Load values by name; raises WeightsError that lists every missing, unexpected and misshapen name.

    Nothing is loaded unless everything fits: MindSpore itself would leave what does not fit at random and go
    on.
    """
    parameters = {parameter.name: parameter for parameter in net.get_parameters()}
    given = {name: tuple(value.shape) for name, value in values.items()}
    needed = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    require_fit(given, needed, source, may_lack)
    for name, value in values.items():
        array = value.asnumpy() if hasattr(value, "asnumpy") else value
        parameters[name].set_data(ms.Tensor(np.asarray(array, np.float32)))
