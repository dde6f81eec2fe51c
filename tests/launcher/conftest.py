from __future__ import annotations

import pytest
from launching import LOCAL_CLUSTER, AgentProcess, Launch, closing


@pytest.fixture
def agents():
    """A list of agents that are ended after the test."""
    with closing() as made:
        yield made


@pytest.fixture
def agent(agents):
    """An agent that has said hello."""
    agents.append(AgentProcess())
    agents[0].until("hello")
    return agents[0]


@pytest.fixture
def launches():
    with closing() as made:
        yield made


@pytest.fixture
def start(launches, tmp_path):
    def make(*settings, devices=2, grace_s=10.0, cluster=None, **env):
        text = cluster or LOCAL_CLUSTER.format(devices=devices, grace_s=grace_s)
        launches.append(Launch(tmp_path, text, *settings, **env))
        return launches[-1]

    return make
