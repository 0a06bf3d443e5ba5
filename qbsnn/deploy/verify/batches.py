"""Checks of the batches that a proof is to rest on."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from qbsnn.errors import ArgumentError
from qbsnn.functional.arguments import real
from qbsnn.layers.encoder import Encoder

Batch = tuple[Tensor, Tensor]


def checked(batches: object, encoder: Encoder) -> list[Batch]:
    """Batches of pixels or frames that an encoder takes, with a label for each sample.

    Args:
        batches: what a caller gave.
        encoder: of the network that they are for.

    Raises:
        ArgumentError: they are no list of such pairs, or a value is outside the encoder's bounds.
    """
    right = "must be a list (or a loader) of pairs (pixels, labels)"
    if isinstance(batches, Tensor) or not isinstance(batches, Iterable):
        raise ArgumentError(f"batches {right}, got {type(batches).__name__}")
    found = []
    for number, batch in enumerate(batches):
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            what = "a tensor" if isinstance(batch, Tensor) else f"{type(batch).__name__}"
            raise ArgumentError(f"batches {right}, got {what} as number {number}: one batch is [(pixels, labels)]")
        pixels, labels = batch
        found.append(_pair(f"of batch {number}", pixels, labels, encoder.bound))
    if not found:
        raise ArgumentError("batches must hold a batch at least, got none")
    return found


def _pair(place: str, pixels: object, labels: object, most: float) -> Batch:
    x = real(f"pixels {place}", pixels, "[B, ...]", "bytes become pixels in [0, 1] by .float() / 255")
    if not x.numel():
        raise ArgumentError(f"pixels {place} must hold a sample at least, got {list(x.shape)}")
    whole = isinstance(labels, Tensor) and not (labels.is_floating_point() or labels.is_complex())
    if not isinstance(labels, Tensor) or not whole or labels.shape != x.shape[:1]:
        got = f"{labels.dtype} {list(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
        raise ArgumentError(f"labels {place} must be a tensor of integers [{len(x)}], one for each sample, got {got}")
    least, largest = (float(end) for end in x.aminmax())
    if not (least >= 0 and largest <= most):
        raise ArgumentError(f"pixels {place} must be numbers in [0, {most:g}], got {least:g} to {largest:g}")
    return x, labels
