"""One page over all runs below a directory: table, curves, accuracy against cost, links to each run's own page."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from qbsnn.errors import DataError
from qbsnn.report.runs.rows import Collection, collect
from qbsnn.report.templates import templates
from qbsnn.results import formatting as words
from qbsnn.results.files import write_atomically

SCRIPTS = ("index_format.js", "index_charts.js", "index_table.js", "index_page.js")


@dataclass
class Column:
    """A column of the table. ``kind``: how a value is shown (``text``, ``int``, ``number``, ``percent``, ``ratio``,
    ``energy``, ``duration``, ``date``). ``facet``: it gets a filter. ``axis``: ``x`` or ``y`` of the plot.
    """

    key: str
    title: str
    kind: str
    help: str = ""
    hidden: bool = False
    facet: bool = False
    axis: str = ""


def columns(models: dict[str, str]) -> list[Column]:
    """The columns in their order. ``models``: the energy models by key; each has two columns."""
    best = "Of the weights that are best by validation; test data has no part in choosing them."
    found = [
        Column("run", "run", "text", "Directory of the run; opens its page."),
        Column("name", "name", "text", "The setting name.", hidden=True),
        Column("status", "status", "text", "Of the run: running, finished or failed.", facet=True),
        Column("data", "data", "text", facet=True),
        Column("model", "model", "text", facet=True),
        Column("neuron", "neuron", "text", facet=True),
        Column("T", "T", "int", "Time steps.", facet=True),
        Column("s_max", "s_max", "int", "Largest burst; – for a neuron without one.", facet=True),
        Column("seed", "seed", "int"),
        Column("val", "val acc", "percent", "Validation accuracy. " + best, hidden=True, axis="y"),
        Column("best", "test acc", "percent", "Test accuracy. " + best, axis="y"),
        Column("last", "last", "percent", "Test accuracy of the weights after the last epoch.", axis="y"),
        Column("integer", "integer acc", "percent", "Test accuracy of the integer network.", axis="y"),
        Column("mismatches", "mismatches", "int", "Spikes in which the integer network and the independent int64 "
               "engine differ; must be 0. Red: the check failed."),
        Column("burst", "mean burst", "number", "Spikes per neuron and step on test data over all layers; a burst of s "
               "counts s times.", axis="x"),
    ]  # fmt: skip
    for key, title in models.items():
        text = f"Estimated energy per image over that of the same architecture as a ReLU network ({title}). "
        found.append(
            Column(f"relative/{key}", f"energy/ReLU, {key}", "ratio", text + "Below 100 % it needs less.", axis="x")
        )
    for key, title in models.items():
        text = f"Estimated energy per image ({title})."
        found.append(Column(f"energy/{key}", f"energy, {key}", "energy", text, hidden=True, axis="x"))
    return [
        *found,
        Column("epochs", "epochs", "int", "Epochs trained, so far for a run that goes on.", hidden=True, axis="x"),
        Column("fit", "fit time", "duration", "Training and its validation.", axis="x"),
        Column("params", "parameters", "int", axis="x"),
        Column("departs", "other settings", "text", "Settings that differ from what most runs with this "
               "data set, model or neuron have."),
        Column("started", "started", "date", "UTC."),
        Column("commit", "commit", "text", "Of the code; * with uncommitted changes."),
        Column("sweep", "sweep", "text", facet=True, hidden=True),
        Column("cell", "cell", "text", "Fingerprint of the settings that determine the result.", hidden=True),
    ]  # fmt: skip


def build_index(outputs: Path) -> Path:
    """Write ``report.html`` into ``outputs``, over every ``result.json`` below it, and return the page's path.

    The page loads nothing but itself and replaces an older one atomically.

    Raises:
        DataError: ``outputs`` is no directory, or holds no ``result.json``.
    """
    if not outputs.is_dir():
        raise DataError(f"{outputs} is no directory; name the one that holds the runs")
    found = collect(outputs)
    if not found.rows and not found.refused:
        raise DataError(f"No run under {outputs.resolve()}: there is no result.json. Train first, or name a run.")
    page = outputs / "report.html"
    write_atomically(page, render(found, outputs.resolve().name).encode("utf-8", "backslashreplace"))
    return page


def render(found: Collection, name: str) -> str:
    """The page as HTML. ``name``: of the directory."""
    script = "\n".join(files("qbsnn.report.runs").joinpath(part).read_text(encoding="utf-8") for part in SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return (
        templates()
        .get_template("index.html.j2")
        .render(
            name=name,
            headline=headline(found),
            refused=found.refused,
            payload=embedded(payload(found)),
            script=script,
            digest=digest,
        )
    )


def payload(found: Collection) -> dict[str, Any]:
    """What the page's script works on. A value that is not finite is the text ``nan``, one that is absent null."""
    shown = columns(found.models)
    filled = {key for row in found.rows for key, value in row.values.items() if value is not None}
    shown = [column for column in shown if column.key in filled]
    rows = [
        {
            "href": row.href,
            "page": row.page,
            "values": [_plain(row.values.get(column.key)) for column in shown],
            "notes": row.notes,
            "curves": {name: _curve(*curve) for name, curve in row.curves.items()},
            "group": row.group,
            "checked": row.checked,
            "seen": round(row.seen),
        }
        for row in found.rows
    ]
    return {"columns": [asdict(column) for column in shown], "rows": rows}


def embedded(content: Any) -> str:
    """JSON that may stand inside a script element, whatever its strings hold."""
    text = json.dumps(content, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def headline(found: Collection) -> list[tuple[str, str, str, str]]:
    """The key figures: name, value, what it stands on, and a tone (empty, ``good`` or ``bad``)."""
    states = [row.values["status"] for row in found.rows]
    count = {state: states.count(state) for state in ("finished", "running", "failed")}
    checks = [row.checked for row in found.rows if row.checked != "skipped"]
    passed = checks.count("passed")
    tone = "" if not checks else "good" if passed == len(checks) else "bad"
    seconds = sum(row.values["fit"] for row in found.rows if math.isfinite(row.values["fit"] or math.nan))
    sets = {row.values["data"] for row in found.rows} - {None}
    groups = len({row.group for row in found.rows})
    return [
        ("Runs", words.number(len(found.rows)), ", ".join(f"{n} {state}" for state, n in count.items() if n), ""),
        ("Configurations", words.number(groups), "the runs of one differ in the seed", ""),
        ("Data sets", words.number(len(sets)), ", ".join(sorted(sets)), ""),
        ("Integer networks proven", f"{passed} of {len(checks)}", "equal to the int64 engine, of those checked", tone),
        ("Fit time", words.duration(seconds), "all runs", ""),
    ]


def _curve(epochs: list[int], values: list[float]) -> list[Any]:
    """Epochs and values of a curve; 0 in place of the epochs where these just count up from 0."""
    return [0 if epochs == list(range(len(epochs))) else epochs, [_plain(value) for value in values]]


def _plain(value: Any) -> Any:
    return "nan" if isinstance(value, float) and not math.isfinite(value) else value
