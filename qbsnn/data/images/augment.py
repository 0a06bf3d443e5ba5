"""Augmentation of a whole batch at once: crop, flip, a torchvision policy, cutout, in this order."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

from qbsnn import checks
from qbsnn.data.randomness import Purpose, below, draw, torch_seeded
from qbsnn.errors import ArgumentError

POLICIES: dict[str, Callable[[], torch.nn.Module]] = {
    "cifar10": lambda: v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10),
    "imagenet": lambda: v2.AutoAugment(v2.AutoAugmentPolicy.IMAGENET),
    "svhn": lambda: v2.AutoAugment(v2.AutoAugmentPolicy.SVHN),
    "randaugment": v2.RandAugment,
    "trivial": v2.TrivialAugmentWide,
}

GROUPED_PIXELS = 96 * 96
"""A policy takes pictures of at most that many pixels in groups; larger ones are faster one by one."""

Step = tuple[str, float]
"""An operation of a policy by its name in torchvision, and its signed magnitude."""


def make_policy(name: str | None) -> torch.nn.Module | None:
    """The policy of ``POLICIES``, ``None`` for ``None``; raises SettingsError for any other name."""
    if name is None:
        return None
    if not isinstance(name, str) or name not in POLICIES:
        raise ArgumentError(f"autoaugment must be null or one of {', '.join(POLICIES)}, got {name!r}")
    return POLICIES[name]()


class Drawn(NamedTuple):
    """What was drawn for each of B samples, all ``[B]``."""

    crop_y: Tensor  # first row of the crop in the padded image, 0 to 2·crop
    crop_x: Tensor
    flip: Tensor  # bool
    cutout_y: Tensor  # row of the square's centre, 0 to H − 1
    cutout_x: Tensor

    def to(self, device: torch.device) -> Drawn:
        """The same numbers on another device, in one copy."""
        moved = Drawn(*torch.stack([field.long() for field in self]).to(device, non_blocking=True))
        return moved._replace(flip=moved.flip.bool())


class Augment:
    """Augments uint8 images; the numbers come from (seed, epoch, index of the sample) alone.

    crop: padding on each side before a random crop to the old size. padding: ``zeros`` or ``reflect``. flip: mirror
    left-right, one time in two: true, drawn anew in every epoch; ``alternate``, drawn once and turned in every epoch.
    policy: a name in ``POLICIES`` or ``None``. cutout: side of a square set to 0, cut off at the border of the image
    (arXiv 1708.04552).
    """

    def __init__(
        self,
        seed: int = 0,
        crop: int = 0,
        flip: bool | str = False,
        cutout: int = 0,
        policy: str | None = None,
        padding: str = "zeros",
    ) -> None:
        self.seed, self.crop, self.cutout = seed, crop, cutout
        self.flip = flip if flip == "alternate" else checks.boolean("flip", flip)
        self.padding = checks.choice("padding", padding, ("zeros", "reflect"))
        self.policy = make_policy(policy)

    def __call__(self, pixels: Tensor, epochs: NDArray[np.int64], indices: NDArray[np.int64]) -> Tensor:
        """Augment ``pixels`` uint8 ``[B, C, H, W]`` of the samples ``(epochs[b], indices[b])``; the input is kept."""
        drawn = self.draw(epochs, indices, *pixels.shape[-2:])
        if pixels.device.type != "cpu":
            drawn = drawn.to(pixels.device)
        if self.crop or self.flip:
            pixels = _crop_and_flip(pixels, drawn, self.crop, self.padding == "reflect")
        if self.policy is not None:
            pixels = self._apply_policy(self.policy, pixels, epochs, indices)
        if self.cutout:
            pixels = _cut_out(pixels, drawn, self.cutout)
        return pixels

    def draw(self, epochs: NDArray[np.int64], indices: NDArray[np.int64], height: int, width: int) -> Drawn:
        """The numbers for each sample; those of an augmentation that is off change nothing."""

        def integers(purpose: Purpose, limit: int) -> Tensor:
            return torch.from_numpy(below(limit, draw(purpose, self.seed, epochs, indices)))

        return Drawn(
            crop_y=integers(Purpose.CROP_Y, 2 * self.crop + 1),
            crop_x=integers(Purpose.CROP_X, 2 * self.crop + 1),
            flip=self._flips(epochs, indices),
            cutout_y=integers(Purpose.CUTOUT_Y, height),
            cutout_x=integers(Purpose.CUTOUT_X, width),
        )

    def _flips(self, epochs: NDArray[np.int64], indices: NDArray[np.int64]) -> Tensor:
        if not self.flip:
            return torch.zeros(len(indices), dtype=torch.bool)
        alternate = self.flip == "alternate"
        drawn = below(2, draw(Purpose.FLIP, self.seed, 0 if alternate else epochs, indices))
        return torch.from_numpy((drawn + epochs * alternate) % 2 == 1)

    def _apply_policy(
        self, policy: torch.nn.Module, pixels: Tensor, epochs: NDArray[np.int64], indices: NDArray[np.int64]
    ) -> Tensor:
        seeds = draw(Purpose.POLICY, self.seed, epochs, indices).tolist()
        return apply_steps(policy, pixels, drawn_steps(policy, pixels[0], seeds))


def drawn_steps(policy: torch.nn.Module, image: Tensor, seeds: Iterable[int]) -> list[list[Step]]:
    """What ``policy`` would do to pictures of the shape of ``image``, for each of ``seeds`` the operations in order.

    torchvision draws them itself, by running the policy on ``image`` with every operation noted and none applied.
    """
    noting: Any = copy.copy(policy)
    steps: list[list[Step]] = []

    def note(image: Tensor, name: str, magnitude: float, **how: object) -> Tensor:
        steps[-1].append((name, magnitude))
        return image

    noting._apply_image_or_video_transform = note
    for seed in seeds:
        steps.append([])
        with torch_seeded(seed):
            noting(image)
    return steps


def apply_steps(policy: torch.nn.Module, pixels: Tensor, steps: Sequence[Sequence[Step]]) -> Tensor:
    """Apply the operations ``steps[b]`` of ``policy`` to picture b of ``pixels`` uint8 ``[B, C, H, W]``, which is kept.

    Small pictures whose next operation and magnitude are the same go through torchvision together. The result is bit
    for bit that of one picture after another, as tensors: torchvision treats PIL's pictures slightly differently.
    """
    operation: Any = policy._apply_image_or_video_transform
    how = {"interpolation": policy.interpolation, "fill": policy._fill}
    alone = pixels.shape[-2] * pixels.shape[-1] > GROUPED_PIXELS
    pixels = pixels.clone()
    for depth in range(max(map(len, steps), default=0)):
        groups: dict[tuple[str, float, int], list[int]] = defaultdict(list)
        for b, (name, magnitude) in ((b, mine[depth]) for b, mine in enumerate(steps) if depth < len(mine)):
            groups[name, magnitude, b if alone else 0].append(b)
        for (name, magnitude, _), members in groups.items():
            where = torch.tensor(members) if len(members) > 1 else members[0]
            pixels[where] = operation(pixels[where], name, magnitude, **how)
    return pixels


def _crop_and_flip(pixels: Tensor, drawn: Drawn, pad: int, reflect: bool = False) -> Tensor:
    batch, channels, height, width = pixels.shape
    device = pixels.device
    rows = torch.arange(height, device=device) + drawn.crop_y[:, None]
    cols = torch.arange(width, device=device).expand(batch, -1)
    cols = torch.where(drawn.flip[:, None], width - 1 - cols, cols) + drawn.crop_x[:, None]
    if reflect:
        rows, cols = _reflected(rows - pad, height), _reflected(cols - pad, width)
        flat = (rows[:, :, None] * width + cols[:, None, :]).view(batch, 1, -1).expand(-1, channels, -1)
        return pixels.flatten(2).gather(2, flat).view_as(pixels)
    flat = (rows[:, :, None] * (width + 2 * pad) + cols[:, None, :]).view(batch, 1, -1).expand(-1, channels, -1)
    return F.pad(pixels, [pad] * 4).flatten(2).gather(2, flat).view_as(pixels)


def _reflected(places: Tensor, size: int) -> Tensor:
    """Places outside 0..size − 1 mirrored at the border pixels, which are not repeated."""
    places = places.abs()
    return torch.where(places >= size, 2 * (size - 1) - places, places)


def _cut_out(pixels: Tensor, drawn: Drawn, side: int) -> Tensor:
    def covered(length: int, centre: Tensor) -> Tensor:
        distance = torch.arange(length, device=pixels.device) - (centre[:, None] - side // 2)
        return (distance >= 0) & (distance < side)

    rows, cols = covered(pixels.shape[2], drawn.cutout_y), covered(pixels.shape[3], drawn.cutout_x)
    return pixels.masked_fill((rows[:, :, None] & cols[:, None, :])[:, None], 0)
