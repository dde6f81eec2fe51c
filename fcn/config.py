"""The trainer's configuration: one typed table, with a help text for each key.

Names and defaults are those of the original FCN8s project (mindspore-ai/models, research/cv/FCN8s).
config_file.py reads it from YAML and the command line.
"""

from __future__ import annotations

from typing import Any, Dict, List, Literal, Optional, Tuple

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from fcn.architecture import Architecture
from fcn.errors import ConfigError


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
    photometric: bool = Field(
        False,
        description="random brightness, contrast, saturation and hue as in SSD (arXiv 1512.02325, section "
        "2.2); fmahoudeau/FCN-Segmentation-TensorFlow, at 68.5, changes saturation; its share is unknown",
    )
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
        description="factors on pool4 and pool3 before their score heads; with 0.01 and 0.0001 the authors "
        "reach 65.4 at once, 65.5 in stages (shelhamer/fcn.berkeleyvision.org, voc-fcn8s-atonce)",
    )
    paper_init: bool = Field(
        False,
        description="start the score heads at zero and the upsamplings as bilinear interpolation of each "
        "class (CVPR 2015, sections 3.3 and 4.3), in place of random values; no gain is given",
    )
    freeze_bn: bool = Field(
        False,
        description="train with the moving statistics of batch norm, unchanged, for batches too small "
        "to have statistics (DeepLabv3, arXiv 1706.05587, section 4, ends so; no gain for FCN-8s is known)",
    )
    sync_bn: bool = Field(
        False,
        description="batch-norm statistics over all devices, Ascend only; mmsegmentation trains FCN so, "
        "a gain at 32 images a device is not known",
    )

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
    accumulate_steps: int = Field(
        1,
        ge=1,
        description="slices that a device's samples of a step are computed in, one after the other, to save "
        "memory (gradient accumulation); the same result but for batch norm, whose statistics are a slice's",
    )
    train_epochs: int = Field(500, ge=1, description="epochs")
    base_lr: float = Field(0.015, gt=0, description="learning rate that the schedule starts from")
    scale_lr: bool = Field(
        False,
        description="multiply base_lr by global_batch / batch_size (linear scaling, arXiv 1706.02677: "
        "ImageNet accuracy kept up to batches of 8192, with warm-up)",
    )
    lr_schedule: Literal["cosine_epoch", "cosine", "poly", "step"] = Field(
        "cosine_epoch",
        description="cosine by epoch (the original's) or by step; poly: +1.17 mean IoU over step for "
        "DeepLab's VGG16 at equal iterations (arXiv 1606.00915, section 4.1.1)",
    )
    lr_power: float = Field(0.9, gt=0, description="power of lr_schedule poly")
    lr_steps: List[int] = Field(
        [], description="epochs after which lr_schedule step multiplies by lr_gamma; poly is the better one"
    )
    lr_gamma: float = Field(0.1, gt=0, le=1, description="factor of lr_schedule step")
    warmup_epochs: float = Field(
        0.0, ge=0, description="linear warm-up from 0 (arXiv 1706.02677: keeps large batches from diverging)"
    )
    encoder_lr_factor: float = Field(
        1.0,
        gt=0,
        description="factor on the learning rate of the VGG16 encoder; DeepLab (arXiv 1606.00915, section "
        "4.1) trains a pretrained encoder at 0.1 of the classifier's; no gain is given",
    )
    momentum: float = Field(0.9, gt=0, lt=1, description="momentum")
    weight_decay: float = Field(1e-4, ge=0, description="weight decay; not on batch norm's gamma and beta")
    clip_norm: float = Field(
        0.0,
        ge=0,
        description="largest global norm of the gradient, 0: no limit; against single bad batches, no gain "
        "is known",
    )
    ema_decay: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="decay of the weights' moving average, evaluated in place of the weights, 0: none; "
        "0.9998 is usual; no figure for FCN-8s is known",
    )
    class_weights: List[float] = Field(
        [],
        description="weight of each class in the loss, empty: all 1; for rare classes (SegNet, arXiv "
        "1511.00561, section 4: better class average, lower pixel accuracy)",
    )
    amp_level: Literal["auto", "O0", "O2", "O3"] = Field(
        "auto",
        description="mixed precision: O2 keeps batch norm in float32, O3 nothing; auto: O3 on Ascend, O0 on "
        "CPU",
    )
    loss_scale: float = Field(
        1024.0, gt=0, le=2**30, description="factor on the loss where precision is mixed"
    )
    dynamic_loss_scale: bool = Field(
        False,
        description="halve the loss scale on overflow, double it after 2000 good steps (arXiv 1710.03740)",
    )
    seed: int = Field(1, ge=0, description="seed of weights, order and augmentation")

    # Checkpoints
    save_steps: int = Field(330, ge=1, description="steps between checkpoints")
    keep_checkpoint_max: int = Field(
        500,
        ge=1,
        description="checkpoints kept, at least two; the last two with what a run needs to go on from them",
    )
    keep_every_epochs: int = Field(
        0, ge=0, description="epochs between checkpoints that are kept for good besides, 0: none"
    )
    train_dir: str = Field(
        "runs",
        validation_alias=AliasChoices("train_dir", "ckpt_dir"),
        description="folder of run directories; `fcn-launch --runs DIR` sets it for every verb",
    )

    # Evaluation
    eval_epochs: int = Field(
        0,
        ge=0,
        description="epochs between evaluations during training, 0: none; the best checkpoint is kept",
    )
    eval_batch_size: int = Field(16, ge=1, description="images per step of evaluation, per device")
    ckpt_file: str = Field("", description="checkpoint to evaluate; --ckpt overrides it")
    scales: List[float] = Field(
        [1.0], min_length=1, description="scales of the image, the mean of the probabilities; see flip"
    )
    flip: bool = Field(
        False,
        description="also evaluate the mirror image; with six scales 69.94 for 67.08 with mmsegmentation's "
        "FCN (ResNet-50)",
    )

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
        if not all(0 <= value <= 255 for value in self.image_mean):
            raise ValueError(f"image_mean: {list(self.image_mean)} are not all within 0..255")
        if min(self.image_std) <= 0:
            raise ValueError("image_std: every value must be above 0")
        if self.freeze_bn and self.sync_bn:
            raise ValueError("freeze_bn, sync_bn: give one; frozen statistics are not computed")
        if self.ignore_label < self.num_classes:
            raise ValueError(
                f"ignore_label {self.ignore_label} is one of the classes 0..{self.num_classes - 1}; use 255"
            )
        return self

    @model_validator(mode="after")
    def _trainable(self) -> Config:
        if self.class_weights and (
            len(self.class_weights) != self.num_classes or min(self.class_weights) < 0
        ):
            raise ValueError(
                f"class_weights: give one weight of 0 or more for each of the {self.num_classes} classes"
            )
        if self.class_weights and max(self.class_weights) == 0:
            raise ValueError("class_weights: every weight is 0; at least one class must count")
        if self.warmup_epochs >= self.train_epochs and self.warmup_epochs:
            raise ValueError(
                f"warmup_epochs {self.warmup_epochs:g} is not below train_epochs {self.train_epochs}"
            )
        if any(not 0 < epoch < self.train_epochs for epoch in self.lr_steps):
            raise ValueError(f"lr_steps: {self.lr_steps} are not all within 1..{self.train_epochs - 1}")
        if self.lr_schedule == "step" and not self.lr_steps:
            raise ValueError("lr_steps: empty, but lr_schedule is step; give the epochs, such as [30, 40]")
        return self

    def batch_over(self, world_size: int) -> int:
        """Samples per step over all devices; raises ConfigError where they cannot be shared out evenly."""
        total = self.batch_size * world_size if self.global_batch is None else self.global_batch
        parts = world_size * self.accumulate_steps
        if total % parts:
            key = "batch_size" if self.global_batch is None else "global_batch"
            slices = f" in {self.accumulate_steps} slices (accumulate_steps)"
            raise ConfigError(
                f"{key}: {total} samples cannot be shared evenly by {world_size} devices"
                f"{slices if self.accumulate_steps > 1 else ''}; use a multiple of {parts} a step"
            )
        return total

    def on(self, world_size: int, planned: int) -> Config:
        """This configuration, made for `planned` devices, on another number of them.

        The same global batch, in slices no larger than planned: they are what memory and batch norm see.
        Raises ConfigError where the batch cannot be shared out evenly.
        """
        if world_size == planned:
            return self
        total = self.batch_over(planned)
        planned_slice = total // (planned * self.accumulate_steps)
        whole = self.model_copy(update={"global_batch": total, "accumulate_steps": 1})
        own = whole.batch_over(world_size) // world_size
        slices = next(n for n in range(1, own + 1) if own % n == 0 and own // n <= planned_slice)
        return whole.model_copy(update={"accumulate_steps": slices})

    @property
    def architecture(self) -> Architecture:
        """What the network's shape and meaning depend on; recorded in every checkpoint."""
        return Architecture(self.num_classes, self.encoder_width, self.fc_channels, self.skip_scales)

    @property
    def normalisation(self) -> Dict[str, Any]:
        """What an image must go through before the network; recorded in every checkpoint."""
        return {"colour": "BGR", "image_mean": list(self.image_mean), "image_std": list(self.image_std)}
