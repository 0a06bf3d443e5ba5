"""Which runs are the same experiment: a fingerprint of what determines a result."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

DROPPED = (
    "name",
    "report",
    "compile",
    "memory",
    "sweep",
    "paths",
    "logger",
    "trainer.accelerator",
    "trainer.default_root_dir",
    "trainer.enable_model_summary",
    "trainer.enable_progress_bar",
    "trainer.log_every_n_steps",
    "data.root",
    "data.download",
    "data.verify",
    "data.num_workers",
    "data.resident",
    "data.cache_dir",
    "callbacks.checkpoint.dirpath",
    "callbacks.diagnostics.folder",
    "callbacks.progress",
    "callbacks.bursts",
    "callbacks.gradients",
)
"""Dotted keys, with everything below them, that say where and how a run is made and shown, not what comes out."""


def fingerprint(config: dict[str, Any]) -> str:
    """16 hexadecimal digits that are equal for two resolved configurations if they must give the same result.

    The first digits of the SHA-256 of the configuration without what is ``DROPPED``, as JSON with sorted keys. The
    configuration in a ``result.json`` gives what the one that it was composed as gives: numbers that are not finite
    count as the strings they are stored as, and an input encoding that the data chose (``model.encoding``) as null. An
    integer and a float are different, as they are to ``trainer.limit_train_batches``.

    >>> fingerprint({"T": 4, "name": "a"}) == fingerprint({"T": 4, "name": "b"})
    True
    >>> fingerprint({"T": 4}) == fingerprint({"T": 2})
    False
    """
    text = json.dumps(_kept(config, ""), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def dropped(key: str) -> bool:
    """Whether a dotted key, or one above it, is left out of the fingerprint."""
    return any(key == name or key.startswith(f"{name}.") for name in DROPPED)


def _kept(node: Any, key: str) -> Any:
    if isinstance(node, dict):
        below = {str(name): f"{key}.{name}" if key else str(name) for name in node}
        return {name: _kept(node[name], path) for name, path in below.items() if not dropped(path)}
    if isinstance(node, (list, tuple)):
        return [_kept(item, f"{key}[]") for item in node]
    if isinstance(node, float) and not math.isfinite(node):
        return str(node)
    if key == "model.encoding" and node in ("direct", "events"):
        return None
    return node
