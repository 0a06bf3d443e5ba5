"""Numbers and configurations as people read them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

SPACE = "\u00a0"  # a number and its unit stay on one line
NONE = "–"


def percent(share: float | None, digits: int = 2) -> str:
    """A share in [0, 1] as a percentage.

    >>> percent(0.978), percent(0.5, 0), percent(None), percent(float("nan"))
    ('97.80\\xa0%', '50\\xa0%', '–', 'not finite')
    """
    if share is None:
        return NONE
    if not math.isfinite(share):
        return "not finite"
    return f"{100 * share:.{digits}f}{SPACE}%"


def number(value: float | None) -> str:
    """An integer with separators for thousands, another number with four significant digits.

    >>> number(1234567), number(0.123456), number(12345.6), number(None)
    ('1,234,567', '0.1235', '12,346', '–')
    """
    if value is None:
        return NONE
    if isinstance(value, int):
        return f"{value:,}"
    if not math.isfinite(value):
        return "not finite"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def energy(picojoules: float) -> str:
    """Picojoules in the unit that fits.

    >>> energy(12.34), energy(2_304_000), energy(26.63e6)
    ('12.34\\xa0pJ', '2.304\\xa0µJ', '26.63\\xa0µJ')
    """
    if not math.isfinite(picojoules):
        return "not finite"
    scale, unit = next((pair for pair in ((1e9, "mJ"), (1e6, "µJ"), (1e3, "nJ")) if picojoules >= pair[0]), (1.0, "pJ"))
    return f"{picojoules / scale:.4g}{SPACE}{unit}"


def three_digits(value: float) -> str:
    """A number with three significant digits; from 1,000 on all of its digits, instead of a power of ten.

    >>> three_digits(0.12345), three_digits(999.6), three_digits(23412.3)
    ('0.123', '1,000', '23,412')
    """
    return f"{value:.3g}" if abs(value) < 999.5 else f"{value:,.0f}"


def microjoules(picojoules: float) -> str:
    """Picojoules in microjoules, without the unit.

    >>> microjoules(4000.0), microjoules(1.2345e10)
    ('0.004', '12,345')
    """
    return three_digits(picojoules / 1e6)


def si(count: float) -> str:
    """A count with three significant digits and the prefix that fits.

    >>> si(1234567.0), si(999_600.0), si(950.0), si(0.0)
    ('1.23 M', '1 M', '950', '0')
    """
    rounded = abs(float(f"{count:.3g}"))
    scale, unit = next((pair for pair in ((1e9, " G"), (1e6, " M"), (1e3, " k")) if rounded >= pair[0]), (1.0, ""))
    return f"{count / scale:.3g}{unit}"


def duration(seconds: float) -> str:
    """Seconds in the two units that matter.

    >>> duration(4.23), duration(204), duration(3725)
    ('4.2\\xa0s', '3\\xa0min 24\\xa0s', '1\\xa0h 02\\xa0min')
    """
    if not math.isfinite(seconds):
        return "not finite"
    if seconds < 60:
        return f"{seconds:.1f}{SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{SPACE}min {rest:02d}{SPACE}s"
    return f"{minutes // 60}{SPACE}h {minutes % 60:02d}{SPACE}min"


def clock(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> clock(3725.4)
    '1:02:05'
    """
    minutes, second = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{second:02}"


def counted(count: int, one: str, many: str | None = None) -> str:
    """A count with its noun.

    >>> counted(1, "tie"), counted(0, "mismatch", "mismatches"), counted(1000, "image")
    ('1 tie', '0 mismatches', '1,000 images')
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """A nested configuration as dotted keys, the form Hydra takes on its command line.

    >>> list(flat({"optim": {"lr": 0.1, "betas": [0.9, 0.99]}, "seed": 1}))
    [('optim.lr', '0.1'), ('optim.betas', '[0.9, 0.99]'), ('seed', '1')]
    """
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def chosen(config: Mapping[str, Any], group: str) -> str | None:
    """The name of a configuration group's member: itself, its ``name``, or what its ``_target_`` builds.

    >>> chosen({"model": {"_target_": "qbsnn.models.vgg.vgg9"}}, "model")
    'vgg9'
    """
    member = config.get(group)
    if isinstance(member, Mapping):
        member = member.get("name") or str(member.get("_target_", "")).rpartition(".")[2]
    return str(member) if member else None
