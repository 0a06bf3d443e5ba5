"""Which training samples are held out for validation, and where the choice is written down."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qbsnn.data.randomness import Purpose, permutation
from qbsnn.errors import ArgumentError, DataError
from qbsnn.results.files import write_atomically

log = logging.getLogger(__name__)


TENTH = 0.1
"""The share that is the test set of a set without an official split."""


def hold_out(
    labels: NDArray[np.int64], fraction: float, seed: int, name: str, setting: str = "val_fraction"
) -> NDArray[np.bool_]:
    """Choose round(fraction·N) of N samples, each class in proportion to its size; a mask ``[N]``.

    Class sizes are rounded by largest remainder, so that they add up.

    Args:
        labels: int64 ``[N]``.
        fraction: share of the samples to hold out.
        seed: decides which.
        name: of the set, for messages.
        setting: what the fraction is called, for messages.

    Raises:
        ArgumentError: where nothing would be held out, or everything.

    >>> int(hold_out(np.array([0, 0, 0, 0, 1, 1]), 0.5, seed=0, name="six samples").sum())
    3
    """
    total = round(fraction * len(labels))
    if not 0 < total < len(labels):
        raise ArgumentError(
            f"{setting} must hold out at least one of the {len(labels)} training samples of {name}, and leave one, "
            f"got {fraction!r}, which holds out {total}"
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


def stored_test(path: Path, names: Sequence[str], labels: NDArray[np.int64], name: str) -> NDArray[np.bool_]:
    """The tenth of each class that is the test set of a set without an official one; a mask ``[N]``.

    names: of the N samples, sorted; labels: int64 ``[N]``. The choice is fixed, and written to ``path`` once; later it
    is read from there, so it outlives a change of this code. Raises DataError where the file is of other samples.
    """
    if path.exists():
        try:
            stored = set(json.loads(path.read_text(encoding="utf-8"))["test"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(f"{path} is no stored split: {error}. Delete it to have it made again") from error
        if not stored < set(names):
            gone = len(stored - set(names))
            raise DataError(f"{path} is the split of other files: {gone} of {len(stored)} test samples are not there")
        if len(stored) != (wanted := round(TENTH * len(names))):
            raise DataError(
                f"{path} must hold out a tenth of {len(names)} samples, {wanted}, got {len(stored)}: it was "
                "made where files were absent. Delete it to have it made again"
            )
        return np.array([sample in stored for sample in names])
    mask = hold_out(labels, TENTH, 0, name)
    text = json.dumps({"test": [sample for sample, held in zip(names, mask, strict=True) if held]}, indent=0)
    try:
        write_atomically(path, text.encode())
    except OSError as error:
        log.warning("%s: the split is not stored, %s cannot be written: %s", name, path, error.strerror)
    return mask
