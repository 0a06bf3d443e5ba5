"""W&B offline, whatever the machine has."""

from pathlib import Path

import pytest


def offline(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Wandb's own folders out of the home directory, and no key, whatever this machine has."""
    for name in ("CACHE", "CONFIG", "DATA"):
        patch.setenv(f"WANDB_{name}_DIR", str(folder / name.lower()))
    patch.setenv("WANDB_MODE", "offline")
    patch.setenv("WANDB_ERROR_REPORTING", "false")
