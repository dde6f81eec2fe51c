from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from launching import FOREVER, LOCAL_CLUSTER, REPOSITORY, TWO_HOSTS, Launch, closing

from launcher.cluster import load_cluster
from launcher.engines import ENGINES
from launcher.engines.link import AgentLink, with_checkout


@pytest.fixture
def cluster(tmp_path):
    def make(text):
        path = tmp_path / "cluster.yaml"
        path.write_text(text)
        return load_cluster(str(path))

    return make


def argv(cluster, host=0):
    return ENGINES[cluster.engine].agent_argv(cluster.hosts[host], cluster)


def test_an_agent_was_last_heard_when_it_said_its_last_word(tmp_path):
    link = AgentLink("h1", ["echo", '{"event": "pong", "time_ns": 5}'], tmp_path / "log", os.environ)
    try:
        while not link.ended:  # the end comes after, and is no word
            link.read()
        assert link.heard_ns == 5
    finally:
        link.close()


def test_the_local_agent_is_a_plain_child(cluster):
    made = cluster(LOCAL_CLUSTER.format(devices=2, grace_s=1))
    assert argv(made) == [sys.executable, "-m", "launcher.agent"]


def test_the_agent_is_told_which_port_and_which_devices_to_look_at(cluster):
    made = load_cluster("8xascend910.yaml")
    assert argv(made)[-4:] == ["--devices", "0,1,2,3,4,5,6,7", "--address", "10.0.0.1"]
    fixed = cluster(LOCAL_CLUSTER.format(devices=2, grace_s=1) + "master_port: 29400\n")
    assert argv(fixed)[-2:] == ["--port", "29400"]


def test_another_interpreter_is_used_for_the_agent(cluster):
    made = cluster(LOCAL_CLUSTER.format(devices=2, grace_s=1) + "python: /opt/python/bin/python3\n")
    assert argv(made)[0] == "/opt/python/bin/python3"


def test_a_prefix_comes_first_and_a_checkout_is_found_behind_it(cluster):
    made = cluster(TWO_HOSTS.format(prefix1="[ssh, h1]", prefix2="[nsenter, -t, '1']", grace_s=1))
    agent = ["env", f"PYTHONPATH={REPOSITORY}", sys.executable, "-m", "launcher.agent", "--lease", "10"]
    assert argv(made, 0) == ["ssh", "h1", *agent]
    assert argv(made, 1) == ["nsenter", "-t", "1", *agent]


def fake_ssh(folder):
    """As ssh does: its words joined by spaces, for a shell that knows nothing of our environment."""
    ssh = folder / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text('#!/bin/sh\nshift\nexec env -i PATH="$PATH" bash -c "$*"\n')
    ssh.chmod(0o755)
    return ssh


def test_words_with_spaces_and_a_script_to_source_get_through_ssh(tmp_path):
    ssh = fake_ssh(tmp_path)
    (tmp_path / "set_env.sh").write_text("export PLACE=sourced\n")
    wrapper = tmp_path / "a folder" / "python"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    wrapper.chmod(0o755)
    prefix = f'["{ssh}", h, "source {tmp_path}/set_env.sh;"]'
    text = TWO_HOSTS.format(prefix1=prefix, prefix2=prefix, grace_s=1) + f"python: {wrapper}\n"
    with closing() as made:
        launch = Launch(tmp_path, text, *FOREVER)
        made.append(launch)
        launch.until_training(2)
        for event in launch.all("started"):
            assert b"PLACE=sourced" in Path(f"/proc/{event['pid']}/environ").read_bytes().split(b"\0")
        launch.signal(signal.SIGINT)
        assert launch.finish() == 130


def test_a_checkout_is_put_before_the_users_own_python_path():
    assert with_checkout({"PYTHONPATH": "/mine", "A": "1"}) == {
        "PYTHONPATH": f"{REPOSITORY}{os.pathsep}/mine",
        "A": "1",
    }


def test_an_installed_package_adds_nothing(tmp_path):
    site = tmp_path / "site-packages"
    shutil.copytree(REPOSITORY / "launcher", site / "launcher", ignore=shutil.ignore_patterns("__pycache__"))
    code = "from launcher.engines.link import with_checkout; print(with_checkout({}))"
    environment = {**os.environ, "PYTHONPATH": str(site)}
    said = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True)
    assert said.stdout == b"{}\n"


def test_hosts_that_share_nothing_but_the_folder_run_workers_from_a_checkout(tmp_path):
    bare = f'["env", "-i", "PATH={os.environ["PATH"]}"]'  # as ssh: none of the launcher's environment arrives
    with closing() as made:
        launch = Launch(tmp_path, TWO_HOSTS.format(prefix1=bare, prefix2=bare, grace_s=1), "steps=1")
        made.append(launch)
        assert launch.finish() == 0
        assert {event["host"] for event in launch.all("started")} == {"h1", "h2"}
