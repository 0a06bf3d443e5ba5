"""The last look at a batch before it reaches a network."""

from __future__ import annotations

import torch
from torch import Tensor

from qbsnn.errors import DataError


def check_pixels(x: Tensor, where: str) -> None:
    """Raise DataError unless all pixels ``x`` ``[B, ...]`` are numbers in [0, 1]; costs one reduction.

    >>> check_pixels(torch.tensor([[0.0, 1.0], [0.5, float("nan")]]), "a batch")
    Traceback (most recent call last):
    ...
    qbsnn.errors.DataError: a batch: pixels must be numbers from 0 to 1, but 1 of 4 is not; the first: nan, in sample 1
    """
    if x.numel() == 0:
        return
    low, high = torch.aminmax(x)  # both are NaN if any pixel is
    if low >= 0 and high <= 1:
        return
    bad = ~((x >= 0) & (x <= 1))
    count, first = int(bad.sum()), bad.nonzero()[0]
    raise DataError(
        f"{where}: pixels must be numbers from 0 to 1, but {count} of {x.numel()} {'is' if count == 1 else 'are'} not; "
        f"the first: {x[tuple(first)].item()}, in sample {int(first[0])}"
    )
