"""Learning rate schedules that torch has no single class for."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from qbsnn import checks
from qbsnn.errors import ArgumentError


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


def one_cycle(
    optimizer: Optimizer, steps: int, warmup: float = 0.25, shape: str = "linear", final: float = 0.0
) -> LambdaLR:
    """A rate that rises in a straight line from near 0 to the optimiser's own, then falls, in every step of a fit.

    Steps count from 0, and w = warmup·steps. The factor is (step + 1)/w while step + 1 < w, then ``final`` +
    (1 − ``final``)·h(x) with x = max(0, (step − w)/(steps − w)), where h(x) = 1 − x for ``linear`` (a triangle) and
    (1 + cos πx)/2 for ``cosine`` (arXiv 1708.07120). So if w is whole and not 0, the steps w − 1 and w both have the
    factor 1; and the last step is one step short of ``final``.

    >>> from torch import optim, zeros
    >>> schedule = one_cycle(optim.SGD([zeros(1)], lr=1.0), steps=8)
    >>> [round(schedule.lr_lambdas[0](step), 3) for step in range(9)]
    [0.5, 1.0, 1.0, 0.833, 0.667, 0.5, 0.333, 0.167, 0.0]

    Args:
        optimizer: whose rates are the highest.
        steps: of the whole fit; given by whoever trains.
        warmup: share of the steps in which the rate rises.
        shape: ``linear`` or ``cosine``.
        final: factor that a step after the last one would have.

    Raises:
        ArgumentError: for a bad value.
    """
    checks.integer("steps", steps, 1)
    checks.number("warmup", warmup, 0, 1)
    checks.number("final", final, 0, 1)
    if warmup == 1:
        raise ArgumentError("warmup must be below 1, got 1")
    cosine = checks.choice("shape", shape, ("linear", "cosine")) == "cosine"

    def factor(step: int) -> float:
        done = min((step + 1) / steps, 1)
        if done < warmup:
            return done / warmup
        part = min((step - warmup * steps) / ((1 - warmup) * steps), 1) if step > warmup * steps else 0.0
        fall = (1 + math.cos(math.pi * part)) / 2 if cosine else 1 - part
        return final + (1 - final) * fall

    return LambdaLR(optimizer, factor)
