"""The libraries that draw the page of all runs, as scripts that can stand in it.

The table is DataTables, from the wheel of ``itables``, and the charts are Vega-Lite, from that of
``vl-convert-python``: both show what they are told in data, load nothing, obey a policy that forbids ``eval``, and add
1.6 MB to a page. Of what else was tried, Bokeh needs ``eval`` and draws in fixed colours and sizes, and Plotly adds
5 MB to each page and its points are no links.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

import vl_convert


@cache
def scripts() -> list[str]:
    """The scripts of Vega-Lite and of DataTables, which define ``vegaEmbed`` and ``jQuery`` for the page."""
    # The second is a module, and a script of a page cannot import what another one there exports.
    tables = re.sub(r"export\{([^}]*)\};", lambda found: _assigned(found[1]), datatables("js"))
    # What could end the script, or start another one, in the eyes of an HTML parser.
    charts = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return [re.sub(r"<(?=!--|/?script)", r"\\x3C", text) for text in (charts, tables)]


def datatables(kind: str) -> str:
    """The text of DataTables, ``js`` or ``css``."""
    return files("itables").joinpath(f"html/dt_bundle.{kind}").read_text(encoding="utf-8")


def _assigned(exported: str) -> str:
    """What ``a as b,c as d`` exports, as properties of the page's ``window``.

    >>> _assigned("Go as ITable,Tt as jQuery,vh as default")
    'window.ITable=Go;window.jQuery=Tt;'
    """
    pairs = (pair.split(" as ") for pair in exported.split(","))
    return "".join(f"window.{name}={local};" for local, name in pairs if name != "default")
