"""Norm, sum, scan over time in one differentiable function that keeps its inputs only.

The forward pass reads what the weights put out and writes the outputs of the neuron; the current is never stored. The
backward pass computes current and membrane again. Both run as compiled kernels (:mod:`qbsnn.kernels.compiled`) or
as the same lines of eager tensor code.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from qbsnn.functional.drive import Drive, Layout, Part
from qbsnn.functional.norm import Normal, affine, affine_backward
from qbsnn.functional.scan import Step, scan
from qbsnn.kernels.compiled import Kernel
from qbsnn.kernels.pointwise import ours, why_not
from qbsnn.kernels.reads import changing, comparable

log = logging.getLogger(__name__)


def fused_scan(step: Step, drive: Drive, compartments: int = 1, compiled: bool = True) -> Tensor:
    """Outputs of :func:`qbsnn.functional.scan.scan` over ``drive.total()``, bit for bit.

    Kernels are shared by all layers and batch sizes with the same settings. A step that is no ``partial`` over
    constants and tensors, each a scalar or one number per channel, that reads what may change
    (:func:`~qbsnn.kernels.reads.changing`), that looks at other positions than its own, or that draws random numbers
    (:func:`~qbsnn.kernels.pointwise.why_not`) runs as the plain scan, which is logged once.

    Args:
        step: (U_{t−1}, I_t) -> (U_t, o_t).
        drive: What sums to the current.
        compartments: How many state variables a neuron has.
        compiled: Whether both passes run as compiled kernels.

    Returns:
        ``[T, B, ...]``, in memory like the first part.
    """
    bound = _split(step)
    y = drive.parts[0].y
    if bound is not None and not all(_per_channel(value, y) for value in bound.tensors.values()):
        _log_once("a neuron runs eagerly: its step reads a tensor that is neither one number nor one per channel")
        bound = None
    if bound is None or y.dim() < 2 or not y.numel() or any(part.y.shape != y.shape for part in drive.parts):
        return scan(step, drive.total(), compartments=compartments)[0]
    channels = any(part.norm for part in drive.parts) or any(value.dim() for value in bound.tensors.values())
    if (why := _why_not(step, bound, y, compartments, channels)) is not None:
        _log_once(f"a neuron runs eagerly: {why}")
        return scan(step, drive.total(), compartments=compartments)[0]
    layout = Layout.of(y, channels)
    program = _program(bound, drive.steps, compartments, compiled)
    # A parameter per channel is [C, 1], to broadcast over [P, C, Q].
    tensors = [value.reshape(-1, 1) if value.dim() else value for value in bound.tensors.values()]
    forms = tuple(None if norm is None else (norm.eps, norm.batch) for _, norm in drive.parts)
    inputs = [x for y, norm in drive.parts for x in (y, *(() if norm is None else norm[:4]))]
    flat = _Fused.apply(program, layout, forms, len(tensors), *tensors, *inputs)
    return layout.restored(flat, y.shape[1:])


def _per_channel(value: Tensor, y: Tensor) -> bool:
    """Whether a step's tensor is a scalar, or ``[C, 1, ...]`` for y ``[T, B, C, ...]``."""
    if not value.dim():
        return True
    return value.dim() == y.dim() - 2 and value.numel() == len(value) and len(value) in (1, y.shape[2])


Form = tuple[float, bool] | None
"""ε and ``batch`` of a part's norm, which are no tensors; None for a part without one."""


class _Fused(torch.autograd.Function):
    """A program over the tensors of its step and the parts of its drive; a norm's gradients are those of batch norm."""

    @staticmethod
    def forward(
        ctx: Any, program: _Program, layout: Layout, forms: tuple[Form, ...], count: int, *given: Tensor
    ) -> Tensor:
        ctx.program, ctx.layout, ctx.forms, ctx.count = program, layout, forms, count
        ctx.save_for_backward(*given)
        return program.forward(tuple(map(bool, forms)), given[:count], _flat(layout, _parts(forms, given[count:])))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        given, count, layout = ctx.saved_tensors, ctx.count, ctx.layout
        parts = _parts(ctx.forms, given[count:])
        grad_flat, *grads = ctx.program.backward(
            tuple(map(bool, ctx.forms)), grad.contiguous(), given[:count], _flat(layout, parts)
        )
        grad_current = layout.restored(grad_flat, parts[0].y.shape[1:])
        needs = list(ctx.needs_input_grad[4 + count :])
        for y, norm in parts:
            if norm is None:
                grads.append(grad_current)
                del needs[0]
                continue
            dy, *rest = affine_backward(grad_current.flatten(0, 1), y.flatten(0, 1), norm, tuple(needs[:3]))
            grads += [None if dy is None else dy.unflatten(0, y.shape[:2]), *rest, None, None]
            del needs[:5]
        return None, None, None, None, *grads


def _parts(forms: tuple[Form, ...], given: tuple[Tensor, ...]) -> list[Part]:
    """The parts again from their tensors, one after another: y, and γ, β, μ, r where there is a norm."""
    rest, parts = iter(given), []
    for form in forms:
        y = next(rest)
        norm = None if form is None else Normal(next(rest), next(rest), next(rest), next(rest), *form)
        parts.append(Part(y, norm))
    return parts


def _flat(layout: Layout, parts: list[Part]) -> list[Tensor]:
    """What a program reads: y of every part in the layout, and a and b ``[C, 1]`` behind it where it is normalised."""
    flat = []
    for y, norm in parts:
        flat += [layout.flat(y), *([] if norm is None else (value.view(-1, 1) for value in norm.map()))]
    return flat


class _Program:
    """Forward and backward of one step function with its constants; all tensors are flat (see :class:`Layout`)."""

    def __init__(
        self, function: Callable[..., Any], fixed: dict[str, Any], names: tuple[str, ...],
        steps: int, compartments: int, compiled: bool,
    ) -> None:  # fmt: skip
        self.function, self.fixed, self.names = function, fixed, names
        self.steps, self.compartments = steps, compartments
        self.kernels = (Kernel(self.run, compiled), Kernel(self.vjp, compiled))

    def forward(self, normed: tuple[bool, ...], tensors: Any, parts: list[Tensor]) -> Tensor:
        """Outputs, flat."""
        return self.kernels[0](normed, *tensors, *parts)

    def backward(self, normed: tuple[bool, ...], grad: Tensor, tensors: Any, parts: list[Tensor]) -> list[Tensor]:
        """Gradients of the current, flat and of as many steps as the parts have, and of the step's tensors."""
        return list(self.kernels[1](normed, grad, *tensors, *parts))

    def run(self, normed: tuple[bool, ...], *inputs: Tensor) -> Tensor:
        """The outputs from the step's tensors and the parts."""
        count = len(self.names)
        return self._scan(inputs[:count], self._current(normed, inputs[count:]))

    def vjp(self, normed: tuple[bool, ...], grad: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Gradients of the current and the step's tensors."""
        count = len(self.names)
        current = self._current(normed, inputs[count:])
        # Spread over the neurons, a tensor has its gradient added up over time in registers, and over neurons once.
        spread = [x.expand(current.shape[1:]) for x in inputs[:count]]
        with torch.enable_grad():
            leaves = [x.detach().requires_grad_() for x in (current, *spread)]
            out = self._scan(tuple(leaves[1:]), leaves[0])
            first, *rest = torch.autograd.grad(out, leaves, grad, allow_unused=True, materialize_grads=True)
        return first, *(x.sum_to_size(given.shape) for x, given in zip(rest, inputs[:count], strict=True))

    def _scan(self, tensors: tuple[Tensor, ...], current: Tensor) -> Tensor:
        step = partial(self.function, **self.fixed, **dict(zip(self.names, tensors, strict=True)))
        return scan(step, current.expand(self.steps, *current.shape[1:]), compartments=self.compartments)[0]

    def _current(self, normed: tuple[bool, ...], inputs: tuple[Tensor, ...]) -> Tensor:
        rest = list(inputs)
        total: Tensor | None = None
        for has_map in normed:
            y = rest.pop(0)
            z = affine(y, rest.pop(0), rest.pop(0)) if has_map else y
            total = z if total is None else total + z
        assert total is not None
        return total


class _Bound(NamedTuple):
    """A step's function, its constants and its tensors; and function and constants in a form to compare."""

    function: Callable[..., Any]
    constants: dict[str, Any]
    tensors: dict[str, Tensor]
    held: Hashable


_programs: dict[Hashable, _Program] = {}
_reasons: dict[Hashable, str | None] = {}


def _why_not(step: Step, bound: _Bound, y: Tensor, compartments: int, channels: bool) -> str | None:
    """Why a step must not be flattened, found out once, on the first currents that it meets in so many dimensions."""
    ranks = tuple((name, value.dim()) for name, value in bound.tensors.items())
    key = (bound.held, ranks, y.dim(), y.dtype, y.device.type, compartments, channels)
    if key not in _reasons:
        assert isinstance(step, partial)
        known = ours((bound.function, *bound.constants.values()))
        _reasons[key] = None if known else why_not(step, y, compartments, channels)
    return _reasons[key]


def _program(bound: _Bound, steps: int, compartments: int, compiled: bool) -> _Program:
    names = tuple(bound.tensors)
    key = (bound.held, names, steps, compartments, compiled)
    if key not in _programs:
        _programs[key] = _Program(bound.function, bound.constants, names, steps, compartments, compiled)
    return _programs[key]


def _split(step: Step) -> _Bound | None:
    """The parts of a step that can be recorded; else ``None``, and the reason is logged."""
    if not isinstance(step, partial) or step.args:
        _log_once("a neuron runs eagerly: its step is no partial over keywords")
        return None
    tensors = {name: value for name, value in step.keywords.items() if isinstance(value, Tensor)}
    constants = {name: value for name, value in step.keywords.items() if name not in tensors}
    if (found := changing((step.func, *constants.values()))) is not None:
        _log_once(f"a neuron runs eagerly: its step reads {found}, which may change; functools.partial would bind it")
        return None
    return _Bound(step.func, constants, tensors, comparable((step.func, *constants.items())))


@cache
def _log_once(message: str) -> None:
    log.warning(message)
