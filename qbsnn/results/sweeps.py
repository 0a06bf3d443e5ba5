"""What a sweep left: its plan, and each of its cells with the result or why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from qbsnn.errors import DataError
from qbsnn.results.files import CURVE_FILE
from qbsnn.results.fingerprint import leaves
from qbsnn.results.frames import frame_of
from qbsnn.results.reading import read_json, read_result
from qbsnn.results.run_files import Series, read_curves
from qbsnn.results.schema import Result

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Plan:
    """What a sweep file says of its table.

    Args:
        name: Name of the file.
        title: Heading of the table.
        published: By label of a row, the keys of the published figures that stand beside it.
        baseline: Label of the row that the others are compared with.
        figure: The figure that shows the sweep.
    """

    name: str
    title: str
    published: dict[str, list[str]] = field(default_factory=dict)
    baseline: str | None = None
    figure: str | None = None


def read_plan(path: Path) -> Plan:
    """The plan in a file of ``conf/sweep``.

    Raises:
        DataError: No such file, no YAML mapping, rows without labels, or a baseline that is no row.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise DataError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} must hold the keys of a sweep, got {str(content)[:80]!r}")
    try:
        published = {str(row["label"]): [str(key) for key in row.get("published") or []] for row in content["rows"]}
    except KeyError as error:
        if "rows" in content:
            raise DataError(f"{path}: every row needs a label") from error
        published = {}
    except (AttributeError, TypeError) as error:
        raise DataError(f"{path}: rows must be a list of mappings, each with a label") from error
    baseline = content.get("baseline")
    if baseline is not None and published and baseline not in published:
        raise DataError(f"{path}: baseline must be the label of a row ({', '.join(published)}), got {baseline!r}")
    return Plan(path.stem, str(content.get("title") or path.stem), published, baseline, content.get("figure"))


UNPROVEN = ("VerificationError: ", "unproven: ")
"""What the error of a failed cell begins with whose checks found a difference, or prove nothing."""


@dataclass(frozen=True)
class Cell:
    """One run of a sweep, as ``cells.json`` or a stored file has it.

    Args:
        label: Of its table row.
        row: The same without the values of a grid.
        seed: Its seed.
        status: ``done``, ``running``, ``failed`` or ``missing``.
        identity: What determines its result; empty where it does not compose.
        fingerprint: Of the identity.
        overrides: All of its settings.
        error: Why it failed.
        folder: Of its run; empty where there is none.
        result: Of a cell that is done.
        scales: By layer, the scale Δ over the epochs of a cell that is done.
    """

    label: str
    row: str
    seed: int
    status: str
    identity: dict[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
    overrides: str = ""
    error: str | None = None
    folder: str = ""
    result: Result | None = None
    scales: dict[str, Series] = field(default_factory=dict)

    @property
    def unproven(self) -> bool:
        """Whether it was trained and its checks failed or prove nothing."""
        return self.status == "failed" and (self.error or "").startswith(UNPROVEN)


def read_cells(folder: Path) -> list[Cell]:
    """The cells listed in ``cells.json`` of a sweep's folder, with the results of those that are done.

    Raises:
        DataError: ``cells.json`` is absent or not one, a cell that is done has no ``result.json``, or that result is of
            another configuration than the cell's.
    """
    path = folder / "cells.json"
    content = read_json(path)
    if not isinstance(content, list):
        raise DataError(f"{path} must hold the cells of a sweep, a list")
    cells = [_cell(path, entry) for entry in content]
    return [_with_result(path, cell) if cell.status == "done" else cell for cell in cells]


def cells_frame(cells: Sequence[Cell]) -> pd.DataFrame:
    """Cells as a frame.

    Returns:
        A row per cell: the fields of :class:`Cell` but ``result``, then what :func:`~qbsnn.results.frame` says of a
        run that is done.
    """
    import pandas as pd

    names = [entry.name for entry in fields(Cell) if entry.name != "result"]
    rows = pd.DataFrame([{name: getattr(cell, name) for name in names} for cell in cells], columns=names, dtype=object)
    done = {index: cell.result for index, cell in enumerate(cells) if cell.result is not None}
    runs = frame_of({Path(f"{index}"): result for index, result in done.items()}, Path())
    found = rows.join(runs.drop(columns=[name for name in names if name in runs]).set_index(pd.Index(list(done))))
    found.attrs = runs.attrs
    return found


def _cell(path: Path, entry: Any) -> Cell:
    """A run is where it is recorded, or beside ``cells.json`` if it was moved since."""
    try:
        run, error = entry["run"], entry["error"]
        moved = path.parent / Path(run or "").name
        return Cell(
            label=str(entry["label"] or ""),
            status=str(entry["status"] or ""),
            fingerprint=str(entry["fingerprint"] or ""),
            row=str(entry["row"] or entry["label"]),
            seed=int(entry["seed"]),
            identity=dict(entry.get("identity") or {}),
            overrides=" ".join(str(override) for override in entry["overrides"]),
            error=None if error is None else " ".join(str(error).split()),
            folder=str(moved if run and not Path(run).is_dir() and moved.is_dir() else run or ""),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not a cell of a sweep ({error!r}): {str(entry)[:80]}") from error


def _with_result(path: Path, cell: Cell) -> Cell:
    result, curves = _result(path, cell), Path(cell.folder) / CURVE_FILE
    found = read_curves(curves) if curves.is_file() else {}
    scales = {name.removeprefix("delta/"): line for name, line in found.items() if name.startswith("delta/")}
    return replace(cell, result=result, scales=scales)


def _result(path: Path, cell: Cell) -> Result:
    """The result of a cell that is done, which must be of the cell's configuration."""
    if not cell.folder:
        raise DataError(f"{path}: cell {cell.label}, seed {cell.seed} is done, but has no run")
    file = Path(cell.folder) / "result.json"
    result = read_result(file)
    wanted = f"{cell.fingerprint} for {cell.label}, seed {cell.seed}"
    if result.cell != cell.fingerprint:
        raise DataError(f"{file}: its fingerprint is {result.cell or 'none'}, and {path} wants {wanted}")
    settings = dict(leaves(result.config))
    for key, value in cell.identity.items():
        has = result.identity.get(key, value)
        if has == value and key != "data.root":  # which is absolute in an identity, and relative to where it ran here
            has = settings.get(key, value)  # absent from an older configuration
        if key == "trainer.precision" and has == "auto":  # the identity holds what the machine made of it
            has = result.precision
        if has != value:
            raise DataError(f"{file}: {key} is {has!r} there, and {path} wants {value!r}: another configuration")
    if result.status != "finished":
        raise DataError(f"{file}: status must be finished for a cell that is done, got {result.status}")
    return result
