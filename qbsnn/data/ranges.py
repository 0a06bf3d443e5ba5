"""The last look at a batch before it reaches a network."""

from __future__ import annotations

import torch
from torch import Tensor

from qbsnn.errors import DataError


def check_range(x: Tensor, where: str, what: str, high: float) -> None:
    """Raise DataError unless all values of ``x`` ``[B, ...]`` are numbers from 0 to ``high``; costs one reduction.

    >>> check_range(torch.tensor([[0.0, 1.0], [0.5, float("nan")]]), "a batch", "pixels", 1)
    Traceback (most recent call last):
    ...
    qbsnn.errors.DataError: a batch: pixels must be numbers from 0 to 1, but 1 of 4 is not; the first: nan, in sample 1
    """
    if x.numel() == 0:
        return
    least, most = torch.aminmax(x)  # both are NaN if any value is
    if least >= 0 and most <= high:
        return
    bad = ~((x >= 0) & (x <= high))
    count, first = int(bad.sum()), bad.nonzero()[0]
    raise DataError(
        f"{where}: {what} must be numbers from 0 to {high:g}, but {count} of {x.numel()} "
        f"{'is' if count == 1 else 'are'} not; the first: {x[tuple(first)].item()}, in sample {int(first[0])}"
    )
