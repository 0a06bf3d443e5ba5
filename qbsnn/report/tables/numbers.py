"""The numbers of a table as text."""

from __future__ import annotations

from qbsnn.results.formatting import NONE
from qbsnn.results.statistics import Difference, Summary

TEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "µ": r"\textmu{}",
    "–": "--",
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "Δ": r"$\Delta$",
    "Σ": r"$\Sigma$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "λ": r"$\lambda$",
    "τ": r"$\tau$",
    "[": "{[}",  # at the start of a row it would be an argument of the line break before it
    **{char: f"\\{char}" for char in "%_&#${}"},
    **{char: f"${char}$" for char in "<>|"},
}


def spread(found: Summary | None, digits: int = 2) -> str:
    """``mean ± sd``.

    >>> spread(Summary(97.5, 0.25, 3)), spread(Summary(97.5, None, 1)), spread(None)
    ('97.50 ± 0.25', '97.50', '–')
    """
    if found is None:
        return NONE
    return f"{found.mean:.{digits}f}" + (f" ± {found.sd:.{digits}f}" if found.sd is not None else "")


def difference(found: Difference | None) -> str:
    """The difference with its interval, p and the number of pairs.

    >>> difference(Difference(1.5, 0.25, 2.75, 0.031, 3)), difference(Difference(-0.5, None, None, None, 1))
    ('+1.50 [+0.25, +2.75], p = 0.031, 3 pairs', '−0.50, 1 pair')
    """
    if found is None:
        return NONE
    parts = [f"{found.mean:+.2f}"]
    if found.low is not None and found.high is not None:
        parts[0] += f" [{found.low:+.2f}, {found.high:+.2f}]"
    if found.p is not None:
        parts.append("p < 0.001" if found.p < 0.001 else f"p = {found.p:.2g}")
    parts.append(f"{found.pairs} pair" + "s" * (found.pairs != 1))
    return ", ".join(parts).replace("-", "−")


def si(found: Summary | None) -> str:
    """A mean count with the prefix that fits.

    >>> si(Summary(1234567.0, None, 1)), si(Summary(950.0, 1.0, 2)), si(Summary(0.0, None, 1)), si(None)
    ('1.23 M', '950', '0', '–')
    """
    if found is None:
        return NONE
    scale, unit = next((pair for pair in ((1e9, " G"), (1e6, " M"), (1e3, " k")) if found.mean >= pair[0]), (1.0, ""))
    return f"{found.mean / scale:.3g}{unit}"


def microjoules(picojoules: float) -> str:
    """Three significant digits, without an exponent for large values.

    >>> microjoules(4000.0), microjoules(1.2345e10)
    ('0.004', '12,345')
    """
    value = picojoules / 1e6
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def tex(text: str) -> str:
    r"""``text`` with everything escaped that LaTeX would take for a command, symbols as commands.

    >>> tex("s_max = 8 ± 1 %"), tex("−0.5")
    ('s\\_max = 8 $\\pm$ 1 \\%', '$-$0.5')
    """
    return "".join(TEX.get(char, char) for char in text)
