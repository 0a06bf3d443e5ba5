"""What a sweep left: its plan, and for each of its cells the result or why there is none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from qbsnn.errors import DataError
from qbsnn.results.fingerprint import fingerprint
from qbsnn.results.reading import read_json, read_result
from qbsnn.results.schema import Result


@dataclass(frozen=True)
class RowPlan:
    """A row of a sweep file: its label, and the keys of the published figures that stand beside it."""

    label: str
    published: list[str]


@dataclass(frozen=True)
class Plan:
    """What a sweep file says of its table. ``baseline``: the label that the others are compared with."""

    name: str
    title: str
    rows: list[RowPlan]
    baseline: str | None
    figure: str | None


@dataclass
class Cell:
    """One run of a sweep. ``result`` is ``None`` unless ``status`` is ``done``; ``path``: its run directory."""

    label: str
    row: str
    overrides: list[str]
    seed: int
    fingerprint: str
    identity: dict[str, Any]
    status: str
    error: str | None = None
    path: Path | None = None
    result: Result | None = None


@dataclass
class Group:
    """The cells of one table row: equal but for the seed. ``row``: the label of their row in the sweep file."""

    label: str
    row: str
    published: list[str]
    cells: list[Cell] = field(default_factory=list)

    @property
    def done(self) -> list[Cell]:
        """The cells with a result."""
        return [cell for cell in self.cells if cell.result is not None]

    def results(self) -> Iterator[Result]:
        """The results, by seed."""
        for cell in sorted(self.done, key=lambda cell: cell.seed):
            assert cell.result is not None
            yield cell.result


@dataclass
class Sweep:
    """A plan with its groups, in the order of the plan."""

    plan: Plan
    groups: list[Group]

    def cells(self) -> list[Cell]:
        """All cells."""
        return [cell for group in self.groups for cell in group.cells]

    def baseline(self, group: Group) -> Group | None:
        """The group of the baseline's row and the same grid values, unless ``group`` is that one itself."""
        if self.plan.baseline is None or group.row == self.plan.baseline:
            return None
        wanted = self.plan.baseline + group.label.removeprefix(group.row)
        return next((other for other in self.groups if other.label == wanted), None)


def read_plan(path: Path) -> Plan:
    """The plan in a file of ``conf/sweep``.

    Raises:
        DataError: no such file, no YAML mapping, or a baseline that is no row.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, yaml.YAMLError) as error:
        raise DataError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} must hold the keys of a sweep, got {content!r}")
    rows = [RowPlan(str(row["label"]), list(row.get("published") or [])) for row in content.get("rows") or []]
    baseline = content.get("baseline")
    if baseline is not None and rows and baseline not in [row.label for row in rows]:
        labels = ", ".join(row.label for row in rows)
        raise DataError(f"{path}: baseline must be the label of a row ({labels}), got {baseline!r}")
    return Plan(path.stem, str(content.get("title") or path.stem), rows, baseline, content.get("figure"))


def read_sweep(plan: Plan, folder: Path) -> Sweep:
    """The cells listed in ``folder/cells.json`` with their results, grouped into rows.

    Raises:
        DataError: ``cells.json`` is absent or not one, a finished cell has no ``result.json``, or that result is of
            another configuration than the cell's.
    """
    path = folder / "cells.json"
    content = read_json(path)
    if not isinstance(content, list):
        raise DataError(f"{path} must hold the cells of a sweep, a list")
    published = {row.label: row.published for row in plan.rows}
    groups: dict[str, Group] = {}
    for entry in content:
        cell = _cell(path, entry)
        group = groups.setdefault(cell.label, Group(cell.label, cell.row, published.get(cell.row, [])))
        group.cells.append(cell)
    return Sweep(plan, list(groups.values()))


def _cell(path: Path, entry: Any) -> Cell:
    try:
        cell = Cell(
            label=str(entry["label"]),
            row=str(entry.get("row") or entry["label"]),
            overrides=[str(override) for override in entry["overrides"]],
            seed=int(entry["seed"]),
            fingerprint=str(entry["fingerprint"] or ""),
            identity=dict(entry.get("identity") or {}),
            status=str(entry["status"]),
            error=entry.get("error"),
            path=_run(path.parent, entry.get("run")),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not a cell of a sweep ({error!r}): {str(entry)[:80]}") from error
    if cell.status == "done":
        cell.result = _checked(path, cell)
    return cell


def _run(folder: Path, run: str | None) -> Path | None:
    """A run's directory: as recorded, or beside ``cells.json`` where the outputs were moved since."""
    if run is None:
        return None
    moved = folder / Path(run).name
    return moved if not Path(run).is_dir() and moved.is_dir() else Path(run)


def _checked(path: Path, cell: Cell) -> Result:
    """The result of a finished cell, which must be of the cell's configuration."""
    if cell.path is None:
        raise DataError(f"{path}: cell {cell.label}, seed {cell.seed} is done, but has no run")
    result = read_result(cell.path / "result.json")
    file, wanted = cell.path / "result.json", f"{cell.fingerprint} for {cell.label}, seed {cell.seed}"
    found = result.cell if result.identity or not cell.identity else fingerprint(cell.identity)
    if found != cell.fingerprint:
        raise DataError(f"{file}: its fingerprint is {found or 'none'}, and {path} wants {wanted}")
    for key, value in cell.identity.items():
        if key != "defaults" and (has := _at(result.config, key, value)) != value:
            raise DataError(f"{file}: {key} is {has!r} there, and {path} wants {value!r}: another configuration")
    if result.status != "finished":
        raise DataError(
            f"{cell.path / 'result.json'}: status must be finished for a cell that is done, got {result.status}"
        )
    return result


def _at(config: dict[str, Any], key: str, otherwise: Any) -> Any:
    """The value of a dotted key; ``otherwise`` where an older configuration has none."""
    node: Any = config
    for part in key.split("."):
        if not isinstance(node, dict) or part not in node:
            return otherwise
        node = node[part]
    return None if key == "model.encoding" and node in ("direct", "events") else node
