"""Which deaths the kernel's count of kills for lack of memory explains."""

from __future__ import annotations

import pytest

from launcher.agent.health import FRESH_S, MemoryKills


@pytest.fixture
def counted(tmp_path):
    """Sets the count, in a file as the kernel has it."""

    def write(count):
        (tmp_path / "memory.events").write_text(f"low 0\noom 5\noom_kill {count}\noom_group_kill 0\n")

    write(7)
    return write


@pytest.fixture
def kills(counted, tmp_path):
    return MemoryKills([str(tmp_path / "none"), str(tmp_path / "memory.events")])


def test_each_kill_explains_one_death_and_earlier_ones_none(kills, counted):
    assert kills.explain_one() is False
    counted(8)
    assert [kills.explain_one(), kills.explain_one()] == [True, False]


def test_a_kill_whose_process_takes_its_time_to_end_still_explains_it(kills, counted):
    kills.look(100.0)
    counted(8)
    kills.look(100.0 + FRESH_S)
    assert kills.explain_one() is True


def test_an_old_kill_of_something_else_explains_nothing(kills, counted):
    kills.look(100.0)
    counted(8)
    kills.look(100.0 + FRESH_S)
    kills.look(100.0 + 2 * FRESH_S)
    assert kills.explain_one() is False
    counted(9)
    assert [kills.explain_one(), kills.explain_one()] == [True, False]


def test_where_nothing_counts_nothing_is_known(tmp_path):
    kills = MemoryKills([str(tmp_path / "none")])
    kills.look(100.0)
    assert kills.explain_one() is None
