"""Checks that two networks that must agree do, over a whole data set, batch by batch.

No check passes on a silent network: a layer without a single spike makes it fail.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qbsnn.deploy import onnx_graph, reference
from qbsnn.deploy.absorb import emission_scales, spiking
from qbsnn.deploy.engine import TorchEngine
from qbsnn.deploy.integer import IntBranch, IntegerNetwork, Trace
from qbsnn.deploy.quantize import Quantized
from qbsnn.layers.norm import affine
from qbsnn.layers.stage import INPUT, Stage
from qbsnn.models.network import SpikingNetwork
from qbsnn.report.schema import Absorption, Integer, LayerCheck

Batches = Iterable[tuple[Tensor, Tensor]]
Pair = tuple[Tensor, Tensor]


@torch.no_grad()
def check_absorption(
    trained: SpikingNetwork, absorbed: SpikingNetwork, batches: Batches, checkpoint: str = ""
) -> Absorption:
    """Compare a trained network with its absorbed form on (pixels ``[B, C, H, W]``, labels ``[B]``).

    Teacher-forced: each layer and step of the absorbed network is fed the trained network's own spikes and membrane.
    There a difference is a tie if u lies within rounding of a level, |u − k| ≤ ε·(fan-in + 4)·Σ|terms|, the sum over
    every product, bias, norm mean and carried membrane that went into u; any other difference is a mismatch. Both
    networks must be in evaluation mode and on one device.
    """
    scales = emission_scales(trained)
    layers = {name: LayerCheck(name, 0, 0, 0) for name, _, _ in trained.spiking_stages()}

    def visit(name: str, stage: Stage, inputs: list[Pair]) -> Pair:
        other = absorbed.stages[name]
        assert isinstance(other, Stage)
        current = stage.current([x for x, _ in inputs], trained.T)
        free = other.current([x for _, x in inputs], trained.T)
        if stage.neuron is None or other.neuron is None:
            return current, free
        neuron, fixed = spiking(name, stage.neuron), spiking(name, other.neuron)
        output, membranes = neuron.run(current)
        counts, free_counts = neuron.counts(output), fixed.run(free)[0]
        forced = [
            x if source == INPUT else (x / scales[source].to(x)).round()
            for (x, _), source in zip(inputs, stage.sources, strict=True)
        ]
        before = torch.cat([torch.zeros_like(membranes[:1]), membranes[:-1]]) / neuron.scale()
        forced_current = other.current(forced, trained.T)
        differs = fixed.step(before, forced_current)[1] != counts
        u = fixed.decay * before + forced_current
        ties = differs & _is_tie(u, stage, other, forced, before) if bool(differs.any()) else differs
        check = layers[name]
        check.spikes += int(counts.sum(dtype=torch.float64))
        check.positions += counts.numel()
        check.ties += int(ties.sum())
        check.mismatches += int(differs.sum()) - int(ties.sum())
        check.free_running_mismatches += int((free_counts != counts).sum())
        return stage.emit(output), other.emit(free_counts)

    images, right, right_absorbed = 0, 0, 0
    for pixels, labels in batches:
        encoded = trained.encoder(pixels)
        logits, absorbed_logits = trained.walk((encoded, encoded), visit)
        images += len(labels)
        right += _right(logits.mean(0), labels)
        right_absorbed += _right(absorbed_logits.mean(0), labels)
    found = list(layers.values())
    mismatches = sum(layer.mismatches for layer in found)
    return Absorption(
        checkpoint=checkpoint,
        passed=mismatches == 0 and images > 0 and all(layer.spikes for layer in found),
        images=images,
        spikes=sum(layer.spikes for layer in found),
        positions=sum(layer.positions for layer in found),
        spike_mismatches=mismatches,
        ties=sum(layer.ties for layer in found),
        free_running_mismatches=sum(layer.free_running_mismatches for layer in found),
        acc=right_absorbed / max(images, 1),
        trained_acc=right / max(images, 1),
        layers=found,
    )


@torch.no_grad()
def check_integer(quantized: Quantized, batches: Batches, checkpoint: str = "", onnx_images: int = 128) -> Integer:
    """Run the integer network on all batches in the fast engine and compare every spike, membrane and logit.

    Compared with the independent int64 engine on all images and with onnxruntime on the first ``onnx_images`` or more.
    On the first batch the comparison is repeated with one weight changed by one unit, which it must notice.
    """
    net, absorbed = quantized.net, quantized.front
    engine = TorchEngine(quantized, next(absorbed.parameters()).device)
    layers = _integer_layers(quantized, engine)
    unavailable = onnx_graph.available() if onnx_images else "switched off"
    onnx_engine = None
    images = right = right_absorbed = logit_mismatches = overflows = flip_mismatches = 0
    onnx_seen = onnx_mismatches = 0
    for pixels, labels in batches:
        encoded = absorbed.encoder(pixels)
        current = quantized.current_of(encoded)
        trace, independent = engine.run(current), reference.run(net, current)
        floating, logits = record_spikes(absorbed, encoded)
        for i, layer in enumerate(layers):
            layer.spikes += int(trace.spikes[i].sum(dtype=np.int64))
            layer.positions += trace.spikes[i].size
            layer.mismatches += _differences(trace.spikes[i], independent.spikes[i])
            layer.membrane_mismatches += _differences(trace.membranes[i], independent.membranes[i])
            layer.free_running_mismatches += _differences(trace.spikes[i], floating[i])
            layer.membrane_seen = max(layer.membrane_seen, int(np.abs(trace.membranes[i]).max()))
        logit_mismatches += _differences(trace.logits, independent.logits)
        overflows += trace.overflows + independent.overflows
        if images == 0:
            flip_mismatches = compare(trace, reference.run(flip_weight(net, trace), current))
        if unavailable is None and onnx_seen < onnx_images:
            onnx_engine = onnx_engine or onnx_graph.OnnxEngine(net, static=current.shape[0] == 1)
            onnx_mismatches += compare(trace, onnx_engine.run(current))
            onnx_seen += len(labels)
        images += len(labels)
        # numpy's argmax takes the lowest index on ties, as QB-INT 1 says.
        right += int((trace.logits.argmax(1) == labels.cpu().numpy()).sum())
        right_absorbed += _right(logits.mean(0), labels)
    for layer in layers:
        layer.disagreement = layer.free_running_mismatches / max(layer.positions, 1)
    mismatches = sum(layer.mismatches for layer in layers)
    membrane_mismatches = sum(layer.membrane_mismatches for layer in layers)
    exact = mismatches == membrane_mismatches == logit_mismatches == overflows == onnx_mismatches == 0
    return Integer(
        checkpoint=checkpoint,
        passed=exact and flip_mismatches > 0 and all(layer.spikes for layer in layers),
        images=images,
        spikes=sum(layer.spikes for layer in layers),
        positions=sum(layer.positions for layer in layers),
        spike_mismatches=mismatches,
        membrane_mismatches=membrane_mismatches,
        logit_mismatches=logit_mismatches,
        flip_mismatches=flip_mismatches,
        acc=right / max(images, 1),
        absorbed_acc=right_absorbed / max(images, 1),
        weight_bits=8,
        accumulator_bits=max(bound.accumulator_bits for bound in engine.bounds),
        membrane_bits=max(bound.membrane_bits for bound in engine.bounds),
        overflows=overflows,
        layers=layers,
        onnxruntime_images=onnx_seen if unavailable is None else None,
        onnxruntime_mismatches=onnx_mismatches if unavailable is None else None,
        onnxruntime_skipped=unavailable,
    )


def record_spikes(network: SpikingNetwork, encoded: Tensor) -> tuple[list[NDArray[np.uint8]], Tensor]:
    """Bursts of every stage ``[T, B, ...]`` (before pooling) and the logits of an absorbed network."""
    spikes: list[NDArray[np.uint8]] = []

    def visit(name: str, stage: Stage, inputs: list[Tensor]) -> Tensor:
        current = stage.current(inputs, network.T)
        if stage.neuron is None:
            return current
        output = stage.neuron(current)
        spikes.append(output.to(torch.uint8).cpu().numpy())
        return stage.emit(output)

    return spikes, network.walk(encoded, visit)


def compare(a: Trace, b: Trace) -> int:
    """Number of spikes, membranes and logits in which two traces differ."""
    pairs = [*zip(a.spikes, b.spikes, strict=True), *zip(a.membranes, b.membranes, strict=True), (a.logits, b.logits)]
    return sum(_differences(x, y) for x, y in pairs)


def flip_weight(net: IntegerNetwork, trace: Trace) -> IntegerNetwork:
    """The network with one weight changed by one unit: in the last layer of weights, from its busiest input.

    That a comparison notices this small change shows that it can notice anything at all. The weight leads to the
    neuron that fires least, because a hard reset wipes out what reached a neuron that fires.
    """
    for i in reversed(range(len(net.stages))):
        stage = net.stages[i]
        for j, branch in enumerate(stage.branches):
            if branch.weight is not None:
                flipped = _flip(branch, trace.spikes[branch.source], _per_channel(trace.spikes[i]).argmin())
                branches = (*stage.branches[:j], flipped, *stage.branches[j + 1 :])
                stages = (*net.stages[:i], replace(stage, branches=branches), *net.stages[i + 1 :])
                return replace(net, stages=stages)
    flipped = _flip(net.readout.branch, trace.spikes[net.readout.branch.source], 0)
    return replace(net, readout=replace(net.readout, branch=flipped))


def _flip(branch: IntBranch, source: NDArray[np.integer], row: int | np.integer) -> IntBranch:
    """Change the weight from the busiest channel of ``source`` (spikes ``[T, B, C, ...]``) to output ``row``."""
    assert branch.weight is not None
    weight = branch.weight.copy()
    activity = _per_channel(source)
    if branch.kind == "conv":
        group = int(row) // (len(weight) // branch.groups)
        inputs = weight.shape[1]
        channel = int(activity[group * inputs : (group + 1) * inputs].argmax())
        where: tuple[int, ...] = (int(row), channel, weight.shape[2] // 2, weight.shape[3] // 2)
    else:
        # Flattened features of one channel lie together; behind a pool each gathers several positions of the map.
        per_channel = weight.shape[1] // len(activity)
        where = (int(row), int(activity.argmax()) * per_channel + per_channel // 2)
    weight[where] += -1 if weight[where] == 127 else 1
    return replace(branch, weight=weight)


def _per_channel(spikes: NDArray[np.integer]) -> NDArray[np.int64]:
    """Spikes ``[T, B, C, ...]`` summed to ``[C]``."""
    return spikes.reshape(*spikes.shape[:3], -1).sum((0, 1, 3), dtype=np.int64)


def _is_tie(u: Tensor, stage: Stage, absorbed: Stage, inputs: list[Tensor], before: Tensor) -> Tensor:
    """Whether u is within rounding of a level, see :func:`check_absorption`."""
    neuron = spiking("", absorbed.neuron)  # type: ignore[arg-type]
    delta = spiking("", stage.neuron).scale()  # type: ignore[arg-type]
    terms = (neuron.decay * before).abs()
    fan_in = 0
    for branch, other, x in zip(stage.parts, absorbed.parts, inputs, strict=True):
        layer = other.weight
        if layer is None:
            terms = terms + other(x).abs()
            fan_in += 1
            continue
        fan_in += layer.weight[0].numel()
        size = x.abs().flatten(0, 1)
        if isinstance(layer, torch.nn.Linear):
            products = size.flatten(1) @ layer.weight.abs().T
        else:
            products = torch.nn.functional.conv2d(
                size, layer.weight.abs(), None, layer.stride, layer.padding, layer.dilation, layer.groups
            )
        assert layer.bias is not None
        constant = layer.bias.abs()
        if branch.norm is not None:
            mean, var, eps, gamma, beta = affine(branch.norm)
            constant = constant + ((gamma / (var + eps).sqrt() * mean).abs() + beta.abs()) / delta
        products = products + constant.view(-1, *[1] * (products.dim() - 2))
        terms = terms + products.unflatten(0, x.shape[:2])
    level = u.round().clamp(1, neuron.s_max)
    return (u - level).abs() <= torch.finfo(u.dtype).eps * (fan_in + 4) * terms


def _integer_layers(quantized: Quantized, engine: TorchEngine) -> list[LayerCheck]:
    return [
        LayerCheck(
            stage.name,
            spikes=0,
            positions=0,
            mismatches=0,
            accumulator_bits=bound.accumulator_bits,
            membrane_bits=bound.membrane_bits,
            accumulator_bound=bound.accumulator,
            membrane_bound=bound.membrane,
            theta_min=int(stage.theta.min()),
            theta_max=int(stage.theta.max()),
            clipped_weights=quantized.clipped[stage.name],
        )
        for stage, bound in zip(quantized.net.stages, engine.bounds, strict=False)
    ]


def _differences(a: NDArray[np.integer], b: NDArray[np.integer]) -> int:
    if a.shape != b.shape:
        raise ValueError(f"engines returned different shapes: {a.shape} and {b.shape}")
    return int(np.count_nonzero(a != b))


def _right(logits: Tensor, labels: Tensor) -> int:
    return int((logits.argmax(-1) == labels).sum())
