"""The loop of one attempt: agents' messages in, the policy's decisions out, the journal written."""

from __future__ import annotations

import os
import selectors
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Callable, Dict, Mapping, Optional, Set, Tuple

from launcher import host_health, policy
from launcher.agent.processes import TOKEN
from launcher.device_health import DeviceHealth
from launcher.diagnosis import Failure, report
from launcher.engines import ENGINES
from launcher.engines.link import AgentLink
from launcher.engines.sweep import sweep
from launcher.errors import ExitCode, PreflightError
from launcher.hang_watch import HangWatch
from launcher.policy import Action
from launcher.protocol import LEASE_S, PING_S, SILENCE_S, VERSION

if TYPE_CHECKING:
    from launcher.cluster import Cluster
    from launcher.inject import Injection
    from launcher.plan import Plan, Process
    from launcher.reporter import Reporter
    from launcher.run import Attempt
    from launcher.signals import Signals

STOP_MARGIN_S = 0.3  # for the agent's part of a stop, above the grace; then the lease is taken away
KILL_LIMIT_S = 6.0  # for guard and agent to kill everything; then the way to the host is given up
ERROR_EXIT_S = 0.5  # for a worker that has reported an error to write it to its log and end
VERDICT_WAIT_S = 1.0  # for the evidence of the other ranks before the first failure is named
CUT_OFF_S = LEASE_S + 1.0  # a silent host has killed its processes by then, whatever still reached it
STACKS_WAIT_S = 15.0  # for the stacks of all ranks, before they are stopped without
STATUS_EVERY_S = 1.0

LOOK_THERE = "see whether the host is up and reachable, and what its `dmesg` tells"

STATES = {ExitCode.DONE: "done", ExitCode.STOPPED: "stopped", ExitCode.PREEMPTED: "preempted"}

MakePlan = Callable[[Mapping[str, dict]], "Plan"]


class Supervisor:
    """One attempt of one run, from its agents' start to their end."""

    def __init__(
        self,
        attempt: Attempt,
        cluster: Cluster,
        reporter: Reporter,
        injection: Optional[Injection] = None,
    ) -> None:
        self.attempt = attempt
        self.cluster = cluster
        self.engine = ENGINES[cluster.engine]
        self.reporter = reporter
        self.injection = injection
        self.token = os.urandom(8).hex()
        self.state = policy.State()
        self.links: Dict[str, AgentLink] = {}
        self.processes: Dict[str, Process] = {}
        self.phases: Dict[str, str] = {}  # what each process was last heard to be in
        self._selector = selectors.DefaultSelector()
        self._timers: Dict[str, Tuple[float, Callable[[], None]]] = {}
        self._named: Optional[Failure] = None  # what was said to have failed first
        self._asked: Set[str] = set()  # hosts that are to say when the stacks are taken
        self._stackless: Set[str] = set()  # names of ranks whose stacks are still to come
        self._grace_end: Optional[float] = None  # monotonic
        watched = (cluster.timeouts, self.links, reporter, self._after, self._on_hung)
        self.hangs = HangWatch(*watched)
        self.devices = DeviceHealth(reporter)
        self._warned: Set[Tuple[str, str]] = set()  # host and what is wrong with it

    def supervise(self, planner: Callable[[], MakePlan], signals: Signals) -> ExitCode:
        """Runs the attempt and returns the launcher's exit code if there is no other.

        planner: gives the function that makes the plan out of each host's facts. It is called while agents
        start: its imports take as long as they do. A LaunchError of either means that nothing is started.
        Raises PreflightError where an agent can not be started or does not answer in time.
        """
        self._selector.register(signals.fd, selectors.EVENT_READ, lambda: self._signalled(signals))
        try:
            self._start_agents()
            self._make_plan = planner()
            self._write_status()
            while any(not link.ended for link in self.links.values()):
                self._wait()
        finally:
            self._clean_up()
            self._selector.close()
        self._name_first_failure()
        return policy.outcome(self.state)

    # --- the loop

    def _wait(self) -> None:
        nearest = min((when for when, _ in self._timers.values()), default=None)
        timeout = None if nearest is None else max(0.0, nearest - time.monotonic())
        for key, _ in self._selector.select(timeout):
            if self._selector.get_map().get(key.fd) is key:  # not so where an earlier callback has closed it
                key.data()
        for name, (when, callback) in list(self._timers.items()):
            if time.monotonic() >= when and self._timers.get(name) == (when, callback):
                del self._timers[name]
                callback()
        for link in self.links.values():
            link.outbox.watch(self._selector)

    def _after(self, seconds: float, name: str, callback: Callable[[], None]) -> None:
        """Calls back later; a timer of the same name is replaced."""
        self._timers[name] = (time.monotonic() + seconds, callback)

    def _start_agents(self) -> None:
        environment = {**os.environ, TOKEN: self.token}
        for host in self.cluster.hosts:
            log = self.attempt.folder / f"agent-{host.name}.log"
            link = AgentLink(host.name, self.engine.agent_argv(host, self.cluster), log, environment)
            self.links[host.name] = link
            self._selector.register(link.inbox.fd, selectors.EVENT_READ, lambda link=link: self._listen(link))
        self._after(self.cluster.timeouts.start_s, "hello", self._no_hello)
        self._after(PING_S, "ping", self._ping_all)

    def _ping_all(self) -> None:
        for link in self.links.values():
            if link.facts is None or link.ended or link.gave_up:
                continue
            if self.engine.is_remote and link.is_silent:
                self._cut_off(link)
            else:
                link.ping()
        self._after(PING_S, "ping", self._ping_all)

    def _listen(self, link: AgentLink) -> None:
        for message in link.read():
            getattr(self, f"_on_{message.get('event')}", self._on_unknown)(link, message)
        if link.ended:
            self._selector.unregister(link.inbox.fd)
            self._release(link)
            if not (link.done or link.gave_up):
                heard_ns = link.heard_ns  # before the wait for its exit code
                reason = f"{link.reason()}; {LOOK_THERE if link.facts else link.by_hand}"
                self._lost(link, reason, heard_ns)

    def _signalled(self, signals: Signals) -> None:
        for number in signals.read():
            self._decide(policy.Signalled(number))

    # --- what agents say

    def _on_unknown(self, link: AgentLink, message: dict) -> None:
        link.inbox.noise.append(str(message))  # a banner that happens to be JSON

    def _on_hello(self, link: AgentLink, message: dict) -> None:
        if message["protocol"] != VERSION:
            raise PreflightError(
                f"host {link.host}: its fcn-launch speaks protocol {message['protocol']}, this one {VERSION};"
                " install the same version on both",
                link.host,
            )
        link.facts = message["facts"]
        link.ping()
        facts = {name: other.facts for name, other in self.links.items() if other.facts is not None}
        if len(facts) == len(self.links) and self.state.ending is None:
            self._timers.pop("hello", None)
            self._start_processes(self._make_plan(facts))

    def _on_abandoned(self, link: AgentLink, message: dict) -> None:
        pids = ", ".join(map(str, message["pids"]))
        self.reporter.warn(f"host {link.host}: ended what an earlier run had left there: processes {pids}")

    def _on_pong(self, link: AgentLink, message: dict) -> None:
        if not self.state.failures:  # these are compared by one and the same idea of the clocks
            link.on_pong(message)
        if "devices" in message:
            self.devices.heard(link.host, message["devices"], self.processes.values())
        if "health" in message and link.clock.best is not None:
            health = {**message["health"], "clock_offset_s": round(link.clock.best.offset_ns / 1e9, 6)}
            self.reporter.emit("health", host=link.host, **health, **self.devices.figures(link.host))
            for what, text in host_health.warnings(link.host, health).items():
                if (link.host, what) not in self._warned:
                    self._warned.add((link.host, what))
                    self.reporter.warn(text)

    def _start_processes(self, plan: Plan) -> None:
        self.processes = {process.name: process for process in plan.processes}
        if self.injection is not None:
            self._taken_port = self.injection.take_port(plan)  # held for as long as this object lives
        ranks = frozenset(process.name for process in plan.processes if process.rank is not None)
        self._decide(policy.Started(ranks, frozenset(self.processes) - ranks))
        for host, link in self.links.items():
            message: Dict[str, Any] = {
                "op": "start",
                "processes": [
                    {"name": p.name, "rank": p.rank, "argv": list(p.argv), "env": dict(p.env), "log": p.log}
                    for p in plan.processes
                    if p.host == host
                ],
                "log_dir": str(self.attempt.folder),
                "cwd": str(self.attempt.folder.parent),  # the run directory: every host has it
                "token": self.token,
            }
            link.outbox.put(message)

    def _on_started(self, link: AgentLink, message: dict) -> None:
        process = self.processes[message["name"]]
        self.reporter.emit(
            "started",
            name=process.name,
            rank=process.rank,
            host=link.host,
            device=process.device_id,
            pid=message["pid"],
        )
        self.hangs.started(process, time.time_ns())

    def _on_status(self, link: AgentLink, message: dict) -> None:
        data, rank = message["data"], message["rank"]
        if self.injection is not None:
            self.injection.heard(rank, data)
        self.hangs.heard(message["name"], data, message["time_ns"])
        if data.get("event") == "phase":
            self.phases[message["name"]] = data.get("phase")
        if self.reporter.worker(message, link.host) and data["event"] == "error":
            what = f"{data['type']}: {data['message']}"
            traceback = tuple(str(data.get("traceback", "")).splitlines())
            time_ns, error_ns = link.clock.correct(message["time_ns"])
            name = message["name"]
            self._decide(policy.Raised(name, rank, link.host, time_ns, what, traceback, error_ns))

    def _on_exit(self, link: AgentLink, message: dict) -> None:
        self.hangs.ended(message["name"])
        keys = ("name", "rank", "code", "signal", "stopped", "out_of_memory")
        fields = {key: message[key] for key in keys}
        time_ns, error_ns = link.clock.correct(message["time_ns"])
        self.reporter.emit("exit", host=link.host, exit_ns=time_ns, **fields)
        self._decide(
            policy.Exited(
                host=link.host,
                time_ns=time_ns,
                error_ns=error_ns,
                tail=tuple(message["tail"]),
                unfinished=self.phases.get(message["name"], "done") != "done",
                **fields,
            )
        )

    def _on_probe(self, link: AgentLink, message: dict) -> None:
        self.hangs.seen(link.host, message["processes"])

    def _on_hung(self, hung: policy.Hung) -> None:
        clock = self.links[hung.host].clock if hung.host else None
        time_ns = clock.correct(hung.time_ns).time_ns if clock else hung.time_ns
        self._decide(replace(hung, time_ns=time_ns))

    def _on_stacks(self, link: AgentLink, message: dict) -> None:
        self._asked.discard(link.host)
        self._stackless -= set(message["taken"])
        if not self._asked:
            self._stacks_taken()

    def _stacks_taken(self) -> None:
        self._decide(policy.StacksTaken(tuple(sorted(self._stackless))))

    def _on_failed(self, link: AgentLink, message: dict) -> None:
        self._lost(link, message["message"])

    def _on_done(self, link: AgentLink, message: dict) -> None:
        link.done = True
        if message["left"]:
            left = ", ".join(map(str, message["left"]))
            self.reporter.warn(
                f"host {link.host}: processes {left} do not end: blocked in the kernel, by a disk or a"
                " driver; they keep their devices until that answers, or the host is started anew"
            )

    def _lost(self, link: AgentLink, reason: str, time_ns: Optional[int] = None) -> None:
        names = frozenset(name for name, process in self.processes.items() if process.host == link.host)
        self._decide(policy.AgentLost(link.host, time_ns or time.time_ns(), reason, names))

    def _cut_off(self, link: AgentLink) -> None:
        """Gives up a silent host. Its lease ends by time; the attempt does not end before it has.

        It failed when it was last heard: what others then said of it is not to come first.
        """
        link.gave_up = True
        self._release(link)  # should it hear us again, it ends at once
        self._after(CUT_OFF_S, f"lease of {link.host}", lambda: self._close_way(link))
        reason = f"nothing was heard from it for {SILENCE_S:g} s: the host or the way to it is down"
        self._lost(link, f"{reason}; {LOOK_THERE}", link.heard_ns)

    # --- decisions

    def _decide(self, event: policy.Event) -> None:
        self.state, decisions = policy.decide(self.state, event)
        if self.state.ending is not None:
            self.hangs.close()
        for decision in decisions:
            self.reporter.emit("decision", action=decision.action.value, reason=decision.reason)
            self._act(decision.action)
        known = self.state.failures and not self.state.dumping  # or it could not say where the stacks are
        if known and self._named is None and "verdict" not in self._timers:
            self._after(VERDICT_WAIT_S, "verdict", self._name_first_failure)

    def _act(self, action: Action) -> None:
        if action is Action.STOP:
            grace_s = self._grace_left_s()
            self._tell_all({"op": "stop", "grace_s": grace_s})
            self._after(grace_s + STOP_MARGIN_S, "end", lambda: self._decide(policy.TimeOver()))
        elif action is Action.PREEMPT:
            self._tell_all({"op": "signal", "rank": None, "signal": int(policy.SAVE_AND_LEAVE)})
            self._after(self._grace_left_s(), "end", lambda: self._decide(policy.TimeOver()))
        elif action is Action.STACKS:
            self._asked = {host for host, link in self.links.items() if not link.ended}
            self._stackless = set(self.state.ranks)
            self._tell_all({"op": "stacks", "first": self.state.failures[-1].name})
            self._after(STACKS_WAIT_S, "end", self._stacks_taken)
        elif action is Action.WAIT:
            self._after(ERROR_EXIT_S, "end", lambda: self._decide(policy.TimeOver()))
        else:
            for link in self.links.values():
                if link.facts is None:  # on its way, perhaps for ever, and nothing runs there
                    link.process.kill()
            self._tell_all({"op": "stop", "grace_s": 0})
            self._after(STOP_MARGIN_S, "end", self._release_all)

    def _grace_left_s(self) -> float:
        """Of the one grace period, which begins when this is asked first: a preemption may become a stop."""
        if self._grace_end is None:
            self._grace_end = time.monotonic() + self.cluster.timeouts.grace_s
        return max(0.0, self._grace_end - time.monotonic())

    def _tell_all(self, message: dict) -> None:
        for link in self.links.values():
            link.outbox.put(message)

    def _release_all(self) -> None:
        for link in self.links.values():
            self._release(link)
        self._after(KILL_LIMIT_S, "end", self._give_up)

    def _release(self, link: AgentLink) -> None:
        link.outbox.broken = True
        link.outbox.watch(self._selector)
        link.release()

    def _give_up(self) -> None:
        for link in self.links.values():
            if not (link.ended or link.gave_up):
                self.reporter.warn(
                    f"host {link.host}: its agent does not end; the way to it is closed, and that ends it"
                    " as soon as it goes on"
                )
                self._close_way(link)

    def _close_way(self, link: AgentLink) -> None:
        if not link.ended:
            self._selector.unregister(link.inbox.fd)
            link.inbox.eof = True

    def _no_hello(self) -> None:
        if self.state.ending is not None:
            return  # on its way out for another reason
        silent = [link for link in self.links.values() if link.facts is None]
        raise PreflightError(
            "\n".join(
                f"host {link.host}: its agent did not answer within {self.cluster.timeouts.start_s:g} s"
                f" ({link.said() or 'it said nothing'}); {link.by_hand}"
                for link in silent
            ),
            silent[0].host,
        )

    def _clean_up(self) -> None:
        """Ends the agents, and what outlived its guard on the hosts that did not say they are clean."""
        for link in self.links.values():
            link.close()
        unclear = [host for host in self.cluster.hosts if self._may_hold_leftovers(host.name)]
        for host, why in sweep(self.engine, unclear, self.cluster, self.token).items():
            self.reporter.warn(
                f"host {host}: could not be searched for leftovers: {why}; look there for"
                f" processes with {TOKEN}={self.token} in their environment"
            )

    def _may_hold_leftovers(self, host: str) -> bool:
        link = self.links.get(host)
        return link is not None and link.facts is not None and not (link.done or link.gave_up)

    # --- what others see

    def _name_first_failure(self) -> None:
        first = policy.verdict(self.state)
        if first is None or first == self._named:
            return
        self._named = first
        process = self.processes.get(first.name)
        log = None if process is None else str(self.attempt.folder / process.log)
        device = None if process is None else process.device_id
        self.reporter.emit("verdict", **report(self.state.failures, first, device, log))

    def _write_status(self) -> None:
        self.reporter.write_status()
        self._after(STATUS_EVERY_S, "status", self._write_status)
