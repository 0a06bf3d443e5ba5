"""Figures that others published, each with its source."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from qbsnn.errors import DataError

FILE = Path(__file__).with_name("published.yaml")


@dataclass(frozen=True)
class Published:
    """One figure.

    Args:
        key: ``SET/NAME``.
        source: Short name of where it was published.
        origin: What that source is.
        method: What was measured.
        accuracy: Test accuracy in %.
        T: Time steps.
        network: The architecture.
        top5: Accuracy of the best five classes in %.
        energy: % of the same network with ReLU neurons, as the source counts it.
    """

    key: str
    source: str
    origin: str
    method: str
    accuracy: float
    T: int | None = None
    network: str | None = None
    top5: float | None = None
    energy: float | None = None

    @property
    def data(self) -> str:
        """The data set, by its name in the settings.

        >>> figure("cifar10/document_ann", "here").data
        'cifar10'
        """
        return self.key.partition("/")[0]


@cache
def published() -> dict[str, Published]:
    """All figures by key, ``SET/NAME``."""
    content = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    sources: dict[str, str] = content["sources"]
    return {
        f"{group}/{name}": Published(key=f"{group}/{name}", origin=sources[fields["source"]], **fields)
        for group, figures in content["figures"].items()
        for name, fields in figures.items()
    }


def figure(key: str, where: str) -> Published:
    """The figure of a key.

    Raises:
        DataError: There is none; the message says ``where`` it was asked for.
    """
    if key not in published():
        group = [name for name in published() if name.startswith(f"{key.partition('/')[0]}/")]
        raise DataError(f"{where}: published.yaml has no {key!r}; there are {', '.join(group or published())}")
    return published()[key]


def of_the_same_sets(keys: list[str]) -> list[Published]:
    """All figures of the data sets that ``keys`` are about, in the order of the file."""
    groups = {key.partition("/")[0] for key in keys}
    return [found for found in published().values() if found.data in groups]
