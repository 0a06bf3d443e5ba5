"""Multilayer perceptron."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import Unpack

from qbsnn import checks
from qbsnn.layers.stage import INPUT
from qbsnn.models.build import Builder, NeuronFactory, Options
from qbsnn.models.network import SpikingNetwork


def mlp(
    neuron: NeuronFactory,
    in_shape: Sequence[int],
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    hidden: Sequence[int] = (256, 256),
    **options: Unpack[Options],
) -> SpikingNetwork:
    """Linear-norm-neuron layers of the ``hidden`` sizes and a linear readout.

    neuron: called once per layer. in_shape (C, H, W), num_classes, mean, std: from the data. options: see
    :class:`~qbsnn.models.build.Options`.
    """
    build = Builder(neuron, in_shape, options)
    source = INPUT
    for number, size in enumerate(checks.integers("hidden", hidden, 1), start=1):
        source = build.add(f"fc{number}", build.linear(source, build.scaled(size)))
    return build.finish(source, num_classes, mean, std)
