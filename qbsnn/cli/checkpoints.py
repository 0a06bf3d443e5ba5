"""What the tools on a checkpoint share: their arguments, and the integer network that the checkpoint's run deployed."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf, open_dict

from qbsnn.checks import nearest
from qbsnn.errors import SettingsError
from qbsnn.training import checkpoints
from qbsnn.training.deployment import Deployed, convert, present
from qbsnn.training.devices.processes import one_process
from qbsnn.training.fine_tuning import stored
from qbsnn.training.settings import deploy_settings, validate
from qbsnn.training.setup import Parts, build, load_weights


class Given(NamedTuple):
    """A command line taken apart: the checkpoint and its contents, the tool's own arguments, the overrides."""

    checkpoint: Path
    contents: dict[str, Any]
    own: dict[str, str]
    overrides: list[str]
    trust: list[str]

    def config(self, run: Path, loggers: dict[str, Any] | None = None) -> DictConfig:
        """The checkpoint's configuration with the overrides, for a new run directory; without loggers if none given."""
        cfg = stored_config(self.contents, self.checkpoint, self.overrides, run, loggers)
        with open_dict(cfg):
            cfg.trust = self.trust
        return cfg


def read_arguments(
    arguments: list[str], usage: str, required: Collection[str] = (), own: Collection[str] = ()
) -> Given:
    """Read ``ckpt=PATH key=value ...`` and load the checkpoint.

    Args:
        arguments: of the command line; ``trust=PACKAGE`` is one that every tool takes.
        usage: what to say where one is missing.
        required: the tool's arguments besides ``ckpt``.
        own: others that it takes.

    Raises:
        SettingsError: an argument is missing or no ``key=value``.
        CheckpointError: the checkpoint cannot be read.
    """
    given = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    if not {"ckpt", *required} <= given.keys() or len(given) != len(arguments):
        raise SettingsError(f"usage: {usage}, got {' '.join(arguments) or 'nothing'}")
    checkpoint = Path(given.pop("ckpt")).resolve()
    mine = {key: given.pop(key) for key in [*required, *own] if key in given}
    contents = checkpoints.load(checkpoint)
    trust = [name for name in given.pop("trust", "").strip("[]").split(",") if name]
    return Given(checkpoint, contents, mine, [f"{key}={value}" for key, value in given.items()], trust)


def deployed_network(given: Given, run: Path) -> tuple[Parts, Deployed]:
    """The integer network of a checkpoint, made as its run did, and the parts around it with test data set up."""
    settings = validate(given.config(run)) | {"logger": None, "callbacks": None}
    parts = build({**settings, "trainer": one_process(settings["trainer"])})
    load_weights(parts.module, given.contents, given.checkpoint)
    parts.data.prepare_data()
    parts.data.setup("test")
    group = deploy_settings(parts.settings)
    tune = lambda network, quantized: stored(network, group, given.checkpoint)  # noqa: E731
    return parts, present(convert(parts.module.network.eval(), group, parts.data, tune).deployed)


def stored_config(
    contents: dict[str, Any], checkpoint: Path, overrides: list[str], run: Path, loggers: dict[str, Any] | None = None
) -> DictConfig:
    """The configuration that a checkpoint carries, changed for a new run.

    Args:
        contents: of the checkpoint.
        checkpoint: its file.
        overrides: ``key=value`` for keys that it has.
        run: the new run directory.
        loggers: in the place of those that the run had.

    Raises:
        CheckpointError: the checkpoint carries none, or one that is no plain values.
        SettingsError: for a key that the configuration does not have.
    """
    config = checkpoints.stored(contents, checkpoint)
    cfg = OmegaConf.create(_relocate(config, config["paths"]["run"], str(run.resolve())))
    cfg.logger = loggers
    OmegaConf.set_struct(cfg, True)
    for override in overrides:
        key, value = override.split("=", 1)
        parent, _, last = key.rpartition(".")
        node = OmegaConf.select(cfg, parent) if parent else cfg
        if not isinstance(node, DictConfig) or last not in node:
            raise SettingsError(
                f"{key} is not a setting of this checkpoint: "
                + nearest(last, [str(k) for k in node] if isinstance(node, DictConfig) else [str(k) for k in cfg])
            )
        OmegaConf.update(cfg, key, OmegaConf.from_dotlist([f"value={value}"]).value)
    return cfg


def _relocate(node: Any, old: str, new: str) -> Any:
    """Replace the run directory in every path of a configuration."""
    if isinstance(node, dict):
        return {key: _relocate(value, old, new) for key, value in node.items()}
    if isinstance(node, list):
        return [_relocate(value, old, new) for value in node]
    inside = isinstance(node, str) and (node == old or node.startswith((f"{old}/", f"{old}{os.sep}")))
    return new + node[len(old) :] if inside else node
