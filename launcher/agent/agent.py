"""The agent: starts the processes of its host, reports what becomes of them, and stops them."""

from __future__ import annotations

import os
import selectors
import signal
import time
from functools import partial

from launcher import logfile
from launcher.agent import observe, processes
from launcher.agent.watch import DeathWatch
from launcher.protocol import VERSION, Inbox, Outbox

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.agent.spawn import Child

TAIL_LINES = 20


def serve(guard_life: int, options: dict) -> None:
    """Serves the supervisor on stdin and stdout until every process has ended.

    guard_life: a pipe that ends when the guard does. options: keyword arguments of `observe.facts`.
    """
    processes.become_subreaper()  # an orphan is then still below us, where a stop finds it
    Agent(guard_life).run(options)


class Agent:
    """One host's part of one attempt."""

    def __init__(self, guard_life: int) -> None:
        self.selector = selectors.DefaultSelector()
        self.inbox = Inbox(0)
        self.outbox = Outbox(1)
        self.deaths = DeathWatch(self.selector)
        self.children: dict[str, Child] = {}
        self.grace_end: float | None = None  # monotonic
        self.left: list[int] = []
        self.finished = False
        self.selector.register(0, selectors.EVENT_READ, self._listen)
        self.selector.register(guard_life, selectors.EVENT_READ, self._unguarded)

    def run(self, options: dict) -> None:
        try:
            self.outbox.put({"event": "hello", "protocol": VERSION, "facts": observe.facts(**options)})
            import launcher.agent.spawn  # noqa: F401  here, as the supervisor plans meanwhile

            while not self.finished:
                self._wait()
        except Exception as error:
            self._fail(f"{type(error).__name__}: {error}")
            raise
        finally:
            self.left = self.left or processes.kill_descendants()
            self.deaths.check()
            self.outbox.put({"event": "done", "left": self.left})
            self.outbox.drain()

    def _wait(self) -> None:
        timeout = None if self.grace_end is None else max(0.0, self.grace_end - time.monotonic())
        for key, _ in self.selector.select(timeout):
            if self.selector.get_map().get(key.fd) is key:  # not so where an earlier callback has closed it
                key.data()
        if self.grace_end is not None and time.monotonic() >= self.grace_end:
            self._kill()
        self.outbox.watch(self.selector)

    # --- the supervisor's wishes

    def _listen(self) -> None:
        for message in self.inbox.read():
            getattr(self, "_op_" + message["op"])(message)
        if self.inbox.eof:
            self._kill()  # the lease is lost: no grace, as nobody is left who would see to the end of it

    def _unguarded(self) -> None:
        self._fail("the guard of its agent was killed")

    def _op_start(self, message: dict) -> None:
        from launcher.agent.spawn import spawn

        name = "the log folder"
        try:
            os.makedirs(message["log_dir"], exist_ok=True)  # noqa: PTH103
            for plan in message["processes"]:
                name = plan["name"]
                child = spawn(plan, message["log_dir"], message["cwd"], message["token"])
                self.children[child.name] = child
                self.selector.register(child.status.fd, selectors.EVENT_READ, partial(self._status, child))
                self.deaths.add(child.process.pid, partial(self._ended, child))
                self._tell("started", child, pid=child.process.pid)
        except OSError as error:
            self._fail(f"{name} does not start: {error}")
        self._finish_if_idle()

    def _op_signal(self, message: dict) -> None:
        for child in self._ranks(message["rank"]):
            child.process.send_signal(message["signal"])

    def _op_control(self, message: dict) -> None:
        for child in self._ranks(message["rank"]):
            child.send(message["message"])

    def _op_probe(self, message: dict) -> None:
        from launcher.agent import probe

        found = probe.observe({child.name: child.process.pid for child in self._alive()})
        self.outbox.put({"event": "probe", "processes": found})

    def _op_stacks(self, message: dict) -> None:
        from launcher.agent import stacks

        alive = sorted(self._alive(), key=lambda child: child.name != message["first"])
        known = [(processes.look(child.process.pid), child.log) for child in alive]
        pid = stacks.start([stacks.Target(process, log) for process, log in known if process])
        self.deaths.add(pid, partial(self._stacks_taken, pid))

    def _stacks_taken(self, pid: int) -> None:
        os.waitpid(pid, 0)
        self.outbox.put({"event": "stacks"})

    def _op_stop(self, message: dict) -> None:
        self.deaths.check()  # who has ended by itself is not to be reported as stopped by us
        for child in self._alive():
            child.stopped = True
            if message["grace_s"] > 0:
                os.killpg(child.process.pid, signal.SIGTERM)
                os.killpg(child.process.pid, signal.SIGCONT)  # a stopped process could not act on it
        self.grace_end = min(self.grace_end or float("inf"), time.monotonic() + message["grace_s"])
        self._finish_if_idle()

    # --- what becomes of the processes

    def _status(self, child: Child) -> None:
        for data in child.status.read():
            self._forward(child, data)
        if child.status.eof:
            self.selector.unregister(child.status.fd)

    def _forward(self, child: Child, data: dict) -> None:
        may_drop = data.get("event") in ("enter", "step")
        self._tell("status", child, may_drop, time_ns=time.time_ns(), data=data)

    def _ended(self, child: Child) -> None:
        """The main process has ended and is not reaped: its id still names its group and nobody else's."""
        time_ns = time.time_ns()
        os.killpg(child.process.pid, signal.SIGKILL)  # what the group holds without its leader is of no use
        code = child.process.wait()
        for data in child.status.drain():
            self._forward(child, data)
        if child.status.fd in self.selector.get_map():
            self.selector.unregister(child.status.fd)
        child.close()
        child.ended = True
        self._tell(
            "exit",
            child,
            code=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            time_ns=time_ns,
            stopped=child.stopped,
            tail=logfile.tail(child.log, TAIL_LINES) if code else [],
        )
        self._finish_if_idle()

    def _kill(self) -> None:
        self.grace_end = None
        self.deaths.check()
        for child in self._alive():
            child.stopped = True
        self.left = processes.kill_descendants()
        self.finished = True

    def _fail(self, message: str) -> None:
        self.outbox.put({"event": "failed", "message": message})
        self._kill()

    def _finish_if_idle(self) -> None:
        self.finished = self.finished or not self._alive()

    def _tell(self, event: str, child: Child, may_drop: bool = False, **more: object) -> None:
        self.outbox.put({"event": event, "name": child.name, "rank": child.rank, **more}, may_drop)

    def _alive(self) -> list[Child]:
        return [child for child in self.children.values() if not child.ended]

    def _ranks(self, rank: int | None) -> list[Child]:
        return [c for c in self._alive() if c.rank is not None and rank in (None, c.rank)]
