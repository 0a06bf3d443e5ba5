"""What the cells of the table of all runs show: of a run, and of an average over seeds."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple
from urllib.parse import quote

from markupsafe import Markup, escape

from qbsnn.report.runs.columns import Column
from qbsnn.report.runs.rows import Row
from qbsnn.results.formatting import NONE, counted
from qbsnn.results.quantities import Quantity, spread


class Cell(NamedTuple):
    """A cell: what it sorts by, its HTML, and, of a mean over seeds, the standard deviation."""

    value: float | str | None
    html: str
    sd: float | None = None


def of_run(column: Column, row: Row) -> Cell:
    """The cell of a run."""
    value = row.values.get(column.key)
    if column.quantity:
        return _number(column, column.quantity, value, row)
    if value is None or value == "":
        return Cell(None, NONE)
    return CELLS[column.key](value, row) if column.key in CELLS else Cell(value, escape(value))


def of_average(column: Column, rows: list[Row], cells: list[Cell]) -> Cell:
    """The cell of a configuration.

    Args:
        column: Which.
        rows: The runs of the configuration, the newest first.
        cells: Their cells in this column.
    """
    newest, values = cells[0], [cell.value for cell in cells]
    if column.quantity:
        # A seed that was run again is no further sample: its newest run counts, of those that are finished.
        ended = [at for at, row in enumerate(rows) if row.values["status"] == "finished"]
        once = {rows[at].values["seed"]: values[at] for at in reversed(ended)}
        found = [value for value in once.values() if isinstance(value, (int, float))]
        if not found:
            return Cell(None, NONE)
        mean, sd = fmean(found), stdev(found) if len(found) > 1 else math.nan
        text = escape(spread(column.quantity, mean, sd) + (f" ({len(found)})" if len(found) < len(rows) else ""))
        return Cell(mean, _checked(column, text, rows), None if math.isnan(sd) else sd)
    if column.key == "run":
        links = Markup("").join(Markup("<li>{}</li>").format(cell.html) for cell in cells)
        head = counted(len(rows), "run")
        return Cell(newest.value, Markup("<details><summary>{}</summary><ul>{}</ul></details>").format(head, links))
    counts = Counter(values)
    if column.key == "seed":
        texts = (f"{seed} ({times}×)" if times > 1 else f"{seed}" for seed, times in sorted(counts.items()))
        return Cell(newest.value, escape(", ".join(texts)))
    return newest if len(counts) == 1 or column.key == "started" else Cell(newest.value, f"{len(counts)} values")


def href(row: Row) -> str:
    """The run's page, or its result where it has none, relative to the page of all runs."""
    return quote(os.fsencode(f"{row.values['run']}/{'report.html' if row.page else 'result.json'}"))


def _number(column: Column, quantity: Quantity, value: float | None, row: Row) -> Cell:
    if value is None:
        return Cell(None, _titled(NONE, row.unchecked if column.key.startswith("integer/") else ""))
    if not math.isfinite(value):
        return Cell(None, "not finite")
    return Cell(value, _checked(column, escape(quantity.kind.cell(value)), [row]))


def _checked(column: Column, text: Markup, rows: list[Row]) -> Markup:
    """A count of mismatches is red where a check failed, green where all passed."""
    states = {row.checked for row in rows} - {"skipped"}
    if column.key != "integer/spike_mismatches" or not states:
        return text
    return Markup('<span class="{}">{}</span>').format("failed" if "failed" in states else "passed", text)


def _titled(text: str, title: str) -> Markup:
    return Markup('<span title="{}">{}</span>').format(title, text) if title else escape(text)


def _run(value: str, row: Row) -> Cell:
    name = Path(row.values["folder"]).name
    title = "\n".join(filter(None, (value, row.values["command"], row.unreadable)))
    link = Markup('<a href="{}" title="{}">{}{}</a>').format(href(row), title, name, "" if row.page else " (numbers)")
    return Cell(name, link)


def _status(value: str, row: Row) -> Cell:
    title, text = row.values["error"] or "", value
    if value == "running":  # only the reader knows whether it still does
        moment = datetime.fromtimestamp(row.written, timezone.utc)
        title, text = f"last written {moment:%Y-%m-%d %H:%M} UTC", f"running, seen {moment:%m-%d %H:%M}"
    return Cell(value, Markup('<span class="badge {}" title="{}">{}</span>').format(value, title, text))


def _started(value: str, row: Row) -> Cell:
    return Cell(value, escape(value[:16].replace("T", " ")))


def _commit(value: str, row: Row) -> Cell:
    dirty = row.values["dirty"]
    changes = {True: ", with uncommitted changes", False: ""}.get(dirty, ", whether the tree had changes is unknown")
    return Cell(value, _titled(value[:7] + ("*" if dirty else ""), value + changes))


CELLS: dict[str, Callable[[str, Row], Cell]] = {"run": _run, "status": _status, "started": _started, "commit": _commit}
