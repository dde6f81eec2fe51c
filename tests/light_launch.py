"""`light_launch.py CLUSTER RUNS_DIR SETTING...`: launches light workers; events as JSON lines on stdout."""

import sys
from pathlib import Path

from launcher.cluster import load_cluster
from launcher.console import make_console
from launcher.errors import LaunchError
from launcher.launch import launch
from launcher.run import Run

WORKER = Path(__file__).with_name("light_worker.py")


def main(cluster_file: str, runs_dir: str, *settings: str) -> int:
    cluster = load_cluster(cluster_file)
    run = Run.create(Path(runs_dir), cluster, "train", sys.argv)
    try:
        return launch(run, cluster, (str(WORKER), *settings), "train", make_console(as_json=True))
    except LaunchError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


sys.exit(main(*sys.argv[1:]))
