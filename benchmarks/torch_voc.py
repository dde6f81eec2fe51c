"""PyTorch in benchmarks.voc: `python -m benchmarks.torch_voc TRAIN_LIST KEY=VALUE...` prints its result."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any, List

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.torch_fcn8s import FCN8s, Training, normalise
from fcn.architecture import STRIDE, UPSAMPLINGS
from fcn.config import Config
from fcn.config_file import load_config
from fcn.data import augment, order
from fcn.data.listing import read_image, read_list, read_mask
from fcn.metrics import confusion, scores
from fcn.schedule import learning_rate


def main(train_list: str, settings: List[str]) -> None:
    """Train, evaluate, print losses and IoU as JSON."""
    config = load_config("voc_cpu", settings)[0]
    torch.manual_seed(config.seed)
    net = _network(config)
    begin = time.perf_counter()
    losses = _train(net, config, train_list)
    seconds = time.perf_counter() - begin
    print(json.dumps({"losses": losses, "seconds": seconds, "iou": _evaluate(net.eval(), config)}))


def _network(config: Config) -> FCN8s:
    """Encoder from the file, zero heads, bilinear upsampling; fc6 and fc7 drawn."""
    net = FCN8s(config.num_classes, 1.0, config.fc_channels)
    named = net.by_original_name()
    with np.load(config.ckpt_vgg16) as file, torch.no_grad():
        for name in file.files:
            stage, layer, kind = name[4], int(name[6]), name.partition(".")[2]
            index = 3 * (layer - 1) + (kind != "weight")
            named[f"conv{stage}.{index}.{kind}"].copy_(torch.from_numpy(file[name].astype(np.float32)))
        for layer in (net.conv6[0], net.conv7[0]):
            nn.init.xavier_uniform_(layer.weight)
        for head, factor in (
            (net.score_fr, 1.0),
            *zip((net.score_pool4, net.score_pool3), config.skip_scales),
        ):
            head.weight.zero_()
            head.register_forward_pre_hook(lambda _, inputs, factor=factor: (inputs[0] * factor,))
        for name, (kernel, stride) in UPSAMPLINGS.items():
            tent = 1 - (torch.arange(kernel) - (kernel - 1) / 2).abs() / stride
            weight = getattr(net, name).weight
            weight.zero_()
            for label in range(config.num_classes):
                weight[label, label] = torch.outer(tent, tent)
    return net.train()


def _train(net: FCN8s, config: Config, train_list: str) -> List[float]:
    items = read_list(Path(config.data_root), Path(train_list))
    training = Training(net, config.base_lr, config.momentum, config.weight_decay)
    batch = config.batch_over(1)
    epoch_steps = order.steps_per_epoch(len(items), batch)
    losses = []
    for step in range(config.train_epochs * epoch_steps):
        epoch, in_epoch = divmod(step, epoch_steps)
        ids = order.global_order(len(items), config.seed, epoch)
        images = np.empty((batch, config.crop_size, config.crop_size, 3), np.uint8)
        labels = np.empty(images.shape[:3], np.uint8)
        for row, position in enumerate(order.positions(in_epoch, batch, 0, 1)):
            item = items[ids[position]]
            draw = augment.draw(config.seed, epoch, position, config.min_scale, config.max_scale)
            image, mask = read_image(item.image_path), read_mask(item.mask_path)
            padding = config.image_mean, config.ignore_label
            augment.apply(image, mask, draw, *padding, images[row], labels[row])
        for group in training.optimizer.param_groups:
            group["lr"] = learning_rate(config, step, epoch_steps, batch)
        x = normalise(torch.from_numpy(images), config.image_mean, config.image_std, torch.float32)
        losses.append(training.step(x, torch.from_numpy(labels).long()))
        print(f"step {step + 1}, loss is {losses[-1]}", file=sys.stderr)
    return losses


def _evaluate(net: FCN8s, config: Config) -> List[Any]:
    matrix = np.zeros((config.num_classes, config.num_classes), np.int64)
    with torch.no_grad():
        for item in read_list(Path(config.data_root), Path(config.data_lst)):
            image = torch.from_numpy(read_image(item.image_path))[None]
            x = normalise(image, config.image_mean, config.image_std, torch.float32)
            predicted = _probabilities(net, x, config.scales[0]).argmax(dim=1)[0].numpy()
            matrix += confusion(read_mask(item.mask_path), predicted, config.num_classes, config.ignore_label)
    return scores(matrix).iou


def _probabilities(net: FCN8s, x: Tensor, scale: float) -> Tensor:
    size = x.shape[2:]
    height, width = (max(1, round(side * scale)) for side in size)
    x = functional.interpolate(x, (height, width), mode="bilinear", align_corners=False)
    x = functional.pad(x, (0, -width % STRIDE, 0, -height % STRIDE))
    result = net(x)[:, :, :height, :width].softmax(dim=1)
    return functional.interpolate(result, size, mode="bilinear", align_corners=False)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
