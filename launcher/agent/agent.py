"""The agent: starts the processes of its host, reports what becomes of them, and stops them."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import time
from collections import deque
from functools import partial

from launcher import open_files
from launcher.agent import observe, processes
from launcher.agent.device_watch import DeviceWatch
from launcher.agent.health import Health, HealthWatch, MemoryKills
from launcher.agent.watch import DeathWatch
from launcher.protocol import FROZEN_S, LISTEN_S, VERSION, Inbox, Outbox

TYPE_CHECKING = False
if TYPE_CHECKING:
    from launcher.agent.spawn import Child

OLDEST_S = 60.0  # a worker's own time of its error is believed if it is not older
WRITABLE = "the run directory must be there and writable, and so must the `python` of the cluster file be"
DYING_S = 1.0  # between the closing of a process's files and its death, on a busy machine


def serve(guard_life: int, guard_ear: int, lease_s: float | None, options: dict) -> None:
    """Serves the supervisor on stdin and stdout until every process has ended.

    guard_life: a pipe from the guard, which ends when it does. guard_ear: a pipe to it, a byte for every time
    that the lease is renewed. lease_s: for how long silence is borne; None: for ever. options: keyword
    arguments of `observe.facts`.
    """
    processes.become_subreaper()  # an orphan is then still below us, where a stop finds it
    os.set_blocking(guard_ear, False)
    Agent(guard_life, guard_ear, lease_s, options).run()


class Agent:
    """One host's part of one attempt."""

    def __init__(self, guard_life: int, guard_ear: int, lease_s: float | None, options: dict) -> None:
        self.options = options
        self.guard_ear = guard_ear
        self.lease_s = lease_s
        self.lease_end: float | None = None  # monotonic
        self.health = HealthWatch(Health(options.get("devices", ())))
        self.device_watch = DeviceWatch(options.get("devices", ()))
        self.memory_kills = MemoryKills()
        self.waiting: deque[dict] = deque()  # plans of processes to start
        self.where = {"log_dir": "", "cwd": "", "token": ""}
        self.woken_ns = 0  # when the last wait ended
        self.death_ns = 0  # of the last death that was seen
        self.unsettled = False  # whether something was read that others may have come before
        self.unordered_ns: int | None = None  # of an error told since then, before it or after a death
        self.selector = selectors.DefaultSelector()
        self.inbox = Inbox(0)
        self.outbox = Outbox(1)
        self.deaths = DeathWatch(self.selector)
        self.children: dict[str, Child] = {}
        self.grace_end: float | None = None  # monotonic
        self.disk_hangs = False  # that of the logs: asked once, as each look would hold us up
        self.left: list[int] = []
        self.finished = False
        self.wishes = {
            "find": self._op_find,
            "start": self._op_start,
            "ping": self._op_ping,
            "signal": self._op_signal,
            "probe": self._op_probe,
            "stacks": self._op_stacks,
            "stop": self._op_stop,
        }
        self.selector.register(0, selectors.EVENT_READ, self._listen)
        self.guard = Inbox(guard_life)
        self.selector.register(guard_life, selectors.EVENT_READ, self._listen_to_guard)

    def run(self) -> None:
        try:
            self.outbox.put({"event": "hello", "protocol": VERSION, "facts": observe.facts(**self.options)})
            self._handle(self.selector.select(0))  # what the supervisor wants to know before it plans
            import launcher.agent.spawn  # noqa: F401  here, as it plans meanwhile

            self._renew_lease()
            while not self.finished:
                self._wait()
        except Exception as error:
            self._fail(f"{type(error).__name__}: {error}")
            raise
        finally:
            self.left = self.left or processes.kill_descendants()
            self.woken_ns = time.time_ns()
            self.deaths.check()
            self.outbox.put({"event": "done", "left": self.left})
            self.outbox.drain()

    def _wait(self) -> None:
        # After a SIGSTOP over its end the first returns without a look at what has come.
        ready = self.selector.select(0 if self.waiting else self._until_next_end()) or self.selector.select(0)
        self.woken_ns, self.unordered_ns, self.unsettled = time.time_ns(), None, False
        self._handle(ready)
        if self.unsettled:  # who died between our waking up and the reading of an error or an end
            self._handle(self.selector.select(0))
        if self.waiting:
            self._start_next()
        if self._until_next_end() == 0 and not self._was_frozen():
            self._kill()
        self.outbox.watch(self.selector)

    def _handle(self, ready: list[tuple[selectors.SelectorKey, int]]) -> None:
        for key, _ in ready:
            if self.selector.get_map().get(key.fd) is key:  # not so where an earlier callback has closed it
                key.data()

    def _until_next_end(self) -> float | None:
        """Seconds until the grace or the lease is over; None where neither ends."""
        ends = [end for end in (self.grace_end, self.lease_end) if end is not None]
        return max(0.0, min(ends) - time.monotonic()) if ends else None

    def _was_frozen(self) -> bool:
        """Whether the lease is over because we were stopped ourselves; then it is prolonged, to listen."""
        now = time.monotonic()
        if self.lease_end is None or now < self.lease_end + FROZEN_S:
            return False
        self.lease_end = now + LISTEN_S
        return self._until_next_end() != 0  # a grace that is over is over

    def _renew_lease(self) -> None:
        if self.lease_s is None:
            return
        self.lease_end = time.monotonic() + self.lease_s
        with contextlib.suppress(OSError):  # a full pipe: the guard is stopped, or has ended
            os.write(self.guard_ear, b".")

    # --- the supervisor's wishes

    def _listen(self) -> None:
        for message in self.inbox.read():
            self.wishes[message["op"]](message)
        self._renew_lease()
        if self.inbox.eof:
            self._kill()  # the lease is lost: no grace, as nobody is left who would see to the end of it

    def _listen_to_guard(self) -> None:
        for message in self.guard.read():
            self.outbox.put(message)
        if self.guard.eof:
            self._fail("the guard of its agent was killed; `dmesg` there tells whether memory ran out")

    def _op_find(self, message: dict) -> None:
        is_there = os.path.isdir(message["folder"])  # noqa: PTH112
        self.outbox.put({"event": "found", "folder": message["folder"], "is_there": is_there})

    def _op_ping(self, message: dict) -> None:
        self.deaths.reap_orphans()
        answer: dict = {"event": "pong", "id": message["id"], "time_ns": time.time_ns()}
        self.memory_kills.look(time.monotonic())
        health = self.health.news(self.where["cwd"]) if self.where["cwd"] else None
        if health is not None:
            answer["health"] = health
        devices = self.device_watch.news() if self.children and not self.waiting else None
        if devices is not None:
            answer["devices"] = devices
        self.outbox.put(answer)

    def _op_start(self, message: dict) -> None:
        from launcher.agent import spawn

        self.where = {key: message[key] for key in self.where}
        try:
            open_files.allow(spawn.FILES * len(message["processes"]))
        except OSError as error:
            self._fail(f"{len(message['processes'])} processes can not be started: {error.strerror}")
        else:
            self.waiting.extend(message["processes"])
        self._finish_if_idle()

    def _start_next(self) -> None:
        """Starts one process; between two of many the supervisor is heard and answered."""
        from launcher.agent.spawn import spawn

        plan = self.waiting.popleft()
        try:
            child = spawn(plan, **self.where)
        except OSError as error:
            self._fail(f"{plan['name']} does not start: {error}; {WRITABLE}")
            return
        self.children[child.name] = child
        self.selector.register(child.status.fd, selectors.EVENT_READ, partial(self._status, child))
        self.deaths.add(child.process.pid, partial(self._ended, child))
        self._tell("started", child, pid=child.process.pid)

    def _op_signal(self, message: dict) -> None:
        self.waiting.clear()  # who is still to be started would miss it
        for child in self._ranks(message["rank"]):
            child.process.send_signal(message["signal"])
        self._finish_if_idle()

    def _op_probe(self, message: dict) -> None:
        from launcher.agent import probe

        found = probe.observe({child.name: child.process.pid for child in self._alive()})
        self.outbox.put({"event": "probe", "processes": found})

    def _op_stacks(self, message: dict) -> None:
        from launcher.agent import stacks

        alive = sorted(self._alive(), key=lambda child: child.name != message["first"])
        known = [(child.name, processes.look(child.process.pid), child.log) for child in alive]
        pid, answer = stacks.start([stacks.Target(*one) for one in known if one[1]])
        self.deaths.add(pid, partial(self._stacks_taken, pid, answer))

    def _stacks_taken(self, pid: int, answer: int) -> None:
        os.waitpid(pid, 0)
        with os.fdopen(answer) as taken:
            self.outbox.put({"event": "stacks", "taken": taken.read().split()})

    def _op_stop(self, message: dict) -> None:
        self.waiting.clear()
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
        heard = child.status.read()
        if heard:
            heard += child.status.read()  # the end, if that is what follows: now, not after others
        self._forward(child, heard)
        if child.status.eof:
            self.selector.unregister(child.status.fd)
            child.hung_up_ns = self._time_of_death(child)
            self.unsettled = True

    def _forward(self, child: Child, heard: list[dict]) -> None:
        for data in heard:
            may_drop = data.get("event") in ("enter", "step")
            time_ns = self._time_of(data)
            if data.get("event") == "error":
                self.unsettled |= not child.has_erred
                child.has_erred = True
                self.unordered_ns = min(self.unordered_ns or time_ns, time_ns)
            self._tell("status", child, may_drop, time_ns=time_ns, data=data)

    def _time_of(self, data: dict) -> int:
        """When a worker said this, by itself where it tells: on a busy machine we wake long after it.

        A death has no time of its own, but the kernel keeps the order in which things began to wait for us:
        what a pipe holds that follows a death came after it, and must not get an earlier time.
        """
        own, now_ns = data.get("time_ns"), time.time_ns()
        if not isinstance(own, int) or not 0 <= now_ns - own < OLDEST_S * 1e9:
            own = now_ns
        return max(own, self.death_ns + 1)

    def _time_of_death(self, child: Child) -> int:
        """When its files were closed, if it died of that: others learn of it then, and err before it is dead.

        An error that woke us together with it came before or after: its pipe may have been readable already.
        Then the death counts as the first: who is gone without a word did not go because of another.
        """
        if child.hung_up_ns is not None and self.woken_ns - child.hung_up_ns < DYING_S * 1e9:
            return child.hung_up_ns
        time_ns = self.woken_ns
        if self.unordered_ns is not None and not child.has_erred:
            time_ns = self.unordered_ns - 1
        self.death_ns = max(time_ns, self.death_ns)
        return self.death_ns

    def _ended(self, child: Child) -> None:
        """The main process has ended and is not reaped: its id still names its group and nobody else's."""
        os.killpg(child.process.pid, signal.SIGKILL)  # what the group holds without its leader is of no use
        code = child.process.wait()
        self._forward(child, child.status.drain())
        if child.status.fd in self.selector.get_map():
            self.selector.unregister(child.status.fd)
        child.close()
        child.ended = True
        by_the_kernel = code == -signal.SIGKILL and not child.stopped
        self._tell(
            "exit",
            child,
            code=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            time_ns=self._time_of_death(child),
            stopped=child.stopped,
            out_of_memory=self.memory_kills.explain_one() if by_the_kernel else None,
            tail=self._tail(child) if code else [],
        )
        self._finish_if_idle()

    def _tail(self, child: Child) -> list[str]:
        tail = None if self.disk_hangs else child.tail()
        self.disk_hangs = tail is None
        return tail or []

    def _kill(self) -> None:
        self.waiting.clear()
        self.grace_end = self.lease_end = None
        self.deaths.check()
        for child in self._alive():
            child.stopped = True
        self.left = processes.kill_descendants()
        self.finished = True

    def _fail(self, message: str) -> None:
        self.outbox.put({"event": "failed", "message": message})
        self._kill()

    def _finish_if_idle(self) -> None:
        self.finished = self.finished or not (self.waiting or self._alive())

    def _tell(self, event: str, child: Child, may_drop: bool = False, **more: object) -> None:
        self.outbox.put({"event": event, "name": child.name, "rank": child.rank, **more}, may_drop)

    def _alive(self) -> list[Child]:
        return [child for child in self.children.values() if not child.ended]

    def _ranks(self, rank: int | None) -> list[Child]:
        return [c for c in self._alive() if c.rank is not None and rank in (None, c.rank)]
