"""What a run logs, and whether its callbacks monitor something of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from qbsnn.checks import nearest
from qbsnn.energy.budget import EnergyBudget
from qbsnn.errors import SettingsError

LOGGED: dict[str, str | None] = {
    "train/loss": "min",
    "train/acc": "max",
    "val/loss": "min",
    "val/acc": "max",
    "lr": None,
}
"""What a callback may monitor, and which way is better; ``None`` where neither is."""


def check_monitors(callbacks: Mapping[str, Any], settings: Mapping[str, Any], budget: EnergyBudget | None) -> None:
    """See that callbacks monitor what a run logs.

    Args:
        callbacks: by name.
        settings: of the run, validated.
        budget: of the network, which has none without spikes.

    Raises:
        SettingsError: one monitors what no run logs, or in the wrong direction, or at a time at which it is not logged
            yet.
    """
    logged = dict(LOGGED)
    if budget is not None:
        logged |= {"val/excess": "min", "train/budget": None, f"train/{budget.quantity}": "min"}
    for name, callback in callbacks.items():
        monitor = getattr(callback, "monitor", None)
        if monitor is not None and monitor not in logged:
            asked = budget is None and (settings.get("budget") or {}).get("_target_")
            why = " by a network without spikes, which has no budget" if asked else ""
            raise SettingsError(
                f"callbacks.{name}.monitor: {monitor!r} is not logged{why}: {nearest(str(monitor), logged)}"
            )
        better = logged.get(str(monitor))
        if better and isinstance(callback, (EarlyStopping, ModelCheckpoint)) and callback.mode != better:
            raise SettingsError(f"callbacks.{name}.mode must be {better} for monitor={monitor}, got {callback.mode}")
        if isinstance(callback, EarlyStopping):
            _check_time(name, callback, settings["trainer"])


def _check_time(name: str, callback: EarlyStopping, trainer: Mapping[str, Any]) -> None:
    """Refuse early stopping that looks when nothing, or nothing of this epoch, is there to be seen."""
    if trainer.get("limit_val_batches") == 0:
        raise SettingsError(f"callbacks.{name} needs validation: trainer.limit_val_batches must not be 0")
    interval, epochs = trainer.get("val_check_interval"), trainer.get("check_val_every_n_epoch", 1)
    at_the_end = callback._check_on_train_epoch_end
    if at_the_end is None:  # as Lightning decides it
        at_the_end = interval in (None, 1.0) and epochs == 1
    if not at_the_end and not callback.monitor.startswith("val/"):
        raise SettingsError(
            f"callbacks.{name}.monitor={callback.monitor} is logged at the end of an epoch, but looked at after each "
            f"validation (trainer.val_check_interval={interval}, trainer.check_val_every_n_epoch={epochs}): monitor "
            "val/loss or val/acc, or validate once per epoch"
        )
