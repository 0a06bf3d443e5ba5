"""Building what a configuration names."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial, wraps
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.pytorch.callbacks import Callback

from qbsnn.checks import nearest, place
from qbsnn.errors import ArgumentError, QBSNNError, SettingsError


def build_object(node: Mapping[str, Any], where: str, **extra: Any) -> Any:
    """Hydra's instantiate, with the error that a user can mend brought to the surface.

    ``where`` is the node's place in the settings. It stands before the name of every argument that is refused, also by
    what a ``_partial_`` node builds later.
    """
    try:
        with place(where):
            built = instantiate(dict(node), _convert_="all", **extra)
    except InstantiationException as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ArgumentError):
                raise SettingsError(f"{where}.{cause}") from error
            if isinstance(cause, QBSNNError):
                raise cause from error
            if isinstance(cause, TypeError) and "unexpected keyword argument" in str(cause):
                key = str(cause).rsplit("'", 2)[-2]
                raise SettingsError(f"{where} does not take {key!r}: {nearest(key, node)}") from error
            last, cause = cause, cause.__cause__
        raise SettingsError(f"{where} cannot be built: {' '.join(str(last).split())}") from error
    return _placed(built, where) if isinstance(built, partial) else built


def _placed(factory: partial[Any], where: str) -> partial[Any]:
    """The factory with its signature and keywords, whose errors name the place."""

    @wraps(factory.func)
    def build(*args: Any, **options: Any) -> Any:
        with place(where):
            return factory.func(*args, **options)

    return partial(build, *factory.args, **factory.keywords)


def build_all(group: Mapping[str, Any] | None, where: str) -> list[Callback]:
    """Build every entry of a group that is not switched off with null."""
    return [build_object(node, f"{where}.{name}") for name, node in (group or {}).items() if node]
