"""What a host says about its devices: replaying programs on PATH, and no answer rather than a wrong one."""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import Dict

import pytest
from ascend_server import Server

from launcher import devices, hccn, npu_smi
from launcher.agent import observe
from launcher.errors import Unreadable


def write_tool(folder: Path, body: str) -> Path:
    """A `hccn_tool` of our own; `$2` is the device id."""
    folder.mkdir(parents=True, exist_ok=True)
    tool = folder / "hccn_tool"
    tool.write_text(f"#!/bin/sh\n{body}\n")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    return tool


@pytest.fixture
def no_tools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A PATH with the standard programs and no driver tools."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(devices, "DRIVER_TOOLS", tmp_path / "driver")


def test_addresses_come_from_the_tool_on_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_tool(tmp_path / "bin", 'printf "ipaddr:192.1.27.$2\\nnetmask:255.255.0.0\\n"')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    conf = tmp_path / "hccn.conf"
    conf.write_text("address_4=10.9.9.9\nnetmask_4=255.0.0.0\n")
    assert devices.device_ips([4, 11], hccn_conf=conf) == {4: "192.1.27.4", 11: "192.1.27.11"}


def test_the_driver_folder_is_searched_after_path(no_tools: None, tmp_path: Path) -> None:
    assert devices.find_tool("hccn_tool", tmp_path / "driver") is None
    tool = write_tool(tmp_path / "driver", 'printf "ipaddr:10.0.0.9\\nnetmask:255.0.0.0\\n"')
    assert devices.find_tool("hccn_tool", tmp_path / "driver") == str(tool)
    assert devices.device_ips([0], driver_tools=tmp_path / "driver") == {0: "10.0.0.9"}


def test_a_device_whose_query_fails_is_unknown(no_tools: None, tmp_path: Path) -> None:
    body = '[ "$2" = 1 ] && exit 1\nprintf "ipaddr:10.0.0.%s\\nnetmask:255.0.0.0\\n" "$2"'
    write_tool(tmp_path / "driver", body)
    ips = devices.device_ips([1, 2], tmp_path / "absent.conf", driver_tools=tmp_path / "driver")
    assert ips == {2: "10.0.0.2"}


def test_a_tool_that_hangs_is_given_up(
    no_tools: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tool(tmp_path / "driver", "exec sleep 60")
    monkeypatch.setattr(devices, "TOOL_LIMIT_S", 0.1)
    assert devices.device_ips([0], driver_tools=tmp_path / "driver") == {}


def test_a_tool_that_cannot_run_is_unknown(no_tools: None, tmp_path: Path) -> None:
    write_tool(tmp_path / "driver", "").write_bytes(b"\x7fELF not really")
    assert devices.device_ips([0], driver_tools=tmp_path / "driver") == {}


def test_without_the_tool_the_configuration_file_answers(no_tools: None, tmp_path: Path) -> None:
    conf = tmp_path / "hccn.conf"
    conf.write_text("# cards\naddress_1=10.0.0.2\nnetmask_1=255.0.0.0\nnetdetect_1=10.0.0.254\n")
    driver = tmp_path / "driver"
    assert devices.device_ips([0, 1], conf, driver) == {1: "10.0.0.2"}
    assert devices.device_ips([0, 1], tmp_path / "absent.conf", driver) == {}


def test_device_nodes_with_two_digits_count_and_the_manager_does_not(tmp_path: Path) -> None:
    for name in ("davinci0", "davinci10", "davinci2", "davinci_manager", "davinci", "davinci3x"):
        (tmp_path / name).touch()
    assert devices.present_devices(tmp_path) == (0, 2, 10)
    assert devices.present_devices(tmp_path / "absent") == ()


def test_this_host_answers() -> None:
    present = devices.present_devices()
    assert set(devices.device_ips(range(8))) <= set(range(8))
    assert list(present) == sorted(present)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Server:
    made = Server(tmp_path / "server", "ascend910b", 8)
    monkeypatch.setattr(devices, "DEV", made.dev)
    monkeypatch.setenv("PATH", f"{made.bin}:/usr/bin:/bin")
    return made


def test_the_inventory_joins_nodes_and_tools(server: Server) -> None:
    server.sicken(3, "Alarm", "80E01801")
    found = devices.inventory()
    assert [(npu.id, npu.state.health) for npu in found.npus] == [
        (i, "Alarm" if i == 3 else "OK") for i in range(8)
    ]
    assert devices.health_of(found.npus[3]) == ("Alarm", ("80E01801",), "a fault")
    assert devices.health_of(found.npus[4]) is None


def test_devices_4_to_7_of_a_container_are_known_by_the_remap(server: Server) -> None:
    server.npus = server.npus[4:]
    for logic, npu in enumerate(server.npus):
        npu.logic = logic
        (server.dev / f"davinci{logic}").unlink()
    server.tell()
    with pytest.raises(Unreadable, match="Error parameter of"):
        devices.inventory()
    for npu in server.npus:
        text = (
            f"Chip Physical ID : {npu.phy}\nChip Logic ID : {npu.logic}\nNPU ID : {npu.card}\nChip ID : 0\n"
        )
        server.answer(f"npu-smi info -t phyid-remap -p {npu.phy}", text)
    assert [(npu.id, npu.logic) for npu in devices.inventory().npus] == [(4, 0), (5, 1), (6, 2), (7, 3)]
    logical = {"4": 0, "5": 1, "6": 2, "7": 3}
    assert observe.facts(devices=(5, 6), examine=True)["logical"] == logical
    server.answer("npu-smi info", "dcmi module initialize failed. ret is -8005\n")
    told = observe.facts(devices=(5, 6), examine=True)
    assert "npus" in told["unknown"] and told["logical"] == logical


def test_the_number_that_npu_smi_gives_a_device_goes_before_its_place(server: Server) -> None:
    npus = [{"id": 4, "logic": 1}, {"id": 5, "logic": 0}]
    assert devices.logical_ids(npus) == {4: 1, 5: 0}
    assert devices.logical_ids() == {i: i for i in range(8)}


def test_a_driver_that_hangs_is_told(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "TOOL_LIMIT_S", 0.2)
    server.hang("npu-smi info")
    with pytest.raises(Unreadable, match="did not answer within 0.2 s"):
        devices.inventory()


def test_a_host_without_devices_or_tools_is_told(server: Server, tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="there is no Ascend device"):
        devices.inventory(tmp_path / "absent")
    (server.bin / "npu-smi").unlink()
    with pytest.raises(Unreadable, match="no npu-smi on PATH"):
        devices.inventory(driver_tools=tmp_path)


# --- what whole hosts said, recorded by others

RECORDED = Path(__file__).parents[3] / "shared" / "ascend" / "samples" / "faultdiag"
READERS = {
    "ip": hccn.parse_ip,
    "link": hccn.parse_link,
    "net_health": hccn.parse_net_health,
    "tls": hccn.parse_tls,
    "ping": hccn.parse_ping,
}
ADDRESSES = {  # by device; None: an empty answer
    "kg_parse_npu_info_before.txt": ["192.161.200.10", "192.161.201.10", None],
    "kg_parse_npu_info_after.txt": [],
    "modelarts_worker-0_npu_info_before.txt": [f"10.10.0.{10 + i}" for i in range(8)],
    "modelarts_worker-0_npu_info_after.txt": [f"10.10.0.{10 + i}" for i in range(8)],
    "modelarts_worker-9_cqe_npu_info_after.txt": [
        *("192.1.45.172", "192.2.167.33", "192.3.103.252", "192.4.166.202"),
        *("192.1.157.81", "192.2.8.198", "192.3.26.213", "192.4.32.120"),
    ],
}


def recorded(name: str) -> Dict[str, str]:
    """Command -> what it printed; of npu-smi and hccn_tool, by their names alone."""
    found: Dict[str, str] = {}
    command = ""
    for line in (RECORDED / name).read_text().splitlines(keepends=True):
        if re.match(r"\S+/(npu-smi|hccn_tool) |(cat|lspci|pip) ", line):
            command = line.strip().rpartition("/")[2]
            found[command] = ""
        elif command:
            found[command] += line
    return {command: text for command, text in found.items() if command.startswith(("npu-smi", "hccn_tool"))}


@pytest.mark.skipif(not RECORDED.is_dir(), reason="recorded tool outputs are not beside this checkout")
@pytest.mark.parametrize("name", ADDRESSES)
def test_the_cards_of_a_recorded_host_are_read(name: str) -> None:
    said = recorded(name)
    asked = [f"hccn_tool -i {i} -ip -g" for i in range(len(ADDRESSES[name]))]
    assert {command for command in said if command.endswith(" -ip -g")} == set(asked)
    assert [hccn.parse_ip(said[command]) for command in asked] == ADDRESSES[name]
    for command, text in said.items():
        others = {reader for reader in READERS if not command.endswith(f" -{reader} -g")}
        assert [READERS[reader](text) for reader in others] == [None] * len(others), command


@pytest.mark.skipif(not RECORDED.is_dir(), reason="recorded tool outputs are not beside this checkout")
def test_the_chips_of_a_recorded_host_are_read() -> None:
    before, after = (recorded(f"kg_parse_npu_info_{when}.txt") for when in ("before", "after"))
    mapping = npu_smi.parse_mapping(before["npu-smi info -m"])
    assert [npu[:4] for npu in mapping] == [(i, 0, i, None) for i in range(8)]
    with pytest.raises(Unreadable, match="no whole table"):
        npu_smi.parse_info(before["npu-smi info"])  # it printed nothing
    assert hccn.parse_net_health(before["hccn_tool -i 0 -net_health -g"]) == "Socket failed"
    assert npu_smi.parse_health(before["npu-smi info -i 0 -c 0 -t health"]).status == "OK"
    sick = npu_smi.parse_health(after["npu-smi info -i 0 -c 0 -t health"])
    assert (sick.status, sick.codes) == ("Alarm", ("A4025021", "8C03A000", "8C084E00"))
    assert sick.information.startswith("ascend_monitor adda heart beat lost error; node type=process-manager")
