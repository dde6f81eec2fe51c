"""Rank tables that tests begin with, one of each form, and how one value in them is changed."""

from __future__ import annotations

import copy
from typing import Any, Dict

import pytest

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


def example(name: str) -> Any:
    """Path of a published table; skips where they are not at hand."""
    from pathlib import Path

    folder = Path(__file__).parents[3] / "shared" / "ascend" / "rank_tables"
    if not folder.is_dir():
        pytest.skip("published rank tables are not beside this checkout")
    return folder / name
