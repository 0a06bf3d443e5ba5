"""Readers of Prophesee's files: EVT 2.0 and EVT 3.0 in .raw, and .dat.

Sources: https://docs.prophesee.ai/stable/data/encoding_formats/ (evt2, evt3) and
https://docs.prophesee.ai/stable/data/file_formats/dat.html.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qbsnn.data.events.events import Events
from qbsnn.data.events.readers.binary import geometry, percent_header
from qbsnn.data.events.readers.recording import Convention, Recording, from_integers, in_blocks
from qbsnn.errors import DataError


def read_raw(path: Path, convention: Convention) -> Recording:
    """EVT 2.0 or EVT 3.0, as the header says."""
    data = path.read_bytes()
    header, start = percent_header(data)
    version = re.search(r"(?:evt|format evt)\s?(\d)", header)
    if version is None or version[1] not in "23":
        said = f"EVT {version[1]}" if version else "none"
        raise DataError(f"{path}: its header must name the encoding, EVT 2.0 or EVT 3.0, got {said}")
    width = 4 if version[1] == "2" else 2
    if (len(data) - start) % width:
        raise DataError(
            f"{path}: {len(data) - start:,} bytes behind the header are no whole number of words of {width}"
        )
    words = np.frombuffer(data, f"<u{width}", offset=start)
    return Recording(evt2(words) if width == 4 else evt3(words), geometry(header))


def evt2(words: NDArray[np.uint32]) -> Events:
    """Events of words of 32 bits, ``[N]``; the upper 4 bits are the kind.

    8: the time's upper 28 bits. 0, 1: an event of this polarity with the time's lower 6 bits (22 to 27), x (11 to 21)
    and y (0 to 10). Other kinds are no events.
    """
    return _in_blocks(words, _evt2, 34)


def _evt2(words: NDArray[np.uint32]) -> tuple[Events, NDArray[np.uint32], int]:
    """As ``_evt3``."""
    kind = words >> 28
    high, known = _latest(words & 0x0FFFFFFF, kind == 8)
    high = _unwrapped(high, 28)
    event = (kind <= 1) & known
    found = words[event]
    events = from_integers(found >> 11 & 2047, found & 2047, high[event] * 64 + (found >> 22 & 63), kind[event])
    state = [8 << 28 | int(high[-1]) % (1 << 28)] if known[-1:].any() else []
    return events, np.array(state, np.uint32), int(high[-1]) >> 28 if len(words) else 0


def evt3(words: NDArray[np.uint16]) -> Events:
    """Events of words of 16 bits, ``[N]``; the upper 4 bits are the kind, and each word changes a part of the state.

    0: y (bits 0 to 10). 8 and 6: the time's upper and lower 12 bits. 2: an event at x (bits 0 to 10), polarity in bit
    11. 3: x and polarity of the next vectors. 4 and 5: a vector, an event at x + i for each bit i of 12 or 8; x then
    grows by 12 or 8. Other kinds are no events.
    """
    return _in_blocks(words, _evt3, 24)


def _in_blocks(
    words: NDArray[Any], decode: Callable[[NDArray[Any]], tuple[Events, NDArray[Any], int]], bits: int
) -> Events:
    """The events that ``decode`` makes of a block at a time, the state handed on as words; times have so many bits."""
    state, wraps = words[:0], 0

    def go_on(block: NDArray[Any]) -> Events:
        nonlocal state, wraps
        events, state, more = decode(np.concatenate([state, block]))
        events["t"] += wraps << bits
        wraps += more
        return events

    return in_blocks(words, go_on)


def _evt3(words: NDArray[np.uint16]) -> tuple[Events, NDArray[np.uint16], int]:
    """The events of a block; words that set the state at its end; how often the time has overflowed in it."""
    kind = words >> 12
    value = (words & 0x0FFF).astype(np.int64)
    y, has_y = _latest(value & 2047, kind == 0)
    high, has_high = _latest(value, kind == 8)
    high = _unwrapped(high, 12)
    # The lower bits begin anew where the upper ones change, but not where these are only said again.
    low, _ = _latest(np.where(kind == 6, value, 0), (kind == 6) | (np.diff(high, prepend=-1) != 0))
    t = high * 4096 + low

    moves = np.where(kind == 4, 12, np.where(kind == 5, 8, 0))
    before = np.cumsum(moves) - moves
    base, has_base = _latest((value & 2047) - before, kind == 3)
    polarity, _ = _latest(value >> 11, kind == 3)
    single = np.flatnonzero((kind == 2) & has_y & has_high)
    vectors = np.flatnonzero(((kind == 4) | (kind == 5)) & has_y & has_high & has_base)
    bits = np.where(kind[vectors] == 4, value[vectors], value[vectors] & 255)
    row, bit = np.nonzero(bits[:, None] >> np.arange(12) & 1)
    of = vectors[row]

    place = np.concatenate([single, of])
    order = np.argsort(place, kind="stable")
    x = np.concatenate([value[single] & 2047, base[of] + before[of] + bit])
    p = np.concatenate([value[single] >> 11, polarity[of]])
    events = from_integers(x[order], y[place[order]], t[place[order]], p[order])
    state = []
    if len(words):
        if has_high[-1]:
            state += [0x8000 | int(high[-1]) % 4096, 0x6000 | int(low[-1])]
        if has_y[-1]:
            state.append(int(y[-1]))
        if has_base[-1]:
            state.append(0x3000 | int(polarity[-1]) << 11 | int(base[-1] + before[-1] + moves[-1]) & 2047)
    return events, np.array(state, np.uint16), int(high[-1]) >> 12 if len(words) else 0


def read_dat(path: Path, convention: Convention) -> Recording:
    """Behind the header two bytes, kind and size of an event (8).

    An event is µs in 32 bits, then x, y and polarity in 14, 14 and 1 bits.
    """
    data = path.read_bytes()
    header, start = percent_header(data)
    if not header or len(data) < start + 2:
        raise DataError(f"{path}: it must begin with lines of % and hold the kind of its events, got {data[:14]!r}")
    kind, size = data[start], data[start + 1]
    if size != 8:
        raise DataError(f"{path}: its events must have 8 bytes, got kind {kind} of {size} bytes")
    length = len(data) - start - 2
    if length % 8:
        raise DataError(f"{path}: {length:,} bytes behind the header are no whole number of events of 8 bytes")

    def decode(words: NDArray[Any]) -> Events:
        t, packed = words.T
        return from_integers(packed & 16383, packed >> 14 & 16383, t.astype(np.int64), packed >> 28 & 1)

    words = np.frombuffer(data, "<u4", offset=start + 2).reshape(-1, 2)
    return Recording(in_blocks(words, decode), geometry(header))


def _latest(values: NDArray[Any], given: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """For each place the last value given there or before, 0 before the first; and whether there is one."""
    where = np.maximum.accumulate(np.where(given, np.arange(len(given)), -1))
    known = where >= 0
    return np.where(known, values[where], 0).astype(np.int64), known


def _unwrapped(high: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    """Counters ``[N]`` of so many bits that grow on past their overflow: a step back by more than half is one."""
    back = np.diff(high, prepend=high[:1]) <= -(1 << (bits - 1))
    return high + (np.cumsum(back) << bits)
