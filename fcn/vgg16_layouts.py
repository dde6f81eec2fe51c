"""How other projects name the parameters of a VGG16, and what images they trained it on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List, Mapping, Sequence, Tuple

from fcn.architecture import VGG16_STAGES
from fcn.errors import WeightsError

Shapes = Mapping[str, Tuple[int, ...]]
Triple = Tuple[float, float, float]


@dataclass(frozen=True)
class InputForm:
    """What an image goes through before conv1_1: channels in this order, (value in 0..255 - mean) / std."""

    colour: str
    mean: Triple
    std: Triple

    def __str__(self) -> str:
        return f"{self.colour} images, mean {self.mean}, deviation {self.std}"


INPUT_FORMS = {
    # torchvision's ImageNet values times 255; the model zoo trains with the same
    # (mindspore-ai/models, official/cv/VGG/vgg16/src/dataset.py)
    "torchvision": InputForm("RGB", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    "torchvision_bgr": InputForm("BGR", (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)),
    # The files of Simonyan and Zisserman (2015), and SSD's copy for RGB, torchvision's IMAGENET1K_FEATURES
    "caffe": InputForm("BGR", (103.939, 116.779, 123.68), (1.0, 1.0, 1.0)),
    "caffe_rgb": InputForm("RGB", (123.0, 117.0, 104.0), (1.0, 1.0, 1.0)),
}

# Stage and number in it, both counted from 1, as in conv3_2
_CONVOLUTIONS = [(s, i) for s, stage in enumerate(VGG16_STAGES, 1) for i in range(1, len(stage) + 1)]

_TORCH_NORM = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}
_MINDSPORE_NORM = {kind: kind for kind in ("gamma", "beta", "moving_mean", "moving_variance")}

# The fully connected layers that FCN makes convolutions of, in all layouts together
_FULLY_CONNECTED_CELLS = {
    **{"classifier.0": "conv6.0", "classifier.3": "conv7.0"},  # torchvision and the model zoo's VGG
    **{"pre_logits.fc1": "conv6.0", "pre_logits.fc2": "conv7.0"},  # timm
    **{"classifier.fc1": "conv6.0", "classifier.fc2": "conv7.0"},  # the model zoo's CTPN
    **{"fc6": "conv6.0", "fc7": "conv7.0"},  # Caffe
}
FULLY_CONNECTED = {
    f"{theirs}.{kind}": f"{ours}.{kind}"
    for theirs, ours in _FULLY_CONNECTED_CELLS.items()
    for kind in ("weight", "bias")
}
CLASSES = ("classifier.6.weight", "head.fc.weight", "fc3.weight", "fc8.weight")  # the layer above them


@dataclass(frozen=True)
class Layout:
    """One project's names.

    Attributes:
        encoder: name in the file -> the network's name; a convolution's bias, which the network has not, as
            conv1.0.bias.
        input_form: of INPUT_FORMS, what such files were trained on.
    """

    title: str
    encoder: Mapping[str, str]
    batch_norm: bool
    input_form: str


def recognise(shapes: Shapes, source: str) -> Layout:
    """The layout of a file that holds parameters of these names and shapes. Raises WeightsError."""
    if "vgg16_feature_extractor.conv1_1.0.weight" in shapes:
        prefix, title, form, batch_norm = "vgg16_feature_extractor.", "of CTPN's names", "torchvision", True
        cells = [(f"{prefix}conv{s}_{i}.0", f"{prefix}conv{s}_{i}.1") for s, i in _CONVOLUTIONS]
        kinds = _MINDSPORE_NORM
    elif "features.0.weight" in shapes:
        prefix, title, form = "features.", "of torchvision's names", "torchvision"
        batch_norm = "features.1.weight" in shapes  # without batch norm that place is the ReLU's
        cells, kinds = _numbered("features", batch_norm), _TORCH_NORM
    elif "layers.0.weight" in shapes:
        prefix, title, form = "layers.", "of the model zoo's names", "torchvision"
        batch_norm = "layers.1.gamma" in shapes
        cells, kinds = _numbered("layers", batch_norm), _MINDSPORE_NORM
    elif "conv1_1.weight" in shapes:
        prefix, title, batch_norm = "conv", "of Caffe's names", "conv1_1.gamma" in shapes
        form = "torchvision_bgr" if batch_norm else "caffe"
        cells, kinds = [(f"conv{s}_{i}", f"conv{s}_{i}") for s, i in _CONVOLUTIONS], _MINDSPORE_NORM
    elif "score_fr.weight" in shapes:
        raise WeightsError(f"{source}: is an FCN-8s checkpoint; ckpt_pre_trained takes it")
    else:
        raise WeightsError(
            f"{source}: holds no VGG16: its {len(shapes)} names are such as {next(iter(shapes), 'none')}; "
            "expected features.0.weight (torchvision, timm), layers.0.weight or "
            "vgg16_feature_extractor.conv1_1.0.weight (MindSpore's model zoo) or conv1_1.weight, and so on"
        )
    found = sum(len(shape) == 4 for name, shape in shapes.items() if name.startswith(prefix))
    if found != len(_CONVOLUTIONS):
        raise WeightsError(
            f"{source}: has {found} convolutions, a VGG16 {len(_CONVOLUTIONS)} (VGG11 8, VGG13 10, VGG19 16)"
        )
    encoder = _names(cells, kinds if batch_norm else {})
    return Layout(f"VGG16{'-BN' * batch_norm} {title}", encoder, batch_norm, form)


def _numbered(stem: str, batch_norm: bool) -> List[Tuple[str, str]]:
    """Names of each convolution and its batch norm where convolution, norm, ReLU and pool are counted on."""
    cells, number = [], 0
    for stage in VGG16_STAGES:
        for _ in stage:
            cells.append((f"{stem}.{number}", f"{stem}.{number + 1}"))
            number += 3 if batch_norm else 2
        number += 1
    return cells


def _names(cells: Sequence[Tuple[str, str]], norm_kinds: Mapping[str, str]) -> Dict[str, str]:
    names = {}
    for (stage, index), (conv, norm) in zip(_CONVOLUTIONS, cells):
        ours = f"conv{stage}.{3 * index - 3}"
        names.update({f"{conv}.{kind}": f"{ours}.{kind}" for kind in ("weight", "bias")})
        ours = f"conv{stage}.{3 * index - 2}"
        names.update({f"{norm}.{kind}": f"{ours}.{meaning}" for kind, meaning in norm_kinds.items()})
    return names
