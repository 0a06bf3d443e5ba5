"""Result files and what is made from them: figures, one page per run and one over all. Needs no torch.

:func:`build` and :func:`build_index` are imported on first use: writing a result does not load matplotlib.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qbsnn.report.read import read_result
from qbsnn.report.schema import Result

if TYPE_CHECKING:
    from qbsnn.report.index import build_index
    from qbsnn.report.page import build

__all__ = ["Result", "build", "build_index", "read_result"]


def __getattr__(name: str) -> Any:
    if name == "build":
        from qbsnn.report.page import build

        return build
    if name == "build_index":
        from qbsnn.report.index import build_index

        return build_index
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
