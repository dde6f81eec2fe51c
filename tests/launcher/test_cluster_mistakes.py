"""Each mistake in a cluster file is told with its line, its field and a remedy, all of them at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from cluster_files import TWO_SERVERS, one_host, refusal

from launcher.cluster import load_cluster
from launcher.errors import UserError

# (file, line, field, words of the message: what, expected, remedy)
MISTAKES = {
    "unknown kind": (one_host("ascend", "8"), 1, "device_kind", ["unknown value 'ascend'", "ascend910_93"]),
    "nearest kind": (one_host("ascend910c", "8"), 1, "device_kind", ["did you mean 'ascend910"]),
    "gpu": (one_host("gpu", "8"), 1, "device_kind", ["MindSpore 2.10 has no GPU build", "device_kind: cpu"]),
    "no kind": ("hosts: [10.0.0.1]\n", 1, "device_kind", ["is missing", "expected one of cpu, ascend910"]),
    "no hosts": (
        "device_kind: cpu\n",
        1,
        "hosts",
        ["is missing", "expected a list of hosts", "write `hosts:"],
    ),
    "empty hosts": ("device_kind: cpu\nhosts: []\n", 2, "hosts", ["is not a list of hosts"]),
    "not a mapping": ("- a\n- b\n", 1, "the file", ["is not a mapping", "device_kind and hosts"]),
    "unknown field": (
        one_host("cpu", "2", "enigne: local\n"),
        5,
        "enigne",
        ["unknown field", "expected one of device_kind, engine", "did you mean 'engine'?"],
    ),
    "far field": (one_host("cpu", "2", "zzz: 1\n"), 5, "zzz", ["unknown field", "remove it"]),
    "unknown field of a host": (
        "device_kind: cpu\nhosts:\n  - addres: 10.0.0.1\n    devices: 2\n",
        3,
        "hosts[0].addres",
        ["did you mean 'address'?"],
    ),
    "address missing": (
        "device_kind: cpu\nhosts:\n  - name: a\n    devices: 2\n",
        3,
        "hosts[0].address",
        ["is missing", "IP address", "write for example"],
    ),
    "host name for an address": (
        "device_kind: cpu\nhosts:\n  - address: node1\n    devices: 2\n",
        3,
        "hosts[0].address",
        ["'node1' is not an IP address", "getent hosts node1"],
    ),
    "address of no machine": (
        "device_kind: cpu\nhosts:\n  - address: 0.0.0.0\n    devices: 2\n",
        3,
        "hosts[0].address",
        ["is not the address of one machine"],
    ),
    "number for a name": (
        "device_kind: cpu\nhosts:\n  - name: 12\n    address: 10.0.0.1\n    devices: 2\n",
        3,
        "hosts[0].name",
        ["12 is not text", "put it in quotes: '12'"],
    ),
    "space in a name": (
        "device_kind: cpu\nhosts:\n  - name: a b\n    address: 10.0.0.1\n    devices: 2\n",
        3,
        "hosts[0].name",
        ["'a b' cannot be a host's name", "rename the host"],
    ),
    "duplicate name": (
        TWO_SERVERS.replace("node2\n    add", "node1\n    add"),
        8,
        "hosts[1].name",
        ["node1 is also the name at hosts[0].name", "every name once"],
    ),
    "duplicate address": (
        TWO_SERVERS.replace("10.0.0.2", "10.0.0.1"),
        9,
        "hosts[1].address",
        ["10.0.0.1 is also the address at hosts[0].address", "correct one of them"],
    ),
    "duplicate device IP": (
        TWO_SERVERS.replace("192.1.28.6", "192.2.27.6"),
        11,
        "hosts[1].devices[0]",
        ["192.2.27.6 is also the device IP at hosts[0].devices[1]"],
    ),
    "device IPs of two families": (
        TWO_SERVERS.replace("192.2.28.6", "fd00::1"),
        11,
        "hosts[1].devices[1]",
        ["fd00::1 is IPv6", "one IP family for all device addresses", "IPv4 or as IPv6"],
    ),
    "hosts of two families": (
        TWO_SERVERS.replace("10.0.0.2", "fd00::2"),
        9,
        "hosts[1].address",
        ["fd00::2 is IPv6, but 10.0.0.1 at hosts[0].address is not"],
    ),
    "loopback among other hosts": (
        TWO_SERVERS.replace("10.0.0.1", "127.0.0.1"),
        5,
        "hosts[0].address",
        [
            "127.0.0.1 is the loopback address",
            "that every host can reach",
            "write the address",
        ],
    ),
    "bad device IP": (
        one_host("ascend910", "{0: 192.1.27.6, 1: 192.1.27.256}"),
        4,
        "hosts[0].devices[1]",
        ["'192.1.27.256' is not an IP address", "write what `hccn_tool -i 1 -ip -g` shows"],
    ),
    "no device IP on several servers": (
        TWO_SERVERS.replace("{0: 192.1.28.6, 1: 192.2.28.6}", "2"),
        11,
        "hosts[1].devices",
        ["no IP address for device 0, 1", "where there are several servers", "hccn_tool -i 0 -ip -g"],
    ),
    "two rings": (
        one_host("ascend910", "[2, 3, 4, 5]"),
        4,
        "hosts[0].devices",
        [
            "devices [2, 3, 4, 5] are of two rings",
            "[0, 1, 2, 3] or [4, 5, 6, 7]",
            "use for example [0, 1, 2, 3]",
        ],
    ),
    "three devices": (
        one_host("ascend910", "3"),
        4,
        "hosts[0].devices",
        ["3 devices [0, 1, 2]", "expected 1, 2, 4 or 8 devices", "use 2 of them"],
    ),
    "device 8": (
        one_host("ascend910", "[8]"),
        4,
        "hosts[0].devices",
        ["device 8 does not exist", "device ids 0 to 7", "correct the device ids"],
    ),
    "die 16": (one_host("ascend910_93", "[0, 16]"), 4, "hosts[0].devices", ["device ids 0 to 15"]),
    "unequal servers": (
        TWO_SERVERS.replace("{0: 192.1.28.6, 1: 192.2.28.6}", "{3: 192.1.28.6}"),
        11,
        "hosts[1].devices",
        ["1 device, but hosts[0] has 2", "the same number of Ascend 910 devices on every server"],
    ),
    "device twice": (
        one_host("ascend910b", "[1, 1]"),
        4,
        "hosts[0].devices[1]",
        ["device 1 is listed twice", "remove one"],
    ),
    "negative device": (one_host("ascend910b", "[-1]"), 4, "hosts[0].devices[0]", ["-1 is not a device id"]),
    "no space after the colon": (
        one_host("ascend910b", "{0:10.0.0.7}"),
        4,
        "hosts[0].devices.0:10.0.0.7",
        ["is not a device id", "with a space after the colon"],
    ),
    "no devices": (one_host("cpu", "[]"), 4, "hosts[0].devices", ["[] names no devices", "such as 8"]),
    "zero devices": (one_host("cpu", "0"), 4, "hosts[0].devices", ["0 devices", "1 to 4096"]),
    "a million devices": (one_host("cpu", "1000000"), 4, "hosts[0].devices", ["1 to 4096"]),
    "true devices": (one_host("cpu", "yes"), 4, "hosts[0].devices", ["True names no devices"]),
    "CPU workers not counted": (
        "device_kind: cpu\nhosts: [10.0.0.1]\n",
        2,
        "hosts[0].devices",
        ["is missing"],
    ),
    "CPU with addresses": (
        one_host("cpu", "{0: 10.1.1.1}"),
        4,
        "hosts[0].devices",
        ["a CPU worker has no address", "write the number"],
    ),
    "local with two hosts": (
        TWO_SERVERS.replace("engine: exec\n", ""),
        2,
        "hosts",
        ["2 hosts with engine local", "write `engine: exec` and a `prefix` for each host"],
    ),
    "exec without prefix": (
        TWO_SERVERS.replace("    prefix: [ssh, node2]\n", ""),
        8,
        "hosts[1].prefix",
        ["is missing", "prefix: [ssh, node2]"],
    ),
    "prefix as one text": (
        TWO_SERVERS.replace("[ssh, node2]", "ssh node2"),
        10,
        "hosts[1].prefix",
        ["'ssh node2' is one text", "write [ssh, node2]"],
    ),
    "prefix with engine local": (
        one_host("cpu", "2").replace("    devices", "    prefix: [ssh, a]\n    devices"),
        4,
        "hosts[0].prefix",
        ["has no use with engine local", "write `engine: exec`"],
    ),
    "unknown engine": (
        one_host("cpu", "2", "engine: ssh\n"),
        5,
        "engine",
        ["'ssh'", "expected local or exec"],
    ),
    "store on Ascend": (
        one_host("ascend910", "2", "rendezvous: store\n"),
        5,
        "rendezvous",
        ["store works on cpu only", "write `rendezvous: scheduler`"],
    ),
    "port out of range": (
        one_host("cpu", "2", "master_port: 80\n"),
        5,
        "master_port",
        ["80 is out of range"],
    ),
    "port is no number": (
        one_host("cpu", "2", "master_port: '29400'\n"),
        5,
        "master_port",
        ["'29400' is not a number", "a TCP port from 1024 to 65535"],
    ),
    "no device but spares": (
        one_host("cpu", "2", "spares: 2\n"),
        5,
        "spares",
        ["2 is out of range", "expected 0 to 1, as a job needs a device", "leave it out"],
    ),
    "spares that leave what the chip does not take": (
        one_host("ascend910", "8", "spares: 1\n"),
        5,
        "spares",
        ["leaves 7 of 8 devices, which Ascend 910 does not use together", "expected for example 4"],
    ),
    "more at least than there are": (
        one_host("cpu", "4", "spares: 1\nmin_devices: 4\n"),
        6,
        "min_devices",
        ["4 is out of range", "expected 1 to 3, the devices that a job uses", "stop rather than go on"],
    ),
    "env is no mapping": (one_host("cpu", "2", "env: [A]\n"), 5, "env", ["is not a mapping", "NAME: value"]),
    "env is ours": (
        one_host("cpu", "2", "env:\n  A: b\n  RANK_ID: 3\n"),
        7,
        "env.RANK_ID",
        ["is set by fcn-launch for each worker", "remove it"],
    ),
    "env of our prefix": (
        one_host("cpu", "2", "env: {FCN_X: a}\n"),
        5,
        "env.FCN_X",
        ["is set by fcn-launch"],
    ),
    "env of mpirun": (
        one_host("cpu", "2", "env: {OMPI_COMM_WORLD_RANK: 0}\n"),
        5,
        "env.OMPI_COMM_WORLD_RANK",
        ["is set by fcn-launch"],
    ),
    "python by a relative path": (
        one_host("cpu", "2", "python: venv/bin/python\n"),
        5,
        "python",
        ["'venv/bin/python' depends on the folder", "write the path from / on"],
    ),
    "env is a truth": (
        one_host("cpu", "2", "env: {A: yes}\n"),
        5,
        "env.A",
        ["True is not text", "put it in quotes"],
    ),
    "env name": (one_host("cpu", "2", "env: {A-B: x}\n"), 5, "env.A-B", ["is not a variable name"]),
    "timeouts field": (
        one_host("cpu", "2", "timeouts:\n  grace: 3\n"),
        6,
        "timeouts.grace",
        ["did you mean 'grace_s'?"],
    ),
    "endless timeout": (
        one_host("cpu", "2", "timeouts: {phase_s: .inf}\n"),
        5,
        "timeouts.phase_s",
        ["inf is out of range", "1 to 7000 seconds"],
    ),
    "key given twice": (
        one_host("cpu", "2", "engine: local\nengine: exec\n"),
        6,
        "engine",
        ["is given twice, in line 5 and in line 6", "remove one of them"],
    ),
    "device given twice": (
        one_host("ascend910b", "\n      0: 10.1.0.1\n      0: 10.1.0.2"),
        6,
        "hosts[0].devices[0]",
        ["is given twice, in line 5 and in line 6"],
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_told_with_line_field_and_remedy(tmp_path: Path, name: str) -> None:
    text, line, field, words = MISTAKES[name]
    message = refusal(tmp_path, text)
    told = [told for told in message.splitlines() if told.startswith(f"cluster.yaml:{line}: {field}: ")]
    assert told, message
    assert any(all(word in one for word in words) for one in told), message
    assert all("; expected " in one and one.count("; ") >= 2 and not one.endswith("; ") for one in told)


def test_all_mistakes_come_at_once_in_file_order(tmp_path: Path) -> None:
    text = (
        "device_kind: ascend910\nenigne: exec\nhosts:\n"
        "  - {name: a, address: 10.0.0.1, devices: [3, 4]}\n"
        "  - {name: a, adress: 10.0.0.1, devices: {0: 10.1.0.0, 1: 10.1.0.999}}\n"
        "env: {MS_ROLE: MS_SCHED}\n"
    )
    lines = refusal(tmp_path, text).splitlines()
    assert [int(line.split(":")[1]) for line in lines] == sorted(int(line.split(":")[1]) for line in lines)
    for part in (
        "enigne",
        "two rings",
        "adress",
        "address: is missing",
        "also the name",
        "10.1.0.999",
        "MS_ROLE",
    ):
        assert any(part in line for line in lines), part


@pytest.mark.parametrize(
    "text, line",
    [
        ("device_kind: cpu\nhosts: [\n", 3),
        ("device_kind: cpu\n\thosts: 1\n", 2),
        ("device_kind: cpu\nhosts: *nowhere\n", 2),
        ("device_kind: !!python/object:os.system cpu\n", 1),
    ],
)
def test_what_is_not_yaml_is_told_with_its_line(tmp_path: Path, text: str, line: int) -> None:
    message = refusal(tmp_path, text)
    assert message.startswith(f"cluster.yaml:{line}: not valid YAML: ")
    assert "indent with spaces" in message


def test_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"device_kind: \x80\xff")
    with pytest.raises(UserError, match=r"binary\.yaml.*not valid YAML"):
        load_cluster(str(tmp_path / "binary.yaml"))
    assert "the file: None is not a mapping" in refusal(tmp_path, "")
    with pytest.raises(UserError, match="no such cluster file"):
        load_cluster(str(tmp_path))
