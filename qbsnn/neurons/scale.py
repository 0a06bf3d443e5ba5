"""The scale Δ of a layer as a module: one per layer or per channel, learned or fixed."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch import distributed as dist

from qbsnn import checks
from qbsnn.bounds import NeuronBounds
from qbsnn.errors import ArgumentError
from qbsnn.functional.parameters import PARAMETRISATIONS, lsq_factor, percentile_scale, scale_gradient


def representable(name: str, value: object) -> Tensor:
    """A scalar tensor of a number above 0 that stays above 0 and finite when it is rounded to the type of tensors."""
    info = torch.finfo(torch.get_default_dtype())
    return torch.tensor(checks.number(name, NeuronBounds.check(name, value), info.tiny, info.max))


class Scale(nn.Module):
    """Δ > 0, a scalar or one per channel.

    initial: first Δ > 0. learn: whether it is a parameter. granularity: ``layer`` or ``channel``; a channel scale takes
    its size in :meth:`size_to`. parametrisation: Δ = |ρ|, softplus(ρ) or exp(ρ) of the parameter ρ (``raw``). lsq:
    multiply the gradient by 1/√(N·s_max), N the neurons that share the scale. init: ``fixed`` keeps ``initial``;
    ``percentile`` sets Δ once, on the first training batch, so that ``percentile`` per cent of its positive currents
    are at most Δ·s_max. Raises SettingsError for values outside these bounds.
    """

    raw: Tensor
    pending: Tensor

    def __init__(
        self,
        initial: float,
        s_max: int,
        learn: bool = True,
        granularity: str = "layer",
        parametrisation: str = "abs",
        lsq: bool = False,
        init: str = "fixed",
        percentile: float = 99.0,
    ) -> None:
        super().__init__()
        self.s_max = s_max
        self.per_channel = NeuronBounds.check("granularity", granularity) == "channel"
        name = checks.choice("parametrisation", parametrisation, PARAMETRISATIONS)
        self.parametrisation = PARAMETRISATIONS[name]
        self.lsq = NeuronBounds.check("lsq", lsq)
        self.percentile = NeuronBounds.check("percentile", percentile)
        delta = representable("delta", initial)
        raw = self.parametrisation.inverse(delta)
        if NeuronBounds.check("learn_delta", learn):
            self.raw = nn.Parameter(raw)
        else:
            self.register_buffer("raw", raw)
        self.dims, self.neurons = 0, 1
        self.waits = NeuronBounds.check("init", init) == "percentile"
        self.register_buffer("pending", torch.tensor(self.waits))

    def size_to(self, shape: tuple[int, ...]) -> None:
        """Learn one sample's current shape, ``(C, H, W)`` or ``(F,)``; a channel scale becomes ``[C]``."""
        self.neurons = torch.Size(shape).numel() // (shape[0] if self.per_channel else 1)
        if self.per_channel:
            self.dims = len(shape) - 1
            sized = self.raw.detach().expand(shape[0]).clone()
            self.raw = nn.Parameter(sized) if isinstance(self.raw, nn.Parameter) else sized

    def forward(self) -> Tensor:
        """Δ: a scalar, or ``[C, 1, 1]`` (``[F]``) that broadcasts over a current ``[B, C, H, W]`` (``[B, F]``)."""
        if self.unsized:
            raise ArgumentError("granularity=channel needs the channels: call size_to((C, H, W)) first")
        raw = scale_gradient(self.raw, lsq_factor(self.neurons, self.s_max)) if self.lsq else self.raw
        delta = self.parametrisation.value(raw)
        return delta.view(-1, *[1] * self.dims) if self.per_channel else delta

    @property
    def unsized(self) -> bool:
        """Whether Δ is to become one per channel."""
        return self.per_channel and not self.raw.dim()

    @property
    def unsettled(self) -> bool:
        """Whether Δ is to be set from the next training batch."""
        return self.training and self.waits and bool(self.pending)

    @torch.no_grad()
    def settle(self, current: Tensor) -> None:
        """Set Δ from the first training batch, ``[T, B, ...]``; with several processes from the shares of all."""
        self.pending.fill_(False)
        if dist.is_available() and dist.is_initialized():
            shares = [torch.empty_like(current) for _ in range(dist.get_world_size())]
            dist.all_gather(shares, current.contiguous())
            current = torch.cat(shares, 1)
        delta = percentile_scale(current, self.s_max, self.percentile)
        if delta > 0:
            self.raw.copy_(self.parametrisation.inverse(delta.to(self.raw)).expand_as(self.raw))

    @torch.no_grad()
    def clip(self, low: float, high: float) -> None:
        """Keep Δ within [low, high]."""
        parametrised = self.parametrisation
        self.raw.copy_(parametrised.inverse(parametrised.value(self.raw).clamp(low, high)))
