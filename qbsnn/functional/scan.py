"""The one loop over time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

HALF = (torch.float16, torch.bfloat16)

State = Tensor | tuple[Tensor, ...]
Step = Callable[[Any, Tensor], tuple[Any, Tensor]]
"""(U_{t−1}, I_t) -> (U_t, o_t); a state of several variables is a tuple."""


def scan(step: Step, current: Tensor, keep: bool = False, compartments: int = 1) -> tuple[Tensor, Tensor | None]:
    """Run a step over the first dimension, from U_0 = 0.

    Half-precision currents keep a float32 state.

    Args:
        step: (U_{t−1}, I_t) -> (U_t, o_t).
        current: ``[T, B, ...]``, any dense strides.
        keep: Whether the states are returned.
        compartments: How many state variables a neuron has; with more than one the state is a tuple of them.

    Returns:
        Outputs ``[T, B, ...]`` in the type of the current; with ``keep``, the states after the reset, ``[T, B, ...]``
        or ``[T, compartments, B, ...]``, else ``None``.
    """
    half = current.dtype in HALF
    zero = torch.zeros_like(current[0], dtype=torch.float32 if half else current.dtype)
    u: State = (zero,) * compartments if compartments > 1 else zero
    outputs, states = [], []
    for i in current.unbind(0):
        u, o = step(u, i)
        outputs.append(o)
        if keep:
            states.append(u if isinstance(u, Tensor) else torch.stack(u))
    return _stack(outputs).to(current.dtype), torch.stack(states) if keep else None


def _stack(steps: list[Tensor]) -> Tensor:
    """``torch.stack`` that keeps the order of dimensions in memory, channels-last for example."""
    first = steps[0]
    if first.is_contiguous():
        return torch.stack(steps)
    order = sorted(range(first.dim()), key=first.stride, reverse=True)
    back = sorted(range(first.dim()), key=order.__getitem__)
    return torch.stack([x.permute(order) for x in steps]).permute(0, *(1 + d for d in back))
