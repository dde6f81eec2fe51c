"""What a host says about its devices: real programs on PATH, and no answer rather than a wrong one."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from launcher import devices

SAMPLES = Path(__file__).parents[3] / "shared" / "ascend" / "samples"


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


@pytest.mark.parametrize(
    "text, expected",
    [
        ("ipaddr:29.1.112.213\nnetmask:255.255.0.0\n", "29.1.112.213"),
        ("ipaddr: 10.0.0.1\r\nnetmask: 255.0.0.0\r\n", "10.0.0.1"),
        ("ipaddr:fd00::12\nnetmask:64\n", "fd00::12"),
        ("", None),
        ("ipaddr:29.1.112.2", None),  # cut within the address, which still is one
        ("ipaddr:29.1.112.213\n", None),
        ("ipaddr:29.1.112.213\nnetmask:2", None),  # cut within the mask, which would pass as a prefix length
        ("ipaddr:29.1.112.213\nnetmask:255.255.", None),
        ("ipaddr:10.xx.xx.10\nnetmask:255.255.255.0\n", None),
        ("ipaddr:300.0.0.1\nnetmask:255.255.255.0\n", None),
        ("Command execute failed!\n", None),
        ("ipaddr:10.0.0.1\nnetmask:255.0.0.0\nipaddr:10.0.0.2\nnetmask:255.0.0.0\n", None),
    ],
)
def test_hccn_tool_output(text: str, expected: str) -> None:
    assert devices.parse_hccn_ip(text) == expected


def test_hccn_conf_ignores_order_and_other_fields() -> None:
    text = "netmask_10=255.0.0.0\ntls_enable_10=0\narp_10=a\narp_10=b\naddress_10=10.0.0.10\n"
    assert devices.parse_hccn_conf(text) == {10: "10.0.0.10"}


@pytest.mark.parametrize(
    "text, expected",
    [
        (
            "address_0=10.0.0.1\nnetmask_0=255.0.0.0\naddress_1=10.0.0.1",
            {0: "10.0.0.1"},
        ),  # cut: no mask for 1
        ("address_0=10.0.0.1\nnetmask_0=255.0.0.0\naddress_0=10.0.0.2\n", None),
        ("address_0=10.0.0.1\nnetmask_0=255.0.0.0\n...\n", None),
        ("address_0=\nnetmask_0=255.0.0.0\n", {}),
        ("", {}),
    ],
)
def test_a_damaged_hccn_conf_gives_no_doubtful_address(text: str, expected: object) -> None:
    assert devices.parse_hccn_conf(text) == expected


def test_device_nodes_with_two_digits_count_and_the_manager_does_not(tmp_path: Path) -> None:
    for name in ("davinci0", "davinci10", "davinci2", "davinci_manager", "davinci", "davinci3x"):
        (tmp_path / name).touch()
    assert devices.present_devices(tmp_path) == (0, 2, 10)
    assert devices.present_devices(tmp_path / "absent") == ()


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="recorded tool outputs are not beside this checkout")
def test_recorded_outputs() -> None:
    def conf(name: str) -> object:
        return devices.parse_hccn_conf((SAMPLES / "hccn_conf" / name).read_text())

    whole = conf("yuanrong_8npu.conf")
    assert isinstance(whole, dict) and sorted(whole) == list(range(8)) and whole[2] == "127.0.0.83"
    assert conf("yuanrong_truncated_4npu.conf") == {0: "127.0.0.123", 1: "127.0.0.182", 2: "127.0.0.116"}
    assert conf("arthurchiao_910B1_cat_etc_hccn_conf.txt") is None  # a cut copy
    masked = (SAMPLES / "hccn_tool" / "faultdiagdoc_hccn_tool_i_N_ip_g.txt").read_text()
    assert devices.parse_hccn_ip(masked) is None
    lines = (SAMPLES / "hccn_tool" / "arthurchiao_910B1_hccn_tool_i_3_ip_g.txt").read_text().splitlines()
    assert devices.parse_hccn_ip(os.linesep.join(lines[1:3])) == "29.1.112.213"


def test_this_host_answers() -> None:
    present = devices.present_devices()
    assert set(devices.device_ips(range(8))) <= set(range(8))
    assert list(present) == sorted(present)
