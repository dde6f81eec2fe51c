"""HCCL's time limits and log folders in the plan: who wins, what is equal everywhere, what is refused."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

import pytest
from test_plan import JOB, cluster, with_ips, workers

from launcher.errors import UserError
from launcher.plan import make_plan
from launcher.plan_types import HostFacts


def hccl(shell: Optional[Dict[str, str]] = None, kind: str = "ascend910b", **env: Any) -> List[tuple]:
    """(connect, exec, event) of every worker on two hosts, the shell of the second saying something else."""
    made = cluster(kind, with_ips(1, 0), with_ips(2, 0), env=env)
    facts = {
        "node1": HostFacts(free_ports=(20001,), environ=shell or {}),
        "node2": HostFacts(environ={"HCCL_CONNECT_TIMEOUT": "777", "ASCEND_PROCESS_LOG_PATH": "/mine"}),
    }
    names = ("HCCL_CONNECT_TIMEOUT", "HCCL_EXEC_TIMEOUT", "HCCL_EVENT_TIMEOUT")
    return [tuple(p.env[name] for name in names) for p in workers(make_plan(made, JOB, facts))]


def test_limits_of_collectives_are_equal_everywhere_and_the_event_limit_stays_above() -> None:
    assert hccl() == [("1860", "1860", "1892")] * 2
    assert hccl({"HCCL_EXEC_TIMEOUT": "5000", "HCCL_CONNECT_TIMEOUT": "300"}) == [("300", "5000", "5032")] * 2
    assert hccl({"HCCL_EXEC_TIMEOUT": "5000"}, HCCL_EXEC_TIMEOUT=6000) == [("1860", "6000", "6032")] * 2
    assert hccl(HCCL_EXEC_TIMEOUT=2**31 - 1)[0][2] == str(2**31 - 1)
    assert hccl(HCCL_EXEC_TIMEOUT=0) == [("1860", "0", "0")] * 2  # for ever
    assert hccl({"HCCL_EVENT_TIMEOUT": "1861"}) == [("1860", "1860", "1861")] * 2


@pytest.mark.parametrize("value", ["119", "7201", "ten", "-1", "1e3"])
def test_limits_that_hccl_does_not_take_are_refused_with_where_they_came_from(value: str) -> None:
    expected = "expected 120 to 7200 seconds; correct it"
    with pytest.raises(UserError, match=f"HCCL_CONNECT_TIMEOUT in the environment of node1: .*{expected}"):
        hccl({"HCCL_CONNECT_TIMEOUT": value})
    with pytest.raises(UserError, match=rf"test.yaml: env.HCCL_CONNECT_TIMEOUT: '{value}' .*{expected}"):
        hccl(HCCL_CONNECT_TIMEOUT=value)


def test_an_event_limit_that_is_not_above_the_other_is_refused() -> None:
    with pytest.raises(UserError, match="env.HCCL_EVENT_TIMEOUT: '1868' .*5001 to .*above HCCL_EXEC_TIMEOUT"):
        hccl({"HCCL_EXEC_TIMEOUT": "5000"}, HCCL_EVENT_TIMEOUT=1868)


def test_log_folders_are_never_those_of_the_shell() -> None:
    facts = {"node1": HostFacts(free_ports=(20001,), environ={"ASCEND_PROCESS_LOG_PATH": "/mine"})}
    plan = make_plan(cluster("ascend910b", 2), JOB, facts)
    assert workers(plan)[1].env["ASCEND_PROCESS_LOG_PATH"] == "/runs/r1/attempt-001/plog/rank-01"
