"""Engine against engine, layer by layer: how many values differ, and which one first."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qbsnn.deploy.convert.grid import GridNetwork
from qbsnn.deploy.convert.quantized import Quantized
from qbsnn.deploy.engines import onnx_engine, reference, scalar
from qbsnn.deploy.engines.int8_engine import Int8Engine
from qbsnn.deploy.engines.torch_engine import TorchEngine
from qbsnn.deploy.format.network import IntegerNetwork, Trace
from qbsnn.deploy.verify.traces import same_overflows
from qbsnn.errors import DeployError

log = logging.getLogger(__name__)

SCALAR_WORK = 2 * 10**7
"""Additions that the scalar engine may take at most: half a minute."""

COUNTING = ("torch", "int8")
"""Engines that count overflows, as the scalar one does."""

Engine = Callable[[Tensor, NDArray[np.int32]], Trace]


@dataclass
class Row:
    """One layer of one engine against the int64 engine: values that differ, values compared, the first difference."""

    engine: str
    layer: str
    spikes: int = 0
    membranes: int = 0
    values: int = 0
    first: str | None = None


def engines(quantized: Quantized, grid: GridNetwork, compiled: bool = False) -> dict[str, Engine]:
    """All engines but the yardstick and the scalar one: functions of encoded pixels and current to a trace.

    Where onnxruntime cannot hold the network it is left out, and the reason logged.

    compiled: as of :class:`~qbsnn.deploy.engines.int8_engine.Int8Engine`.
    """
    device = next(quantized.front.parameters()).device
    fast, int8 = TorchEngine(quantized, device), Int8Engine(quantized, device, compiled)
    found: dict[str, Engine] = {
        "grid": lambda encoded, current: grid_trace(grid, encoded),
        "torch": lambda encoded, current: fast.run(current),
        "int8": lambda encoded, current: int8.run(current),
    }
    if onnx_engine.available() is None:
        try:
            onnx = onnx_engine.OnnxEngine(quantized.net, static=quantized.front.encoder.coding == "direct")
        except DeployError as error:
            log.warning("onnxruntime is left out: %s", error)
        else:
            found["onnxruntime"] = lambda encoded, current: onnx.run(current)
    return found


def grid_trace(grid: GridNetwork, encoded: Tensor) -> Trace:
    """What the grid network computes, as a trace; its logits are Z again."""
    with torch.no_grad():
        logits, spikes, membranes = grid.trace(encoded)
    z = (logits.double() * grid.origin.plan.scale).round().sum(0)
    return Trace(_integers(spikes), _integers(membranes), _integers([z])[0])


def _integers(values: list[Tensor]) -> list[NDArray[np.integer]]:
    return [np.asarray(value.cpu()).astype(np.int64) for value in values]


def scalar_work(net: IntegerNetwork) -> int:
    """Additions that the scalar engine does for one image."""
    total = net.readout.branch.weight.size if net.readout.branch.weight is not None else 0
    for stage in net.stages:
        for branch in stage.branches:
            total += int(np.prod(stage.shape)) * (branch.weight[0].size if branch.weight is not None else 1)
    return total * net.T


def compare_layers(engine: str, net: IntegerNetwork, trace: Trace, yardstick: Trace) -> Iterator[Row]:
    """A row per stage; one for the logits, whose ``spikes`` are Z; one for steps and classes of early exit."""
    for i, stage in enumerate(net.stages):
        row = Row(engine, stage.name, values=yardstick.spikes[i].size)
        row.spikes, first_spike = _differences(trace.spikes[i], yardstick.spikes[i], "spikes")
        row.membranes, first_membrane = _differences(trace.membranes[i], yardstick.membranes[i], "membrane")
        row.first = first_spike or first_membrane
        yield row
    row = Row(engine, "logits", values=yardstick.logits.size)
    row.spikes, row.first = _differences(trace.logits[None], yardstick.logits[None], "Z")
    yield row
    if trace.exits is not None and yardstick.exits is not None:  # the grid network has none
        row = Row(engine, "exits", values=yardstick.exits.size)
        row.spikes, row.first = _differences(trace.exits.T[None], yardstick.exits.T[None], "exit")
        yield row


def compare_overflows(engine: str, trace: Trace, yardstick: Trace) -> Row:
    """A row whose one value is how many values overflowed, and where first."""
    row = Row(engine, "overflows", values=1)
    if not same_overflows(trace, yardstick):
        found, right = (f"{each.overflows}, the first {each.first_overflow}" for each in (trace, yardstick))
        row.spikes, row.first = 1, f"{found} instead of {right}"
    return row


def compare_engines(
    quantized: Quantized,
    grid: GridNetwork,
    batches: Iterator[Tensor],
    scalar_images: int = 1,
    compiled: bool = False,
) -> Iterator[tuple[list[Row], Trace]]:
    """Per batch of pixels ``[B, C, H, W]`` rows of every engine, and the trace that they were compared with.

    The scalar engine sees the first images only.
    """
    net = quantized.net
    others = engines(quantized, grid, compiled)
    left = min(scalar_images, SCALAR_WORK // scalar_work(net))
    for pixels in batches:
        with torch.no_grad():
            encoded = quantized.front.encoder(pixels)
            current = quantized.current_of(encoded)
        yardstick = reference.run(net, current)
        rows: list[Row] = []
        for name, run in others.items():
            trace = run(encoded, current)
            rows += compare_layers(name, net, trace, yardstick)
            if name in COUNTING:
                rows.append(compare_overflows(name, trace, yardstick))
        if left > 0:
            part = current[:, :left]
            trace, expected = scalar.run(net, part), reference.run(net, part)
            rows += [*compare_layers("scalar", net, trace, expected), compare_overflows("scalar", trace, expected)]
            left -= part.shape[1]
        yield rows, yardstick


def _differences(a: NDArray[np.integer], b: NDArray[np.integer], what: str) -> tuple[int, str | None]:
    """How many values ``[T, B, ...]`` differ, and the first of them in words."""
    differ = a.astype(np.int64) != b.astype(np.int64)
    if not differ.any():
        return 0, None
    at = tuple(int(i) for i in np.argwhere(differ)[0])
    step, sample, *neuron = at
    where = f"neuron ({', '.join(map(str, neuron))}), step {step}, sample {sample}"
    return int(differ.sum()), f"{what} of {where}: {int(a[at])} instead of {int(b[at])}"
