"""A search over settings of a run: Optuna proposes, :func:`qbsnn.training.run.train` trains, validation data decides.

Every trial is a run in a directory of its own that ends with training; test data are not read. The study lies in an
SQLite file, so that a search that was stopped goes on with the trials that are missing. The proposals depend on the
seed and on the trials before alone, not on how often the search was stopped.
"""

from __future__ import annotations

import logging
import math
import shlex
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from qbsnn.checked import explained
from qbsnn.checks import nearest, readable
from qbsnn.errors import SettingsError
from qbsnn.sweeps.draws import DRAW, kept, next_draw, refuse_another
from qbsnn.sweeps.plan import refuse_of_files, value_of, written
from qbsnn.training.building import build_object, check
from qbsnn.training.devices import processes
from qbsnn.training.module import Classifier
from qbsnn.training.run import train
from qbsnn.training.settings import validate

if TYPE_CHECKING:
    import optuna

log = logging.getLogger(__name__)

MONITOR = "val/acc"
FIT_ONLY = ("test=false", "report=false", "callbacks.progress=null", "++trainer.enable_progress_bar=false")


class Range(BaseModel):
    """Numbers from ``low`` to ``high``, both included; integers where both are."""

    model_config = ConfigDict(extra="forbid", strict=True)

    low: int | float
    high: int | float
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"low must be below high, got {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic scale needs low above 0, got {self.low}")
        return self


class SearchSettings(BaseModel):
    """``conf/search/*.yaml``. n_trials: in all, those of earlier starts included; failed and pruned ones count."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(min_length=1, pattern=r"^[\w.\-]+$")
    n_trials: int = Field(ge=1)
    seed: int = Field(ge=0, lt=2**31)
    space: dict[str, Range | list[int | float | bool | str | None]] = Field(min_length=1)
    sampler: dict[str, Any]
    pruner: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _choices(self) -> SearchSettings:
        refuse_of_files(self.space)
        for key, values in self.space.items():
            if isinstance(values, list) and len(values) < 2:
                raise ValueError(f"space.{key} must list two values or more, got {values}")
        return self


class PruneTrial(Callback):
    """Reports the score of every epoch, and ends a trial that the study's pruner gives up.

    With a budget of energy the pruner sees nothing before the target is the final one, which nobody has to keep before.

    Attributes:
        excess: by how much the best epoch exceeds the budget, as a share of it; 0 where there is none.
    """

    def __init__(self, trial: optuna.Trial) -> None:
        self.trial, self.excess = trial, 0.0

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Report; raises optuna.TrialPruned."""
        import optuna

        assert isinstance(pl_module, Classifier)
        epoch, metrics = trainer.current_epoch, trainer.callback_metrics
        if MONITOR not in metrics:  # no validation has come yet
            return
        if pl_module.before_final_target():
            return
        self.trial.report(score(float(metrics[MONITOR]), float(metrics.get("val/excess", 0.0))), epoch)
        if self.trial.should_prune():
            raise optuna.TrialPruned(f"given up after epoch {epoch + 1}")

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Note the excess of the best epoch."""
        self.excess = getattr(trainer.checkpoint_callback, "best_excess", 0.0)


def score(accuracy: float, excess: float) -> float:
    """What trials are ranked by: those that keep their budget by accuracy, behind them the others by their excess.

    >>> score(0.9, 0.0), score(0.95, 0.2)
    (0.9, -0.2)
    """
    return -excess if excess > 0 else accuracy


def settings(conf: Path, choice: str, overrides: list[str]) -> SearchSettings:
    """``conf/search/CHOICE.yaml``, or the file that ``choice`` names, changed by ``search.KEY=VALUE`` overrides.

    ``search.space.KEY=VALUE`` puts one key of a run into the space, or with null takes it out. Raises SettingsError.
    """
    file = Path(choice) if choice.endswith(".yaml") else conf / "search" / f"{choice}.yaml"
    if not file.is_file():
        known = [path.stem for path in (conf / "search").glob("*.yaml")]
        raise SettingsError(f"search={choice}: no such search; {nearest(choice, known)}, or the path of a .yaml file")
    with readable():
        cfg = OmegaConf.merge({"name": None, "pruner": None}, OmegaConf.load(file))
    cfg.name = cfg.name or file.stem
    try:
        for override in overrides:
            key, _, text = override.removeprefix("search.").partition("=")
            value = value_of(override.partition("=")[0], text)
            group, _, name = key.partition(".")
            if group != "space" or not name:
                OmegaConf.update(cfg, key, value, merge=False)
            elif value is None:
                cfg.space.pop(name, None)
            else:
                cfg.space[name] = value
        return SearchSettings.model_validate(OmegaConf.to_container(cfg, resolve=True))
    except OmegaConfBaseException as error:
        raise SettingsError(f"the settings of the search do not resolve: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        raise SettingsError(f"search.{_refused(error.errors()[0])}") from error


def _refused(item: Any) -> str:
    """One of pydantic's errors in plain words; those of a union say of each member why it is not that one."""
    if len(item["loc"]) > 1 and item["loc"][0] == "space" and item["type"] not in ("value_error", "extra_forbidden"):
        key = f"{item['loc'][0]}.{item['loc'][1]}"
        return f"{key} must be a list of values, or {{low: 1, high: 4}}; got {item['input']!r} there"
    if item["type"] == "value_error" and len(item["loc"]) > 1:
        return f"{item['loc'][0]}.{item['loc'][1]}: {item['ctx']['error']}"
    return explained(SearchSettings, item)


def search(conf: Path, wanted: SearchSettings, fixed: list[str], folder: Path) -> optuna.Study:
    """Run the trials that are missing of a search; ``fixed`` overrides go to all of them.

    Files go below ``folder``: ``NAME.db`` and ``NAME/trial_NNNN``. A trial that fails or diverges is recorded as failed
    and the next one begins. Raises SettingsError without Optuna, for settings that no trial could run with, and for a
    database of another search.
    """
    try:
        import optuna
    except ImportError:
        raise SettingsError("a search needs Optuna, which is an extra: pip install 'qbsnn[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # a failed trial is told in one line, below
    # the heartbeat, by which a trial that ended with its process is told from one that runs
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    runs = folder / wanted.name
    first = [f"{key}={_text(v.low if isinstance(v, Range) else v[0])}" for key, v in wanted.space.items()]
    plain = validate(composed(conf, [*fixed, *first], runs))
    for key in ("sampler", "pruner"):
        check(getattr(wanted, key), plain.get("trust", ()), f"search.{key}")
    if processes.to_start(plain) > 1:
        raise SettingsError("a trial of a search runs in one process: trainer.devices must be 1")
    if plain["trainer"].get("limit_val_batches") == 0:
        raise SettingsError(f"a search judges its trials by {MONITOR}: trainer.limit_val_batches must not be 0")
    if not ((plain.get("callbacks") or {}).get("checkpoint") or {}).get("_target_"):
        raise SettingsError(
            f"a search judges its trials by the best {MONITOR}, which callbacks.checkpoint finds: it must not be null"
        )
    if wrong := sorted(set("?%{}") & set(str(folder / wanted.name))):
        raise SettingsError(
            f"a search cannot keep its database in {folder / wanted.name}: the path has {' '.join(wrong)}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder / wanted.name}.db", heartbeat_interval=30)
    pruner = build_object(_pruner(wanted, plain), "search.pruner") if wanted.pruner else optuna.pruners.NopPruner()
    study = optuna.create_study(
        storage=storage, study_name=wanted.name, direction="maximize", pruner=pruner, load_if_exists=True
    )
    refuse_another(study, wanted.name, wanted.model_dump(mode="json")["space"], fixed, wanted.seed)

    def objective(trial: optuna.Trial) -> float:
        trial.set_user_attr(DRAW, draw)
        values = {key: _suggest(trial, key, values) for key, values in wanted.space.items()}
        chosen = [f"{key}={_text(value)}" for key, value in values.items()]
        trial.set_user_attr("overrides", chosen)
        cfg = composed(conf, [*fixed, *chosen], runs / f"trial_{trial.number:04d}")
        watch = PruneTrial(trial)
        try:
            result = train(cfg, [watch])
        except optuna.TrialPruned:
            raise
        except SystemExit:  # Optuna would leave it running
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            raise
        except Exception as error:
            trial.set_user_attr("error", f"{type(error).__name__}: {error}")
            raise
        assert result is not None
        return score(result.metrics.best[MONITOR], watch.excess)

    while len(kept(study)) < wanted.n_trials:
        draw = next_draw(study)
        # a sampler per trial: one for all would repeat its first proposals when the search goes on
        study.sampler = build_object({**wanted.sampler, "seed": wanted.seed + draw}, "search.sampler")
        study.optimize(objective, n_trials=1, catch=(Exception,), callbacks=[partial(_tell, wanted.n_trials)])
    return study


def composed(conf: Path, overrides: list[str], run: Path) -> DictConfig:
    """The configuration of one trial, whose files go to ``run``."""
    GlobalHydra.instance().clear()
    with readable(), initialize_config_dir(str(conf), version_base="1.3"):
        cfg = compose("train", [*overrides, *FIT_ONLY, f"paths.run={written(str(run))}"], return_hydra_config=True)
    with open_dict(cfg):
        cfg.hydra.runtime.cwd = str(Path.cwd())
        HydraConfig.instance().set_config(cfg)
        OmegaConf.resolve(cfg.paths)
        cfg.name = str(cfg.name)
        del cfg["hydra"]
    return cfg


def retraining(study: optuna.Study, fixed: list[str]) -> str:
    """The command that trains the best trial's settings with three seeds, everything after training included."""
    words = [*(word for word in fixed if not word.startswith("seed=")), *study.best_trial.user_attrs["overrides"]]
    return f"python train.py -m {shlex.join(words)} seed=0,1,2"


def _pruner(wanted: SearchSettings, plain: Mapping[str, Any]) -> dict[str, Any]:
    """Hyperband learns from the first trial how long a trial is; told before, it can prune the second one."""
    node = dict(wanted.pruner or {})
    if node.get("_target_") == "optuna.pruners.HyperbandPruner":
        node.setdefault("max_resource", plain["trainer"]["max_epochs"])
    return node


def _suggest(trial: optuna.Trial, key: str, values: Range | list[Any]) -> Any:
    if isinstance(values, list):
        return trial.suggest_categorical(key, values)
    if type(values.low) is int and type(values.high) is int:
        return trial.suggest_int(key, values.low, values.high, log=values.log)
    return trial.suggest_float(key, float(values.low), float(values.high), log=values.log)


def _text(value: Any) -> str:
    """A value in Hydra's grammar; a text is in it already, so that it can stand for a list."""
    return value if isinstance(value, str) else written(value)


def told(value: float) -> str:
    """A score in words.

    >>> told(0.9), told(-0.2)
    ('val/acc 0.9000', 'over its budget by 20 %')
    """
    return f"{MONITOR} {value:.4f}" if value >= 0 else f"over its budget by {-value:.0%}".replace("%", " %")


def _tell(total: int, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
    found = told(trial.values[0]) if trial.state.name == "COMPLETE" else trial.state.name.lower()
    words = [*trial.user_attrs.get("overrides", []), *([error] if (error := trial.user_attrs.get("error")) else [])]
    print(f"trial {trial.number} ({len(kept(study))} of {total}): {found}  {' '.join(words)}", flush=True)
