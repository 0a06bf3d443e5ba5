"""Which training images are held out for validation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qbsnn.data.randomness import Purpose, permutation
from qbsnn.errors import SettingsError


def hold_out(labels: NDArray[np.int64], fraction: float, seed: int, name: str) -> NDArray[np.bool_]:
    """Choose round(fraction·N) of N samples, each class in proportion to its size; a mask ``[N]``.

    labels: int64 ``[N]``. Class sizes are rounded by largest remainder, so that they add up. Raises SettingsError
    where nothing would be held out, or everything.

    >>> int(hold_out(np.array([0, 0, 0, 0, 1, 1]), 0.5, seed=0, name="six samples").sum())
    3
    """
    total = round(fraction * len(labels))
    if not 0 < total < len(labels):
        raise SettingsError(
            f"data.val_fraction must leave training and validation at least one of the {len(labels)} training images "
            f"of {name} each, got {fraction!r}, which holds out {total}"
        )
    classes, sizes = np.unique(labels, return_counts=True)
    wanted = sizes * (total / len(labels))
    counts = np.floor(wanted).astype(np.int64)
    largest = np.argsort(counts - wanted, kind="stable")
    counts[largest[: total - counts.sum()]] += 1

    shuffled = permutation(Purpose.HOLD_OUT, len(labels), seed)
    mask = np.zeros(len(labels), bool)
    for label, count in zip(classes, counts, strict=True):
        mask[shuffled[labels[shuffled] == label][:count]] = True
    return mask
