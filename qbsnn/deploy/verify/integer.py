"""The check that all integer engines agree, over a whole data set, batch by batch.

No check passes on a silent network: a layer without a single spike makes it fail.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qbsnn.deploy.convert.absorb import absorb, checked_network
from qbsnn.deploy.convert.grid import GridNetwork
from qbsnn.deploy.convert.profiles import findings as fits_profile
from qbsnn.deploy.convert.profiles import promised
from qbsnn.deploy.convert.quantized import Quantized
from qbsnn.deploy.engines import onnx_engine, reference
from qbsnn.deploy.engines.int8_engine import Int8Engine
from qbsnn.deploy.format.operations import multiplying_stages, weight_bytes
from qbsnn.deploy.verify import exits
from qbsnn.deploy.verify.absorption import Batches, check_absorption, count_right
from qbsnn.deploy.verify.batches import checked
from qbsnn.deploy.verify.origin import check_origin
from qbsnn.deploy.verify.traces import compare, differences, exit_differences, flip_weight, same_overflows
from qbsnn.errors import ArgumentError, DeployError
from qbsnn.functional.exact import full_float32
from qbsnn.layers.stage import Stage
from qbsnn.models.network import SpikingNetwork
from qbsnn.results.schema import Absorption, EarlyExit, Integer, LayerCheck

Predictor = Callable[[Tensor], Tensor]


class Proof(NamedTuple):
    """What :func:`verify` found.

    Attributes:
        absorption: The absorbed network against the trained one.
        integer: The integer engines against one another.
    """

    absorption: Absorption
    integer: Integer

    @property
    def passed(self) -> bool:
        """Whether both hold, on spikes in every layer."""
        return self.absorption.passed and self.integer.passed


def verify(network: SpikingNetwork, quantized: Quantized, batches: Batches) -> Proof:
    """Prove that a quantised network is what a trained one became.

    Where ``quantized`` was to be trained on the grid (``DeploySettings(mode="qat")``), its weights are no longer those
    of the network; that it came from this one is then not checked.

    Args:
        network: The trained network, on the device of ``quantized``.
        quantized: What :func:`~qbsnn.deploy.convert.quantize.quantize` made of its absorbed form.
        batches: (pixels ``[B, C, H, W]`` or frames ``[B, T, C, H, W]``, labels ``[B]``), which are passed over twice.

    Raises:
        ArgumentError: ``network``, ``quantized`` or a batch is something else, ``quantized`` was made of another
            network, or a value lies outside [0, 1] (for frames [0, 255]).
    """
    checked_network(network)
    if not isinstance(quantized, Quantized):
        raise ArgumentError(f"quantized must be what quantize() returns, got {type(quantized).__name__}")
    seen = checked(batches, network.encoder)
    trained = copy.deepcopy(network).eval()
    absorbed = absorb(trained)
    if quantized.settings.mode != "qat":
        check_origin(absorbed, quantized)
    return Proof(check_absorption(trained, absorbed, seen), check_integer(quantized, seen))


@full_float32()
@torch.no_grad()
def check_integer(
    quantized: Quantized,
    batches: Batches,
    checkpoint: str = "",
    onnx_images: int = 128,
    grid: GridNetwork | None = None,
    rivals: Mapping[str, Predictor] | None = None,
    compiled: bool = False,
) -> Integer:
    """Run the integer network on all batches in the int8 engine and compare every spike, membrane and logit.

    Compared with the independent int64 engine and the grid network (``grid``, by default one made from ``quantized``)
    on all images, and with onnxruntime, where it can hold the network, on the first ``onnx_images`` or more. On the
    first batch the comparison is repeated with one weight changed by one unit, which it must notice. rivals: other
    networks whose accuracy is measured, as functions of pixels ``[B, C, H, W]`` to classes ``[B]`` by the name of a
    field of the result. compiled: as of :class:`~qbsnn.deploy.engines.int8_engine.Int8Engine`.
    """
    net, absorbed = quantized.net, quantized.front
    engine = Int8Engine(quantized, next(absorbed.parameters()).device, compiled)
    grid = grid or GridNetwork(quantized)
    layers = _integer_layers(quantized, engine)
    unavailable = onnx_engine.available() if onnx_images else "switched off"
    engine_of_onnx = None
    if unavailable is None:
        try:
            engine_of_onnx = onnx_engine.OnnxEngine(net, static=absorbed.encoder.coding == "direct")
        except DeployError as error:
            unavailable = str(error)
    images = right = right_absorbed = logit_mismatches = grid_mismatches = overflows = flip_mismatches = 0
    onnx_seen = onnx_mismatches = 0
    first_overflow, overflows_agree = None, True
    rivals = rivals or {}
    right_rivals = dict.fromkeys(rivals, 0)
    leaving = _exit_block(quantized)
    for pixels, labels in batches:
        encoded = absorbed.encoder(pixels)
        current = quantized.current_of(encoded)
        trace, independent = engine.run(current), reference.run(net, current)
        floating, logits = record_spikes(absorbed, encoded)
        _, *trained = grid.trace(encoded)
        for i, layer in enumerate(layers):
            layer.spikes += int(np.abs(trace.spikes[i].astype(np.int64)).sum())
            layer.positions += trace.spikes[i].size
            layer.mismatches += differences(trace.spikes[i], independent.spikes[i])
            layer.membrane_mismatches += differences(trace.membranes[i], independent.membranes[i])
            layer.free_running_mismatches += differences(trace.spikes[i], floating[i])
            layer.membrane_seen = max(layer.membrane_seen, int(np.abs(trace.membranes[i]).max()))
            both = zip((trace.spikes[i], trace.membranes[i]), (values[i] for values in trained), strict=True)
            grid_mismatches += sum(differences(ours, theirs.cpu().numpy()) for ours, theirs in both)
        logit_mismatches += differences(trace.logits, independent.logits)
        overflows_agree &= same_overflows(trace, independent)
        overflows += trace.overflows
        if first_overflow is None and trace.first_overflow is not None:
            first_overflow = replace(trace.first_overflow, sample=images + trace.first_overflow.sample)
        if isinstance(leaving, EarlyExit):
            exits.count(leaving, net, trace, labels.cpu().numpy())
            leaving.mismatches += exit_differences(trace, independent)
        if images == 0:
            flip_mismatches = compare(trace, reference.run(flip_weight(net, trace), current))
        if engine_of_onnx is not None and onnx_seen < onnx_images:
            onnx_mismatches += compare(trace, engine_of_onnx.run(current))
            onnx_seen += len(labels)
        images += len(labels)
        # numpy's argmax takes the lowest index on ties, as QB-INT 1 says.
        right += int((trace.logits.argmax(1) == labels.cpu().numpy()).sum())
        right_absorbed += count_right(absorbed.decide(logits), labels)
        for name, predict in rivals.items():
            right_rivals[name] += int((predict(pixels) == labels).sum())
    for layer in layers:
        layer.disagreement = layer.free_running_mismatches / max(layer.positions, 1)
    mismatches = sum(layer.mismatches for layer in layers)
    membrane_mismatches = sum(layer.membrane_mismatches for layer in layers)
    exact = mismatches == membrane_mismatches == logit_mismatches == grid_mismatches == onnx_mismatches == 0
    exact &= not isinstance(leaving, EarlyExit) or leaving.mismatches == 0
    fits = overflows_agree and (overflows == 0 or net.overflow != "error")
    settings = quantized.settings
    shares: dict[str, Any] = {name: count / max(images, 1) for name, count in right_rivals.items()}
    return Integer(
        checkpoint=checkpoint,
        passed=exact and fits and flip_mismatches > 0 and all(layer.spikes for layer in layers),
        images=images,
        spikes=sum(layer.spikes for layer in layers),
        positions=sum(layer.positions for layer in layers),
        spike_mismatches=mismatches,
        membrane_mismatches=membrane_mismatches,
        logit_mismatches=logit_mismatches,
        flip_mismatches=flip_mismatches,
        acc=right / max(images, 1),
        absorbed_acc=right_absorbed / max(images, 1),
        weight_bits=settings.bits,
        accumulator_bits=max(bound.accumulator_bits for bound in engine.bounds),
        membrane_bits=max(bound.membrane_bits for bound in engine.bounds),
        overflows=overflows,
        layers=layers,
        onnxruntime_images=onnx_seen if unavailable is None else None,
        onnxruntime_mismatches=onnx_mismatches if unavailable is None else None,
        onnxruntime_skipped=unavailable,
        theta=settings.theta,
        leak=", ".join(sorted({stage.leak.kind for stage in net.stages})),
        overflow=net.overflow,
        register_bits=net.membrane_bits,
        weight_bytes=weight_bytes(net, settings.bits),
        grid_mismatches=grid_mismatches,
        first_overflow=None if first_overflow is None else str(first_overflow),
        multiplying_layers=multiplying_stages(net),
        readout_kernel=engine.kernels()["readout"],
        readout_clipped_weights=quantized.clipped["readout"],
        first_layer=settings.first_layer,
        profile=settings.profile,
        promise=promised(settings.profile) if settings.profile else None,
        findings=fits_profile(quantized, settings.profile) if settings.profile else [],
        exit=leaving,
        **shares,
    )


def _exit_block(quantized: Quantized) -> EarlyExit | dict[str, str] | None:
    """Where early exit is counted; a reason where a loss was stated and no margin found; else ``None``."""
    margin, loss = quantized.net.exit_margin, quantized.settings.exit_loss
    if margin is not None:
        return EarlyExit(margin, loss or 0.0, [0] * quantized.net.T)
    return None if loss is None else {"skipped": f"no margin saves a step at a loss of at most {loss:g}"}


def record_spikes(network: SpikingNetwork, encoded: Tensor) -> tuple[list[NDArray[np.integer]], Tensor]:
    """Bursts of every stage ``[T, B, ...]`` (before pooling) and the logits of an absorbed network."""
    spikes: list[NDArray[np.integer]] = []

    def visit(name: str, stage: Stage, inputs: list[Tensor]) -> Tensor:
        current = stage.current(inputs, network.T)
        if stage.neuron is None:
            return current
        output = stage.neuron(current)
        spikes.append(output.to(torch.int16).expand(network.T, *output.shape[1:]).cpu().numpy())
        return stage.emit(output)

    return spikes, network.walk(encoded, visit)


def _integer_layers(quantized: Quantized, engine: Int8Engine) -> list[LayerCheck]:
    kernels = engine.kernels()
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
            kernel=kernels[stage.name],
        )
        for stage, bound in zip(quantized.net.stages, engine.bounds, strict=False)
    ]
