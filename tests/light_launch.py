"""`light_launch.py CLUSTER RUNS_DIR SETTING...`: launches light workers; events as JSON lines on stdout.

The settings `inject=FAULT[@step][:rank]` and `max_restarts=N` are the launcher's options of these names,
`first_wait_s` is how long it waits before the first restart, `run` an existing run that it goes on with,
`worker` the words that start another worker; the others are the workers'.
"""

import sys
from pathlib import Path

from launcher.cluster import load_cluster
from launcher.console import make_console
from launcher.errors import LaunchError
from launcher.inject import parse
from launcher.launch import launch
from launcher.retry import Limits
from launcher.run import Run

WORKER = f"-S {Path(__file__).with_name('light_worker.py')}"  # without site-packages it begins twice as soon
OURS = ("inject=", "max_restarts=", "first_wait_s=", "run=", "worker=")


def main(cluster_file: str, runs_dir: str, *settings: str) -> int:
    cluster = load_cluster(cluster_file)
    ours = dict(setting.split("=", 1) for setting in settings if setting.startswith(OURS))
    words = ours.get("worker", WORKER).split()
    command = (*words, *(setting for setting in settings if not setting.startswith(OURS)))
    limits = Limits(int(ours.get("max_restarts", "0")), float(ours.get("first_wait_s", "0.05")))
    try:
        injection = parse(ours["inject"], cluster) if "inject" in ours else None
        old = ours.get("run")
        run = Run.open(Path(old)) if old else Run.create(Path(runs_dir), cluster, "train", sys.argv)
        return launch(run, cluster, command, "train", make_console(as_json=True), injection, limits)
    except LaunchError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


sys.exit(main(*sys.argv[1:]))
