"""What the trainer tells its agent: a launcher judges by it which rank holds up the others."""

import pytest

pytest.importorskip("mindspore")

from data_samples import write_samples  # noqa: E402
from trainings import run  # noqa: E402


def places(trainer, *leave_out):
    """`phase`, `what@step` and `=step`, in the order in which they were told."""
    told = []
    for event in trainer.status.events:
        if event["event"] == "phase":
            told.append(event["phase"])
        elif event["event"] == "enter" and event["what"] not in leave_out:
            told.append(f"{event['what']}@{event['step']}")
        elif event["event"] == "step":
            told.append(f"={event['step']}")
    return told


def test_compile_lasts_to_the_end_of_the_first_step_and_a_save_leads_back_to_train(make_trainer):
    _, trainer = run(make_trainer, "train_epochs=3", "save_steps=2")
    told = places(trainer)
    assert "save@3" in told
    assert [event for event in told if not event.startswith("save@")] == [  # repeated as bytes are written
        "gather@0",  # the ranks agree on the checkpoint to go on from
        *("compile", "data@1", "step@1", "=1", "train"),
        *("data@2", "step@2", "=2", "save", "train"),
        *("data@3", "step@3", "=3", "save", "train"),
        *("save", "train"),  # the last one is waited for
    ]


def test_every_collective_of_an_evaluation_is_announced_and_nothing_else_as_one(make_trainer, tmp_path):
    folder = tmp_path / "val"
    lines = write_samples(folder, 3)
    sets = (f"data_root={folder}", f"data_lst={lines}", "eval_epochs=1", "eval_batch_size=1")
    _, trainer = run(make_trainer, "train_epochs=1", "save_steps=1", *sets)
    told = places(trainer, "data", "step")
    begin = told.index("eval")
    end = told.index("train", begin)
    assert told[begin + 1 : begin + 3] == ["gather@1", "eval@0"]  # rank 0's statistics, then its own share
    between = told[begin + 3 : end]
    assert between[-1] == "gather@1"  # the matrices are summed
    assert set(between[:-1]) <= {"eval@0", "eval@1", "eval@2"}
    assert told[end:] == ["train", *["save", "save@1", "train"] * 2]  # the best is kept, and the newest
