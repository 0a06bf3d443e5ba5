"""What a run tells its W&B logger besides curves: tags, final numbers, files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from qbsnn.checks import nearest
from qbsnn.errors import SettingsError
from qbsnn.results.files import CURVE_FILE
from qbsnn.results.quantities import WANDB, values
from qbsnn.results.schema import Result
from qbsnn.tracking.wandb_logger import OfflineCapableWandbLogger

FILES = ("result.json", "report.html", CURVE_FILE)
FIGURES = ("raster", "bursts", "confusion")


def open_loggers(loggers: Iterable[Logger], plain: Mapping[str, Any]) -> None:
    """Give every logger the settings of a run, and W&B its group and tags."""
    for logger in loggers:
        if isinstance(logger, OfflineCapableWandbLogger):
            logger.describe(plain["name"], tags(plain))
        logger.log_hyperparams(dict(plain))


def tags(plain: Mapping[str, Any]) -> list[str]:
    """Tags of a validated configuration: the axes of most sweeps.

    >>> tags({"T": 4, "neuron": {"s_max": 8}}), tags({"T": 1, "neuron": {}})
    (['T=4', 's_max=8'], ['T=1'])
    """
    s_max = plain["neuron"].get("s_max")
    return [f"T={plain['T']}"] + ([] if s_max is None else [f"s_max={s_max}"])


def final_metrics(result: Result) -> dict[str, float]:
    """The numbers a dashboard compares runs by, as ``final/...``.

    These are all metrics, the quantities with the view ``wandb`` in the units of ``result.json`` (energies are
    estimates in picojoules per image), and per layer what it did on test images.
    """
    final = {f"final/{name}": value for name, value in result.metrics.best.items()}
    final |= {f"final/last/{name}": value for name, value in result.metrics.last.items()}
    final |= {f"final/{name}": value for name, value in values(result, WANDB).items()}
    for layer in result.layers:
        for figure in ("delta", "mean_burst", "saturation", "silent"):
            if (value := getattr(layer, figure)) is not None:
                final[f"final/{figure}/{layer.name}"] = value
    return final


def log_files(loggers: Iterable[Logger], folder: Path, result: Result) -> None:
    """Give W&B the files of a run directory that exist: ``FILES``, the figures, the best checkpoint where wanted."""
    for logger in loggers:
        if not isinstance(logger, OfflineCapableWandbLogger):
            continue
        names = list(FILES)
        if logger.log_checkpoint and (best := result.checkpoints.get("best")):
            names.append(best)
        files = [folder / name for name in names if (folder / name).is_file()]
        figures = [path for name in FIGURES if (path := folder / "figures" / f"{name}.png").is_file()]
        accuracy = result.metrics.best.get("test/acc")
        metadata = {"status": result.status, "error": result.error, "seed": result.seed, "test_acc": accuracy}
        logger.log_files(files, figures, metadata | {"commit": result.git_commit, "command": result.command})


def chosen_loggers(choice: str, conf: Path, contents: Mapping[str, Any], job_type: str) -> dict[str, Any]:
    """The loggers of ``<conf>/<choice>.yaml`` for a job on a checkpoint with these ``contents``.

    Interpolations are left for the checkpoint's configuration to resolve. Raises SettingsError for an unknown choice.
    """
    options = sorted(path.stem for path in conf.glob("*.yaml"))
    if choice not in options:
        raise SettingsError(f"logger={choice}: no such logger; {nearest(choice, options)}")
    loggers: dict[str, Any] = {}
    for name in dict.fromkeys(["csv", choice]):
        node = OmegaConf.load(conf / f"{name}.yaml")
        assert isinstance(node, DictConfig)
        loggers |= {str(key): node[key] for key in node if key != "defaults"}
    if wandb := loggers.get("wandb"):
        config = (contents.get("qbsnn") or {}).get("config") or {}
        before = (config.get("logger") or {}).get("wandb") or {}
        wandb.update({"job_type": job_type, "choices": before.get("choices") or [config.get("name", "")]})
    return {key: OmegaConf.to_container(node, resolve=False) for key, node in loggers.items()}
