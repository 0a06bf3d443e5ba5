"""A W&B workspace for a project: ``python scripts/wandb_dashboard.py entity=ME [project=qbsnn] [name=qbsnn]``.

Panels for the axes of the tables (T, s_max, α, β, energy), Δ, saturation and gradients per layer, checks, rasters; the
runs table shows the same numbers. Each call saves a new view and prints its address. dry_run=true prints the view as
JSON and needs neither key nor network. Needs wandb-workspaces (the extra ``dashboard``).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from qbsnn.cli import launch as cli
from qbsnn.errors import SettingsError

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Section, Workspace

USAGE = "python scripts/wandb_dashboard.py entity=ENTITY [project=qbsnn] [name=qbsnn] [dry_run=true]"
DEFAULTS = {"entity": "", "project": "qbsnn", "name": "qbsnn", "dry_run": "false"}

ACCURACY, INTEGER_ACCURACY = "final/test/acc", "final/integer/acc"
ENERGY = {model: f"final/energy_estimate/{model}" for model in ("fp32", "int", "memory")}
RELATIVE_ENERGY = "final/relative_energy"
OVER_LEVEL_MATCHED = "final/energy_over_quantized/int"
CHECKS = {
    "Absorption: spike mismatches": "final/absorption/spike_mismatches",
    "Integer network: spike mismatches": "final/integer/spike_mismatches",
    "Integer network: membrane mismatches": "final/integer/membrane_mismatches",
}
AXES = {"time steps T": "T", "largest burst s_max": "neuron.s_max", "α": "neuron.alpha", "β": "neuron.beta"}
LAYERS = {
    "Δ per layer": "^delta/.*$",
    "saturation per layer": "^saturation/.*$",
    "silent neurons per layer": "^dead/.*$",
    "mean burst per layer": "^burst/.*$",
    "entropy of bursts in bits": "^bits/.*$",
    "gradient norm per layer": "^grad/.*$",
}
CURVES = ("train/loss", "val/loss", "train/acc", "val/acc")
STEP = "trainer/global_step"
FIGURES = ["figures/raster", "figures/bursts", "figures/confusion"]


def read_arguments(arguments: list[str]) -> dict[str, str]:
    """``key=value`` arguments over the defaults."""
    given = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    if len(given) != len(arguments) or given.keys() - DEFAULTS.keys():
        raise SettingsError(f"usage: {USAGE}, got {' '.join(arguments)}")
    settings = DEFAULTS | given
    if settings["dry_run"] not in ("true", "false"):
        raise SettingsError(f"dry_run must be true or false, got {settings['dry_run']}")
    return settings


def workspace(entity: str, project: str, name: str) -> Workspace:
    """The view, not saved yet."""
    from wandb_workspaces.workspaces import RunsetSettings, Workspace, WorkspaceSettings

    numbers = [ACCURACY, INTEGER_ACCURACY, RELATIVE_ENERGY, *ENERGY.values(), OVER_LEVEL_MATCHED, *CHECKS.values()]
    columns = ["run:group", "run:tags", *(_column(key) for key in [*AXES.values(), "seed"])]
    return Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=_sections(),
        settings=WorkspaceSettings(x_axis=STEP),
        runset_settings=RunsetSettings(pinned_columns=[*columns, *(f"summary:{key}" for key in numbers)]),
        auto_generate_panels=True,  # the rest, burst histograms among it
    )


def _sections() -> list[Section]:
    from wandb_workspaces.reports.v2 import (
        Config,
        LinePlot,
        MediaBrowser,
        ParallelCoordinatesPlot,
        ParallelCoordinatesPlotColumn,
        ScalarChart,
        ScatterPlot,
        SummaryMetric,
    )
    from wandb_workspaces.workspaces import Section

    accuracy = SummaryMetric(ACCURACY)
    axes = [
        *(
            ScatterPlot(title=f"test accuracy against {title}", x=Config(key), y=accuracy)
            for title, key in AXES.items()
        ),
        ScatterPlot(title="test accuracy over α × β", x=Config("neuron.alpha"), y=Config("neuron.beta"), z=accuracy),
        ParallelCoordinatesPlot(
            title="α, β, s_max, T → test accuracy",
            columns=[
                *(ParallelCoordinatesPlotColumn(Config(key), display_name=title) for title, key in AXES.items()),
                ParallelCoordinatesPlotColumn(accuracy, display_name="test accuracy"),
            ],
        ),
    ]
    energy = [
        ScatterPlot(title="test accuracy against relative energy", x=SummaryMetric(RELATIVE_ENERGY), y=accuracy),
        *(
            ScatterPlot(title=f"test accuracy against estimated pJ ({model})", x=SummaryMetric(key), y=accuracy)
            for model, key in ENERGY.items()
        ),
        ScatterPlot(
            title="test accuracy against estimated energy over the level-matched ReLU network (int)",
            x=SummaryMetric(OVER_LEVEL_MATCHED),
            y=accuracy,
        ),
    ]
    checks = [
        *(ScalarChart(title=title, metric=key, groupby_aggfunc="max") for title, key in CHECKS.items()),
        ScatterPlot(title="integer accuracy against test accuracy", x=accuracy, y=SummaryMetric(INTEGER_ACCURACY)),
    ]
    layers = [LinePlot(title=title, x=STEP, metric_regex=pattern) for title, pattern in LAYERS.items()]
    curves = [LinePlot(title=key, x=STEP, y=[key]) for key in CURVES]
    pictures = [MediaBrowser(title=key, media_keys=[key]) for key in FIGURES]
    return [
        Section(name="Accuracy by axis", panels=axes, is_open=True),
        Section(name="Accuracy by estimated energy", panels=energy, is_open=True),
        Section(name="Integer network: mismatches, all 0", panels=checks, is_open=True),
        Section(name="Layers", panels=layers, is_open=True),
        Section(name="Curves", panels=curves),
        Section(name="Test images", panels=pictures),
    ]


def _column(key: str) -> str:
    """A key of the configuration as the runs table names it."""
    first, _, rest = key.partition(".")
    return f"config:{first}.value" + (f".{rest}" if rest else "")


def specification(view: Workspace) -> dict[str, Any]:
    """What :meth:`Workspace.save` would send, as plain containers."""
    spec: dict[str, Any] = view._to_model().spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    return spec


def main(arguments: list[str]) -> None:
    settings = read_arguments(arguments)
    try:
        import wandb_workspaces.workspaces  # noqa: F401
    except ImportError as error:
        raise SettingsError(f"wandb-workspaces is needed: pip install 'qbsnn[dashboard]' ({error})") from error
    view = workspace(settings["entity"] or "entity", settings["project"], settings["name"])
    if settings["dry_run"] == "true":
        print(json.dumps(specification(view), indent=2, ensure_ascii=False))
        return
    if not settings["entity"]:
        raise SettingsError(f"entity is needed, your user or team name at W&B; usage: {USAGE}")
    save(view)


def save(view: Workspace) -> None:
    """Save the view and print its address; a missing key or server is one error."""
    from wandb.sdk.wandb_setup import singleton

    from qbsnn.tracking.connection import missing_credentials, unreachable

    server = singleton().settings
    why = missing_credentials(server.base_url) or unreachable(
        server.base_url, 5.0, {"http": server.http_proxy, "https": server.https_proxy}
    )
    if why is not None:
        raise SettingsError(f"the view cannot be saved: {why}; dry_run=true prints it instead")
    try:
        view.save()
        print(view.url)
    except Exception as error:  # its client raises many types
        raise SettingsError(f"the view cannot be saved: {' '.join(str(error).split())}") from error


if __name__ == "__main__":
    cli.script(main, __doc__)
