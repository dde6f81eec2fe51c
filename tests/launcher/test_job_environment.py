"""Jobs of MindCluster and ModelArts: recognised by their environment, and their rank table found."""

from __future__ import annotations

from pathlib import Path
from typing import Dict

import pytest
from cluster_files import TWO_SERVERS, load, one_host
from tables import servers

from launcher.errors import PreflightError, UserError
from launcher.job_environment import Job, rank_table_path, recognised, require_one_launcher
from launcher.rank_table_forms import to_text

MODELARTS = {"MA_NUM_HOSTS": "4", "MA_NUM_GPUS": "8", "VC_TASK_INDEX": "0", "VC_WORKER_NUM": "4"}
MINDCLUSTER = {
    "MINDX_TASK_ID": "4b5c",
    "MS_ROLE": "MS_WORKER",
    "MS_NODE_RANK": "1",
    "MS_LOCAL_WORKER": "8",
    "MS_WORKER_NUM": "16",
}


def refusal(environ: Dict[str, str]) -> str:
    with pytest.raises(UserError) as caught:
        require_one_launcher(environ)
    return str(caught.value)


def test_jobs_are_recognised() -> None:
    assert recognised({"RANK_ID": "0", "MS_ROLE": "MS_WORKER"}) is None
    assert recognised(MODELARTS) == Job("ModelArts", 0, 4)
    assert recognised(MINDCLUSTER) == Job("MindCluster", 1, 2)
    assert recognised({"MINDX_SERVER_IP": "10.0.0.1"}) == Job("MindCluster")


def test_their_rank_table_is_found() -> None:
    assert rank_table_path({**MODELARTS, "RANK_TABLE_FILE": "/t.json"}) == Path("/t.json")
    assert rank_table_path({"MINDSPORE_HCCL_CONFIG_PATH": "/u.json"}) == Path("/u.json")
    assert rank_table_path(MINDCLUSTER) == Path("/user/serverid/devindex/config/hccl.json")


def test_one_launcher_of_many_goes_on() -> None:
    require_one_launcher({})
    require_one_launcher(MODELARTS)
    by_device = {**MODELARTS, "RANK_ID": "3", "RANK_SIZE": "32", "ASCEND_DEVICE_ID": "3"}
    text = refusal(by_device)
    assert text.startswith("ModelArts has started this as rank 3, once for each device")
    assert "MA_RUN_METHOD=msrun" in text and "FCN_RENDEZVOUS=rank_table" in text
    assert "on node 2 of 4, and fcn-launch on node 0" in refusal({**MODELARTS, "VC_TASK_INDEX": "2"})
    assert refusal(MINDCLUSTER).startswith("MindCluster has started this on node 1 of 2")


def test_the_table_of_the_job_is_taken_where_the_file_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "jobstart_hccl.json").write_text(to_text(servers()))
    monkeypatch.setenv("MA_NUM_HOSTS", "2")
    monkeypatch.setenv("RANK_TABLE_FILE", str(tmp_path / "jobstart_hccl.json"))
    assert load(tmp_path, "device_kind: ascend910\nrank_table: auto\n").world_size == 4
    assert capsys.readouterr().err == ""
    load(tmp_path, TWO_SERVERS)
    note = f"note: this is a job of ModelArts, whose rank table {tmp_path}/jobstart_hccl.json is not used"
    assert capsys.readouterr().err.startswith(note)
    with pytest.raises(PreflightError, match="later.json: no such file yet, still after 1 s"):
        load(tmp_path, "device_kind: ascend910\nrank_table: later.json\ntimeouts: {start_s: 1}\n")
    assert "waiting for" in capsys.readouterr().err
    load(tmp_path, one_host("cpu", "2"))
    assert capsys.readouterr().err == ""
