"""The numpy engine for QB-INT 1: the slow, plain oracle that the fast engines are checked against.

State, spikes and membranes are int64, so nothing wraps and nothing saturates; values that a 32 bit accumulator could
not hold are counted instead. The layers of a step feed forward only, so a weight operation runs over all T steps at
once and just the neurons are sequential.

Contractions: numpy has no BLAS for int64 and is some fifty times slower there, so products run in float64 where a
bound from the actual operands proves them exact. If max over the outputs of Σ|q|, times max|s|, is below 2⁵³, then
every product and every partial sum, in whatever order and with or without fused multiply-add, is an integer below 2⁵³
in magnitude; float64 holds all of these, so no rounding ever happens. Otherwise the product runs in int64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from qbsnn.deploy.integer import INPUT, IntBranch, IntegerNetwork, IntPool, IntStage, Trace
from qbsnn.errors import DeployError

EXACT = 2**53
"""Integers up to this magnitude are exact in float64."""

COLUMNS = 2**21
"""Largest number of elements that im2col unrolls at a time."""

CACHED = 2**15
"""Neurons that are stepped through all T at a time, so that their state stays in the processor's cache."""

INT32 = np.iinfo(np.int32)

Ints = NDArray[np.int64]
Shape = tuple[int, ...]


def run(net: IntegerNetwork, current: NDArray[np.int32]) -> Trace:
    """Run ``net`` on the current J, ``[T, B, *shape of stage 0]`` or ``[1, B, ...]`` (the same in every step).

    ``Trace.overflows`` counts positions (stage, step, sample, neuron) at which the step's complete sum
    Σ q·s + b + Σ m·s, or V before the reset, is no int32; in the readout, the step's sum or the running Z.

    Raises:
        DeployError: the wiring is wrong (see ``check``), or ``current`` has another dtype or shape.
    """
    check(net)
    check_current(net, current)
    pooled: list[Ints] = []
    spikes: list[NDArray[np.integer]] = []
    membranes: list[NDArray[np.integer]] = []
    overflows = 0
    for stage in net.stages:
        drive = np.zeros((1, 1, *stage.shape), np.int64) + per_channel(stage.bias, stage)
        for branch in stage.branches:
            drive = drive + (current if branch.kind == "input" else contract(branch, pooled[branch.source]))
        s, v, outside = _neurons(stage, np.broadcast_to(drive, (net.T, *drive.shape[1:])))
        spikes.append(s)
        membranes.append(v)
        pooled.append(pool(stage.pool, s) if stage.pool else s)
        overflows += outside
    steps = contract(net.readout.branch, pooled[net.readout.branch.source]) + net.readout.bias
    total = np.cumsum(steps, axis=0)
    return Trace(spikes, membranes, total[-1], overflows + _count_outside(steps, total))


def _neurons(stage: IntStage, drive: Ints) -> tuple[Ints, Ints, int]:
    """One layer over time; ``drive`` is the complete sum ``[T, B, *shape]``. Returns s, V after reset, overflows."""
    theta = per_channel(stage.theta, stage)
    spikes, membranes = np.empty(drive.shape, np.int64), np.empty(drive.shape, np.int64)
    overflows = 0
    chunk = max(1, CACHED // int(np.prod(stage.shape)))
    for start in range(0, drive.shape[1], chunk):
        part = slice(start, start + chunk)
        v = np.zeros((), np.int64)
        for t in range(len(drive)):
            if stage.leak_shift is not None:
                v = v - (v >> stage.leak_shift)
            v = v + drive[t, part]
            overflows += _count_outside(drive[t, part], v)
            s = np.minimum(np.maximum(v // theta, 0), stage.s_max)
            v = v - theta * s if stage.reset == "soft" else np.where(s > 0, 0, v)
            spikes[t, part], membranes[t, part] = s, v
    return spikes, membranes, overflows


def _count_outside(*arrays: Ints) -> int:
    """The number of positions at which any of these arrays (of one shape) is outside int32."""
    if all(a.size == 0 or (a.min() >= INT32.min and a.max() <= INT32.max) for a in arrays):
        return 0
    return int(np.logical_or.reduce([(a < INT32.min) | (a > INT32.max) for a in arrays]).sum())


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


def exact_dtype(weight: Ints, s: Ints) -> type[np.float64] | type[np.int64]:
    """The dtype in which weight ``[O, K]`` times any column of entries of ``s`` is exact (module docstring)."""
    if weight.size == 0 or s.size == 0:
        return np.int64
    largest = max(int(s.max()), -int(s.min()))
    return np.float64 if int(np.abs(weight).sum(axis=1).max()) * largest < EXACT else np.int64


def matmul(s: Ints, weight: Ints) -> Ints:
    """Exact ``s [..., K] @ weight [K, O]``, in float64 where that is proved exact, else in int64."""
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
    """Pooled spikes of ``s [T, B, C, H, W]``; max pads with 0, which no spike is below."""
    (kh, kw), (dh, dw), (ph, pw) = spec.kernel, spec.stride, spec.padding
    oh, ow = out_size(s.shape[-2:], spec.kernel, spec.stride, spec.padding)
    x = np.pad(s, ((0, 0), (0, 0), (0, 0), (ph, ph), (pw, pw))) if ph or pw else s
    out = np.zeros((*s.shape[:3], oh, ow), np.int64)
    combine = np.maximum if spec.kind == "max" else np.add
    for i in range(kh):
        for j in range(kw):
            combine(out, x[..., i : i + dh * (oh - 1) + 1 : dh, j : j + dw * (ow - 1) + 1 : dw], out=out)
    return out


def out_size(size: Shape, kernel: Shape, stride: Shape, padding: Shape) -> Shape:
    """⌊(size + 2·padding − kernel)/stride⌋ + 1 in each direction."""
    return tuple((n + 2 * p - k) // d + 1 for n, k, d, p in zip(size, kernel, stride, padding, strict=True))


def check_current(net: IntegerNetwork, current: NDArray[Any]) -> None:
    """Raise ``DeployError`` unless J is int32 and ``[T or 1, B, *shape of stage 0]``."""
    shape = net.stages[0].shape
    if current.dtype != np.int32:
        raise DeployError(f"the current J must be int32, got {current.dtype}")
    if (
        current.ndim != 2 + len(shape)
        or current.shape[2:] != shape
        or current.shape[0] not in (1, net.T)
        or not current.size
    ):
        raise DeployError(f"the current J must be [{net.T} or 1, B, {str(shape)[1:-1]}], got {current.shape}")


def check(net: IntegerNetwork) -> list[Shape]:
    """Check the whole network against the contract of ``integer.py``; return the shape that leaves each stage's pool.

    Raises:
        DeployError: naming the stage, what was found and what would be right.
    """
    _require(bool(net.stages), "network", "it has no stages")
    _require(net.T >= 1, "network", f"T must be at least 1, got {net.T}")
    names = [stage.name for stage in net.stages]
    pooled: list[Shape] = []
    for i, stage in enumerate(net.stages):
        at = f"stage {stage.name!r}"
        _require(names.count(stage.name) == 1, at, "its name is not unique")
        ranked = len(stage.shape) in (1, 3) and min(stage.shape) >= 1
        _require(ranked, at, f"shape must be (O,) or (O, H, W), got {stage.shape}")
        _check_vector(at, "bias", stage.bias, stage.shape[0])
        _check_vector(at, "theta", stage.theta, stage.shape[0])
        _require(int(stage.theta.min()) >= 1, at, f"theta must be at least 1, got {stage.theta.min()}")
        _require(1 <= stage.s_max <= 127, at, f"s_max must be an integer from 1 to 127, got {stage.s_max}")
        shift = stage.leak_shift
        _require(shift is None or 0 <= shift <= 30, at, f"leak_shift must be None or 0 to 30, got {shift}")
        _require(stage.reset in ("soft", "hard"), at, f"reset must be soft or hard, got {stage.reset!r}")
        kinds = [branch.kind for branch in stage.branches]
        _require(bool(kinds), at, "it has no branches")
        alone = kinds == ["input"] if i == 0 else "input" not in kinds
        _require(alone, at, f"'input' is the only branch of the first stage and of no other, got {kinds}")
        for branch in stage.branches:
            shape = stage.shape if branch.kind == "input" else _branch_shape(at, branch, pooled)
            _require(branch.kind != "input" or branch.source == INPUT, at, "the source of an input branch is INPUT")
            _require(shape == stage.shape, at, f"its {branch.kind} branch gives {shape}, its shape is {stage.shape}")
        pooled.append(_pooled_shape(at, stage.pool, stage.shape) if stage.pool else stage.shape)
    readout = net.readout
    _require(readout.branch.kind == "linear", "readout", f"its branch must be linear, got {readout.branch.kind}")
    _check_vector("readout", "bias", readout.bias, _branch_shape("readout", readout.branch, pooled)[0])
    return pooled


def _require(holds: bool, at: str, message: str) -> None:
    if not holds:
        raise DeployError(f"{at}: {message}")


def _check_vector(at: str, what: str, values: NDArray[Any] | None, size: int) -> None:
    found = "None" if values is None else f"{values.dtype} {values.shape}"
    _require(found == f"int32 ({size},)", at, f"{what} must be int32 ({size},), got {found}")


def _branch_shape(at: str, branch: IntBranch, pooled: list[Shape]) -> Shape:
    """The membrane shape that a branch other than the input one produces."""
    _require(0 <= branch.source < len(pooled), at, f"source must be an earlier stage, got {branch.source}")
    source, weight = pooled[branch.source], branch.weight
    if branch.kind == "identity":
        _require(weight is None, at, "an identity branch has a scale and no weight")
        _check_vector(at, "scale", branch.scale, source[0])
        return source
    _require(branch.kind in ("conv", "linear"), at, f"unknown kind of branch {branch.kind!r}")
    _require(branch.scale is None, at, f"a {branch.kind} branch has no scale")
    rank = 4 if branch.kind == "conv" else 2
    if weight is None or weight.dtype != np.int8 or weight.ndim != rank or weight.size == 0:
        found = "None" if weight is None else f"{weight.dtype} {weight.shape}"
        raise DeployError(f"{at}: a {branch.kind} weight must be int8 with {rank} dimensions, got {found}")
    _require(int(weight.min()) >= -127, at, "a weight must be in [−127, 127], got −128")
    if branch.kind == "linear":
        inputs = int(np.prod(source))
        _require(weight.shape[1] == inputs, at, f"a linear weight must be [O, {inputs}], got {weight.shape}")
        return (weight.shape[0],)
    o, i, g = *weight.shape[:2], branch.groups
    fits = len(source) == 3 and g >= 1 and o % g == 0 and i * g == source[0]
    _require(fits, at, f"a conv weight {weight.shape} with groups={g} does not fit its source {source}")
    return (o, *_spatial(at, source, weight.shape[2:], branch.stride, branch.padding))


def _pooled_shape(at: str, spec: IntPool, shape: Shape) -> Shape:
    _require(len(shape) == 3, at, f"a pool needs the shape (O, H, W), got {shape}")
    _require(spec.kind in ("max", "sum"), at, f"unknown kind of pool {spec.kind!r}")
    pads = all(p == 0 if spec.kind == "sum" else p < k for p, k in zip(spec.padding, spec.kernel, strict=True))
    _require(pads, at, f"padding {spec.padding}: 0 for a sum pool, below the kernel {spec.kernel} for a max pool")
    return (shape[0], *_spatial(at, shape, spec.kernel, spec.stride, spec.padding))


def _spatial(at: str, source: Shape, kernel: Shape, stride: Shape, padding: Shape) -> Shape:
    _require(min(*kernel, *stride) >= 1 and min(padding) >= 0, at, f"kernel {kernel}, stride {stride}, {padding=}")
    size = out_size(source[1:], kernel, stride, padding)
    _require(min(size) >= 1, at, f"kernel {kernel} with padding {padding} is larger than its source {source}")
    return size
