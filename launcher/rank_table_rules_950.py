"""The rules of version 2.0, that of Ascend 950: numbers are numbers, and a rank says how it is reached.

From HCCL's user guide, rank_table_config_a5.
"""

from __future__ import annotations

import ipaddress
from typing import Dict, List, Optional, Tuple

from launcher.chips import Chip
from launcher.rank_table_fields import COMPARE, Reader, Values, version_problem
from launcher.yaml_lines import Problem, Where

MOST_RANKS = 65536
MOST_IDS = 64
MOST_LAYERS, LAST_LAYER = 8, 7
MOST_ADDRESSES, MOST_PORTS = 24, 16
NET_TYPES = ("TOPO_FILE_DESC", "CLOS")
ADDRESS_TYPES = ("EID", "IPV4", "IPV6")


class RankRules(Reader):
    """One table of version 2.0."""

    def __init__(self, chip: Optional[Chip]) -> None:
        super().__init__()
        self.chip = chip
        self.on_server: Dict[Tuple[str, str, int], Where] = {}  # (server, field, id); see `_once_on_server`

    def check(self, values: Values) -> List[Problem]:
        version = self.text(values, "version", ())
        found = version_problem(version, self.chip)
        if found is None and version not in (None, "2.0"):
            remedy = "write 2.0, or server_list in place of rank_list"
            found = Problem(("version",), f"{version!r} has no rank_list", "'2.0'", remedy)
        self.problems += [found] if found else []
        self.is_completed(values, required=False)
        entries = list(self.objects(values, "rank_list", ()))
        count = self.integer(values, "rank_count", (), 1, MOST_RANKS)
        if count is not None and count != len(entries):
            expected = f"{len(entries)}, the length of rank_list"
            self.note(("rank_count",), str(count), expected, "correct it, or add what is missing")
        ranks = [self._rank(where, entry) for where, entry in entries]
        known = [rank for rank in ranks if rank is not None]
        if len(known) == len(ranks):
            self.dense(known)
        return self.problems

    def _rank(self, where: Where, entry: Values) -> Optional[int]:
        local_id = self.integer(entry, "local_id", where, 0, MOST_IDS)
        device_id = self.integer(entry, "device_id", where, 0, MOST_IDS)
        for name in ("device_port", "host_port"):
            self.integer(entry, name, where, 1, 65535, required=False)
        levels = list(self.objects(entry, "level_list", where))
        if len(levels) > MOST_LAYERS:
            self._too_many((*where, "level_list"), len(levels), MOST_LAYERS, "layers")
        last = -1
        for number, (place, level) in enumerate(levels):
            layer = self.integer(level, "net_layer", place, 0, LAST_LAYER)
            if layer is not None and (layer <= last or (number == 0 and layer != 0)):
                expected = "layers from 0 on, ascending"
                self.note((*place, "net_layer"), str(layer), expected, "put the layers in order")
            last = layer if layer is not None else last
            self._level(place, level)
        server = levels[0][1].get("net_instance_id") if levels else None
        if isinstance(server, str):
            self._once_on_server(server, "local_id", local_id, where)
            self._once_on_server(server, "device_id", device_id, where)
        return self.integer(entry, "rank_id", where, 0, MOST_RANKS - 1)

    def _once_on_server(self, server: str, name: str, number: Optional[int], where: Where) -> None:
        """HCCL takes a device_id twice, but a rank's place is its server and device: one would vanish."""
        if number is None:
            return
        if (server, name, number) in self.on_server:
            what = f"{number} occurs twice in {server}"
            remedy = "correct one of them: a server is what the net_instance_id of the lowest layer names"
            self.note((*where, name), what, "every device of a server once", remedy)
        self.on_server.setdefault((server, name, number), where)

    def _level(self, where: Where, level: Values) -> None:
        instance = self.text(level, "net_instance_id", where)
        if instance is not None and not 0 < len(instance) <= 1024:
            remedy = "name the network instance"
            self.note((*where, "net_instance_id"), f"{len(instance)} characters", "1 to 1024", remedy)
        kind = self.text(level, "net_type", where)
        if kind is not None and kind not in NET_TYPES:
            self.note((*where, "net_type"), repr(kind), " or ".join(NET_TYPES), "write one of these")
        self.text(level, "net_attr", where, required=False)
        if level.get("rank_addr_list") == []:
            return  # MindCluster's word for a network that a device is not in
        addresses = list(self.objects(level, "rank_addr_list", where))
        if len(addresses) > MOST_ADDRESSES:
            self._too_many((*where, "rank_addr_list"), len(addresses), MOST_ADDRESSES, "addresses")
        for place, address in addresses:
            self._address(place, address)

    def _address(self, where: Where, address: Values) -> None:
        kind = self.text(address, "addr_type", where)
        value = self.text(address, "addr", where)
        field = (*where, "addr")
        if kind is not None and kind not in ADDRESS_TYPES:
            self.note((*where, "addr_type"), repr(kind), ", ".join(ADDRESS_TYPES), "write one of these")
        elif value is not None and not 0 < len(value) <= 256:
            self.note(field, f"{len(value)} characters", "1 to 256", "write the address")
        elif value is not None and kind in ("IPV4", "IPV6") and not _is_ip(value, int(str(kind)[-1])):
            remedy = f"correct it, or its addr_type {kind}"
            self.note(field, f"{value!r} is not an IPv{str(kind)[-1]} address", f"one of {kind}", remedy)
        self.text(address, "plane_id", where, required=False)
        ports = address.get("ports", [])
        place = (*where, "ports")
        if not isinstance(ports, list) or not all(isinstance(port, str) and port for port in ports):
            self.note(place, f"{ports!r}", 'a list of texts such as "0/4" (die and port)', COMPARE)
        elif len(ports) > MOST_PORTS:
            self._too_many(place, len(ports), MOST_PORTS, "ports")

    def _too_many(self, where: Where, count: int, most: int, what: str) -> None:
        self.note(where, f"{count} {what}", f"at most {most}", "leave out what is too many")


def _is_ip(value: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(value).version == version
    except ValueError:
        return False
