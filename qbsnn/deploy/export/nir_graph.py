"""The integer network as a NIR graph (Neuromorphic Intermediate Representation, doi:10.1038/s41467-024-52259-9).

NIR's neurons are binary: z = 1 where v > v_threshold, then v = v_reset; time is continuous and a reader picks its step.
A network that this describes is exported plain, and any clocked reader with step ``DT`` emits its spikes. Any other one
is refused, or, on request, exported with its meaning in the metadata of graph and nodes, which a plain reader ignores.

The graph's input is the current J of a step, held for that step; its output is what a step adds to Z. Edges that meet
are summed. Thresholds lie between two integers, so ``v > θ − ½`` and ``v ≥ θ − ½`` agree. Reading and running:
:mod:`qbsnn.deploy.export.nir_reader`. nir is the optional extra ``nir`` and is imported on use.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qbsnn.deploy.format.bounds import Bound
from qbsnn.deploy.format.network import IntBranch, IntegerNetwork, IntPool, IntStage
from qbsnn.deploy.format.seal import sealed
from qbsnn.deploy.format.validation import check
from qbsnn.errors import DeployError

if TYPE_CHECKING:
    import nir

FORMAT, VERSION, SEMANTICS = "qbsnn-nir", 1, "QB-INT 1"
SEAL = b"\nqbsnn-nir sha256 "
"""Stands before the digest at the end of a file."""
DT = 1e-4
"""Seconds that a time step stands for: the step that NIR readers take by default."""
EXACT = 2**23
"""Below this, integers and the halves between them are exact in float32, in which plain readers compute."""
INEXACT = "sums beyond 2^23, not exact in float32"
ROUNDED = "sums beyond 2^20/T, which IF multiplies by r·dt, not exact in float32"
"""Each of T steps adds x·r·dt, which misses x by up to 2^-22·x; together they must miss by less than 1/2."""


def available() -> str | None:
    """Why NIR cannot be used here, or ``None`` if it can."""
    try:
        import nir  # noqa: F401
    except ImportError as error:
        return f"nir cannot be imported ({error}); install qbsnn[nir]"
    return None


def misreadings(net: IntegerNetwork, bounds: Sequence[Bound]) -> list[str]:
    """What a plain NIR reader would get wrong, with the stages; empty if it emits the network's spikes.

    bounds: of the stages and the readout, in order, from :func:`qbsnn.deploy.format.bounds.bounds`.
    """
    found: dict[str, list[str]] = {}
    for stage, bound in zip(net.stages, bounds, strict=False):
        for problem in _problems(net, stage, bound):
            found.setdefault(problem, []).append(stage.name)
    if bounds[-1].accumulator >= EXACT:
        found.setdefault(INEXACT, []).append("readout")
    return [f"{problem} ({', '.join(names)})" for problem, names in found.items()]


def _problems(net: IntegerNetwork, stage: IntStage, bound: Bound) -> list[str]:
    problems = []
    if stage.s_max > 1:
        problems.append(f"bursts of up to {stage.s_max}")
    if stage.s_min < 0:
        problems.append("negative spikes")
    if not _is_memoryless(net, stage):
        if not _is_lossless(stage):
            problems.append(f"the rounding leak {stage.leak.kind} {stage.leak.amount}")
        if stage.reset == "soft":
            problems.append("soft reset")
    if bound.membrane >= 2 ** (net.membrane_bits - 1):
        problems.append(f"membranes that may leave {net.membrane_bits} bits ({net.overflow})")
    largest = max(bound.accumulator, bound.membrane, int(stage.theta.max()))
    if largest >= EXACT:
        problems.append(INEXACT)
    elif _becomes_if(net, stage) and largest * net.T >= 2**20:
        problems.append(ROUNDED)
    return problems


def write(net: IntegerNetwork, bounds: Sequence[Bound], path: Path, allow_metadata_only: bool = False) -> None:
    """Write ``net`` to ``path`` (HDF5).

    Raises:
        DeployError: the wiring is wrong, nir is missing or refuses the graph, or a plain reader would misread it and
            ``allow_metadata_only`` is false.
    """
    reason = available()
    if reason:
        raise DeployError(f"no NIR export: {reason}")
    problems = misreadings(net, bounds)
    if problems and not allow_metadata_only:
        raise DeployError(
            f"a plain NIR reader would misread this network: {'; '.join(problems)}. With allow_metadata_only=true it "
            "is exported for readers that know qbsnn's metadata"
        )
    save(path, graph(net, problems))


def save(path: Path, graph: nir.NIRGraph) -> None:
    """Write a graph with its digest behind it, where HDF5 does not look."""
    import nir

    nir.write(path, graph)
    path.write_bytes(sealed(path.read_bytes(), SEAL))


def graph(net: IntegerNetwork, problems: Sequence[str]) -> nir.NIRGraph:
    """The NIR graph; ``problems`` of plain readers go into its metadata."""
    import nir

    pooled = check(net)
    nodes: dict[str, Any] = {"input": nir.Input(np.array(net.stages[0].shape))}
    edges: list[tuple[str, str]] = []
    outputs: list[str] = []
    for k, stage in enumerate(net.stages):
        bias = None if stage.branches[0].kind == "input" else stage.bias
        nodes[f"stage{k}"] = _neuron(net, stage)
        for j, branch in enumerate(stage.branches):
            if branch.kind == "input":
                edges.append(("input", f"stage{k}"))
                continue
            edges += _branch(nodes, f"stage{k}_branch{j}", branch, stage.shape, pooled, outputs, bias)
            edges.append((f"stage{k}_branch{j}", f"stage{k}"))
            bias = bias if branch.weight is None else None  # once is enough
        if bias is not None and bias.any():
            raise DeployError(f"stage {stage.name!r}: NIR has no place for a bias without weights")
        outputs.append(_pool(nodes, edges, k, stage.pool, pooled[k]))
    if net.stages[0].bias.any():
        raise DeployError(f"stage {net.stages[0].name!r}: its bias must be 0, as J includes it")
    classes = len(net.readout.bias)
    edges += _branch(nodes, "readout", net.readout.branch, (classes,), pooled, outputs, net.readout.bias)
    nodes["output"] = nir.Output(np.array([classes]))
    edges.append(("readout", "output"))
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "semantics": SEMANTICS,
        "T": net.T,
        "dt": DT,
        "membrane_bits": net.membrane_bits,
        "overflow": net.overflow,
        "readout_bias": net.readout.bias,
        "readout_scale": net.readout.scale,
        "plain_readers": "may run it" if not problems else f"misread it: {'; '.join(problems)}",
    }
    if net.exit_margin is not None:
        metadata["exit_margin"] = net.exit_margin
    try:
        return nir.NIRGraph(nodes, edges, metadata)
    except ValueError as error:
        raise DeployError(f"nir refuses the graph: {error}") from error


def _neuron(net: IntegerNetwork, stage: IntStage) -> Any:
    """IF where it is right; Threshold where no state survives a step; else the nearest LIF."""
    import nir

    theta = stage.theta - stage.theta // 2 if stage.rounding == "round" else stage.theta
    threshold = _spread(theta - 0.5, stage.shape)
    metadata = {
        "name": stage.name,
        "s_min": stage.s_min,
        "s_max": stage.s_max,
        "theta": stage.theta,
        "bias": stage.bias,
        "leak": stage.leak.kind,
        "amount": stage.leak.amount,
        "rounding": stage.rounding,
        "reset": stage.reset,
    }
    ones = np.ones(stage.shape, np.float32)
    rate = {"none": 0.0, "mul12_to_zero": stage.leak.amount / 4096}.get(stage.leak.kind, 2.0**-stage.leak.amount)
    if _becomes_if(net, stage):
        return nir.IF(r=ones / np.float32(DT), v_threshold=threshold, v_reset=0 * ones, metadata=metadata)
    if _is_memoryless(net, stage):
        return nir.Threshold(threshold, metadata=metadata)
    tau = np.float32(1 / rate)
    return nir.LIF(ones * tau * DT, ones * tau, 0 * ones, threshold, v_reset=0 * ones, metadata=metadata)


def _becomes_if(net: IntegerNetwork, stage: IntStage) -> bool:
    """Whether V is a sum over the steps, or a hard reset is to be seen."""
    return _is_lossless(stage) and (stage.reset == "hard" or not _is_memoryless(net, stage))


def _is_lossless(stage: IntStage) -> bool:
    """Whether the leak leaves V as it is."""
    return stage.leak.kind == "none" or (stage.leak.kind, stage.leak.amount) == ("mul12_to_zero", 0)


def _is_memoryless(net: IntegerNetwork, stage: IntStage) -> bool:
    """Whether V at the beginning of a step is always 0, so that reset and leak do not matter."""
    everything = {"shift_floor": 0, "shift_xylo": 0, "mul12_to_zero": 4096}
    return net.T == 1 or everything.get(stage.leak.kind) == stage.leak.amount


def _branch(
    nodes: dict[str, Any],
    name: str,
    branch: IntBranch,
    shape: tuple[int, ...],
    pooled: Sequence[tuple[int, ...]],
    outputs: Sequence[str],
    bias: NDArray[np.int32] | None,
) -> list[tuple[str, str]]:
    """Add the nodes of one branch, with the stage's bias if it is given; returns the edges into them."""
    import nir

    source, feeds = pooled[branch.source], outputs[branch.source]
    if branch.scale is not None:
        nodes[name] = nir.Scale(_spread(branch.scale, shape), metadata={"scale": branch.scale})
        return [(feeds, name)]
    assert branch.weight is not None
    weight = branch.weight.astype(np.float32)
    constant = np.zeros(len(weight), np.float32) if bias is None else bias.astype(np.float32)
    if branch.kind == "conv":
        rows, columns = branch.weight.shape[2:]
        if branch.groups > 1 or rows != columns:
            raise DeployError(
                f"{name}: nir gets the shape of a convolution wrong unless groups = 1 and the kernel is square, "
                f"got groups = {branch.groups} and a kernel of {rows}x{columns}"
            )
        geometry = (branch.stride, branch.padding, (1, 1), branch.groups)
        nodes[name] = nir.Conv2d((source[1], source[2]), weight, *geometry, constant)
        return [(feeds, name)]
    nodes[name] = nir.Affine(weight, constant)
    if len(source) == 1:
        return [(feeds, name)]
    nodes[f"{name}_flatten"] = nir.Flatten({"input": np.array(source)}, 0, -1)
    return [(feeds, f"{name}_flatten"), (f"{name}_flatten", name)]


def _pool(
    nodes: dict[str, Any], edges: list[tuple[str, str]], k: int, pool: IntPool | None, shape: tuple[int, ...]
) -> str:
    """Add a stage's pool; returns the node that feeds its consumers. The maximum of 0s and 1s is "their sum > ½"."""
    import nir

    name = f"stage{k}_pool"
    if pool is None:
        return f"stage{k}"
    kernel, stride, padding = (np.array(pair) for pair in (pool.kernel, pool.stride, pool.padding))
    nodes[name] = nir.SumPool2d(kernel, stride, padding, metadata={"kind": pool.kind})
    edges.append((f"stage{k}", name))
    if pool.kind == "sum":
        return name
    nodes[f"{name}_any"] = nir.Threshold(np.full(shape, 0.5, np.float32))
    edges.append((name, f"{name}_any"))
    return f"{name}_any"


def _spread(values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Per-channel values as an array of a whole layer."""
    per_channel = values.astype(np.float32).reshape(-1, *[1] * (len(shape) - 1))
    return np.ascontiguousarray(np.broadcast_to(per_channel, shape))
