"""What the spiking layers do on test data: histograms, silent neurons, a confusion matrix and one raster."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from qbsnn.neurons.base import SpikingNeuron
from qbsnn.results.files import write_atomically
from qbsnn.results.schema import Layer
from qbsnn.training.deployment import Listener
from qbsnn.training.module import Classifier

RASTER_NEURONS = 64


def picture(sample: Tensor) -> Tensor:
    """A sample as an image ``[C, H, W]`` in [0, 1]: frames ``[T, C, H, W]`` summed, of a line sensor ``[C, T, W]``."""
    if sample.dim() == 3:
        return sample
    total = sample.transpose(0, 2)[0] if sample.shape[2] == 1 else sample.sum(0)
    return total / total.max().clamp(min=1)


class TestDiagnostics(Listener):
    """Burst histogram, saturation and silent neurons per layer, a confusion matrix and one raster, on test data.

    Its block of the result is what the layers did; the rest goes into ``diagnostics.npz``.

    Args:
        folder: where that file is written.
    """

    block = "layers"
    __test__ = False  # not a test case, whatever pytest makes of the name

    def __init__(self, folder: str) -> None:
        self.path = Path(folder) / "diagnostics.npz"
        self._handles: list[RemovableHandle] = []
        self._histograms: dict[str, Tensor] = {}
        self._fired: dict[str, Tensor] = {}
        self._arrays: dict[str, Any] = {}
        self._confusion: Tensor | None = None
        self._layers: list[Layer] = []

    def on_test_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Listen to every spiking layer."""
        assert isinstance(pl_module, Classifier)
        for name, _, neuron in pl_module.network.spiking_stages():
            self._handles.append(neuron.register_forward_hook(partial(self._listen, name)))

    def on_test_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keep the first image, which the raster belongs to."""
        if batch_idx == 0:
            self._arrays = {"image": picture(batch[0][0]).cpu().numpy(), "label": int(batch[1][0])}

    def on_test_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Count the predictions."""
        if outputs is None:
            return
        predicted, labels, classes = outputs["predicted"], batch[1], outputs["classes"]
        pairs = torch.bincount(labels * classes + predicted, minlength=classes * classes).view(classes, classes)
        self._confusion = pairs if self._confusion is None else self._confusion + pairs
        self._arrays.setdefault("prediction", int(predicted[0]))

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        """Stop listening, sum up, write the file."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        for name, _, neuron in pl_module.network.spiking_stages():
            histogram = self._histograms[name].cpu().numpy()
            total = int(histogram.sum())
            self._layers.append(
                Layer(
                    name=name,
                    neuron=type(neuron).__name__,
                    delta=float(neuron.scale().mean()),
                    mean_burst=float((histogram * np.arange(len(histogram))).sum() / total),
                    saturation=float(histogram[-1] / total),
                    silent=1 - float(self._fired[name].float().mean()),
                )
            )
            self._arrays[f"histogram/{name}"] = histogram
        if self._confusion is not None:
            self._arrays["confusion"] = self._confusion.cpu().numpy()
        self._arrays["class_names"] = np.array(trainer.datamodule.class_names)
        packed = io.BytesIO()
        np.savez_compressed(packed, **self._arrays)
        write_atomically(self.path, packed.getvalue())

    def found(self, name: str) -> list[Layer]:
        """What the layers did."""
        return self._layers

    def _listen(self, name: str, neuron: SpikingNeuron, inputs: Any, output: Tensor) -> None:
        counts = neuron.counts(output).abs().to(torch.uint8)  # sizes, where bursts have a sign; 127 at most
        histogram = torch.bincount(counts.flatten(), minlength=neuron.s_max + 1)
        fired = (counts > 0).flatten(0, 1).any(0)
        if name in self._histograms:
            self._histograms[name] += histogram
            self._fired[name] |= fired
        else:
            self._histograms[name], self._fired[name] = histogram, fired
            one = counts[:, 0].flatten(1)
            # Evenly spaced neurons stand for all of a large layer.
            chosen = torch.linspace(0, one.shape[1] - 1, min(RASTER_NEURONS, one.shape[1])).round().long()
            self._arrays[f"raster/{name}"] = one[:, chosen.to(one.device)].cpu().numpy()
