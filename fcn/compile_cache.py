"""MindSpore's compiled graphs, kept in the run for the next attempt: seconds on CPU, minutes on Ascend."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

import mindspore as ms

from fcn.config import Config
from fcn.distributed import World

FOLDER = "compile-cache"  # in the run directory


@contextmanager
def compile_cache(run_dir: Path, config: Config, world: World) -> Iterator[None]:
    """What compiles inside is taken from the run's cache, or added to it.

    MindSpore takes a cached graph for the n-th one of a process whatever its shapes are: so only what is the
    same in every attempt may compile inside, and the folder's name holds all that decides it. A damaged graph
    it compiles anew.
    """
    folder = run_dir / FOLDER / f"rank-{world.rank:02}-of-{world.size:02}-{_key(config)}"
    for unfinished in folder.parent.glob(f"{folder.name}.*"):  # of an attempt that was killed
        shutil.rmtree(unfinished)
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    os.environ["MS_COMPILER_CACHE_PATH"] = str(folder if folder.exists() else made)
    os.environ["MS_COMPILER_CACHE_ENABLE"] = "1"
    try:
        yield
        if not folder.exists():
            made.rename(folder)
    finally:
        os.environ["MS_COMPILER_CACHE_ENABLE"] = "0"
        shutil.rmtree(made, ignore_errors=True)


def _key(config: Config) -> str:
    """Of configuration, MindSpore's version and the code."""
    known = hashlib.sha256(config.model_dump_json().encode() + ms.__version__.encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        known.update(source.read_bytes())
    return known.hexdigest()[:16]
