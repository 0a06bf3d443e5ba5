"""Reads NIR graphs back: as the integer network that their metadata describe, or as a reader that ignores these."""

from __future__ import annotations

import re
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from qbsnn.deploy.export.nir_graph import FORMAT, SEAL, SEMANTICS, VERSION, available
from qbsnn.deploy.format.network import INPUT, IntBranch, IntegerNetwork, IntPool, IntReadout, IntStage, Leak
from qbsnn.deploy.format.seal import opened
from qbsnn.deploy.format.validation import check
from qbsnn.errors import DeployError


def load(path: Path) -> Any:
    """The NIR graph of a file. Raises DeployError where nir is missing or refuses the file."""
    reason = available()
    if reason:
        raise DeployError(f"no NIR reader: {reason}")
    import nir

    try:
        return nir.read(path)
    except Exception as error:  # on a damaged file h5py and nir raise nearly any type
        raise DeployError(f"{path} is no NIR graph: {type(error).__name__}: {error}") from error


def read(path: Path) -> IntegerNetwork:
    """The integer network of a file, from nodes, edges and metadata.

    Raises:
        DeployError: for a damaged file and for a graph of another kind.
    """
    opened(path, SEAL)
    graph = load(path)
    for key, value in (("format", FORMAT), ("version", VERSION), ("semantics", SEMANTICS)):
        found = graph.metadata.get(key)
        found = found.item() if isinstance(found, np.generic) else found
        if found != value:
            raise DeployError(f"{path}: {key} must be {value!r}, got {found!r}; it is no graph of this exporter")
    try:
        net = _network(graph)
    except (KeyError, AttributeError, TypeError, ValueError, IndexError) as error:
        raise DeployError(f"{path} lacks a part of the network: {type(error).__name__}: {error}") from error
    check(net)
    return net


def run_plain(path: Path, current: NDArray[np.int32], dt: float) -> tuple[list[NDArray[np.int64]], NDArray[np.int64]]:
    """Spikes of every stage ``[T, B, *shape]`` and Z ``[B, classes]``, by NIR's equations alone, in steps of ``dt``.

    current: J ``[T, B, ...]``. Ordinary differential equations are stepped by Euler's method, in float64; z = 1 where
    v > v_threshold. No metadata are looked at.
    """
    graph = load(path)
    sources = _sources(graph)
    order = [name for name in TopologicalSorter(sources).static_order() if name in graph.nodes]
    stages = sorted((name for name in graph.nodes if re.fullmatch(r"stage\d+", name)), key=lambda name: int(name[5:]))
    state: dict[str, Tensor] = {}
    spikes, total = [], torch.zeros(())
    for step in torch.from_numpy(current).double():
        values: dict[str, Tensor] = {}
        for name in order:
            x = sum((values[source] for source in sources[name]), torch.zeros(())) if sources[name] else step
            values[name], state[name] = _evaluate(graph.nodes[name], x, state.get(name, torch.zeros(())), dt)
        spikes.append([values[name] for name in stages])
        total = total + values["output"]
    stacked = [torch.stack(steps).long().numpy() for steps in zip(*spikes, strict=True)]
    return stacked, total.long().numpy()


def _evaluate(node: Any, x: Tensor, v: Tensor, dt: float) -> tuple[Tensor, Tensor]:
    """Output of a node for its input ``[B, ...]`` of this step, and its new state."""
    kind = type(node).__name__
    if kind in ("IF", "LIF"):
        drive = _tensor(node.r) * x
        v = v + dt * (drive if kind == "IF" else (_tensor(node.v_leak) - v + drive) / _tensor(node.tau))
        z = v > _tensor(node.v_threshold)
        return z.double(), torch.where(z, _tensor(node.v_reset), v)
    if kind == "Threshold":
        return (x > _tensor(node.threshold)).double(), v
    if kind == "Affine":
        return x @ _tensor(node.weight).T + _tensor(node.bias), v
    if kind == "Conv2d":
        stride, padding, dilation = (tuple(map(int, pair)) for pair in (node.stride, node.padding, node.dilation))
        return F.conv2d(x, _tensor(node.weight), _tensor(node.bias), stride, padding, dilation, int(node.groups)), v
    if kind == "SumPool2d":
        kernel, stride, padding = (tuple(map(int, pair)) for pair in (node.kernel_size, node.stride, node.padding))
        return F.avg_pool2d(x, kernel, stride, padding, divisor_override=1), v
    if kind == "Scale":
        return x * _tensor(node.scale), v
    if kind == "Flatten":
        return x.flatten(1), v
    if kind in ("Input", "Output"):
        return x, v
    raise DeployError(f"a plain run knows no NIR node of the kind {kind}")


def _tensor(values: Any) -> Tensor:
    return torch.from_numpy(np.asarray(values, np.float64))


def _sources(graph: Any) -> dict[str, list[str]]:
    """The nodes that feed each node."""
    sources: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for source, target in graph.edges:
        sources[target].append(source)
    return sources


def _network(graph: Any) -> IntegerNetwork:
    sources, about = _sources(graph), graph.metadata
    stages: list[IntStage] = []
    while f"stage{len(stages)}" in graph.nodes:
        stages.append(_stage(graph, sources, f"stage{len(stages)}"))
    readout = IntReadout(
        _branch(graph, sources, "readout"), np.asarray(about["readout_bias"], np.int32), float(about["readout_scale"])
    )
    margin = int(about["exit_margin"]) if "exit_margin" in about else None
    bits = int(about["membrane_bits"])
    return IntegerNetwork(tuple(stages), readout, int(about["T"]), bits, about["overflow"], margin)


def _stage(graph: Any, sources: dict[str, list[str]], name: str) -> IntStage:
    node = graph.nodes[name]
    about, pool = node.metadata, graph.nodes.get(f"{name}_pool")
    fields = {key: int(about[key]) for key in ("s_min", "s_max")} | {key: about[key] for key in ("rounding", "reset")}
    return IntStage(
        name=about["name"],
        branches=tuple(_branch(graph, sources, branch) for branch in sources[name]),
        bias=np.asarray(about["bias"], np.int32),
        theta=np.asarray(about["theta"], np.int32),
        shape=tuple(int(n) for n in node.input_type["input"]),
        leak=Leak(about["leak"], int(about["amount"])),
        pool=pool
        and IntPool(pool.metadata["kind"], *(_pair(p) for p in (pool.kernel_size, pool.stride, pool.padding))),
        **fields,
    )


def _branch(graph: Any, sources: dict[str, list[str]], name: str) -> IntBranch:
    if name == "input":
        return IntBranch(INPUT, "input")
    node = graph.nodes[name]
    (source,) = sources[name]
    while not (stage := re.fullmatch(r"stage(\d+)", source)):  # past flatten and pool
        (source,) = sources[source]
    index = int(stage[1])
    if type(node).__name__ == "Scale":
        return IntBranch(index, "identity", scale=np.asarray(node.metadata["scale"], np.int32))
    weight = np.asarray(node.weight).astype(np.int8)
    if weight.ndim == 2:
        return IntBranch(index, "linear", weight)
    return IntBranch(index, "conv", weight, None, _pair(node.stride), _pair(node.padding), int(node.groups))


def _pair(values: Any) -> tuple[int, int]:
    rows, columns = (int(value) for value in values)
    return rows, columns
