"""The loop of one attempt: agents' messages in, the policy's decisions out, the journal written."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any, Callable, Dict, Mapping, Optional, Set, Tuple

from launcher import host_health, policy
from launcher.background import within
from launcher.device_health import DeviceHealth
from launcher.diagnosis import Failure, ended_by, report
from launcher.errors import ExitCode, LaunchError, PreflightError
from launcher.hang_watch import HangWatch
from launcher.hosts import Hosts
from launcher.loop import Loop
from launcher.policy import Action
from launcher.protocol import VERSION

if TYPE_CHECKING:
    from launcher.catalogue import Signature
    from launcher.cluster_types import Cluster
    from launcher.engines.link import AgentLink
    from launcher.inject import Injection
    from launcher.plan_types import Plan, Process
    from launcher.reporter import Reporter
    from launcher.run import Attempt
    from launcher.signals import Signals

STOP_MARGIN_S = 0.3  # for the agent's part of a stop, above the grace; then the lease is taken away
ERROR_EXIT_S = 0.5  # for a worker that has reported an error to write it to its log and end
VERDICT_WAIT_S = 1.0  # for the evidence of the other ranks before the first failure is named
VERDICT_LIMIT_S = 10.0  # for the logs that say more of it; then it is told without
STACKS_WAIT_S = 15.0  # for the stacks of all ranks, before they are stopped without
STATUS_EVERY_S = 1.0

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
        self.reporter = reporter
        self.injection = injection
        self.state = policy.State()
        self.processes: Dict[str, Process] = {}
        self.phases: Dict[str, str] = {}  # what each process was last heard to be in
        self.loop = Loop()
        self._make_plan: Optional[MakePlan] = None
        self.hosts = Hosts(cluster, attempt.folder, self.loop, self._heard, self._lost, reporter.warn)
        self._named: Optional[Failure] = None  # what was said to have failed first
        self._is_asking = False  # what is known of who failed first, in a thread
        self._asked: Set[str] = set()  # hosts that are to say when the stacks are taken
        self._stackless: Set[str] = set()  # names of ranks whose stacks are still to come
        self._grace_end: Optional[float] = None  # of the loop's time
        self.hangs = HangWatch(cluster.timeouts, self.hosts.links, reporter, self.loop, self._on_hung)
        self.devices = DeviceHealth(reporter)
        self._warned: Set[Tuple[str, str]] = set()  # host and what is wrong with it
        self._listeners: Dict[str, Callable[[AgentLink, dict], None]] = {
            "hello": self._on_hello,
            "found": self._on_found,
            "abandoned": self._on_abandoned,
            "pong": self._on_pong,
            "started": self._on_started,
            "status": self._on_status,
            "exit": self._on_exit,
            "probe": self._on_probe,
            "stacks": self._on_stacks,
            "failed": self._on_failed,
            "done": self._on_done,
        }

    def supervise(self, planner: Callable[[], MakePlan], signals: Signals) -> ExitCode:
        """Runs the attempt and returns the launcher's exit code if there is no other.

        planner: gives the function that makes the plan out of each host's facts. Both are called in threads,
        which may wait for a disk; the first while agents start: its imports take as long as they do. A
        LaunchError of either means that nothing is started.
        Raises PreflightError where an agent can not be started or does not answer in time.
        """
        self.loop.listen(signals.fd, lambda: self._signalled(signals))
        try:
            self.loop.in_thread(planner, self._on_planner)  # first: it takes longer than the agents
            self.hosts.start()
            self.loop.after(self.cluster.timeouts.start_s, "hello", self._no_hello)
            self._write_status()
            while not self.hosts.have_ended:
                self._wait()
                self.hosts.flush()
        finally:
            self.hosts.close()
            self.loop.close()
        first = policy.verdict(self.state)
        if first is not None and first != self._named:
            asked = within(VERDICT_LIMIT_S, lambda: self._verdict(first), None)
            self._tell_verdict(first, asked or self._report(first))
        return policy.outcome(self.state)

    def _wait(self) -> None:
        try:
            self.loop.wait()
        except LaunchError:
            if self.state.ending is None:
                raise
            # nothing is started any more, so that nothing is refused: the first reason stands

    def _signalled(self, signals: Signals) -> None:
        for number in signals.read():
            self._decide(policy.Signalled(number))

    # --- what agents say

    def _heard(self, link: AgentLink, message: dict) -> None:
        listener = self._listeners.get(str(message.get("event")))
        if listener is None:
            link.inbox.noise.append(str(message))  # a banner that happens to be JSON
        else:
            listener(link, message)

    def _on_hello(self, link: AgentLink, message: dict) -> None:
        if message["protocol"] != VERSION:
            raise PreflightError(
                f"host {link.host}: its fcn-launch speaks protocol {message['protocol']}, this one {VERSION};"
                " install the same version on both",
                link.host,
            )
        link.facts = message["facts"]
        link.ping()
        self._plan()

    def _on_found(self, link: AgentLink, message: dict) -> None:
        if not message["is_there"]:
            raise PreflightError(
                f"host {link.host}: has no folder {message['folder']}: the run directory must be on a file"
                " system that all hosts have at the same path; name one with `fcn-launch --runs DIR`",
                link.host,
            )
        link.has_folder = True
        self._plan()

    def _on_planner(self, make_plan: MakePlan) -> None:
        self._make_plan = make_plan
        self._plan()

    def _plan(self) -> None:
        """As soon as all hosts have said what they are, and there is a planner."""
        facts, make_plan = self.hosts.facts(), self._make_plan
        if facts is None or make_plan is None or self.state.ending is not None:
            return
        self._make_plan = None  # one plan is enough
        self.loop.cancel("hello")
        self.loop.in_thread(lambda: make_plan(facts), self._start_processes)

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
        if self.state.ending is not None:
            return
        self.reporter.emit("plan", **_summary(plan))
        self.processes = {process.name: process for process in plan.processes}
        if self.injection is not None:
            self._taken_port = self.injection.take_port(plan)  # held for as long as this object lives
        ranks = frozenset(process.name for process in plan.processes if process.rank is not None)
        self._decide(policy.Started(ranks, frozenset(self.processes) - ranks))
        for host, link in self.hosts.links.items():
            message: Dict[str, Any] = {
                "op": "start",
                "processes": [
                    {key: getattr(p, key) for key in ("name", "rank", "argv", "env", "log", "cpus")}
                    for p in plan.processes
                    if p.host == host
                ],
                "log_dir": str(self.attempt.folder),
                "cwd": str(self.attempt.folder.parent),  # the run directory: every host has it
                "token": self.hosts.token,
            }
            link.may_run = True
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
        exited = policy.Exited(
            host=link.host,
            time_ns=time_ns,
            error_ns=error_ns,
            tail=tuple(message["tail"]),
            phase=self.phases.get(message["name"]),
            **fields,
        )
        if exited.had_done_all and not exited.stopped:
            what = ended_by(exited.code, exited.signal, exited.out_of_memory)[1]
            self.reporter.warn(f"{exited.name}: {what}, with its work done and saved: nothing is lost")
        self._decide(exited)

    def _on_probe(self, link: AgentLink, message: dict) -> None:
        self.hangs.seen(link.host, message["processes"])

    def _on_hung(self, hung: policy.Hung) -> None:
        clock = self.hosts.links[hung.host].clock if hung.host else None
        time_ns = clock.correct(hung.time_ns).time_ns if clock else hung.time_ns
        self._decide(hung._replace(time_ns=time_ns))

    def _on_stacks(self, link: AgentLink, message: dict) -> None:
        self._asked.discard(link.host)
        self._stackless -= set(message["taken"])
        if not self._asked:
            self._stacks_taken()

    def _stacks_taken(self) -> None:
        self._decide(policy.StacksTaken(tuple(sorted(self._stackless))))

    def _on_failed(self, link: AgentLink, message: dict) -> None:
        self._lost(link, message["message"], time.time_ns())

    def _on_done(self, link: AgentLink, message: dict) -> None:
        link.done = True
        if message["left"]:
            left = ", ".join(map(str, message["left"]))
            self.reporter.warn(
                f"host {link.host}: processes {left} do not end: blocked in the kernel, by a disk or a"
                " driver; they keep their devices until that answers, or the host is started anew"
            )

    def _lost(self, link: AgentLink, reason: str, time_ns: int) -> None:
        names = frozenset(name for name, process in self.processes.items() if process.host == link.host)
        self._decide(policy.AgentLost(link.host, time_ns, reason, names))
        if link.gave_up and (self._named or policy.verdict(self.state) is None):  # no verdict will tell it
            self.reporter.warn(f"host {link.host}: {reason}")

    # --- decisions

    def _decide(self, event: policy.Event) -> None:
        self.state, decisions = policy.decide(self.state, event)
        if self.state.ending is not None:
            self.hangs.close()
        for decision in decisions:
            self.reporter.emit("decision", action=decision.action.value, reason=decision.reason)
            self._act(decision.action)
        known = self.state.failures and not self.state.dumping  # or it could not say where the stacks are
        if known and self._named is None and not self._is_asking and not self.loop.is_due("verdict"):
            self.loop.after(VERDICT_WAIT_S, "verdict", self._name_first_failure)

    def _act(self, action: Action) -> None:
        if action is Action.STOP:
            grace_s = self._grace_left_s()
            self.hosts.tell({"op": "stop", "grace_s": grace_s})
            self.loop.after(grace_s + STOP_MARGIN_S, "end", lambda: self._decide(policy.TimeOver()))
        elif action is Action.PREEMPT:
            self.hosts.tell({"op": "signal", "rank": None, "signal": int(policy.SAVE_AND_LEAVE)})
            self.loop.after(self._grace_left_s(), "end", lambda: self._decide(policy.TimeOver()))
        elif action is Action.STACKS:
            self._asked = {host for host, link in self.hosts.links.items() if not link.ended}
            self._stackless = set(self.state.ranks)
            self.hosts.tell({"op": "stacks", "first": self.state.failures[-1].name})
            self.loop.after(STACKS_WAIT_S, "end", self._stacks_taken)
        elif action is Action.WAIT:
            self.loop.after(ERROR_EXIT_S, "end", lambda: self._decide(policy.TimeOver()))
        else:
            self.hosts.kill_unheard()
            self.hosts.tell({"op": "stop", "grace_s": 0})
            self.loop.after(STOP_MARGIN_S, "end", self.hosts.release)

    def _grace_left_s(self) -> float:
        """Of the one grace period, which begins when this is asked first: a preemption may become a stop."""
        if self._grace_end is None:
            self._grace_end = self.loop.now() + self.cluster.timeouts.grace_s
        return max(0.0, self._grace_end - self.loop.now())

    def _no_hello(self) -> None:
        if self.state.ending is not None:
            return  # on its way out for another reason
        silent = self.hosts.unready()
        raise PreflightError(
            "\n".join(
                f"host {link.host}: its agent did not answer within {self.cluster.timeouts.start_s:g} s"
                f" ({link.said() or 'it said nothing'}); {link.by_hand}"
                for link in silent
            ),
            silent[0].host,
        )

    # --- what others see

    def _name_first_failure(self) -> None:
        first = policy.verdict(self.state)
        if first is not None and first != self._named:
            self._is_asking = True
            self.loop.in_thread(lambda: self._verdict(first), partial(self._asked_verdict, first))

    def _asked_verdict(self, first: Failure, fields: Mapping[str, Any]) -> None:
        self._is_asking = False
        if first == policy.verdict(self.state):
            self._tell_verdict(first, fields)
        else:  # another was seen meanwhile to have come before it
            self._name_first_failure()

    def _verdict(self, first: Failure) -> Mapping[str, Any]:
        """The fields of the verdict; reads logs, which may take long."""
        from launcher.known import known_error  # its imports are not for a start

        return self._report(first, known_error(first, self.attempt.folder))

    def _report(self, first: Failure, known: Optional[Signature] = None) -> Mapping[str, Any]:
        process = self.processes.get(first.name)
        log = None if process is None else str(self.attempt.folder / process.log)
        device = None if process is None else process.device_id
        return report(self.state.failures, first, device, log, known)

    def _tell_verdict(self, first: Failure, fields: Mapping[str, Any]) -> None:
        self._named = first
        self.reporter.emit("verdict", **fields)

    def _write_status(self) -> None:
        self.reporter.write_status()
        self.loop.after(STATUS_EVERY_S, "status", self._write_status)


def _summary(plan: Plan) -> Dict[str, Any]:
    master = f"{plan.master_address}:{plan.master_port}" if plan.master_address else None
    return {
        "world_size": plan.world_size,
        "hosts": list(dict.fromkeys(process.host for process in plan.processes)),
        "rendezvous": plan.rendezvous,
        "master": master,
        "notes": list(plan.notes),
    }
