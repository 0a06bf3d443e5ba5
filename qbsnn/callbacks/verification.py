"""Post-training callbacks: the absorption check and the integer simulation, switched and swapped in conf/callbacks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from qbsnn import checks
from qbsnn.deploy.verify.absorption import check_absorption
from qbsnn.deploy.verify.integer import check_integer
from qbsnn.results.schema import Absorption, Integer
from qbsnn.training.deployment import Batch, Check, Converted, present


class AbsorptionCheck(Check):
    """Compares the trained network with its absorbed form, see :mod:`qbsnn.deploy.verify.absorption`."""

    block = "absorption"

    def check(self, network: Converted, batches: Iterable[Batch], name: str) -> Absorption:
        """Compare."""
        return check_absorption(network.trained, present(network.absorbed), batches, name)


class IntegerSimulation(Check):
    """Proves the integer network, see :mod:`qbsnn.deploy.verify.integer`.

    Where it was trained on the grid, the accuracies of the rounded network, of the trained one and of the float network
    of as many epochs are reported.

    Args:
        max_batches: how many test batches to use; ``None`` is the whole test set.
        onnx_images: number of images, at least, that also run in onnxruntime; 0 switches that off.
    """

    block = "integer"

    def __init__(self, max_batches: int | None = None, onnx_images: int = 512) -> None:
        super().__init__(max_batches)
        self.onnx_images = checks.integer("onnx_images", onnx_images, 0)

    def check(self, network: Converted, batches: Iterable[Batch], name: str) -> Integer:
        """Run every engine."""
        found = present(network.deployed)
        block = check_integer(
            found.quantized,
            batches,
            name,
            self.onnx_images,
            found.grid,
            found.rivals,
            compiled=network.trained.compiled,
        )
        return replace(block, mode=found.mode)
