"""The factor on the loss under mixed precision, and what becomes of it. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Dict

GROW_AFTER_STEPS = 2000
LARGEST = 2.0**30
SKIPPED_IN_A_ROW_MAX = 50  # from the largest scale to 1 takes 30


@dataclass
class LossScale:
    """Steps whose gradients overflowed are skipped and counted; a dynamic scale then halves.

    Source: Micikevicius et al., "Mixed Precision Training" (ICLR 2018), section 3.2.
    """

    value: float
    dynamic: bool
    good_steps: int = 0  # since the last change of the value
    skipped: int = 0
    skipped_in_a_row: int = 0

    def update(self, finite: bool, where: str) -> None:
        """Take a step's outcome into account; `where` names the step.

        Raises FloatingPointError where none gets through any more.
        """
        if finite:
            self.good_steps += 1
            self.skipped_in_a_row = 0
            if self.dynamic and self.good_steps >= GROW_AFTER_STEPS:
                self.value, self.good_steps = min(2 * self.value, LARGEST), 0
            return
        self.skipped += 1
        self.skipped_in_a_row += 1
        self.good_steps = 0
        if self.dynamic:
            self.value = max(self.value / 2, 1.0)
        if self.skipped_in_a_row >= SKIPPED_IN_A_ROW_MAX:
            raise FloatingPointError(
                f"{where}: the gradients of {self.skipped_in_a_row} steps in a row were not finite, now at "
                f"loss scale {self.value:g}; set dynamic_loss_scale=true, lower base_lr, or set amp_level=O2"
            )

    def state(self) -> Dict[str, Any]:
        """What a checkpoint must hold of it."""
        return asdict(self)
