"""Integers in floating-point arithmetic, and float32 that stays float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from qbsnn.errors import DeployError


@contextmanager
def full_float32() -> Iterator[None]:
    """Keep float32 products from 11 bits (TF32, on a GPU) and from 8 (bfloat16, under autocast), where they have 24.

    >>> with full_float32():
    ...     torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    (False, 'highest')
    """
    # torch refuses to tell its precision after cuda.matmul.allow_tf32 was set beside set_float32_matmul_precision.
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions


def exact_float(largest: int, device: torch.device) -> torch.dtype:
    """The floating-point format in which sums up to ``largest`` are exact in any order.

    Raises:
        DeployError: No format is wide enough.
    """
    # A GPU may use TF32 or Winograd in float32, and a CPU without oneDNN NNPACK's transforms, which are not exact.
    if largest < 2**24 and device.type == "cpu" and _has_onednn():
        return torch.float32
    if largest < 2**53:
        return torch.float64
    raise DeployError(f"an accumulation of up to {largest} is exact in no floating-point format")


def _has_onednn() -> bool:
    return torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled)


def exact_for_sums(bursts: Tensor, window: tuple[int, int]) -> Tensor:
    """Bursts of at most 127 in a floating-point format in which the sum of a window is exact in any order.

    >>> exact_for_sums(torch.ones(1), (363, 363)).dtype, exact_for_sums(torch.ones(1), (364, 364)).dtype
    (torch.float32, torch.float64)
    """
    return bursts.double() if 127 * window[0] * window[1] >= 2**24 else bursts
