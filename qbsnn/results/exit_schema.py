"""The ``early_exit`` block of ``result.json``."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class EarlyExit:
    """What stopping early gives on the test images, see :mod:`qbsnn.functional.early_exit`.

    Args:
        margin: At which a decision is taken; chosen on validation images.
        loss: Accuracy that might be given up there, as a share.
        steps: How many images left after 1, 2, ... T steps.
        checkpoint: That the weights come from.
        images: Test images.
        right: Of them classified rightly.
        right_whole: The same with all steps.
        acs: Accumulates of all images until they left, exact.
        acs_whole: The same with all steps.
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
    skipped: str | None = None

    @property
    def mean_steps(self) -> float:
        """Time steps per image."""
        return sum(number * count for number, count in enumerate(self.steps, 1)) / max(self.images, 1)
