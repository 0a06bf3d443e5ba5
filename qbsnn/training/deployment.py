"""From a trained network to the integer network that a run proves, and who looks at it on the way.

Absorption happens once; what cannot be absorbed or quantised keeps its reason in place of a network.
"""

from __future__ import annotations

import copy
import logging
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TypeVar

import torch
from lightning.pytorch.callbacks import Callback
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader

from qbsnn import checks
from qbsnn.data import DataModule
from qbsnn.data.loading import first_inputs
from qbsnn.deploy.convert.absorb import absorb
from qbsnn.deploy.convert.grid import GridNetwork
from qbsnn.deploy.convert.quantize import quantize
from qbsnn.deploy.convert.quantized import Quantized
from qbsnn.deploy.convert.settings import DeploySettings
from qbsnn.deploy.engines.int8_engine import Int8Engine
from qbsnn.deploy.engines.torch_engine import Overflows
from qbsnn.deploy.verify.margins import with_exit
from qbsnn.errors import DeployError
from qbsnn.models.network import SpikingNetwork
from qbsnn.results.formatting import counted
from qbsnn.results.schema import Absorption, Integer

log = logging.getLogger(__name__)

AT_ONCE = {"cpu": 2**22, "cuda": 2**24}
"""Neuron-steps of the largest layer that a check looks at at a time, which bounds the memory of the host."""

Batch = tuple[Tensor, Tensor]
Form = TypeVar("Form")


@dataclass(frozen=True)
class Tuned:
    """Weights after training on the grid.

    Attributes:
        grid: of the grid network.
        floating: of the float network that was trained for as many epochs.
        kept: whether the grid network is better than post-training quantisation on validation images.
    """

    grid: dict[str, Tensor]
    floating: dict[str, Tensor]
    kept: bool


@dataclass(frozen=True)
class Deployed:
    """The integer network of a run.

    Attributes:
        mode: ``ptq`` or ``qat``, how its weights came about.
        quantized: the integer network.
        grid: the grid network of the same weights.
        rivals: accuracy field of the result -> function of pixels ``[B, C, H, W]`` to classes ``[B]``.
    """

    mode: str
    quantized: Quantized
    grid: GridNetwork
    rivals: dict[str, Callable[[Tensor], Tensor]]


@dataclass(frozen=True)
class Converted:
    """A trained network in evaluation mode, its absorbed form and its integer form, or why there is none."""

    trained: SpikingNetwork
    absorbed: SpikingNetwork | DeployError
    deployed: Deployed | DeployError


class Check(ABC):
    """A post-training callback: handed a converted network and test batches, it returns its block of the result.

    Args:
        max_batches: how many test batches to use; ``None`` is the whole test set.
    """

    block: str

    def __init__(self, max_batches: int | None = None) -> None:
        self.max_batches = None if max_batches is None else checks.integer("max_batches", max_batches, 1)

    @abstractmethod
    def check(self, network: Converted, batches: Iterable[Batch], name: str) -> Absorption | Integer:
        """Check.

        Args:
            network: every form on one device.
            batches: pixels ``[B, C, H, W]`` and labels ``[B]`` on that device.
            name: of the checkpoint that the weights come from.

        Raises:
            DeployError: where the network has not the form that is checked (:func:`present`), and where a value left
                the bounds that an engine rests on.
        """

    def shown(self, batches: DataLoader[Batch]) -> Iterable[Batch]:
        """The first ``max_batches``, with a bar on a terminal."""
        total = len(batches) if self.max_batches is None else min(len(batches), self.max_batches)
        what = f"{self.block}: comparing spike by spike"
        if sys.stdout.isatty():
            return track(islice(batches, total), what, total)
        log.info("%s, %s of test images", what, counted(total, "batch", "batches"))
        return islice(batches, total)


class Listener(Callback, ABC):
    """A callback that is present when the chosen weights are tested, and has its block of the result afterwards.

    Attributes:
        grid: the network that is deployed, where training on the grid made it; else ``None``.
    """

    block: str
    grid: GridNetwork | None = None

    @abstractmethod
    def found(self, name: str) -> Any:
        """The block; ``name`` is the checkpoint that the weights come from."""


def present(form: Form | DeployError) -> Form:
    """The form, or its reason raised."""
    if isinstance(form, DeployError):
        raise form
    return form


def convert(
    network: SpikingNetwork,
    settings: DeploySettings,
    data: DataModule,
    tune: Callable[[SpikingNetwork, Quantized], Tuned | None],
) -> Converted:
    """Absorb and quantise a network, and put in what training on the grid gained.

    Args:
        network: in evaluation mode; it is not changed.
        settings: how it becomes integers.
        data: gives the training images that the search for thresholds looks at, and the validation images on which the
            exit margin is chosen.
        tune: trains the network on the grid of its quantised form, or reads what that training left; called where
            ``settings.mode`` is qat.
    """
    absorbed: SpikingNetwork | None = None
    try:
        absorbed = absorb(network)
        quantized = quantize(absorbed, settings, calibration(settings, data))
    except DeployError as error:
        if settings.mode == "qat":
            log.warning("no fine-tuning on the grid: %s", error)
        if settings.exit_loss is not None:
            log.info("no early exit of the integer network: %s", error)
        return Converted(network, absorbed or error, error)
    tuned = tune(network, quantized) if settings.mode == "qat" else None
    deployed = chosen(network, quantized, tuned)
    if settings.exit_loss is not None:
        data.setup("fit")
        deployed = replace(deployed, quantized=with_exit(deployed.quantized, data.val_dataloader(), settings.exit_loss))
    return Converted(network, absorbed, deployed)


def chosen(network: SpikingNetwork, quantized: Quantized, tuned: Tuned | None) -> Deployed:
    """The rounded network, or the one trained on the grid where that is the better one on validation images."""
    rounded = GridNetwork(quantized).eval()
    if tuned is None:
        return Deployed("ptq", quantized, rounded, {})
    trained = GridNetwork(quantized).eval()
    trained.load_state_dict(tuned.grid)
    floating = copy.deepcopy(network)
    floating.load_state_dict(tuned.floating)
    rivals = {
        "ptq_acc": _classes(rounded),
        "qat_acc": _classes(trained),
        "float_comparator_acc": lambda pixels: floating.decide(floating(pixels)).argmax(1),
    }
    if not tuned.kept:
        return Deployed("ptq", quantized, rounded, rivals)
    return Deployed("qat", trained.integers(), trained, rivals)


def prove(
    checks: Sequence[Check], network: Converted, batches: Callable[[], DataLoader[Batch]], name: str
) -> dict[str, Absorption | Integer | dict[str, str]]:
    """Run the checks; a block that a network has no form for holds the reason. Any other error ends the proof.

    Args:
        checks: in this order.
        network: what to check.
        batches: gives the test batches, anew for each check.
        name: of the checkpoint that the weights come from.
    """
    found: dict[str, Absorption | Integer | dict[str, str]] = {}
    for check in checks:
        try:
            with torch.no_grad():
                found[check.block] = check.check(network, _parts(network.trained, check.shown(batches())), name)
        except DeployError as error:
            if error not in (network.absorbed, network.deployed):
                raise
            found[check.block] = {"checkpoint": name, "skipped": str(error)}
    return found


def tuned_grid(network: Converted) -> GridNetwork | None:
    """The grid network that is deployed, where training on the grid made it."""
    deployed = network.deployed
    return deployed.grid if isinstance(deployed, Deployed) and deployed.mode == "qat" else None


def calibration(settings: DeploySettings, data: DataModule) -> Tensor | None:
    """The first training images of epoch 0, ``[N, C, H, W]`` on the CPU, where the settings ask for them."""
    if settings.theta != "integer" or not settings.calibration_images:
        return None
    data.setup("fit")
    return torch.cat([pixels.cpu() for pixels in first_inputs(data.train_dataloader(), settings.calibration_images)])


def frozen(network: SpikingNetwork, device: torch.device) -> SpikingNetwork:
    """A copy in evaluation mode on a device."""
    return copy.deepcopy(network).to(device).eval()


def _parts(network: SpikingNetwork, batches: Iterable[Batch]) -> Iterator[Batch]:
    """The batches on the network's device and in its type, in parts.

    A check keeps every spike and membrane of what it sees in the host's memory. In parts that does not grow with the
    batch; on a CPU small ones are also faster, since they stay in its caches.
    """
    like = next(network.parameters())
    largest = max((neuron.neurons for _, _, neuron in network.spiking_stages()), default=0)
    size = max(8, AT_ONCE["cuda" if like.is_cuda else "cpu"] // max(1, network.T * largest))
    for pixels, labels in batches:
        yield from zip(pixels.to(like).split(size), labels.to(like.device).split(size), strict=True)


def _classes(grid: GridNetwork) -> Callable[[Tensor], Tensor]:
    """Classes by Z as the engines have it: the lowest index among the largest, whatever left its register."""
    quantized = grid.integers()
    engine = Int8Engine(quantized, next(grid.parameters()).device)

    def classes(pixels: Tensor) -> Tensor:
        current = quantized.current_tensor(quantized.front.encoder(pixels))
        return engine.running(current, Overflows())[-1].argmax(1)

    return classes
