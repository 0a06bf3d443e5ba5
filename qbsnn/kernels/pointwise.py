"""Whether a step computes each position by itself: only then may it be given its currents in another shape."""

from __future__ import annotations

from functools import partial
from inspect import isbuiltin, isclass, isfunction
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import get_device_states

from qbsnn.functional.burst import QUANTISERS, Quantiser
from qbsnn.functional.reset import Reset
from qbsnn.functional.scan import HALF, scan

STEPS, SIDE = 4, 2  # of the currents that a step is tried on: [STEPS, SIDE, SIDE, ...]
LEAST = 0.1  # size that a step's tensors have at least in the trial: a learned coupling may begin at 0 and grow


def ours(value: Any) -> bool:
    """Whether a step's constant or function is this package's, or a mere value: these all work position by position.

    >>> from qbsnn.functional.surrogate import relsg_et
    >>> ours(partial(relsg_et, alpha=2.0)), ours(partial(max, 2))
    (True, False)
    """
    if isinstance(value, partial):
        return all(map(ours, (value.func, *value.args, *value.keywords.values())))
    if isinstance(value, Reset):
        return ours(value.function)
    if isinstance(value, Quantiser):
        return value in QUANTISERS.values()
    if isinstance(value, tuple):
        return all(map(ours, value))
    if isfunction(value) or isclass(value) or isbuiltin(value):
        return (value.__module__ or "").partition(".")[0] == "qbsnn"
    return not callable(value)


def why_not(step: partial[Any], y: Tensor, compartments: int, channels: bool) -> str | None:
    """Why a step must be given its currents as they are; ``None`` where it may be given them in any shape.

    It runs on a few currents around its threshold, and on each of their positions alone. Outputs, states and gradients
    of the current are compared. The random numbers that follow stay the same.

    Args:
        step: A ``partial`` over constants and tensors, each a scalar or one number per channel.
        y: What the currents are like, ``[T, B, C, ...]``.
        compartments: How many state variables a neuron has.
        channels: Whether the other shape is ``[T, P, C, Q]``, else ``[T, N]``.
    """
    devices, states = get_device_states(y)
    before = [torch.get_rng_state(), *states]
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices, device_type=y.device.type):
        tensors = {name: _small(value) for name, value in step.keywords.items() if isinstance(value, Tensor)}
        current = _current(y, tensors.get("delta"))
        weights = torch.linspace(-1, 2, current.numel(), dtype=current.dtype, device=y.device).view_as(current)
        try:
            whole = _run(partial(step, **tensors), current, weights, compartments)
            after = [torch.get_rng_state(), *get_device_states(y)[1]]
            if not all(map(torch.equal, before, after)):
                return "its step draws random numbers, and a backward pass that computes it again would draw others"
            scale = whole.nan_to_num().flatten(1).abs().amax(1)[:, None]
            shape = (STEPS, 1, 1, 1) if channels else (STEPS, 1)
            places = product(range(SIDE), repeat=y.dim() - 1)
            positions = (current.flatten(1).unbind(1), weights.flatten(1).unbind(1), whole.flatten(2).unbind(2))
            for place, own, weight, expected in zip(places, *positions, strict=True):
                there = {name: _at(place, value) for name, value in tensors.items()}
                alone = _run(partial(step, **there), own.reshape(shape), weight.reshape(shape), compartments)
                if not torch.isclose(alone.flatten(1) / scale, expected / scale, 1e-5, 1e-6, equal_nan=True).all():
                    return "its step, its reset or its surrogate looks at other positions than its own"
        except Exception as error:  # whatever a user's function does with a shape that it does not expect
            reason = str(error).strip().partition("\n")[0]
            return f"its step does not take currents of any shape: {type(error).__name__}: {reason}"
    return None


def _small(value: Tensor) -> Tensor:
    """A step's tensor for ``SIDE`` channels at most."""
    value = value.detach().clone()
    if value.is_floating_point():
        value = torch.where(value.abs() < LEAST, torch.full_like(value, LEAST).copysign(value), value)
    return value[:SIDE] if value.dim() else value


def _at(place: tuple[int, ...], value: Tensor) -> Tensor:
    """A step's tensor for the channel of one position, as a program has it: ``[1, 1]``, or a scalar."""
    return value[place[1] % len(value)].reshape(1, 1) if value.dim() else value


def _current(y: Tensor, delta: Tensor | None) -> Tensor:
    """Currents from well below a threshold of Δ, or of 1, to some times as much, in float32 at least."""
    draw = torch.Generator().manual_seed(0)
    shape = (STEPS, *[SIDE] * (y.dim() - 1))
    drawn = torch.randn(shape, generator=draw) * 2.0 ** torch.randint(-2, 3, shape, generator=draw)
    unit = 1.0 if delta is None else float(delta.abs().mean())
    return (drawn * unit).to(y.device, torch.float32 if y.dtype in HALF else y.dtype)


def _run(step: partial[Any], current: Tensor, weights: Tensor, compartments: int) -> Tensor:
    """Outputs, gradients of the current and states, one behind another: ``[2 + compartments, STEPS, ...]``."""
    leaf = current.detach().requires_grad_()
    outputs, states = scan(step, leaf, keep=True, compartments=compartments)
    assert states is not None
    gradient = torch.zeros_like(current)
    if outputs.requires_grad:
        (gradient,) = torch.autograd.grad(outputs, leaf, weights, allow_unused=True, materialize_grads=True)
    kept = states.unbind(1) if compartments > 1 else (states,)
    return torch.stack([outputs.detach(), gradient, *(state.detach() for state in kept)])
