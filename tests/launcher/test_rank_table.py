"""The rank table: what is built passes every rule, and a broken one is refused with its field."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any, Callable, Dict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher import rank_table
from launcher.errors import UserError
from launcher.rank_table import Rank, Server

EXAMPLES = Path(__file__).parents[3] / "shared" / "ascend" / "rank_tables"

TWO_SERVERS = [
    Server("10.0.0.1", "10.0.0.1", (Rank(0, "192.1.27.6", 0), Rank(1, "192.2.27.6", 1))),
    Server("10.0.0.2", "10.0.0.2", (Rank(0, "192.1.28.6", 2), Rank(1, "192.2.28.6", 3))),
]


def test_the_text_of_a_table() -> None:
    text = rank_table.to_text(
        rank_table.build([Server("10.0.0.1", "127.0.0.1", (Rank(4, "192.1.27.7", 0),))])
    )
    assert text == (
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


def test_an_unknown_address_is_left_out() -> None:
    table = rank_table.build([Server("a", "127.0.0.1", (Rank(0, None, 0), Rank(1, None, 1)))])
    assert table["server_list"][0]["device"][1] == {"device_id": "1", "rank_id": "1"}
    assert rank_table.check(table) == []


def super_pods() -> Dict[str, Any]:
    table = rank_table.build(TWO_SERVERS)
    table["version"] = "1.2"
    for server in table["server_list"]:
        for number, device in enumerate(server["device"]):
            device["super_device_id"] = str(number)
    table["super_pod_list"] = [
        {"super_pod_id": "0", "server_list": [{"server_id": "10.0.0.1"}]},
        {"super_pod_id": "1", "server_list": [{"server_id": "10.0.0.2"}]},
    ]
    return table


def test_good_tables_have_no_problems() -> None:
    assert rank_table.check(rank_table.build(TWO_SERVERS)) == []
    assert rank_table.check(super_pods()) == []


def change(path: str, value: Any) -> Callable[[Dict[str, Any]], None]:
    """Sets a field, or removes it where `value` is ...; `path` as in the messages."""

    def apply(table: Any) -> None:
        *steps, last = [
            int(s) if s.isdigit() else s for s in path.replace("]", "").replace("[", ".").split(".")
        ]
        for step in steps:
            table = table[step]
        if value is ...:
            del table[last]
        else:
            table[last] = value

    return apply


DEVICE = "server_list[1].device[0]"

# path of the change, new value (...: removed), field and words of the message
BROKEN = [
    ("version", "2.0", "version", "expected 1.0 or 1.2"),
    ("version", ..., "version", "is missing"),
    ("version", 1.0, "version", "is a number"),
    ("status", "initializing", "status", "not finished"),
    ("status", ..., "status", "is missing"),
    ("server_count", "3", "server_count", "expected '2'"),
    ("server_count", 2, "server_count", 'is a number; expected "2": HCCL reads strings only'),
    ("server_count", ..., "server_count", "is missing"),
    ("server_list", [], "server_list", "not empty"),
    ("server_list", ..., "server_list", "is missing"),
    ("server_list[1]", "node2", "server_list[1]", "is a text; expected an object"),
    (
        "server_list[1].server_id",
        "10.0.0.1",
        "server_list[1].server_id",
        "is also at server_list[0].server_id",
    ),
    ("server_list[1].server_id", "", "server_list[1].server_id", "1 to 64 characters"),
    ("server_list[1].server_id", "x" * 65, "server_list[1].server_id", "65 characters"),
    ("server_list[1].server_id", 7, "server_list[1].server_id", "is a number"),
    ("server_list[1].pod_ip", "node2", "server_list[1].pod_ip", "'node2' is not an IP address"),
    ("server_list[1].device", [], "server_list[1].device", "not empty"),
    (f"{DEVICE}.device_id", 0, f"{DEVICE}.device_id", 'expected "0": HCCL reads strings only'),
    (f"{DEVICE}.device_id", "1", "server_list[1].device[1].device_id", "is also at"),
    (f"{DEVICE}.device_id", "-1", f"{DEVICE}.device_id", "in digits"),
    (f"{DEVICE}.device_ip", ..., f"{DEVICE}.device_ip", "is missing"),
    (f"{DEVICE}.device_ip", "", f"{DEVICE}.device_ip", "as there are several servers"),
    (
        f"{DEVICE}.device_ip",
        "192.1.27.6",
        f"{DEVICE}.device_ip",
        "is also at server_list[0].device[0].device_ip",
    ),
    (f"{DEVICE}.device_ip", "192.1.27.7,192.1.27.256", f"{DEVICE}.device_ip", "'192.1.27.256' is not"),
    (f"{DEVICE}.device_ip", "fd00::1", "device_ip", "EI0001"),
    (f"{DEVICE}.device_port", "0", f"{DEVICE}.device_port", "1 to 65535"),
    (f"{DEVICE}.device_port", 16666, f"{DEVICE}.device_port", "is a number"),
    (f"{DEVICE}.rank_id", 2, f"{DEVICE}.rank_id", "HCCL reads strings only"),
    (f"{DEVICE}.rank_id", "two", f"{DEVICE}.rank_id", "a rank id in digits"),
    (f"{DEVICE}.rank_id", ..., f"{DEVICE}.rank_id", "is missing"),
    (f"{DEVICE}.rank_id", "1", "rank_id", "1 occurs 2 times"),
    (f"{DEVICE}.rank_id", "4", "rank_id", "2 missing; expected every rank from 0 to 3"),
    (f"{DEVICE}.super_device_id", 3, f"{DEVICE}.super_device_id", "is a number"),
]


@pytest.mark.parametrize("path, value, field, words", BROKEN)
def test_broken_tables_are_refused_with_the_field(path: str, value: Any, field: str, words: str) -> None:
    table = rank_table.build(copy.deepcopy(TWO_SERVERS))
    change(path, value)(table)
    problems = rank_table.check(table)
    assert any(problem.startswith(f"{field}: ") and words in problem for problem in problems), problems


@pytest.mark.parametrize(
    "path, value, words",
    [
        ("super_pod_list[1].super_pod_id", "0", "is also at super_pod_list[0].super_pod_id"),
        ("super_pod_list[1].server_list[0].server_id", "10.0.0.9", "'10.0.0.9' is not in server_list"),
        ("super_pod_list[1].server_list[0].server_id", "10.0.0.1", "10.0.0.2 in no super pod"),
        (
            "server_list[0].device[0].super_device_id",
            "1",
            "1 is also at server_list[0].device[0].super_device_id",
        ),
        ("super_pod_list[0]", 7, "super_pod_list[0]: is a number"),
    ],
)
def test_broken_super_pods(path: str, value: Any, words: str) -> None:
    table = super_pods()
    change(path, value)(table)
    assert any(words in problem for problem in rank_table.check(table)), rank_table.check(table)


def test_ranks_that_alternate_between_servers_are_refused() -> None:
    table = rank_table.build(
        [
            Server("a", "10.0.0.1", (Rank(0, "10.1.0.1", 0), Rank(1, "10.1.0.2", 2))),
            Server("b", "10.0.0.2", (Rank(0, "10.1.1.1", 1), Rank(1, "10.1.1.2", 3))),
        ]
    )
    assert rank_table.check(table) == [
        "server_list[0]: rank 2 comes after ranks of another server; "
        "expected the ranks of a server one after the other"
    ]


def test_ranks_may_be_permuted_within_a_server() -> None:
    ranks = (Rank(0, "10.1.0.1", 1), Rank(1, "10.1.0.2", 0))
    assert rank_table.check(rank_table.build([Server("a", "10.0.0.1", ranks)])) == []


def test_reading(tmp_path: Path) -> None:
    path = tmp_path / "rank_table.json"
    path.write_text(rank_table.to_text(rank_table.build(TWO_SERVERS)))
    assert rank_table.read(path) == rank_table.build(TWO_SERVERS)
    path.write_text('{"version": "1.0" // comment\n}')
    with pytest.raises(UserError, match="not valid JSON.*line 1.*remove comments"):
        rank_table.read(path)
    path.write_text("[]")
    with pytest.raises(UserError, match="the file: is empty; expected a JSON object"):
        rank_table.read(path)
    with pytest.raises(UserError, match="cannot be read"):
        rank_table.read(tmp_path / "absent.json")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=5))
def test_whatever_is_built_is_good_and_reads_back(counts: list) -> None:
    servers, rank = [], 0
    for number, count in enumerate(counts):
        ranks = tuple(Rank(i, f"10.{number}.0.{i}", rank + i) for i in range(count))
        servers.append(Server(f"s{number}", f"10.0.0.{number}", ranks))
        rank += count
    table = rank_table.build(servers)
    assert rank_table.check(table) == []
    assert json.loads(rank_table.to_text(table)) == table


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
PATHS = ["version", "server_list", "server_list[0]", "server_list[1].device", DEVICE, f"{DEVICE}.rank_id"]


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([*PATHS, "super_pod_list", "super_pod_list[0].server_list"]), PLAIN)
def test_any_value_anywhere_is_judged_without_a_crash(path: str, value: Any) -> None:
    table = super_pods()
    change(path, value)(table)
    assert all("; expected " in problem for problem in rank_table.check(table))


@pytest.mark.skipif(not EXAMPLES.is_dir(), reason="example rank tables are not beside this checkout")
def test_published_tables() -> None:
    good = [
        path
        for pattern in ("hccl_9*", "hccl_a[23]*", "hccl_[3et]*")
        for path in EXAMPLES.glob(f"{pattern}.json")
    ]
    assert len(good) >= 8
    for path in good:
        rank_table.read(path)
    for path in EXAMPLES.glob("hccl_a5_v2_*.json"):
        with pytest.raises(UserError, match=r"version: '2\.0' is not supported"):
            rank_table.read(path)
    for path in EXAMPLES.glob("mindspore_docs_*.json"):  # addresses masked as 192.1.*.6
        with pytest.raises(UserError, match=r"device_ip: '192\.1\.\*\.6' is not an IP address"):
            rank_table.read(path)
