"""The checkpoints that settings name, which are known by their content."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qbsnn.errors import CheckpointError, SettingsError

CHECKPOINTS = ("teacher", "init_from")
"""Settings that name a checkpoint; ``KEY_digest`` is what it is known by."""


def with_digests(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with the digest of every checkpoint that they name, and without those of checkpoints that they do not.

    Where the file of a stored configuration is gone, what it said of it stays.

    Raises:
        CheckpointError: a file cannot be read, or names no digest.
        SettingsError: a path is empty.
    """
    found = dict(settings)
    for key in CHECKPOINTS:
        path, known = settings.get(key), found.pop(f"{key}_digest", None)
        if path is None:
            continue
        if not path.strip():
            raise SettingsError(f"{key} must be the path of a checkpoint, or null for none, got {path!r}")
        if not known or Path(path).exists():
            from qbsnn.training.checkpoints import digest  # imports PyTorch, which nothing else needs at this stage

            with named(key):
                known = digest(path)
        found[f"{key}_digest"] = known
    return found


@contextmanager
def named(setting: str) -> Iterator[None]:
    """Put a setting before what is wrong with the checkpoint that it names."""
    try:
        yield
    except (CheckpointError, SettingsError) as error:
        raise type(error)(f"{setting}: {error}") from error
