"""The columns of the table of all runs."""

from __future__ import annotations

from dataclasses import dataclass

from qbsnn.report.runs.rows import Collection
from qbsnn.results.quantities import PAGE, Quantity, of_columns
from qbsnn.results.reading import STATES


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Args:
        key: Of the frame, or ``departs``.
        title: Its heading.
        meaning: The tooltip of its heading.
        shown: Whether the page shows it at first.
        facet: Whether rows can be chosen by its values.
        quantity: The quantity that it holds, for a column of numbers.
    """

    key: str
    title: str
    meaning: str = ""
    shown: bool = True
    facet: bool = False
    quantity: Quantity | None = None


FIRST = (
    Column("run", "run", "Directory of the run. The link opens its page."),
    Column("name", "name", "The setting name.", shown=False),
    Column("status", "status", f"Of the run: {', '.join(STATES)}.", facet=True),
    Column("data", "data", facet=True),
    Column("model", "model", facet=True),
    Column("neuron", "neuron", facet=True),
    Column("T", "T", "Time steps.", facet=True),
    Column("s_max", "s_max", "Largest burst; – for a neuron without one.", facet=True),
    Column("seed", "seed", facet=True),
)
LAST = (
    Column("departs", "other settings", "In which the run differs from most runs with this data set, model or neuron."),
    Column("started", "started", "UTC."),
    Column("commit", "commit", "Of the code; * with uncommitted changes."),
    Column("sweep", "sweep", shown=False, facet=True),
    Column("alpha", "α", "Width of the surrogate.", shown=False),
    Column("beta", "β", "Decay of the surrogate's tail.", shown=False),
    Column("device", "device", "What it ran on.", shown=False),
    Column("torch", "torch", "Version of PyTorch.", shown=False),
    Column("fingerprint", "fingerprint", "Of the settings that determine the result.", shown=False),
    Column("command", "command", shown=False),
    Column("error", "error", shown=False),
)


def columns(found: Collection) -> list[Column]:
    """The columns that hold something in some run: settings, then the quantities, then where a run comes from."""
    numbers: dict[str, Column] = {}
    for key, quantity in of_columns(found.frame.columns).items():
        column = Column(key, quantity.heading, quantity.meaning, PAGE in quantity.views, quantity=quantity)
        # Of two with one heading (an accuracy, and the same where it is proven), the page has the one that it shows.
        if column.shown or column.title not in numbers:
            numbers[column.title] = column
    filled = {key for row in found.rows for key, value in row.values.items() if value not in (None, "")}
    return [column for column in (*FIRST, *numbers.values(), *LAST) if column.key in filled]
