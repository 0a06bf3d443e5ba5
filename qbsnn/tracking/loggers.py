"""Weights & Biases as a logger that never stops a run and goes offline by itself."""

from __future__ import annotations

import logging
import sys

from qbsnn.tracking.wandb_logger import OfflineCapableWandbLogger

log = logging.getLogger(__name__)

wandb_logger = OfflineCapableWandbLogger
"""The name that settings and checkpoints use."""


def close_loggers(failed: bool) -> None:
    """Finish an open W&B run, marked as failed or not, and end wandb's service process. Raises nothing.

    For a ``finally`` around a run: an exception must neither leave the run open nor be hidden by one from here.
    """
    wandb = sys.modules.get("wandb")
    if wandb is None:
        return
    code = int(failed)
    for close in (
        lambda: wandb.finish(exit_code=code) if wandb.run is not None else None,
        lambda: wandb.teardown(code),
    ):
        try:
            close()
        except (Exception, SystemExit) as error:  # teardown calls sys.exit when the service ended with a code
            log.warning("closing W&B failed: %s", error)
