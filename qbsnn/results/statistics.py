"""The difference of two settings over the seeds that both were run with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

FLOAT32 = 2.0**-22
"""What the differences of numbers that were rounded to float32, as accuracies are, may differ by: a share of them."""


@dataclass(frozen=True)
class Difference:
    """The mean of ``pairs`` paired differences, its 95 % confidence interval and two-sided p of Student's paired t.

    ``None`` where they are not defined: for a single pair, and where all differences are equal.
    """

    mean: float
    low: float | None
    high: float | None
    p: float | None
    pairs: int


def holm(ps: Sequence[float]) -> list[float]:
    """Each p after Holm's correction for their number.

    >>> holm([0.03, 0.01, 0.04])
    [0.06, 0.03, 0.06]
    """
    found, least = dict.fromkeys(range(len(ps)), 1.0), 0.0
    for rank, at in enumerate(sorted(found, key=ps.__getitem__)):
        found[at] = least = max(least, min(1.0, (len(ps) - rank) * ps[at]))
    return list(found.values())


def paired(values: Mapping[int, float], baseline: Mapping[int, float]) -> Difference | None:
    """``values`` minus ``baseline``, both by seed, over the seeds in both; ``None`` where they share none.

    Differences that only the rounding of float32 tells apart are equal.

    >>> paired({0: 3.0, 1: 5.0, 2: 7.0}, {0: 1.0, 1: 2.0})  # doctest: +ELLIPSIS
    Difference(mean=2.5, low=-3.853..., high=8.853..., p=0.1256..., pairs=2)
    """
    seeds = [seed for seed in values if math.isfinite(values[seed]) and math.isfinite(baseline.get(seed, math.nan))]
    ours, theirs = [values[seed] for seed in seeds], [baseline[seed] for seed in seeds]
    differences = [our - their for our, their in zip(ours, theirs, strict=True)]
    if not seeds:
        return None
    mean = math.fsum(differences) / len(seeds)
    if len(seeds) == 1:
        return Difference(mean, None, None, None, 1)
    rounding = FLOAT32 * max(map(abs, (*ours, *theirs)))
    if max(abs(value - mean) for value in differences) <= rounding:
        return Difference(0.0 if abs(mean) <= rounding else mean, None, None, None, len(seeds))
    test = stats.ttest_rel(ours, theirs)
    low, high = test.confidence_interval(0.95)
    return Difference(mean, float(low), float(high), float(test.pvalue), len(seeds))
