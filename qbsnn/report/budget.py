"""What a table costs before it is trained: jobs, hours, storage and price, from a measured training throughput.

    (P1)  h = images·epochs / (3600·r·d·e)       hours of one job; r images/s of one device, d devices at efficiency e
    (P2)  device hours of a cell = seeds·h·d;     its cost = device hours · price of a device hour
    (P3)  storage of a job = 2 checkpoints (last and best) + the other files of its run directory

Nothing here is measured: every figure is one of the inputs or follows from them by these lines.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qbsnn.errors import DataError, SettingsError
from qbsnn.results.reading import read_result


@dataclass(frozen=True)
class Rate:
    """The throughput of one table cell's network: ``rate`` training images per second on one device."""

    name: str
    rate: float


@dataclass(frozen=True)
class Inputs:
    """What a plan is made of.

    rates: one per table cell. seeds: jobs per cell. images: training images of an epoch. devices: per job. at_once:
    jobs that run at the same time. efficiency: images per second of ``devices`` devices over those of one, per device.
    price: of a device hour, any currency. checkpoint_bytes, other_bytes: of one checkpoint, and of all other files that
    a run leaves.
    """

    rates: Sequence[Rate]
    seeds: int
    images: int
    epochs: int
    devices: int
    at_once: int
    efficiency: float
    price: float
    checkpoint_bytes: int
    other_bytes: int

    def __post_init__(self) -> None:
        """Raises SettingsError for numbers that make no plan."""
        for name in ("seeds", "images", "epochs", "devices", "at_once"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise SettingsError(f"{name} must be an integer of at least 1, got {value!r}")
        for rate in self.rates:
            if not (math.isfinite(rate.rate) and rate.rate > 0):
                raise SettingsError(f"the throughput of {rate.name} must be a number above 0, got {rate.rate}")
        if not self.rates:
            raise SettingsError("a plan needs the throughput of at least one table cell")
        if not 0 < self.efficiency <= 1:
            raise SettingsError(f"efficiency must be above 0 and at most 1, got {self.efficiency}")
        for name in ("price", "checkpoint_bytes", "other_bytes"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise SettingsError(f"{name} must be a number of at least 0, got {value}")


@dataclass(frozen=True)
class CellPlan:
    """One table cell: hours of each of its jobs, device hours and cost of all of them."""

    name: str
    job_hours: float
    device_hours: float
    cost: float


@dataclass(frozen=True)
class Plan:
    """The whole table. ``wall_hours``: until the last job ends when jobs start in the order of the cells."""

    cells: list[CellPlan]
    jobs: int
    device_hours: float
    wall_hours: float
    cost: float
    storage_bytes: int


def plan(inputs: Inputs) -> Plan:
    """Equations (P1) to (P3) for every cell.

    >>> found = plan(Inputs([Rate("s_max=4", 1000.0)], 3, 1_200_000, 90, 1, 3, 1.0, 2.0, 250_000_000, 1_000_000))
    >>> found.jobs, found.cells[0].job_hours, found.wall_hours, found.cost, found.storage_bytes
    (3, 30.0, 30.0, 180.0, 1503000000)
    """
    cells = []
    for rate in inputs.rates:
        hours = inputs.images * inputs.epochs / (3600 * rate.rate * inputs.devices * inputs.efficiency)
        device_hours = inputs.seeds * hours * inputs.devices
        cells.append(CellPlan(rate.name, hours, device_hours, device_hours * inputs.price))
    jobs = [cell.job_hours for cell in cells for _ in range(inputs.seeds)]
    device_hours = sum(cell.device_hours for cell in cells)
    stored = len(jobs) * (2 * inputs.checkpoint_bytes + inputs.other_bytes)
    return Plan(cells, len(jobs), device_hours, _until_done(jobs, inputs.at_once), device_hours * inputs.price, stored)


def _until_done(jobs: Sequence[float], places: int) -> float:
    """Hours until the last of the jobs ends, each started in order where a place is free first."""
    free = [0.0] * places
    for hours in jobs:
        heapq.heapreplace(free, free[0] + hours)
    return max(free)


@dataclass(frozen=True)
class Measured:
    """What a finished run tells a plan: its rate, where that was measured, and the sizes of its files in bytes."""

    rate: Rate
    device: str
    checkpoint_bytes: int
    other_bytes: int


def measured(file: Path) -> Measured:
    """Read a run's ``result.json`` and the sizes of the files beside it.

    The rate is of the fit, validation and start included. Raises DataError for a file that is no result, or a run
    that did not finish or has no rate.
    """
    result = read_result(file)
    if result.status != "finished":
        raise DataError(f"{file}: the run has status {result.status}; a throughput is taken from a finished one")
    rate = result.timing.train_images_per_second
    if not (math.isfinite(rate) and rate > 0):
        raise DataError(f"{file}: timing.train_images_per_second must be above 0, got {rate}")
    used = [path for path in file.parent.rglob("*") if path.is_file()]
    checkpoints = [path.stat().st_size for path in used if path.suffix == ".ckpt"]
    others = sum(path.stat().st_size for path in used if path.suffix != ".ckpt")
    host, config = result.host, result.config
    settings = {"s_max": config.get("neuron", {}).get("s_max"), "T": config.get("T")}
    name = " ".join(
        [str(config.get("name", file.parent.name)), *(f"{k}={v}" for k, v in settings.items() if v is not None)]
    )
    return Measured(Rate(name, rate), host.gpu or host.cpu, max(checkpoints, default=0), others)
