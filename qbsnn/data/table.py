"""A table of a user's own files: paths, labels and parts."""

from __future__ import annotations

import csv
import os
from pathlib import Path

from qbsnn.errors import DataError

PARTS = ("train", "val", "test")
SEPARATORS = {";": "semicolons", "\t": "tabs"}
"""What spreadsheets put between columns in the place of commas."""


def read_table(path: Path, root: Path, name: str) -> list[tuple[str, str, str]]:
    """Rows of a CSV file with the columns ``path``, ``label`` and, if there is one, ``part``: train, val or test.

    Args:
        path: of the CSV file.
        root: that the paths in it are relative to.
        name: of the set, for messages.

    Raises:
        DataError: for a file that cannot be read, other columns, an incomplete row, a path that two rows name.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            if not {"path", "label"} <= set(columns):
                told = f"{name}: {path} must have the columns path and label, got {', '.join(columns)}"
                other = next((found for sign, found in SEPARATORS.items() if sign in "".join(columns)), None)
                raise DataError(told + (f": separate the columns by commas, not by {other}" if other else ""))
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{name}: {path} cannot be read: {error}") from error
    found: dict[str, tuple[int, tuple[str, str, str]]] = {}
    for line, row in rows:
        file_path, label = ((row[column] or "").strip() for column in ("path", "label"))
        part = (row.get("part") or "train").strip()
        if not file_path or not label or part not in PARTS:
            raise DataError(
                f"{name}: {path}, line {line} must have a path, a label and one of {', '.join(PARTS)} as part, got "
                f"{row['path']!r}, {row['label']!r} and {part!r}"
            )
        first, before = found.setdefault(os.path.normpath(root / file_path), (line, (file_path, label, part)))
        if first != line:
            raise DataError(
                f"{name}: {path} must name every file once, but {file_path} stands in line {first} ({before[1]}, "
                f"{before[2]}) and in line {line} ({label}, {part})"
            )
    return [row for _, row in found.values()]
