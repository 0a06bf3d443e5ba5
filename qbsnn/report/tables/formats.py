"""A table as Markdown, LaTeX (booktabs) and CSV."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from qbsnn.report.tables.table import Table, absent, caption, shown_in_table, texts
from qbsnn.results.formatting import NONE
from qbsnn.results.published import Published

MARKDOWN = str.maketrans({"\\": r"\\", "|": r"\|", "*": r"\*", "<": "&lt;", "\n": " "})
SYMBOLS = {"±": "pm", "×": "times", "÷": "div", "·": "cdot", "Δ": "Delta", "Σ": "Sigma", "α": "alpha", "β": "beta",
           "λ": "lambda", "σ": "sigma", "τ": "tau"}  # fmt: skip
TEX = str.maketrans({
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "µ": r"\textmu{}",
    "–": "--", "−": "$-$", "[": "{[}",  # at the start of a row it would be an argument of the line break before it
    **{char: f"\\{char}" for char in "%_&#${}"},
    **{char: f"${char}$" for char in "<>|"},
    **{char: f"$\\{name}$" for char, name in SYMBOLS.items()},
})  # fmt: skip


def markdown(table: Table, folder: Path, linked: bool = True, said: Collection[str] = ()) -> str:
    """The table, what it means, what is absent, and others' figures.

    Args:
        table: What to write.
        folder: Where the file goes; links to the runs are relative to it.
        linked: Whether there is a column of links to the runs.
        said: Sentences of the caption that stand elsewhere.
    """
    rows = texts(table).map(lambda text: text.translate(MARKDOWN))
    if linked:
        labels = [table.cells[table.cells["label"] == label] for label in table.means.index]
        rows["runs by seed"] = [_links(cells, folder) for cells in labels]
    lines = [f"## {table.plan.title.translate(MARKDOWN)}", "", *_markdown(rows), ""]
    lines += [line.translate(MARKDOWN) for line in caption(table) if line not in said]
    if notes := absent(table):
        lines += ["", "Not finished:", "", *[f"- {note.translate(MARKDOWN)}" for note in notes]]
    if table.others:
        lines += ["", "Published on the same data, none of it measured here:", "", *others(table.others)]
    return "\n".join(lines) + "\n"


def others(found: list[Published]) -> list[str]:
    """The lines of a Markdown table of published figures, and where each source is found.

    The data set is a column where there are several.
    """
    columns = {"data": "data", "method": "method", "network": "network", "T": "T", "accuracy": "accuracy (%)",
               "top5": "top-5 (%)", "energy": "energy (% of ANN)", "source": "source"}  # fmt: skip
    if len({item.data for item in found}) < 2:
        del columns["data"]
    rows = pd.DataFrame([{name: getattr(item, name) for name in columns} for item in found], dtype=object)
    shown = rows.map(lambda value: NONE if value is None else f"{value:g}" if isinstance(value, float) else str(value))
    origins = {item.source: item.origin for item in found}
    sources = "; ".join(f"{source}: {origin}" for source, origin in origins.items())
    return [*table_lines(shown.rename(columns=columns)), "", f"Sources. {sources}.".translate(MARKDOWN)]


def table_lines(rows: pd.DataFrame) -> list[str]:
    """The lines of a Markdown table of texts."""
    return _markdown(rows.map(lambda text: text.translate(MARKDOWN)))


def _markdown(rows: pd.DataFrame) -> list[str]:
    lines = [list(rows.columns), ["---", *["--:"] * (rows.shape[1] - 1)], *rows.itertuples(index=False)]
    return [f"| {' | '.join(line)} |" for line in lines]


def _links(cells: pd.DataFrame, folder: Path) -> str:
    """Each seed, linked to its page, or to its result where there is no page."""
    shown = []
    for cell in cells.sort_values("seed").itertuples():
        run = Path(cell.folder)
        page = next((run / name for name in ("report.html", "result.json") if (run / name).is_file()), None)
        link = f"[{cell.seed}](<{Path(os.path.relpath(page, folder)).as_posix()}>)" if page else ""
        shown.append(link if cell.status == "done" else f"{cell.seed}: {cell.status}")
    return " ".join(shown)


def latex(table: Table) -> str:
    """A booktabs tabular in a table environment, as wide as the text."""
    rows = texts(table).rename(columns=tex).map(tex)
    text = rows.to_latex(
        index=False,
        escape=False,  # of pandas: it knows no Greek letters
        column_format="l" + "r" * (rows.shape[1] - 1),
        caption=tex(" ".join([f"{table.plan.title}.", *caption(table)])),
    )
    text = text.replace(r"\begin{tabular}", "\\centering\n\\resizebox{\\linewidth}{!}{%\n\\begin{tabular}")
    text = text.replace(r"\end{tabular}", r"\end{tabular}}")
    return f"% needs \\usepackage{{booktabs,graphicx,textcomp}}\n{text}"


def tex(text: str) -> str:
    r"""``text`` with everything escaped that LaTeX would take for a command, symbols as commands.

    >>> tex("s_max = 8 ± 1 %"), tex("−0.5")
    ('s\\_max = 8 $\\pm$ 1 \\%', '$-$0.5')
    """
    return text.translate(TEX)


def rows_csv(table: Table) -> str:
    """One row per setting, numbers unrounded and in the units of ``result.json``; empty where there is none."""
    groups = table.cells.groupby("label", sort=False)
    rows = groups[["T", "s_max"]].first()
    rows["seeds_planned"] = groups.size()
    rows["seeds_done"] = groups["status"].agg(lambda status: (status == "done").sum())
    for name, statistic in table.means.columns:
        rows[f"{name} {statistic}"] = table.means[name, statistic]
    for part in ("mean", "low", "high", "p", "pairs"):
        rows[f"difference {part}"] = pd.Series(
            {label: getattr(found, part) for label, found in table.differences.items()}, dtype="float64"
        )
    rows["published"] = {
        label: "; ".join(f"{item.key}: {item.accuracy:g} %" for item in found)
        for label, found in table.published.items()
    }
    return str(rows.to_csv(index_label="method", lineterminator="\n"))


def runs_csv(table: Table) -> str:
    """One row per run, done or not: with what a number can be traced back to its run."""
    told = ["label", "seed", "status", "T", "s_max", *shown_in_table(table.cells)]
    told += [
        "fit_seconds",
        "fingerprint",
        "overrides",
        "error",
        "commit",
        "dirty",
        "started",
        "device",
        "torch",
        "precision",
    ]
    return str(table.cells[told].rename(columns={"label": "method"}).to_csv(index=False, lineterminator="\n"))
