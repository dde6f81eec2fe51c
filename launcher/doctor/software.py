"""Programs: CANN, driver, MindSpore, Python and the code itself, equal everywhere and fitting each other."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

from launcher import cann
from launcher.doctor.check import Check, Finding, Request, View, odd_ones

DRIVER_INFO = Path("/usr/local/Ascend/driver/version.info")
TOOLKITS = (Path("/usr/local/Ascend/cann"), Path("/usr/local/Ascend/ascend-toolkit"))
LIBRARIES = ("libascendcl.so", "libhccl.so")
MINDSPORE = "2.10"
PYTHON_VERSION = ".".join(map(str, sys.version_info[:3]))
PYTHON = ((3, 9), (3, 13))  # from, and below
CODE = ("launcher", "fcn")
CODE_SUFFIXES = (".py", ".yaml")
TEXTS = ("templates", "cluster_configs")  # inside the package where it is installed, beside it in a checkout
UNKNOWN = "of a version that is not told"
TITLES = {"cann": "CANN", "driver": "driver", "mindspore": "MindSpore", "python": "Python"}


def gather_versions(request: Request) -> Dict[str, Any]:
    """Versions; None: not there. *_inner and *_fits: what driver and CANN say of each other's versions."""
    driver = _info(DRIVER_INFO)
    cann = _info(_toolkit_info())
    return {
        "python": PYTHON_VERSION,
        "mindspore": _installed("mindspore"),
        "driver": driver.get("version"),
        "driver_inner": driver.get("innerversion"),
        "driver_fits": _bracketed(driver.get("compatible_version", "")),
        "cann": cann.get("version"),
        "cann_inner": cann.get("innerversion"),
        "cann_fits": _bracketed(cann.get("compatible_version", "")),
    }


def _toolkit_info() -> Optional[Path]:
    """The file that names CANN's version, of the toolkit that the environment leads to."""
    for home in map(Path, cann.homes()):
        for file in sorted(home.glob("*-linux/ascend_toolkit_install.info")) + [
            home / "ascend_toolkit_install.info"
        ]:
            if file.is_file():
                return file
    return None


def _info(path: Optional[Path]) -> Dict[str, str]:
    """A file of `name=value` lines, names in lower case; empty where there is none."""
    try:
        lines = [] if path is None else path.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    pairs = (line.partition("=") for line in lines if "=" in line)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _bracketed(text: str) -> List[str]:
    """`[V100R001C30],[V100R001C13,V100R001C19]` as a list."""
    return re.findall(r"[\w.]+", text)


def _installed(name: str) -> Optional[str]:
    """Version of an installed package, off its folder's name: importing it is slow. None: it is not there."""
    for entry in filter(None, sys.path):
        for folder in Path(entry).glob(f"{name}-*.dist-info"):
            return folder.name[len(name) + 1 : -len(".dist-info")]
    return None if importlib.util.find_spec(name) is None else UNKNOWN


def judge_versions(view: View) -> Iterator[Finding]:
    known = {host.name: versions for host, versions in view.each("versions")}
    for name, title in TITLES.items():
        if name in ("cann", "driver") and not view.cluster.chip.is_ascend:
            continue
        told = {host: versions[name] for host, versions in known.items()}
        if name == "cann":  # without an environment there is none, which is told by itself
            told = {host: version for host, version in told.items() if version is not None}
        for host, version, usual in odd_ones(told):
            yield Finding(
                host,
                f"{title} {version or 'is not found'}, on most hosts {usual or 'there is none'}",
                "ranks of different versions fail when they meet (EI0008), or compute different numbers",
                f"install {title} {usual} there" if usual else "install the same on all",
            )
    nowhere = not any(versions["mindspore"] for versions in known.values())
    for host, versions in known.items():
        mindspore = versions["mindspore"]
        if mindspore != UNKNOWN and (nowhere if mindspore is None else not _is_ours(mindspore)):
            yield Finding(
                host,
                f"MindSpore {mindspore or 'is not found'} in {view.cluster.python}",
                "the workers do not start, or behave in ways that were not tested",
                f"`pip install mindspore~={MINDSPORE}.0` there, or name another `python` in the cluster file",
            )
        yield from _fitting(host, versions, view.cluster.chip.is_ascend)


def _is_ours(mindspore: str) -> bool:
    return f"{mindspore}.".startswith(f"{MINDSPORE}.")


def _fitting(host: str, versions: Dict[str, Any], is_ascend: bool) -> Iterator[Finding]:
    python = tuple(int(part) for part in versions["python"].split(".")[:2])
    if not PYTHON[0] <= python < PYTHON[1]:
        yield Finding(
            host,
            f"Python {versions['python']}",
            "MindSpore has no build for it",
            "name a Python 3.9 to 3.12 as `python` in the cluster file",
        )
    inner = {name: re.match(r"V\d+R\d+C\d+", versions[f"{name}_inner"] or "") for name in ("cann", "driver")}
    if is_ascend and inner["cann"] and inner["driver"]:
        fits = inner["cann"].group() in versions["driver_fits"]
        if not fits and inner["driver"].group() not in versions["cann_fits"]:
            yield Finding(
                host,
                f"CANN {versions['cann']} ({inner['cann'].group()}) and driver {versions['driver']}"
                f" ({inner['driver'].group()}) do not name each other as compatible",
                "operators may fail in ways that do not tell of it",
                "install the pair that Huawei's version table names",
                fatal=False,
            )


def gather_environment(request: Request) -> Dict[str, Any]:
    """home: CANN's folder as the environment has it; missing: libraries that would not be found; scripts:
    set_env.sh files that are there."""
    folders = [Path(entry) for entry in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if entry]
    return {
        "home": next(iter(cann.homes()), None),
        "missing": [name for name in LIBRARIES if not any((folder / name).exists() for folder in folders)],
        "scripts": [str(folder / "set_env.sh") for folder in TOOLKITS if (folder / "set_env.sh").exists()],
    }


def judge_environment(view: View) -> Iterator[Finding]:
    for host, environment in view.each("environment"):
        script = (environment["scripts"] or ["/usr/local/Ascend/ascend-toolkit/set_env.sh"])[0]
        remedy = f"source {script} before: for ssh as `prefix: [ssh, HOST, 'source {script};']`"
        missing = environment["missing"]
        if environment["home"] is None:
            what = "CANN's set_env.sh is not sourced in the environment that workers get there"
        elif missing:
            what = f"{', '.join(missing)} not found on LD_LIBRARY_PATH"
        else:
            continue
        # an image of a container may set but a part of it, or name the libraries to the system
        fatal = environment["home"] is None and bool(missing)
        causes = "MindSpore finds no Ascend and the workers do not start"
        yield Finding(host.name, what, causes, remedy, fatal=fatal)


def gather_code(request: Request) -> str:
    """A digest of the launcher's and the trainer's files, with their names."""
    digest = hashlib.sha256()
    for package in CODE:
        spec = importlib.util.find_spec(package)
        folder = Path(spec.origin).parent if spec is not None and spec.origin else None
        if folder is None:
            raise FileNotFoundError(f"there is no package {package} there")
        files = (path for path in folder.rglob("*") if path.suffix in CODE_SUFFIXES)
        for path in sorted(path for path in files if path.parent.name not in TEXTS):
            digest.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def judge_code(view: View) -> Iterator[Finding]:
    for host, _, _ in odd_ones({host.name: digest for host, digest in view.each("code")}):
        yield Finding(
            host,
            "the code of fcn-launch differs from that on most hosts",
            "ranks that run different code wait for each other for ever, or train something else",
            "install the same version there, or use one folder that all hosts share",
        )


CHECKS = (
    Check("versions", gather_versions, judge_versions),
    Check("environment", gather_environment, judge_environment, ascend=True),
    Check("code", gather_code, judge_code),
)
