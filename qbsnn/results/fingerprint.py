"""Which runs are the same experiment: a fingerprint of what determines a result."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from qbsnn.checks import at_home
from qbsnn.results.files import walk

DROPPED = (
    "name",
    "report",
    "overwrite",
    "resume",
    "trust",
    "teacher",  # a path; what lies there is known by teacher_digest, and in the next line by init_from_digest
    "init_from",
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
    "trainer.max_time",
    "data.root",
    "data.download",
    "data.verify",
    "data.num_workers",
    "data.resident",
    "data.cache_dir",
    "callbacks.checkpoint.dirpath",
    "callbacks.checkpoint.every_minutes",
    "callbacks.diagnostics.folder",
    "callbacks.progress",
    "callbacks.bursts",
    "callbacks.gradients",
)
"""Dotted keys, with everything below them, that say where and how a run is made and shown, not what comes out."""


EPOCHS = "trainer.max_epochs"
"""The one setting of a run that may grow when it is gone on with."""

MEANING = 2
"""Version of what a default means. It is raised when an unchanged setting gives another result than before."""


def identity(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """What determines a result: the settings that differ from their defaults, and the version of the defaults.

    A new setting with a neutral default leaves the identity of earlier runs as it is.

    Args:
        config: resolved, plain containers. Numbers that are not finite count as the strings that ``result.json`` holds,
            and an input encoding that the data chose (``model.encoding``) as null. An integer and a float differ, as
            they do to ``trainer.limit_train_batches``.
        defaults: dotted key -> what the setting is when nobody sets it. A key that it lacks always counts.

    Returns:
        Dotted keys in alphabetical order with their values, and ``defaults``, the version. Settings of ``DROPPED`` are
        absent.

    >>> identity({"T": 4, "name": "a", "neuron": {"s_max": 8, "beta": 5.0}}, {"neuron.s_max": 8, "neuron.beta": 3.0})
    {'T': 4, 'neuron.beta': 5.0, 'defaults': 2}
    """
    settings = {key: value for key, value in leaves(config) if not dropped(key)}
    differ = {key: value for key, value in settings.items() if key not in defaults or not _same(value, defaults[key])}
    return {**dict(sorted(differ.items())), "defaults": MEANING}


def fingerprint(identity: Mapping[str, Any]) -> str:
    """16 hexadecimal digits of an identity: the first of the SHA-256 of its JSON with sorted keys.

    >>> fingerprint({"T": 4, "defaults": 2}) == fingerprint({"defaults": 2, "T": 4})
    True
    """
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def dropped(key: str) -> bool:
    """Whether a dotted key, or one above it, is left out of the fingerprint."""
    return within(key, DROPPED)


def within(key: str, names: Iterable[str]) -> bool:
    """Whether a dotted key, or one above it, is among ``names``.

    >>> within("data.root", ["data"]), within("data.rooted", ["data.root"])
    (True, False)
    """
    return any(key == name or key.startswith(f"{name}.") for name in names)


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The keys of two identities whose values differ, or that only one of them has.

    >>> differing({"T": 4, "seed": 0}, {"T": 2, "seed": 0, "compile": "none"})
    ['T', 'compile']
    """
    return [key for key in dict.fromkeys([*one, *other]) if one.get(key) != other.get(key)]


def origin(settings: Mapping[str, Any], own_files: bool, outputs: str | None = None) -> dict[str, str]:
    """What is added to the identity of a run for the data that it reads.

    Args:
        settings: of the group ``data``.
        own_files: whether the set is a folder of the user's files.
        outputs: the folder of all runs.

    Returns:
        ``data.files``, a digest of the names and sizes of the files in such a folder, hidden ones, the cache and runs
        aside, and of the content of its table; of a published set that is not verified ``data.root``; else nothing.
    """
    root = _absolute(settings.get("root", ""))
    if own_files:
        aside = {_absolute(folder) for folder in (settings.get("cache_dir"), outputs) if folder}
        return {"data.files": _digest(root, settings.get("table"), aside - {root})}
    return {"data.root": str(root)} if settings.get("verify") is False else {}


def leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys with values as an identity has them, which JSON can hold; an empty group is a value."""
    for name, value in node.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{key}.")
        elif key == "model.encoding" and value in ("direct", "events"):
            yield key, None
        elif key == "model.encoding" and value == "rate":
            yield key, "rate by epoch"  # before, its noise depended on the number of batches
        else:
            yield key, _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _same(value: Any, default: Any) -> bool:
    default = _plain(default)
    return type(value) is type(default) and bool(value == default)


def _absolute(path: Any) -> Path:
    return at_home(str(path)).absolute()


def _digest(root: Path, table: Any, aside: set[Path]) -> str:
    paths = [path for path in walk(root) if path.exists() and not aside.intersection(path.parents)]
    found = [f"{path.relative_to(root).as_posix()}\t{path.stat().st_size}\n" for path in paths]
    digest = hashlib.sha256("".join(sorted(found)).encode(errors="surrogateescape"))
    if table and (root / str(table)).is_file():
        digest.update((root / str(table)).read_bytes())
    return digest.hexdigest()[:16]
