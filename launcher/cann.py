"""Where the CANN toolkit is, as its set_env.sh leaves it in the environment."""

from __future__ import annotations

import os
from typing import List

VARIABLES = ("ASCEND_TOOLKIT_HOME", "ASCEND_HOME_PATH")  # every set_env.sh sets one of them


def homes() -> List[str]:
    """Folders of the toolkit; none where no set_env.sh was sourced."""
    return [os.environ[name] for name in VARIABLES if os.environ.get(name)]
