"""What Hydra's errors of composition mean, in a sentence each, with the setting or the option that was meant."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf

from qbsnn.checks import nearest
from qbsnn.cli.suggestions import dotted, suggestion
from qbsnn.errors import SettingsError

NEEDED = ("paths", "data", "model", "neuron", "optim", "trainer", "deploy", "hydra")
"""Groups that a run cannot do without."""

CHOICES = ("experiment", "sweep", "debug")
"""Groups whose options set other groups, so that no setting has their name."""

NO_NAME = "Config group override must be a string or a list"  # Hydra's words, in a ValueError


@contextmanager
def explained(conf: Path, config_name: str, words: Sequence[str]) -> Iterator[None]:
    """Turn Hydra's errors of composition inside into those of :func:`explain`, which has the same arguments."""
    try:
        yield
    except Exception as error:
        if not (isinstance(error, HydraException) or str(error).startswith(NO_NAME)):
            raise
        raise explain(error, conf, config_name, words) from error


def explain(error: Exception, conf: Path, config_name: str, words: Sequence[str]) -> SettingsError:
    """Explain an error of composition.

    Args:
        error: Hydra's.
        conf: the folder of the configuration.
        config_name: what is composed from it.
        words: the overrides that were given.

    Returns:
        An error of one sentence, with the nearest name that exists.
    """
    text = " ".join(str(error).split())
    if text.startswith(NO_NAME):
        return SettingsError(_no_option(conf, words))
    missing = re.search(r"Could not (?:find|load) '([\w\-./]+)/([^'/]*)'", text)
    if missing and (options := group_options(conf, missing[1])):
        group, name = missing.groups()
        return SettingsError(f"{group}={name}: no such {group}; {nearest(name, options)}")
    bare = re.search(r"Error parsing override '([^'=]+)' missing EQUAL", text)
    if bare:
        return SettingsError(f"{bare[1]} has no value: write {bare[1]}=VALUE")
    if isinstance(error, OverrideParseException):
        key, _, value = error.override.partition("=")
        return SettingsError(
            f"{error.override} cannot be read: a value with signs such as = , : [ {{ or spaces stands in quotes, and "
            f"the word in further ones for the shell: '{key}=\"{value}\"'"
        )
    twice = re.search(r"Multiple values for ([\w/@.]+)\.", text)
    if twice:
        return SettingsError(f"{twice[1]} is chosen already: write {twice[1]}=OPTION once, without +")
    absent = re.search(r"Could not override '([\w.\-/@]+)'|Could not delete from config\. '([\w.\-/@]+)'", text)
    if absent:
        return SettingsError(_no_setting(absent[1] or absent[2], conf, config_name, words))
    return SettingsError(re.split(r" Config search path| See https| To append", text)[0])


def group_options(conf: Path, group: str) -> list[str]:
    """The names that ``group=`` takes, sorted; empty where ``conf`` has no such group."""
    return sorted(path.stem for path in (conf / group).glob("*.yaml") if not path.stem.startswith("_"))


def _no_option(conf: Path, words: Sequence[str]) -> str:
    """The sentence for a group whose value is no name, such as null or 5."""
    for word in words:
        group, _, value = word.lstrip("+~").partition("=")
        options = group_options(conf, group)
        if options and re.fullmatch(r"(?i)null|true|false|nan|[+-]?(inf|[\d_.]+(e[+-]?\d+)?)|\{.*", value):
            without = "a run needs one" if group in NEEDED else f"write ~{group} to do without"
            return f"{group}={value}: {group} takes the name of an option, {without}; there are: {', '.join(options)}"
    return "a group takes the name of an option: GROUP=OPTION"


def _no_setting(key: str, conf: Path, config_name: str, words: Sequence[str]) -> str:
    """The sentence for a key that does not exist."""
    if "/" in key:
        groups = [path.relative_to(conf).as_posix() for path in conf.rglob("*") if path.is_dir()]
        return f"{key} is no group: {nearest(key, groups)}"
    keys = dict.fromkeys([*dotted(_composed(conf, config_name, words)), *CHOICES])
    return f"{key} is not a setting: {suggestion(key, list(keys))}"


def _composed(conf: Path, config_name: str, words: Sequence[str]) -> Any:
    """The configuration with nothing but the group choices among some words; without them where that fails too."""
    groups = [word for word in words if "=" in word and (conf / word.split("=", 1)[0].lstrip("+~")).is_dir()]
    for overrides in ([word for word in groups if "," not in word], []):
        try:
            GlobalHydra.instance().clear()
            with initialize_config_dir(str(conf.resolve()), version_base="1.3"):
                cfg: DictConfig = compose(config_name, overrides)
                return OmegaConf.to_container(cfg, resolve=False)
        except (HydraException, ValueError):
            continue
    return {}
