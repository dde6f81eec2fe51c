"""A VGG16 of any layout computes in our network what it computes where it comes from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from vgg16_files import CONVOLUTIONS, compute, compute_ours, in_layout, random_vgg

from fcn.architecture import VGG16_STAGES, Architecture, parameter_shapes
from fcn.errors import WeightsError
from fcn.vgg16 import read_vgg16

SMALL = Architecture(num_classes=4, encoder_width=0.0625, fc_channels=8)

# What an image goes through before each kind of network, channels in its own order
TORCHVISION = ("RGB", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
CAFFE = ("BGR", (103.939, 116.779, 123.68), (1.0, 1.0, 1.0))
OURS = ("BGR", (103.53, 116.28, 123.675), (57.375, 57.12, 58.395))


def normalised(image, form):
    """uint8 BGR (H, W, 3) -> (3, H, W)."""
    colour, mean, std = form
    ordered = image if colour == "BGR" else image[:, :, ::-1]
    return ((ordered - np.array(mean)) / np.array(std)).transpose(2, 0, 1)


def picture(side):
    return np.random.default_rng(1).integers(0, 256, (side, side, 3), np.uint8)


def written(path: Path, arrays) -> Path:
    np.savez(path, **arrays)
    return path


def strong(layers, form):
    """Weights for an input of this form's size, in place of one of deviation 1."""
    weight = layers["conv1_1"]["weight"] * np.float32(1 / 57 if form is CAFFE else 1)
    return {**layers, "conv1_1": {**layers["conv1_1"], "weight": weight}}


@pytest.mark.parametrize(
    ("layout", "batch_norm", "bias", "form"),
    [
        ("torchvision", True, True, TORCHVISION),
        ("torchvision", False, True, TORCHVISION),
        ("timm", True, True, TORCHVISION),
        ("timm", False, True, TORCHVISION),
        ("zoo", True, False, TORCHVISION),
        ("zoo", False, True, TORCHVISION),
        ("zoo", False, False, TORCHVISION),
        ("ctpn", True, False, TORCHVISION),
        ("caffe", True, False, OURS),
        ("caffe", False, True, CAFFE),
    ],
)
def test_every_layout_computes_the_same_layer_by_layer(
    tmp_path, small_config, layout, batch_norm, bias, form
):
    layers = strong(random_vgg(SMALL, batch_norm, bias), form)
    # With the mean of what it was trained on: then both pad with the same colour, and all is exact.
    mean = form[1] if form[0] == "BGR" else form[1][::-1]
    config = small_config(f"image_mean={list(mean)}")
    vgg = read_vgg16(written(tmp_path / "vgg.npz", in_layout(layers, layout)), config)
    image = picture(224)
    theirs = compute(layers, normalised(image, form))
    ours = compute_ours(vgg.values, normalised(image, ("BGR", mean, OURS[2])))
    assert vgg.warnings == ()
    for name in CONVOLUTIONS:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-4, err_msg=name)
        assert theirs[name].std() > 0.1, name  # there is something to compare
    for name in ("fc6", "fc7"):  # a dense layer sees what the convolution's middle sees
        np.testing.assert_allclose(ours[name][:, 3, 3], theirs[name], rtol=1e-4, atol=1e-4, err_msg=name)


def test_another_mean_is_folded_exactly_inside_the_border(tmp_path, small_config):
    layers = random_vgg(SMALL, batch_norm=False, top=False)
    vgg = read_vgg16(written(tmp_path / "vgg.npz", in_layout(layers, "caffe")), small_config())
    image = picture(32)
    theirs = compute(layers, normalised(image, CAFFE))["conv1_1"]
    ours = compute_ours(vgg.values, normalised(image, OURS))["conv1_1"]
    inside = (slice(None), slice(1, -1), slice(1, -1))
    np.testing.assert_allclose(ours[inside], theirs[inside], rtol=1e-4, atol=1e-3)
    assert np.abs(ours - theirs).max() < 0.02 * theirs.std()  # one pads with 103.53, the other with 103.939


def test_the_input_can_be_named(tmp_path, small_config):
    """Caffe's weights under torchvision's names, as detection projects hand them round."""
    layers = strong(random_vgg(SMALL, batch_norm=False, top=False), CAFFE)
    path = written(tmp_path / "vgg16_caffe.npz", in_layout(layers, "torchvision"))
    vgg = read_vgg16(path, small_config("vgg16_input=caffe", f"image_mean={list(CAFFE[1])}"))
    image = picture(32)
    theirs = compute(layers, normalised(image, CAFFE))["conv5_3"]
    ours = compute_ours(vgg.values, normalised(image, ("BGR", CAFFE[1], OURS[2])))["conv5_3"]
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
    wrong = read_vgg16(path, small_config(f"image_mean={list(CAFFE[1])}"))
    assert np.abs(compute_ours(wrong.values, normalised(image, OURS))["conv5_3"] - theirs).max() > 0.1


def test_weights_whose_classifier_is_nan_are_ssds(tmp_path, small_config):
    """torchvision's IMAGENET1K_FEATURES: Caffe's weights for RGB, and no classifier."""
    arrays = in_layout(random_vgg(SMALL, batch_norm=False), "torchvision")
    arrays = {n: np.full_like(a, np.nan) if n.startswith("classifier") else a for n, a in arrays.items()}
    path = written(tmp_path / "x.npz", arrays)
    vgg, meant = read_vgg16(path, small_config()), read_vgg16(path, small_config("vgg16_input=caffe_rgb"))
    np.testing.assert_array_equal(vgg.values["conv1.0.weight"], meant.values["conv1.0.weight"])
    assert "conv6.0.weight" not in vgg.values
    assert "classifier.0.weight is not of finite floating-point numbers" in vgg.warnings[0]


def test_what_is_folded_is_named(tmp_path, small_config):
    plain = written(tmp_path / "plain.npz", in_layout(random_vgg(SMALL, False), "torchvision"))
    folded = read_vgg16(plain, small_config()).folded
    assert folded[0] == "conv1.1" and folded[-2:] == ("conv6.1", "conv7.1") and len(folded) == 15
    normed = written(tmp_path / "bn.npz", in_layout(random_vgg(SMALL, True), "torchvision"))
    assert read_vgg16(normed, small_config()).folded == ("conv6.1", "conv7.1")


def test_the_report_says_what_was_loaded_and_what_was_left(tmp_path, small_config):
    path = written(tmp_path / "vgg.npz", in_layout(random_vgg(SMALL, True), "torchvision"))
    report = "\n".join(read_vgg16(path, small_config()).report)
    assert "VGG16-BN of torchvision's names, trained on RGB images" in report
    assert "75 parameters loaded: the encoder, fc6 and fc7" in report
    assert "left out: features.1.num_batches_tracked" in report and "and 9 more" in report


def test_fully_connected_layers_of_another_width_are_refused_and_said(tmp_path, small_config):
    path = written(tmp_path / "vgg.npz", in_layout(random_vgg(SMALL, True), "torchvision"))
    vgg = read_vgg16(path, small_config("fc_channels=16"))
    assert "conv6.0.weight" not in vgg.values and len(vgg.values) == 65
    (line,) = vgg.warnings
    assert "refused by shape: classifier.0.weight (8, 1568), needed (16, 1568)" in line
    assert "start anew" in line


def test_half_of_a_classifier_is_not_taken(tmp_path, small_config):
    arrays = in_layout(random_vgg(SMALL, True), "torchvision")
    del arrays["classifier.3.bias"]
    vgg = read_vgg16(written(tmp_path / "vgg.npz", arrays), small_config())
    assert not any(name.startswith(("conv6", "conv7")) for name in vgg.values)
    assert "the file has classifier.0.weight, classifier.0.bias, classifier.3.weight alone" in vgg.warnings[0]


def test_a_file_without_moving_statistics_starts_them_anew(tmp_path, small_config):
    arrays = in_layout(random_vgg(SMALL, True, bias=False), "zoo")
    arrays = {name: array for name, array in arrays.items() if "moving" not in name}
    path = written(tmp_path / "vgg.npz", arrays)
    vgg = read_vgg16(path, small_config())
    assert "no moving statistics of batch norm; they start at mean 0, variance 1" in vgg.warnings[0]
    assert "fc6 and fc7 are left out" in vgg.warnings[1]
    np.testing.assert_array_equal(vgg.values["conv3.1.moving_mean"], 0)
    np.testing.assert_array_equal(vgg.values["conv3.1.moving_variance"], 1)
    with pytest.raises(WeightsError, match="freeze_bn would never take any"):
        read_vgg16(path, small_config("freeze_bn=true"))


def test_statistics_of_some_layers_alone_are_a_damaged_file(tmp_path, small_config):
    arrays = in_layout(random_vgg(SMALL, True), "torchvision")
    del arrays["features.18.running_var"]
    with pytest.raises(WeightsError, match=r"1 missing: features\.18\.running_var"):
        read_vgg16(written(tmp_path / "vgg.npz", arrays), small_config())


def test_every_name_that_does_not_fit_is_listed(tmp_path, small_config):
    arrays = in_layout(random_vgg(SMALL, True), "ctpn")
    del arrays["vgg16_feature_extractor.conv1_2.1.beta"], arrays["vgg16_feature_extractor.conv4_1.1.gamma"]
    arrays["vgg16_feature_extractor.conv2_1.0.weight"] = np.zeros((9, 9, 3, 3), np.float32)
    with pytest.raises(WeightsError) as error:
        read_vgg16(written(tmp_path / "vgg.npz", arrays), small_config())
    text = str(error.value)
    assert "2 missing: vgg16_feature_extractor.conv1_2.1.beta, " in text
    assert (
        "1 of another shape: vgg16_feature_extractor.conv2_1.0.weight (9, 9, 3, 3), needed (8, 4, 3, 3)"
        in text
    )


def test_values_that_are_no_numbers_are_refused(tmp_path, small_config):
    arrays = in_layout(random_vgg(SMALL, True), "torchvision")
    arrays["features.3.weight"][0, 0, 0, 0] = np.inf
    with pytest.raises(WeightsError, match=r"not finite floating-point numbers: features\.3\.weight"):
        read_vgg16(written(tmp_path / "vgg.npz", arrays), small_config())


def test_another_width_is_told_with_the_setting_that_fits(tmp_path, small_config):
    path = written(tmp_path / "vgg.npz", in_layout(random_vgg(SMALL, True), "torchvision"))
    with pytest.raises(WeightsError, match=r"has 4 channels, the network 16 .*; set encoder_width=0\.0625"):
        read_vgg16(path, small_config("encoder_width=0.25"))


def test_another_depth_is_told(tmp_path, small_config):
    arrays = in_layout(random_vgg(SMALL, False), "torchvision")
    arrays["features.30.weight"] = arrays["features.28.weight"]
    with pytest.raises(WeightsError, match="has 14 convolutions, a VGG16 13"):
        read_vgg16(written(tmp_path / "vgg.npz", arrays), small_config())


def test_a_network_of_other_names_is_refused(tmp_path, small_config):
    with pytest.raises(
        WeightsError, match=r"holds no VGG16: its 1 names are such as layer1\.0\.conv1\.weight"
    ):
        read_vgg16(written(tmp_path / "x.npz", {"layer1.0.conv1.weight": np.zeros(1)}), small_config())


def test_an_fcn8s_checkpoint_is_sent_to_its_own_key(tmp_path, small_config):
    arrays = {name: np.zeros(shape, np.float32) for name, shape in parameter_shapes(SMALL).items()}
    with pytest.raises(WeightsError, match="is an FCN-8s checkpoint; ckpt_pre_trained takes it"):
        read_vgg16(written(tmp_path / "x.npz", arrays), small_config())


def test_a_vgg16_of_other_classes_is_said(tmp_path, small_config):
    arrays = in_layout(random_vgg(SMALL, True), "zoo")
    arrays["classifier.6.weight"] = np.zeros((10, 8), np.float32)
    (line,) = read_vgg16(written(tmp_path / "vgg.npz", arrays), small_config()).warnings
    assert "trained on 10 classes, not on ImageNet's 1000" in line


def effective(values, conv, norm):
    """What a convolution and its batch norm compute together: weight, bias."""
    scale = values[f"{norm}.gamma"] / np.sqrt(values[f"{norm}.moving_variance"] + 1e-5)
    weight = values[f"{conv}.weight"] * scale[:, None, None, None]
    return weight, values[f"{norm}.beta"] - scale * values[f"{norm}.moving_mean"]


def test_a_real_vgg16_with_biases_is_its_batch_norm_form(shared_data):
    """The pair was made independently, its statistics from images; only what they compute is equal."""
    from fcn.config import Config

    folder = shared_data / "vgg16_hed"
    plain, normed = (
        read_vgg16(folder / f"{name}.npz", Config()) for name in ("vgg16_hed_fp16", "vgg16bn_hed_fp16")
    )
    assert len(plain.folded) == 13 and not normed.folded
    shapes = parameter_shapes(Architecture())
    assert {name: array.shape for name, array in plain.values.items()} == {
        name: shape for name, shape in shapes.items() if name < "conv6"
    }
    for stage, widths in enumerate(VGG16_STAGES, start=1):
        for index in range(len(widths)):
            names = f"conv{stage}.{3 * index}", f"conv{stage}.{3 * index + 1}"
            for one, other in zip(effective(plain.values, *names), effective(normed.values, *names)):
                # Kept as float16: mean and beta of the second file are large and nearly cancel.
                assert np.abs(one - other).max() < 2e-3 * np.abs(other).max(), names
