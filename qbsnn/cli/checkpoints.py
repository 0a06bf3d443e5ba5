"""What the tools on a checkpoint share: their arguments, and the integer network that the checkpoint's run deployed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf, open_dict

from qbsnn import checks
from qbsnn.cli.keys import CheckpointKeys
from qbsnn.cli.suggestions import dotted, suggestion
from qbsnn.data import trained_on
from qbsnn.errors import SettingsError
from qbsnn.models.network import SpikingNetwork
from qbsnn.models.weights import load_network, load_weights
from qbsnn.results.files import checkpoint_of
from qbsnn.sweeps.plan import value_of
from qbsnn.training import checkpoints
from qbsnn.training.deployment import Deployed, convert, present
from qbsnn.training.devices.processes import one_process
from qbsnn.training.fine_tuning import stored
from qbsnn.training.settings import deploy_settings, validate
from qbsnn.training.setup import Parts, build, network_of

GROUPS = ("model", "data", "neuron", "optim", "trainer", "budget", "deploy", "callbacks", "logger")
"""Keys that hold the settings of a group of configurations."""

OF_TRAINING = (
    *("test", "overwrite", "resume", "init_from", "teacher", "optim", "budget", "neuron.delta", "neuron.init"),
    *(f"trainer.max_{name}" for name in ("epochs", "steps", "time")),
)
"""Settings, with all below them, that nothing but training reads."""

FOLLOWERS = {
    "T": ("model.T", "data.T"),
    "seed": ("model.seed", "data.seed"),
    "model.decision": ("optim.loss.decision",),
    "neuron.num_bits": ("deploy.bits",),
}
"""A key, and those to which ``conf/`` gives its value. A checkpoint holds their values, so they are changed with it."""


def load(path: str | Path, trust: str | Sequence[str] = ()) -> SpikingNetwork:
    """The trained network of a checkpoint or of a run, in evaluation mode on the CPU.

    Args:
        path: A checkpoint, or the folder of a run, of which the epoch that was best on validation images is taken, or
            the last one where there is no best.
        trust: A package of yours, or several, that its configuration may name.

    Raises:
        ArgumentError: ``path`` is no path.
        CheckpointError: There is no checkpoint, or it cannot be read.
        SettingsError: Its configuration is none of this version, or does not fit its weights.
    """
    checkpoint = checkpoint_of(checks.path("path", path, "a checkpoint or of a run's folder"))
    contents = checkpoints.load(checkpoint)
    packages = (trust,) if isinstance(trust, str) else tuple(trust)
    settings = validate(Opened(checkpoint, contents, (), packages).config(checkpoint.parent.parent))
    network, _ = network_of(settings)
    load_network(network, contents, checkpoint)
    return network.eval()


class Opened(NamedTuple):
    """A checkpoint, its contents, and overrides of its configuration."""

    checkpoint: Path
    contents: dict[str, Any]
    overrides: tuple[str, ...]
    trust: tuple[str, ...] = ()

    def config(self, run: Path, loggers: dict[str, Any] | None = None) -> DictConfig:
        """The checkpoint's configuration with the overrides, for a new run directory; without loggers if none given.

        Raises:
            SettingsError: an override is wrong, or of training, which is over.
        """
        for key in (override.partition("=")[0].lstrip("+~") for override in self.overrides):
            if any(f"{key}.".startswith(f"{name}.") for name in OF_TRAINING):
                raise SettingsError(f"{key} is a setting of training, which this tool does not do; leave it out")
        cfg = stored_config(self.contents, self.checkpoint, self.overrides, run, loggers)
        with open_dict(cfg):
            cfg.trust = list(self.trust) or None
        return cfg


def opened(given: CheckpointKeys) -> Opened:
    """Load the checkpoint that a command line names.

    Raises:
        CheckpointError: it cannot be read.
    """
    checkpoint = checkpoint_of(given.ckpt)
    return Opened(checkpoint, checkpoints.load(checkpoint), given.overrides, given.trust)


def changes(given: Opened) -> list[str]:
    """A line for each override that makes another network of the trained weights. T and seed are no such keys."""
    trained = OmegaConf.create(checkpoints.stored(given.contents, given.checkpoint))
    said = [(key, OmegaConf.select(trained, key), value) for key, value in map(_assignment, given.overrides)]
    return [
        f"{key} was {before} in training and is {value} here: this is not the network that was trained"
        for key, before, value in said
        if key.startswith(("model.", "neuron.")) and before != value
    ]


def deployed_network(given: Opened, run: Path) -> tuple[Parts, Deployed]:
    """The integer network of a checkpoint, made as its run did, and the parts around it with test data set up."""
    settings = validate(given.config(run)) | {"logger": None, "callbacks": None}
    parts = build({**settings, "trainer": one_process(settings["trainer"])})
    trained_on.check(given.contents, given.checkpoint, parts.data)
    load_weights(parts.module, given.contents, given.checkpoint)
    parts.data.prepare_data()
    parts.data.setup("test")
    group = deploy_settings(parts.settings)
    tune = lambda network, quantized: stored(network, group, given.checkpoint)  # noqa: E731
    return parts, present(convert(parts.module.network.eval(), group, parts.data, tune).deployed)


def stored_config(
    contents: dict[str, Any],
    checkpoint: Path,
    overrides: Sequence[str],
    run: Path,
    loggers: dict[str, Any] | None = None,
    same_loggers: bool = False,
) -> DictConfig:
    """The configuration that a checkpoint carries, changed for a new run.

    Where the data lie is said by ``paths.data``, else by the environment variable ``QBSNN_DATA``, else by the
    checkpoint. ``FOLLOWERS`` follow their key unless the run had another value there, or they are given too.

    Args:
        contents: of the checkpoint.
        checkpoint: its file.
        overrides: ``key=value`` for keys that it has, or ``+callbacks.NAME...=value`` for one more callback.
        run: the new run directory.
        loggers: in the place of those that the run had.
        same_loggers: keep those that the run had.

    Raises:
        CheckpointError: the checkpoint carries none, or one that is no plain values.
        SettingsError: for a key that the configuration does not have, or an override that is none.
    """
    config = checkpoints.stored(contents, checkpoint)
    cfg = OmegaConf.create(_relocate(config, config["paths"]["run"], str(run.resolve())))
    if not same_loggers:
        cfg.logger = loggers
    OmegaConf.set_struct(cfg, True)
    keys = list(dotted(config))
    given = [_assignment(override) for override in overrides]
    _follow(cfg, config, dict(given))
    for key, value in given:
        added = key.startswith("+callbacks.")
        if not added and key not in keys:
            raise SettingsError(f"{key} is not a setting of this checkpoint: {suggestion(key, keys)}")
        if key == "paths.run":
            raise SettingsError(f"{key} is chosen by this tool; paths.outputs=DIR says below which folder")
        if key in GROUPS and value is not None:
            raise SettingsError(
                f"{key}={value}: a checkpoint holds the settings of {key}, not the name of a choice; "
                f"write single ones, such as {_single(key, keys)}"
            )
        OmegaConf.update(cfg, key.removeprefix("+"), value, force_add=True)  # also below a key that is there
    return cfg


def _follow(cfg: DictConfig, config: dict[str, Any], given: dict[str, Any]) -> None:
    """Change what was made of keys that are given."""
    for key, followers in FOLLOWERS.items():
        for follower in followers if key in given else ():
            if (before := OmegaConf.select(cfg, follower)) is not None and before == OmegaConf.select(cfg, key):
                OmegaConf.update(cfg, follower, given[key])
    before, place = config["paths"].get("data"), given.get("paths.data", os.environ.get("QBSNN_DATA"))
    if before and place and "data" in config:
        cfg.paths.data, cfg.data = str(place), _relocate(config["data"], before, str(place))


def _assignment(override: str) -> tuple[str, Any]:
    """The key and the value of an override."""
    key, equals, text = override.partition("=")
    if key.startswith("~") or not equals:
        key = key.lstrip("~")
        off = f"; {key}=null switches it off" if key.startswith(("callbacks.", "logger")) else ""
        raise SettingsError(f"{override}: nothing can be taken out of a checkpoint's settings{off}")
    return key, value_of(key, text)


def _single(group: str, keys: Sequence[str]) -> str:
    """A setting of a group, to be written."""
    if group == "callbacks":
        return "+callbacks.robustness._target_=qbsnn.callbacks.Robustness"
    return next((f"{key}=..." for key in keys if key.startswith(f"{group}.") and "._" not in key), f"{group}.KEY=VALUE")


def _relocate(node: Any, old: str, new: str) -> Any:
    """Replace a folder in every path of a configuration."""
    if isinstance(node, dict):
        return {key: _relocate(value, old, new) for key, value in node.items()}
    if isinstance(node, list):
        return [_relocate(value, old, new) for value in node]
    inside = isinstance(node, str) and (node == old or node.startswith((f"{old}/", f"{old}{os.sep}")))
    return new + node[len(old) :] if inside else node
