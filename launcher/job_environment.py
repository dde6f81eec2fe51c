"""What MindCluster and ModelArts leave in the environment of a job, and how it is recognised."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Mapping, NamedTuple, Optional

from launcher.errors import UserError

# Where a table is mounted or written that no variable names
MINDCLUSTER_TABLE = "/user/serverid/devindex/config/hccl.json"
MODELARTS_TABLES = ("/home/ma-user/rank_table/jobstart_hccl.json", "/user/config/jobstart_hccl.json")
TABLE_VARIABLES = ("RANK_TABLE_FILE", "MINDSPORE_HCCL_CONFIG_PATH")  # MindSpore reads either


class Job(NamedTuple):
    """The job that this process is a part of. `node`, `nodes`: of its servers; None: not said."""

    manager: str
    node: Optional[int] = None
    nodes: Optional[int] = None
    is_per_device: bool = False  # started once for each device, not once for each server


def recognised(environ: Mapping[str, str] = os.environ) -> Optional[Job]:
    """The job of MindCluster or ModelArts that this process belongs to; None where it belongs to none."""
    if "MA_NUM_HOSTS" in environ or "MA_JOB_DIR" in environ:
        by_device = "RANK_ID" in environ and ("ASCEND_DEVICE_ID" in environ or "DEVICE_ID" in environ)
        node, nodes = _number(environ, "VC_TASK_INDEX"), _number(environ, "MA_NUM_HOSTS")
        return Job("ModelArts", node, nodes, by_device)
    if "MINDX_TASK_ID" in environ or "MINDX_SERVER_IP" in environ:
        workers, local = _number(environ, "MS_WORKER_NUM"), _number(environ, "MS_LOCAL_WORKER")
        nodes = workers // local if workers and local else None
        return Job("MindCluster", _number(environ, "MS_NODE_RANK"), nodes)
    return None


def rank_table_path(environ: Mapping[str, str] = os.environ) -> Optional[Path]:
    """The rank table of the job: what a variable names, or the file at a place known of the job's manager."""
    for name in TABLE_VARIABLES:
        if environ.get(name):
            return Path(environ[name])
    job = recognised(environ)
    if job is not None and job.manager == "MindCluster":
        return Path(MINDCLUSTER_TABLE)
    places = MODELARTS_TABLES if job is not None else (MINDCLUSTER_TABLE, *MODELARTS_TABLES)
    return next((Path(place) for place in places if Path(place).exists()), None)


def require_one_launcher(environ: Mapping[str, str] = os.environ) -> None:
    """Raises UserError where the job starts a launcher for each device or server, which would all start the
    whole training."""
    job = recognised(environ)
    if job is None:
        return
    if job.is_per_device:
        raise UserError(
            f"{job.manager} has started this as rank {environ['RANK_ID']}, once for each device, and "
            "fcn-launch starts the workers of all devices itself; start it once a server (ModelArts: "
            "MA_RUN_METHOD=msrun), or name `python -m fcn.worker train` as the program, with "
            "FCN_RENDEZVOUS=rank_table and FCN_PLATFORM=ascend"
        )
    if job.node:
        of = f" of {job.nodes}" if job.nodes else ""
        raise UserError(
            f"{job.manager} has started this on node {job.node}{of}, and fcn-launch on node 0 starts the "
            "workers of all nodes through each host's `prefix`; start it on node 0 alone, and "
            "`sleep infinity` on the others"
        )


def _number(environ: Mapping[str, str], name: str) -> Optional[int]:
    text = environ.get(name, "")
    return int(text) if text.isascii() and text.isdigit() else None
