"""Readers of the cameras' own binary files, from the published descriptions of their formats.

Libraries were tried first: expelliarmus reads times of EVT3 4096 µs too late and truncated files without a word, Tonic
takes every packet of AEDAT 3.1 for polarity events.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from qbsnn.data.events.events import EVENT, Events
from qbsnn.data.events.readers.recording import Convention, Recording, from_integers, in_blocks
from qbsnn.errors import DataError

CAMERAS = {
    b"dvs128": (128, 128),
    b"davis128": (128, 128),
    b"davis240": (240, 180),
    b"davis346": (346, 260),
    b"davis640": (640, 480),
}
"""Width and height of those whose AEDAT 2.0 is read, by what the header says."""


def read_bin(path: Path, convention: Convention) -> Recording:
    """N-MNIST and N-Caltech101: five bytes an event, x, y, and 1 bit of polarity above 23 bits of µs, big-endian.

    y = 240 marks an overflow of the time by 2^13 µs. Source: Orchard et al., read by ``Read_Ndataset.m`` of the set.
    """
    raw = np.fromfile(path, np.uint8)
    if len(raw) % 5:
        raise DataError(f"{path}: {len(raw):,} bytes are no whole number of events of 5 bytes")
    x, y, high, middle, low = raw.reshape(-1, 5).T
    overflow = y == 240
    t = ((high & 127).astype(np.int64) << 16) | (middle.astype(np.int64) << 8) | low
    t += np.cumsum(overflow) * 2**13
    kept = ~overflow
    return Recording(from_integers(x[kept], y[kept], t[kept], high[kept] >> 7))


def read_aedat(path: Path, convention: Convention) -> Recording:
    """AEDAT 2.0 of jAER and AEDAT 3.1 of cAER.

    Source: https://docs.inivation.com/software/software-advanced-usage/file-formats/ (AEDAT 2.0 and 3.1).
    """
    data = path.read_bytes()
    version = re.match(rb"#!AER-DAT(\d)\.(\d)", data)
    if version is None:
        raise DataError(f"{path}: it must begin with #!AER-DAT2.0 or #!AER-DAT3.1, got {data[:14]!r}")
    if version.groups() == (b"3", b"1"):
        return _aedat3(data, path)
    if version[1] == b"2":
        return _aedat2(data, path)
    if version[1] == b"4":
        raise DataError(f"{path}: it is AEDAT 4: rename it to {path.stem}.aedat4")
    raise DataError(f"{path}: AEDAT {version[1].decode()}.{version[2].decode()} is not read; 2.0, 3.1 and 4 are")


def _aedat2(data: bytes, path: Path) -> Recording:
    """Address and µs, 32 bits each, big-endian, behind lines that begin with #.

    The header names the camera, as AEChip. A DVS128 has polarity in bit 0 (0 is on), x in bits 1 to 7 and y in bits 8
    to 14; bit 15 marks what is no event. A DAVIS has polarity in bit 11 (1 is on), x in bits 12 to 21 and y in bits 22
    to 30; bits 31 and 10 mark what is no event. Both count from the lower right corner, as libcaer and jAER know.
    """
    start = 0
    while data[start : start + 1] == b"#":
        end = data.find(b"\n", start)
        if end < 0:
            raise DataError(f"{path}: its header has no end")
        start = end + 1
    header, size = data[:start].lower(), len(data) - start
    if size % 8:
        raise DataError(f"{path}: {size:,} bytes behind the header are no whole number of events of 8 bytes")
    camera = next((name for name in CAMERAS if name in header), None)
    if camera is None:
        names = ", ".join(name.decode().upper() for name in CAMERAS)
        raise DataError(f"{path}: its header must name the camera in a line # AEChip: ..., one of {names}")
    width, height = CAMERAS[camera]

    def decode(words: NDArray[Any]) -> Events:
        address, t = words.astype(np.int64).T
        event = address & (1 << 15) == 0 if camera == b"dvs128" else address & (1 << 31 | 1 << 10) == 0
        address, t = address[event], t[event]
        if camera == b"dvs128":
            x, y, on = address >> 1 & 127, address >> 8 & 127, address & 1 == 0
        else:
            x, y, on = address >> 12 & 1023, address >> 22 & 511, address >> 11 & 1 == 1
        return from_integers(width - 1 - x, height - 1 - y, t, on)

    return Recording(in_blocks(np.frombuffer(data, ">u4", offset=start).reshape(-1, 2), decode), (width, height))


def _aedat3(data: bytes, path: Path) -> Recording:
    """Packets with a head of 28 bytes behind the line #!END-HEADER, little-endian.

    Those of type 1 hold polarity events: bit 0 valid, bit 1 polarity, bits 2 to 16 y, bits 17 to 31 x, then 31 bits of
    µs; the head counts how often these have overflowed.
    """
    end = re.search(rb"#!END-HEADER\r?\n", data)
    if end is None:
        raise DataError(f"{path}: its header has no end, #!END-HEADER")
    at = end.end()
    found = [np.zeros(0, EVENT)]
    while at < len(data):
        if at + 28 > len(data):
            raise DataError(f"{path}: it is truncated inside the head of a packet")
        kind, _ = np.frombuffer(data, "<i2", 2, at).tolist()
        size, _, overflow, capacity, number, _ = np.frombuffer(data, "<i4", 6, at + 4).tolist()
        if size <= 0 or capacity < 0 or not 0 <= number <= capacity or overflow < 0:
            raise DataError(f"{path}: the head of its packet at byte {at:,} is damaged")
        if at + 28 + size * number > len(data):
            raise DataError(f"{path}: it is truncated inside a packet of {number:,} events")
        if kind == 1:
            if size != 8:
                raise DataError(f"{path}: polarity events must have 8 bytes, got {size}")
            words = np.frombuffer(data, "<u4", 2 * number, at + 28).reshape(-1, 2)
            words = words[words[:, 0] & 1 == 1]
            address, t = words[:, 0], words[:, 1].astype(np.int64) + (overflow << 31)
            found.append(from_integers(address >> 17, address >> 2 & 0x7FFF, t, address >> 1 & 1))
        at += 28 + size * capacity
    return Recording(np.concatenate(found))


def read_aedat4(path: Path, convention: Convention) -> Recording:
    """AEDAT 4, by the package aedat: the first stream of events."""
    try:
        import aedat
    except ImportError as error:
        raise DataError(f"{path}: AEDAT 4 needs the package aedat: pip install 'qbsnn[aedat]'") from error
    _check_aedat4(path)
    found = [np.zeros(0, EVENT)]
    try:
        decoder = aedat.Decoder(path)
        streams = {number: stream for number, stream in decoder.id_to_stream().items() if stream["type"] == "events"}
        if not streams:
            raise DataError(f"{path}: it holds no stream of events")
        number = min(streams)
        for packet in decoder:
            if packet["stream_id"] == number:
                events = packet["events"]
                polarity = events["on"] if "on" in (events.dtype.names or ()) else events["p"]
                found.append(from_integers(events["x"], events["y"], events["t"].astype(np.int64), polarity))
    except (DataError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of Rust is no Exception
        raise DataError(f"{path}: it is truncated or damaged: {error}") from error
    size = (int(streams[number]["width"]), int(streams[number]["height"]))
    return Recording(np.concatenate(found), size)


def _check_aedat4(path: Path) -> None:
    """Raise DataError for a damaged head: the package aedat ends the process at one that is not UTF-8.

    Behind the line of the version stand the length of the head, 32 bits, and the head, which holds an XML text.
    """
    with path.open("rb") as file:
        begin = file.read(14)
        if begin != b"#!AER-DAT4.0\r\n":
            raise DataError(f"{path}: it must begin with #!AER-DAT4.0, got {begin!r}")
        length = int.from_bytes(file.read(4), "little")
        if length > path.stat().st_size - 18:
            raise DataError(f"{path}: it is truncated or damaged: it ends inside its head of {length:,} bytes")
        text = re.search(rb"<dv[ >].*</dv>", file.read(length), re.DOTALL)
    try:
        ElementTree.fromstring(text[0].decode() if text else "")
    except (UnicodeDecodeError, ElementTree.ParseError) as error:
        raise DataError(f"{path}: it is truncated or damaged: its head must hold an XML text: {error}") from error


def percent_header(data: bytes) -> tuple[str, int]:
    """Prophesee's header, lines that begin with "% ", in lower case, and where it ends."""
    at = 0
    while data[at : at + 2] == b"% " or data[at : at + 2] == b"%\n":
        end = data.find(b"\n", at)
        if end < 0:
            break
        line, at = data[at : end + 1], end + 1
        if line.strip() == b"% end":
            break
    return data[:at].decode("latin-1").lower(), at


def geometry(header: str) -> tuple[int, int] | None:
    """Width and height in a header of Prophesee's."""
    if found := re.search(r"geometry\s+(\d+)\s*x\s*(\d+)", header):
        return int(found[1]), int(found[2])
    width, height = re.search(r"width[ =](\d+)", header), re.search(r"height[ =](\d+)", header)
    return (int(width[1]), int(height[1])) if width and height else None
