"""The lines of metrics.jsonl, after a kill and on a full disk."""

import json

from fcn.metrics_file import NAME, MetricsFile


def test_each_event_is_a_line_of_its_attempt(tmp_path, monkeypatch):
    for attempt in (1, 2):
        monkeypatch.setenv("FCN_ATTEMPT", str(attempt))
        file = MetricsFile(tmp_path / "run")
        file.append("step", step=1, loss=0.1)
        file.sync()
    lines = [json.loads(line) for line in (tmp_path / "run" / NAME).read_text().splitlines()]
    assert [(line["event"], line["attempt"], line["loss"]) for line in lines] == [
        ("step", 1, 0.1),
        ("step", 2, 0.1),
    ]


def test_a_line_that_was_cut_short_does_not_swallow_the_next(tmp_path):
    (tmp_path / NAME).write_text('{"event": "step", "lo')
    MetricsFile(tmp_path).append("step", step=2)
    cut, line = (tmp_path / NAME).read_text().splitlines()
    assert cut == '{"event": "step", "lo' and json.loads(line)["step"] == 2


def test_a_full_disk_is_said_once_and_ends_nothing(tmp_path, capfd):
    (tmp_path / NAME).symlink_to("/dev/full")
    file = MetricsFile(tmp_path)
    for step in (1, 2):
        file.append("step", step=step)
    file.sync()
    said = capfd.readouterr().err
    assert said.count("No space left on device; lines are lost until there is room") == 1
