"""The trainer's configuration: one typed table, a YAML file and `key=value` overrides.

Names and defaults are those of the original FCN8s project (mindspore-ai/models, research/cv/FCN8s), so its
configuration files load as they are; what it has and this trainer does not need is accepted and said.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any, Dict, List, Literal, Mapping, Optional, Sequence, Tuple

import yaml
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, model_validator

from fcn.architecture import Architecture
from fcn.errors import ConfigError

RECIPES = Path(__file__).resolve().parent / "recipes"

# Keys of the original project that decide nothing here, and why. They are accepted so that its files load.
NOT_USED = {
    **dict.fromkeys(("enable_modelarts", "data_url", "train_url", "checkpoint_url"), "ModelArts copies"),
    **dict.fromkeys(("data_path", "output_path", "load_path", "checkpoint_path"), "ModelArts copies"),
    "checkpoint_file": "--ckpt names the checkpoint to evaluate",
    "device_target": "the cluster file names the device kind",
    "parallel_mode": "training is data parallel",
    "enable_profiling": "not built",
    "file_name": "not a training setting",
    "file_format": "not a training setting",
}


class Config(BaseModel):
    """Everything that decides a run's result. A run freezes it in run.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)

    # Data
    data_file: str = Field("", description="MindRecord file of the training set")
    data_root: str = Field("", description="root folder of the validation images and masks")
    data_lst: str = Field("", description="list of the validation images")
    num_classes: int = Field(21, ge=2, le=255, description="classes, background included")
    ignore_label: int = Field(255, ge=0, le=255, description="label of pixels that do not count")
    image_mean: Tuple[float, float, float] = Field(
        (103.53, 116.28, 123.675), description="mean of the channels B, G, R in 0..255"
    )
    image_std: Tuple[float, float, float] = Field(
        (57.375, 57.120, 58.395), description="standard deviation of the channels B, G, R in 0..255"
    )
    crop_size: int = Field(512, ge=32, description="height and width of a training crop, pixels")
    min_scale: float = Field(0.5, gt=0, description="smallest random scale of a training image")
    max_scale: float = Field(2.0, gt=0, description="largest random scale of a training image")
    data_workers: int = Field(2, ge=1, description="threads that read and augment, per rank")

    # Network
    model: str = Field("FCN8s", pattern="^FCN8s$", description="network, and first part of checkpoint names")
    encoder_width: float = Field(1.0, gt=0, le=1, description="factor on the encoder's channel counts")
    fc_channels: int = Field(4096, ge=1, description="channels of fc6 and fc7")
    ckpt_vgg16: str = Field(
        "",
        description="ImageNet VGG16, with or without batch norm, to start from (.npz, .safetensors, .ckpt, "
        ".pth); torchvision gives 73.36 top-1 with, 71.59 without",
    )
    vgg16_input: Literal["auto", "torchvision", "torchvision_bgr", "caffe", "caffe_rgb"] = Field(
        "auto",
        description="normalisation that ckpt_vgg16 was trained with; auto: by its names, which is wrong for "
        "Caffe's weights under torchvision's names",
    )
    ckpt_pre_trained: str = Field("", description="FCN-8s checkpoint to start from (weights only)")
    filter_weight: bool = Field(False, description="leave out of ckpt_pre_trained what filter_list names")
    filter_list: List[str] = Field(
        [
            "score_fr.weight",
            "upscore2.weight",
            "score_pool4.weight",
            "upscore_pool4.weight",
            "score_pool3.weight",
            "upscore8.weight",
        ],
        description="parameters that filter_weight leaves out",
    )
    skip_scales: Tuple[float, float] = Field(
        (1.0, 1.0),
        description="factors on pool4 and pool3 before their score heads; 0.01 and 0.0001 made the authors' "
        "training without stages stable (shelhamer/fcn.berkeleyvision.org, voc-fcn8s-atonce)",
    )
    paper_init: bool = Field(
        False,
        description="start the score heads at zero and the upsamplings as bilinear interpolation of each "
        "class (CVPR 2015, sections 3.3 and 4.3), in place of random values",
    )
    freeze_bn: bool = Field(False, description="train with the moving statistics of batch norm, unchanged")

    # Optimisation
    batch_size: int = Field(
        32,
        ge=1,
        validation_alias=AliasChoices("batch_size", "train_batch_size"),
        description="samples per device and step",
    )
    global_batch: Optional[int] = Field(
        None, ge=1, description="samples per step over all devices; default batch_size times world size"
    )
    train_epochs: int = Field(500, ge=1, description="epochs")
    base_lr: float = Field(0.015, gt=0, description="learning rate of the first epoch")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum")
    weight_decay: float = Field(1e-4, ge=0, description="weight decay; not on batch norm's gamma and beta")
    loss_scale: float = Field(1024.0, gt=0, description="factor on the loss where precision is mixed")
    seed: int = Field(1, ge=0, description="seed of weights, order and augmentation")

    # Checkpoints
    save_steps: int = Field(330, ge=1, description="steps between checkpoints")
    keep_checkpoint_max: int = Field(500, ge=1, description="checkpoints kept")
    train_dir: str = Field(
        "runs",
        validation_alias=AliasChoices("train_dir", "ckpt_dir"),
        description="folder of run directories; `fcn-launch --runs DIR` sets it for every verb",
    )

    # Evaluation
    eval_batch_size: int = Field(16, ge=1, description="images per step of evaluation, per device")
    ckpt_file: str = Field("", description="checkpoint to evaluate; --ckpt overrides it")
    scales: List[float] = Field([1.0], min_length=1, description="scales of the image, probabilities summed")
    flip: bool = Field(False, description="also evaluate the mirror image")

    @model_validator(mode="before")
    @classmethod
    def _empty_strings(cls, values: Dict[str, Any]) -> Dict[str, Any]:
        # The original's files leave a path empty ("ckpt_vgg16:"), which YAML reads as null.
        paths = {"data_file", "data_root", "data_lst", "ckpt_vgg16", "ckpt_pre_trained", "ckpt_file"}
        return {k: "" if k in paths and v is None else v for k, v in values.items()}

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        if self.ckpt_vgg16 and self.ckpt_pre_trained:
            raise ValueError("ckpt_vgg16, ckpt_pre_trained: give one; the second would replace the first")
        if self.max_scale < self.min_scale:
            raise ValueError(f"max_scale {self.max_scale} is below min_scale {self.min_scale}")
        if min(self.scales) <= 0:
            raise ValueError(f"scales: {min(self.scales)} is not above 0")
        if min(self.image_std) <= 0:
            raise ValueError("image_std: every value must be above 0")
        if self.ignore_label < self.num_classes:
            raise ValueError(
                f"ignore_label {self.ignore_label} is one of the classes 0..{self.num_classes - 1}; use 255"
            )
        return self

    def batch_over(self, world_size: int) -> int:
        """Samples per step over all devices; raises ConfigError where they cannot be shared out evenly."""
        if self.global_batch is None:
            return self.batch_size * world_size
        if self.global_batch % world_size:
            raise ConfigError(
                f"global_batch: {self.global_batch} samples cannot be shared evenly by {world_size} devices; "
                f"use a multiple of {world_size}"
            )
        return self.global_batch

    @property
    def architecture(self) -> Architecture:
        """What the network's shape and meaning depend on; recorded in every checkpoint."""
        return Architecture(self.num_classes, self.encoder_width, self.fc_channels, self.skip_scales)

    @property
    def normalisation(self) -> Dict[str, Any]:
        """What an image must go through before the network; recorded in every checkpoint."""
        return {"colour": "BGR", "image_mean": list(self.image_mean), "image_std": list(self.image_std)}


def _names() -> List[str]:
    names = list(NOT_USED)
    for name, field in Config.model_fields.items():
        alias = field.validation_alias
        names += [str(c) for c in alias.choices] if isinstance(alias, AliasChoices) else [name]
    return names


def _read_file(path: str) -> Tuple[str, Dict[str, Any], Dict[str, int]]:
    """The file's name, its keys and values, and the line of each key. Recipes are found by bare name."""
    file = Path(path)
    if not file.is_file() and (RECIPES / f"{path}.yaml").is_file():
        file = RECIPES / f"{path}.yaml"
    if not file.is_file():
        shipped = ", ".join(sorted(p.stem for p in RECIPES.glob("*.yaml")))
        raise ConfigError(f"{path}: no such configuration file; give a path, or a shipped recipe: {shipped}")
    try:
        # The original's files hold help texts in a second and third document.
        node = next(iter(yaml.compose_all(file.read_text(), Loader=yaml.SafeLoader)), None)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not YAML: {error}") from None
    if node is None:
        return str(file), {}, {}
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{file}:{node.start_mark.line + 1}: expected `key: value` lines")
    values: Dict[str, Any] = {}
    lines: Dict[str, int] = {}
    loader = yaml.SafeLoader("")
    for key_node, value_node in node.value:
        key, line = str(key_node.value), key_node.start_mark.line + 1
        if key in lines:
            raise ConfigError(f"{file}:{line}: {key}: also on line {lines[key]}; remove one of them")
        try:
            value = loader.construct_object(value_node, deep=True)
            values[key], lines[key] = value if _is_text(key) else _number(value), line
        except yaml.YAMLError as error:
            raise ConfigError(f"{file}:{line}: {key}: cannot be read: {error}") from None
    return str(file), values, lines


def _read_overrides(overrides: Sequence[str]) -> Dict[str, Any]:
    values = {}
    for item in overrides:
        key, equals, text = item.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {item}: expected key=value")
        try:
            value = text if _is_text(key) else _number(yaml.safe_load(text))
        except yaml.YAMLError:
            value = text
        values[key] = "" if value is None else value
    return values


def _is_text(key: str) -> bool:
    field = Config.model_fields.get(_aliases(key)[0])
    return field is not None and field.annotation in (str, "str")


def _number(value: Any) -> Any:
    """YAML reads 1e-4 as a text; people mean the number."""
    if isinstance(value, str) and re.fullmatch(r"[-+]?[0-9.]+[eE][-+]?[0-9]+", value):
        return float(value)
    return value


def load_config(
    file: Optional[str] = None, overrides: Sequence[str] = (), base: Optional[Mapping[str, Any]] = None
) -> Tuple[Config, List[str]]:
    """Read a YAML file (or a recipe's name) over `base`, apply `key=value` overrides, check everything.

    Returns the configuration and remarks for the person at the keyboard. Raises ConfigError that lists every
    bad key with its file and line.
    """
    source, from_file, lines = _read_file(file) if file else ("", {}, {})
    given = _read_overrides(overrides)
    places = {key: f"{source}:{line}: {key}" for key, line in lines.items()}
    places.update({key: f"--set {key}" for key in given})
    values = dict(base or {})
    for source_values in (from_file, given):
        # The later source wins also where one of the two uses a key's older name.
        for key in source_values:
            for name in _aliases(key):
                values.pop(name, None)
        values.update(source_values)
    problems = []
    names = _names()
    for key in [key for key in values if key not in names]:
        near = difflib.get_close_matches(key, names, n=1, cutoff=0)[0]
        problems.append(f"{places.get(key, key)}: unknown key; the nearest known one is {near}")
        del values[key]
    remarks = [f"{places[key]}: not used here: {NOT_USED[key]}" for key in values if key in NOT_USED]
    values = {key: value for key, value in values.items() if key not in NOT_USED}
    try:
        config = Config(**values)
    except ValidationError as error:
        problems += [_explain(item, places) for item in error.errors()]
    if problems:
        raise ConfigError("\n".join(problems))
    return config, remarks


def _aliases(key: str) -> List[str]:
    for field in Config.model_fields.values():
        alias = field.validation_alias
        if isinstance(alias, AliasChoices) and key in alias.choices:
            return [str(choice) for choice in alias.choices]
    return [key]


def _explain(item: Any, places: Dict[str, str]) -> str:
    key = str(item["loc"][0]) if item["loc"] else ""
    message = item["msg"].replace("Value error, ", "")
    if not key:
        return message
    field = next((f for n, f in Config.model_fields.items() if key in _aliases(n)), None)
    meaning = f" ({field.description})" if field else ""
    return f"{places.get(key, key)}: {message}, got {item['input']!r}{meaning}"
