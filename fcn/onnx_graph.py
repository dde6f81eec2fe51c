"""FCN-8s as an ONNX graph, for images of any number and size.

MindSpore 2.10's own ONNX export fixes every size and has no padding; this is the network of fcn.model
written a second time, and compared with it whenever it is exported.
"""

from __future__ import annotations

from typing import Any, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fcn.architecture import FC6_KERNEL, STRIDE, UPSAMPLINGS, Architecture

OPSET = 17  # of 2022: read by every runtime of today
_IR_VERSION = 8  # of the same time

Dim = Optional[int]  # None: any


def build(
    weights: Mapping[str, np.ndarray],
    arch: Architecture,
    mean: Sequence[float],
    std: Sequence[float],
    shape: Tuple[Dim, Dim, Dim],
) -> onnx.ModelProto:
    """uint8 BGR `images` (N, H, W, 3) -> float32 `scores` (N, classes, H, W), uint8 `classes` (N, H, W).

    Args:
        weights: as `fcn.fold.fold` gives them.
        mean, std: of the channels B, G, R in 0..255; the graph normalises.
        shape: N, H and W of the images.
    """
    batch, height, width = (size or name for size, name in zip(shape, ("batch", "height", "width")))
    graph = _Graph(weights)
    x = graph.add("Cast", "images", to=TensorProto.FLOAT)
    x = graph.add("Sub", x, graph.constant("mean", np.array(mean, np.float32)))
    x = graph.add("Div", x, graph.constant("std", np.array(std, np.float32)))
    x = graph.add("Transpose", x, perm=[0, 3, 1, 2])
    size = graph.add("Shape", x, start=2, end=4)
    padded = graph.padded(x, size)
    scores = graph.cut(_network(graph, padded, arch), size, "scores")
    largest = graph.add("ArgMax", scores, axis=1, keepdims=0)
    graph.add("Cast", largest, to=TensorProto.UINT8, result="classes")
    outputs = [
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, arch.num_classes, height, width]),
        helper.make_tensor_value_info("classes", TensorProto.UINT8, [batch, height, width]),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, [batch, height, width, 3])
    made = helper.make_graph(graph.nodes, "FCN8s", [images], outputs, graph.constants)
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_model(made, producer_name="fcn-launch", ir_version=_IR_VERSION, opset_imports=opsets)


def _network(graph: _Graph, x: str, arch: Architecture) -> str:
    """Normalised images, sides multiples of 32 -> scores; see fcn.model.FCN8s."""
    pools = []
    for number, stage in enumerate(arch.stages, start=1):
        for index in range(len(stage)):
            x = graph.convolution(x, f"conv{number}", 3 * index, kernel=3)
        x = graph.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
        pools.append(x)
    x = graph.convolution(x, "conv6", 0, kernel=FC6_KERNEL)
    x = graph.convolution(x, "conv7", 0, kernel=1)
    x = graph.upsampling(graph.head(x, "score_fr"), "upscore2")
    scale4, scale3 = arch.skip_scales
    x = graph.add("Add", x, graph.head(pools[3], "score_pool4", scale4))
    x = graph.upsampling(x, "upscore_pool4")
    x = graph.add("Add", x, graph.head(pools[2], "score_pool3", scale3))
    return graph.upsampling(x, "upscore8")


class _Graph:
    """Nodes and constants, in the order in which they are added. A method returns its result's name."""

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        self.nodes: List[onnx.NodeProto] = []
        self.constants: List[onnx.TensorProto] = []
        self._weights = weights

    def add(self, kind: str, *inputs: str, result: str = "", **attributes: Any) -> str:
        result = result or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [result], name=result, **attributes))
        return result

    def constant(self, name: str, value: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def weight(self, name: str) -> str:
        return self.constant(name, self._weights[name])

    def convolution(self, x: str, cell: str, place: int, kernel: int) -> str:
        """A 'same' convolution with the bias that is left of its batch norm, and ReLU."""
        operands = (self.weight(f"{cell}.{place}.weight"), self.weight(f"{cell}.{place + 1}.beta"))
        return self.add("Relu", self.add("Conv", x, *operands, pads=[kernel // 2] * 4))

    def head(self, x: str, name: str, scale: float = 1.0) -> str:
        """Scores of a layer's features; the features are scaled first, as in the trained network."""
        if scale != 1.0:
            x = self.add("Mul", x, self.constant(f"{name}.scale", np.array(scale, np.float32)))
        return self.add("Conv", x, self.weight(f"{name}.weight"))

    def upsampling(self, x: str, name: str) -> str:
        """A 'same' transposed convolution: of what it adds, kernel - stride, each border loses half."""
        kernel, stride = UPSAMPLINGS[name]
        cut = [(kernel - stride) // 2] * 4
        return self.add("ConvTranspose", x, self.weight(f"{name}.weight"), strides=[stride] * 2, pads=cut)

    def padded(self, x: str, size: str) -> str:
        """Zeros below and on the right, so that both sides are multiples of 32."""
        # The remainder has the divisor's sign, as in Python.
        missing = self.add("Mod", self.add("Neg", size), self.constant("stride", np.array(STRIDE)))
        before = self.constant("no_padding", np.zeros(6, np.int64))
        return self.add("Pad", x, self.add("Concat", before, missing, axis=0))

    def cut(self, x: str, size: str, result: str) -> str:
        """The top left part of that height and width."""
        begin = self.constant("begin", np.zeros(2, np.int64))
        axes = self.constant("height_and_width", np.array([2, 3]))
        return self.add("Slice", x, begin, size, axes, result=result)
