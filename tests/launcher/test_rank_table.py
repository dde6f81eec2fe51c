"""Rank tables: what is read is what was written; merging, parts, files; published ones and their verdicts."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import List

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import BASES, GOOD, any_tables, changed, example, groups, servers, super_pods

from launcher import rank_table_file
from launcher.chips import CHIPS
from launcher.errors import PreflightError, UserError
from launcher.rank_table import Rank, RankTable, Server, merge, of_places
from launcher.rank_table_forms import parse, render, to_text
from launcher.rank_table_rules import check

# --- the JSON of each version


def test_the_text_of_a_table() -> None:
    table = RankTable("1.0", (Server("10.0.0.1", (Rank(0, 4, "192.1.27.7"),), "127.0.0.1"),))
    assert to_text(render(table)) == (
        "{\n"
        '    "version": "1.0",\n'
        '    "server_count": "1",\n'
        '    "server_list": [\n'
        "        {\n"
        '            "server_id": "10.0.0.1",\n'
        '            "device": [\n'
        "                {\n"
        '                    "device_id": "4",\n'
        '                    "device_ip": "192.1.27.7",\n'
        '                    "rank_id": "0"\n'
        "                }\n"
        "            ],\n"
        '            "pod_ip": "127.0.0.1"\n'
        "        }\n"
        "    ],\n"
        '    "status": "completed"\n'
        "}\n"
    )


@pytest.mark.parametrize("version", ["1.0", "1.2", "2.0"])
def test_each_version_is_rendered_as_it_was_read(version: str) -> None:
    values = BASES[version]()
    values["of_another_program"] = {"kept": [1, "2"]}
    table = parse(values)
    assert (table.version, table.world_size) == (version, 8 if version == "1.2" else 4)
    assert render(table) == values
    assert parse(json.loads(to_text(render(table)))) == table


def test_the_old_form_is_read_as_version_1_0() -> None:
    old, new = parse(groups()), parse(servers())
    assert old == parse({**servers(), "server_list": [_without_pod_ip(s) for s in servers()["server_list"]]})
    assert [rank.rank_id for _, rank in old.by_rank()] == [rank.rank_id for _, rank in new.by_rank()]


def _without_pod_ip(server: dict) -> dict:
    return {name: value for name, value in server.items() if name != "pod_ip"}


def test_super_pods_are_those_of_the_servers() -> None:
    assert [server.super_pod for server in parse(super_pods()).servers] == ["0", "0", "1", "1"]


@settings(max_examples=80, deadline=None)
@given(any_tables())
def test_reading_what_was_written_gives_the_same_table_and_the_same_bytes(table: RankTable) -> None:
    text = to_text(render(table))
    assert check(json.loads(text)) == []
    assert parse(json.loads(text)) == table
    assert to_text(render(parse(json.loads(text)))) == text


# --- some devices of a table, and several tables


@settings(max_examples=80, deadline=None)
@given(any_tables(), st.data())
def test_ranks_of_a_part_close_up_in_their_order(table: RankTable, data: st.DataObject) -> None:
    places = [(server.server_id, rank.device_id) for server, rank in table.by_rank()]
    kept = data.draw(st.sets(st.sampled_from(places), min_size=1))
    part = of_places(table, kept)
    found = [(server.server_id, rank.device_id) for server, rank in part.by_rank()]
    assert found == [place for place in places if place in kept]
    assert [rank.rank_id for _, rank in part.by_rank()] == list(range(len(kept)))
    for server in part.servers:
        assert [rank.device_id for rank in server.ranks] == sorted(rank.device_id for rank in server.ranks)
    assert check(render(part)) == []


@settings(max_examples=60, deadline=None)
@given(st.permutations(range(4)), st.sampled_from(["1.0", "1.2"]))
def test_merging_gives_the_same_table_whatever_the_order(order: List[int], version: str) -> None:
    whole = parse(super_pods()) if version == "1.2" else parse(servers())
    parts = {}
    for number in order[: len(whole.servers)] if version == "1.2" else [i for i in order if i < 2]:
        server = whole.servers[number]
        places = [(server.server_id, rank.device_id) for rank in server.ranks]
        parts[f"{number}.json"] = of_places(whole, places)
    assert merge(parts) == whole


def test_super_pods_are_in_order_one_after_the_other() -> None:
    values = super_pods()
    for pod, name in zip(values["super_pod_list"], ("1", "0")):
        pod["super_pod_id"] = name
    assert not parse(values).is_in_order
    merged = merge({"a.json": parse(values)})
    assert [server.server_id for server in merged.servers] == ["node_2", "node_3", "node_0", "node_1"]
    assert merged.is_in_order and check(render(merged)) == []


def test_what_two_tables_both_have_is_refused() -> None:
    one, two = parse(servers()), parse(changed("1.0", "server_list[0].server_id", "10.0.0.3"))
    with pytest.raises(UserError) as caught:
        merge({"a.json": one, "b.json": two})
    told = str(caught.value).splitlines()
    assert told[0].startswith("b.json: device_ip: 192.1.27.6 of server 10.0.0.3 is also in a.json; ")
    assert told[2] == (
        "b.json: server_id: 10.0.0.2 is also in a.json; expected every server once; "
        "leave one of the files out, or rename it"
    )
    with pytest.raises(UserError, match="version: 1.0 in a.json, 1.2 in b.json; expected one version"):
        merge({"a.json": one, "b.json": parse(super_pods())})


# --- files


def test_reading(tmp_path: Path) -> None:
    path = tmp_path / "rank_table.json"
    path.write_text(to_text(servers()))
    assert render(rank_table_file.read(path)) == servers()
    path.write_text('{"version": "1.0" // comment\n}')
    with pytest.raises(UserError, match="not valid JSON.*line 1.*remove comments"):
        rank_table_file.read(path)
    path.write_text('{"version": "1.0", "version": "1.2"}')
    with pytest.raises(UserError, match="version is given twice in one object"):
        rank_table_file.read(path)
    path.write_text("[]")
    with pytest.raises(UserError, match="the file: is not a JSON object; expected a rank table"):
        rank_table_file.read(path)
    with pytest.raises(UserError, match="cannot be read"):
        rank_table_file.read(tmp_path / "absent.json")
    path.write_text(to_text({**servers(), "server_count": "3"}))
    with pytest.raises(UserError, match=r"rank_table.json: server_count: '3'; expected '2', .*; correct it"):
        rank_table_file.read(path)


def test_a_table_that_is_being_written_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "hccl.json"
    said: List[str] = []

    def finish() -> None:
        path.with_name("new").write_text(to_text(servers()))
        path.with_name("new").rename(path)

    def say(text: str) -> None:
        said.append(text)
        threading.Timer(0.01, finish).start()

    assert rank_table_file.wait_for(path, 60, say) == servers()
    assert said == [f"waiting for {path}: no such file yet; at most 60 s"]
    for text, state in (
        ('{"status": "initializing"}', "its status is 'initializing'"),
        ('{"status": "completed", "ver', "not whole yet"),
    ):
        path.write_text(text)
        with pytest.raises(PreflightError, match=f"hccl.json: {state}, still after 0 s; look at what writes"):
            rank_table_file.wait_for(path, 0, said.append)


# --- what others have published

BAD = [
    ("hccl_examples_tensorflow_8dev_empty_ip.json", "ascend910", "device[7].device_ip: is empty"),
    ("hccl_a3_v1_2_superpod_4server.json", "ascend910b", "version: '1.2' is not that of Ascend 910B"),
    ("hccl_a2_v1_0_2server.json", "ascend950", "version: '1.0' is not that of Ascend 950"),
    ("hccl_a5_v2_eid_2rank.json", "ascend910b", "version: '2.0' is not that of Ascend 910B"),
    ("hccl_a5_topo_file.json", None, "is the topology file of an Ascend 950 server"),
    ("ge_docs_cluster_config_ranktable_v1_2_no_ip.json", None, "inside `RankTable`, as GE's CLUSTER_CONFIG"),
    *(
        (f"mindspore_{name}.json", None, "device_ip: '192.1.*.6' is not an IP address")
        for name in (
            "docs_rank_table_8pcs",
            "docs_rank_table_16pcs",
            "docs_rank_table_cross_cluster_16pcs",
            "test_msrun_rank_table_4p_pod_ip",
        )
    ),
    *((f"mindcluster_docs_hccl_json_v{v}.txt", None, "not valid JSON") for v in ("1_0", "1_2", "2_0")),
    *(
        (f"hccl_{name}.jsonc", None, "not valid JSON: Expecting property name")
        for name in (
            "910_template1_v1_0_2server",
            "a2_v1_0_2server",
            "a3_v1_0_aiserver_2server",
            "a3_v1_2_superpod_4server",
            "a5_v2_ipv4_4rank",
            "a5_v2_eid_2rank",
            "a5_topo_file",
            "300i_duo_v1_0_2server",
        )
    ),
]


def test_every_published_table_has_a_verdict() -> None:
    names = {path.name for path in example("").iterdir()} - {"README.md"}
    assert names == {case[0] for case in (*GOOD, *BAD)}


@pytest.mark.parametrize("name, kind, size", GOOD)
def test_published_tables_are_read_and_rendered_as_they_are(name: str, kind: str, size: int) -> None:
    path = example(name)
    table = rank_table_file.read(path, CHIPS.get(kind))
    assert table.world_size == size
    published = json.loads(path.read_text())
    assert render(table) == published
    if "hccl_tools" in name:  # in the layout of Huawei's tool, to the last byte
        assert to_text(render(table)).strip() == path.read_text().strip()


@pytest.mark.parametrize("name, kind, words", BAD)
def test_what_hccl_would_not_take_is_refused(name: str, kind: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        rank_table_file.read(example(name), CHIPS.get(kind))
    assert words in str(caught.value)


def test_the_inner_table_of_ge_is_good() -> None:
    values = json.loads(example("ge_docs_cluster_config_ranktable_v1_2_no_ip.json").read_text())["RankTable"]
    assert check(values, CHIPS["ascend910_93"]) == []


def test_merging_equals_merge_hccl(tmp_path: Path) -> None:
    published = json.loads(example("hccl_tools_output_hccl_2s_16p.json").read_text())
    parts = {}
    for number, server in enumerate(reversed(published["server_list"])):
        for rank, device in enumerate(server["device"]):
            device["rank_id"] = str(rank)
        values = {**published, "server_count": "1", "server_list": [server]}
        parts[str(number)] = parse(values)
    assert render(merge(parts)) == json.loads(example("hccl_tools_output_hccl_2s_16p.json").read_text())
