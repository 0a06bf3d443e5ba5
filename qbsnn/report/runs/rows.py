"""The runs below a directory as rows: what the frame of :mod:`qbsnn.results.frames` does not hold of each of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qbsnn.errors import DataError
from qbsnn.report.run.verdicts import reason, verdicts
from qbsnn.results.files import CURVE_FILE
from qbsnn.results.fingerprint import dropped
from qbsnn.results.formatting import flat
from qbsnn.results.frames import frame_of, read_runs
from qbsnn.results.quantities import values
from qbsnn.results.run_files import Series, read_curves
from qbsnn.results.schema import Result

if TYPE_CHECKING:
    import pandas as pd

POINTS = 120  # of a curve in the page
CURVES = ("train/loss", "val/loss", "train/acc", "val/acc")
SEEDS = ("seed", "data.seed", "model.seed")
NAMES = ("T", "neuron.s_max", "data._target_", "model._target_", "model.name", "neuron._target_")  # have columns


@dataclass
class Row:
    """One run: its row of the frame, and what else the page shows of it.

    Args:
        values: By column of the frame, what the run has. ``None`` where the frame has a gap; quantities that are not
            finite are kept. ``departs`` holds the settings in which the run differs from what most runs like it have.
        page: Whether the run's directory holds a page of its own.
        settings: What determines the result, seeds aside, as dotted keys, and where the data lie.
        identity: The same by which a run is recognised, seeds aside; ``settings`` for a file that has none.
        curves: By metric, epochs and values, at most :data:`POINTS` of them.
        unreadable: Why there are no curves though there is a ``metrics.csv``.
        checked: Whether the integer network ``passed`` or ``failed`` its check, or that was ``skipped``.
        unchecked: Why the check of the integer network did not run.
        written: When one of the run's files was last written, in seconds since 1970.
        group: A number that the seeds of one configuration share. They are equal but for seeds and for what a
            fingerprint leaves out (:mod:`qbsnn.results.fingerprint`). Evaluations are apart.
    """

    values: dict[str, Any]
    page: bool
    settings: dict[str, str]
    identity: dict[str, Any]
    curves: dict[str, tuple[list[int], list[float]]] = field(default_factory=dict)
    unreadable: str = ""
    checked: str = "skipped"
    unchecked: str = ""
    written: float = 0.0
    group: int = 0


@dataclass
class Collection:
    """All runs: their ``frame``, their ``rows`` in its order, and the files that are no result (path and reason)."""

    frame: pd.DataFrame
    rows: list[Row]
    refused: list[tuple[str, str]]


def collect(outputs: Path) -> Collection:
    """All runs below ``outputs``, the newest first. A file that is no result is listed with its error, never fatal."""
    results, refused = read_runs(outputs)
    frame = frame_of(results, outputs)
    records = frame.astype(object).where(frame.notna(), None).to_dict("records")
    rows = [
        _row(folder, result, record | values(result))
        for (folder, result), record in zip(results.items(), records, strict=True)
    ]
    _group(rows)
    return Collection(frame, rows, refused)


def thinned(series: Series, points: int = POINTS) -> tuple[list[int], list[float]]:
    """Epochs and values of a curve, at most ``points`` evenly spread ones, the first and the last among them."""
    count = len(series.epoch)
    if count > points:
        keep = [round(index * (count - 1) / (points - 1)) for index in range(points)]
    else:
        keep = list(range(count))
    return [int(series.epoch[at]) for at in keep], [float(f"{series.value[at]:.4g}") for at in keep]


def settings(config: Mapping[str, Any]) -> dict[str, str]:
    """The settings that determine what a run computes, seed aside, as dotted keys. Its own directories do not count.

    The folder of the data is among them: without an identity nothing else tells sets of the user's own files apart.
    """
    paths = config.get("paths")
    places = [str(paths[key]) for key in ("run", "data") if key in paths] if isinstance(paths, Mapping) else []
    kept = {}
    for key, value in flat(config):
        if key in SEEDS or (dropped(key) and key != "data.root"):
            continue
        kept[key] = next((value[len(place) :] for place in places if place and value.startswith(place)), value)
    return kept


def _row(folder: Path, result: Result, held: dict[str, Any]) -> Row:
    known = settings(result.config)
    identity = {key: value for key, value in result.identity.items() if key not in SEEDS}
    row = Row(held, (folder / "report.html").is_file(), known, identity or known)
    row.checked, row.unchecked = verdicts(result)[1].state, reason(result.integer) or ""
    row.written = max(path.stat().st_mtime for path in folder.iterdir() if path.is_file())
    if (folder / CURVE_FILE).is_file():
        try:
            curves = read_curves(folder / CURVE_FILE)
        except DataError as error:
            row.unreadable = str(error)
        else:
            row.curves = {name: thinned(curves[name]) for name in CURVES if name in curves}
    return row


def _group(rows: list[Row]) -> None:
    """Number the configurations, and say of each run in which settings it departs from what most like it have."""
    numbers: dict[tuple[str, bool], int] = {}
    for row in rows:
        # A checkpoint that was tested again is no second run of its seed.
        same = json.dumps(row.identity, sort_keys=True), row.values["command"].startswith("evaluate.py")
        row.group = numbers.setdefault(same, len(numbers))
    names = {key for row in rows for key in row.settings}
    columns = {key: tuple(row.settings.get(key) for row in rows) for key in names}
    # An interpolated copy (model.T of T, the schedule's T_max of max_epochs) says nothing new.
    shown = {columns.get(key) for key in NAMES}
    keys = []
    for key in sorted(columns, key=lambda key: (key.count("."), key)):
        if key not in NAMES and len(set(columns[key]) - {None}) > 1 and columns[key] not in shown:
            shown.add(columns[key])
            keys.append(key)
    # A neuron, a model or a data set is compared with its like only.
    like = ("neuron", "model", "data")
    places: list[list[tuple[str, Any]]] = []
    counts: dict[tuple[str, Any], Counter[str]] = {}
    for row in rows:
        groups = ((key, key.partition(".")[0]) for key in keys if key in row.settings)
        places.append([(key, row.values[group] if group in like else None) for key, group in groups])
        for place in places[-1]:
            counts.setdefault(place, Counter())[row.settings[place[0]]] += 1
    usual = {place: min(found, key=lambda value: (-found[value], value)) for place, found in counts.items()}
    for row, own in zip(rows, places, strict=True):
        departs = [place[0] for place in own if row.settings[place[0]] != usual[place]]
        row.values["departs"] = " ".join(f"{key}={row.settings[key]}" for key in departs)
