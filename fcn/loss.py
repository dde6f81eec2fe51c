"""Softmax cross entropy over the pixels that count."""

from __future__ import annotations

from typing import Sequence

import mindspore as ms
from mindspore import Tensor, nn, ops


class PixelCrossEntropy(nn.Cell):
    """Scores (N, C, H, W) and labels (N, H, W) -> sum of the pixels' cross entropies, float32.

    Each pixel counts as much as its class in `class_weights` (empty: all 1), those with the ignore label not
    at all. The caller divides by the sum of these weights over all ranks: a mean of the ranks' means would
    weigh a pixel by how many of its neighbours are ignored. A label that is neither a class nor the ignore
    label makes the sum NaN: counted as zero loss it would pass unseen.
    """

    def __init__(self, num_classes: int, ignore_label: int, class_weights: Sequence[float] = ()) -> None:
        super().__init__()
        weights = [*(class_weights or [1.0] * num_classes), 0.0]
        self.pixel_weights = Tensor(weights, ms.float32)  # the last for what is no class
        self.num_classes = num_classes
        self.ignore_label = ignore_label
        # Values of its own would make the rows int64: twice the size, and on Ascend refused for int32 labels.
        self.one, self.zero = Tensor(1.0, ms.float32), Tensor(0.0, ms.float32)
        # More exact on CPU than MindSpore's LogSoftmax, whose gradient is wrong by 1.5e-6.
        self.cross_entropy = ops.SoftmaxCrossEntropyWithLogits()

    def construct(self, scores: Tensor, labels: Tensor) -> Tensor:
        labels = labels.astype(ms.int32).reshape(-1)
        # Classes last: softmax over a strided axis takes twice as long on CPU.
        rows = scores.astype(ms.float32).transpose(0, 2, 3, 1).reshape(-1, self.num_classes)
        # A label beyond the classes, the ignore label among them, has a row of zeros and the weight 0.
        one_hot = ops.one_hot(labels, self.num_classes, self.one, self.zero)
        weights = ops.gather(self.pixel_weights, ops.minimum(labels, self.num_classes), 0)
        total = (self.cross_entropy(rows, one_hot)[0] * weights).sum()
        wrong = ops.logical_and(labels >= self.num_classes, labels != self.ignore_label)
        any_wrong = wrong.astype(ms.float32).sum() > 0
        # Added, not multiplied: the gradient of a product with NaN is NaN also where it is not chosen.
        return total + ops.select(any_wrong, Tensor(float("nan"), ms.float32), Tensor(0.0, ms.float32))
