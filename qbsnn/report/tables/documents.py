"""The files of a table: Markdown, LaTeX, CSV and figures, from nothing but result files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from qbsnn.errors import DataError
from qbsnn.report.tables import formats
from qbsnn.report.tables.evidence import command
from qbsnn.report.tables.figures import FIGURES, figures, write
from qbsnn.report.tables.stored import merged, read_stored, store
from qbsnn.report.tables.table import make_table
from qbsnn.results.files import write_atomically
from qbsnn.results.sweeps import Cell, Plan, cells_frame, read_cells, read_plan


def find_plan(name: str, conf: Path, key: str = "table") -> Plan:
    """The plan ``table_NAME`` or ``NAME`` of a folder, or a path ending in .yaml.

    Args:
        name: Of the sweep.
        conf: The folder.
        key: What the command line calls it, for the message.

    Raises:
        DataError: There is none, or see :func:`~qbsnn.results.sweeps.read_plan`.
    """
    if name.endswith(".yaml"):
        return read_plan(Path(name))
    for stem in (f"table_{name}", name):
        if (conf / f"{stem}.yaml").is_file():
            return read_plan(conf / f"{stem}.yaml")
    known = ", ".join(sorted(path.stem.removeprefix("table_") for path in conf.glob("*.yaml")))
    raise DataError(f"{key}={name}: no such sweep; there are {known or f'none in {conf}'}")


def write_table(plan: Plan, sweeps: Path, out: Path, figure: str | None = None) -> list[Path]:
    """Write ``out``/NAME.md, .tex, .csv, NAME_runs.csv and the figures NAME_FIGURE.png and .pdf.

    Args:
        plan: Of the sweep.
        sweeps: The folder that holds a folder for every sweep.
        out: Where the files go.
        figure: One to draw instead of the sweep's own.

    Returns:
        The paths of the files.

    Raises:
        DataError: The sweep was not run, or see :func:`~qbsnn.results.sweeps.read_cells`.
    """
    if figure is not None:
        if figure not in FIGURES:
            raise DataError(f"figure must be one of {', '.join(FIGURES)}, got {figure!r}")
        plan = replace(plan, figure=figure)
    if not (sweeps / plan.name / "cells.json").exists():
        raise DataError(f"{plan.name} has no cells in {sweeps / plan.name}: run {command(plan)}")
    cells = cells_frame(read_cells(sweeps / plan.name))
    table, drawn = make_table(plan, cells), figures(plan, cells)
    out.mkdir(parents=True, exist_ok=True)
    contents = {
        f"{plan.name}.md": formats.markdown(table, out),
        f"{plan.name}.tex": formats.latex(table),
        f"{plan.name}.csv": formats.rows_csv(table),
        f"{plan.name}_runs.csv": formats.runs_csv(table),
    }
    written = []
    for name, content in contents.items():
        written.append(out / name)
        write_atomically(written[-1], content.encode("utf-8", "backslashreplace"))
    for name, found in drawn.items():
        written += write(found, out / f"{plan.name}_{name}")
    return written


def store_sweeps(
    name: str, conf: Path, sweeps: Path, results: Path, check: Callable[[Path, list[Cell]], None] | None = None
) -> list[Path]:
    """Keep the cells of a sweep, or of ``all`` that were started, as ``results``/NAME.json.

    A cell that is done there and not below ``sweeps`` stays. ``check`` is asked before anything is written, with the
    sweep's file and the cells.

    Returns:
        The files.

    Raises:
        DataError: The sweep is none of ``conf``, or has no cells there; see also
            :func:`~qbsnn.results.sweeps.read_cells`.
    """
    if name == "all":
        names = sorted(path.stem for path in conf.glob("*.yaml") if (sweeps / path.stem / "cells.json").exists())
    else:
        plan = find_plan(name, conf, "store")
        names = [plan.name]
        if not (conf / f"{plan.name}.yaml").is_file():
            raise DataError(f"store={name}: results are kept of the sweeps of {conf} alone; copy the file there first")
        if not (sweeps / plan.name / "cells.json").exists():
            raise DataError(
                f"{plan.name} has no cells in {sweeps / plan.name}: run {command(plan)}, or with --list behind it "
                "where plain runs of its settings are to count"
            )
    if not names:
        raise DataError(f"no sweep of {conf} has cells in {sweeps}: nothing to store")
    found = {results / f"{name}.json": read_cells(sweeps / name) for name in names}
    kept = {path: merged(cells, read_stored(path)) if path.exists() else cells for path, cells in found.items()}
    for path, cells in kept.items():
        if check is not None:
            check(conf / f"{path.stem}.yaml", cells)
    for path, cells in kept.items():
        store(cells, path)
    return list(found)
