"""The agents of an attempt's hosts: started, heard, kept alive, given up, ended."""

from __future__ import annotations

import os
import time
from functools import partial
from typing import TYPE_CHECKING, Callable, Dict, Iterable, List, Optional, Set

from launcher import open_files
from launcher.agent.processes import TOKEN
from launcher.engines import ENGINES
from launcher.engines.link import EXIT_LIMIT_S, AgentLink
from launcher.engines.sweep import sweep
from launcher.errors import PreflightError
from launcher.protocol import LEASE_S, PING_S, SILENCE_S

if TYPE_CHECKING:
    from pathlib import Path

    from launcher.cluster_types import Cluster
    from launcher.loop import Loop

KILL_LIMIT_S = 6.0  # for guard and agent to kill everything; then the way to the host is given up
CUT_OFF_S = LEASE_S + 1.0  # a silent host has killed its processes by then, whatever still reached it
EXIT_CHECK_S = 0.02
FILES = 2  # that are open here for each host: the two ends of its agent's stdin and stdout

LOOK_THERE = "see whether the host is up and reachable, and what its `dmesg` tells"

OnMessage = Callable[[AgentLink, dict], None]
OnLost = Callable[[AgentLink, str, int], None]


class Hosts:
    """What the supervisor has of its hosts: a link to the agent of each, by name."""

    def __init__(
        self,
        cluster: Cluster,
        folder: Path,
        loop: Loop,
        on_message: OnMessage,
        on_lost: OnLost,
        warn: Callable[[str], None],
    ) -> None:
        """folder: of the attempt, which every host must have.

        on_lost: takes the link, why, and when it was last heard, nanoseconds.
        """
        self.cluster = cluster
        self.engine = ENGINES[cluster.engine]
        self.token = os.urandom(8).hex()
        self.links: Dict[str, AgentLink] = {}
        self._awaited: Set[str] = set()  # hosts whose agent has not ended, or why it has is not known yet
        self._silent: Set[str] = set()  # local ones whose agent was said not to answer
        self._folder, self._loop = folder, loop
        self._on_message, self._on_lost, self._warn = on_message, on_lost, warn

    def start(self) -> None:
        """Starts every host's agent. Raises PreflightError where one can not be started."""
        try:
            open_files.allow(FILES * len(self.cluster.hosts))
        except OSError as error:
            raise PreflightError(f"{len(self.cluster.hosts)} hosts: {error.strerror}") from None
        environment = {**os.environ, TOKEN: self.token}
        for host in self.cluster.hosts:
            log = self._folder / f"agent-{host.name}.log"
            link = AgentLink(host.name, self.engine.agent_argv(host, self.cluster), log, environment)
            self.links[host.name] = link
            self._awaited.add(host.name)
            self._loop.listen(link.inbox.fd, partial(self._listen, link))
            link.outbox.put({"op": "find", "folder": str(self._folder)})  # it is read when it is up
        self._loop.after(PING_S, "ping", self._ping)

    @property
    def have_ended(self) -> bool:
        return not self._awaited

    def facts(self) -> Optional[Dict[str, dict]]:
        """What every host has said of itself; None as long as one is not ready."""
        facts = {name: link.facts for name, link in self.links.items() if link.facts is not None}
        return facts if not self.unready() else None

    def unready(self) -> List[AgentLink]:
        """Those that have not said what there is to know before the plan is made."""
        return [link for link in self.links.values() if link.facts is None or not link.has_folder]

    def tell(self, message: dict) -> None:
        """Tells all agents."""
        for link in self.links.values():
            link.outbox.put(message)

    def flush(self) -> None:
        """Has the loop send what could not be sent at once."""
        for link in self.links.values():
            link.outbox.watch(self._loop.selector)

    def kill_unheard(self) -> None:
        """Ends those that are on their way, perhaps for ever."""
        for link in self.links.values():
            link.kill_unheard()

    # --- alive or not

    def _ping(self) -> None:
        for link in self.links.values():
            if link.facts is None or link.released:
                continue
            if self.engine.is_remote and link.is_silent:
                self._cut_off(link)
                continue
            if link.is_silent and link.host not in self._silent:
                self._silent.add(link.host)
                self._warn_of_silent(link)
            link.ping()
        self._loop.after(PING_S, "ping", self._ping)

    def _listen(self, link: AgentLink) -> None:
        for message in link.read():
            self._on_message(link, message)
        if link.ended:
            self._loop.forget(link.inbox.fd)
            self._release(link)
            self._await_exit(link, link.heard_ns, self._loop.now() + EXIT_LIMIT_S)

    def _await_exit(self, link: AgentLink, heard_ns: int, end_s: float) -> None:
        """Until the process behind an output that has ended has ended too, as it tells why; or a while."""
        if link.process.poll() is None and self._loop.now() < end_s:
            again = partial(self._await_exit, link, heard_ns, end_s)
            self._loop.after(EXIT_CHECK_S, f"exit of {link.host}", again)
            return
        self._awaited.discard(link.host)
        if not (link.done or link.gave_up):
            reason = f"{link.reason(0)}; {LOOK_THERE if link.facts else link.by_hand}"
            self._on_lost(link, reason, heard_ns)

    def _warn_of_silent(self, link: AgentLink) -> None:
        self._warn(
            f"host {link.host}: its agent has not answered for {SILENCE_S:g} s: it was stopped, or a disk"
            " holds it up; until it goes on nothing is known of its ranks;"
            f" `kill -CONT -{link.process.pid}` wakes one that was stopped, Ctrl-C ends the run"
        )

    def _cut_off(self, link: AgentLink) -> None:
        """Gives up a silent host. Its lease ends by time; the attempt does not end before it has.

        It failed when it was last heard: what others then said of it is not to come first.
        """
        link.gave_up = True
        self._release(link)  # should it hear us again, it ends at once
        self._loop.after(CUT_OFF_S, f"lease of {link.host}", partial(self._close_way, link))
        reason = f"nothing was heard from it for {SILENCE_S:g} s: the host or the way to it is down"
        self._on_lost(link, f"{reason}; {LOOK_THERE}", link.heard_ns)

    # --- the end

    def release(self) -> None:
        """Takes the lease from all; those that do not end are given up in time."""
        for link in self.links.values():
            self._release(link)
        limit_s = CUT_OFF_S if self.engine.is_remote else KILL_LIMIT_S
        self._loop.after(limit_s, "give up", self._give_up)

    def _release(self, link: AgentLink) -> None:
        link.outbox.broken = True
        link.outbox.watch(self._loop.selector)
        link.release()

    def _give_up(self) -> None:
        for link in self.links.values():
            if link.host not in self._awaited or link.gave_up:
                continue
            if self.engine.is_remote:
                link.gave_up = True
                self._warn(
                    f"host {link.host}: nothing was heard from it during the stop; {LOOK_THERE}; what ran"
                    " there ends by itself, as it hears nothing either"
                )
            else:
                self._warn(
                    f"host {link.host}: its agent does not end; the way to it is closed, and that ends it"
                    " as soon as it goes on"
                )
            self._close_way(link)

    def _close_way(self, link: AgentLink) -> None:
        if not link.ended:
            self._loop.forget(link.inbox.fd)
            link.inbox.eof = True
        self._awaited.discard(link.host)

    def close(self) -> None:
        """Ends the agents, and what outlived its guard on the hosts that did not say they are clean."""
        for link in self.links.values():
            link.release()
            link.kill_unheard()
        end = time.monotonic() + EXIT_LIMIT_S  # for all together
        for link in self.links.values():
            link.close(max(0.0, end - time.monotonic()))
        unclear = [host for host in self.cluster.hosts if self._may_hold_leftovers(host.name)]
        failed = sweep(self.engine, unclear, self.cluster, self.token)
        for host, why in failed.items():
            self._warn(
                f"host {host}: could not be searched for leftovers: {why}; look there for"
                f" processes with {TOKEN}={self.token} in their environment"
            )

        self._await_leases(failed)

    def _await_leases(self, hosts: Iterable[str]) -> None:
        """Until the leases of these hosts are over: an agent that may live must not meet the next attempt."""
        if self.engine.is_remote:
            end = max((self.links[host].released_s + CUT_OFF_S for host in hosts), default=0.0)
            time.sleep(max(0.0, end - time.monotonic()))

    def _may_hold_leftovers(self, host: str) -> bool:
        link = self.links.get(host)
        return link is not None and link.may_run and not (link.done or link.gave_up)
