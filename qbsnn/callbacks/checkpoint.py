"""Which epoch is the best: the highest validation accuracy, and among equals the lowest validation loss."""

from __future__ import annotations

from typing import Any

import lightning
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor


class BestByValidation(ModelCheckpoint):
    """Keeps ``best.ckpt`` and ``last.ckpt`` in ``dirpath``.

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

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to go on comparing."""
        return {**super().state_dict(), "best_loss": self.best_loss}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on comparing where the run stopped."""
        self.best_loss = state_dict.pop("best_loss")
        super().load_state_dict(state_dict)
