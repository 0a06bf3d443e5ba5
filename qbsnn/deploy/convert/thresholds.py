"""The grid of a layer: thresholds, and the unit that weights are rounded to. Numpy, pure functions.

A channel's weights w become q = clamp(round_half_even(w·r), ±q_max); its threshold is the integer θ. r = θ but for
weights that already lie on a grid, where r makes q exact and θ is the integer next to r.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CANDIDATES = 64
"""How many thresholds a search tries per channel; all integers of the range where there are no more than that."""

REACH = 4.0
"""The search runs from the finest threshold without clipping ÷ 4 to × 4: few bits want the largest weights clipped."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Grid:
    """theta: int32 ``[O]``; unit: r, float64 ``[O]``."""

    theta: NDArray[np.int32]
    unit: Floats


@dataclass(frozen=True)
class Plan:
    """The grid that a network is rounded to.

    Attributes:
        grids: One per spiking stage, by its name.
        scale: The readout's, one for all classes.
    """

    grids: dict[str, Grid]
    scale: float


def power_of_two_theta(largest: Floats, q_max: int = 127, limit: int = 2**15) -> NDArray[np.int32]:
    """θ = 2^k ≤ limit per channel for max|w| per channel, (I1): the finest such grid on which the weights fit ±q_max.

    >>> power_of_two_theta(np.array([0.9, 127.0, 128.0, 0.0])).tolist()
    [128, 1, 1, 32768]
    """
    with np.errstate(divide="ignore"):
        k = np.floor(np.log2(q_max / largest))
    return (2 ** np.clip(k, 0, np.floor(np.log2(limit)))).astype(np.int32)


def rounded(weight: Floats, unit: Floats, q_max: int) -> Floats:
    """q of (I2) of weights ``[O, ...]`` for units r ``[O]`` (or ``[O, 1]`` and more, which broadcast)."""
    r = unit.reshape(*unit.shape, *[1] * (weight.ndim - unit.ndim))
    return np.clip(np.rint(weight * r), -q_max, q_max)


def search(
    weights: Sequence[Floats], bias: Floats, q_max: int, limit: int, inputs: Sequence[Floats] | None = None
) -> Grid:
    """The integer θ ≤ limit per channel with the smallest squared error of the stage's current.

    weights: of every branch, ``[O, ...]``; bias ``[O]``. inputs: per branch ``[groups, n, K]``, sampled, where row i of
    all branches is one output position; without them, the error is that of the weights. Channels whose weights lie on a
    grid keep it (see ``on_grid``) unless another θ has a smaller error.
    """
    flat = [w.reshape(len(w), -1) for w in weights]
    joint = np.concatenate(flat, axis=1)

    def error(theta: Floats, unit: Floats) -> Floats:
        errors = [rounded(w, unit, q_max) / theta[:, None] - w for w in flat]
        if inputs is None:
            return np.sum([np.square(e).sum(1) for e in errors], axis=0)
        shift = np.rint(bias * unit) / theta - bias
        total = sum(_applied(x, e) for x, e in zip(inputs, errors, strict=True)) + shift
        return np.square(total).mean(0)

    best = np.full(len(joint), np.inf)
    theta = power_of_two_theta(np.abs(joint).max(1), q_max, limit).astype(np.int64)
    options = candidates(np.abs(joint).max(1), q_max, limit)
    for tried in options.T:
        found = error(tried.astype(np.float64), tried.astype(np.float64))
        better = found < best
        best, theta = np.where(better, found, best), np.where(better, tried, theta)
    free = Grid(theta.astype(np.int32), theta.astype(np.float64))
    kept = on_grid(joint, free, q_max, limit)
    keeps = error(kept.theta.astype(np.float64), kept.unit) <= best
    return Grid(np.where(keeps, kept.theta, free.theta), np.where(keeps, kept.unit, free.unit))


def search_scale(weight: Floats, bias: Floats, q_max: int, inputs: Floats | None = None) -> float:
    """The one scale of a readout ``[classes, K]`` with the smallest squared error, from no clipping to × REACH."""
    joint = weight.reshape(1, -1)
    found = on_grid(joint, Grid(np.ones(1, np.int32), np.zeros(1)), q_max, None).unit[0]
    if found > 0:
        return float(found)
    best, scale = np.inf, 0.0
    for tried in q_max / np.abs(weight).max() * np.geomspace(1, REACH, CANDIDATES):
        error = np.clip(np.rint(weight * tried), -q_max, q_max) / tried - weight
        shift = np.rint(bias * tried) / tried - bias
        total = float(np.square(error if inputs is None else _applied(inputs, error) + shift).sum())
        if total < best:
            best, scale = total, float(tried)
    return scale


def candidates(largest: Floats, q_max: int, limit: int) -> NDArray[np.int64]:
    """Thresholds to try per channel, ``[O, at most CANDIDATES]``; short ranges repeat their ends."""
    finest = q_max / np.maximum(largest, 1e-12)
    low = np.clip(np.floor(finest / REACH), 1, limit)
    high = np.clip(np.ceil(finest * REACH), low, limit)
    steps = np.arange(CANDIDATES)
    every = np.minimum(low[:, None] + steps, high[:, None])
    spread = low[:, None] * (high / low)[:, None] ** (steps / (CANDIDATES - 1))
    return np.where((high - low < CANDIDATES)[:, None], every, np.rint(spread)).astype(np.int64)


def on_grid(weight: Floats, otherwise: Grid, q_max: int, limit: int | None, tolerance: float = 1e-4) -> Grid:
    """Keep channels exactly whose weights ``[O, K]`` are integers n, |n| ≤ q_max, times one step.

    Then q = m·n with the m for which θ = round(m/step) ≤ limit is nearest to m/step, relatively; r = m/step. Other
    channels are ``otherwise``. ``tolerance`` is what rounding in absorption may have moved a weight, in steps.
    """
    theta, unit = otherwise.theta.copy(), otherwise.unit.copy()
    for channel, row in enumerate(weight):
        values = np.abs(row[row != 0])
        step = _step(values, q_max, tolerance) if values.size else None
        if step is None:
            continue
        most = int(q_max // np.rint(values.max() / step))
        ideal = np.arange(1, most + 1) / step
        nearest = np.maximum(np.rint(ideal), 1)
        if limit is None:
            theta[channel], unit[channel] = 1, ideal[0]
            continue
        fits = nearest <= limit
        if fits.any():
            chosen = int(np.argmin(np.where(fits, np.abs(nearest / ideal - 1), np.inf)))
            theta[channel], unit[channel] = int(nearest[chosen]), ideal[chosen]
    return Grid(theta, unit)


def _step(values: Floats, q_max: int, tolerance: float) -> float | None:
    """The largest step of which all positive ``values`` are multiples up to q_max, refined by least squares."""
    smallest = values.min()
    sample = values[:: max(1, len(values) // 16)]
    for divisor in range(1, q_max + 1):
        step = smallest / divisor
        if values.max() / step > q_max + 0.5:
            return None
        if np.abs(sample / step - np.rint(sample / step)).max() > tolerance * q_max:
            continue
        n = np.rint(values / step)
        fitted = float((values @ n) / (n @ n))
        if np.abs(values / fitted - n).max() <= tolerance * q_max:
            return fitted
    return None


def _applied(inputs: Floats, error: Floats) -> Floats:
    """The current that weights ``[O, K]`` make of inputs ``[groups, n, K]``, ``[n, O]``."""
    groups, _, width = inputs.shape
    per_group = error.reshape(groups, -1, width)
    return np.concatenate([x @ e.T for x, e in zip(inputs, per_group, strict=True)], axis=1)
