import re

import pytest

from fcn.config import Config
from fcn.config_file import RECIPES, as_yaml, load_config
from fcn.errors import ConfigError

# The original project's file, in its own form: empty values, keys of other platforms, help texts behind
# `---`.
ORIGINAL = """\
enable_modelarts: False
data_url: ""
device_target: "Ascend"
train_batch_size: 8
crop_size: 512
image_mean: [103.53, 116.28, 123.675]
data_file: "./a.mindrecord"
ckpt_vgg16: # change to your own path
ckpt_dir: "./ckpt"
scales: [1.0]
freeze_bn: False
---
crop_size: "crop_size"
"""


def test_the_defaults_are_the_original_projects():
    config, remarks = load_config()
    expected = {
        "batch_size": 32,
        "crop_size": 512,
        "image_mean": (103.53, 116.28, 123.675),
        "image_std": (57.375, 57.120, 58.395),
        "min_scale": 0.5,
        "max_scale": 2.0,
        "ignore_label": 255,
        "num_classes": 21,
        "train_epochs": 500,
        "base_lr": 0.015,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "loss_scale": 1024,
        "save_steps": 330,
        "keep_checkpoint_max": 500,
        "eval_batch_size": 16,
    }
    assert {key: getattr(config, key) for key in expected} == expected
    assert remarks == []


def test_the_original_projects_file_loads_and_says_what_it_does_not_use(tmp_path):
    file = tmp_path / "default_config.yaml"
    file.write_text(ORIGINAL)
    config, remarks = load_config(str(file))
    assert (config.batch_size, config.train_dir, config.ckpt_vgg16) == (8, "./ckpt", "")
    assert [remark.split(":")[1:3] for remark in remarks] == [
        ["1", " enable_modelarts"],
        ["2", " data_url"],
        ["3", " device_target"],
    ]


def test_an_override_replaces_the_files_value_under_either_name(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("train_batch_size: 8\nbatch_size: 4\n")
    with pytest.raises(ConfigError, match=r"the same key as train_batch_size on line 1; remove one"):
        load_config(str(file))
    file.write_text("train_batch_size: 8\n")
    assert load_config(str(file), ["batch_size=3"])[0].batch_size == 3


def test_numbers_as_people_write_them():
    assert load_config(None, ["base_lr=1e-3"])[0].base_lr == 0.001


def test_every_mistake_is_told_with_its_place(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("num_classes: 21\nbach_size: 8\nmin_scale: big\n")
    with pytest.raises(ConfigError) as error:
        load_config(str(file), ["crop_size=8"])
    text = str(error.value)
    assert f"{file}:2: bach_size: unknown key; the nearest known one is batch_size" in text
    assert f"{file}:3: min_scale: " in text and "got 'big'" in text
    assert "--set crop_size: " in text and "greater than or equal to 32" in text


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["min_scale=3"], "max_scale 2.0 is below min_scale 3.0"),
        (["ignore_label=3"], "ignore_label 3 is one of the classes"),
        (["image_std=[1,0,1]"], "image_std: every value must be above 0"),
        (["scales=[0]"], "scales: 0.0 is not above 0"),
        (["crop_size"], "--set crop_size: expected key=value"),
        (["model=FCN16s"], "--set model"),
    ],
)
def test_a_value_that_cannot_be_is_refused(overrides, expected):
    with pytest.raises(ConfigError, match=expected.replace("[", r"\[")):
        load_config(None, overrides)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\na: 2\n", "2: a: also on line 1"),
        ("num_classes: !!foo 4\n", "1: num_classes: cannot be read"),
        ("- a\n", "expected `key: value` lines"),
        ("a: [\n", "not YAML"),
        (None, "no such configuration file"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path, text, expected):
    file = tmp_path / "c.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=expected):
        load_config(str(file))


def test_the_global_batch_is_shared_out_evenly():
    assert load_config(None, ["batch_size=3"])[0].batch_over(4) == 12
    config = load_config(None, ["global_batch=6"])[0]
    assert config.batch_over(2) == 6
    with pytest.raises(ConfigError, match="6 samples cannot be shared evenly by 4 devices"):
        config.batch_over(4)


def test_fewer_devices_keep_the_global_batch_in_slices_of_the_same_size():
    config = load_config(None, ["batch_size=4", "accumulate_steps=2"])[0]
    assert config.on(8, 8) is config
    assert [(k.batch_over(n), k.accumulate_steps) for n in (4, 1) for k in [config.on(n, 8)]] == [
        (32, 4),
        (32, 16),
    ]
    with pytest.raises(ConfigError, match="32 samples cannot be shared evenly by 6 devices;"):
        config.on(6, 8)


@pytest.mark.parametrize("recipe", sorted(path.stem for path in RECIPES.glob("*.yaml")))
def test_the_shipped_recipes_load_by_name(recipe):
    assert load_config(recipe)[1] == []


@pytest.mark.parametrize("recipe", [None, *sorted(path.stem for path in RECIPES.glob("*.yaml"))])
def test_a_configuration_written_out_reads_back_the_same(recipe, tmp_path):
    config = load_config(recipe, ["class_weights=[1, 2.5, 0]", "num_classes=3", "data_file=a b.mindrecord"])[
        0
    ]
    file = tmp_path / "all.yaml"
    file.write_text(as_yaml(config))
    assert load_config(str(file)) == (config, [])


def test_every_key_has_its_meaning_in_the_written_file():
    text = as_yaml(Config())
    for name, field in Config.model_fields.items():
        assert re.search(rf"^# .*\n{name}:", text, re.MULTILINE), name
        assert field.description.split()[0] in text
