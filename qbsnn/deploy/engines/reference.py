"""The numpy engine for QB-INT 1: the slow, plain oracle that the fast engines are checked against.

Everything is int64, so nothing wraps or saturates but by the network's policy; values that a register could not hold
are counted. The layers of a step feed forward only, so a weight operation runs over all T steps at once and just the
neurons are sequential.

Contractions: numpy has no BLAS for int64 and is some fifty times slower there, so products run in floating point where
a bound from the actual operands proves them exact. If max over the outputs of Σ|q|, times max|s|, is below 2²⁴ (2⁵³),
then every product and every partial sum, in whatever order and with or without fused multiply-add, is an integer below
it in magnitude; float32 (float64) holds all of these, so no rounding ever happens. Otherwise the product runs in int64.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from qbsnn.deploy.format.network import IntBranch, IntegerNetwork, IntPool, IntStage, Leak, Overflow, Trace
from qbsnn.deploy.format.validation import check, check_current, out_size

EXACT: dict[type[np.floating], int] = {np.float32: 2**24, np.float64: 2**53}
"""Integers up to this magnitude are exact in this type."""

COLUMNS = 2**18
"""Largest number of elements that im2col unrolls at a time, so that they stay in the processor's cache."""

CACHED = 2**15
"""Neurons that are stepped through all T at a time, so that their state stays in the processor's cache."""

Ints = NDArray[np.int64]


def run(net: IntegerNetwork, current: NDArray[np.int32]) -> Trace:
    """Run ``net`` on the current J, ``[T, B, *shape of stage 0]`` or ``[1, B, ...]`` (the same in every step).

    Raises:
        DeployError: the wiring is wrong (see ``check``), or ``current`` has another dtype or shape.
    """
    check(net)
    check_current(net, current)
    pooled: list[Ints] = []
    spikes: list[NDArray[np.integer]] = []
    membranes: list[NDArray[np.integer]] = []
    watch = _Watch()
    for index, stage in enumerate(net.stages):
        drive = np.zeros((1, 1, *stage.shape), np.int64) + per_channel(stage.bias, stage)
        for branch in stage.branches:
            drive = drive + (current if branch.kind == "input" else contract(branch, pooled[branch.source]))
        s, v = _neurons(net, index, np.broadcast_to(drive, (net.T, *drive.shape[1:])), watch)
        spikes.append(s)
        membranes.append(v)
        pooled.append(pool(stage.pool, s) if stage.pool else s)
    steps = contract(net.readout.branch, pooled[net.readout.branch.source]) + net.readout.bias
    total = np.cumsum(steps, axis=0)
    for t in range(net.T):
        watch.look((t, len(net.stages), 0, "readout"), steps[t], total[t], 32)
    return Trace(spikes, membranes, total[-1], watch.count, watch.first)


def _neurons(net: IntegerNetwork, index: int, drive: Ints, watch: _Watch) -> tuple[Ints, Ints]:
    """Stage ``index`` over time; ``drive`` is the complete sum ``[T, B, *shape]``. Returns s and V after the reset."""
    stage = net.stages[index]
    theta = per_channel(stage.theta, stage)
    spikes, membranes = np.empty(drive.shape, np.int64), np.empty(drive.shape, np.int64)
    chunk = max(1, CACHED // int(np.prod(stage.shape)))
    for start in range(0, drive.shape[1], chunk):
        part = slice(start, start + chunk)
        v = np.zeros((), np.int64)
        for t in range(len(drive)):
            v = leaked(stage.leak, v) + drive[t, part]
            watch.look((t, index, start, stage.name), drive[t, part], v, net.membrane_bits)
            v = fitted(net, v)
            s = np.clip(levels(stage, v, theta), stage.s_min, stage.s_max)
            v = v - theta * s if stage.reset == "soft" else np.where(s != 0, 0, v)
            spikes[t, part], membranes[t, part] = s, v
    return spikes, membranes


def levels(stage: IntStage, v: Ints, theta: Ints) -> Ints:
    """V/θ as an integer, by the stage's rounding."""
    if stage.rounding == "to_zero":
        return np.sign(v) * (np.abs(v) // theta)
    return (v + theta // 2 if stage.rounding == "round" else v) // theta


def leaked(leak: Leak, v: Ints) -> Ints:
    """What the leak leaves of V; any shape."""
    if leak.kind == "shift_floor":
        return v - (v >> leak.amount)
    if leak.kind == "shift_xylo":
        shifted = v >> leak.amount
        return v - np.where(shifted == 0, np.sign(v), shifted)
    if leak.kind == "mul12_to_zero":
        return np.sign(v) * (np.abs(v) * (4096 - leak.amount) >> 12)
    return v


def fitted(net: IntegerNetwork, v: Ints) -> Ints:
    """V in the register of ``membrane_bits``, by the overflow policy; ``error`` leaves it as it is."""
    low, size = -(2 ** (net.membrane_bits - 1)), 2**net.membrane_bits
    if net.overflow == "saturate":
        return np.clip(v, low, low + size - 1)
    return (v - low) % size + low if net.overflow == "wrap" else v


class _Watch:
    """Counts the positions at which a sum or a state does not fit, and remembers the earliest."""

    def __init__(self) -> None:
        self.count = 0
        self.first: Overflow | None = None

    def look(self, at: tuple[int, int, int, str], drive: Ints, state: Ints, bits: int) -> None:
        """At (step, stage, first sample, name): a step's sum, which has 32 bits, and a state of ``bits``, ``[B, ...]``.

        Both have one shape.
        """
        if not (_leaves(drive, 32) or _leaves(state, bits)):
            return
        wrong = _outside(drive, 32)
        mask = wrong | _outside(state, bits)
        self.count += int(mask.sum())
        step, index, start, name = at
        sample, *neuron = (int(i) for i in np.argwhere(mask)[0])
        value = int((drive if wrong[(sample, *neuron)] else state)[(sample, *neuron)])
        found = Overflow(step, index, start + sample, tuple(neuron), name, value)
        self.first = found if self.first is None else min(self.first, found)


def _leaves(a: Ints, bits: int) -> bool:
    return bool(a.min() < -(2 ** (bits - 1)) or a.max() >= 2 ** (bits - 1))


def _outside(a: Ints, bits: int) -> NDArray[np.bool_]:
    return (a < -(2 ** (bits - 1))) | (a >= 2 ** (bits - 1))


def per_channel(values: NDArray[np.int32], stage: IntStage) -> Ints:
    """``[O]`` as int64, shaped to broadcast over ``[..., *stage.shape]``."""
    return values.astype(np.int64).reshape(-1, *(1,) * (len(stage.shape) - 1))


def contract(branch: IntBranch, s: Ints) -> Ints:
    """Σ q·s of a conv or linear branch, or m·s of an identity shortcut; ``s`` is ``[T, B, *source shape]``, int64."""
    if branch.scale is not None:
        return s * branch.scale.astype(np.int64).reshape(-1, *(1,) * (s.ndim - 3))
    assert branch.weight is not None
    if branch.kind == "linear":
        return matmul(s.reshape(*s.shape[:2], -1), branch.weight.T.astype(np.int64))
    y = _conv(s.reshape(-1, *s.shape[2:]), branch.weight.astype(np.int64), branch)
    return y.reshape(*s.shape[:2], *y.shape[1:])


def exact_dtype(weight: Ints, s: Ints) -> type[np.floating] | type[np.int64]:
    """The dtype in which weight ``[O, K]`` times any column of entries of ``s`` is exact (module docstring)."""
    if weight.size == 0 or s.size == 0:
        return np.int64
    reach = int(np.abs(weight).sum(axis=1).max()) * max(int(s.max()), -int(s.min()))
    return next((dtype for dtype, limit in EXACT.items() if reach < limit), np.int64)


def matmul(s: Ints, weight: Ints) -> Ints:
    """Exact ``s [..., K] @ weight [K, O]``, in floating point where that is proved exact, else in int64."""
    dtype = exact_dtype(weight.T, s)
    product: Ints = (s.astype(dtype) @ weight.astype(dtype)).astype(np.int64)
    return product


def _conv(s: Ints, weight: Ints, branch: IntBranch) -> Ints:
    """im2col convolution of ``s [N, C, H, W]`` in chunks of samples that keep the columns within ``COLUMNS``."""
    (ph, pw), (dh, dw), g = branch.padding, branch.stride, branch.groups
    o, _, kh, kw = weight.shape
    dtype = exact_dtype(weight.reshape(o, -1), s)
    kernel = weight.reshape(g, o // g, -1).astype(dtype)
    n, c, h, w = s.shape
    oh, ow = out_size((h, w), (kh, kw), branch.stride, branch.padding)
    out = np.empty((n, o, oh, ow), np.int64)
    chunk = max(1, COLUMNS // (c * kh * kw * oh * ow))
    for start in range(0, n, chunk):
        x = np.pad(s[start : start + chunk].astype(dtype), ((0, 0), (0, 0), (ph, ph), (pw, pw)))
        windows = sliding_window_view(x, (kh, kw), axis=(2, 3))[:, :, ::dh, ::dw]
        columns = windows.transpose(1, 4, 5, 0, 2, 3).reshape(g, c // g * kh * kw, -1)
        y = (kernel @ columns).reshape(o, -1, oh, ow)
        out[start : start + chunk] = y.transpose(1, 0, 2, 3)
    return out


def pool(spec: IntPool, s: Ints) -> Ints:
    """Pooled spikes of ``s [T, B, C, H, W]``; max pads with what no spike is below."""
    (kh, kw), (dh, dw), (ph, pw) = spec.kernel, spec.stride, spec.padding
    oh, ow = out_size(s.shape[-2:], spec.kernel, spec.stride, spec.padding)
    lowest, combine = (-128, np.maximum) if spec.kind == "max" else (0, np.add)
    x = np.pad(s, ((0, 0), (0, 0), (0, 0), (ph, ph), (pw, pw)), constant_values=lowest) if ph or pw else s
    out = np.full((*s.shape[:3], oh, ow), lowest, np.int64)
    for i in range(kh):
        for j in range(kw):
            combine(out, x[..., i : i + dh * (oh - 1) + 1 : dh, j : j + dw * (ow - 1) + 1 : dw], out=out)
    return out
