"""What stopping early gives: ``early_exit`` (the float network) and ``integer.exit`` in ``result.json``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class EarlyExit:
    """What stopping early gives on the test images, see :mod:`qbsnn.functional.early_exit`.

    Args:
        margin: At which a decision is taken; chosen on validation images. Of means or sums of logits, or of integers Z.
        loss: Accuracy that might be given up there, as a share.
        steps: How many images left after 1, 2, ... T steps.
        checkpoint: That the weights come from.
        images: Test images.
        right: Of them classified rightly.
        right_whole: The same with all steps.
        acs: Accumulates of all images until they left, exact; in the integer network those behind its first layer.
        acs_whole: The same with all steps.
        mismatches: Of steps and classes, between engines of the integer network; must be 0.
    """

    margin: float
    loss: float
    steps: list[int] = field(default_factory=list)
    checkpoint: str = ""
    images: int = 0
    right: int = 0
    right_whole: int = 0
    acs: int = 0
    acs_whole: int = 0
    mismatches: int = 0
    skipped: str | None = None

    def add(self, steps: Sequence[int], right: Sequence[bool], right_whole: Sequence[bool]) -> None:
        """Count a batch: the steps of each image, whether it was right then, and whether it is with all steps."""
        for taken in steps:
            self.steps[taken - 1] += 1
        self.images += len(steps)
        self.right += sum(right)
        self.right_whole += sum(right_whole)

    @property
    def acc(self) -> float:
        """Accuracy, as a share."""
        return self.right / max(self.images, 1)

    @property
    def share(self) -> float:
        """Accumulates, as a share of those with all steps."""
        return self.acs / self.acs_whole if self.acs_whole else math.nan

    @property
    def mean_steps(self) -> float:
        """Time steps per image."""
        return sum(number * count for number, count in enumerate(self.steps, 1)) / max(self.images, 1)
