"""The rules of a rank table, for its JSON as it is: each problem with its field, the value and what to do.

MindSpore takes a wrong table for a warning and goes on with other ranks, HCCL for an error without a field
name, so what HCCL's user guide (cluster_info_config) and its parser demand is checked here first.
"""

from __future__ import annotations

import itertools
from typing import Any, Dict, List, Optional, Set, Tuple

from launcher.chips import CHIPS, Chip, subset_problems
from launcher.rank_table_fields import COMPARE, PORTS, Address, Reader, Values, version_problem
from launcher.yaml_lines import Problem, Where

SERVER_ID_CHARACTERS = 64
MOST_DEVICES = 16  # of a server, where the kind is not known
FIRST_PORT = 1024  # HCCL takes 1 to 1023 too, and its guide forbids them
SDID = "the SDID of `npu-smi info -t spod-info -i N -c C`"
NO_SUPER_DEVICE = 2**32 - 1  # HCCL's SDID of a device outside of super pods


def check(values: Any, chip: Optional[Chip] = None) -> List[Problem]:
    """Every way in which the table breaks a rule; empty for a good one. chip: adds what this kind demands."""
    if not isinstance(values, dict):
        return [Problem((), "is not a JSON object", "a rank table", COMPARE)]
    if "RankTable" in values:
        what = "the table is inside `RankTable`, as GE's CLUSTER_CONFIG has it"
        return [Problem(("RankTable",), what, "the table alone", "write what is inside to a file of its own")]
    if "peer_list" in values or "edge_list" in values:
        what = "is the topology file of an Ascend 950 server, not a rank table"
        remedy = "give the rank table; HCCL finds the topology file by itself"
        return [Problem((), what, "a table with rank_list", remedy)]
    if "rank_list" in values or values.get("version") == "2.0":
        from launcher.rank_table_rules_950 import RankRules

        return RankRules(chip).check(values)
    return GroupRules(chip).check(values) if "group_list" in values else ServerRules(chip).check(values)


class ServerRules(Reader):
    """Versions 1.0 and 1.2. Notes what has to be unique or dense over the whole table on its way."""

    LIST = "server_list"  # what texts call the servers

    def __init__(self, chip: Optional[Chip]) -> None:
        super().__init__()
        self.chip = chip if chip is not None and chip.is_ascend else None
        self.server_ids: Dict[str, Where] = {}
        self.ips: Dict[Address, Where] = {}
        self.super_devices: Dict[str, List[Tuple[Where, int]]] = {}  # server id -> (field, SDID)
        self.devices: List[Optional[List[int]]] = []  # ids of each server; None: could not be read
        self.places: List[Where] = []  # of each server's devices
        self.ranks: List[Tuple[int, int]] = []  # (rank, server index) in the table's order
        self.ip_counts: Dict[int, Where] = {}  # addresses of a device -> the first that has so many
        self.version: Optional[str] = None
        self.has_super_pods = False
        self.is_readable = True  # false once a rank could not be read: then nothing is said about gaps

    def check(self, values: Values) -> List[Problem]:
        version = self.version = self.text(values, "version", ())
        self.has_super_pods = "super_pod_list" in values
        if version not in (None, "1.0", "1.2"):
            remedy = "write the version of this layout"
            self.note(("version",), f"{version!r} is not supported", "1.0, 1.2 or 2.0", remedy)
        found = version_problem(version, self.chip) if version in ("1.0", "1.2") else None
        self.problems += [found] if found else []
        self.is_completed(values)
        servers = list(self.objects(values, "server_list", ()))
        count = self.text(values, "server_count", (), required=version != "1.2")
        if count is not None and count != str(len(servers)):
            expected = f"{str(len(servers))!r}, the length of server_list"
            self.note(("server_count",), repr(count), expected, "correct it, or add what is missing")
        needs_ip = self._needs_ip(values, version, len(servers))
        for index, (where, server) in enumerate(servers):
            self._server(index, where, server, needs_ip)
        self._whole()
        if self.has_super_pods:
            self._super_pods(values)
        return self.problems

    def _needs_ip(self, values: Values, version: Optional[str], servers: int) -> bool:
        """Between servers the devices' own network carries the data, within a super pod HCCS does."""
        if version == "1.2":
            pods = values.get("super_pod_list")
            return isinstance(pods, list) and len(pods) > 1
        return servers > 1 or bool(self.chip and self.chip.needs_ip)

    def _server(self, index: int, where: Where, server: Values, needs_ip: bool) -> None:
        server_id = self._server_id(server, where)
        if server_id is not None:
            self.once(self.server_ids, server_id, (*where, "server_id"))
        for name in ("host_ip", "pod_ip"):
            found = self.addresses(self.text(server, name, where, required=False), (*where, name))
            if name == "host_ip" and any(address.version == 6 for address in found):
                remedy = "write the host's IPv4 address, or leave it out"
                self.note((*where, name), f"{found[0]} is IPv6", "an IPv4 address", remedy)
        # of the devices' addresses; HCCL refuses Ascend 910B without these, and its guide 910
        stands_in = "host_ip" in server and (self.chip is None or self.chip.kind == "ascend910_93")
        ids: Dict[int, Where] = {}
        entries = list(self.objects(server, "device", where))
        for place, device in entries:
            self._device(index, place, device, ids, needs_ip and not stands_in)
            if self.version == "1.2":  # HCCL passes it over in others
                self._super_device(server_id, place, device)
        self._ids_of_server((*where, "device"), ids, len(entries))

    def _server_id(self, server: Values, where: Where) -> Optional[str]:
        server_id = self.text(server, "server_id", where)
        if server_id is not None and not 0 < len(server_id) <= SERVER_ID_CHARACTERS:
            expected = f"1 to {SERVER_ID_CHARACTERS} characters"
            self.note((*where, "server_id"), f"{len(server_id)} characters", expected, "rename the server")
        return server_id

    def _ids_of_server(self, where: Where, ids: Dict[int, Where], count: int) -> None:
        self.places.append(where)
        self.devices.append(sorted(ids) if ids and len(ids) == count else None)

    def _device(
        self, server: int, where: Where, device: Values, ids: Dict[int, Where], needs_ip: bool
    ) -> None:
        device_id = self.digits(device, "device_id", where, "a device id")
        most = (self.chip and (self.chip.most_devices or self.chip.devices)) or MOST_DEVICES
        if device_id is not None:
            self.once(ids, device_id, (*where, "device_id"))
            if device_id >= most:
                expected = f"0 to {most - 1}"
                remedy = "write the physical id, N of /dev/davinciN"
                self.note((*where, "device_id"), str(device_id), expected, remedy)
        self._device_ip(where, device, needs_ip)
        for name in ("device_port", "backup_device_port", "host_port"):
            port = self.digits(device, name, where, PORTS, required=False)
            if port is not None and not FIRST_PORT <= port <= 65535:
                self.note((*where, name), str(port), PORTS, "leave it out to take the default")
        self.addresses(
            self.text(device, "backup_device_ip", where, required=False), (*where, "backup_device_ip")
        )
        rank = self.digits(device, "rank_id", where, "a rank id")
        if rank is None:
            self.is_readable = False
        else:
            self.ranks.append((rank, server))

    def _device_ip(self, where: Where, device: Values, needs_ip: bool) -> None:
        field = (*where, "device_ip")
        text = self.text(device, "device_ip", where, required=needs_ip)
        if text == "" and needs_ip:
            remedy = "write what `hccn_tool -i N -ip -g` shows for the device"
            self.note(field, "is empty", "an IP address, which the devices need to reach each other", remedy)
        addresses = self.addresses(text, field)
        for address in addresses:
            self.once(self.ips, address, field)
        if addresses:
            self.ip_counts.setdefault(len(addresses), field)

    def _whole(self) -> None:
        """What no single entry can break."""
        first: Dict[int, Tuple[Address, Where]] = {}
        for address, where in self.ips.items():
            first.setdefault(address.version, (address, where))
        if len(first) > 1:
            _, (address, where) = first.popitem()
            what = f"{address} is IPv{address.version}, others are not"
            remedy = "write all as IPv4 or all as IPv6"
            self.note(where, what, "one family in the whole table (HCCL's EI0001)", remedy)
        if len(self.ip_counts) > 1:
            count, where = list(self.ip_counts.items())[1]
            expected = f"as many for every device, {next(iter(self.ip_counts))}"
            self.note(where, f"{count} addresses", expected, "give every device as many addresses")
        if self.is_readable:
            self.dense([rank for rank, _ in self.ranks])
            self._contiguous()
        if self.chip is not None:
            for found in subset_problems(self.chip, self.devices, self.LIST):
                self.note(self.places[found.server], found.what, found.expected, found.remedy)

    def _contiguous(self) -> None:
        left: Set[int] = set()
        last: Optional[int] = None
        for rank, server in sorted(self.ranks):
            if server != last and server in left:
                what = f"rank {rank} comes after ranks of another server"
                expected = "the ranks of a server one after the other"
                self.note(("server_list", server), what, expected, "number the ranks server by server")
                return
            left.add(server)
            last = server

    def _super_device(self, server_id: Optional[str], where: Where, device: Values) -> None:
        """The id of a device in its super pod."""
        field = (*where, "super_device_id")
        if self.has_super_pods and "super_device_id" not in device:
            self.note(field, "is missing", f"{SDID}, for every device in a super pod", "add it")
        number = self.digits(device, "super_device_id", where, SDID, required=False)
        if number is not None and number >= NO_SUPER_DEVICE:
            self.note(field, f"{number} stands for none", SDID, "leave super_pod_list out where it is none")
        elif number is not None and server_id is not None:
            self.super_devices.setdefault(server_id, []).append((field, number))

    def _super_pods(self, values: Values) -> None:
        pods: Dict[str, Where] = {}
        members: Dict[str, Where] = {}
        order: List[int] = []  # of the pods, as their servers follow each other
        pod_of: Dict[str, int] = {}
        for number, (where, pod) in enumerate(self.objects(values, "super_pod_list", ())):
            pod_id = self.text(pod, "super_pod_id", where)
            if pod_id is not None:
                self.once(pods, pod_id, (*where, "super_pod_id"))
                if not pod_id:
                    self.note((*where, "super_pod_id"), "is empty", "a name", "name the super pod")
            super_devices: Dict[str, Where] = {}
            for place, member in self.objects(pod, "server_list", where):
                server_id = self.text(member, "server_id", place)
                if server_id is None:
                    continue
                field = (*place, "server_id")
                self.once(members, server_id, field)
                pod_of[server_id] = number
                if server_id not in self.server_ids:
                    what = f"{server_id!r} is not in server_list"
                    self.note(field, what, "one of its servers", "correct it, or add the server")
                for device_field, super_id in self.super_devices.get(server_id, ()):
                    self.once(super_devices, super_id, device_field)
        outside = [server_id for server_id in self.server_ids if server_id not in members]
        if outside:
            what = f"{', '.join(outside[:8])} in no super pod"
            self.note(("super_pod_list",), what, "every server in one super pod", "add it to its super pod")
        order = [pod_of[server_id] for server_id in self.server_ids if server_id in pod_of]
        changes = [pod for pod, before in zip(order, [None, *order]) if pod != before]
        if len(changes) > len(set(order)):
            what = "servers of one super pod are apart"
            remedy = "put the servers of a super pod together"
            self.note(("server_list",), what, "the servers of a super pod one after the other", remedy)


class GroupRules(ServerRules):
    """The old form of Ascend 910: the order of its devices gives the ranks. Else what version 1.0 demands."""

    LIST = "servers"

    def __init__(self, chip: Optional[Chip]) -> None:
        super().__init__(chip)
        self.entries: Dict[str, List[Tuple[Where, Values]]] = {}  # server id -> its devices

    def check(self, values: Values) -> List[Problem]:
        if self.chip is not None and self.chip.kind != "ascend910":
            what = "group_list is the old form, for Ascend 910 alone"
            self.note(("group_list",), what, f"a table for {self.chip.product}", "make one for this chip")
        self.chip = CHIPS["ascend910"]
        self.is_completed(values)
        groups = list(self.objects(values, "group_list", ()))
        self._count(values, "group_count", (), len(groups), "group_list")
        for where, group in groups:
            instances = list(self.objects(group, "instance_list", where))
            self._count(group, "instance_count", where, len(instances), "instance_list")
            devices = sum(self._instance(place, instance) for place, instance in instances)
            self._count(group, "device_count", where, devices, "its devices")
        rank = itertools.count()
        for index, entries in enumerate(self.entries.values()):
            ids: Dict[int, Where] = {}
            for place, device in entries:
                self._device(index, place, {**device, "rank_id": str(next(rank))}, ids, needs_ip=True)
            self._ids_of_server(entries[0][0][:-1] if entries else ("group_list",), ids, len(entries))
        self._whole()
        return self.problems

    def _instance(self, where: Where, instance: Values) -> int:
        """How many devices it has, which go to those of its server."""
        devices = list(self.objects(instance, "devices", where))
        server_id = self._server_id(instance, where)
        if server_id is not None:
            if server_id in self.entries and server_id != next(reversed(self.entries)):
                what = f"{server_id} comes again after another server"
                expected = "the instances of a server one after the other"
                self.note((*where, "server_id"), what, expected, "put them together")
            self.entries.setdefault(server_id, []).extend(devices)
        return len(devices)

    def _count(self, holder: Values, name: str, where: Where, right: int, of: str) -> None:
        count = self.text(holder, name, where)
        if count is not None and count != str(right):
            expected = f"{str(right)!r}, the number of {of}"
            self.note((*where, name), repr(count), expected, "correct it, or add what is missing")
