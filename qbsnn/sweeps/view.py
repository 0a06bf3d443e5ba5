"""What a sweep shows: a table of its cells, and a line for each that ended."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

from qbsnn.results.formatting import clock
from qbsnn.sweeps.state import STATES, State

LOOK_EVERY = 1.0  # seconds


def listing(title: str, states: Sequence[State]) -> None:
    """Print every cell with its state, the numbers of each state, and the time that the rest will take."""
    head = ("state", "seed", "time", "cell")
    rows = [(s.status, str(s.cell.seed), "" if s.seconds is None else clock(s.seconds), _named(s)) for s in states]
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(3)]
    print(title)
    for row in [head, *rows]:
        print("  " + "  ".join([*(word.ljust(width) for word, width in zip(row, widths, strict=False)), row[3]]))
    print(f"{counts(states)}; {_left(states)}", flush=True)


def counts(states: Sequence[State]) -> str:
    """How many cells are in which state.

    >>> counts([])
    '0 cells: 0 done, 0 running, 0 failed, 0 missing'
    """
    found = Counter(state.status for state in states)
    return f"{len(states)} cells: " + ", ".join(f"{found[name]} {name}" for name in STATES)


def expected_seconds(states: Sequence[State]) -> float | None:
    """The time that the cells which are not done take one after another, if each takes the mean of those done."""
    known = [state.seconds for state in states if state.seconds is not None]
    return sum(known) / len(known) * sum(state.status != "done" for state in states) if known else None


class Watch(threading.Thread):
    """Looks at the files of running cells and prints a line for each that ended.

    changed: called after each cell that ended. Works with any launcher, since it looks at files alone. Used as a
    context manager around the launch.
    """

    def __init__(self, states: Sequence[State], pending: Sequence[State], changed: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self.states, self.changed = states, changed
        self.open = [state for state in pending if state.status != "done"]
        for state in self.open:
            state.look()
        self.before = {id(state): state.status for state in self.open}
        self.started, self.ended = time.monotonic(), 0
        self.over = threading.Event()

    def __enter__(self) -> Watch:
        """Begin."""
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Look a last time."""
        self.over.set()
        self.join()
        self._look(last=True)

    def run(self) -> None:
        """Look every second until the launch is over."""
        while not self.over.wait(LOOK_EVERY):
            self._look()

    def _look(self, last: bool = False) -> None:
        for state in list(self.open):
            state.look()
            before, self.before[id(state)] = self.before[id(state)], state.status
            # while jobs run, a failure that was there before is of an earlier start
            if state.status == "done" or (state.status == "failed" and (last or before != "failed")):
                self.open.remove(state)
                self._ended(state)

    def _ended(self, state: State) -> None:
        self.ended += 1
        rate = (time.monotonic() - self.started) / self.ended
        left = f"about {clock(rate * len(self.open))} left" if self.open else ""
        if state.status == "done":
            share = "" if state.acc is None else f", test accuracy {100 * state.acc:.2f} %"
            what = f"done in {clock(state.seconds or 0)}{share}"
        else:
            what = f"failed: {state.error}"
        line = f"cell {self._done()}/{len(self.states)}  {_named(state, short=True)}  {what}"
        print(f"{line}  {left}".rstrip(), flush=True)
        self.changed()

    def _done(self) -> int:
        return sum(state.status in ("done", "failed") for state in self.states)


def _named(state: State, short: bool = False) -> str:
    if short:
        return f"{state.cell.label}, seed {state.cell.seed}"
    return f"{state.cell.label}: {state.error}" if state.error else state.cell.label


def _left(states: Sequence[State]) -> str:
    seconds = expected_seconds(states)
    if seconds is None:
        return "time left unknown: no cell is done"
    return f"about {clock(seconds)} left, one cell after another"
