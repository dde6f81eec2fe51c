"""hccn_tool's outputs and hccn.conf: an answer that is whole, or none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from launcher import hccn
from launcher.errors import Unreadable

SAMPLES = Path(__file__).parents[3] / "shared" / "ascend" / "samples"
PORTS = """\
+--------+--------+----------+-------------+
| UdieID | PortID | PortType | Link Status |
+--------+--------+----------+-------------+
| 0      | 4      | ETH      | DOWN        |
| 1      | 9      | UB       | UP          |
+--------+--------+----------+-------------+
"""


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
    assert hccn.parse_ip(text) == expected


def test_hccn_conf_ignores_order_and_other_fields() -> None:
    text = "netmask_10=255.0.0.0\ntls_enable_10=0\narp_10=a\narp_10=b\naddress_10=10.0.0.10\n"
    assert hccn.parse_conf(text) == {10: "10.0.0.10"}


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
    assert hccn.parse_conf(text) == expected


def test_a_card_in_short() -> None:
    assert hccn.parse_link("link status: UP\n") is True
    assert hccn.parse_link("link status: DOWN\n") is False
    assert hccn.parse_link("link status: U") is None
    assert hccn.parse_net_health("net health status: Socket failed\n") == "Socket failed"
    assert hccn.parse_net_health("Command execute failed!\n") is None


@pytest.mark.parametrize(
    ("switches", "expected"), [("0", False), ("1", True), ("11", True), ("01", None), ("", None), ("2", None)]
)
def test_tls_is_known_where_all_say_the_same(switches: str, expected: object) -> None:
    line = "dev_id:0, tls switch[{}](0:disable, 1:enable), tls alarm time threshold[60]days\n"
    assert hccn.parse_tls("".join(map(line.format, switches))) is expected


def test_a_ping_counts_with_its_last_line() -> None:
    text = "device 3 PING 10.0.0.2\n3 packets transmitted, 2 received, 33.33% packet loss\n"
    assert hccn.parse_ping(text) == (3, 2)
    assert hccn.parse_ping(text[:-20]) is None


def test_the_ports_of_a_950_are_read_or_refused() -> None:
    assert hccn.parse_dev_info(PORTS) == [(0, 4, "ETH", False), (1, 9, "UB", True)]
    lines = PORTS.splitlines(keepends=True)
    for spoil in (PORTS[:-3], PORTS.replace("UP", "U "), "".join(lines[:-1]), "".join(lines[1:])):
        with pytest.raises(Unreadable):
            hccn.parse_dev_info(spoil)


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="recorded tool outputs are not beside this checkout")
def test_recorded_outputs() -> None:
    def conf(name: str) -> object:
        return hccn.parse_conf((SAMPLES / "hccn_conf" / name).read_text())

    whole = conf("yuanrong_8npu.conf")
    assert isinstance(whole, dict) and sorted(whole) == list(range(8)) and whole[2] == "127.0.0.83"
    assert conf("yuanrong_truncated_4npu.conf") == {0: "127.0.0.123", 1: "127.0.0.182", 2: "127.0.0.116"}
    assert conf("arthurchiao_910B1_cat_etc_hccn_conf.txt") is None  # a cut copy
    masked = (SAMPLES / "hccn_tool" / "faultdiagdoc_hccn_tool_i_N_ip_g.txt").read_text()
    assert hccn.parse_ip(masked) is None
    lines = (SAMPLES / "hccn_tool" / "arthurchiao_910B1_hccn_tool_i_3_ip_g.txt").read_text().splitlines()
    assert hccn.parse_ip(os.linesep.join(lines[1:3])) == "29.1.112.213"


READERS = {
    "ip": hccn.parse_ip,
    "link": hccn.parse_link,
    "net_health": hccn.parse_net_health,
    "tls": hccn.parse_tls,
    "ping": hccn.parse_ping,
    "dev_info": lambda text: [port.is_up for port in hccn.parse_dev_info(text)],
}
RECORDED = {  # file -> reader, what it says; files that hold no answer to these questions say nothing
    "faultdiagdoc_hccn_tool_i_N_link_g.txt": ("link", True),
    "faultdiagdoc_hccn_tool_i_N_net_health_g.txt": ("net_health", "Init"),
    "faultdiagdoc_hccn_tool_i_N_tls_g_grep_switch.txt": ("tls", False),
    "tls_g_full.txt": ("tls", False),
    "arthurchiao_910B1_hccn_tool_i_3_ping_g_address_29_1_137_205.txt": ("ping", (3, 3)),
    "hccn_tool_dev_info_950.txt": ("dev_info", [False, True, False, True]),
}


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="recorded tool outputs are not beside this checkout")
@pytest.mark.parametrize("reader", READERS)
def test_no_recorded_output_says_what_it_does_not(reader: str) -> None:
    for path in sorted((SAMPLES / "hccn_tool").iterdir()):
        try:
            said = READERS[reader](path.read_text())
        except Unreadable:
            said = None
        kind, expected = RECORDED.get(path.name, ("", None))
        assert said == (expected if kind == reader else None), path.name


def test_a_damaged_hccn_conf_gives_the_right_addresses_or_fewer() -> None:
    right = {i: f"192.{i}.27.10{i}" for i in range(4)}
    lines = [
        f"address_{i}={ip}\nnetmask_{i}=255.255.0.0\ngateway_{i}=192.{i}.0.1\n" for i, ip in right.items()
    ]
    text = "".join(lines)
    assert hccn.parse_conf(text) == right
    each = text.splitlines(keepends=True)
    spoilt = [text[:cut] for cut in range(len(text))]
    spoilt += ["".join(each[:i] + each[j:]) for i in range(len(each)) for j in range(i, len(each))]
    for spoil in spoilt:
        assert (hccn.parse_conf(spoil) or {}).items() <= right.items(), spoil
