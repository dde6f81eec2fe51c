"""`fcn-launch plan`: what it prints and writes, what it imports, and that it starts nothing."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, List, Optional

import pytest
from click.testing import CliRunner

from launcher.cli.plan import plan
from launcher.errors import PreflightError, UserError

HEAVY = ("mindspore", "numpy", "cv2", "pydantic", "jinja2", "rich", "psutil", "fcn")


def run(cluster: Optional[str], *arguments: str) -> str:
    result = CliRunner().invoke(plan, list(arguments), obj=SimpleNamespace(cluster=cluster))
    if result.exception:
        raise result.exception
    return result.output


def planned(cluster: str) -> Any:
    return json.loads(run(cluster, "--json"))


def test_it_prints_ranks_command_environment_and_where_the_files_are(tmp_path: Path) -> None:
    output = run("8xascend910.yaml", "--out", str(tmp_path / "out"))
    assert "7     node1  7       192.4.27.7  rank-07.log" in output
    assert f"rank-00 on node1 runs: {sys.executable} -m fcn.worker train" in output
    assert f"  RANK_TABLE_FILE={tmp_path}/out/rank_table.json\n" in output
    assert f"files: {tmp_path}/out" in output
    assert (tmp_path / "out" / "rank_table.json").is_file() and (tmp_path / "out" / "rank-07.env").is_file()


def test_facts_of_this_machine_are_used_for_the_local_engine() -> None:
    found = planned("2xcpu.yaml")
    assert found["master_port"] > 1023 and found["notes"] == []
    assert found["processes"][0]["env"]["OMP_NUM_THREADS"].isdigit()


def test_devices_in_reserve_have_no_rank(tmp_path: Path) -> None:
    path = tmp_path / "spare.yaml"
    path.write_text("device_kind: cpu\nhosts: [{name: a, address: 127.0.0.1, devices: 3}]\nspares: 1\n")
    found = planned(str(path))
    assert [process["device_id"] for process in found["processes"]] == [0, 1]
    assert found["notes"] == ["device 2 of a is kept in reserve"]


def test_hosts_that_cannot_be_asked_are_said_to_be_unknown() -> None:
    output = run("2x16xascend910_93.yaml")
    assert "rendezvous scheduler at 172.16.0.110:a free port" in output
    assert "note: the port on 172.16.0.110 is chosen when the run starts" in output


def test_without_a_cluster_the_shipped_files_are_named() -> None:
    with pytest.raises(UserError, match="--cluster FILE VERB.*2x8xascend910.yaml"):
        run(None)


def test_a_fixed_port_in_use_is_refused(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        file = tmp_path / "c.yaml"
        file.write_text(
            "device_kind: cpu\nhosts: [{name: here, address: 127.0.0.1, devices: 2}]\n"
            f"master_port: {port}\n"
        )
        with pytest.raises(PreflightError, match=f"here: TCP port {port} is in use"):
            run(str(file))
    assert planned(str(file))["master_port"] == port


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_it_imports_nothing_heavy(arguments: List[str]) -> None:
    script = (
        "import sys; from types import SimpleNamespace as S; from launcher.cli.plan import plan\n"
        f"plan.main({arguments!r}, obj=S(cluster='8xascend910.yaml'), standalone_mode=False)\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stderr.strip() == "[]"
