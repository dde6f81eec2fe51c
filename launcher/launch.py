"""One launch from plan to exit code: what `train` and `eval` do once they know what to run.

A launch is one attempt, and others where retry.py says so.
"""

from __future__ import annotations

import signal
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, List, Mapping, Optional, Tuple, Union

from launcher import policy, retry
from launcher.errors import ExitCode, LaunchError, PreflightError
from launcher.evidence import Sign
from launcher.reporter import Reporter
from launcher.retry import NO_RESTARTS, End, History, Limits, Outcome, Retry
from launcher.run_lock import owned
from launcher.selection import Place, Shortage, difference, reserve_notes, select
from launcher.signals import Signals
from launcher.supervisor import STATES, MakePlan, Supervisor

if TYPE_CHECKING:
    from launcher.cluster_types import Cluster
    from launcher.console import Console
    from launcher.inject import Injection
    from launcher.plan_types import Plan
    from launcher.run import Attempt, Run

SAVED = "every rank has saved and left"
NOT_SAVED = "not saved: the next start goes on from the newest checkpoint, or begins anew where there is none"


def launch(
    run: Run,
    cluster: Cluster,
    command: Tuple[str, ...],
    verb: str,
    console: Console,
    injection: Optional[Injection] = None,
    limits: Limits = NO_RESTARTS,
    global_batch: Optional[int] = None,
) -> ExitCode:
    """Runs `command` on every device of the cluster but the spares, and supervises it.

    What its journal tells of earlier launchers counts: the steps that were made, and who is excluded.

    command: argv of a worker after the interpreter. injection: a failure to be made on purpose.
    limits: of the restarts after a failure of the infrastructure or a hang. global_batch: samples of a step,
    which the devices of every attempt must be able to share evenly.
    Raises UserError where another launcher works on the run, LaunchError where nothing was started; the run
    directory then says so too. SIGINT, SIGTERM, SIGHUP and SIGUSR2 are answered while it runs. Closes the
    console.
    """
    try:
        with owned(run.path), closing(Reporter(run, console)) as reporter:
            whole = (run, cluster, command, verb, reporter, injection, limits, global_batch)
            return _Launch(*whole).run_attempts()
    finally:
        console.close()


@dataclass
class _Launch:
    """The attempts of a run, one after the other."""

    run: Run
    cluster: Cluster  # all of it: also what is in reserve or excluded
    command: Tuple[str, ...]
    verb: str
    reporter: Reporter
    injection: Optional[Injection]
    limits: Limits
    global_batch: Optional[int]
    history: History = History()
    ports: List[int] = field(default_factory=list)  # at which the ranks of earlier attempts met
    farewell: str = ""  # what a preempted attempt has kept

    def run_attempts(self) -> ExitCode:
        from random import random

        self.history = retry.history_of(self.run.events()).for_new_launcher()
        used = self._first_choice()
        with Signals() as signals:
            while True:
                try:
                    attempt = self.run.new_attempt()
                except LaunchError as error:
                    if self.history.attempts == 0:
                        raise
                    return self._end(End(ExitCode.INFRASTRUCTURE, str(error)))
                try:
                    outcome = self._attempt(attempt, used, signals)
                except LaunchError:
                    raise
                except Exception as error:
                    return self._broken(error)
                self._record("outcome", **outcome.fields())
                shortage = self._exclude_suspect()
                decision = retry.decide(self.limits, self.history, random(), shortage)
                following = decision if isinstance(decision, End) else self._wait(decision, used, signals)
                if isinstance(following, End):
                    return self._end(following)
                used = following

    def _record(self, event: str, **fields: Any) -> None:
        self.history = retry.fold(self.history, self.reporter.emit(event, **fields))

    def _first_choice(self) -> Cluster:
        """The devices to begin with: not those that an earlier launcher of this run has excluded."""
        full, excluded = select(self.cluster), ", ".join(sorted(map(str, self.history.excluded)))
        try:
            used = select(self.cluster, self.history.excluded, self.global_batch)
        except Shortage as shortage:  # perhaps they have been repaired
            self.reporter.warn(f"{excluded} failed before, and is used again; without it {shortage}")
            self.history = replace(self.history, excluded=frozenset())
            return full
        if used != full:
            self.reporter.warn(f"{excluded} is left out, as before: {difference(full, used)}")
        return used

    def _exclude_suspect(self) -> str:
        """Leaves out who failed first again and again, where the job can do without; else says why not."""
        suspect = self.history.suspect
        if suspect is None:
            return ""
        try:
            select(self.cluster, self.history.excluded | {suspect}, self.global_batch)
        except Shortage as shortage:
            return str(shortage)
        self._record("exclude", **suspect._asdict(), who=str(suspect), reason=self.history.charge)
        return ""

    @property
    def _restarts_left(self) -> int:
        return max(0, self.limits.max_restarts - self.history.spent)

    def _attempt(self, attempt: Attempt, used: Cluster, signals: Signals) -> Outcome:
        self.reporter.begin(
            attempt.number,
            run=str(self.run.path),
            verb=self.verb,
            hosts=[host.name for host in used.hosts],
            restarts_left=self._restarts_left,
        )
        supervisor = Supervisor(attempt, used, self.reporter, self.injection)
        try:
            code = supervisor.supervise(lambda: self._planner(attempt, used), signals)
        except LaunchError as error:
            if self.history.attempts == 0:
                self.reporter.emit("refused", text=str(error))
                self._end(End(error.exit_code))
                raise
            self.reporter.warn(str(error))
            culprit = None
            if isinstance(error, PreflightError) and error.host is not None:
                culprit = Place(error.host, error.device)
            return Outcome(ExitCode.PREFLIGHT, culprit)
        if code is ExitCode.PREEMPTED and self.verb == "train":
            all_left = policy.has_saved(supervisor.state) and not self.reporter.save_failed
            # Ranks that are ended in the evaluation after a step had saved before it.
            self.farewell = SAVED if all_left or self.reporter.is_saved else NOT_SAVED
        first = policy.verdict(supervisor.state)
        process = None if first is None else supervisor.processes.get(first.name)
        return Outcome(
            exit_code=code,
            culprit=retry.blame(first, None if process is None else process.device_id),
            port_taken=first is not None and first.sign is Sign.PORT_TAKEN,
            step=self.reporter.step,
        )

    def _planner(self, attempt: Attempt, used: Cluster) -> MakePlan:
        from launcher.doctor import require_ready
        from launcher.plan import make_plan
        from launcher.plan_files import env_template, write_plan
        from launcher.plan_types import HostFacts, Job

        env_template()  # now, while the agents start
        job = Job(verb=self.verb, run_dir=str(self.run.path), command=self.command)

        def plan(facts: Mapping[str, dict]) -> Plan:
            for warning in require_ready(used, facts):
                self.reporter.warn(str(warning))
            known = {host: HostFacts.from_dict(fact) for host, fact in facts.items()}
            made = make_plan(used, job, known, attempt.number, self.ports)
            if attempt.number == 1:
                made = replace(made, notes=(*made.notes, *reserve_notes(self.cluster)))
            if self.injection is not None:
                made = self.injection.into(made)
            if made.master_port is not None:
                self.ports.append(made.master_port)
            write_plan(made, attempt.plan_folder)
            return made

        return plan

    def _wait(self, decision: Retry, used: Cluster, signals: Signals) -> Union[Cluster, End]:
        """Until the next attempt: the devices for it, or why there is none."""
        following = select(self.cluster, self.history.excluded, self.global_batch)
        reason = "; ".join(filter(None, [decision.reason, difference(used, following)]))
        after_s = round(decision.after_s, 3)
        self.reporter.emit("retry", after_s=after_s, reason=reason, restarts_left=self._restarts_left)
        self.reporter.write_status()
        numbers = signals.wait(decision.after_s)
        if numbers:
            number = policy.foremost(numbers)
            if number in policy.PREEMPTING:
                name = signal.Signals(number).name
                return End(ExitCode.PREEMPTED, f"{name}: preempted before the next attempt")
            return End(ExitCode.STOPPED, f"{policy.stopped_by(number)} before the next attempt")
        return following

    def _broken(self, error: Exception) -> ExitCode:
        """The end by a fault of the launcher itself: with its traceback, and told as any other end."""
        import traceback

        traceback.print_exception(type(error), error, error.__traceback__)
        self._record("outcome", **Outcome(ExitCode.INFRASTRUCTURE, step=self.reporter.step).fields())
        what = f"{type(error).__name__}: {error}"
        return self._end(End(ExitCode.INFRASTRUCTURE, f"fcn-launch itself failed, see its traceback: {what}"))

    def _end(self, end: End) -> ExitCode:
        state = STATES.get(end.exit_code, "failed")
        reason = end.reason or self.farewell
        self.reporter.emit("end", state=state, exit_code=int(end.exit_code), reason=reason)
        self.reporter.write_status()
        return end.exit_code
