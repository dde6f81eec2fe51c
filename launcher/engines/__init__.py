"""Where agents are started: an engine only gives the argv of a host's agent, the rest is the same for all."""

from __future__ import annotations

from typing import Dict

from launcher.engines.base import Engine
from launcher.engines.exec import ExecEngine
from launcher.engines.local import LocalEngine

ENGINES: Dict[str, Engine] = {"local": LocalEngine(), "exec": ExecEngine()}
