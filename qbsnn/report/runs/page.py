"""One page over all runs below a directory: table, curves, accuracy against cost, links to each run's own page."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from qbsnn.errors import DataError
from qbsnn.report.runs.columns import columns
from qbsnn.report.runs.libraries import datatables, scripts
from qbsnn.report.runs.payload import payload
from qbsnn.report.runs.rows import Collection, collect
from qbsnn.report.templates import templates
from qbsnn.results import formatting as words
from qbsnn.results.files import write_atomically
from qbsnn.results.reading import STATES


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
    shown = columns(found)
    running = [*scripts(), files("qbsnn.report.runs").joinpath("page.js").read_text(encoding="utf-8")]
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii") for script in running)
    return (
        templates()
        .get_template("runs.html.j2")
        .render(
            name=name,
            headline=headline(found),
            refused=found.refused,
            columns=shown,
            payload=embedded(payload(found, shown)),
            scripts=running,
            policy=" ".join(f"'sha256-{digest}'" for digest in digests),
            library_style=datatables("css"),
        )
    )


def embedded(content: Any) -> str:
    """JSON that may stand inside a script element, whatever its strings hold."""
    text = json.dumps(content, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def headline(found: Collection) -> list[tuple[str, str, str, str]]:
    """The key figures: name, value, what it stands on, and a tone (empty, ``good`` or ``bad``)."""
    count = found.frame["status"].value_counts()
    checks = [row.checked for row in found.rows if row.checked != "skipped"]
    passed = checks.count("passed")
    tone = "" if not checks else "good" if passed == len(checks) else "bad"
    sets = sorted(set(found.frame["data"].dropna()))
    groups = len({row.group for row in found.rows})
    order = ("finished", *(state for state in STATES if state != "finished"))
    states = ", ".join(f"{count[state]} {state}" for state in order if state in count)
    return [
        ("Runs", words.number(len(found.rows)), states, ""),
        ("Configurations", words.number(groups), "the runs of one differ in the seed", ""),
        ("Data sets", words.number(len(sets)), ", ".join(sets), ""),
        ("Integer networks proven", f"{passed} of {len(checks)}", "equal to the int64 engine, of those checked", tone),
        ("Fit time", words.duration(float(found.frame["fit_seconds"].sum())), "all runs", ""),
    ]
