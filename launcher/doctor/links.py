"""Network cards of the devices: addresses, links, TLS, and whether they reach each other across servers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, Optional, Tuple

from launcher.doctor.check import Check, Finding, Request, View, odd_ones
from launcher.errors import Unreadable

if TYPE_CHECKING:
    from launcher.cluster_types import Cluster

Place = Tuple[str, int]  # host, device id


def gather_ips(request: Request) -> Dict[str, str]:
    """Device id -> address of its network card where it is known; of all devices where none are named."""
    from launcher import devices  # so in all of these: a host with CPUs alone starts without it

    ids = request.devices or devices.present_devices()
    return {str(device): ip for device, ip in devices.device_ips(ids).items()}


def gather_links(request: Request) -> Optional[Dict[str, Dict[str, Any]]]:
    """Device id -> link, net_health, tls; None: the card does not say that clearly."""
    if _nothing_there():
        return None
    from launcher import devices, hccn

    readers: Dict[str, Callable[[str], Any]] = {
        "link": hccn.parse_link,
        "dev_info": _any_up,
        "net_health": hccn.parse_net_health,
        "tls": hccn.parse_tls,
    }
    asked = [(device, name) for device in request.devices for name in readers]
    answers = devices.ask_cards([(device, (f"-{name}", "-g")) for device, name in asked])
    found: Dict[str, Dict[str, Any]] = {str(device): {} for device in request.devices}
    for (device, name), text in zip(asked, answers):
        found[str(device)][name] = None if text is None else readers[name](text)
    for card in found.values():
        ports = card.pop("dev_info")
        card["link"] = ports if card["link"] is None else card["link"]
    return found


def _any_up(dev_info: str) -> Optional[bool]:
    """Whether one of the ports of an Ascend 950 is up; some may be meant to be down."""
    from launcher import hccn

    try:
        return any(port.is_up for port in hccn.parse_dev_info(dev_info))
    except Unreadable:
        return None


def gather_pings(request: Request) -> Optional[Dict[str, bool]]:
    """Device id -> whether the device that it was to ping has answered; without those that could not ask."""
    if _nothing_there() or not request.ping:
        return None
    from launcher import devices, hccn

    asked = [(device, ("-ping", "-g", "address", ip)) for device, ip in request.ping.items()]
    answers = zip(request.ping, devices.ask_cards(asked))
    pings = ((device, hccn.parse_ping(text)) for device, text in answers if text is not None)
    return {str(device): ping.received > 0 for device, ping in pings if ping is not None}


def _nothing_there() -> bool:
    """No trace of a device; npus.py tells that."""
    from launcher import devices

    return not devices.present_devices() and devices.find_tool("hccn_tool") is None


def ring(cluster: Cluster) -> Dict[Place, Place]:
    """Device -> the one that it pings: the same place on the next server, so that each is reached once.

    Devices of one place are in one network; those of different places need not be.
    """
    hosts = [host for host in cluster.hosts if all(device.ip for device in host.devices)]
    peers = {}
    for host, following in zip(hosts, hosts[1:] + hosts[:1]):
        if host is not following:
            for device, other in zip(host.devices, following.devices):
                peers[host.name, device.id] = (following.name, other.id)
    return peers


def judge_ips(view: View) -> Iterator[Finding]:
    for host, reported in view.each("device_ips"):
        known = {int(device): ip for device, ip in reported.items()}
        for device in host.devices:
            if device.ip is not None and known.get(device.id, device.ip) != device.ip:
                yield Finding(
                    host.name,
                    f"has the address {known[device.id]}, but {view.cluster.source} says {device.ip}",
                    "ranks would wait for each other at a wrong address until HCCL gives up (EI0006)",
                    "correct the file, or the card with `hccn_tool -i "
                    f"{device.id} -ip -s address {device.ip} netmask MASK`",
                    device.id,
                )


def judge_links(view: View) -> Iterator[Finding]:
    # on one server of a chip whose rank table needs no addresses, the devices do not talk through these cards
    matters = len(view.cluster.hosts) > 1 or view.cluster.chip.needs_ip
    for host, cards in view.each("links"):
        for device, card in ((int(device), card) for device, card in cards.items()):
            if card.get("link") is False:
                yield Finding(
                    host.name,
                    "the link of its network card is down",
                    "ranks on other servers wait for it until HCCL gives up (EI0006, EJ0002)",
                    "look at cable, optics and switch port; after a forced down: `hccn_tool -i "
                    f"{device} -cfg recovery`",
                    device,
                    matters,
                )
            elif card.get("net_health") not in (None, "Success"):
                yield _net_health(host.name, device, card["net_health"], matters)
    yield from _tls(view, matters)


def _net_health(host: str, device: int, said: str, matters: bool) -> Finding:
    unset = said == "Init"
    return Finding(
        host,
        f"net health of its network card: {said}",
        "it has not looked yet, for want of an address to look at"
        if unset
        else "ranks on other servers may not reach it (EI0006)",
        f"give it one with `hccn_tool -i {device} -netdetect -s address GATEWAY`"
        if unset
        else f"look at the way to what `hccn_tool -i {device} -netdetect -g` names: gateway, VLAN, switch",
        device,
        matters and not unset,
    )


def _tls(view: View, matters: bool) -> Iterator[Finding]:
    states = {
        (host.name, int(device)): card["tls"]
        for host, cards in view.each("links")
        for device, card in cards.items()
        if card.get("tls") is not None
    }
    for (host, device), tls, usual in odd_ones(states):
        yield Finding(
            host,
            f"TLS is {_switch(tls)} on its network card, and {_switch(usual)} on most others",
            "the ranks cannot connect to each other (EI0016, EI0006)",
            f"set it the same everywhere: `hccn_tool -i {device} -tls -s enable {int(usual)}`",
            device,
            matters,
        )


def _switch(on: bool) -> str:
    return "on" if on else "off"


def judge_pings(view: View) -> Iterator[Finding]:
    """Who is silent in both directions is the culprit; one direction alone leaves both ends."""
    peers = ring(view.cluster)
    answered = {
        (host.name, int(device)): answer
        for host, pings in view.each("pings")
        for device, answer in pings.items()
    }
    lost = [(source, peers[source]) for source in peers if answered.get(source) is False]
    ends: List[Place] = [place for pair in lost for place in pair]
    guilty = [place for place in dict.fromkeys(ends) if ends.count(place) > 1]
    for place in guilty:
        others = [a if b == place else b for a, b in lost if place in (a, b)]
        yield _silent(place, f"it and {_names(others)} do not reach each other")
    for source, target in lost:
        if source not in guilty and target not in guilty:
            yield _silent(target, f"it does not answer {_names([source])}, which may as well be the cause")


def _silent(place: Place, what: str) -> Finding:
    return Finding(
        place[0],
        what,
        "their ranks wait for each other until HCCL gives up (EI0006)",
        f"look at link, gateway, VLAN and switch; by hand: `hccn_tool -i {place[1]} -ping -g address IP`",
        place[1],
    )


def _names(places: List[Place]) -> str:
    return " and ".join(f"device {device} of {host}" for host, device in places)


CHECKS = (
    Check("device_ips", gather_ips, judge_ips, quick=False, ascend=True),
    Check("links", gather_links, judge_links, ascend=True),
    Check("pings", gather_pings, judge_pings, quick=False, ascend=True),
)
