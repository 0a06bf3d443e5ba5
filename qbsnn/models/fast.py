"""A network that reaches its accuracy in minutes, after cifar10-airbench (Jordan 2024, arXiv 2404.00498)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from typing_extensions import Unpack

from qbsnn import checks
from qbsnn.layers.quantised import trained_weight
from qbsnn.layers.stage import INPUT
from qbsnn.models.build import Builder, NeuronFactory, Options
from qbsnn.models.network import SpikingNetwork

STEM_KERNEL = 2


def fast(
    neuron: NeuronFactory,
    in_shape: Sequence[int],
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    channels: Sequence[int] = (64, 256, 256),
    **options: Unpack[Options],
) -> SpikingNetwork:
    """A stem of 2×2 convolutions, one group per entry of ``channels``, a pool over what is left, a linear readout.

    The stem has two filters for each pixel of its window, for whitening (:class:`qbsnn.callbacks.WhitenFirstLayer`) and
    no padding. A group is convolution, max pool, convolution; their first filters start as the identity.

    Args:
        neuron: called once per layer.
        in_shape: (C, H, W), from the data like the next three.
        num_classes: number of logits.
        mean: of the pixels, per channel.
        std: of the pixels, per channel.
        channels: of the groups, scaled by ``width``; the stem is not.
        options: see :class:`~qbsnn.models.build.Options`.
    """
    build = Builder(neuron, in_shape, options)
    stem = 2 * build.in_shape[0] * STEM_KERNEL**2
    source = build.add("stem", build.conv(INPUT, stem, STEM_KERNEL, padding=0))
    for number, size in enumerate(checks.integers("channels", channels, 1), start=1):
        out = build.scaled(size)
        source = _convolution(build, f"conv{number}a", source, out)
        build.pool(source, "max", 2)
        source = _convolution(build, f"conv{number}b", source, out)
    build.pool(source, "max", min(build.shapes[source][1:]))
    return build.finish(source, num_classes, mean, std)


def _convolution(build: Builder, name: str, source: str, out: int) -> str:
    name = build.add(name, build.conv(source, out))
    weight = build.stages[name].parts[0].weight
    assert weight is not None
    kept = trained_weight(weight).data
    nn.init.dirac_(kept[: kept.shape[1]])
    return name
