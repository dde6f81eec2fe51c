"""One launch from plan to exit code: what `train` and `eval` do once they know what to run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Mapping, Optional, Tuple

from launcher.errors import ExitCode, LaunchError
from launcher.reporter import Reporter
from launcher.supervisor import STATES, MakePlan, Supervisor

if TYPE_CHECKING:
    from launcher.cluster import Cluster
    from launcher.console import Console
    from launcher.inject import Injection
    from launcher.plan import Plan
    from launcher.run import Run


def launch(
    run: Run,
    cluster: Cluster,
    command: Tuple[str, ...],
    verb: str,
    console: Console,
    injection: Optional[Injection] = None,
) -> ExitCode:
    """Runs `command` on every device of the cluster, as a new attempt of the run, and supervises it.

    command: argv of a worker after the interpreter. injection: a failure to be made on purpose. Raises
    LaunchError where nothing was started; the run directory then says so too. SIGINT, SIGTERM, SIGHUP and
    SIGUSR2 are answered while it runs. Closes the console.
    """
    try:
        return _launch(run, cluster, command, verb, console, injection)
    finally:
        console.close()


def _launch(
    run: Run,
    cluster: Cluster,
    command: Tuple[str, ...],
    verb: str,
    console: Console,
    injection: Optional[Injection],
) -> ExitCode:
    attempt = run.new_attempt()
    reporter = Reporter(run, attempt, console)

    def planner() -> MakePlan:
        import jinja2  # noqa: F401  write_plan needs it; its import takes as long as the agents do

        from launcher.plan import HostFacts, Job, make_plan
        from launcher.plan_files import write_plan
        from launcher.preflight import require_ready

        job = Job(verb=verb, run_dir=str(run.path), command=command)

        def plan(facts: Mapping[str, dict]) -> Plan:
            known = {host: HostFacts.from_dict(fact) for host, fact in facts.items()}
            require_ready(cluster, known)
            made = make_plan(cluster, job, known, attempt.number)
            if injection is not None:
                made = injection.into(made)
            write_plan(made, attempt.plan_folder)
            reporter.emit("plan", **_summary(made))
            return made

        return plan

    reporter.emit("attempt", run=str(run.path), verb=verb, hosts=[host.name for host in cluster.hosts])
    try:
        code = Supervisor(attempt, cluster, reporter, injection).supervise(planner)
    except LaunchError as error:
        reporter.emit("refused", text=str(error))
        _end(reporter, error.exit_code)
        raise
    _end(reporter, code)
    return code


def _end(reporter: Reporter, code: ExitCode) -> None:
    reporter.emit("end", state=STATES.get(code, "failed"), exit_code=int(code))
    reporter.write_status()


def _summary(plan: Plan) -> dict:
    master = f"{plan.master_address}:{plan.master_port}" if plan.master_address else None
    return {
        "world_size": plan.world_size,
        "hosts": list(dict.fromkeys(process.host for process in plan.processes)),
        "rendezvous": plan.rendezvous,
        "master": master,
        "notes": list(plan.notes),
    }
