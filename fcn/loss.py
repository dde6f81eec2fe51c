"""Softmax cross entropy over the pixels that count."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops


class PixelCrossEntropy(nn.Cell):
    """Scores (N, C, H, W) and labels (N, H, W) -> sum of the pixels' cross entropies, float32.

    Pixels with the ignore label add nothing. The caller divides by the number of pixels that count, over all
    ranks: a mean of the ranks' means would weigh a pixel by how many of its neighbours are ignored. A label
    that is neither a
    class nor the ignore label makes the sum NaN: counted as zero loss it would pass unseen.
    """

    def __init__(self, num_classes: int, ignore_label: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.ignore_label = ignore_label
        # Values of its own would make the rows int64: twice the size, and on Ascend refused for int32 labels.
        self.one, self.zero = Tensor(1.0, ms.float32), Tensor(0.0, ms.float32)
        self.log_softmax = ops.LogSoftmax(axis=1)

    def construct(self, scores: Tensor, labels: Tensor) -> Tensor:
        labels = labels.astype(ms.int32).reshape(-1)
        # Classes last: softmax over a strided axis takes twice as long on CPU.
        rows = scores.astype(ms.float32).transpose(0, 2, 3, 1).reshape(-1, self.num_classes)
        # A label beyond the classes, the ignore label among them, has a row of zeros.
        total = -(self.log_softmax(rows) * ops.one_hot(labels, self.num_classes, self.one, self.zero)).sum()
        wrong = ops.logical_and(labels >= self.num_classes, labels != self.ignore_label)
        any_wrong = wrong.astype(ms.float32).sum() > 0
        # Added, not multiplied: the gradient of a product with NaN is NaN also where it is not chosen.
        return total + ops.select(any_wrong, Tensor(float("nan"), ms.float32), Tensor(0.0, ms.float32))


class ValidPixels(nn.Cell):
    """Labels (N, H, W) -> number of pixels that count, a float32 scalar."""

    def __init__(self, ignore_label: int) -> None:
        super().__init__()
        self.ignore_label = ignore_label

    def construct(self, labels: Tensor) -> Tensor:
        return (labels.astype(ms.int32) != self.ignore_label).astype(ms.float32).sum()
