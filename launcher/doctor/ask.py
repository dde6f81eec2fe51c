"""Asks all hosts of a cluster at a time, and measures their clocks on the way."""

from __future__ import annotations

import os
import selectors
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Collection, Dict, List, Mapping, Sequence

from launcher.doctor.check import Request, View
from launcher.doctor.links import ring
from launcher.engines import ENGINES
from launcher.engines.link import EXIT_LIMIT_S, FIRST_PINGS, AgentLink
from launcher.errors import PreflightError

if TYPE_CHECKING:
    from launcher.cluster_types import Cluster

LIMIT_S = 9.0  # for all hosts together; what is not told by then is unknown


def requests(cluster: Cluster, folder: str, data: Sequence[str]) -> Dict[str, Request]:
    """What each host is asked, by its name."""
    peers, ips = ring(cluster), {(h.name, d.id): d.ip for h in cluster.hosts for d in h.devices}
    return {
        host.name: Request(
            devices=tuple(d.id for d in host.devices) if cluster.chip.is_ascend else (),
            address=host.address,
            master_port=cluster.master_port,
            ping={d.id: str(ips[peers[host.name, d.id]]) for d in host.devices if (host.name, d.id) in peers},
            folder=folder,
            data=tuple(data),
        )
        for host in cluster.hosts
    }


def ask(cluster: Cluster, asked: Mapping[str, Request], checks: Collection[str]) -> View:
    """What all hosts say to these checks. Of a host that can not be asked, or not in time, `unknown` has why.

    asked: by the hosts' names, see `requests`.
    """
    with tempfile.TemporaryDirectory() as logs:
        return _Round(cluster, asked, checks, Path(logs)).run()


class _Round:
    """One question to all hosts, and what has come back."""

    def __init__(
        self, cluster: Cluster, asked: Mapping[str, Request], checks: Collection[str], logs: Path
    ) -> None:
        self.checks = list(checks)
        self.cluster = cluster
        self.asked = asked
        self.facts: Dict[str, Dict[str, Any]] = {host.name: {} for host in cluster.hosts}
        self.unknown: Dict[str, Dict[str, str]] = {host.name: {} for host in cluster.hosts}
        self.links: List[AgentLink] = []
        for host in cluster.hosts:
            argv = [*ENGINES[cluster.engine].agent_argv(host, cluster), "--examine", "doctor"]
            try:
                link = AgentLink(host.name, argv, logs / host.name, os.environ)
            except PreflightError as error:
                self._nothing_of(host.name, str(error))
            else:
                self.links.append(link)

    def run(self) -> View:
        end = time.monotonic() + LIMIT_S
        with selectors.DefaultSelector() as selector:
            for link in self.links:
                selector.register(link.inbox.fd, selectors.EVENT_READ, link)
                link.ping()
            while selector.get_map() and time.monotonic() < end:
                for key, _ in selector.select(end - time.monotonic()):
                    self._listen(key.data)
                    if key.data.ended or key.data.done:
                        selector.unregister(key.fd)
        for link in self.links:
            link.release()
        end = time.monotonic() + EXIT_LIMIT_S  # for all together
        for link in self.links:
            left_s = max(0.0, end - time.monotonic())
            if not link.done:
                why = link.reason(left_s) if link.ended else f"no answer within {LIMIT_S:g} s"
                self._nothing_of(link.host, f"{why}; {link.by_hand}")
            if link.clock.best is not None and self.facts[link.host]:  # a pong alone tells nothing
                self.facts[link.host]["clock"] = link.clock.best.offset_ns / 1e9
            link.close(max(0.0, end - time.monotonic()))
        return View(self.cluster, self.facts, self.unknown)

    def _listen(self, link: AgentLink) -> None:
        for message in link.read():
            if message.get("event") == "pong":
                link.on_pong(message)
                if message["id"] == FIRST_PINGS:
                    question = self.asked[link.host]._asdict()
                    link.outbox.put({"op": "examine", "checks": self.checks, **question})
            elif message.get("event") == "fact" and "value" in message:
                self.facts[link.host][message["name"]] = message["value"]
            elif message.get("event") == "fact":
                self.unknown[link.host][message["name"]] = message["unknown"]
            elif message.get("event") == "done":
                link.done = True

    def _nothing_of(self, host: str, why: str) -> None:
        """Of what has not been told yet."""
        told = {*self.facts[host], *self.unknown[host]}
        self.unknown[host].update({name: why for name in self.checks if name not in told})
