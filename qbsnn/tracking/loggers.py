"""Weights & Biases as a logger that never stops a run and goes offline by itself."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from qbsnn.tracking.wandb_logger import OfflineCapableWandbLogger

log = logging.getLogger(__name__)


def wandb_logger(
    save_dir: str | Path,
    project: str = "qbsnn",
    name: str | None = None,
    group: str | None = None,
    tags: Sequence[str] = (),
    entity: str | None = None,
    offline: bool | Literal["auto"] = "auto",
    base_url: str | None = None,
    init_timeout: float = 10,
    connect_timeout: float = 2.0,
    choices: Sequence[str] = (),
    log_checkpoint: bool = False,
    **init: Any,
) -> OfflineCapableWandbLogger:
    """Log to Weights & Biases, to files under ``<save_dir>/wandb`` when there is no key or no server.

    ``offline="auto"`` looks for the key as wandb does and opens a TCP connection to the server (or to the proxy) for at
    most ``connect_timeout`` seconds; ``False`` skips the connection test; ``True``, like ``WANDB_MODE=offline``, asks
    nothing. A key is needed in every case, since ``wandb.init`` would ask for it on the terminal. ``init_timeout``
    bounds ``wandb.init`` itself, after which the run is opened offline. ``base_url`` goes before ``WANDB_BASE_URL``.
    ``choices`` are tags too. ``log_checkpoint`` puts ``best.ckpt`` into the run's artifact. Other arguments (``id``,
    ``job_type``, ``notes``, ...) go to ``wandb.init``.
    """
    return OfflineCapableWandbLogger(
        save_dir=save_dir,
        project=project,
        name=name,
        group=group,
        tags=[str(tag) for tag in (*choices, *tags)],
        entity=entity,
        offline=offline,
        base_url=base_url,
        init_timeout=init_timeout,
        connect_timeout=connect_timeout,
        log_checkpoint=log_checkpoint,
        **init,
    )


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
