"""Multilayer perceptron."""

from __future__ import annotations

from collections.abc import Sequence

from qbsnn import checks
from qbsnn.layers.stage import INPUT
from qbsnn.models.build import Builder, NeuronFactory
from qbsnn.models.network import SpikingNetwork


def mlp(
    neuron: NeuronFactory,
    in_shape: Sequence[int],
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    T: int = 4,
    hidden: Sequence[int] = (256, 256),
    width: float = 1.0,
    norm: str = "bn",
    v_th: float = 1.0,
    encoding: str = "direct",
    seed: int = 0,
) -> SpikingNetwork:
    """Linear-norm-neuron layers of the ``hidden`` sizes and a linear readout.

    neuron: called once per layer. in_shape (C, H, W), num_classes, mean, std: from the data. T: time steps. width:
    multiplies the hidden sizes. norm: ``bn`` or ``tdbn``. encoding: ``direct``, ``rate`` or ``latency``.
    """
    build = Builder(in_shape, neuron, norm, v_th, width)
    source = INPUT
    for number, size in enumerate(hidden, start=1):
        features = build.scaled(checks.integer("model.hidden", size, 1))
        source = build.add(f"fc{number}", build.linear(source, features))
    return build.finish(source, num_classes, T, encoding, mean, std, seed)
