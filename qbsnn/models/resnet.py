"""Residual networks of basic blocks (He et al., arXiv 1512.03385), with the neuron after each sum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from typing_extensions import Unpack

from qbsnn import checks
from qbsnn.layers.stage import INPUT
from qbsnn.models.build import Builder, NeuronFactory, Options
from qbsnn.models.network import SpikingNetwork


class Table(NamedTuple):
    """Channels of the stem; (channels, blocks, stride of the first block) per group; sizes of hidden linear layers."""

    stem: int
    groups: tuple[tuple[int, int, int], ...]
    hidden: tuple[int, ...] = ()


# resnet18/34: He et al., table 1. resnet20: section 4.2. resnet19: tdBN and TET (arXiv 2011.05280, 2202.11946):
# conv64 - 128x3, 256x3 stride 2, 512x2 stride 2 - pool - FC256 - FC.
TABLES = {
    "resnet18": Table(64, ((64, 2, 1), (128, 2, 2), (256, 2, 2), (512, 2, 2))),
    "resnet34": Table(64, ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))),
    "resnet20": Table(16, ((16, 3, 1), (32, 3, 2), (64, 3, 2))),
    "resnet19": Table(64, ((128, 3, 1), (256, 3, 2), (512, 2, 2)), hidden=(256,)),
}


def resnet(
    neuron: NeuronFactory,
    in_shape: Sequence[int],
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    name: str = "resnet19",
    stem: str = "cifar",
    **options: Unpack[Options],
) -> SpikingNetwork:
    """A network of ``TABLES``: stem, groups of basic blocks, global average pool, hidden linear layers, readout.

    neuron: called once per layer. in_shape (C, H, W), num_classes, mean, std: from the data. stem: ``cifar`` (3×3,
    stride 1) or ``imagenet`` (7×7, stride 2, max pool). options: see :class:`~qbsnn.models.build.Options`.
    """
    table = TABLES[checks.choice("name", name, TABLES)]
    imagenet = checks.choice("stem", stem, ("cifar", "imagenet")) == "imagenet"
    build = Builder(neuron, in_shape, options)
    channels = build.scaled(table.stem)
    source = build.add("stem", build.conv(INPUT, channels, *((7, 2) if imagenet else (3, 1))))
    if imagenet:
        build.pool(source, "max", 3, 2, 1)
    for group, (size, blocks, first_stride) in enumerate(table.groups, start=1):
        for block in range(1, blocks + 1):
            stride = first_stride if block == 1 else 1
            source = basic_block(build, f"group{group}_{block}", source, build.scaled(size), stride)
    build.global_pool(source)
    for number, size in enumerate(table.hidden, start=1):
        source = build.add(f"fc{number}", build.linear(source, build.scaled(size)))
    return build.finish(source, num_classes, mean, std)


def basic_block(build: Builder, name: str, source: str, out: int, stride: int) -> str:
    """Two 3×3 convolutions; the shortcut is the identity where shapes agree, else a strided 1×1 convolution."""
    inner = build.add(f"{name}a", build.conv(source, out, stride=stride))
    main = build.conv(inner, out, branches=2)
    same = build.shapes[source] == main[1]
    shortcut = build.identity(source) if same else build.conv(source, out, kernel=1, stride=stride, branches=2)
    return build.add(f"{name}b", main, shortcut)
