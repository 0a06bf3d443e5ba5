"""Plan a table: ``python scripts/plan.py measured=RESULT.json[,...] [key=value ...]``, or ``throughput=IMAGES_PER_S``.

measured: results of short runs on one device of the kind that will be used, one per table cell. throughput: the figure
by hand, for ``cells=1`` cells that are equally fast. The other inputs: seeds=3, images=1255544 (ImageNet without the
2 % held out), epochs=90, devices=1 (per job), at_once=1 (jobs), efficiency=1 (of several devices), price=0 (of a device
hour), checkpoint_mb and other_mb (of a run; those of the first measured run by default, else 0). Testing and the checks
after training are not in the hours. See docs/scale.md.
"""

import math
from pathlib import Path

from rich.console import Console
from rich.table import Table

from qbsnn.cli import launch as cli
from qbsnn.errors import SettingsError
from qbsnn.report import budget

WHOLE = {"cells": 1, "seeds": 3, "images": 1_255_544, "epochs": 90, "devices": 1, "at_once": 1}
REAL = {"efficiency": 1.0, "price": 0.0, "throughput": math.nan, "checkpoint_mb": math.nan, "other_mb": math.nan}


def main(arguments: list[str]) -> None:
    given = dict(word.split("=", 1) for word in arguments if "=" in word)
    unknown = given.keys() - WHOLE.keys() - REAL.keys() - {"measured"}
    if unknown or len(given) != len(arguments):
        known = ", ".join(["measured", *WHOLE, *REAL])
        raise SettingsError(f"arguments are key=value with keys {known}, got {' '.join(arguments)}")
    if ("measured" in given) == ("throughput" in given):
        raise SettingsError("give either measured=RESULT.json (one or more, by commas) or throughput=IMAGES_PER_S")
    if "measured" in given and "cells" in given:
        raise SettingsError("cells goes with throughput; measured has one result per cell")
    whole = {key: cli.number(key, given.get(key, default), int) for key, default in WHOLE.items()}
    real = {key: cli.number(key, given.get(key, default), float) for key, default in REAL.items()}
    found = [budget.measured(Path(path)) for path in given["measured"].split(",")] if "measured" in given else []
    cells = [run.rate for run in found] or [
        budget.Rate(f"cell {k + 1}", real["throughput"]) for k in range(whole["cells"])
    ]
    sizes = (found[0].checkpoint_bytes, found[0].other_bytes) if found else (0, 0)
    sizes = tuple(
        size if math.isnan(mb) else round(mb * 1e6)
        for size, mb in zip(sizes, (real["checkpoint_mb"], real["other_mb"]), strict=True)
    )
    del whole["cells"]
    inputs = budget.Inputs(cells, **whole, efficiency=real["efficiency"], price=real["price"],
                           checkpoint_bytes=sizes[0], other_bytes=sizes[1])  # fmt: skip
    show(inputs, [run.device for run in found])


def show(inputs: budget.Inputs, devices: list[str]) -> None:
    """Inputs first, then what follows from them."""
    plan = budget.plan(inputs)
    rows = Table("cell", "images/s, one device", "hours a job", "device hours", "cost", title_justify="left")
    for cell, rate in zip(plan.cells, inputs.rates, strict=True):
        rows.add_row(cell.name, f"{rate.rate:,.1f}", f"{cell.job_hours:,.2f}", f"{cell.device_hours:,.2f}",
                     f"{cell.cost:,.2f}")  # fmt: skip
    source = f"measured on {', '.join(dict.fromkeys(devices))}" if devices else "given by hand, not measured"
    facts = [
        f"throughput {source}",
        f"{inputs.seeds} seeds",
        f"{inputs.images:,} images",
        f"{inputs.epochs} epochs",
        f"{inputs.devices} devices a job at efficiency {inputs.efficiency:g}",
        f"{inputs.at_once} jobs at once",
        f"price {inputs.price:g} a device hour",
        f"checkpoint {inputs.checkpoint_bytes / 1e6:,.2f} MB",
        f"other files of a run {inputs.other_bytes / 1e6:,.2f} MB",
    ]
    totals = [
        f"{plan.jobs} jobs",
        f"{plan.device_hours:,.2f} device hours",
        f"{plan.wall_hours:,.2f} hours from start to end",
        f"{plan.storage_bytes / 1e9:,.3f} GB",
        f"cost {plan.cost:,.2f}",
    ]
    print(f"inputs: {', '.join(facts)}")
    Console().print(rows)
    print(f"{', '.join(totals)}; tests and checks after training not included")


if __name__ == "__main__":
    cli.script(main, __doc__)
