"""Post-training callbacks: absorption and the integer simulation, on a copy of the network, at the start of a test.

They act in test runs of a checkpoint only (``pl_module.verify_as`` is set): at the end of fitting the strategy is torn
down, and a test run may still load other weights.
"""

from __future__ import annotations

import copy
import logging
import sys
from collections.abc import Iterable, Iterator
from itertools import islice

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from rich.progress import track
from torch import Tensor

from qbsnn.data import ImageDataModule
from qbsnn.deploy.convert.absorb import absorb
from qbsnn.deploy.verify.absorption import check_absorption
from qbsnn.deploy.verify.integer import check_integer
from qbsnn.errors import DeployError
from qbsnn.models.network import SpikingNetwork
from qbsnn.results.schema import Absorption, Integer, Result
from qbsnn.training.fine_tuning import deployed
from qbsnn.training.module import Classifier

log = logging.getLogger(__name__)
Batches = Iterator[tuple[Tensor, Tensor]]


class _Verification(Callback):
    """Runs one check over the test batches and leaves its block in the result.

    max_batches: how many test batches to use; ``None`` is the whole test set.
    """

    block = ""

    def __init__(self, max_batches: int | None = None) -> None:
        self.max_batches = max_batches

    def check(
        self, network: SpikingNetwork, batches: Batches, name: str, module: Classifier, data: ImageDataModule
    ) -> Absorption | Integer:
        """Run the check on a network in evaluation mode, a copy of the module's."""
        raise NotImplementedError

    def on_test_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Check the network that is about to be tested."""
        assert isinstance(pl_module, Classifier)
        name = pl_module.verify_as
        if name is None:
            return
        result: Result = pl_module.result
        # Lightning tests under inference mode; tensors made there cannot be changed by what a check does with a copy.
        with torch.inference_mode(False), torch.no_grad():
            network = copy.deepcopy(pl_module.network).eval()
            try:
                data: ImageDataModule = trainer.datamodule  # type: ignore[attr-defined]
                batches = self._batches(data, pl_module)
                found: Absorption | Integer | dict[str, str] = self.check(network, batches, name, pl_module, data)
            except DeployError as error:
                found = {"checkpoint": name, "skipped": str(error)}
        setattr(result, self.block, found)

    def _batches(self, data: ImageDataModule, pl_module: Classifier) -> Batches:
        loader = data.test_dataloader()
        total = len(loader) if self.max_batches is None else min(len(loader), self.max_batches)
        batches: Iterable[tuple[Tensor, Tensor]] = islice(loader, total)
        what = f"{self.block}: comparing spike by spike"
        if sys.stdout.isatty():
            batches = track(batches, what, total)
        else:
            log.info("%s, %d batches of test images", what, total)
        for pixels, labels in batches:
            yield pixels.to(pl_module.device), labels.to(pl_module.device)


class AbsorptionCheck(_Verification):
    """Compares the trained network with its absorbed form, see :mod:`qbsnn.deploy.verify.absorption`."""

    block = "absorption"

    def check(
        self, network: SpikingNetwork, batches: Batches, name: str, module: Classifier, data: ImageDataModule
    ) -> Absorption:
        """Absorb, then compare."""
        return check_absorption(network, absorb(network), batches, name)


class IntegerSimulation(_Verification):
    """Quantises the absorbed network as ``deploy`` says and proves it: see :mod:`qbsnn.deploy.verify.integer`.

    After fine-tuning on the grid (``module.tuned``) the network that is better on validation images is proven, and the
    accuracies of both and of the float network of as many epochs are reported. onnx_images: number of images, at least,
    that also run in onnxruntime; 0 switches that off.
    """

    block = "integer"

    def __init__(self, max_batches: int | None = None, onnx_images: int = 512) -> None:
        super().__init__(max_batches)
        self.onnx_images = onnx_images

    def check(
        self, network: SpikingNetwork, batches: Batches, name: str, module: Classifier, data: ImageDataModule
    ) -> Integer:
        """Absorb, quantise, run every engine."""
        candidate = deployed(network, module, data)
        found = check_integer(
            candidate.quantized,
            batches,
            name,
            self.onnx_images,
            candidate.grid,
            candidate.rivals,
            compiled=network.compiled,
        )
        found.mode = candidate.mode
        return found
