"""Stored cells are held to the sweep files of today."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml

from qbsnn.errors import DataError
from qbsnn.report.tables.stored import words
from qbsnn.results.fingerprint import dropped
from qbsnn.results.sweeps import Cell
from qbsnn.sweeps.plan import cells, read


def refuse_unplanned(path: Path, stored: Sequence[Cell]) -> None:
    """See that a sweep file plans every stored cell, with the settings that it has.

    Settings that change no result may differ.

    Args:
        path: the sweep file.
        stored: cells of that sweep.

    Raises:
        DataError: it does not; the message names the cell and the settings.
    """
    sweep = read(yaml.safe_load(path.read_text(encoding="utf-8")), path.stem)
    planned = {(cell.label, cell.seed): _settings(cell.overrides) for cell in cells(sweep)}
    for cell in stored:
        has, wanted = _settings(words(cell.overrides)), planned.get((cell.label, cell.seed))
        place = f"{cell.label}, seed {cell.seed}, is stored"
        if wanted is None:
            raise DataError(f"{place}, and {path} has no such cell: bring it back there")
        if has != wanted:
            ours, theirs = (" ".join(sorted(one)) or "nothing else" for one in (has - wanted, wanted - has))
            raise DataError(f"{place} with {ours}, and {path} says {theirs}: run it again, or bring back what it said")


def _settings(overrides: Iterable[str]) -> set[str]:
    return {override for override in overrides if not dropped(override.lstrip("+~").partition("=")[0])}
