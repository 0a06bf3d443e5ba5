"""What does not reach the screen."""

from __future__ import annotations

import logging
import warnings


def quieten() -> None:
    """Keep what Lightning says of itself off the screen; its warnings about a run stay."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    known = [
        r".*isinstance\(treespec, LeafSpec\)",  # Lightning 2.6 with torch 2.13
        "The number of training batches .* is smaller than the logging interval",  # curves are logged per epoch
        "The 'train_dataloader' does not have many workers",  # the data is in memory
        "The 'val_dataloader' does not have many workers",
        "The 'test_dataloader' does not have many workers",
        "Checkpoint directory .* exists and is not empty",  # of a run that goes on
    ]
    for message in known:
        warnings.filterwarnings("ignore", message=message)
