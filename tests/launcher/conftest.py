from __future__ import annotations

import pytest
from launching import AgentProcess, closing


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
