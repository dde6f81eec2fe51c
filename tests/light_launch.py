"""`light_launch.py CLUSTER RUNS_DIR SETTING...`: launches light workers; events as JSON lines on stdout.

The setting `inject=FAULT[@step][:rank]` is the launcher's --inject, the others are the workers'.
"""

import sys
from pathlib import Path

from launcher.cluster import load_cluster
from launcher.console import make_console
from launcher.errors import LaunchError
from launcher.inject import parse
from launcher.launch import launch
from launcher.run import Run

WORKER = Path(__file__).with_name("light_worker.py")


def main(cluster_file: str, runs_dir: str, *settings: str) -> int:
    cluster = load_cluster(cluster_file)
    faults = [setting.partition("=")[2] for setting in settings if setting.startswith("inject=")]
    command = (str(WORKER), *(setting for setting in settings if not setting.startswith("inject=")))
    try:
        injection = parse(faults[0], cluster) if faults else None
        run = Run.create(Path(runs_dir), cluster, "train", sys.argv)
        return launch(run, cluster, command, "train", make_console(as_json=True), injection)
    except LaunchError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


sys.exit(main(*sys.argv[1:]))
