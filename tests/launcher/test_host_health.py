from __future__ import annotations

import pytest

from launcher.host_health import warnings

WELL = {
    "cpu": 1.0,
    "memory_free_mb": 20_000,
    "memory_mb": 24_000,
    "disk_free_mb": 50_000,
    "disk_mb": 100_000,
    "clock_offset_s": 0.2,
}


def test_nothing_is_said_of_a_host_that_is_well_or_of_what_is_not_known():
    assert warnings("h1", WELL) == {}
    assert warnings("h1", dict.fromkeys(WELL)) == {}


@pytest.mark.parametrize(
    ("change", "what", "text"),
    [
        ({"disk_free_mb": 1_234}, "disk", "1.2 GB are free on the disk of the run directory"),
        ({"memory_free_mb": 600}, "memory", "0.6 of 24 GB of memory are left"),
        ({"disk_silent_s": 12}, "silent disk", "the run directory has not answered for 12 s"),
        ({"clock_offset_s": -3.21}, "clock", "its clock is 3.2 s behind"),
        ({"clock_offset_s": 2.0}, "clock", "its clock is 2.0 s ahead"),
        ({"devices_missing": [3]}, "device 3", "device 3 is gone from the system"),
    ],
)
def test_what_runs_low_is_told_with_its_host(change, what, text):
    found = warnings("h1", {**WELL, **change})
    assert list(found) == [what]
    assert found[what].startswith("host h1: ") and text in found[what]
