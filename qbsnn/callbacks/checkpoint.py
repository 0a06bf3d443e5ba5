"""Which epoch is the best: the highest validation accuracy, and among equals the lowest validation loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor


class BestByValidation(ModelCheckpoint):
    """Keeps ``best.ckpt`` and ``last.ckpt`` in ``dirpath``, the latter written after every epoch.

    On small validation sets many epochs reach the same accuracy, and the first of them is rarely the best one.
    """

    def __init__(self, dirpath: str) -> None:
        super().__init__(
            dirpath, filename="best", monitor="val/acc", mode="max", save_top_k=1, save_last=True,
            auto_insert_metric_name=False, enable_version_counter=False,
        )  # fmt: skip
        self.best_loss = float("inf")

    def check_monitor_top_k(self, trainer: lightning.Trainer, current: Tensor | None = None) -> bool:
        """Whether this epoch is better than the best one so far."""
        loss = float(trainer.callback_metrics.get("val/loss", float("inf")))
        equal = current is not None and self.best_model_score is not None and bool(current == self.best_model_score)
        better = loss < self.best_loss if equal else super().check_monitor_top_k(trainer, current)
        if better:
            self.best_loss = loss
        return better

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Save the epoch if it is the best one, and in any case as the last one."""
        super().on_train_epoch_end(trainer, pl_module)
        if self._should_save_on_train_epoch_end(trainer):
            self._save_the_last(trainer)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """The same where validation does not come once per epoch."""
        super().on_validation_end(trainer, pl_module)
        if not self._should_save_on_train_epoch_end(trainer):
            self._save_the_last(trainer)

    def _save_the_last(self, trainer: lightning.Trainer) -> None:
        # Lightning writes last.ckpt with a best one only
        if not self._should_skip_saving_checkpoint(trainer):
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to go on comparing."""
        return {**super().state_dict(), "best_loss": self.best_loss}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on comparing where the run stopped."""
        self.best_loss = state_dict.pop("best_loss")
        super().load_state_dict(_moved(state_dict, str(self.dirpath)))


def _moved(state: dict[str, Any], folder: str) -> dict[str, Any]:
    """The state with its paths in ``folder``: a run directory may have been moved between two starts."""
    here = {name: str(Path(folder) / Path(state[name]).name) if state[name] else "" for name in
            ("best_model_path", "kth_best_model_path", "last_model_path")}  # fmt: skip
    best = {str(Path(folder) / Path(path).name): score for path, score in state["best_k_models"].items()}
    return {**state, **here, "best_k_models": best, "dirpath": folder}
