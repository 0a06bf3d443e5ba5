"""Filters of the first layer that whiten its input, frozen before training."""

from __future__ import annotations

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from qbsnn import checks
from qbsnn.data.loading import first_inputs
from qbsnn.errors import ArgumentError
from qbsnn.layers.quantised import trained_weight
from qbsnn.layers.stage import INPUT
from qbsnn.training.module import Classifier


class WhitenFirstLayer(Callback):
    """Sets the filters of the first convolution to ±v/√(λ + ε) and freezes them (arXiv 2404.00498, section 3.2).

    v and λ are eigenvectors and eigenvalues of the covariance of the windows that the layer sees in training images,
    in falling order of λ. A run with ``init_from`` keeps the filters that it begins with, since the layers behind them
    learned with these, and freezes them.

    Args:
        images: from which the covariance is taken.
        epsilon: ε.

    Raises:
        ArgumentError: for a bad value, and for a network whose first layer cannot be whitened.
    """

    def __init__(self, images: int = 5000, epsilon: float = 5e-4) -> None:
        self.images = checks.integer("images", images, 2)
        self.epsilon = checks.number("epsilon", epsilon, 0, open_low=True)

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Compute the filters once the training images are read and before there is an optimiser."""
        if stage != "fit":
            return
        assert isinstance(pl_module, Classifier)
        network = pl_module.network
        (layer,) = [
            part.weight for _, stage_ in network.named_stages() for part in stage_.parts if part.source == INPUT
        ]
        if network.encoder.coding != "direct" or not isinstance(layer, nn.Conv2d) or layer.groups != 1:
            raise ArgumentError(f"whitening needs pixels (encoding direct) and a convolution on them, got {layer}")
        window = layer.in_channels * layer.kernel_size[0] * layer.kernel_size[1]
        if layer.out_channels > 2 * window:
            raise ArgumentError(
                f"whitening gives at most {2 * window} filters for windows of {window} values, but the first layer has "
                f"{layer.out_channels}: use model=fast, or leave callbacks.whiten out"
            )
        kept = trained_weight(layer)
        kept.requires_grad_(False)
        if pl_module.config.get("init_from"):
            return
        loader = trainer.datamodule.train_dataloader()  # type: ignore[attr-defined]
        place = network.encoder.mean.device  # the network is not on the device yet, where the pixels may be
        images = torch.cat([network.encoder(pixels.to(place))[0] for pixels in first_inputs(loader, self.images)])
        filters = whitening(images, layer.kernel_size, self.epsilon)
        both = torch.stack([filters, -filters], 1).flatten(0, 1)[: layer.out_channels]
        with torch.no_grad():
            kept.copy_(both)


def whitening(pixels: Tensor, window: tuple[int, ...], epsilon: float) -> Tensor:
    """Filters ``[C·h·w, C, h, w]`` whose responses to the windows of ``pixels`` ``[N, C, H, W]`` are uncorrelated.

    Their variances are λ/(λ + ε), λ in falling order.
    """
    height, width = window
    patches = pixels.unfold(2, height, 1).unfold(3, width, 1).permute(0, 2, 3, 1, 4, 5).flatten(0, 2).flatten(1)
    covariance = torch.cov(patches.double().T)
    values, vectors = torch.linalg.eigh(covariance)
    scaled = (vectors / torch.sqrt(values + epsilon)).T.flip(0)
    return scaled.reshape(-1, pixels.shape[1], height, width).to(pixels.dtype)
