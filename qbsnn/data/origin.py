"""What tells data from other data where no published checksum does."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def origin(settings: Mapping[str, Any], own_files: bool) -> dict[str, str]:
    """What is added to the identity of a run for the data that it reads.

    Args:
        settings: of the group ``data``.
        own_files: whether the set is a folder of the user's files.

    Returns:
        ``data.files``, a digest of the names and sizes of the files in such a folder, hidden ones aside, and of the
        content of its table; of a published set that is not verified ``data.root``; else nothing.
    """
    root = Path(str(settings.get("root", ""))).expanduser().absolute()
    if own_files:
        return {"data.files": _digest(root, settings.get("table"))}
    return {"data.root": str(root)} if settings.get("verify") is False else {}


def _digest(root: Path, table: Any) -> str:
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = [Path(folder, name) for name in files if not name.startswith(".")]
        found += [f"{path.relative_to(root).as_posix()}\t{path.stat().st_size}\n" for path in paths if path.exists()]
    digest = hashlib.sha256("".join(sorted(found)).encode(errors="surrogateescape"))
    if table and (root / str(table)).is_file():
        digest.update((root / str(table)).read_bytes())
    return digest.hexdigest()[:16]
