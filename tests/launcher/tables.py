"""Rank tables that tests begin with, one of each form, and how one value in them is changed."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Dict

import pytest
from hypothesis import strategies as st

from launcher.rank_table import Rank, RankTable, Server
from launcher.yaml_lines import Where

REMOVED = ...


def servers(version: str = "1.0") -> Dict[str, Any]:
    """Two servers of two devices."""
    return {
        "version": version,
        "server_count": "2",
        "server_list": [
            {
                "server_id": f"10.0.0.{s + 1}",
                "device": [
                    {"device_id": str(d), "device_ip": f"192.{d + 1}.{27 + s}.6", "rank_id": str(2 * s + d)}
                    for d in range(2)
                ],
                "pod_ip": f"10.0.0.{s + 1}",
            }
            for s in range(2)
        ],
        "status": "completed",
    }


def super_pods() -> Dict[str, Any]:
    """Four servers of two devices in two super pods."""
    table = servers("1.2")
    table["server_count"] = "4"
    table["server_list"] = [
        {
            "server_id": f"node_{s}",
            "device": [
                {
                    "device_id": str(d),
                    "device_ip": f"192.168.{s}.{d}",
                    "device_port": "16666",
                    "super_device_id": str(s % 2 * 2 + d),
                    "rank_id": str(2 * s + d),
                }
                for d in range(2)
            ],
            "host_ip": f"172.16.0.{s}",
        }
        for s in range(4)
    ]
    table["super_pod_list"] = [
        {"super_pod_id": str(pod), "server_list": [{"server_id": f"node_{2 * pod + s}"} for s in range(2)]}
        for pod in range(2)
    ]
    return table


def ranks() -> Dict[str, Any]:
    """Version 2.0: two servers of two devices."""
    return {
        "version": "2.0",
        "status": "completed",
        "rank_count": 4,
        "rank_list": [
            {
                "rank_id": rank,
                "device_id": rank % 2,
                "local_id": rank % 2,
                "device_port": 16666,
                "level_list": [
                    _level(0, f"server{rank // 2}", "TOPO_FILE_DESC", "EID", f"{rank:032x}"),
                    _level(1, "cluster", "CLOS", "IPV4", f"172.16.0.{rank}"),
                ],
            }
            for rank in range(4)
        ],
    }


def _level(layer: int, instance: str, kind: str, addr_type: str, addr: str) -> Dict[str, Any]:
    address = {"addr_type": addr_type, "addr": addr, "ports": ["0/4"], "plane_id": "plane0"}
    return {
        "net_layer": layer,
        "net_instance_id": instance,
        "net_type": kind,
        "net_attr": "",
        "rank_addr_list": [address],
    }


def groups() -> Dict[str, Any]:
    """The old form: two instances of two devices."""
    return {
        "status": "completed",
        "group_count": "1",
        "group_list": [
            {
                "group_name": "hccl_world_group",
                "instance_count": "2",
                "device_count": "4",
                "instance_list": [
                    {
                        "pod_name": str(i),
                        "server_id": f"10.0.0.{i + 1}",
                        "devices": [
                            {"device_id": str(d), "device_ip": f"192.{d + 1}.{27 + i}.6"} for d in range(2)
                        ],
                    }
                    for i in range(2)
                ],
            }
        ],
    }


BASES = {"1.0": servers, "1.2": super_pods, "2.0": ranks, "old": groups}
KINDS = {"1.0": "ascend910", "1.2": "ascend910_93", "2.0": "ascend950", "old": "ascend910"}


def changed(base: str, path: str, value: Any) -> Dict[str, Any]:
    """A table with another value at `path`, written as in the messages; REMOVED takes the field out."""
    table: Any = copy.deepcopy(BASES[base]())
    *steps, last = where(path)
    holder = table
    for step in steps:
        holder = holder[step]
    if value is REMOVED:
        del holder[last]
    else:
        holder[last] = value
    return table


def where(path: str) -> Where:
    parts = path.replace("]", "").replace("[", ".").split(".")
    return tuple(int(part) if part.isdigit() else part for part in parts)


# published ones that are good: file, the kind that they are for, ranks
GOOD = [
    ("hccl_300i_duo_v1_0_2server.json", None, 4),
    ("hccl_910_template1_v1_0_2server.json", "ascend910", 4),
    ("hccl_a2_v1_0_2server.json", "ascend910b", 4),
    ("hccl_a3_v1_0_aiserver_2server.json", "ascend910_93", 4),
    ("hccl_a3_v1_2_superpod_4server.json", "ascend910_93", 16),
    ("mindcluster_test_a3_v1_2_4server_16rank.json", "ascend910_93", 16),
    ("hccl_a5_v2_ipv4_4rank.json", "ascend950", 4),
    ("hccl_a5_v2_eid_2rank.json", "ascend950", 2),
    ("hccl_examples_tensorflow_8dev_empty_ip.json", "ascend910b", 8),
    ("hccl_tools_output_hccl_8p_01234567_10.0.0.1.json", "ascend910", 8),
    ("hccl_tools_output_hccl_4p_4567_10.0.0.1.json", "ascend910", 4),
    ("hccl_tools_output_hccl_2s_16p.json", "ascend910", 16),
]


def example(name: str) -> Any:
    """Path of a published table; skips where they are not at hand."""
    folder = Path(__file__).parents[3] / "shared" / "ascend" / "rank_tables"
    if not folder.is_dir():
        pytest.skip("published rank tables are not beside this checkout")
    return folder / name


TEXT = st.text("abc_.-09", min_size=1, max_size=8)


@st.composite
def any_tables(draw: st.DrawFn) -> RankTable:
    """Good tables of version 1.0 and 1.2, ranks in any order within a server."""
    version = draw(st.sampled_from(["1.0", "1.2"]))
    made, rank = [], 0
    for number, count in enumerate(draw(st.lists(st.integers(1, 6), min_size=1, max_size=5))):
        order = draw(st.permutations(range(rank, rank + count)))
        ports = draw(st.booleans())
        pod = str(number // 2) if version == "1.2" else None
        ranks = tuple(
            Rank(
                order[i],
                i,
                f"10.{number}.0.{i}",
                {
                    **({"device_port": str(16666 + i)} if ports else {}),
                    **({"super_device_id": str(rank + i)} if pod is not None else {}),
                },
            )
            for i in range(count)
        )
        more = draw(st.dictionaries(TEXT, TEXT, max_size=2))
        made.append(Server(f"s{number}", ranks, f"10.0.0.{number}", pod, more))
        rank += count
    return RankTable(version, tuple(made), draw(st.dictionaries(TEXT, st.lists(TEXT), max_size=2)))
