"""What the tools on a checkpoint share: their arguments, and the integer network that the checkpoint's run deployed."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig

from qbsnn.errors import SettingsError
from qbsnn.training import checkpoints as checkpoint_io
from qbsnn.training import fine_tuning as finetune
from qbsnn.training.devices import processes
from qbsnn.training.run import Parts, build, load_weights
from qbsnn.training.settings import stored_config, validate


class Given(NamedTuple):
    """A command line taken apart: the checkpoint and its contents, the tool's own arguments, the overrides."""

    checkpoint: Path
    contents: dict[str, Any]
    own: dict[str, str]
    overrides: list[str]

    def config(self, run: Path, loggers: dict[str, Any] | None = None) -> DictConfig:
        """The checkpoint's configuration with the overrides, for a new run directory; without loggers if none given."""
        return stored_config(self.contents, self.checkpoint, self.overrides, run, loggers)


def read_arguments(
    arguments: list[str], usage: str, required: Collection[str] = (), own: Collection[str] = ()
) -> Given:
    """Read ``ckpt=PATH key=value ...`` and load the checkpoint.

    required, own: the tool's arguments besides ``ckpt``. Raises SettingsError with ``usage`` where one is missing or is
    no ``key=value``, CheckpointError for a checkpoint that cannot be read.
    """
    given = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    if not {"ckpt", *required} <= given.keys() or len(given) != len(arguments):
        raise SettingsError(f"usage: {usage}, got {' '.join(arguments) or 'nothing'}")
    checkpoint = Path(given.pop("ckpt")).resolve()
    mine = {key: given.pop(key) for key in [*required, *own] if key in given}
    contents = checkpoint_io.load(checkpoint)
    return Given(checkpoint, contents, mine, [f"{key}={value}" for key, value in given.items()])


def deployed_network(given: Given, run: Path) -> tuple[Parts, finetune.Deployed]:
    """The integer network of a checkpoint, made as its run did, and the parts around it with test data set up."""
    plain = validate(given.config(run)) | {"logger": None, "callbacks": None}
    plain["trainer"] = processes.one_process(plain["trainer"])
    parts = build(plain)
    load_weights(parts.module, given.contents, given.checkpoint)
    parts.module.tuned = finetune.stored(parts.module, given.checkpoint)
    parts.data.prepare_data()
    parts.data.setup("test")
    return parts, finetune.deployed(parts.module.network.eval(), parts.module, parts.data)
