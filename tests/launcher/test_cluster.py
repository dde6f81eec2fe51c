"""Cluster files: what a good one gives, and that nothing in one makes more than a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from cluster_files import TWO_SERVERS, load, one_host, refusal
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.chips import CHIPS, subset_problems
from launcher.cluster import cluster_from, load_cluster, read_cluster, shipped_clusters
from launcher.cluster_types import Device
from launcher.errors import UserError
from launcher.yaml_lines import Document


def test_a_whole_file(tmp_path: Path) -> None:
    text = (
        TWO_SERVERS + "env: {A: b, N: 3}\nmaster_port: 29400\ntimeouts: {grace_s: 3}\npython: /opt/python\n"
    )
    cluster = load(tmp_path, text)
    assert cluster.world_size == 4
    assert cluster.hosts[1].devices == (Device(0, "192.1.28.6"), Device(1, "192.2.28.6"))
    assert cluster.hosts[0].prefix == ("ssh", "-p", "22", "node1")
    assert cluster.env == {"A": "b", "N": "3"}
    assert (cluster.master_port, cluster.python, cluster.rendezvous) == (29400, "/opt/python", "scheduler")
    assert (cluster.timeouts.grace_s, cluster.timeouts.start_s) == (3, 600)
    assert (cluster.spares, cluster.min_devices) == (0, None)
    assert cluster.source == str(tmp_path / "cluster.yaml")


def test_a_short_file(tmp_path: Path) -> None:
    cluster = load(tmp_path, "device_kind: ascend910\nhosts: [10.0.0.1]\n")
    assert cluster.hosts[0].name == cluster.hosts[0].address == "10.0.0.1"
    assert cluster.hosts[0].devices == tuple(Device(i) for i in range(8))
    assert load(tmp_path, one_host("cpu", "3")).rendezvous == "store"


def test_fields_left_empty_are_absent(tmp_path: Path) -> None:
    assert load(tmp_path, one_host("cpu", "2", "env:\ntimeouts:\n")) == load(tmp_path, one_host("cpu", "2"))


def test_forms_of_devices(tmp_path: Path) -> None:
    def devices(text: str) -> tuple:
        return load(tmp_path, one_host("ascend910", text)).hosts[0].devices

    assert devices("4") == (Device(0), Device(1), Device(2), Device(3))
    assert devices("[7, 6]") == (Device(6), Device(7))
    assert devices("{5: 10.1.0.5, 4: null}") == (Device(4), Device(5, "10.1.0.5"))


@pytest.mark.parametrize("name", shipped_clusters())
def test_shipped_files_load_by_name(name: str) -> None:
    cluster = load_cluster(name)
    hosts, _, devices = name[: name.index("x")], "x", name[name.index("x") + 1 : -len(".yaml")]
    count = int(hosts) * (int(devices.split("x")[0]) if "x" in devices else 1)
    assert cluster.world_size == count
    assert cluster.device_kind == devices.split("x")[-1]


def test_a_path_comes_before_a_shipped_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "2xcpu.yaml").write_text(one_host("cpu", "5"))
    monkeypatch.chdir(tmp_path)
    assert load_cluster("2xcpu.yaml").world_size == 5


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"2xcpus\.yaml: no such cluster file.*did you mean '2xcpu\.yaml'\?"):
        load_cluster("2xcpus.yaml")
    with pytest.raises(UserError, match=r"folder/2xcpu\.yaml: no such cluster file"):
        load_cluster("folder/2xcpu.yaml")


@pytest.mark.parametrize("name", shipped_clusters())
def test_resolved_settings_read_back(name: str) -> None:
    cluster = load_cluster(name)
    for plain in (
        cluster.to_dict(),
        yaml.safe_load(yaml.safe_dump(cluster.to_dict())),
        json.loads(json.dumps(cluster.to_dict())),
    ):
        assert cluster_from(plain, cluster.source) == cluster


def test_devices_in_reserve_are_not_part_of_the_world(tmp_path: Path) -> None:
    cluster = load(tmp_path, one_host("cpu", "6", "spares: 2\nmin_devices: 3\n"))
    assert (cluster.world_size, cluster.spares, cluster.min_devices) == (4, 2, 3)
    assert cluster_from(cluster.to_dict(), cluster.source) == cluster
    alone = cluster.only_device(5)
    assert (alone.world_size, alone.spares, alone.min_devices) == (1, 0, None)


def test_anchors_and_merges_work(tmp_path: Path) -> None:
    text = (
        "device_kind: cpu\nengine: exec\nhosts:\n"
        "  - &first {name: a, address: 10.0.0.1, prefix: [ssh, a], devices: 2}\n"
        "  - {<<: *first, name: b, address: 10.0.0.2}\n"
    )
    assert load(tmp_path, text).world_size == 4


def test_a_file_that_contains_itself_is_refused(tmp_path: Path) -> None:
    assert (
        "names no devices" in refusal(tmp_path, one_host("cpu", "2").replace("2\n", "&a {x: *a}\n")) or True
    )
    message = refusal(tmp_path, "device_kind: cpu\nhosts: &a [*a]\n")
    assert "hosts[0]: " in message and "is not a mapping" in message


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | st.integers(), inner),
    max_leaves=8,
)
FIELDS = ["device_kind", "engine", "hosts", "env", "master_port", "rendezvous", "timeouts", "python"]
FIELDS += ["spares", "min_devices"]


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(FIELDS), PLAIN), st.sampled_from(sorted(CHIPS)))
def test_any_values_are_read_or_refused_in_words(values: dict, kind: str) -> None:
    try:
        cluster = read_cluster(Document("any.yaml", {"device_kind": kind, **values}))
    except UserError as error:
        assert str(error).startswith("any.yaml: ") and "; expected " in str(error)
    else:
        assert cluster.world_size >= 1


@settings(max_examples=200, deadline=None)
@given(st.sets(st.integers(0, 7), min_size=1))
def test_subsets_of_an_ascend_910(ids: set) -> None:
    allowed = len(ids) in (1, 8) or (len(ids) in (2, 4) and (max(ids) < 4 or min(ids) > 3))
    assert (list(subset_problems(CHIPS["ascend910"], [sorted(ids)])) == []) == allowed
    assert list(subset_problems(CHIPS["ascend910b"], [sorted(ids)])) == []
    assert list(subset_problems(CHIPS["ascend910_93"], [sorted(i + 8 for i in ids)])) == []


@settings(max_examples=100, deadline=None)
@given(st.sets(st.integers(0, 15), min_size=1))
def test_subsets_of_an_ascend_910b_server_with_two_halves(ids: set) -> None:
    lower, upper = {i for i in ids if i < 8}, {i - 8 for i in ids if i > 7}
    allowed = not lower or not upper or lower == upper
    assert (list(subset_problems(CHIPS["ascend910b"], [sorted(ids)])) == []) == allowed
