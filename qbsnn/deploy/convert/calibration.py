"""What the weights of an absorbed network see on calibration images, sampled."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qbsnn.deploy.convert.thresholds import Floats
from qbsnn.layers.stage import Branch, Stage
from qbsnn.models.network import SpikingNetwork

FRAMES = 64
POSITIONS = 8
"""Of every layer, about so many frames (an image at one step) and output positions in each of them."""

CHUNK = 32
"""Images that pass the network at a time."""


@torch.no_grad()
def branch_inputs(absorbed: SpikingNetwork, pixels: Tensor) -> dict[str, list[Floats]]:
    """Per stage name, the inputs ``[groups, n, K]`` of its weight branches for pixels ``[N, C, H, W]``.

    Row i of all branches is one output position. Identity shortcuts are left out: the rounding of their one factor,
    small beside that of the weights at 8 bits, is not part of the error. Positions are drawn with a fixed seed.
    """
    found: dict[str, list[list[Floats]]] = {}
    generator = torch.Generator().manual_seed(0)
    share = -(-FRAMES * CHUNK // len(pixels))

    def visit(name: str, stage: Stage, inputs: list[Tensor]) -> Tensor:
        current = stage.current(inputs, absorbed.T)
        frames = min(x.shape[0] for x in inputs) * current.shape[1]
        positions = int(np.prod(current.shape[3:])) if current.dim() > 3 else 1
        frame = torch.randperm(frames, generator=generator)[:share]
        place = torch.stack([torch.randperm(positions, generator=generator)[:POSITIONS] for _ in frame])
        pairs = [(branch, x) for branch, x in zip(stage.parts, inputs, strict=True) if branch.weight is not None]
        found.setdefault(name, []).append([_sampled(branch, x.flatten(0, 1), frame, place) for branch, x in pairs])
        return current if stage.neuron is None else stage.emit(stage.neuron(current))

    for chunk in pixels.split(CHUNK):
        absorbed.walk(absorbed.encoder(chunk.to(next(absorbed.parameters()).device)), visit)
    return {
        name: [np.concatenate(parts, axis=1) for parts in zip(*chunks, strict=True)] for name, chunks in found.items()
    }


def _sampled(branch: Branch, x: Tensor, frame: Tensor, place: Tensor) -> Floats:
    """Columns of the frames ``x [T·B, ...]`` chosen by ``frame [n]`` at the positions ``place [n, p]``."""
    layer = branch.weight
    if isinstance(layer, nn.Linear):
        return x[frame].flatten(1).double().cpu().numpy()[None]
    assert layer is not None and not isinstance(layer.padding, str)
    columns = []
    for f, p in zip(frame.tolist(), place, strict=True):
        unfolded = F.unfold(x[f : f + 1], layer.kernel_size, layer.dilation, layer.padding, layer.stride)
        columns.append(unfolded[0].T[p.to(x.device)])
    rows = torch.cat(columns).double().cpu().numpy()
    return np.stack(np.split(rows, layer.groups, axis=1))
