"""The operations of QB-INT 1, per stage: what a datapath has to do, and whether any of it is a multiplication.

A burst and its reset are one loop of at most s_max rounds: while V ≥ θ, count a spike and subtract θ; nothing is
divided or multiplied. Where θ is a power of two, ⌊V/θ⌋ may be a shift instead. An accumulate adds a weight once per
spike, so a burst of s costs s of them; a shortcut constant m is added s times likewise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qbsnn.deploy.format.bounds import output_range
from qbsnn.deploy.format.network import IntBranch, IntegerNetwork, IntStage

Kind = Literal["multiply", "round", "accumulate", "add", "shift", "compare", "subtract", "max"]


@dataclass(frozen=True)
class Operation:
    """One kind of operation of a stage, for one sample.

    what: its operands in words. sites: neurons or synapses that do it. at_most: how often each of them does so in one
    step (an accumulate: as often as its source may spike). analog: in floating point, before J; with a static image
    before the first step only.
    """

    stage: str
    kind: Kind
    what: str
    sites: int
    at_most: int = 1
    analog: bool = False


def operations(net: IntegerNetwork, first_layer: str = "float") -> list[Operation]:
    """All operations, in order; ``first_layer`` as in :class:`~qbsnn.deploy.convert.settings.DeploySettings`."""
    found: list[Operation] = []
    for stage in net.stages:
        found += _synapses(net, stage, first_layer) + _neuron(net, stage)
    readout = net.readout
    assert readout.branch.weight is not None
    spikes = output_range(net, readout.branch.source)[1]
    found.append(Operation("readout", "accumulate", "Z += q per spike", readout.branch.weight.size, spikes))
    found.append(Operation("readout", "add", "Z += b", len(readout.bias)))
    return found


def multiplying_stages(net: IntegerNetwork) -> list[str]:
    """Names of the stages whose operations include a product, the analog ones of the first layer aside."""
    return list(dict.fromkeys(op.stage for op in operations(net) if op.kind == "multiply" and not op.analog))


def axis_fanout(size: int, kernel: int, stride: int, padding: int, dilation: int, outputs: int) -> NDArray[np.int64]:
    """Of each of ``size`` positions along one axis, how many (output, tap) pairs read it: int64 ``[size]``.

    Output o reads the positions o·stride − padding + k·dilation, k = 0..kernel − 1; those outside are padding.

    >>> axis_fanout(4, kernel=3, stride=1, padding=1, dilation=1, outputs=4).tolist()
    [2, 3, 3, 2]
    >>> axis_fanout(5, kernel=3, stride=2, padding=0, dilation=1, outputs=2).tolist()
    [1, 1, 2, 1, 1]
    """
    read = np.arange(outputs)[:, None] * stride - padding + np.arange(kernel) * dilation
    return np.bincount(read[(read >= 0) & (read < size)], minlength=size).astype(np.int64)


def branch_fanout(branch: IntBranch, source: tuple[int, ...]) -> NDArray[np.int64]:
    """Weights that one spike at a position of a source ``[C, H, W]`` or ``[C]`` meets: int64 ``[H, W]`` or a scalar."""
    assert branch.weight is not None
    if branch.kind == "linear":
        return np.full(source[1:], len(branch.weight), np.int64)
    axes = zip(source[1:], branch.weight.shape[2:], branch.stride, branch.padding, strict=True)
    rows, columns = (axis_fanout(n, k, d, p, 1, (n + 2 * p - k) // d + 1) for n, k, d, p in axes)
    return rows[:, None] * columns * (len(branch.weight) // branch.groups)


def weight_bytes(net: IntegerNetwork, bits: int) -> int:
    """Bytes of all weights behind the analog first layer, the readout's included, packed at ``bits`` each."""
    branches = [branch for stage in net.stages for branch in stage.branches] + [net.readout.branch]
    return -(-bits * sum(branch.weight.size for branch in branches if branch.weight is not None) // 8)


def _synapses(net: IntegerNetwork, stage: IntStage, first_layer: str) -> list[Operation]:
    neurons = int(np.prod(stage.shape))
    found: list[Operation] = []
    for branch in stage.branches:
        if branch.kind == "input" and first_layer == "integer":
            found.append(
                Operation(stage.name, "accumulate", "V += q per spike or count of the input, then V += b", neurons)
            )
            continue
        if branch.kind == "input":
            found.append(Operation(stage.name, "multiply", "floating-point weights x pixels", neurons, analog=True))
            found.append(Operation(stage.name, "round", "J = θ·I, half to even", neurons, analog=True))
            found.append(Operation(stage.name, "add", "V += J", neurons))
            continue
        spikes = output_range(net, branch.source)[1]
        if branch.scale is not None:
            found.append(Operation(stage.name, "accumulate", "V += m per spike", neurons, spikes))
            continue
        assert branch.weight is not None
        fan_in = branch.weight[0].size
        found.append(Operation(stage.name, "accumulate", "V += q per spike", neurons * fan_in, spikes))
    if stage.branches[0].kind != "input":
        found.append(Operation(stage.name, "add", "V += b", neurons))
    return found


def _neuron(net: IntegerNetwork, stage: IntStage) -> list[Operation]:
    name, neurons = stage.name, int(np.prod(stage.shape))
    found: list[Operation] = []
    if stage.leak.kind == "mul12_to_zero":
        found += [
            Operation(name, "multiply", f"V x {4096 - stage.leak.amount}, 64 bits", neurons),
            Operation(name, "shift", "by 12, towards 0", neurons),
        ]
    elif stage.leak.kind != "none":
        found += [
            Operation(name, "shift", f"V >> {stage.leak.amount}", neurons),
            Operation(name, "subtract", "the leak", neurons),
        ]
    if net.overflow != "error":
        found.append(Operation(name, "compare", f"V with the ends of {net.membrane_bits} bits", neurons, 2))
    if stage.rounding == "round":
        found.append(Operation(name, "add", "⌊θ/2⌋ for the comparison", neurons))
    found += [
        Operation(name, "compare", "V with θ", neurons, stage.s_max + 1),
        Operation(name, "subtract", "θ per spike", neurons, stage.s_max),
    ]
    if stage.pool is not None:
        kind: Kind = "max" if stage.pool.kind == "max" else "accumulate"
        found.append(Operation(name, kind, "spikes of a pooling window", neurons))
    return found
