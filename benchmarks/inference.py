"""Class ids of images, as an evaluation on CPU computes them, beside the same in PyTorch and onnxruntime.

The published network in float32 with the same drawn weights: normalisation, network, softmax, largest class.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Dict

import numpy as np

from benchmarks.report import report
from benchmarks.sides import Result, Side, measure, peer_environment, worker_environment

SIZE, BATCH = 256, 2
ROUNDS = 15
AGREE = 1e-3  # of the largest score

COMMON = """
import numpy as np
from fcn.architecture import parameter_shapes
from fcn.config import Config
size, batch = map(int, sys.argv[1:])
config = Config()
rng = np.random.default_rng(0)
images = rng.integers(0, 256, (batch, size, size, 3), np.uint8)
values = {}
for name, shape in parameter_shapes(config.architecture).items():
    if name.endswith(".weight"):
        spread = (2 / np.prod(shape[1:])) ** 0.5
        values[name] = rng.standard_normal(shape, np.float32) * np.float32(spread)
    elif name.endswith((".gamma", ".moving_variance")):
        values[name] = rng.uniform(0.5, 2, shape).astype(np.float32)
    else:
        values[name] = rng.normal(0, 0.2, shape).astype(np.float32)
"""

OURS = """
from mindspore import Tensor
from fcn import platform
from fcn.inference import Predictor
from fcn.network import inference_network, set_inference_weights
device = platform.set_up()
net = inference_network(config, device)
set_inference_weights(net, values, config, "drawn")
del values
predictor = Predictor(net, config).set_train(False)
scores = net(predictor.normalise(Tensor(images))).asnumpy()[0, :, ::16, ::16].tolist()
serve(lambda: predictor(Tensor(images))[0].asnumpy(), scores=scores)
"""

PYTORCH = """
import torch
from benchmarks.torch_fcn8s import FCN8s, normalise
net = FCN8s().eval()
for name, tensor in net.by_original_name().items():
    tensor.copy_(torch.from_numpy(values[name]))
del values
for part in net.children() if FOLDED else ():
    for place in range(0, len(part) if isinstance(part, torch.nn.Sequential) else 0, 3):
        part[place] = torch.nn.utils.fusion.fuse_conv_bn_eval(part[place], part[place + 1])
        part[place + 1] = torch.nn.Identity()

def scores():
    return net(normalise(torch.from_numpy(images), config.image_mean, config.image_std, torch.float32))

with torch.inference_mode():
    first = scores().numpy()[0, :, ::16, ::16].tolist()
    serve(lambda: torch.softmax(scores(), 1).argmax(1).to(torch.uint8).numpy(), scores=first)
"""

ONNXRUNTIME = """
import os
import onnxruntime
from fcn import onnx_graph
from fcn.fold import fold
weights = fold(values, config.architecture, "drawn")
mean, std = config.image_mean, config.image_std
del values
model = onnx_graph.build(weights, config.architecture, mean, std, (None, None, None)).SerializeToString()
del weights
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(os.environ["OMP_NUM_THREADS"])
session = onnxruntime.InferenceSession(model, options)
del model
scores = session.run(["scores"], {"images": images})[0][0, :, ::16, ::16].tolist()
serve(lambda: session.run(["classes"], {"images": images}), scores=scores)
"""


def main() -> None:
    """Seconds a batch and peak memory of each; the ratios are to PyTorch without folding."""
    if find_spec("torch") is None:
        sys.exit("PyTorch is the peer of this benchmark and is not installed: pip install torch")
    ours, peers = worker_environment(), peer_environment()
    sides = {
        "fcn-launch": Side(COMMON + OURS, ours),
        "PyTorch": Side(COMMON + "FOLDED = False" + PYTORCH, peers),
        "PyTorch, batch norm folded": Side(COMMON + "FOLDED = True" + PYTORCH, peers),
    }
    if find_spec("onnx") and find_spec("onnxruntime"):
        sides["onnxruntime, exported file"] = Side(COMMON + ONNXRUNTIME, peers)
    results = measure(sides, (SIZE, BATCH), ROUNDS)
    least, median, _ = results["PyTorch"].figures()
    rows = []
    for name, result in results.items():
        figures = result.figures()
        rows.append([name, *figures, figures[0] / least, figures[1] / median])
    report(
        "inference",
        ["what", "min_s", "median_s", "peak_gb", "min_ratio", "median_ratio"],
        rows,
        batch=BATCH,
        size=SIZE,
        largest_difference=_difference(results),
    )


def _difference(results: Dict[str, Result]) -> float:
    """Of the sides' scores from ours, as a share of the largest; ends the benchmark where they disagree."""
    scores = {name: np.array(result.facts["scores"]) for name, result in results.items()}
    ours = scores["fcn-launch"]
    shares = {name: float(np.abs(its - ours).max() / np.abs(ours).max()) for name, its in scores.items()}
    worst = max(shares, key=lambda name: shares[name])
    if not shares[worst] <= AGREE:
        sys.exit(f"{worst} computes something else: its scores differ by {shares[worst]:.2g} of the largest")
    return shares[worst]
