"""What the script of the page of all runs works on: rows, curves, and what its two libraries are told."""

from __future__ import annotations

import math
from importlib.resources import files
from typing import Any

import yaml

from qbsnn.report.runs.cells import Cell, href, of_average, of_run
from qbsnn.report.runs.columns import Column
from qbsnn.report.runs.rows import Collection, Row
from qbsnn.results.formatting import counted

SPLITS = {"train": "training", "val": "validation"}
TICKED = 3  # runs whose curves are drawn at first
AXES = {"x": "relative_energy", "y": "test/acc"}  # what the plot shows at first
FORMATS = {"percent": (100, "~r", " %"), "energy": (1e-12, "~s", "J"), "duration": (1, "~s", " s")}  # factor, d3, unit


def payload(found: Collection, shown: list[Column]) -> dict[str, Any]:
    """All of it, as JSON can hold it.

    Args:
        found: All runs.
        shown: The columns of the table.
    """
    told = yaml.safe_load(files("qbsnn.report.runs").joinpath("page.yaml").read_text(encoding="utf-8"))
    cells = [[of_run(column, row) for column in shown] for row in found.rows]
    runs = [_run(f"run{at}", row, own) for at, (row, own) in enumerate(zip(found.rows, cells, strict=True))]
    members: dict[int, list[int]] = {}
    for at, row in enumerate(found.rows):
        members.setdefault(row.group, []).append(at)
    averages = []
    for group, places in members.items():
        rows = [found.rows[at] for at in places]
        own = [of_average(column, rows, [cells[at][i] for at in places]) for i, column in enumerate(shown)]
        averages.append(
            _average(f"group{group}", [runs[at] for at in places], own) if len(rows) > 1 else runs[places[0]]
        )
    _add_columns(told["table"], shown)
    positive = {i for i in range(len(shown)) if any(_positive(own[i].value) for own in cells)}
    _add_menus(told["cost"], shown, positive, found.frame["neuron"].dropna().value_counts().index.tolist())
    told["acc"]["params"] = [{"name": "labels", "value": {row["id"]: row["label"] for row in [*runs, *averages]}}]
    return told | {
        "runs": runs,
        "averages": averages,
        "curves": {run["id"]: _curves(run["name"], row) for run, row in zip(runs, found.rows, strict=True)},
        "ticked": [f"#{run['id']}" for run in runs if run["curves"]][:TICKED],
    }


def _run(name: str, row: Row, cells: list[Cell]) -> dict[str, Any]:
    """A row of the table. Beside its cells it has what the charts show of it; ``curves`` names whose its tick draws."""
    own = row.values
    parts = [str(own[key]) for key in ("data", "model", "neuron") if own[key] is not None]
    parts += [f"{key} = {own[key]}" for key in ("s_max", "T") if own[key] is not None]
    parts += [own["departs"]] if own["departs"] else []
    return _row(name, str(cells[0].value), ", ".join(parts), cells) | {
        "href": href(row),
        "data": own["data"],
        "neuron": own["neuron"],
        "curves": [name] if row.curves else [],
    }


def _average(name: str, runs: list[dict[str, Any]], cells: list[Cell]) -> dict[str, Any]:
    """The row of a configuration, whose point leads to it."""
    own = {"href": f"#{name}", "curves": [curve for run in runs for curve in run["curves"]]}
    return runs[0] | _row(name, counted(len(runs), "run"), runs[0]["about"], cells) | own


def _row(identity: str, name: str, about: str, cells: list[Cell]) -> dict[str, Any]:
    plain = [[cell.value, str(cell.html)] + ([] if cell.sd is None else [cell.sd]) for cell in cells]
    return {"id": identity, "name": name, "about": about, "label": f"{name}: {about}", "cells": plain}


def _curves(name: str, row: Row) -> dict[str, list[dict[str, Any]]]:
    """The curves of a run by what they show."""
    found: dict[str, list[dict[str, Any]]] = {"loss": [], "acc": []}
    for key, (epochs, values) in row.curves.items():
        split, _, metric = key.partition("/")
        finite = [at for at, value in enumerate(values) if math.isfinite(value)]
        points = {"epoch": [epochs[at] for at in finite], "value": [values[at] for at in finite]}
        found[metric] += [{"run": name, "split": SPLITS[split], **points}] if finite else []
    return found


def _positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and value > 0


def _add_columns(table: dict[str, Any], shown: list[Column]) -> None:
    for at, column in enumerate(shown):
        backwards = column.quantity or column.key == "started"
        table["columns"].append(
            {
                "name": column.key,
                "data": {"_": f"cells.{at}.0", "display": f"cells.{at}.1", "filter": f"cells.{at}.1"},
                "type": "value",
                "visible": column.shown,
                "className": "number" if column.quantity else f"text {column.key}",
                "orderSequence": ["desc", "asc"] if backwards else ["asc", "desc"],
                "columnControl": [[{"extend": "searchList", "search": False}]] if column.facet else [],
            }
        )
    keys = [column.key for column in shown]
    table["order"] = [[keys.index("started") + 1, "desc"]] if "started" in keys else []


def _add_menus(cost: dict[str, Any], shown: list[Column], positive: set[int], neurons: list[str]) -> None:
    """Offer quantities for the axes: what should be high upwards; what is above 0, on a logarithmic axis, sideways."""
    numbers = {at: column.quantity for at, column in enumerate(shown) if column.quantity}
    high = [at for at, quantity in numbers.items() if quantity.better == "higher"]
    low = [at for at in numbers if at not in high and at in positive]
    titles, formats, *axes = cost["params"][:4]
    titles["value"] = {at: quantity.title for at, quantity in numbers.items()}
    formats["value"] = {at: FORMATS.get(quantity.kind.name, (1, "~s", "")) for at, quantity in numbers.items()}
    for axis, places in zip(axes, (low, high), strict=True):
        axis["bind"] |= {"options": places, "labels": [titles["value"][at] for at in places]}
        axis["value"] = next((at for at in places if shown[at].key == AXES[axis["name"]]), places[0] if places else 0)
    for layer in cost["layer"]:
        if "color" in layer.get("encoding", {}):
            layer["encoding"]["color"]["scale"]["domain"] = neurons
