"""VGG networks (Simonyan & Zisserman, arXiv 1409.1556, table 1), with norm and neuron after every weight layer."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import Unpack

from qbsnn import checks
from qbsnn.layers.stage import INPUT
from qbsnn.models.build import Builder, NeuronFactory, Options
from qbsnn.models.network import SpikingNetwork

# Channels of 3×3 convolutions, "M" halves the map; then the sizes of hidden linear layers. vgg11 and vgg16 are columns
# A and D of the paper without its two layers of 4096, as is usual for CIFAR; vgg5 and vgg9 are the small ones of
# Rathi & Roy, arXiv 2008.03658, with one narrower linear layer.
TABLES: dict[str, tuple[tuple[int | str, ...], tuple[int, ...]]] = {
    "vgg5": ((64, "M", 128, 128, "M"), (256,)),
    "vgg9": ((64, 64, "M", 128, 128, "M", 256, 256, 256, "M"), (512,)),
    "vgg11": ((64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"), ()),
    "vgg16": (
        (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"),
        (),
    ),
}


def vgg(
    neuron: NeuronFactory,
    in_shape: Sequence[int],
    num_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    name: str = "vgg11",
    pool: str = "max",
    stem: str = "cifar",
    **options: Unpack[Options],
) -> SpikingNetwork:
    """A network of ``TABLES``: convolutions, pools on spikes, hidden linear layers, linear readout.

    neuron: called once per layer. in_shape (C, H, W), num_classes, mean, std: from the data. pool: ``max`` or ``avg``.
    stem: ``cifar``, or ``imagenet`` (first convolution with stride 2). options: see
    :class:`~qbsnn.models.build.Options`. A pool that would shrink a map below one pixel is left out, with a warning.
    """
    features, hidden = TABLES[checks.choice("name", name, TABLES)]
    checks.choice("pool", pool, ("max", "avg"))
    stride = 2 if checks.choice("stem", stem, ("cifar", "imagenet")) == "imagenet" else 1
    build = Builder(neuron, in_shape, options)
    source, convs = INPUT, 0
    for entry in features:
        if entry == "M":
            build.pool(source, pool, 2)
        else:
            convs += 1
            out = build.scaled(int(entry))
            source = build.add(f"conv{convs}", build.conv(source, out, stride=stride if convs == 1 else 1))
    for number, size in enumerate(hidden, start=1):
        source = build.add(f"fc{number}", build.linear(source, build.scaled(size)))
    return build.finish(source, num_classes, mean, std)
