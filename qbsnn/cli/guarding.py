"""What a file of settings may not say, whoever wrote it; only the command line may."""

from __future__ import annotations

from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.default_element import ResultDefault
from omegaconf import DictConfig, OmegaConf

from qbsnn.errors import SettingsError

_load = ConfigLoaderImpl._load_single_config


def guard() -> None:
    """Have every file checked that Hydra composes.

    Hydra configures logging, sets environment variables and builds its own callbacks from what it composed before a
    line of this project sees it. Its loader of single files is the only place before that.
    """
    ConfigLoaderImpl._load_single_config = _checked  # type: ignore[method-assign]


def _checked(self: ConfigLoaderImpl, default: ResultDefault, repo: Any) -> Any:
    """Hydra's loader of one file, which lies in its package of the whole configuration afterwards."""
    result, path = _load(self, default, repo), str(default.config_path)
    config = result.config
    if not isinstance(config, DictConfig):
        return result
    outside = "command-line" in result.provider or "searchpath" in result.provider
    if config.get("hydra") and (outside or not path.startswith("hydra/")):
        raise SettingsError(f"{path}.yaml may not set hydra: Hydra's own settings belong on the command line")
    if OmegaConf.select(config, "trust") is not None:
        raise SettingsError(f"{path}.yaml may not set trust: whom to trust is said on the command line, trust=PACKAGE")
    for key in ("run", "outputs"):
        if not path.startswith("paths/") and "paths" in config and key in (config.paths or {}):
            raise SettingsError(f"{path}.yaml may not set paths.{key}: where a run is written is said by hydra.run.dir")
    return result
