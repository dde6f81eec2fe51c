"""A trained network as a file: what other programs compute with it, and what is refused."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import pytest

ms = pytest.importorskip("mindspore")

from test_fold import drawn  # noqa: E402

from fcn import check, checkpoint, export  # noqa: E402
from fcn.architecture import Architecture, parameter_shapes  # noqa: E402
from fcn.check_export import check_export, described_in  # noqa: E402
from fcn.distributed import World  # noqa: E402
from fcn.errors import FcnError, WeightsError  # noqa: E402
from fcn.job import Job  # noqa: E402
from fcn.model import FCN8s, Normalise, Shift  # noqa: E402
from fcn.platform import CPU  # noqa: E402
from fcn.status import Status  # noqa: E402
from fcn.stop import StopRequest  # noqa: E402
from fcn.weights import load_strictly  # noqa: E402

ANY = (None, None, None)
SIZES = [(1, 32, 32), (2, 33, 50), (3, 5, 70), (1, 64, 95)]


@pytest.fixture
def onnxruntime():
    pytest.importorskip("onnx", reason="ONNX is an extra: pip install onnx")
    return pytest.importorskip("onnxruntime", reason="onnxruntime is an extra: pip install onnxruntime")


@pytest.fixture
def trained(tmp_path, small_config, device):
    """The configuration of a checkpoint of drawn parameters, and these."""
    config = small_config("skip_scales=[0.5,0.25]", f"ckpt_file={tmp_path}/FCN8s-2_7.ckpt")
    values = drawn(config.architecture)
    manifest = {
        "step": 7,
        "epoch": 2,
        "architecture": {"model": config.model, **asdict(config.architecture)},
        "normalisation": config.normalisation,
    }
    checkpoint.save(tmp_path, "FCN8s-2_7", values, None, manifest)
    return config, values


def exported(config, folder, file_format="onnx", dims=ANY, image=None, overwrite=False):
    """Through the check and the worker's part; returns the file."""
    out = str(folder / f"x.{file_format}")
    options, _ = check_export(config, file_format, out, overwrite, dims, image, "cpu")
    job = Job(config, options, folder, CPU, World(), Status(), StopRequest())
    assert export.work(job) == 0
    return folder / f"x.{file_format}"


def images_of(shape):
    return np.random.default_rng(sum(shape)).integers(0, 256, (*shape, 3), np.uint8)


def scores_of_the_trained(config, values, images):
    """By the network with batch norm, as it was trained."""
    net = FCN8s(config.architecture).set_train(False)
    load_strictly(net, values, "drawn")
    return net(Normalise(config.image_mean, config.image_std)(ms.Tensor(images))).asnumpy()


def test_onnx_takes_any_number_and_size_of_images(tmp_path, trained, onnxruntime):
    config, values = trained
    session = onnxruntime.InferenceSession(str(exported(config, tmp_path)))
    for shape in SIZES:
        images = images_of(shape)
        scores, classes = session.run(["scores", "classes"], {"images": images})
        expected = scores_of_the_trained(config, values, images)
        assert np.abs(scores - expected).max() < 1e-5 * np.abs(expected).max()
        np.testing.assert_array_equal(classes, scores.argmax(axis=1))
        assert (classes.dtype, classes.shape) == (np.uint8, shape)


def test_onnx_says_what_it_takes_and_comes_from(tmp_path, trained, onnxruntime):
    config, _ = trained
    file = exported(config, tmp_path, dims=(2, 40, None))
    session = onnxruntime.InferenceSession(str(file))
    assert session.get_inputs()[0].shape == [2, 40, "width", 3]
    beside = json.loads(described_in(file).read_text())
    inside = {name: json.loads(text) for name, text in session.get_modelmeta().custom_metadata_map.items()}
    assert inside.items() <= beside.items()
    assert inside["images"]["colour"] == "BGR" and inside["images"]["normalised_by"] == "the graph"
    assert inside["images"]["image_mean"] == list(config.image_mean)
    assert inside["scores"]["shape"] == [2, 4, 40, "width"]
    assert inside["class_names"] == ["0", "1", "2", "3"]
    saved = json.loads((tmp_path / "FCN8s-2_7.json").read_text())
    assert inside["checkpoint"] == {
        "file": config.ckpt_file,
        "sha256": saved["sha256"],
        "epoch": 2,
        "step": 7,
    }
    assert beside["size"] == file.stat().st_size


def whole_numbers(arch):
    """Parameters with which every sum is a whole number that float32 holds, in whatever order it is added."""
    rng = np.random.default_rng(3)
    values = {}
    for name, shape in parameter_shapes(arch).items():
        if name.endswith(".weight"):
            # Few of the encoder's are not zero, so that its values stay small.
            share = 0.9 if "score" in name else min(1.0, 2.5 / np.prod(shape[1:]))
            values[name] = rng.choice([-1, 0, 1], shape, p=[share / 4, 1 - share, share * 3 / 4])
        else:
            values[name] = np.zeros(shape)
    weights = {name: value.astype(np.float32) for name, value in values.items()}
    return {name: value for name, value in weights.items() if "gamma" not in name and "moving" not in name}


@pytest.mark.parametrize("shape", SIZES)
def test_onnx_is_the_network_to_the_last_bit_where_sums_are_exact(device, onnxruntime, shape):
    """A border, an offset of an upsampling or a skip that is not the network's would change whole numbers."""
    from fcn import onnx_graph

    arch = Architecture(4, 0.0625, 8)
    weights = whole_numbers(arch)
    net = FCN8s(arch, norm=Shift).set_train(False)
    load_strictly(net, weights, "drawn")
    images = images_of(shape) % 2
    expected = net(Normalise((0, 0, 0), (1, 1, 1))(ms.Tensor(images))).asnumpy()
    model = onnx_graph.build(weights, arch, (0, 0, 0), (1, 1, 1), ANY)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    assert len(np.unique(expected)) > 1000 and np.abs(expected).max() < 2**20
    np.testing.assert_array_equal(session.run(["scores"], {"images": images})[0], expected)


@pytest.mark.parametrize("dims", [(2, 33, 50), ANY])
def test_mindir_is_read_back(tmp_path, trained, dims):
    config, values = trained
    file = exported(config, tmp_path, "mindir", dims)
    facts = json.loads(described_in(file).read_text())
    shape = tuple(facts["images"]["shape"][:3])
    assert shape == ((1, 32, 32) if dims == ANY else dims)
    assert facts["comparison"]["other_pixels"] == 0
    images = images_of(shape)
    scores, classes = ms.nn.GraphCell(ms.load(str(file)))(ms.Tensor(images))
    expected = scores_of_the_trained(config, values, images)
    assert np.abs(scores.asnumpy() - expected).max() < 1e-5 * np.abs(expected).max()
    np.testing.assert_array_equal(classes.asnumpy(), scores.asnumpy().argmax(axis=1))


@pytest.mark.parametrize("dims", [ANY, (1, 64, 40), (3, 20, 90)])
def test_the_comparison_is_on_the_image_named(tmp_path, trained, onnxruntime, dims):
    config, _ = trained
    image = tmp_path / "image.png"
    cv2.imwrite(str(image), images_of((1, 37, 51))[0])
    file = exported(config, tmp_path, dims=dims, image=str(image))
    comparison = json.loads(described_in(file).read_text())["comparison"]
    assert comparison["image"] == str(image)
    assert comparison["shape"] == [dims[0] or 2, dims[1] or 37, dims[2] or 51, 3]
    assert 0 < comparison["largest_difference"] < 1e-5 * comparison["largest_score"]


def test_a_file_that_computes_something_else_is_not_left(tmp_path, trained, onnxruntime, monkeypatch):
    from fcn import onnx_graph

    build = onnx_graph.build

    def swapped_colours(weights, arch, mean, std, dims):
        return build(weights, arch, mean[::-1], std, dims)

    monkeypatch.setattr(onnx_graph, "build", swapped_colours)
    config, _ = trained
    before = sorted(tmp_path.iterdir())
    with pytest.raises(WeightsError, match="not written: its scores differ by up to"):
        exported(config, tmp_path)
    assert sorted(tmp_path.iterdir()) == before


def test_nothing_is_replaced_unasked(tmp_path, trained, onnxruntime):
    config, _ = trained
    file = exported(config, tmp_path)
    old = file.read_bytes()
    with pytest.raises(FcnError, match="x.onnx exists; --overwrite replaces it"):
        exported(config, tmp_path)
    (tmp_path / ".x.onnx.writing").mkdir()  # of an export that was killed
    file.write_bytes(b"old")
    exported(config, tmp_path, overwrite=True)
    assert file.read_bytes() == old
    assert sorted(path.name for path in tmp_path.glob("*x.onnx*")) == ["x.onnx", "x.onnx.json"]


def test_a_file_that_appears_meanwhile_is_left_alone(tmp_path, trained, onnxruntime, monkeypatch):
    config, _ = trained
    check = export._compare

    def meanwhile(*args):
        (tmp_path / "x.onnx").write_bytes(b"another's")
        return check(*args)

    monkeypatch.setattr(export, "_compare", meanwhile)
    with pytest.raises(FcnError, match="x.onnx exists"):
        exported(config, tmp_path)
    assert (tmp_path / "x.onnx").read_bytes() == b"another's"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"file_format": "air"}, "--format air: MindSpore writes AIR on an Ascend alone"),
        ({"out": "none/x.onnx"}, "none is no folder"),
        ({"out": "x.pb"}, "--out x.pb: MindSpore and others tell formats by name; end it in .onnx"),
        ({"image": "none.png"}, "none.png: cannot be read"),
    ],
)
def test_what_cannot_be_done_is_refused_first(small_config, tmp_path, monkeypatch, words, expected):
    monkeypatch.chdir(tmp_path)
    request = {"file_format": "onnx", "out": "x.onnx", "overwrite": False, "dims": ANY, "image": None}
    with pytest.raises(FcnError) as error:
        check_export(small_config("ckpt_file=x.ckpt"), **{**request, **words}, platform="cpu")
    assert expected in str(error.value)


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_named(small_config, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)  # as good as not installed
    with pytest.raises(FcnError, match=f"--format onnx: needs .*{package}.*; pip install .*{package}"):
        check_export(small_config(), "onnx", str(tmp_path / "x.onnx"), False, ANY, None, "cpu")
    assert check_export(small_config(), "mindir", str(tmp_path / "x.mindir"), False, ANY, None, "cpu")


def test_the_validation_list_gives_the_image_or_a_warning_says_why_not(small_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        cv2.imwrite(f"{name}.png", images_of((1, 5, 6))[0])
    (tmp_path / "list.txt").write_text("b.png a.png\n")
    config = small_config(f"data_root={tmp_path}", "data_lst=list.txt", "ckpt_file=x.ckpt")
    request = ("mindir", None, False, ANY, None, "cpu")
    options, warnings = check_export(config, *request)
    assert (options["image"], options["out"]) == (str(tmp_path / "b.png"), str(tmp_path / "x.mindir"))
    assert (options["dims"], warnings) == ([1, 32, 32], [])
    (tmp_path / "b.png").unlink()
    options, warnings = check_export(config, *request)
    assert options["image"] is None
    assert "compared on a drawn image" in warnings[0] and "no such file" in warnings[0]


def check_of(*words, capsys):
    code = check.main(["export", *map(str, words)])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--format=mindir"], None),
        (["--format=air"], "MindSpore writes AIR on an Ascend alone"),
        (["--format=air", "--platform=ascend"], None),
        (["--format=mindir", "--set=num_classes=5"], "num_classes: 5 was asked for, 4 in the file"),
        (["--format=mindir", "--out=x.mindir", "--batch=2", "--height=40"], None),
    ],
)
def test_a_request_becomes_the_workers_options(tmp_path, trained, monkeypatch, capsys, words, expected):
    monkeypatch.chdir(tmp_path)
    config, _ = trained
    code, answer = check_of(f"--set=ckpt_file={config.ckpt_file}", *words, capsys=capsys)
    if expected is not None:
        assert code == 2 and expected in "\n".join(answer["errors"])
        return
    options = answer["options"]
    assert code == 0 and options["format"] in words[0]
    assert options["dims"] == ([2, 40, 512] if "--batch=2" in words else [1, 512, 512])
    assert options["out"].startswith(str(tmp_path / ("x." if "--batch=2" in words else "FCN8s-2_7.")))


def test_a_damaged_checkpoint_is_not_exported(tmp_path, trained, capsys):
    config, _ = trained
    with Path(config.ckpt_file).open("r+b") as file:
        file.seek(3000)
        file.write(b"damage")
    out = tmp_path / "x.mindir"
    words = [f"--set=ckpt_file={config.ckpt_file}", "--format=mindir", f"--out={out}"]
    code, answer = check_of(*words, capsys=capsys)
    assert code == 2 and "its bytes are not those that were saved" in answer["errors"][0]
