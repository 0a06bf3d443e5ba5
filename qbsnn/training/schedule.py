"""Learning rate schedules that torch has no single class for."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from qbsnn import checks


def warmup_cosine(optimizer: Optimizer, epochs: int, warmup: int = 5) -> LambdaLR:
    """A rate that rises in ``warmup`` equal steps to the optimiser's own, then falls by a cosine towards 0.

    Stepped once per epoch e, from 0: factor (e + 1)/warmup below ``warmup``, then (1 + cos(π·(e − warmup)/(epochs −
    warmup)))/2. With ``warmup`` of at least ``epochs`` it only rises. Raises SettingsError for bad numbers.
    """
    checks.integer("epochs", epochs, 1)
    checks.integer("warmup", warmup, 0)

    def factor(epoch: int) -> float:
        if epoch < warmup:
            return (epoch + 1) / warmup
        return (1 + math.cos(math.pi * min((epoch - warmup) / max(epochs - warmup, 1), 1))) / 2

    return LambdaLR(optimizer, factor)
