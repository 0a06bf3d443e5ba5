"""What the benchmarks share: interleaved rounds, medians, and one form of result with the goal beside each row.

A result file has the keys ``benchmark, small, command, started, git_commit, git_dirty, kernels, host, versions,
settings, rows, skipped``. A row is ``{table, name, median, low, high, unit, ratio, to, goal, goal_name, met}``:
``median`` of its samples with their extremes; ``ratio`` to the median of the row named ``to`` in the same table,
unless it was measured as one; ``goal`` as text, ``"≤ 1.05"``; ``met`` is null where the row has no goal, false where
it has one and no value.
"""

from __future__ import annotations

import json
import operator
import os
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import Field

from qbsnn.cli.keys import Keys
from qbsnn.errors import SettingsError
from qbsnn.kernels import compiled as kernels
from qbsnn.results.files import write_atomically
from qbsnn.training.devices.host import git_state, host_info, version

ROOT = Path(__file__).parent.parent
RESULTS = Path("outputs/benchmarks")
PACKAGES = ("spikingjelly", "snntorch", "norse", "tonic", "triton", "onnxruntime", "scikit-learn")
_RELATIONS: dict[str, Callable[[float, float], bool]] = {"≤": operator.le, "≥": operator.ge}


UNAVAILABLE = 3
"""The exit code of a child process whose last line says why it cannot run."""


class Unavailable(Exception):
    """A contender that cannot run here; the message says why."""


def goal_met(goal: str, value: float) -> bool:
    """Whether a value meets a goal such as ``"≤ 1.05"`` or ``"≥ 3"``; raises SettingsError for another form.

    >>> goal_met("≤ 5", 4.9), goal_met("≥ 3", 2.9)
    (True, False)
    """
    relation, bound = parsed(goal)
    return relation(value, bound)


def parsed(goal: str) -> tuple[Callable[[float, float], bool], float]:
    """The relation and the number of a goal; raises SettingsError for another form."""
    relation, _, bound = goal.partition(" ")
    try:
        return _RELATIONS[relation], float(bound)
    except (KeyError, ValueError):
        raise SettingsError(f"a goal must be '≤ NUMBER' or '≥ NUMBER', got {goal!r}") from None


class Goal(NamedTuple):
    """What a page calls a goal, and its bound: ``Goal("training step time ÷ ReLU twin", "≤ 1.05")``."""

    name: str
    bound: str


@dataclass
class Row:
    """One line of a table: see the module's docstring."""

    table: str
    name: str
    median: float | None
    low: float | None
    high: float | None
    unit: str
    ratio: float | None = None
    to: str | None = None
    goal: str | None = None
    goal_name: str | None = None
    met: bool | None = None


@dataclass
class Result:
    """Rows of one benchmark, and where they were measured."""

    benchmark: str
    settings: dict[str, Any]
    small: bool = False
    rows: list[Row] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    started: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))

    def add(
        self,
        table: str,
        name: str,
        samples: Sequence[float],
        unit: str,
        *,
        to: str | None = None,
        ratio: float | None = None,
        goal: Goal | None = None,
        compiled: bool = False,
    ) -> Row:
        """Append the row of these samples; with none, a row without a value, which meets no goal.

        to: an earlier row of the same table, or this one, whose median is 1 in this row's ratio. ratio: a given one
        instead. A goal is compared with the ratio, or with the median where the row has none. compiled: its goal is
        one of compiled kernels, and is skipped where they run eagerly. Raises SettingsError for an unknown ``to``.
        """
        if goal is not None and compiled and (why := eager()):
            self.skip(f"goal: {goal.name}", why)
            goal = None
        low, median, high = (min(samples), statistics.median(samples), max(samples)) if samples else (None, None, None)
        row = Row(table, name, median, low, high, unit, ratio, to)
        self.rows.append(row)
        if to is not None and ratio is None:
            unit_row = self.find(table, to)
            if median is not None and unit_row.median:
                row.ratio = median / unit_row.median
        if goal is not None:
            value = row.median if to is None and ratio is None else row.ratio
            row.goal, row.goal_name = goal.bound, goal.name
            row.met = value is not None and goal_met(goal.bound, value)
        return row

    def find(self, table: str, name: str) -> Row:
        """The row of this name; raises SettingsError where there is none."""
        for row in self.rows:
            if (row.table, row.name) == (table, name):
                return row
        names = ", ".join(row.name for row in self.rows if row.table == table) or "none"
        raise SettingsError(f"no row {name!r} in table {table!r}; its rows: {names}")

    def skip(self, what: str, why: object) -> None:
        """Say, here and in the file, that something did not run and why."""
        line = f"{what}: {why}"
        if line not in self.skipped:
            self.skipped.append(line)
            print(f"skipped {line}", flush=True)

    def as_dict(self) -> dict[str, Any]:
        """The content of the result file."""
        host = vars(host_info())
        versions = {**host["versions"], **{name: found for name in PACKAGES if (found := version(name))}}
        commit, dirty = git_state(ROOT, ":(top)benchmarks")
        made = {
            "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "git_commit": commit,
            "git_dirty": dirty,
            "kernels": {"failed": sorted(kernels._failed), "divides_exactly": _divides_exactly()},
        }
        return {**asdict(self), **made, "host": host, "versions": versions}

    @contextmanager
    def written(self, out: Path | None) -> Iterator[dict[str, Any]]:
        """Write the file (:meth:`write`) after the body, with what the body puts into the yielded mapping.

        Where Ctrl-C or an error ends the body early, a given file gets what was measured, and names the reason.
        """
        more: dict[str, Any] = {}
        try:
            yield more
        except BaseException as error:
            self.skip("the rest", first_line(error))
            if out is not None:  # a whole result that lies in the usual place is worth more than a part
                self.write(out, **more)
            raise
        self.write(out, **more)

    def write(self, out: Path | None, **more: Any) -> Path:
        """Print all tables and write the result file, with ``more`` beside its own keys.

        Args:
            out: the file; ``None``: that of the benchmark below outputs/benchmarks.
            more: further keys of the file.

        Returns:
            The file.
        """
        path = out or RESULTS / f"{self.benchmark}.json"
        print(f"\n{self.text()}")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps({**self.as_dict(), **more}, indent=2, ensure_ascii=False).encode())
        print(f"written to {path}")
        return path

    def text(self) -> str:
        """All tables as aligned text, goals beside the ratios they are about."""
        lines = [where()]
        for table in dict.fromkeys(row.table for row in self.rows):
            rows = [row for row in self.rows if row.table == table]
            width = max(len(row.name) for row in rows)
            lines += ["", table, *(f"  {row.name:<{width}}  {_cells(row)}".rstrip() for row in rows)]
        return "\n".join(lines)


def _cells(row: Row) -> str:
    value = "-" if row.median is None else f"{row.median:.4g} {row.unit}"
    spread = "" if row.median is None or row.low == row.high else f"({row.low:.4g} to {row.high:.4g})"
    ratio = "" if row.ratio is None else f"{row.ratio:.3g} × {row.to}" if row.to else f"{row.ratio:.3g}"
    goal = "" if row.goal is None else f"goal {row.goal}: {'met' if row.met else 'not met'}"
    return f"{value:<16} {spread:<24} {ratio:<28} {goal}"


def where() -> str:
    """The machine in one line."""
    host = host_info()
    return f"{host.gpu or host.cpu}, {host.cores} cores, torch {host.versions['torch']}"


def eager() -> str | None:
    """Why neurons that are to be compiled run eagerly here; None where nothing says that they do."""
    if kernels._failed:
        return f"neurons do not compile here: {', '.join(sorted(kernels._failed))}"
    return None if _divides_exactly() is not False else "compiled, this torch divides inexactly on a card"


def _divides_exactly() -> bool | None:
    return kernels.divides_exactly() if torch.cuda.is_available() else None


def device() -> torch.device:
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def first_line(error: BaseException) -> str:
    """The first line of an error, or its type where it has no words."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


class BenchmarkKeys(Keys):
    """The keys that all benchmarks have."""

    rounds: int = Field(default=5, ge=1, description="rounds, of which the median is taken")
    small: bool = Field(default=False, description="true: tiny sizes, to try the script; no page takes them")
    out: Path | None = Field(default=None, description="the result file; default: below outputs/benchmarks")


def child(
    module: str, arguments: Sequence[str], environment: Mapping[str, str], what: str, watched: bool = False
) -> Any:
    """What ``python -m module`` prints as JSON in its last line. Raises Unavailable with its reason, if it has one.

    watched: what it writes to stderr is seen here while it runs, as in a training of hours.
    """
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=None if watched else subprocess.PIPE, env={**environment, "PYTHONPATH": paths},
    )  # fmt: skip
    last = (done.stdout.strip().splitlines() or [""])[-1]
    if done.returncode == UNAVAILABLE:
        raise Unavailable(last)
    if done.returncode != 0:
        raise RuntimeError(f"{what} failed:\n{(done.stderr or 'see above').strip()[-2000:]}")
    return json.loads(last)
