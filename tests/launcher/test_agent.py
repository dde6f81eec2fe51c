"""The agent with real processes; this test is its supervisor."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest
from launching import (
    FOREVER,
    LIMIT_S,
    AgentProcess,
    light,
    only_child,
    python,
    sitecustomize,
    until_gone,
    wait_dead,
)

from launcher.agent import processes
from launcher.protocol import VERSION


def test_hello_tells_the_facts_of_the_host(agents):
    agents.append(AgentProcess(ONEDNN_MAX_CPU_ISA="AVX", HCCL_IF_IP="10.0.0.1", MS_ROLE="MS_WORKER"))
    hello = agents[0].until("hello")
    facts = hello["facts"]
    assert hello["protocol"] == VERSION
    assert facts["cores"] == len(os.sched_getaffinity(0))
    assert facts["machine"] == os.uname().machine
    assert facts["hostname"] == os.uname().nodename
    assert facts["environ"]["ONEDNN_MAX_CPU_ISA"] == "AVX"
    assert facts["environ"]["HCCL_IF_IP"] == "10.0.0.1"
    assert "MS_ROLE" not in facts["environ"]
    for port in facts["free_ports"]:
        with socket.socket() as server:
            server.bind(("127.0.0.1", port))
    assert len(set(facts["free_ports"])) >= 2


def test_a_wanted_port_leads_where_it_is_free_and_is_missing_where_it_is_not(agents):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        agents.append(AgentProcess("--port", str(port)))
        assert port not in agents[0].until("hello")["facts"]["free_ports"]
    agents.append(AgentProcess("--port", str(port)))
    assert agents[1].until("hello")["facts"]["free_ports"][0] == port


def test_a_worker_gets_the_plans_environment_and_nothing_stale(agents, tmp_path):
    stale = {
        name: "stale"
        for name in (
            *("RANK_TABLE_FILE", "MS_SCHED_HOST", "MASTER_ADDR", "DEVICE_ID", "FCN_X"),
            *("OMPI_COMM_WORLD_RANK", "OMPI_COMMAND", "PMIX_RANK", "LOCAL_RANK", "LOCAL_RANK_SIZE"),
        )
    }
    agents.append(AgentProcess(KEPT="kept", **stale))
    agents[0].until("hello")
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    agents[0].start(tmp_path, python(0, code, MS_ROLE="MS_WORKER"))
    agents[0].rest()
    environ = json.loads((tmp_path / "rank-00.log").read_text())
    assert environ["KEPT"] == "kept"
    assert environ["MS_ROLE"] == "MS_WORKER"
    assert environ["RANK_ID"] == "0"
    assert environ["FCN_RUN_TOKEN"] == agents[0].token
    assert not set(stale) & set(environ)


def test_workers_run_to_their_end_and_the_agent_with_them(agent, tmp_path):
    agent.start(tmp_path, light(0, "steps=2"), light(1, "steps=2"))
    events = agent.rest()
    assert agent.process.wait() == 0
    assert events[-1] == {"event": "done", "left": []}
    steps = [e for e in events if e["event"] == "status" and e["data"]["event"] == "step"]
    assert sorted((e["rank"], e["data"]["step"]) for e in steps) == [(0, 1), (0, 2), (1, 1), (1, 2)]
    exits = {e["name"]: (e["code"], e["signal"], e["stopped"], e["tail"]) for e in agent.all("exit")}
    assert exits == {"rank-00": (0, None, False, []), "rank-01": (0, None, False, [])}
    assert (tmp_path / "rank-01.log").read_text() == "rank 1 begins\n"


def test_each_process_leads_a_group_of_its_own(agent, tmp_path):
    agent.start(tmp_path, light(0, *FOREVER), light(1, *FOREVER))
    agent.until_training(2)
    for started in agent.all("started"):
        assert os.getpgid(started["pid"]) == started["pid"]


def test_a_log_is_appended_to_and_keeps_every_byte(agent, tmp_path):
    (tmp_path / "rank-00.log").write_bytes(b"from before\n")
    agent.start(tmp_path, light(0, r"say=\xff\xfe 10%\r 20%\r\x00no newline", "steps=1"))
    agent.rest()
    assert (tmp_path / "rank-00.log").read_bytes() == b"from before\n\xff\xfe 10%\r 20%\r\x00no newline"


@pytest.mark.parametrize(
    ("fault", "code", "number"),
    [("crash", 1, None), ("oom", None, signal.SIGKILL), ("segv", None, signal.SIGSEGV)],
)
def test_how_a_worker_ended_and_its_last_lines(agent, tmp_path, fault, code, number):
    agent.start(tmp_path, light(0, r"say=a\n", FCN_INJECT=f"{fault}@2"))
    ended = agent.until("exit")
    assert (ended["code"], ended["signal"], ended["stopped"]) == (code, number, False)
    assert ended["tail"][:2] == ["a", f"injected fault: {fault} before step 2"]


def test_how_workers_ended_is_told_although_the_disk_of_their_logs_hangs(agent, tmp_path):
    code = "import os; log = os.readlink('/proc/self/fd/1'); os.unlink(log); os.mkfifo(log); os._exit(4)"
    agent.start(tmp_path, *(python(rank, code) for rank in range(3)))
    assert [(agent.until("exit")["code"], agent.seen[-1]["tail"]) for _ in range(3)] == [(4, [])] * 3


def test_a_workers_own_error_comes_before_its_exit(agent, tmp_path):
    agent.start(tmp_path, light(0, FCN_INJECT="raise@1"))
    events = agent.rest()
    kinds = [e["data"]["event"] if e["event"] == "status" else e["event"] for e in events]
    assert kinds.index("error") < kinds.index("exit")
    assert agent.all("exit")[0]["tail"][-1] == "RuntimeError: this rank was told to fail (--inject raise)"


def test_rubbish_on_the_status_pipe_does_no_harm(agent, tmp_path):
    rubbish = b'\xff\n{\n[1]\n\n{"event": "x"}\n{"half'
    code = f"import os; os.write(int(os.environ['FCN_STATUS_FD']), {rubbish!r})"
    agent.start(tmp_path, python(0, code))
    agent.rest()
    assert [e["data"] for e in agent.all("status")] == [{"event": "x"}]
    assert agent.all("exit")[0]["code"] == 0


def test_a_worker_may_close_its_status_pipe_and_go_on(agent, tmp_path):
    code = "import os; os.close(int(os.environ['FCN_STATUS_FD'])); input_ = os.pipe(); print('still here')"
    agent.start(tmp_path, python(0, code))
    agent.rest()
    assert agent.all("exit")[0]["code"] == 0
    assert (tmp_path / "rank-00.log").read_text() == "still here\n"


def test_a_signal_reaches_the_main_process_of_every_rank(agent, tmp_path):
    helper = {**light(0, *FOREVER), "name": "scheduler", "rank": None, "log": "scheduler.log"}
    agent.start(tmp_path, helper, light(0, *FOREVER), light(1, *FOREVER))
    agent.until_training(3)
    agent.send("signal", rank=None, signal=int(signal.SIGUSR2))
    codes = {agent.until("exit")["name"]: agent.seen[-1]["code"] for _ in range(2)}
    assert codes == {"rank-00": 75, "rank-01": 75}
    agent.send("stop", grace_s=5)
    assert agent.until("exit")["name"] == "scheduler"


def test_who_would_miss_a_signal_is_not_started(agent, tmp_path):
    """All are ordered, and signalled, before the agent has come to start the second."""
    inner = only_child(agent.process.pid)
    os.kill(inner, signal.SIGSTOP)
    agent.start(tmp_path, *(light(rank, *FOREVER) for rank in range(3)))
    agent.send("signal", rank=None, signal=int(signal.SIGUSR2))
    os.kill(inner, signal.SIGCONT)
    agent.rest()
    assert len(agent.all("exit")) == len(agent.all("started")) < 3


def test_a_stop_asks_first(agent, tmp_path):
    agent.start(tmp_path, light(0, *FOREVER), light(1, *FOREVER))
    agent.until_training(2)
    agent.send("stop", grace_s=15)
    agent.rest()
    assert [(e["signal"], e["stopped"]) for e in agent.all("exit")] == [(signal.SIGTERM, True)] * 2
    until_gone(agent.token)


def test_a_stop_kills_after_the_grace_what_does_not_listen(agent, tmp_path):
    agent.start(tmp_path, light(0, *FOREVER, "term=ignore", "children=1"), light(1, *FOREVER))
    agent.until_training(2)
    agent.send("stop", grace_s=0.2)
    agent.rest()
    assert {e["name"]: e["signal"] for e in agent.all("exit")} == {
        "rank-00": signal.SIGKILL,
        "rank-01": signal.SIGTERM,
    }
    assert agent.all("done")[0]["left"] == []
    until_gone(agent.token)


def test_a_stopped_process_can_end_within_the_grace(agent, tmp_path):
    agent.start(tmp_path, light(0, *FOREVER, "term=exit"))
    agent.until_training(1)
    os.kill(agent.all("started")[0]["pid"], signal.SIGSTOP)
    agent.send("stop", grace_s=60)
    assert agent.until("exit")["code"] == 7


def test_no_grace_means_at_once(agent, tmp_path):
    agent.start(tmp_path, light(0, *FOREVER, "term=ignore", "children=1"))
    agent.until_training(1)
    agent.send("stop", grace_s=0)
    assert agent.until("exit")["signal"] == signal.SIGKILL
    until_gone(agent.token)


def test_who_had_ended_when_a_stop_came_was_not_stopped_by_it_and_its_last_words_arrive(agent, tmp_path):
    agent.start(tmp_path, light(0, *FOREVER), light(1, *FOREVER))
    agent.until_training(2)
    inner = only_child(agent.process.pid)
    leaving = processes.look(agent.all("started")[0]["pid"])
    os.kill(inner, signal.SIGSTOP)
    agent.send("stop", grace_s=15)
    os.kill(leaving.pid, signal.SIGUSR2)
    wait_dead(leaving)
    os.kill(inner, signal.SIGCONT)
    agent.rest()
    assert {"event": "phase", "phase": "save"} in [event["data"] for event in agent.all("status")]
    assert {e["name"]: (e["code"], e["stopped"]) for e in agent.all("exit")} == {
        "rank-00": (75, False),
        "rank-01": (None, True),
    }


def test_the_children_of_a_crashed_worker_end_too(agent, tmp_path):
    inner = only_child(agent.process.pid)
    agent.start(tmp_path, light(0, FCN_INJECT="worker-grandchild@1"))
    agent.until("done")
    assert {process.pid for process in processes.tagged(agent.token)} <= {agent.process.pid, inner}


def test_a_program_that_does_not_exist_is_named_and_the_rest_is_stopped(agent, tmp_path):
    agent.start(tmp_path, light(0, *FOREVER), {**light(1), "argv": ["/nowhere/python"]}, light(2, *FOREVER))
    failed = agent.until("failed")
    assert "rank-01 does not start" in failed["message"]
    assert "/nowhere/python" in failed["message"]
    agent.until("done")
    until_gone(agent.token)


def test_a_log_that_can_not_be_opened_is_named(agent, tmp_path):
    (tmp_path / "rank-00.log").mkdir()
    agent.start(tmp_path, light(0))
    assert "rank-00.log" in agent.until("failed")["message"]


def with_open_files(limit):
    return AgentProcess(before=("sh", "-c", f'ulimit {limit}; exec "$@"', "sh"))


def test_more_files_may_be_open_than_it_began_with_where_many_processes_need_them(agents, tmp_path):
    agents.append(with_open_files("-Sn 90"))
    agents[0].until("hello")
    sleepers = [{**light(rank), "argv": ["sleep", "600"]} for rank in range(1, 50)]
    limit = "import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    agents[0].start(tmp_path, python(0, limit), *sleepers)
    agents[0].until("exit", name="rank-00")
    if "rank-49" not in [started["name"] for started in agents[0].all("started")]:
        agents[0].until("started", name="rank-49")
    assert (tmp_path / "rank-00.log").read_text() == "90\n"


def test_too_low_a_hard_limit_of_open_files_is_named_before_a_process_is_started(agents, tmp_path):
    agents.append(with_open_files("-n 90"))
    agents[0].until("hello")
    agents[0].start(tmp_path, *(light(rank, *FOREVER) for rank in range(40)))
    failed = agents[0].until("failed")["message"]
    assert failed.startswith("40 processes can not be started: 144 open files are needed and the limit is 90")
    assert not agents[0].all("started")


def test_a_stop_before_the_start_ends_the_agent(agent):
    agent.send("stop", grace_s=5)
    agent.until("done")
    assert agent.process.wait() == 0


def test_it_sees_deaths_on_kernels_without_pidfd(agents, tmp_path):
    site = sitecustomize(tmp_path, "import os; del os.pidfd_open")
    agents.append(AgentProcess(flags=(), PYTHONPATH=site))
    agent = agents[0]
    agent.until("hello")
    agent.start(tmp_path, light(0, FCN_INJECT="oom@2"), light(1, "steps=1"), light(2, *FOREVER, "children=1"))
    agent.until("exit", name="rank-00", signal=signal.SIGKILL)
    agent.until_training(3)
    assert not any("pidfd" in target for target in open_files(only_child(agent.process.pid)))
    agent.send("stop", grace_s=0)
    agent.rest()
    assert {e["name"]: e["signal"] for e in agent.all("exit")} == {
        "rank-00": signal.SIGKILL,
        "rank-01": None,
        "rank-02": signal.SIGKILL,
    }
    until_gone(agent.token)


def open_files(pid):
    return [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()]


def test_deaths_are_told_in_their_order_however_late_the_agent_wakes(agent, tmp_path):
    agent.start(tmp_path, *(light(rank, *FOREVER) for rank in range(4)))
    agent.until_training(4)
    workers = {e["name"]: processes.look(e["pid"]) for e in agent.all("started")}
    inner = only_child(agent.process.pid)
    os.kill(inner, signal.SIGSTOP)
    order = ["rank-02", "rank-00", "rank-03", "rank-01"]
    for name in order:
        os.kill(workers[name].pid, signal.SIGKILL)
        wait_dead(workers[name])
    os.kill(inner, signal.SIGCONT)
    agent.rest()
    exits = agent.all("exit")
    assert [e["name"] for e in exits] == order
    assert sorted(exits, key=lambda e: e["time_ns"]) == exits


def test_orphans_are_reaped_when_they_end_while_others_go_on(agent, tmp_path):
    code = "import subprocess; print(subprocess.Popen(['sleep', '0.1'], start_new_session=True).pid)"
    agent.start(tmp_path, python(0, code), light(1, *FOREVER))
    agent.until("exit", name="rank-00")
    orphan = int((tmp_path / "rank-00.log").read_text())
    end = time.monotonic() + LIMIT_S
    while processes.look(orphan) is not None:  # as a zombie, too
        assert time.monotonic() < end, processes.look(orphan)
        agent.send("ping", id=1)
        agent.until("pong")
        time.sleep(0.02)


def test_what_a_crashed_worker_leaves_in_its_group_ends_while_the_others_go_on(agent, tmp_path):
    agent.start(tmp_path, light(0, *FOREVER, "children=1"), light(1, *FOREVER))
    agent.until_training(2)
    pids = {started["name"]: started["pid"] for started in agent.all("started")}
    group = [p for p in processes.tagged(agent.token) if os.getpgid(p.pid) == pids["rank-00"]]
    assert len(group) == 2
    os.kill(pids["rank-00"], signal.SIGKILL)
    agent.until("exit", name="rank-00")
    for process in group:
        wait_dead(process)
    assert processes.look(pids["rank-01"]) is not None
