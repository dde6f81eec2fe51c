"""`fcn-launch rank-table`: what it prints, refuses and writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from cluster_files import TWO_SERVERS, load
from hypothesis import given, settings
from tables import BASES, GOOD, any_tables, changed, example, servers, super_pods

from launcher.cli.rank_table import rank_table
from launcher.cluster import cluster_from, load_cluster, shipped_clusters
from launcher.conversion import cluster_values, rank_table_of
from launcher.errors import UserError
from launcher.rank_table import RankTable
from launcher.rank_table_forms import parse, render, to_text


def run(*arguments: object) -> str:
    result = CliRunner().invoke(rank_table, [str(argument) for argument in arguments])
    if result.exception:
        raise result.exception
    return result.output


def write(path: Path, values: Any) -> Path:
    path.write_text(to_text(values))
    return path


def test_show_prints_rank_host_device_and_address(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", changed("1.0", "server_list[0].device[1].device_id", "3"))
    assert run("show", path) == (
        f"{path}: version 1.0, 4 ranks on 2 servers\n\n"
        "RANK  HOST      DEVICE  ADDRESS\n"
        "0     10.0.0.1  0       192.1.27.6\n"
        "1     10.0.0.1  3       192.2.27.6\n"
        "2     10.0.0.2  0       192.1.28.6\n"
        "3     10.0.0.2  1       192.2.28.6\n\n"
    )


def test_check_tells_all_problems_of_all_files(tmp_path: Path) -> None:
    good = write(tmp_path / "good.json", servers())
    assert run("check", good, "--kind", "ascend910") == f"{good}: good, version 1.0, 4 ranks on 2 servers\n"
    backwards = servers()
    backwards["server_list"][0]["server_id"] = "10.0.0.3"
    told = run("check", write(tmp_path / "backwards.json", backwards)).splitlines()
    assert "good, version 1.0" in told[0] and "note: " in told[1] and "dictionary order" in told[1]
    bad = write(tmp_path / "bad.json", {**servers(), "server_count": 2, "status": "initializing"})
    named = write(tmp_path / "table.txt", servers())
    with pytest.raises(UserError) as caught:
        run("check", bad, good, named)
    told = str(caught.value).splitlines()
    assert [line.partition(": ")[0] for line in told] == [str(bad), str(bad), str(named)]
    assert "expected one that ends in .json; rename it" in told[2]


def test_merge_writes_one_table_and_refuses_duplicates(tmp_path: Path) -> None:
    one, two = servers(), servers()
    one["server_list"], two["server_list"] = one["server_list"][:1], two["server_list"][1:]
    for number, device in enumerate(two["server_list"][0]["device"]):
        device["rank_id"] = str(number)
    parts = [
        write(tmp_path / name, {**v, "server_count": "1"}) for name, v in (("b.json", two), ("a.json", one))
    ]
    assert json.loads(run("merge", *parts)) == servers()
    out = tmp_path / "whole.json"
    assert run("merge", *parts, "--out", out) == "" and json.loads(out.read_text()) == servers()
    with pytest.raises(UserError, match="a.json: server_id: 10.0.0.1 is also in .*whole.json"):
        run("merge", out, parts[1], "--out", out)
    assert json.loads(out.read_text()) == servers()
    with pytest.raises(UserError, match="is named twice"):
        run("merge", out, out)


def test_what_is_merged_is_checked_as_a_whole(tmp_path: Path) -> None:
    parts = []
    for number, server in enumerate(servers()["server_list"]):
        devices = server["device"][: number + 1]
        for rank, device in enumerate(devices):
            device["rank_id"] = str(rank)
        values = {**servers(), "server_count": "1", "server_list": [{**server, "device": devices}]}
        parts.append(write(tmp_path / f"{number}.json", values))
    assert len(json.loads(run("merge", *parts))["server_list"]) == 2
    with pytest.raises(UserError, match="the merged table: .*2 devices, but server_list.0. has 1"):
        run("merge", *parts, "--kind", "ascend910")


# --- a cluster file of a table, and back


@pytest.mark.parametrize("name", [name for name in shipped_clusters() if "ascend" in name])
def test_a_shipped_cluster_survives_as_a_table(name: str) -> None:
    cluster = load_cluster(name)
    table = rank_table_of(cluster)
    values = cluster_values(table, cluster.device_kind, {})
    assert "rank_table" not in values  # the hosts say it all
    again = cluster_from(yaml.safe_load(yaml.safe_dump(values)), "again")
    assert rank_table_of(again) == table
    assert {h.address: h.devices for h in again.hosts} == {h.address: h.devices for h in cluster.hosts}


@pytest.mark.parametrize("name, kind, size", [case for case in GOOD if case[1]])
def test_a_published_table_survives_as_a_cluster_file(
    tmp_path: Path, name: str, kind: str, size: int
) -> None:
    published = json.loads(example(name).read_text())
    named = {s.server_id for s in parse(published).servers if s.address is None}
    options = [o for i, n in enumerate(sorted(named)) for o in ("--address", f"{n}=10.0.0.{i + 1}")]
    out = tmp_path / "cluster.yaml"
    run("convert", example(name), "--kind", kind, "--out", out, *options)
    assert load_cluster(str(out)).world_size == size
    assert json.loads(run("convert", out)) == published


@settings(max_examples=20, deadline=None)
@given(any_tables())
def test_any_table_survives_as_a_cluster_file(table: RankTable) -> None:
    kind = "ascend910_93" if table.version == "1.2" else "ascend910b"
    values = yaml.safe_load(yaml.safe_dump(cluster_values(table, kind, {})))
    assert rank_table_of(cluster_from(values, "c.yaml")) == table


def test_what_a_table_does_not_say_is_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", servers())
    with pytest.raises(
        UserError, match="version 1.0 is read by ascend910, ascend910b, ascend910_93; name .*--kind"
    ):
        run("convert", path)
    path = write(tmp_path / "b.json", changed("2.0", "rank_count", 4))
    with pytest.raises(UserError, match="no address of server server0, server1; .* --address server0=IP"):
        run("convert", path)
    unknown = tmp_path / "c.yaml"
    unknown.write_text("device_kind: ascend910\nhosts: [{address: 10.0.0.1, devices: 2}]\n")
    with pytest.raises(UserError, match="the table of .*c.yaml: .*device.1..device_ip: is missing"):
        run("convert", unknown)
    with pytest.raises(UserError, match="--address server0: expected SERVER=IP"):
        run("convert", path, "--address", "server0")


# --- a table in a cluster file


def test_a_cluster_file_may_leave_everything_to_its_table(tmp_path: Path) -> None:
    write(tmp_path / "hccl.json", servers())
    cluster = load(tmp_path, "device_kind: ascend910\nrank_table: hccl.json\n")
    assert [(h.name, h.address, h.prefix) for h in cluster.hosts] == [
        ("10.0.0.1", "10.0.0.1", ("ssh", "10.0.0.1")),
        ("10.0.0.2", "10.0.0.2", ("ssh", "10.0.0.2")),
    ]
    assert (cluster.engine, cluster.rendezvous, cluster.world_size) == ("exec", "scheduler", 4)
    assert render(rank_table_of(cluster)) == servers()
    assert cluster_from(json.loads(json.dumps(cluster.to_dict())), cluster.source) == cluster
    write(tmp_path / "hccl.json", super_pods())
    text = "device_kind: ascend910_93\nrank_table: hccl.json\nrendezvous: rank_table\n"
    cluster = load(tmp_path, text)
    assert [host.address for host in cluster.hosts] == [f"172.16.0.{i}" for i in range(4)]


def test_every_form_can_be_inside_a_cluster_file(tmp_path: Path) -> None:
    for base, kind in (("1.0", "cpu"), ("1.0", "ascend910b"), ("1.2", "ascend910_93"), ("2.0", "ascend950")):
        values = {"device_kind": kind, "rank_table": BASES[base]()}
        if base == "2.0":
            hosts = [{"server_id": f"server{i}", "address": f"10.0.0.{i}", "prefix": ["ssh"]} for i in (0, 1)]
            values.update(engine="exec", hosts=hosts)
        cluster = cluster_from(values, "c.yaml")
        assert render(rank_table_of(cluster)) == BASES[base]()


TABLE = TWO_SERVERS + "rank_table: hccl.json\n"
# what is changed in the cluster file, and in the table; the field and words of the message
MISTAKES = [
    (
        "rank_table: hccl.json",
        "rank_table: other.json",
        "",
        None,
        "other.json: cannot be read: No such file",
    ),
    ("address: 10.0.0.2", "address: 10.0.0.9", "", None, "hosts[1]: 'node2' is no server of the table"),
    ("name: node2", "name: node2\n    server_id: x", "", None, "hosts[1]: 'x' is no server of the table"),
    ("1: 192.2.28.6", "5: 192.2.28.6", "", None, "hosts[1].devices[5]: device 5 is not in the rank table"),
    (
        "192.2.28.6",
        "192.2.28.7",
        "",
        None,
        "hosts[1].devices[1]: 192.2.28.7, but the rank table says 192.2.28.6",
    ),
    (
        "",
        "",
        "server_list[1].pod_ip",
        "10.0.0.8",
        "hosts[1].address: 10.0.0.2, but the rank table's pod_ip of",
    ),
    (
        "",
        "",
        "server_list[1].device[0].rank_id",
        2,
        "rank_table.server_list[1].device[0].rank_id: is a number",
    ),
    ("", "rendezvous: store\n", "", None, "rendezvous: store works on cpu only"),
    ("", "rank_table_version: '1.2'\n", "", None, "rank_table_version: '1.2', but the rank table has '1.0'"),
    (
        "device_kind: ascend910",
        "device_kind: ascend950",
        "",
        None,
        "rank_table.version: '1.0' is not that of",
    ),
    (
        "rank_table: hccl.json",
        "rank_table: auto",
        "",
        None,
        "rank_table: nothing in the environment names a rank",
    ),
    (
        "rank_table: hccl.json",
        "rank_table_version: '1.1'",
        "",
        None,
        "rank_table_version: unknown value '1.1'",
    ),
    (
        "rank_table: hccl.json",
        "rank_table_version: '1.2'",
        "",
        None,
        "'1.2' is not read by Ascend 910; expected 1.0",
    ),
    ("rank_table: hccl.json", "rendezvous: rank_tabel", "", None, "rendezvous: unknown value 'rank_tabel'"),
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake[-1][:40])
def test_mistakes_with_a_table_are_told(tmp_path: Path, mistake: tuple) -> None:
    old, new, path, value, words = mistake
    write(tmp_path / "hccl.json", changed("1.0", path, value) if path else servers())
    text = TABLE.replace(old, new, 1) if old else TABLE + new
    with pytest.raises(Exception) as caught:
        load(tmp_path, text + "timeouts: {start_s: 1}\n")
    assert words in str(caught.value) and "; " in str(caught.value)


def test_a_server_without_a_host_is_told(tmp_path: Path) -> None:
    write(tmp_path / "hccl.json", servers())
    with pytest.raises(UserError, match="hosts: has no host for server '10.0.0.2' of the rank table"):
        load(tmp_path, TABLE[: TABLE.index("  - name: node2")] + "rank_table: hccl.json\n")


@pytest.mark.parametrize(
    "text, words",
    [
        ("device_kind: ascend950\nhosts: [{address: 10.0.0.1, devices: 8}]\n", "rank_table: is missing"),
        (
            "device_kind: cpu\nrendezvous: rank_table\nhosts: [{address: 10.0.0.1, devices: 2}]\n",
            "on Ascend only",
        ),
    ],
)
def test_mistakes_without_a_table_are_told(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        load(tmp_path, text)
    assert words in str(caught.value)


def test_a_cluster_file_makes_no_super_pods(tmp_path: Path) -> None:
    """HCCL refuses super pods without the SDID of every device, which only the hosts know."""
    text = TWO_SERVERS.replace("ascend910", "ascend910_93")
    assert render(rank_table_of(load(tmp_path, text)))["version"] == "1.0"
    values = render(rank_table_of(load(tmp_path, text + "rank_table_version: '1.2'\n")))
    assert values["version"] == "1.2" and "super_pod_list" not in values
    with pytest.raises(UserError, match=r"hosts\[0\].super_pod: unknown field"):
        load(tmp_path, text.replace("name: node1", "name: node1\n    super_pod: a"))
