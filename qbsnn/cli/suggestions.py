"""Which setting was meant by a key that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

CLOSE = 0.6  # of two names, by difflib's ratio
SHOWN = 3


def dotted(node: Mapping[Any, Any], prefix: str = "") -> Iterator[str]:
    """All keys of nested settings with their whole path, groups before what is in them.

    >>> list(dotted({"T": 4, "neuron": {"tau": 2.0}}))
    ['T', 'neuron', 'neuron.tau']
    """
    for key, value in node.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from dotted(value, f"{prefix}{key}.")


def meant(key: str, keys: Sequence[str]) -> list[str]:
    """The whole keys that a wrong one may stand for, the likeliest first, three at most.

    These are the keys that end like the wrong one, part by part; else those whose every part is close to its part;
    else those whose last part is the same.

    >>> keys = ["T", "neuron.s_max", "neuron.tau", "optim.optimizer.lr", "model", "deploy.mode"]
    >>> meant("lr", keys), meant("neuron.smax", keys), meant("model.tau", keys), meant("modle", keys), meant("no", keys)
    (['optim.optimizer.lr'], ['neuron.s_max'], ['neuron.tau'], ['model'], [])
    """
    wrong = key.split(".")
    others = {name: name.split(".") for name in keys if name != key}
    if same := [name for name, parts in others.items() if parts[-len(wrong) :] == wrong]:
        return sorted(same, key=len)[:SHOWN]
    scores = {name: _closeness(wrong, parts) for name, parts in others.items()}
    if close := [name for name, score in scores.items() if score >= CLOSE]:
        best = max(scores[name] for name in close)
        return [name for name in close if scores[name] == best][:SHOWN]
    return sorted((name for name, parts in others.items() if parts[-1] == wrong[-1]), key=len)[:SHOWN]


def suggestion(key: str, keys: Sequence[str]) -> str:
    """A sentence that names what was meant, or what there is beside it.

    >>> suggestion("lr", ["optim.optimizer.lr", "T"])
    'did you mean optim.optimizer.lr?'
    >>> suggestion("neuron.nope", ["neuron", "neuron.tau", "T"])
    'there are: neuron.tau'
    """
    if found := meant(key, keys):
        first = ", ".join(found[:-1])
        return f"did you mean {f'{first} or ' if first else ''}{found[-1]}?"
    parent = key.rpartition(".")[0]
    while parent and parent not in keys:
        parent = parent.rpartition(".")[0]
    prefix = f"{parent}." if parent else ""
    beside = [name for name in keys if name.startswith(prefix) and "." not in name[len(prefix) :]]
    return f"there are: {', '.join(beside)}" if beside else f"{parent} has no settings"


def _closeness(wrong: Sequence[str], parts: Sequence[str]) -> float:
    """How close the last parts of a key are to a wrong one: the smallest ratio of two names; 0 if there are fewer.

    A key of as many parts, such as a group, is meant rather than one that lies deeper.
    """
    if len(parts) < len(wrong):
        return 0.0
    pairs = zip(wrong, parts[-len(wrong) :], strict=True)
    score = min(difflib.SequenceMatcher(None, one, other).ratio() for one, other in pairs)
    return score - 0.1 * (len(parts) - len(wrong))
