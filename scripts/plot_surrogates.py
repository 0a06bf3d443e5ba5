"""Draw all surrogate gradients over the position V/Δ, for a binary neuron and for a burst neuron.

``python scripts/plot_surrogates.py [s_max=4]``
"""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib.figure import Figure
from pydantic import Field

from qbsnn.cli import launch as cli
from qbsnn.cli.keys import Keys
from qbsnn.functional import SURROGATES, relsg_et


def curves() -> dict[str, object]:
    """Every surrogate with its default width, ReLSG-ET with both tails."""
    plain = {name: function for name, function in SURROGATES.items() if name != "relsg_et"}
    return {
        "relsg_et, tail: document": relsg_et,
        "relsg_et, tail: continuous": lambda p, s_max: relsg_et(p, s_max, tail="continuous"),
        "relsg_et, alpha = 0.3": lambda p, s_max: relsg_et(p, s_max, alpha=0.3),
        **plain,
    }


def draw(s_max: int) -> Figure:
    """One row per surrogate: s_max = 1 on the left, ``s_max`` on the right."""
    functions = curves()
    figure = Figure(figsize=(8, 1.05 * len(functions)), layout="constrained")
    axes = figure.subplots(len(functions), 2, sharex="col")
    for row, (name, function) in zip(axes, functions.items(), strict=True):
        for place, levels in zip(row, (1, s_max), strict=True):
            p = torch.linspace(-1, levels + 2, 4001)
            place.plot(p, function(p, levels), linewidth=1.3)  # type: ignore[operator]
            for level in range(1, levels + 1):
                place.axvline(level, color="0.8", linewidth=0.7, zorder=0)
            place.set_ylim(bottom=0)
            place.tick_params(labelsize=7)
        row[0].set_ylabel(name.replace(", ", "\n"), rotation=0, ha="right", va="center", fontsize=8)
    for place, levels in zip(axes[0], (1, s_max), strict=True):
        place.set_title(f"s_max = {levels}", fontsize=9)
    for place in axes[-1]:
        place.set_xlabel("V/Δ", fontsize=8)
    return figure


class Plot(Keys):
    """The keys of this tool."""

    s_max: int = Field(default=4, ge=1, le=127, description="the largest burst on the right")
    out: Path = Field(default=Path("docs/images/surrogates.png"), description="the picture to write")


def main(given: Plot) -> None:
    given.out.parent.mkdir(parents=True, exist_ok=True)
    draw(given.s_max).savefig(given.out, dpi=110)
    print(given.out)


if __name__ == "__main__":
    cli.script(main, Plot, __doc__)
