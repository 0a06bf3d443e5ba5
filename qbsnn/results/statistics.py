"""Mean, standard deviation, and the difference of two settings over the seeds that both were run with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Summary:
    """``n`` values: their mean and sample standard deviation (divisor n − 1; ``None`` for one value)."""

    mean: float
    sd: float | None
    n: int


@dataclass(frozen=True)
class Difference:
    """The mean of ``pairs`` paired differences, its 95 % confidence interval and two-sided p of Student's paired t.

    ``None`` where they are not defined: for a single pair, and p where all differences are equal.
    """

    mean: float
    low: float | None
    high: float | None
    p: float | None
    pairs: int


def summary(values: Sequence[float]) -> Summary | None:
    """Summary of the finite values; ``None`` where there is none.

    >>> summary([1.0, 2.0, 3.0]), summary([])
    (Summary(mean=2.0, sd=1.0, n=3), None)
    """
    finite = np.array([value for value in values if math.isfinite(value)], dtype=np.float64)
    if not finite.size:
        return None
    return Summary(float(finite.mean()), float(finite.std(ddof=1)) if finite.size > 1 else None, finite.size)


def paired(values: Mapping[int, float], baseline: Mapping[int, float]) -> Difference | None:
    """``values`` minus ``baseline``, both by seed, over the seeds in both; ``None`` where they share none."""
    seeds = [s for s in values if s in baseline and math.isfinite(values[s]) and math.isfinite(baseline[s])]
    if not seeds:
        return None
    differences = np.array([values[seed] - baseline[seed] for seed in seeds], dtype=np.float64)
    mean, n = float(differences.mean()), len(seeds)
    if n == 1:
        return Difference(mean, None, None, None, 1)
    error = float(differences.std(ddof=1)) / math.sqrt(n)
    if error <= 1e-12 * max(abs(mean), 1e-12):  # equal but for rounding
        return Difference(mean, mean, mean, None, n)
    reach = float(stats.t.ppf(0.975, n - 1)) * error
    p = 2 * float(stats.t.sf(abs(mean) / error, n - 1))
    return Difference(mean, mean - reach, mean + reach, p, n)
