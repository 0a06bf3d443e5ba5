"""The check that an absorbed network emits the spikes of the trained one, over a whole data set, batch by batch."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from qbsnn.deploy.convert.absorb import emission_scales
from qbsnn.deploy.convert.folding import spiking
from qbsnn.errors import DeployError
from qbsnn.functional.burst import QUANTISERS
from qbsnn.functional.exact import full_float32
from qbsnn.layers.norm import affine
from qbsnn.layers.stage import INPUT, Stage
from qbsnn.models.network import SpikingNetwork
from qbsnn.results.schema import Absorption, LayerCheck

Batches = Iterable[tuple[Tensor, Tensor]]
Pair = tuple[Tensor, Tensor]


@full_float32()
@torch.no_grad()
def check_absorption(
    trained: SpikingNetwork, absorbed: SpikingNetwork, batches: Batches, checkpoint: str = ""
) -> Absorption:
    """Compare a trained network with its absorbed form on (pixels ``[B, C, H, W]``, labels ``[B]``).

    Teacher-forced: each layer and step of the absorbed network is fed the trained network's own spikes and membrane.
    There a difference is a tie if u lies within rounding of a level, (H2), the sum over every product, bias, norm mean
    and carried membrane that went into u; any other difference is a mismatch. Both networks must be in evaluation mode
    and on one device.

    Raises DeployError where a forward pass of the trained network is not that of its stages.
    """
    scales = emission_scales(trained)
    counted = {source for source, scale in scales.items() if bool((scale == 1).all())}  # sent as they are
    layers = {name: LayerCheck(name, 0, 0, 0) for name, _, _ in trained.spiking_stages()}

    def visit(name: str, stage: Stage, inputs: list[Pair]) -> Pair:
        other = absorbed.stages[name]
        assert isinstance(other, Stage)
        current = stage.current([x for x, _ in inputs], trained.T)
        forced = [
            x if source == INPUT or source in counted else (x / scales[source].to(x)).round()
            for (x, _), source in zip(inputs, stage.sources, strict=True)
        ]
        forced_current = other.current(forced, trained.T)
        own = [x for _, x in inputs]
        strayed = any(x is not y and not torch.equal(x, y) for x, y in zip(forced, own, strict=True))
        free = other.current(own, trained.T) if strayed else forced_current
        if stage.neuron is None or other.neuron is None:
            return current, free
        neuron, fixed = spiking(name, stage.neuron), spiking(name, other.neuron)
        output, membranes = neuron.run(current)
        counts, free_counts = neuron.counts(output), fixed.run(free)[0]
        before = torch.cat([torch.zeros_like(membranes[:1]), membranes[:-1]]) / neuron.scale()
        differs = fixed.step(before, forced_current)[1] != counts
        ties = 0
        if samples := differs.transpose(0, 1).flatten(1).any(1).nonzero().flatten().tolist():
            # the samples in which something differs are looked at once more, without the others
            fed, drive, start = [x[:, samples] for x in forced], forced_current[:, samples], before[:, samples]
            u = fixed.decay * start + drive
            ties = int((differs[:, samples] & _is_tie(u, stage, other, fed, start)).sum())
        check = layers[name]
        check.spikes += int(counts.abs().sum(dtype=torch.float64))
        check.positions += counts.numel()
        check.ties += ties
        check.mismatches += int(differs.count_nonzero()) - ties
        check.free_running_mismatches += int((free_counts != counts).count_nonzero())
        return stage.emit(output), other.emit(free_counts)

    images, right, right_absorbed = 0, 0, 0
    for pixels, labels in batches:
        encoded = trained.encoder(pixels)
        logits, absorbed_logits = trained.walk((encoded, encoded), visit)
        if not images:
            _check_forward(trained, pixels, logits)
        images += len(labels)
        right += count_right(trained.decide(logits), labels)
        right_absorbed += count_right(absorbed.decide(absorbed_logits), labels)
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


def _check_forward(network: SpikingNetwork, pixels: Tensor, walked: Tensor) -> None:
    """Raise a DeployError where a forward pass gives other logits than its stages, one by one.

    On a GPU rounding may differ between two passes, and a spike with it: most samples must agree. Where neurons run as
    compiled kernels nothing is compared, as that would compile them anew.
    """
    if network.compiled:
        return
    logits = network(pixels)
    if logits.shape == walked.shape:
        close = torch.isclose(logits, walked, rtol=1e-2, atol=1e-4, equal_nan=True).transpose(0, 1).flatten(1).all(1)
        differ = int((~close).sum())
    else:
        differ = len(pixels)
    if 2 * differ > len(pixels):
        raise DeployError(
            f"network: its forward pass gives other logits than its stages do, for {differ} of {len(pixels)} samples; "
            "a method, a hook or a subclass of a neuron changes what is computed"
        )


def count_right(logits: Tensor, labels: Tensor) -> int:
    """How many of the logits ``[B, classes]`` are largest at their label ``[B]``."""
    return int((logits.argmax(-1) == labels).sum())


def _is_tie(u: Tensor, stage: Stage, absorbed: Stage, inputs: list[Tensor], before: Tensor) -> Tensor:
    """Whether u is within rounding of a level, see :func:`check_absorption`."""
    neuron = spiking("", absorbed.neuron)  # type: ignore[arg-type]
    delta = spiking("", stage.neuron).scale().flatten()  # type: ignore[arg-type]
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
        if isinstance(branch.norm, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
            mean, var, eps, gamma, beta = affine(branch.norm)
            constant = constant + ((gamma / (var + eps).sqrt() * mean).abs() + beta.abs()) / delta
        products = products + constant.view(-1, *[1] * (products.dim() - 2))
        terms = terms + products.unflatten(0, x.shape[:2])
    position = QUANTISERS[neuron.rounding].position(u)
    level = position.round().clamp(1, neuron.s_max)
    return (position - level).abs() <= torch.finfo(u.dtype).eps * (fan_in + 4) * terms
