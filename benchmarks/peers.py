"""The same networks in other frameworks, and as a plain ReLU network.

One description of ResNet-19 and VGG (the tables of :mod:`qbsnn.models`) is filled with the layers of a framework, a
:class:`Kit`. As in qbsnn, an image passes the first convolution and norm once and is repeated after them, except in the
ReLU twin, whose batch is T·B different images. All LIF neurons have τ = 2, threshold 1, soft reset, and where the
framework offers it an arctangent surrogate and a detached reset.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from benchmarks.harness import Unavailable
from qbsnn.models.resnet import TABLES as RESNETS
from qbsnn.models.vgg import TABLES as VGGS

Make = Callable[..., nn.Module]


@dataclass(frozen=True)
class Kit:
    """The layers of a framework. ``neuron(T)`` makes one neuron layer; ``multi``: layers take ``[T, B, ...]``."""

    conv: Make
    norm: Make
    norm1d: Make
    linear: Make
    max_pool: Make
    avg_pool: Make
    neuron: Callable[[int], nn.Module]
    multi: bool = False
    static: bool = True
    before: Callable[[nn.Module], object] = lambda network: None


def torch_layers(neuron: Callable[[int], nn.Module], **options: Any) -> Kit:
    """Torch's own layers, on merged time and batch."""
    return Kit(nn.Conv2d, nn.BatchNorm2d, nn.BatchNorm1d, nn.Linear, nn.MaxPool2d, nn.AvgPool2d, neuron, **options)


def relu() -> Kit:
    """The ReLU twin: the same layers on T·B images; in place, as the norm before it keeps its input, not its output."""
    return torch_layers(lambda steps: nn.ReLU(inplace=True), static=False)


def spikingjelly(compiled: bool = False) -> Kit:
    """SpikingJelly in multi-step mode; on a GPU it takes Triton kernels in both forms, as its wheel has no others."""
    try:
        from spikingjelly.activation_based import functional, layer
    except ImportError:
        raise Unavailable("not installed (pip install 'qbsnn[peers]')") from None
    makers = (layer.Conv2d, layer.BatchNorm2d, layer.BatchNorm1d, layer.Linear, layer.MaxPool2d, layer.AvgPool2d)
    conv, norm, norm1d, linear, max_pool, avg_pool = (partial(make, step_mode="m") for make in makers)

    def neuron(steps: int) -> nn.Module:
        node = jelly_lif()
        if compiled:
            # every layer has a shape and a state of its own; beyond the limit torch runs them eagerly
            torch._dynamo.config.recompile_limit = 128
            node.compile()
        return node

    return Kit(conv, norm, norm1d, linear, max_pool, avg_pool, neuron, multi=True, before=functional.reset_net)


def jelly_lif() -> Any:
    """SpikingJelly's multi-step LIF."""
    try:
        from spikingjelly.activation_based import neuron, surrogate
    except ImportError:
        raise Unavailable("not installed (pip install 'qbsnn[peers]')") from None
    options = {"v_reset": None, "detach_reset": True, "surrogate_function": surrogate.ATan(), "step_mode": "m"}
    return neuron.LIFNode(tau=2.0, decay_input=False, **options)


def jelly_ilif(s_max: int) -> Any:
    """SpikingJelly's multi-step I-LIF, whose bursts go to s_max."""
    jelly_lif()
    from spikingjelly.activation_based import neuron, surrogate

    count = getattr(surrogate, "MultiLevelSpikeCount", None)
    if count is None:
        raise Unavailable("this SpikingJelly has no I-LIF neuron")
    return neuron.ILIFNode(tau=2.0, surrogate_function=count(s_max), detach_reset=True, step_mode="m")


class TimeLoop(nn.Module):
    """A single-step neuron over time: ``[T, B, ...]`` to the same shape. ``run(x, state)`` gives (spikes, state)."""

    def __init__(self, run: Callable[[Tensor, Any], tuple[Tensor, Any]], owner: nn.Module) -> None:
        super().__init__()
        self.run, self.owner = run, owner

    def forward(self, x: Tensor) -> Tensor:
        """Spikes of all steps, from the state 0."""
        state, spikes = None, []
        for current in x:
            spike, state = self.run(current, state)
            spikes.append(spike)
        return torch.stack(spikes)


class Merged(nn.Module):
    """A neuron of ``[T, B, ...]`` among layers on merged ``[T·B, ...]``."""

    def __init__(self, neuron: nn.Module, steps: int) -> None:
        super().__init__()
        self.neuron, self.steps = neuron, steps

    def forward(self, x: Tensor) -> Tensor:
        """``[T·B, ...]`` to the same shape."""
        return self.neuron(x.unflatten(0, (self.steps, -1))).flatten(0, 1)


def snntorch_lif() -> nn.Module:
    """snnTorch's Leaky in a loop over time."""
    try:
        import snntorch
    except ImportError:
        raise Unavailable("not installed (pip install 'qbsnn[peers]')") from None
    options = {"reset_mechanism": "subtract", "reset_delay": False}
    cell = snntorch.Leaky(beta=0.5, threshold=1.0, spike_grad=snntorch.surrogate.atan(), **options)
    return TimeLoop(lambda x, state: cell(x, torch.zeros_like(x) if state is None else state), cell)


def norse_lif() -> nn.Module:
    """Norse's LIFBoxCell in a loop over time; its input enters with the factor 1/τ and its reset is not detached."""
    try:
        from norse.torch.functional.lif_box import LIFBoxParameters
        from norse.torch.functional.reset import reset_subtract
        from norse.torch.module.lif_box import LIFBoxCell
    except ImportError:
        raise Unavailable("not installed (pip install 'qbsnn[peers]')") from None
    # dt/τ = 1/2 at its default dt of 1 ms
    cell = LIFBoxCell(LIFBoxParameters(tau_mem_inv=torch.tensor(500.0), reset_method=reset_subtract))
    return TimeLoop(cell, cell)


def loop(make: Callable[[], nn.Module]) -> Kit:
    """Torch's layers with a peer's neuron in a loop over time."""
    make()  # an absent package is noticed here
    return torch_layers(lambda steps: Merged(make(), steps))


class Block(nn.Module):
    """Two 3×3 convolutions and a shortcut, with the neuron after the sum, as in :mod:`qbsnn.models.resnet`."""

    def __init__(self, kit: Kit, channels: int, out: int, stride: int, steps: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            *convolution(kit, channels, out, stride=stride), kit.neuron(steps), *convolution(kit, out, out)
        )
        same = channels == out and stride == 1
        self.shortcut = None if same else nn.Sequential(*convolution(kit, channels, out, 1, stride))
        self.neuron = kit.neuron(steps)

    def forward(self, x: Tensor) -> Tensor:
        """Spikes for spikes."""
        return self.neuron(self.main(x) + (x if self.shortcut is None else self.shortcut(x)))


class Network(nn.Module):
    """Images ``[B, C, H, W]`` to logits ``[T, B, classes]``; the ReLU twin's have T = 1."""

    def __init__(self, kit: Kit, steps: int, stem: nn.Module, body: nn.Module, readout: nn.Module) -> None:
        super().__init__()
        self.kit, self.steps, self.stem, self.body, self.readout = kit, steps, stem, body, readout

    def forward(self, images: Tensor) -> Tensor:
        """Logits of every step, from cleared states."""
        self.kit.before(self)
        x = self.stem(images[None] if self.kit.multi else images)
        if self.kit.static:
            x = x.expand(self.steps, *x.shape[1:]) if self.kit.multi else x.repeat(self.steps, 1, 1, 1)
        y = self.readout(self.body(x).flatten(2 if self.kit.multi else 1))
        return y if self.kit.multi else y.unflatten(0, (self.steps if self.kit.static else 1, -1))


class FlattenMaps(nn.Module):
    """Maps ``[..., C, H, W]`` to features ``[..., C·H·W]``."""

    def forward(self, x: Tensor) -> Tensor:
        """Merge the last three dimensions, where there are maps."""
        return x.flatten(-3)


def build(kit: Kit, name: str, steps: int, in_shape: tuple[int, int, int], classes: int, width: float) -> Network:
    """``resnet19`` or a VGG of :data:`qbsnn.models.vgg.TABLES` (max pooling) for images of ``in_shape``."""
    return (_resnet if name in RESNETS else _vgg)(kit, name, steps, in_shape, classes, width)


def convolution(kit: Kit, channels: int, out: int, kernel: int = 3, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    """Convolution and norm, initialised as qbsnn's."""
    conv = kit.conv(channels, out, kernel, stride=stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(cast("Tensor", conv.weight), mode="fan_out", nonlinearity="relu")
    return conv, kit.norm(out)


def _hidden(kit: Kit, size: int, out: int, steps: int) -> list[nn.Module]:
    return [kit.linear(size, out, bias=False), kit.norm1d(out), kit.neuron(steps)]


def _resnet(kit: Kit, name: str, steps: int, in_shape: tuple[int, int, int], classes: int, width: float) -> Network:
    table = RESNETS[name]
    channels, side = max(1, round(table.stem * width)), in_shape[1]
    stem = nn.Sequential(*convolution(kit, in_shape[0], channels))
    body: list[nn.Module] = [kit.neuron(steps)]
    for size, blocks, first_stride in table.groups:
        out = max(1, round(size * width))
        for block in range(blocks):
            stride = first_stride if block == 0 else 1
            body.append(Block(kit, channels, out, stride, steps))
            channels, side = out, (side + stride - 1) // stride
    body += [kit.avg_pool(side), FlattenMaps()]
    for size in table.hidden:
        out = max(1, round(size * width))
        body += _hidden(kit, channels, out, steps)
        channels = out
    return Network(kit, steps, stem, nn.Sequential(*body), kit.linear(channels, classes))


def _vgg(kit: Kit, name: str, steps: int, in_shape: tuple[int, int, int], classes: int, width: float) -> Network:
    features, hidden = VGGS[name]
    channels, side = max(1, round(int(features[0]) * width)), in_shape[1]
    stem = nn.Sequential(*convolution(kit, in_shape[0], channels))
    body: list[nn.Module] = [kit.neuron(steps)]
    for entry in features[1:]:
        if entry == "M":
            body.append(kit.max_pool(2))
            side //= 2
        else:
            out = max(1, round(int(entry) * width))
            body += [*convolution(kit, channels, out), kit.neuron(steps)]
            channels = out
    body.append(FlattenMaps())
    inputs = channels * side**2
    for size in hidden:
        out = max(1, round(size * width))
        body += _hidden(kit, inputs, out, steps)
        inputs = out
    return Network(kit, steps, stem, nn.Sequential(*body), kit.linear(inputs, classes))
