"""Every ``result.json`` below a directory, as one row each for the page over all runs."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from qbsnn.errors import DataError
from qbsnn.report.run.energy import counted_energy
from qbsnn.report.run.layers import ran
from qbsnn.report.run.verdicts import reason, verdicts
from qbsnn.results.fingerprint import dropped
from qbsnn.results.formatting import chosen, flat
from qbsnn.results.reading import read_result
from qbsnn.results.run_files import Series, read_curves
from qbsnn.results.schema import Integer, Result

POINTS = 120  # of a curve in the page
CURVES = ("train/loss", "val/loss", "train/acc", "val/acc")
SEEDS = ("seed", "data.seed", "model.seed")
NAMES = ("T", "neuron.s_max", "data._target_", "model._target_", "model.name", "neuron._target_")  # have columns


@dataclass
class Row:
    """One run. ``values``: by column key, what sorts and filters it. ``notes``: by column key, what its tooltip says.

    ``href``: its page, or ``result.json`` where there is none (``page`` tells), relative to the collected directory.
    ``curves``: by metric, epochs and values, at most :data:`POINTS` of them. ``group``: the same for the seeds of one
    configuration, equal but for seeds and for what a fingerprint leaves out (:mod:`qbsnn.results.fingerprint`);
    evaluations are apart. ``checked``: ``passed``, ``failed`` or ``skipped``, of the integer network. ``seen``: when
    one of its files was last written, in seconds since 1970.
    """

    href: str
    page: bool
    values: dict[str, Any]
    settings: dict[str, str]
    notes: dict[str, str] = field(default_factory=dict)
    curves: dict[str, tuple[list[int], list[float]]] = field(default_factory=dict)
    group: int = 0
    checked: str = "skipped"
    seen: float = 0.0


@dataclass
class Collection:
    """The rows, the files that are no result (path and error), and the energy models that occur, by key."""

    rows: list[Row] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    models: dict[str, str] = field(default_factory=dict)


def collect(outputs: Path) -> Collection:
    """All runs below ``outputs``, newest first. A file that is no result is listed with its error, never fatal."""
    found = Collection()
    for folder, folders, files in os.walk(outputs):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if "result.json" not in files:
            continue
        path = Path(folder) / "result.json"
        try:
            result = read_result(path)
        except DataError as error:
            place = path.relative_to(outputs).as_posix()
            found.refused.append((place, str(error).replace(str(path), place)))
            continue
        found.rows.append(_row(result, path.parent, outputs))
        block = counted_energy(result)
        found.models |= block.models if block else {}
    found.rows.sort(key=lambda row: (row.values["started"] or "", row.values["run"]), reverse=True)
    found.refused.sort()
    _group(found.rows)
    return found


def thinned(series: Series, points: int = POINTS) -> tuple[list[int], list[float]]:
    """Epochs and values of a curve, at most ``points`` evenly spread ones, the first and the last among them."""
    count = len(series.epoch)
    if count > points:
        keep = [round(index * (count - 1) / (points - 1)) for index in range(points)]
    else:
        keep = list(range(count))
    return [int(series.epoch[at]) for at in keep], [float(f"{series.value[at]:.4g}") for at in keep]


def settings(config: Mapping[str, Any]) -> dict[str, str]:
    """The settings that determine what a run computes, seed aside, as dotted keys. Its own directories do not count."""
    paths = config.get("paths")
    places = [str(paths[key]) for key in ("run", "data") if key in paths] if isinstance(paths, Mapping) else []
    kept = {}
    for key, value in flat(config):
        if key in SEEDS or dropped(key):
            continue
        kept[key] = next((value[len(place) :] for place in places if place and value.startswith(place)), value)
    return kept


def _row(result: Result, folder: Path, outputs: Path) -> Row:
    place = folder.relative_to(outputs)
    page = (folder / "report.html").is_file()
    parts = place.parts
    model, neuron, data = (chosen(result.config, group) for group in ("model", "neuron", "data"))
    node = result.config.get("neuron")
    integer = result.integer if isinstance(result.integer, Integer) and ran(result.integer) else None
    energy = counted_energy(result)
    values: dict[str, Any] = {
        "run": place.as_posix() if parts else ".",
        "name": result.config.get("name"),
        "status": result.status,
        "data": data,
        "model": model,
        "neuron": neuron,
        "T": result.config.get("T"),
        "s_max": node.get("s_max") if isinstance(node, Mapping) else None,
        "seed": result.seed,
        "params": result.params or None,
        "val": result.metrics.best.get("val/acc"),
        "best": result.metrics.best.get("test/acc"),
        "last": result.metrics.last.get("test/acc"),
        "integer": integer.acc if integer else None,
        "mismatches": integer.spike_mismatches if integer else None,
        "burst": energy.mean_rate if energy else None,
        "epochs": result.timing.epochs or None,
        "fit": result.timing.fit_seconds or None,
        "started": result.started or None,
        "commit": result.git_commit,
        "sweep": parts[1] if len(parts) > 2 and parts[0] == "sweeps" else None,
        "cell": getattr(result, "cell", "") or None,
    }
    if energy:
        values |= {f"energy/{key}": networks["network"].total for key, networks in energy.totals.items()}
        values |= {f"relative/{key}": shares.get("relu") for key, shares in energy.relative.items()}
    row = Row(
        quote((place / ("report.html" if page else "result.json")).as_posix()), page, values, settings(result.config)
    )
    row.checked = verdicts(result)[1].state
    row.seen = max(path.stat().st_mtime for path in folder.iterdir() if path.is_file())
    row.notes = _notes(result)
    _read_curves(row, folder / "metrics.csv")
    return row


def _notes(result: Result) -> dict[str, str]:
    notes = {"run": result.command}
    if result.error:
        notes["status"] = result.error
    why = reason(result.integer)
    if why:
        notes["integer"] = notes["mismatches"] = why
    if result.git_commit and result.git_dirty is not False:
        changes = "with uncommitted changes" if result.git_dirty else "whether the tree had changes is unknown"
        notes["commit"] = f"{result.git_commit}, {changes}"
    return notes


def _read_curves(row: Row, path: Path) -> None:
    if not path.is_file():
        return
    try:
        curves = read_curves(path)
    except DataError as error:
        row.notes["curves"] = str(error)
        return
    row.curves = {name: thinned(curves[name]) for name in CURVES if name in curves}
    if row.curves and row.values["epochs"] is None:
        row.values["epochs"] = 1 + max(epochs[-1] for epochs, _ in row.curves.values())


def _group(rows: list[Row]) -> None:
    """Number the configurations, and say of each run in which settings it departs from what most like it have."""
    numbers: dict[str, int] = {}
    for row in rows:
        # A checkpoint that was tested again is no second run of its seed.
        key = json.dumps([row.settings, row.notes["run"].startswith("evaluate.py")], sort_keys=True)
        row.group = numbers.setdefault(key, len(numbers))
    shown = {_column(rows, key) for key in ("T", "s_max", "data", "model", "neuron")}
    keys = []
    for key in sorted({key for row in rows for key in row.settings}, key=lambda key: (key.count("."), key)):
        column = tuple(row.settings.get(key) for row in rows)
        # An interpolated copy (model.T of T, the schedule's T_max of max_epochs) says nothing new.
        if key not in NAMES and len(set(column) - {None}) > 1 and column not in shown:
            shown.add(column)
            keys.append(key)
    counts: dict[tuple[str, Any], Counter[str]] = {}
    for row in rows:
        for key in keys:
            if key in row.settings:
                counts.setdefault((key, _member(row, key)), Counter())[row.settings[key]] += 1
    usual = {place: min(found, key=lambda value: (-found[value], value)) for place, found in counts.items()}
    for row in rows:
        has = [key for key in keys if key in row.settings]
        departs = [key for key in has if row.settings[key] != usual[key, _member(row, key)]]
        row.values["departs"] = " ".join(f"{key}={row.settings[key]}" for key in departs) or None


def _member(row: Row, key: str) -> Any:
    """A neuron, a model or a data set is compared with its like only."""
    return row.values.get(key.partition(".")[0]) if key.startswith(("neuron.", "model.", "data.")) else None


def _column(rows: list[Row], key: str) -> tuple[str | None, ...]:
    found = [row.values[key] for row in rows]
    return tuple(value if value is None or isinstance(value, str) else json.dumps(value) for value in found)
