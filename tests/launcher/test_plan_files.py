"""The files of a plan: read back by bash and by JSON, written whole or not at all."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Dict

import pytest

from launcher import rank_table_file, rank_table_forms
from launcher.cluster import cluster_from, load_cluster
from launcher.errors import UserError
from launcher.plan import make_plan
from launcher.plan_files import ranks_text, render, write_plan
from launcher.plan_types import HostFacts, Job, Plan

FACTS = {
    "localhost": HostFacts(cores=2, machine="x86_64", free_ports=(20001,)),
    "node1": HostFacts(free_ports=(20001,)),
}
AWKWARD = {
    "SPACES": "two  words",
    "QUOTES": 'it\'s "quoted"',
    "SHELL": "$HOME `id` $(id) \\ !x ; rm -rf / # no",
    "LINES": "one\ntwo\n",
    "EMPTY": "",
    "GLOB": "*.yaml",
    "ACCENT": "déjà",
}


def plan_of(name: str, run_dir: str = "/runs/r 1", **more: object) -> Plan:
    cluster = replace(load_cluster(name), python="/opt/py thon", **more)  # type: ignore[arg-type]
    return make_plan(cluster, Job("train", run_dir, ("-m", "fcn.worker", "train")), FACTS)


def sourced(path: Path) -> Dict[str, str]:
    """What bash exports after it has sourced the file, beginning with nothing."""
    script = 'set -a; . "$1"; exec env -0'
    output = subprocess.run(
        ["/usr/bin/env", "-i", "bash", "-c", script, "-", str(path)], stdout=subprocess.PIPE, check=True
    ).stdout
    pairs = dict(entry.split("=", 1) for entry in output.decode().split("\0") if entry)
    return {
        name: value for name, value in pairs.items() if name not in ("PWD", "SHLVL", "_", "OLDPWD", "PATH")
    }


@pytest.mark.parametrize("name", ["2xcpu.yaml", "8xascend910.yaml", "2x8xascend910.yaml"])
def test_sourcing_an_env_file_gives_the_planned_environment(tmp_path: Path, name: str) -> None:
    plan = plan_of(name, str(tmp_path / "run"), env=AWKWARD)
    write_plan(plan, tmp_path / "plan")
    for process in plan.processes[:3]:
        assert sourced(tmp_path / "plan" / f"{process.name}.env") == process.env


def test_an_env_file_explains_itself() -> None:
    plan = plan_of("8xascend910.yaml", env={"HCCL_BUFFSIZE": "100"})
    lines = render(plan, has_run=True)["rank-03.env"].splitlines()
    assert lines[0].startswith("# rank-03 of attempt 1, on node1, device 3.")
    assert lines[1] == "#   set -a; . ./rank-03.env; set +a; '/opt/py thon' -m fcn.worker train"
    assert lines.index("# From `env` of the cluster file") == lines.index("HCCL_BUFFSIZE=100") - 1
    names = [line.split("=")[0] for line in lines if line and not line.startswith("#")]
    assert len(names) == len(set(names))
    for index, line in enumerate(lines):
        if line and not line.startswith("#"):
            assert lines[index - 1], f"{line} has no comment above its group"
            assert lines[index - 1].startswith("#") or "=" in lines[index - 1]


def test_the_command_by_hand_is_given_where_it_would_work(tmp_path: Path) -> None:
    write_plan(plan_of("2xcpu.yaml", str(tmp_path)), tmp_path / "before")
    (tmp_path / "run.yaml").touch()
    write_plan(plan_of("2xcpu.yaml", str(tmp_path)), tmp_path / "run")
    write_plan(replace(plan_of("2xcpu.yaml", str(tmp_path)), master_port=None), tmp_path / "port")
    heads = {
        name: (tmp_path / name / "rank-00.env").read_text().partition("\n\n")[0]
        for name in ("before", "run", "port")
    }
    assert "there is missing:\n#   the run folder with its run.yaml" in heads["before"]
    assert "port" not in heads["before"] and "set -a" not in heads["before"]
    assert "By hand:\n#   set -a; . ./rank-00.env; set +a; '/opt/py thon' -m fcn" in heads["run"]
    assert "there is missing:\n#   the port on 127.0.0.1, which is chosen" in heads["port"]


def test_every_planned_variable_has_its_group_in_the_template() -> None:
    for name in ("2xcpu.yaml", "8xascend910.yaml", "2x16xascend910_93.yaml"):
        files = render(plan_of(name), has_run=True)
        assert not any("of the cluster file" in text for file, text in files.items() if file.endswith(".env"))


def test_plan_json_and_rank_table(tmp_path: Path) -> None:
    plan = plan_of("8xascend910.yaml", str(tmp_path / "run"))
    names = write_plan(plan, tmp_path / "attempt-001" / "plan")
    folder = tmp_path / "attempt-001" / "plan"
    assert sorted(path.name for path in folder.iterdir()) == names
    assert names == sorted(
        ["plan.json", "rank_table.json", "ranks.txt", "peers.json", "scheduler.env"]
        + [f"rank-0{i}.env" for i in range(8)]
    )
    table = rank_table_file.read(folder / "rank_table.json")
    assert rank_table_forms.render(table) == plan.rank_table
    recorded = json.loads((folder / "plan.json").read_text())
    assert recorded == json.loads(json.dumps(plan.to_dict()))
    assert recorded["processes"][3]["env"] == plan.processes[3].env
    assert Path(plan.processes[3].env["ASCEND_PROCESS_LOG_PATH"]).is_dir()


def test_the_ranks_for_people() -> None:
    lines = ranks_text(plan_of("8xascend910.yaml")).splitlines()
    assert lines[0].split() == ["RANK", "HOST", "DEVICE", "ADDRESS", "LOG"]
    assert lines[1].split() == ["-", "node1", "-", "10.0.0.1", "scheduler.log"]
    assert lines[9].split() == ["7", "node1", "7", "192.4.27.7", "rank-07.log"]
    assert len({line.index(cell) for line, cell in zip(lines[2:], ["192"] * 8)}) == 1


def test_an_empty_folder_is_filled_and_a_full_one_kept(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    write_plan(plan_of("2xcpu.yaml"), target)
    (target / "mine").write_text("mine")
    with pytest.raises(UserError, match="exists and is not an empty folder; name a new one"):
        write_plan(plan_of("2xcpu.yaml"), target)
    assert (target / "mine").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file/plan: the plan cannot be written: .*; name a folder"):
        write_plan(plan_of("2xcpu.yaml"), tmp_path / "file" / "plan")


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    script = (
        "import resource, sys; from pathlib import Path\n"
        "from launcher.cluster import load_cluster; from launcher.errors import UserError\n"
        "from launcher.plan import make_plan; from launcher.plan_files import write_plan\n"
        "from launcher.plan_types import Job\n"
        "plan = make_plan(load_cluster('8xascend910.yaml'), Job('train', sys.argv[1], ('-m', 'x')), {})\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))  # plan.json is longer\n"
        "try: write_plan(plan, Path(sys.argv[1]) / 'out')\n"
        "except UserError as error: print(error)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert output.startswith(f"{tmp_path}/out: the plan cannot be written: File too large")
    assert list(tmp_path.iterdir()) == []


def test_a_large_plan_keeps_its_files_apart() -> None:
    hosts = [{"name": "big", "address": "10.0.0.1", "devices": 150}]
    cluster = cluster_from({"device_kind": "cpu", "hosts": hosts}, "test.yaml")
    files = render(make_plan(cluster, Job("train", "/r", ("-m", "x")), {}), has_run=True)
    assert {f"rank-{i:03d}.env" for i in range(150)} <= set(files)


def test_processes_with_other_variables_have_files_of_their_own(tmp_path: Path) -> None:
    """Files are rendered together where the variables have the same names, whatever their values."""
    plan = plan_of("8xascend910.yaml", str(tmp_path), env={"name": "mine", "command": "x y"})
    different = replace(plan.processes[3], env={**plan.processes[3].env, "ONE_MORE": "1"})
    plan = replace(plan, processes=(*plan.processes[:3], different, *plan.processes[4:]))
    write_plan(plan, tmp_path / "plan")
    for process in plan.processes:
        assert sourced(tmp_path / "plan" / f"{process.name}.env") == process.env
    heads = [text.splitlines()[0] for text in (render(plan, True)[f"rank-0{i}.env"] for i in (0, 7))]
    assert heads[0].startswith("# rank-00 of attempt 1, on node1, device 0.")
    assert heads[1].startswith("# rank-07 of attempt 1, on node1, device 7.")


def test_the_peers_are_a_file_for_the_ranks(tmp_path: Path) -> None:
    plan = plan_of("8xascend910.yaml", str(tmp_path))
    assert json.loads(render(plan, True)["peers.json"])[3] == [None, 3, "127.0.0.1"]
    assert "peers.json" not in render(plan_of("1xcpu.yaml"), True)


def test_many_files_are_written_through_at_once(tmp_path: Path) -> None:
    hosts = [{"name": "big", "address": "10.0.0.1", "devices": 100}]
    cluster = cluster_from({"device_kind": "cpu", "hosts": hosts}, "test.yaml")
    names = write_plan(make_plan(cluster, Job("train", str(tmp_path), ("-m", "x")), {}), tmp_path / "plan")
    assert len(names) == 103 and sorted(p.name for p in (tmp_path / "plan").iterdir()) == names
