"""Checks of an integer network and of its input against the contract of :mod:`qbsnn.deploy.format.network`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qbsnn.deploy.format.network import INPUT, IntBranch, IntegerNetwork, IntPool, IntStage, Leak
from qbsnn.errors import DeployError

Shape = tuple[int, ...]

LARGEST_AMOUNT = {"none": None, "shift_floor": 30, "shift_xylo": 30, "mul12_to_zero": 4096}
"""Per kind of leak, the largest ``amount``; the smallest is 0."""


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
    """Check the whole network against the contract of ``network.py``; return the shape that leaves each stage's pool.

    Raises:
        DeployError: naming the stage, what was found and what would be right.
    """
    _require(bool(net.stages), "network", "it has no stages")
    _require(type(net.T) is int and net.T >= 1, "network", f"T must be an integer of at least 1, got {net.T!r}")
    bits, policies = net.membrane_bits, ("error", "saturate", "wrap")
    fits = type(bits) is int and 2 <= bits <= 32
    _require(fits, "network", f"membrane_bits must be an integer from 2 to 32, got {bits}")
    _require(net.overflow in policies, "network", f"overflow must be one of {policies}, got {net.overflow!r}")
    names = [stage.name for stage in net.stages]
    pooled: list[Shape] = []
    for i, stage in enumerate(net.stages):
        at = f"stage {stage.name!r}"
        _require(names.count(stage.name) == 1, at, "its name is not unique")
        ranked = len(stage.shape) in (1, 3) and all(type(size) is int and size >= 1 for size in stage.shape)
        _require(ranked, at, f"shape must be (O,) or (O, H, W), got {stage.shape}")
        _check_vector(at, "bias", stage.bias, stage.shape[0])
        _check_vector(at, "theta", stage.theta, stage.shape[0])
        _check_neuron(at, stage, net.membrane_bits)
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
    (classes,) = _branch_shape("readout", readout.branch, pooled)
    _check_vector("readout", "bias", readout.bias, classes)
    number = isinstance(readout.scale, (int, float)) and type(readout.scale) is not bool
    good = number and 0 < readout.scale < float("inf")
    _require(good, "readout", f"scale must be a finite number above 0, got {readout.scale}")
    if (margin := net.exit_margin) is not None:
        fits = type(margin) is int and 0 <= margin < 2**32
        _require(fits, "network", f"exit_margin must be an integer from 0 to {2**32 - 1}, got {margin!r}")
        _require(classes > 1, "network", "an exit margin needs two classes, got 1")
    return pooled


def _require(holds: bool, at: str, message: str) -> None:
    if not holds:
        raise DeployError(f"{at}: {message}")


def _check_neuron(at: str, stage: IntStage, membrane_bits: int) -> None:
    low, high = int(stage.theta.min()), int(stage.theta.max())
    _require(low >= 1, at, f"theta must be at least 1, got {low}")
    most = 2 ** (membrane_bits - 1) - 1
    _require(high <= most, at, f"theta must be at most {most} to fit a {membrane_bits}-bit membrane, got {high}")
    fits = type(stage.s_max) is int and 1 <= stage.s_max <= 127
    _require(fits, at, f"s_max must be an integer from 1 to 127, got {stage.s_max}")
    allowed = (0, -stage.s_max)
    fits = type(stage.s_min) is int and stage.s_min in allowed
    _require(fits, at, f"s_min must be 0 or −s_max = {allowed[1]}, got {stage.s_min}")
    kinds = ("floor", "round", "to_zero")
    _require(stage.rounding in kinds, at, f"rounding must be floor, round or to_zero, got {stage.rounding!r}")
    _require(stage.reset in ("soft", "hard"), at, f"reset must be soft or hard, got {stage.reset!r}")
    _check_leak(at, stage.leak)


def _check_leak(at: str, leak: Leak) -> None:
    kinds = ", ".join(LARGEST_AMOUNT)
    _require(leak.kind in LARGEST_AMOUNT, at, f"the kind of leak must be one of {kinds}, got {leak.kind!r}")
    most = LARGEST_AMOUNT[leak.kind]
    fits = most is None or (type(leak.amount) is int and 0 <= leak.amount <= most)
    _require(fits, at, f"the amount of a {leak.kind} leak must be an integer from 0 to {most}, got {leak.amount}")


def _check_integers(at: str, **sizes: object) -> None:
    for what, size in sizes.items():
        whole = all(type(value) is int for value in (size if isinstance(size, tuple) else (size,)))
        _require(whole, at, f"{what} must be integers, got {size}")


def _check_vector(at: str, what: str, values: NDArray[Any] | None, size: int) -> None:
    found = "None" if values is None else f"{values.dtype} {values.shape}"
    _require(found == f"int32 ({size},)", at, f"{what} must be int32 ({size},), got {found}")


def _branch_shape(at: str, branch: IntBranch, pooled: list[Shape]) -> Shape:
    """The membrane shape that a branch other than the input one produces."""
    _check_integers(at, source=branch.source, groups=branch.groups, stride=branch.stride, padding=branch.padding)
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
    _check_integers(at, kernel=spec.kernel, stride=spec.stride, padding=spec.padding)
    pads = all(p == 0 if spec.kind == "sum" else 2 * p <= k for p, k in zip(spec.padding, spec.kernel, strict=True))
    right = f"0 for a sum pool, at most half the kernel {spec.kernel} for a max pool"
    _require(pads, at, f"padding {spec.padding}: {right}")
    return (shape[0], *_spatial(at, shape, spec.kernel, spec.stride, spec.padding))


def _spatial(at: str, source: Shape, kernel: Shape, stride: Shape, padding: Shape) -> Shape:
    _require(min(*kernel, *stride) >= 1 and min(padding) >= 0, at, f"kernel {kernel}, stride {stride}, {padding=}")
    size = out_size(source[1:], kernel, stride, padding)
    _require(min(size) >= 1, at, f"kernel {kernel} with padding {padding} is larger than its source {source}")
    return size
