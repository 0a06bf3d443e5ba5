"""Checks of arguments that are tensors, by type and shape alone: no look at a value, and no wait for a device."""

from __future__ import annotations

import torch
from torch import Tensor

from qbsnn.errors import ArgumentError


def tensor(name: str, value: object, right: str) -> Tensor:
    """A tensor, which is ``right`` in words.

    >>> tensor("pixels", [1.0], "[B, C, H, W]")
    Traceback (most recent call last):
    ...
    qbsnn.errors.ArgumentError: pixels must be a tensor [B, C, H, W], got list: torch.as_tensor(...) makes one
    """
    if not isinstance(value, Tensor):
        raise ArgumentError(
            f"{name} must be a tensor {right}, got {type(value).__name__}: torch.as_tensor(...) makes one"
        )
    return value


def real(name: str, value: object, right: str, remedy: str = "call .float() first") -> Tensor:
    """A tensor of a floating-point type."""
    found = tensor(name, value, right)
    if not found.is_floating_point():
        raise ArgumentError(f"{name} must be of a floating-point type, got {found.dtype} {list(found.shape)}: {remedy}")
    return found


def real_current(current: object) -> Tensor:
    """A current ``[T, B, ...]`` of a floating-point type, with a step at least."""
    found = real("current", current, "[T, B, ...]")
    if not found.dim() or not found.shape[0]:
        raise ArgumentError(
            f"current must be [T, B, ...] with T of at least 1, got {list(found.shape)}; dimension 0 is time"
        )
    return found


def widened(name: str, value: Tensor, dtype: torch.dtype) -> Tensor:
    """A tensor in the type of the numbers that it meets, since torch multiplies equal types only; none is rounded."""
    if value.dtype != dtype and value.dtype.itemsize >= dtype.itemsize:
        raise ArgumentError(f"{name} must be {dtype}, as the weights are, got {value.dtype}: call .to({dtype}) first")
    return value.to(dtype)
