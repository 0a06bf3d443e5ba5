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
    """A rate that rises in a straight line from 0 to the optimiser's own, then falls, in every step of a fit.

    With r = step/steps the factor is r/warmup below ``warmup``, then ``final`` + (1 − ``final``)·h((r − warmup)/(1 −
    warmup)), where h(x) = 1 − x for ``linear`` (a triangle) and (1 + cos πx)/2 for ``cosine`` (arXiv 1708.07120).

    Args:
        optimizer: whose rates are the highest.
        steps: of the whole fit; given by whoever trains.
        warmup: share of the steps in which the rate rises.
        shape: ``linear`` or ``cosine``.
        final: factor in the last step.

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
