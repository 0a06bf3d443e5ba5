"""The pages that hold measured numbers: what stands between their markers is made from the stored results.

A page is ordinary Markdown. ``<!-- begin: KIND ARGUMENTS -->`` to ``<!-- end -->`` is a block, and
``<!--=SWEEP; ROW; QUANTITY-->`` to ``<!--/-->`` a number with its unit. Both are replaced, everything else stays.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from qbsnn.errors import DataError
from qbsnn.report.tables import formats
from qbsnn.report.tables.claims import count_tested, ledger, read_claims
from qbsnn.report.tables.evidence import Evidence, alike, command, gather, reading, source, told
from qbsnn.report.tables.figures import FIGURES, figures, write
from qbsnn.report.tables.table import COMPARED, NOT_RUN, Table, caption, over_budget, told_with_n
from qbsnn.results.files import write_atomically
from qbsnn.results.formatting import NONE, duration
from qbsnn.results.published import of_the_same_sets
from qbsnn.results.quantities import of_columns
from qbsnn.results.sweeps import Plan

CAPTIONS = {
    "timesteps": "Accuracy against time steps: mean over seeds, band ± sd.",
    "s_max": "Accuracy against the largest burst: mean over seeds, band ± sd.",
    "alpha_beta": "Mean accuracy (± sd) over width α and tail decay β of ReLSG-ET.",
    "energy": "Accuracy against estimated energy per image: mean ± sd, with the Pareto front.",
    "rows": "Accuracy of every row: mean ± sd (diamonds), and each seed (dots).",
    "delta": "The scale Δ of each layer over training: mean over seeds, band ± sd.",
}
OF_SEVERAL = {
    "cifar10_energy": ("energy", ("table_cifar10_vgg5", "cifar10_front"), "", ["fingerprint"]),
    "cifar10_timesteps": (
        "timesteps", ("table_cifar10_small", "cifar10_timesteps"), "15 % energy", ["neuron", "T", "seed"],
    ),
}  # fmt: skip
"""Figures of several sweeps: which figure, of which sweeps, what labels must contain, which runs count as the same."""
DPI = 120
BLOCK = re.compile(r"(<!-- begin: (\w+)([^\n]*?) -->\n).*?(<!-- end -->)", re.DOTALL)
NUMBER = re.compile(r"(<!--=(.*?)-->).*?(<!--/-->)", re.DOTALL)


@dataclass
class Pages:
    """Fills pages from evidence, and collects the figures that they show.

    Args:
        evidence: By name of the sweep.
        docs: The folder of the pages.
    """

    evidence: dict[str, Evidence]
    docs: Path
    figures: dict[str, Figure] = field(default_factory=dict)

    def filled(self, page: Path) -> str:
        """The text of a page with its blocks and numbers made anew.

        Raises:
            DataError: A marker asks for what there is not; the message names page and marker.
        """
        up = "" if page.parent == self.docs else f"{self.docs.name}/"

        def block(found: re.Match[str]) -> str:
            kind, arguments = found[2], found[3].strip()
            if kind not in KINDS:
                raise DataError(f"{page}: {kind} is no kind of block; there are {', '.join(KINDS)}")
            return f"{found[1]}{self._asked(page, found[0], KINDS[kind], arguments, up)}\n{found[4]}"

        def number(found: re.Match[str]) -> str:
            return f"{found[1]}{self._asked(page, found[0], _number, found[2], up)}{found[3]}"

        text = page.read_text(encoding="utf-8")
        if text.count("<!-- begin:") != len(BLOCK.findall(text)) or text.count("<!--=") != len(NUMBER.findall(text)):
            raise DataError(f"{page}: a marker has no end")
        return NUMBER.sub(number, BLOCK.sub(block, text))

    def _asked(self, page: Path, marker: str, kind: Kind, arguments: str, up: str) -> str:
        try:
            return kind(self, arguments, up)
        except DataError as error:
            raise DataError(f"{page}, {marker.splitlines()[0][:100]}: {error}") from error

    def of(self, name: str) -> Evidence:
        """The evidence of a sweep."""
        if name not in self.evidence:
            raise DataError(f"there is no sweep {name}; there are {', '.join(self.evidence)}")
        return self.evidence[name]

    def image(self, name: str, figure: Figure, caption: str, up: str) -> str:
        """The Markdown of a figure, which is drawn when the pages are written."""
        self.figures[f"results_{name}.png"] = figure
        return f"![{caption}]({up}images/results_{name}.png)\n\n{caption}\n"


Kind = Callable[[Pages, str, str], str]


def write_pages(conf: Path, docs: Path) -> list[Path]:
    """Fill ``docs``/*.md and the README.md beside that folder, and draw their figures into ``docs``/images.

    Returns:
        The files.

    Raises:
        DataError: See :func:`~qbsnn.report.tables.evidence.gather` and :meth:`Pages.filled`; nothing is written then.
    """
    pages = Pages(gather(conf, docs / "results"), docs)
    texts = {page: pages.filled(page) for page in with_markers(docs)}
    (docs / "images").mkdir(exist_ok=True)
    written = []
    for page, text in texts.items():
        write_atomically(page, text.encode())
        written.append(page)
    for name, figure in pages.figures.items():
        written += write(figure, docs / "images" / Path(name).stem, kinds=("png",), dpi=DPI)
    for stale in set(docs.glob("images/results_*.png")) - set(written):
        stale.unlink()
    return written


def with_markers(docs: Path) -> Iterator[Path]:
    """The pages that hold markers."""
    for page in [docs.parent / "README.md", *sorted(docs.glob("*.md"))]:
        if page.is_file() and re.search(r"<!-- begin: |<!--=", page.read_text(encoding="utf-8")):
            yield page


def _number(pages: Pages, arguments: str, up: str) -> str:
    parts = [part.strip() for part in arguments.split(";")]
    if len(parts) != 3:
        raise DataError("a number is named as SWEEP; ROW; QUANTITY")
    text = told(pages.of(parts[0]), parts[1], parts[2])
    unit = next((f" {one.kind.heading}" for one in of_columns([parts[2]]).values() if one.kind.heading), "")
    return text if text == NOT_RUN else f"{text}{unit}"


def _tables(pages: Pages, arguments: str, up: str) -> str:
    """Every table, and the sweeps that are named, each with heading, table, figures, provenance; last what was not run.

    What every caption says stands in front.
    """
    named = arguments.split()
    chosen = [each for name, each in pages.evidence.items() if name.startswith("table_") or name in named]
    tables = [each.table for each in chosen if each.table is not None]
    said = [line for line in caption(tables[0]) if all(line in caption(table) for table in tables)] if tables else []
    made = [_table(pages, each, each.table, said, up) for each in chosen if each.table is not None]
    made += [_not_run(each.plan) for each in chosen if each.table is None]
    return "\n".join([*said, "", *made]).strip("\n")


def _table(pages: Pages, evidence: Evidence, table: Table, said: list[str], up: str) -> str:
    plan = evidence.plan
    lines = [formats.markdown(table, Path(), linked=False, said=said)]
    lines += [
        pages.image(f"{plan.name}_{name}", figure, CAPTIONS[name], up)
        for name, figure in figures(plan, table.cells).items()
    ]
    lines.append(f"{source(evidence, up)}\n")
    return "\n".join(lines)


def _not_run(plan: Plan) -> str:
    """What stands in place of a table that has no runs."""
    where = " [Where the data go](data.md)." if plan.name.startswith("table_") else ""
    lines = [f"## {plan.title}", "", f"Not run here. Command: {command(plan)}.{where}"]
    others = of_the_same_sets([key for keys in plan.published.values() for key in keys])
    if others and not plan.name.endswith("_document"):
        lines += ["", "Published on this data, none of it measured here:", "", *formats.others(others)]
    return "\n".join(lines) + "\n"


def _sweep(pages: Pages, name: str, up: str) -> str:
    """An ablation: its figure, what it says in two lines, its rows, where it comes from."""
    evidence = pages.of(name)
    if evidence.table is None:
        return f"Not run here. Command: {command(evidence.plan)}."
    keys = f"{name}: test/acc, integer/proven_acc, relative_energy, mean_burst"
    image = []
    if not alike(evidence.table):
        main, drawn = next(iter(figures(evidence.plan, evidence.table.cells).items()))
        image = [pages.image(f"{name}_{main}", drawn, CAPTIONS[main], up)]
    return "\n".join([*image, reading(evidence.table), "", _rows(pages, keys, up), "", source(evidence, up)])


def _rows(pages: Pages, arguments: str, up: str) -> str:
    """The named quantities of every row of a sweep."""
    name, _, keys = arguments.partition(":")
    evidence = pages.of(name.strip())
    wanted = [key.strip() for key in keys.split(",")]
    headings = {key: quantity.heading for key, quantity in of_columns(wanted).items()}
    if unknown := [key for key in wanted if key not in headings]:
        raise DataError(f"{unknown[0]!r} is no quantity")
    if evidence.table is None:
        return f"Not run here. Command: {command(evidence.plan)}."
    rows = []
    for label in evidence.table.means.index:
        cells = evidence.table.cells[evidence.table.cells["label"] == label]
        row = {"": str(label)}
        for key in wanted:
            text = told(evidence, str(label), key).replace(NOT_RUN, "–")
            row[headings[key]] = told_with_n(text, cells) if key == COMPARED else text
        rows.append(row)
    missed = [line.translate(formats.MARKDOWN) for line in over_budget(evidence.table)]
    return "\n".join([*formats.table_lines(pd.DataFrame(rows)), *(["", *missed] if missed else [])])


def _claims(pages: Pages, sections: str, up: str) -> str:
    claims = [claim for claim in read_claims(pages.docs / "claims.yaml") if claim.section in sections.split()]
    if not claims:
        raise DataError(f"claims.yaml has no section {sections}")
    return "\n".join(ledger(claims, pages.evidence, f"{up}results"))


def _tested(pages: Pages, arguments: str, up: str) -> str:
    return count_tested(read_claims(pages.docs / "claims.yaml"), pages.evidence)


def _figure(pages: Pages, name: str, up: str) -> str:
    """A figure of several sweeps; a run that is in two of them is drawn once."""
    if name not in OF_SEVERAL:
        raise DataError(f"{name} is no figure of several sweeps; there are {', '.join(OF_SEVERAL)}")
    kind, sweeps, part, same = OF_SEVERAL[name]
    found = [each for each in (pages.of(sweep) for sweep in sweeps) if each.table is not None]
    commands = " and ".join(command(pages.of(sweep).plan) for sweep in sweeps)
    if found:
        cells = pd.concat([each.table.cells for each in found if each.table], ignore_index=True)
        cells = cells[(cells["status"] == "done") & cells["label"].str.contains(part, regex=False)]
        figure = FIGURES[kind](cells.drop_duplicates(same))
        if figure is not None:
            data = ", ".join(f"[{each.plan.name}]({up}results/{each.plan.name}.json)" for each in found)
            return f"{pages.image(name, figure, CAPTIONS[kind], up)}\nCommands: {commands}. Data: {data}."
    return f"Not run here. Commands: {commands}."


def _costs(pages: Pages, arguments: str, up: str) -> str:
    """What each sweep cost that was run, and of which commits its runs are."""
    rows = []
    for name, evidence in pages.evidence.items():
        if evidence.table is None:
            continue
        cells = evidence.table.cells
        runs = cells[cells["status"] == "done"]
        seconds = runs["fit_seconds"].astype(float)
        commits = runs.groupby("label", sort=False)["commit"].nunique()
        labels = commits.index
        rows.append({
            "sweep": f"`{name}`", "runs done": str(len(runs)), "of": str(len(cells)),
            "training, all runs": duration(seconds.sum()), "training, longest run": duration(seconds.max()),
            "all runs with test and checks": duration(runs["total_seconds"].astype(float).sum()),
            "hardware": "; ".join(runs["device"].unique()),
            "commits": ", ".join(dict.fromkeys(str(commit or "unknown")[:7] for commit in runs["commit"])),
            "rows of several commits": "; ".join(labels[commits > 1]) or NONE,
        })  # fmt: skip
    return "\n".join(formats.table_lines(pd.DataFrame(rows)))


def _missing(pages: Pages, arguments: str, up: str) -> str:
    """The sweeps of which no run, or not every run, is stored, with the command."""
    rows = []
    for evidence in pages.evidence.values():
        status = None if evidence.table is None else evidence.table.cells["status"]
        done = 0 if status is None else int((status == "done").sum())
        if status is None or done < len(status):
            state = f"{done} of {len(status)} runs" if status is not None else NOT_RUN
            rows.append({"table or sweep": evidence.plan.title, "state": state, "command": command(evidence.plan)})
    return "\n".join(formats.table_lines(pd.DataFrame(rows))) if rows else "Every sweep was run."


def _published(pages: Pages, arguments: str, up: str) -> str:
    """Figures of others on the data sets that are named."""
    return "\n".join(formats.others(of_the_same_sets([f"{name}/" for name in arguments.split()])))


KINDS: dict[str, Kind] = {
    "tables": _tables,
    "sweep": _sweep,
    "rows": _rows,
    "claims": _claims,
    "tested": _tested,
    "figure": _figure,
    "costs": _costs,
    "missing": _missing,
    "published": _published,
}
"""What a block may be."""
