"""The one loop over time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Step = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def scan(step: Step, current: Tensor, keep: bool = False, compartments: int = 1) -> tuple[Tensor, Tensor | None]:
    """Run ``step(U_{t−1}, I_t) -> (U_t, o_t)`` over the first dimension, from U_0 = 0.

    current: ``[T, B, ...]``, any dense strides. compartments: how many state variables a neuron has; with more than one
    the state is ``[compartments, B, ...]``. Returns (o, U): outputs ``[T, B, ...]`` and, with ``keep``, the states
    after the reset, ``[T, *state]``. Half-precision currents keep a float32 state; the outputs come back in the dtype
    of the current.
    """
    half = current.dtype in (torch.float16, torch.bfloat16)
    u = torch.zeros_like(current[0], dtype=torch.float32 if half else current.dtype)
    if compartments > 1:
        u = u.expand(compartments, *u.shape)
    outputs, states = [], []
    for i in current.unbind(0):
        u, o = step(u, i)
        outputs.append(o)
        if keep:
            states.append(u)
    return torch.stack(outputs).to(current.dtype), torch.stack(states) if keep else None
