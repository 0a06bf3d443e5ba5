"""Memory of a training step: bursts kept as bytes, and stages computed again instead of kept."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.checkpoint import get_device_states, set_device_states

from qbsnn.errors import SettingsError

SMALLEST = 4096
"""Elements below which a tensor is kept as it is."""


class PackedBursts:
    """Has autograd keep the bursts of one forward pass as one byte each, wherever they are an input of something.

    Within :meth:`active`, a tensor that shares the memory of an output given to :meth:`note` is kept packed, once for
    all its readers, and unpacked for the backward pass, bit for bit.

    Args:
        checks: Whether to compare what is noted with what would be unpacked.
    """

    def __init__(self, checks: bool = True) -> None:
        self.checks = checks
        self.owner = "a stage"  # whose outputs are noted next
        self._known: dict[int, _Noted] = {}

    def note(self, output: Tensor, unit: Tensor | None = None, levels: tuple[int, int] = (0, 127)) -> None:
        """Remember an output.

        Args:
            output: Bursts times ``unit``, ``[T, B, ...]``.
            unit: A scalar; ``None`` is 1.
            levels: The smallest and the largest burst. Where they do not fit, the output is kept as it is.

        Raises:
            SettingsError: The output is something else, where this is checked.
        """
        storage = output.untyped_storage()
        if (unit is not None and unit.dim()) or output.numel() < SMALLEST or storage.nbytes() != output.nbytes:
            return
        dtype = torch.int8 if levels[0] < 0 else torch.uint8
        if levels[0] < torch.iinfo(dtype).min or levels[1] > torch.iinfo(dtype).max:
            return
        noted = _Noted(StorageWeakRef(storage), None if unit is None else unit.detach(), dtype)
        if self.checks:
            _check(output.detach(), noted, self.owner)
        self._known[storage.data_ptr()] = noted

    def active(self) -> AbstractContextManager[None]:
        """The forward pass goes inside."""
        return torch.autograd.graph.saved_tensors_hooks(self._pack, _unpack)

    def _pack(self, x: Tensor) -> Tensor | _View:
        noted = self._known.get(x.untyped_storage().data_ptr())
        if noted is None or noted.storage.expired():
            return x
        packed = noted.packed() if noted.packed is not None else None
        if packed is None:
            packed = noted.pack(x.as_strided((x.untyped_storage().nbytes() // x.element_size(),), (1,), 0))
            noted.packed = weakref.ref(packed)
        return _View(packed, x.shape, x.stride(), int(x.storage_offset()))


class _Noted:
    """A noted output: its memory while it lives, what a burst is worth, the packed bursts while somebody has them."""

    def __init__(self, storage: StorageWeakRef, unit: Tensor | None, dtype: torch.dtype) -> None:
        self.storage, self.unit, self.dtype = storage, unit, dtype
        self.packed: weakref.ref[_Packed] | None = None

    def pack(self, x: Tensor) -> _Packed:
        """The bursts of a tensor in this memory."""
        levels = x if self.unit is None else (x.float() / self.unit).round_()
        return _Packed(levels.to(self.dtype), self.unit, x.dtype)


class _Packed:
    def __init__(self, levels: Tensor, unit: Tensor | None, dtype: torch.dtype) -> None:
        self.levels, self.unit, self.dtype = levels, unit, dtype

    def unpack(self) -> Tensor:
        """In the type of the unit, and rounded once, as the neuron's output was."""
        whole = self.levels if self.unit is None else self.unit * self.levels.to(self.unit.dtype)
        return whole.to(self.dtype)


def _check(output: Tensor, noted: _Noted, owner: str) -> None:
    """Raise a SettingsError where bytes lose more of an output than its type rounds off; what is not finite passes."""
    back = noted.pack(output).unpack()
    lost = (output - back).abs() > torch.finfo(output.dtype).eps * output.abs()
    if lost.any():
        unit = "" if noted.unit is None else f" times {float(noted.unit):.6g}, its emission_scale()"
        raise SettingsError(
            f"memory must be none for the neuron of {owner}: its output must be whole bursts{unit}, to be kept as "
            f"bytes, got {float(output[lost][0]):.6g}, which would come back as {float(back[lost][0]):.6g}"
        )


class _View:
    """A tensor that lay in the memory of packed bursts."""

    def __init__(self, packed: _Packed, shape: torch.Size, strides: tuple[int, ...], offset: int) -> None:
        self.packed, self.shape, self.strides, self.offset = packed, shape, strides, offset


def _unpack(kept: Tensor | _View) -> Tensor:
    if isinstance(kept, Tensor):
        return kept
    return kept.packed.unpack().as_strided(kept.shape, kept.strides, kept.offset)


def recompute(compute: Callable[..., Tensor], parameters: tuple[Tensor, ...], *inputs: Tensor) -> Tensor:
    """``compute(*inputs)``, which runs again in the backward pass: only its inputs are kept.

    Random numbers of torch's default generators are the same again; a generator of its own goes on.

    Args:
        compute: Runs a second time with ``again=True``.
        parameters: What else it reads and may want gradients.
        inputs: Of ``compute``.
    """
    kind = inputs[0].device.type
    cast = {
        "enabled": torch.is_autocast_enabled(kind),
        "dtype": torch.get_autocast_dtype(kind),
        "cache_enabled": torch.is_autocast_cache_enabled(),
    }
    return _Recomputed.apply(compute, (kind, cast), len(inputs), *inputs, *parameters)


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, compute: Callable[..., Tensor], cast: Any, count: int, *given: Tensor) -> Tensor:
        ctx.compute, ctx.cast, ctx.parameters = compute, cast, given[count:]
        ctx.save_for_backward(*given[:count])
        ctx.random = torch.get_rng_state(), *get_device_states(given[0])
        with torch.no_grad():
            return compute(*given[:count])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        kind, cast = ctx.cast
        state, devices, states = ctx.random
        inputs = [
            x.detach().requires_grad_(needed)
            for x, needed in zip(ctx.saved_tensors, ctx.needs_input_grad[3:], strict=False)
        ]
        wanted = [x for x in (*inputs, *ctx.parameters) if x.requires_grad]
        with torch.enable_grad(), torch.autocast(kind, **cast), torch.random.fork_rng(devices, device_type=kind):
            torch.set_rng_state(state)
            set_device_states(devices, states, device_type=kind)
            out = ctx.compute(*inputs, again=True)
        found = iter(torch.autograd.grad(out, wanted, grad, allow_unused=True))
        return None, None, None, *(next(found) if x.requires_grad else None for x in (*inputs, *ctx.parameters))
