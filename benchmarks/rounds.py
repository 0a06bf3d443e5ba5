"""Contenders that take turns, and what is left of their rounds where Ctrl-C ends them."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch

from benchmarks.harness import Result, first_line


def clock(call: Callable[[], object]) -> float:
    """Seconds of one call, work queued on a GPU included."""
    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    wait()
    start = time.perf_counter()
    call()
    wait()
    return time.perf_counter() - start


def interleaved(
    contenders: Mapping[str, Callable[[], object]],
    rounds: int,
    timer: Callable[[Callable[[], object]], float] = clock,
    report: Callable[[str, object], None] | None = None,
    times: dict[str, list[float]] | None = None,
) -> dict[str, list[float]]:
    """Seconds of each contender in each round, after one round that does not count.

    Contenders take turns in an order that is drawn anew for every round, with a fixed seed, so that neither a drift of
    the machine nor a fixed neighbour favours any. With ``report(name, why)``, which then hears of it, a contender that
    raises takes no further part and has no seconds; else the error ends the measurement. ``times``, where given, is
    filled; Ctrl-C leaves whole rounds in it.
    """
    times = {} if times is None else times
    times |= {name: [] for name in contenders}
    left = dict(contenders)
    for number in range(rounds + 1):
        for name in random.Random(number).sample(list(left), len(left)):
            try:
                seconds = timer(left[name])
            except KeyboardInterrupt:
                for values in times.values():
                    del values[max(0, number - 1) :]
                raise
            except Exception as error:
                if report is None:
                    raise
                report(name, first_line(error))
                times[name] = []
                del left[name]
            else:
                if number:
                    times[name].append(seconds)
    return times


@contextmanager
def timed(
    result: Result,
    contenders: Mapping[str, Callable[[], object]],
    rounds: int,
    timer: Callable[[Callable[[], object]], float] = clock,
) -> Iterator[dict[str, list[float]]]:
    """:func:`interleaved` for a body that adds the rows; contenders that fail are skipped in ``result``.

    Ctrl-C after a whole round ends the rounds, is noted in ``result``, and is raised again after the body.
    """
    times: dict[str, list[float]] = {}
    stopped: KeyboardInterrupt | None = None
    try:
        interleaved(contenders, rounds, timer, result.skip, times)
    except KeyboardInterrupt as error:
        done = max(map(len, times.values()), default=0)
        if not done:
            raise
        result.skip("the other rounds", f"interrupted after {done} rounds")
        stopped = error
    yield times
    if stopped is not None:
        raise stopped
