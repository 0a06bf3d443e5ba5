"""A table as Markdown, LaTeX (booktabs) and CSV."""

from __future__ import annotations

import csv
import io
import math
import os
from pathlib import Path
from typing import Any

from qbsnn.report.tables.numbers import difference, microjoules, si, spread, tex
from qbsnn.report.tables.table import LAST, Line, Table, energies, integer_percent, operations, percent_of
from qbsnn.results.formatting import NONE
from qbsnn.results.published import Published
from qbsnn.results.statistics import Summary
from qbsnn.results.sweeps import Cell

HEAD = [
    "method", "T", "s_max", "test accuracy (%)", "last epoch (%)", "integer (%)", "difference (points)",
    "parameters", "mean burst", "ACs / image", "MACs / image", "energy / image (µJ)", "relative (%)", "published (%)",
]  # fmt: skip


def cells_of(line: Line) -> list[str]:
    """The texts of one row, in the order of ``HEAD``."""
    done = f" (n = {line.accuracy.n})" if line.accuracy else ""
    if len(line.group.done) < line.planned:
        done = f" ({len(line.group.done)} of {line.planned} seeds)"
    return [
        line.group.label,
        line.steps or NONE,
        line.s_max or NONE,
        f"{spread(line.accuracy)}{done}",
        spread(line.last),
        spread(line.integer),
        difference(line.difference),
        line.params or NONE,
        spread(line.burst, 3),
        si(line.acs),
        si(line.macs),
        " / ".join(microjoules(found.mean) for found in line.energies.values()) or NONE,
        spread(line.relative, 1),
        "; ".join(f"{found.accuracy:g} ({found.source})" for found in line.published) or NONE,
    ]


def markdown(table: Table, folder: Path, linked: bool = True) -> str:
    """The table, what it means, what is absent, and others' figures.

    folder: where the file goes; links to the runs' reports are relative to it. linked: with these links.
    """
    used = _used(table)
    head = [HEAD[index] for index in used] + (["runs by seed"] if linked else [])
    rows = []
    for line in table.lines:
        texts = cells_of(line)
        row = [_md(texts[index]) for index in used]
        rows.append([*row, _links(line.group.cells, folder)] if linked else row)
    lines = [
        f"## {_md(table.sweep.plan.title)}",
        "",
        *_md_table(head, rows),
        "",
        *[_md(text) for text in caption(table)],
    ]
    notes = [note for line in table.lines for note in line.notes]
    if notes:
        lines += ["", "Not finished:", "", *[f"- {_md(note)}" for note in notes]]
    if table.others:
        lines += ["", "Published on the same data, none of it measured here:", "", *others(table.others)]
    return "\n".join(lines) + "\n"


def caption(table: Table) -> list[str]:
    """What the columns are, as sentences."""
    lines = [
        "Mean ± sample standard deviation over n seeds, of the weights that were best on validation images; test "
        "images chose nothing. Integer: the proven integer network."
    ]
    if any(line.difference for line in table.lines):
        lines.append(
            f"Difference: to {table.sweep.plan.baseline}, paired over seeds, with its 95 % confidence interval and the "
            "two-sided p of Student's paired t, not corrected for the number of rows; few pairs make it weak."
        )
    if table.models:
        names = " / ".join(table.models.values())
        lines.append(
            f"Energy: estimates, {names}. Relative: estimated fp32 energy of synaptic operations, % of the same "
            "architecture as a dense ReLU network, the convention of published tables."
        )
    return lines


def latex(table: Table) -> str:
    """A booktabs tabular in a table environment, as wide as the text."""
    used = _used(table)
    lines = [
        r"% needs \usepackage{booktabs,graphicx,textcomp}",
        r"\begin{table}",
        r"  \centering",
        r"  \resizebox{\linewidth}{!}{%",
        f"  \\begin{{tabular}}{{{'l' + 'r' * (len(used) - 1)}}}",
        r"    \toprule",
    ]
    lines += [f"    {' & '.join(tex(HEAD[index]) for index in used)} \\\\", r"    \midrule"]
    for line in table.lines:
        texts = cells_of(line)
        lines.append(f"    {' & '.join(tex(texts[index]) for index in used)} \\\\")
    text = " ".join([f"{table.sweep.plan.title}.", *caption(table)])
    lines += [r"    \bottomrule", r"  \end{tabular}}", f"  \\caption{{{tex(text)}}}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def rows_csv(table: Table) -> str:
    """One row per table row, numbers unrounded; empty where there is none."""
    columns: list[dict[str, Any]] = []
    for line in table.lines:
        row: dict[str, Any] = {"method": line.group.label, "T": line.steps, "s_max": line.s_max}
        row |= {
            "seeds_planned": line.planned,
            "seeds_done": len(line.group.done),
            "params": line.params.replace(",", ""),
        }
        for name, found in (("acc", line.accuracy), ("acc_last", line.last), ("acc_integer", line.integer),
                            ("mean_burst", line.burst), ("acs_per_image", line.acs), ("macs_per_image", line.macs),
                            ("relative_energy", line.relative)):  # fmt: skip
            row |= _numbers(name, found)
        for model in table.models:
            row |= _numbers(f"energy_{model}_pj", line.energies.get(model))
        for part in ("mean", "low", "high", "p", "pairs"):
            row[f"difference_{part}"] = getattr(line.difference, part, None)
        row["published"] = "; ".join(f"{found.key}={found.accuracy:g}" for found in line.published)
        columns.append(row)
    return _csv(columns)


def runs_csv(table: Table) -> str:
    """One row per cell, finished or not: with what a number can be traced back to its run."""
    rows: list[dict[str, Any]] = []
    for cell in table.sweep.cells():
        row: dict[str, Any] = {"method": cell.label, "seed": cell.seed, "status": cell.status}
        row |= {"fingerprint": cell.fingerprint, "overrides": " ".join(cell.overrides), "error": cell.error}
        found = cell.result
        row |= (
            {"acc": percent_of(found), "acc_last": percent_of(found, LAST), "acc_integer": integer_percent(found)}
            if found
            else {}
        )
        for name in ("burst", "acs", "macs", "relative"):
            row[name] = operations(found).get(name) if found else None
        for model in table.models:
            row[f"energy_{model}_pj"] = energies(found).get(model) if found else None
        row |= {"git_commit": found.git_commit, "git_dirty": found.git_dirty, "started": found.started,
                "fit_seconds": found.timing.fit_seconds, "cpu": found.host.cpu, "gpu": found.host.gpu,
                "torch": found.host.versions.get("torch")} if found else {}  # fmt: skip
        rows.append(row)
    return _csv(rows)


def _md(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")


def _md_table(head: list[str], rows: list[list[str]]) -> list[str]:
    shown = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return [f"| {' | '.join(row)} |" for row in shown]


def others(found: list[Published]) -> list[str]:
    """The lines of a Markdown table of published figures."""
    rows = [
        [_md(item.method), item.network or NONE, str(item.T or NONE), f"{item.accuracy:g}",
         NONE if item.top5 is None else f"{item.top5:g}", NONE if item.energy is None else f"{item.energy:g}",
         _md(item.source if item.origin == item.source else f"{item.source}: {item.origin}")]
        for item in found
    ]  # fmt: skip
    return _md_table(["method", "network", "T", "accuracy (%)", "top-5 (%)", "energy (% of ANN)", "source"], rows)


def _links(cells: list[Cell], folder: Path) -> str:
    """Each seed, linked to its report, or to its result where there is no report."""
    shown = []
    for cell in sorted(cells, key=lambda cell: cell.seed):
        if cell.path is None or cell.result is None:
            shown.append(f"{cell.seed}: {cell.status}")
            continue
        page = next(cell.path / name for name in ("report.html", "result.json") if (cell.path / name).is_file())
        shown.append(f"[{cell.seed}](<{Path(os.path.relpath(page, folder)).as_posix()}>)")
    return " ".join(shown)


def _used(table: Table) -> list[int]:
    """The columns that hold something in some row; those up to the accuracy always."""
    texts = [cells_of(line) for line in table.lines]
    return [index for index in range(len(HEAD)) if index < 4 or any(row[index] != NONE for row in texts)]


def _numbers(name: str, found: Summary | None) -> dict[str, Any]:
    return {f"{name}_mean": found.mean if found else None, f"{name}_sd": found.sd if found else None,
            f"{name}_n": found.n if found else 0}  # fmt: skip


def _csv(rows: list[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        missing = {name: "" for name, value in row.items() if isinstance(value, float) and not math.isfinite(value)}
        writer.writerow({**row, **missing})
    return text.getvalue()
