"""What hardware targets ask of an integer network, and what of a network does not fit.

A profile sets leak, membrane width and overflow policy (``settings.PROFILES``). The limits here follow the makers'
documentation named below; compare them with the data sheet of the chip at hand. A limit that was not found there, such
as a largest fan-in, is left out:

- xylo: SynSense, Rockpool documentation, "Overview of the Xylo family": shift decay, 16-bit state, 8-bit weights,
  at most 31 spikes per neuron and step, subtractive reset.
- dynapcnn: SynSense, sinabs documentation, "Speck: chip resources": 9 layers, 8-bit weights, 16-bit state, kernels to
  16×16, strides 1, 2, 4, 8, padding to 7, sum pools of 1, 2 or 4, 1024 channels, maps to 64×64.
- loihi2: Intel, Loihi 2 technology brief and Lava documentation: 8-bit weights, 24-bit state, 12-bit decays, spikes
  with an integer payload.
- generic-fpga: the register widths of the profile and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from qbsnn import checks
from qbsnn.deploy.convert.quantized import Quantized
from qbsnn.deploy.convert.settings import PROFILES
from qbsnn.deploy.format.bounds import bounds
from qbsnn.deploy.format.network import IntBranch, IntStage
from qbsnn.results.schema import Finding

Promise = Literal["verified", "rules", "limits only"]


@dataclass(frozen=True)
class Limits:
    """What a target holds; ``None`` where its maker names no largest value.

    Attributes:
        leaks: The kinds of leak that it has.
        promise: What a profile says of the target: ``verified``, the integer network equals the maker's simulator bit
            for bit; ``rules``, leak, widths and overflow follow published rules, and the order of operations, or
            something named below, differs; ``limits only``, sizes are compared and the arithmetic is another one.
        differs: Where the target computes something else, in a sentence.
    """

    leaks: tuple[str, ...]
    promise: Promise
    differs: str
    weight_bits: int = 8
    burst: int | None = None
    signed: bool = True
    hard_reset: bool = True
    layers: int | None = None
    kernel: int | None = None
    strides: tuple[int, ...] | None = None
    padding: int | None = None
    channels: int | None = None
    map_side: int | None = None
    sum_pools: tuple[int, ...] | None = None


LIMITS = {
    "generic-fpga": Limits(
        ("none", "shift_floor"), "rules", "it is a design of one's own: docs/hardware.md says what it has to compute",
    ),
    "xylo": Limits(
        ("shift_xylo",), "rules",
        "the leak is the chip's; every synapse of the chip has a decaying current, spikes arrive a step later, and "
        "sums saturate at every addition",
        burst=31, signed=False, hard_reset=False,
    ),
    "loihi2": Limits(
        ("none", "mul12_to_zero"), "rules",
        "the leak is the chip's; its own neuron compares with >, resets to 0 and scales activations by 64, so bursts "
        "with a soft reset need a microcode neuron",
    ),
    "dynapcnn": Limits(
        ("none",), "limits only",
        "the chip computes event by event, with at most one spike per input event, and not step by step",
        signed=False, layers=9, kernel=16, strides=(1, 2, 4, 8), padding=7, channels=1024, map_side=64,
        sum_pools=(1, 2, 4),
    ),
}  # fmt: skip


def promised(profile: str) -> str:
    """What a profile says of its target, and where the target differs.

    >>> promised("dynapcnn").partition(":")[0]
    'limits only'
    """
    limits = LIMITS[checks.choice("profile", profile, LIMITS)]
    return f"{limits.promise}: {limits.differs}"


def findings(quantized: Quantized, profile: str) -> list[Finding]:
    """All that keeps a network off a target, layer by layer; an empty list where it fits."""
    limits = LIMITS[checks.choice("profile", profile, LIMITS)]
    net = quantized.net
    register = int(str(PROFILES[profile]["membrane_bits"]))
    found: list[Finding] = []
    if limits.layers is not None and len(net.stages) + 1 > limits.layers:
        found.append(Finding("network", "layers", str(len(net.stages) + 1), f"at most {limits.layers}"))
    for stage, bound in zip(net.stages, bounds(net, quantized.current_bounds), strict=False):
        if net.membrane_bits > register:
            found.append(Finding(stage.name, "membrane register", f"{net.membrane_bits} bits", f"{register} bits"))
        if bound.membrane_bits > register:
            reached = f"{bound.membrane_bits} bits in the worst case"
            found.append(Finding(stage.name, "membrane", reached, f"{register} bits, {net.overflow}"))
        found += [Finding(stage.name, what, value, limit) for what, value, limit in _neuron(stage, limits, net.T)]
        for branch in stage.branches:
            found += [Finding(stage.name, what, value, limit) for what, value, limit in _branch(branch, limits)]
    found += [Finding("readout", *rest) for rest in _branch(net.readout.branch, limits)]
    return found


def misfits(quantized: Quantized) -> list[str]:
    """The findings for the profile that a network was quantised for, a line each; none without a profile."""
    profile = quantized.settings.profile
    found = findings(quantized, profile) if profile else []
    return [f"does not fit {profile}: {one.layer}: {one.what} {one.value}, allowed: {one.limit}" for one in found]


def _neuron(stage: IntStage, limits: Limits, steps: int) -> Iterator[tuple[str, str, str]]:
    if stage.leak.kind not in limits.leaks and (steps > 1 or stage.leak.kind != "none"):  # one step leaks nothing
        yield "leak", stage.leak.kind, " or ".join(limits.leaks)
    if limits.burst is not None and stage.s_max > limits.burst:
        yield "burst", str(stage.s_max), f"at most {limits.burst}"
    if stage.s_min < 0 and not limits.signed:
        yield "burst", "signed", "unsigned"
    if stage.reset == "hard" and not limits.hard_reset:
        yield "reset", "to 0", "subtractive"
    if limits.channels is not None and stage.shape[0] > limits.channels:
        yield "channels", str(stage.shape[0]), f"at most {limits.channels}"
    if limits.map_side is not None and len(stage.shape) == 3 and max(stage.shape[1:]) > limits.map_side:
        yield "map", f"{stage.shape[1]}x{stage.shape[2]}", f"at most {limits.map_side}x{limits.map_side}"
    pool = stage.pool
    if pool is not None and limits.sum_pools is not None:
        square = pool.kernel[0] == pool.kernel[1] and pool.kernel == pool.stride
        if pool.kind != "sum" or not square or pool.kernel[0] not in limits.sum_pools:
            sizes = ", ".join(str(side) for side in limits.sum_pools)
            yield "pool", f"{pool.kind} {pool.kernel[0]}x{pool.kernel[1]}", f"sum of {sizes} squared"


def _branch(branch: IntBranch, limits: Limits) -> Iterator[tuple[str, str, str]]:
    if branch.scale is not None:
        largest = int(np.abs(branch.scale.astype(np.int64)).max())
        if largest >= 2 ** (limits.weight_bits - 1):
            yield "shortcut constant", str(largest), f"{limits.weight_bits} bits"
    if branch.weight is None:
        return
    largest = int(np.abs(branch.weight.astype(np.int64)).max())
    if largest >= 2 ** (limits.weight_bits - 1):
        yield "weight", str(largest), f"{limits.weight_bits} bits"
    if branch.kind != "conv":
        return
    if limits.kernel is not None and max(branch.weight.shape[2:]) > limits.kernel:
        yield "kernel", "x".join(map(str, branch.weight.shape[2:])), f"at most {limits.kernel}"
    if limits.strides is not None and not set(branch.stride) <= set(limits.strides):
        yield "stride", "x".join(map(str, branch.stride)), f"one of {limits.strides}"
    if limits.padding is not None and max(branch.padding) > limits.padding:
        yield "padding", str(max(branch.padding)), f"at most {limits.padding}"
