"""The templates of the HTML pages."""

from __future__ import annotations

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined


def templates() -> Environment:
    """Those of this package; values are escaped, and a name that is not given is an error."""
    return Environment(
        loader=ChoiceLoader([PackageLoader("qbsnn.report", folder) for folder in ("run", "runs")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
