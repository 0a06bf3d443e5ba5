"""Checkpoints: of the best epoch by validation, of the last one, and of a moment within an epoch."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from qbsnn import checks
from qbsnn.results.files import BEST, LAST, RESUME
from qbsnn.training.devices.signals import CODE, SIGNALS


class BestByValidation(ModelCheckpoint):
    """Keeps ``best.ckpt`` and ``last.ckpt`` in ``dirpath``, the latter written after every epoch.

    The best epoch is the one with the highest validation accuracy, and among equals the lowest validation loss: on
    small validation sets many epochs reach the same accuracy, and the first of them is rarely the best one. With a
    budget of energy the best epoch is sought among those that keep it; until one does, it is the one that exceeds it
    least. Within an epoch ``resume.ckpt`` is written every ``every_minutes``, and when a signal asks for it (see
    :mod:`qbsnn.training.devices.signals`); it goes when its epoch has ended.

    Args:
        dirpath: folder of the checkpoints.
        every_minutes: between two checkpoints within an epoch; ``None``: only when a signal asks.

    Raises:
        ArgumentError: every_minutes is not a number above 0.
    """

    def __init__(self, dirpath: str, every_minutes: float | None = None) -> None:
        super().__init__(
            dirpath, filename=BEST.stem, monitor="val/acc", mode="max", save_top_k=1, save_last=True,
            auto_insert_metric_name=False, enable_version_counter=False,
        )  # fmt: skip
        self.best_loss = float("inf")
        self.best_excess = float("inf")
        minutes = None if every_minutes is None else checks.number("every_minutes", every_minutes, 0, open_low=True)
        self.every_seconds = None if minutes is None else 60 * minutes
        self._saved = time.monotonic()

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Remove the checkpoint within an epoch, which a kill after the last epoch's end leaves; no step is awaited.

        It stays where the fit began with it: had a step followed, the end of its epoch would have removed it.
        """
        SIGNALS.deferring = False
        path = Path(str(self.dirpath)) / RESUME
        if trainer.ckpt_path is None or Path(trainer.ckpt_path).resolve() != path.resolve():
            trainer.strategy.remove_checkpoint(path)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Answer signals here rather than in Lightning's handler, which waits for other processes inside it."""
        super().on_train_start(trainer, pl_module)
        SIGNALS.install()
        self._saved = time.monotonic()

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """A step that has begun is finished."""
        SIGNALS.deferring = True

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save where it is time, and end where a signal asks for it."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        # A signal between two steps of an epoch waits for the end of the next one, where the state can be saved. After
        # the last step one process may end at once; several always end together.
        SIGNALS.deferring = trainer.world_size > 1 or not trainer.is_last_batch
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        agree = trainer.strategy.reduce_boolean_decision
        stop = agree(SIGNALS.stop, all=False)
        late = self.every_seconds is not None and time.monotonic() - self._saved >= self.every_seconds
        last = trainer.is_last_batch or 0 <= trainer.max_steps <= trainer.global_step
        if (stop or agree(late or SIGNALS.save, all=False)) and not last:
            trainer.save_checkpoint(Path(str(self.dirpath)) / RESUME)
            self._saved, SIGNALS.save = time.monotonic(), False
        if stop and not last:
            raise SystemExit(CODE)

    def on_validation_batch_end(self, trainer: lightning.Trainer, *given: Any) -> None:
        """End together with the other processes; nothing of an epoch's end can be saved yet."""
        if trainer.world_size > 1 and trainer.strategy.reduce_boolean_decision(SIGNALS.stop, all=False):
            raise SystemExit(CODE)

    def check_monitor_top_k(self, trainer: lightning.Trainer, current: Tensor | None = None) -> bool:
        """Whether this epoch is better than the best one so far."""
        loss = float(trainer.callback_metrics.get("val/loss", float("inf")))
        excess = float(trainer.callback_metrics.get("val/excess", 0.0))
        equal = current is not None and self.best_model_score is not None and bool(current == self.best_model_score)
        if current is not None and excess != self.best_excess:
            better = excess < self.best_excess
        else:
            better = loss < self.best_loss if equal else super().check_monitor_top_k(trainer, current)
        if better:
            self.best_loss, self.best_excess = loss, excess
        return better

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Save the epoch if it is the best one, and in any case as the last one, validated or not."""
        super().on_train_epoch_end(trainer, pl_module)
        if not self._should_save_on_train_epoch_end(trainer):
            self._last_global_step_saved = -1  # what a validation at this step saved lacks the row of the epoch
        self._save_the_last(trainer)
        SIGNALS.deferring = trainer.world_size > 1

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """The same where validation does not come once per epoch; at the end of an epoch that end saves it.

        Nothing is saved between the batches of one step: no checkpoint holds the gradients of those that are done.
        """
        if trainer.fit_loop.epoch_loop._should_accumulate():
            return
        super().on_validation_end(trainer, pl_module)
        if not self._should_save_on_train_epoch_end(trainer) and not trainer.is_last_batch:
            self._save_the_last(trainer)

    def _save_the_last(self, trainer: lightning.Trainer) -> None:
        # Lightning writes last.ckpt with a best one only
        if not self._should_skip_saving_checkpoint(trainer):
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))
        trainer.strategy.remove_checkpoint(Path(str(self.dirpath)) / RESUME)
        self._saved = time.monotonic()
        if trainer.strategy.reduce_boolean_decision(SIGNALS.stop, all=False):
            raise SystemExit(CODE)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to go on comparing."""
        return {**super().state_dict(), "best_loss": self.best_loss, "best_excess": self.best_excess}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on comparing where the run stopped."""
        self.best_loss, self.best_excess = state_dict.pop("best_loss"), state_dict.pop("best_excess", float("inf"))
        super().load_state_dict(_moved(state_dict, str(self.dirpath)))


def _moved(state: dict[str, Any], folder: str) -> dict[str, Any]:
    """The state with its paths in ``folder``: a run directory may have been moved between two starts."""
    here = {name: str(Path(folder) / Path(state[name]).name) if state[name] else "" for name in
            ("best_model_path", "kth_best_model_path")}  # fmt: skip
    here["last_model_path"] = str(Path(folder) / LAST)  # written, or about to be
    best = {str(Path(folder) / Path(path).name): score for path, score in state["best_k_models"].items()}
    return {**state, **here, "best_k_models": best, "dirpath": folder}
