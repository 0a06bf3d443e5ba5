"""What the spiking layers do over training, and a warning where a layer stops telling anything."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from qbsnn import checks
from qbsnn.functional.statistics import BurstStatistics, burst_statistics
from qbsnn.neurons.base import SpikingNeuron
from qbsnn.tracking.wandb_logger import OfflineCapableWandbLogger
from qbsnn.training.module import Classifier

log = logging.getLogger(__name__)


class BurstMonitor(Callback):
    """Logs, per epoch and layer, ``delta``, ``burst``, ``saturation``, ``dead``, ``bits``, ``variation``/<layer>.

    Δ; the mean burst; the share of neuron-steps at s_max; the share of neurons that never fired; the entropy of burst
    sizes in bits; the temporal variation (:mod:`qbsnn.functional.statistics`). ``burst`` alone is the mean of layers.
    W&B also gets the histogram of burst sizes, ``bursts``/<layer>.

    The bursts of an epoch are taken from the first ``batches`` validation batches, those of the progress bar from every
    ``every``-th training batch; nothing is computed on others. A layer of more than one level whose saturation is above
    ``warn_saturation``, or whose share of dead neurons is above ``warn_dead``, is named once, with a remedy. Raises
    SettingsError for bad arguments.
    """

    def __init__(
        self, batches: int = 4, every: int = 10, warn_saturation: float = 0.5, warn_dead: float = 0.95
    ) -> None:
        self.batches = checks.integer("batches", batches, 1)
        self.every = checks.integer("every", every, 1)
        self.warn_saturation = checks.number("warn_saturation", warn_saturation, 0, 1)
        self.warn_dead = checks.number("warn_dead", warn_dead, 0, 1)
        self._handles: list[RemovableHandle] = []
        self._seen: dict[str, list[BurstStatistics]] = {}  # per layer, one entry for each validation batch listened to
        self._means: list[Tensor] = []  # mean bursts of the layers in a training batch, all that the progress bar needs
        self._warned: set[tuple[str, str]] = set()
        self._active = False

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Listen to every spiking layer."""
        assert isinstance(pl_module, Classifier)
        for name, _, neuron in pl_module.network.spiking_stages():
            self._handles.append(neuron.register_forward_hook(partial(self._listen, name)))

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Stop listening."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Listen on every tenth batch."""
        self._active = batch_idx % self.every == 0

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Show the mean burst of this batch beside the progress bar."""
        if self._means:
            pl_module.log("burst", _mean(self._means), prog_bar=True, on_step=True, on_epoch=False)
        self._stop()

    def on_validation_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Listen on the first batches."""
        self._active = bool(self._handles) and batch_idx < self.batches

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Log the layers' figures, and warn."""
        for name, _, neuron in pl_module.network.spiking_stages():
            if batches := self._seen.get(name):
                figures = _pooled(trainer, batches) | {"dead": 1 - _fired(trainer, batches).float().mean()}
                pl_module.log_dict({f"{figure}/{name}": value for figure, value in figures.items()}, sync_dist=True)
                self._warn(name, neuron, float(figures["saturation"]), float(figures["dead"]))
            pl_module.log(f"delta/{name}", neuron.scale().detach().mean(), sync_dist=True)
        self._log_histograms(trainer)
        self._stop()

    def _log_histograms(self, trainer: Any) -> None:
        loggers = [logger for logger in trainer.loggers if isinstance(logger, OfflineCapableWandbLogger)]
        if not loggers or not self._seen or trainer.sanity_checking:
            return
        counts = {
            name: torch.stack([found.counts for found in batches]).sum(0).tolist()
            for name, batches in self._seen.items()
        }
        for logger in loggers:
            # the metrics of this epoch get the number of its last batch, counted from 0
            logger.log_bursts(counts, max(trainer.global_step - 1, 0))

    def _warn(self, name: str, neuron: SpikingNeuron, saturation: float, dead: float) -> None:
        if neuron.s_max > 1 and saturation > self.warn_saturation and (name, "saturation") not in self._warned:
            self._warned.add((name, "saturation"))
            log.warning(
                "%s saturates: %.0f %% of its neuron-steps are at s_max = %d, so larger currents are lost. Raise "
                "neuron.s_max, start from a larger neuron.delta or use neuron.init=percentile",
                name, 100 * saturation, neuron.s_max,
            )  # fmt: skip
        if dead > self.warn_dead and (name, "dead") not in self._warned:
            self._warned.add((name, "dead"))
            log.warning(
                "%s is nearly silent: %.0f %% of its neurons never fire. Start from a smaller neuron.delta, use "
                "neuron.init=percentile, or a surrogate with wider tails (a smaller neuron.beta)",
                name, 100 * dead,
            )  # fmt: skip

    def _listen(self, name: str, neuron: SpikingNeuron, inputs: Any, output: Tensor) -> None:
        if not self._active:
            return
        counts = neuron.counts(output.detach())
        if neuron.training:
            self._means.append(counts.float().abs().mean())
        else:
            self._seen.setdefault(name, []).append(burst_statistics(counts, neuron.s_max))

    def _stop(self) -> None:
        self._active = False
        self._seen.clear()
        self._means.clear()


def _pooled(trainer: lightning.Trainer, batches: list[BurstStatistics]) -> dict[str, Tensor]:
    """Means over all neuron-steps of these batches, those of other processes included."""
    counts = torch.stack([found.counts.sum() for found in batches]).float()
    names = {"burst": "mean", "saturation": "saturation", "bits": "bits", "variation": "variation"}
    values = torch.stack([torch.stack([getattr(found, field) for found in batches]) for field in names.values()])
    total = trainer.strategy.reduce((values * counts).sum(1), reduce_op="sum")
    means = total / trainer.strategy.reduce(counts.sum(), reduce_op="sum")
    return dict(zip(names, means.unbind(), strict=True))


def _fired(trainer: lightning.Trainer, batches: list[BurstStatistics]) -> Tensor:
    """Which neurons fired in any of these batches, in any process."""
    fired = torch.stack([found.fired for found in batches]).any(0)
    return trainer.strategy.reduce(fired.float(), reduce_op="sum") > 0


def _mean(values: list[Tensor]) -> Tensor:
    return torch.stack(values).mean()
