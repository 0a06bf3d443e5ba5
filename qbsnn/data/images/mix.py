"""Mixing of whole batches: Mixup and CutMix through torchvision. Labels become shares of classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import v2

from qbsnn import checks
from qbsnn.data.randomness import Purpose, draw, torch_seeded

MIXES = {"mixup": v2.MixUp, "cutmix": v2.CutMix}


class Mix:
    """Mixes each sample with the one before it in its batch, with a share drawn from Beta(alpha, alpha).

    name: ``mixup`` (arXiv 1710.09412) or ``cutmix`` (arXiv 1905.04899). What is drawn depends on the seed and on epoch
    and index of the first sample; batches are the same whatever process makes them.
    """

    def __init__(self, name: str, alpha: float, classes: int, seed: int) -> None:
        kind = MIXES[checks.choice("mix", name, MIXES)]
        self.mix = kind(alpha=checks.number("mix_alpha", alpha, 0, open_low=True), num_classes=classes)
        self.seed = seed

    def __call__(
        self, pixels: Tensor, labels: Tensor, epochs: NDArray[np.int64], indices: NDArray[np.int64]
    ) -> tuple[Tensor, Tensor]:
        """``pixels`` ``[B, C, H, W]`` and ``labels`` int64 ``[B]`` to the same and float32 ``[B, classes]``."""
        (seed,) = draw(Purpose.MIX, self.seed, epochs[:1], indices[:1]).tolist()
        with torch_seeded(seed):
            return self.mix(pixels, labels)
