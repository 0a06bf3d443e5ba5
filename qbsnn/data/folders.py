"""A set's folder on the disk: is it whole, can it be unpacked or downloaded, and what to do by hand if not."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.client
import io
import logging
import shutil
import socket
import tarfile
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from qbsnn.errors import DataError
from qbsnn.results.files import walk

log = logging.getLogger(__name__)

DOWNLOAD_TIMEOUT = 20.0  # seconds without a byte
# a full disk or no network, a wrong checksum, and what the standard library raises on damaged archives
FETCH_ERRORS = (
    OSError, RuntimeError, EOFError, http.client.HTTPException, tarfile.TarError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


@dataclass(frozen=True)
class Archive:
    """A published archive: its file's ``name`` in a set's folder, where it is, its MD5, what it unpacks to there.

    content_md5: of its only content, where that is known: the archive itself may then have been packed again.
    """

    name: str
    url: str
    md5: str
    content: tuple[str, ...]
    content_md5: str | None = None

    def missing(self, folder: Path) -> list[str]:
        """What of the content ``folder`` lacks."""
        return [name for name in self.content if not (folder / name).exists()]


Download = Callable[[Archive, Path], None]


def md5(path: Path) -> str:
    """The MD5 checksum of a file, as the sources publish it."""
    with path.open("rb") as file:
        digest = hashlib.md5(usedforsecurity=False)
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


@contextlib.contextmanager
def stage(folder: Path, name: str) -> Iterator[Path]:
    """An empty folder on the file system of ``folder`` that vanishes afterwards, whatever is left in it."""
    parent = folder
    while not parent.exists():
        parent = parent.parent
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=parent) as made, warnings.catch_warnings():
        # tarfile on Python 3.12 and 3.13, about a default that torchvision leaves open
        warnings.simplefilter("ignore", DeprecationWarning)
        yield Path(made)


@contextlib.contextmanager
def quiet_network() -> Iterator[None]:
    """Downloads that print nothing and give up after ``DOWNLOAD_TIMEOUT``."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        socket.setdefaulttimeout(before)


def one_line(error: BaseException) -> str:
    """An error's text on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def unpack(folder: Path, archive: Archive, verify: bool) -> None:
    """Unpack ``folder/archive.name``; each part of its content appears whole or not at all. Raises DataError."""
    path = folder / archive.name

    def compare(file: Path, whose: str, expected: str) -> None:
        if verify and (found := md5(file)) != expected:
            raise DataError(
                f"{path} is damaged or another file: {whose} MD5 checksum is {found} instead of {expected}. Delete it "
                "and start again"
            )

    if archive.content_md5 is None:
        compare(path, "its", archive.md5)
    log.info("unpacking %s", path)
    try:
        with stage(folder, "unpack") as target:
            extract(path, target)
            for name in archive.missing(folder):
                if not (target / name).exists():
                    raise DataError(f"{path} does not hold {name}")
                if archive.content_md5 is not None:
                    compare(target / name, "its content's", archive.content_md5)
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (target / name).replace(folder / name)
    except FETCH_ERRORS as error:
        why = one_line(error)
        raise DataError(f"{path} cannot be unpacked: {why}. If it is damaged, delete it and start again") from error


def steps(folder: Path, archives: Sequence[Archive]) -> str:
    """What to do by hand to get the archives."""
    parts = [f"{archive.url} as {archive.name}" for archive in archives]
    bases = {archive.url.removesuffix(archive.name) for archive in archives}
    if len(archives) > 1 and len(bases) == 1:
        parts = [f"{', '.join(archive.name for archive in archives)} from {bases.pop()}"]
    return f"save {' and '.join(parts)} in {folder}; it is unpacked at the next start."


def provide(
    folder: Path, archives: Sequence[Archive], name: str, download: bool, verify: bool, get: Download, note: str = ""
) -> None:
    """Unpack or download what is absent; raises DataError with the steps to do by hand, and ``note`` behind them."""
    for archive in archives:
        if not archive.missing(folder):
            continue
        if not (folder / archive.name).is_file():
            what = f"{name}: {archive.missing(folder)[0]} is missing from {folder}"
            by_hand = f"By hand: {steps(folder, archives)}{note}"
            if not download:
                raise DataError(f"{what}, and data.download is false. {by_hand}")
            log.info("downloading %s into %s", archive.name, folder)
            try:
                with stage(folder, name) as made, quiet_network():
                    get(archive, made)
                    folder.mkdir(parents=True, exist_ok=True)
                    (made / archive.name).replace(folder / archive.name)
            except FETCH_ERRORS as error:
                raise DataError(f"{what}, and the download failed ({one_line(error)}). {by_hand}") from error
        unpack(folder, archive, verify)


def torchvision_download(archive: Archive, target: Path) -> None:
    """Download an archive into ``target`` with torchvision."""
    from torchvision.datasets.utils import download_url

    download_url(archive.url, target, archive.name, archive.md5)


def tonic_download(archive: Archive, target: Path) -> None:
    """Download an archive into ``target`` with Tonic."""
    from tonic.download_utils import download_url

    download_url(archive.url, str(target), archive.name, archive.md5)


def extract(path: Path, target: Path) -> None:
    """Unpack a zip or tar archive or a single .gz file into ``target``, and the zip archives inside it."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as packed:
            packed.extractall(target)
        for inner in sorted(target.glob("*.zip")):
            extract(inner, target)
            inner.unlink()
        return
    if path.suffix == ".gz" and not path.stem.endswith(".tar"):
        with gzip.open(path) as read, (target / path.stem).open("wb") as write:
            shutil.copyfileobj(read, write)
        return
    with tarfile.open(path) as packed_tar:
        packed_tar.extractall(target, filter="data")


def listed(folder: Path, suffix: str, name: str) -> list[Path]:
    """All files below ``folder`` with this suffix, sorted by path, see :func:`qbsnn.results.files.walk`.

    Raises DataError where a folder cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise DataError(f"{name}: cannot list {error.filename}: {error.strerror}") from error

    return sorted(path for path in walk(folder, refuse) if path.name.endswith(suffix))
