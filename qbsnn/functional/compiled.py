"""The scan over time as one compiled kernel per direction, from the same step function as the eager one.

The forward pass reads the currents and writes the outputs. Only the currents are kept for the backward pass, which
computes the membrane again. Contraction into fused multiply-adds stays off, so that bursts equal the eager ones.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from functools import cache, partial
from inspect import ismethod
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.fx.experimental.proxy_tensor import make_fx

from qbsnn.functional.scan import Step, scan

log = logging.getLogger(__name__)

Value = TypeVar("Value")

_OPTIONS: dict[str, Any] = {
    "cpp.enable_floating_point_contract_flag": "off",
    "emulate_precision_casts": True,
    "eager_numerics.division_rounding": True,
}
if torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512"):
    # torch 2.13's own probe of these loads its library into a bare Python, which crashes with a CUDA build where there
    # is no driver, and leaves kernels scalar, without a word.
    _OPTIONS["cpp.vec_isa_ok"] = True

_failed: set[str] = set()


def compiled_scan(step: Step, current: Tensor) -> Tensor:
    """Outputs ``[T, B, ...]`` of :func:`scan` without its states, compiled where that is possible.

    current: ``[T, B, ...]``, any dense strides, which the output keeps. The kernel is shared by all layers and batch
    sizes with the same settings. A step that is no ``partial`` over constants and scalar tensors, and a machine that
    cannot compile, run :func:`scan`, which is logged once.
    """
    parts = _split(step)
    if parts is None:
        _log_once("a neuron runs eagerly: its step has settings per channel or that are no constants")
    if parts is None or current.dim() < 2 or not current.numel():
        return scan(step, current)[0]
    function, constants, tensors = parts
    # Every step is a dense block: seen in memory order, all layers are [T, N] to the compiler.
    order = [0, *sorted(range(1, current.dim()), key=lambda d: current.stride()[d], reverse=True)]
    ordered = current.permute(order)
    kernels = _kernels(function, constants, tuple(tensors))
    flat = compiled_or_none(lambda: _Scan.apply(kernels, ordered.flatten(1), *tensors.values()))
    if flat is None:
        return scan(step, current)[0]
    inverse = sorted(range(current.dim()), key=order.__getitem__)
    return flat.view(ordered.shape).permute(inverse)


def compiled_or_none(call: Callable[[], Value]) -> Value | None:
    """What ``call`` returns, which may compile; ``None`` once something did not compile here, which is logged once."""
    if _failed:
        return None
    try:
        return call()
    except Exception as error:  # the compiler raises types of its own, of the C++ compiler and of the driver
        if not type(error).__module__.startswith(("torch._inductor", "torch._dynamo")):
            raise
        _failed.add(type(error).__name__)
        log.warning("neurons run eagerly, they do not compile here: %s", str(error).splitlines()[0])
        return None


def compile_for(function: Callable[..., Any], *inputs: Tensor) -> Callable[..., Any]:
    """``function`` compiled for inputs like these: what it does to them is recorded, and compiled for other sizes too.

    A size of 0 or 1 stands for itself alone, and so does everything that is no tensor.
    """
    with torch.no_grad():
        graph = make_fx(function, tracing_mode="symbolic")(*inputs)
    return torch.compile(graph, dynamic=True, options=_OPTIONS)


class _Scan(torch.autograd.Function):
    """The two kernels as one differentiable function of currents ``[T, N]`` and scalar tensors."""

    @staticmethod
    def forward(ctx: Any, kernels: _Kernels, current: Tensor, *tensors: Tensor) -> Tensor:
        ctx.kernels = kernels
        ctx.save_for_backward(current, *tensors)
        return kernels.forward(current, *tensors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return None, *ctx.kernels.backward(grad.contiguous(), *ctx.saved_tensors)


class _Kernels:
    """The compiled directions of one step function: its constants are fixed, N is not, and each T has its own."""

    def __init__(self, function: Callable[..., Any], fixed: dict[str, Any], names: tuple[str, ...]) -> None:
        self.function, self.fixed, self.names = function, fixed, names
        self.compiled: dict[Hashable, Callable[..., Any]] = {}

    def run(self, current: Tensor, *tensors: Tensor) -> Tensor:
        step = partial(self.function, **self.fixed, **dict(zip(self.names, tensors, strict=True)))
        return scan(step, current)[0]

    def vjp(self, grad: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            leaves = [x.detach().requires_grad_() for x in inputs]
            return torch.autograd.grad(self.run(*leaves), leaves, grad, allow_unused=True, materialize_grads=True)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self._call(self.run, inputs)

    def backward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return self._call(self.vjp, inputs)

    def _call(self, function: Callable[..., Any], inputs: tuple[Tensor, ...]) -> Any:
        """Trace at the first sight of a T, type and device, through autograd, then compile what was recorded."""
        inputs = tuple(x.detach() for x in inputs)
        current = inputs[0]
        key = (function.__name__, current.shape[0], current.dtype, current.device)
        if key not in self.compiled:
            self.compiled[key] = compile_for(function, *inputs)
        with torch.no_grad():
            return self.compiled[key](*inputs)


@cache
def _kernels(function: Callable[..., Any], constants: Hashable, names: tuple[str, ...]) -> _Kernels:
    return _Kernels(function, _thaw(constants), names)


def _split(step: Step) -> tuple[Callable[..., Any], Hashable, dict[str, Tensor]] | None:
    """A bound step as its function, its constants in a form that can be compared, and its scalar tensors."""
    if not isinstance(step, partial) or step.args:
        return None
    tensors = {name: value for name, value in step.keywords.items() if isinstance(value, Tensor)}
    # A method may read parameters, which are no constants.
    if any(value.dim() for value in tensors.values()) or any(map(ismethod, step.keywords.values())):
        return None
    frozen = tuple((name, _freeze(value)) for name, value in step.keywords.items() if name not in tensors)
    try:
        hash(frozen)
    except TypeError:
        return None
    return step.func, frozen, tensors


def _freeze(value: Any) -> Any:
    """A partial as (function, settings), for two equal ones are different objects."""
    return (value.func, tuple(sorted(value.keywords.items()))) if isinstance(value, partial) else (None, value)


def _thaw(constants: Any) -> dict[str, Any]:
    return {
        name: value if function is None else partial(function, **dict(value)) for name, (function, value) in constants
    }


@cache
def _log_once(message: str) -> None:
    log.warning(message)
