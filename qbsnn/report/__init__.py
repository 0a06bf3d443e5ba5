"""Result files and what is made from them: figures and one page per run. Needs no torch.

:func:`build` is imported on first use, so that writing a result does not load matplotlib.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qbsnn.report.read import read_result
from qbsnn.report.schema import Result

if TYPE_CHECKING:
    from qbsnn.report.page import build

__all__ = ["Result", "build", "read_result"]


def __getattr__(name: str) -> Any:
    if name == "build":
        from qbsnn.report.page import build

        return build
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
