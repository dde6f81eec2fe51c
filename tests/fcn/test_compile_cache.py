"""The graphs of one attempt are the next one's, in real processes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mindspore")

import ranks  # noqa: E402
from data_samples import build, write_samples  # noqa: E402

USED = "Use the compilation cache"  # what MindSpore says of it
PROGRAM = str(Path(ranks.__file__).with_name("rank_program.py"))


def test_the_next_attempt_takes_the_compiled_graphs(tmp_path, small_config):
    """They are there, whole, and give the same bits; damaged ones are compiled anew."""
    build(tmp_path, write_samples(tmp_path, 4))
    config = small_config("num_classes=8", f"data_file={tmp_path}/set.mindrecord", "global_batch=4")
    (tmp_path / "config.json").write_text(json.dumps({**config.model_dump(), "train_epochs": 2}))
    said, results = [], []
    for _ in range(3):
        shutil.rmtree(tmp_path / "checkpoints", ignore_errors=True)  # from the first step again
        command = [PROGRAM, str(tmp_path), str(tmp_path / "config.json")]
        ranks.run(tmp_path, command, size=1, environ={"GLOG_v": "2"})
        said.append(USED in (tmp_path / "rank-0.log").read_text())
        results.append(dict(np.load(tmp_path / "rank-0.npz")))
        (folder,) = (tmp_path / "compile-cache").iterdir()
        (graph,) = folder.glob("rank_0/graph_cache/*.mindir")
        if len(said) == 2:
            graph.write_bytes(graph.read_bytes()[:1000])
    assert said == [False, True, False]
    for other in results[1:]:
        for name, value in results[0].items():
            np.testing.assert_array_equal(value, other[name], err_msg=name)
