"""What a rank is to do, and with what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Mapping

from fcn.config import Config
from fcn.status import Status
from fcn.stop import StopRequest

if TYPE_CHECKING:
    from fcn.distributed import World
    from fcn.platform import Platform


@dataclass(frozen=True)
class Job:
    """Handed to a verb's `work(job) -> exit code`.

    Attributes:
        options: the verb's own, as `fcn.check` answered them (`save_masks`, `images`, `format`, ...).
        run_dir: where the verb leaves what it makes, unless its options name another place.
    """

    config: Config
    options: Mapping[str, Any]
    run_dir: Path
    device: Platform
    world: World
    status: Status
    stop: StopRequest
