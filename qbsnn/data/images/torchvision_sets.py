"""What the sets that torchvision reads have in common: files that are present, unpacked, downloaded or missed."""

from __future__ import annotations

import contextlib
import logging
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from qbsnn.data.folders import FETCH_ERRORS, one_line, quiet_network, stage
from qbsnn.data.images.arrays import ImageDataModule
from qbsnn.errors import DataError

log = logging.getLogger(__name__)


class TorchvisionImages(ImageDataModule):
    """Images in torchvision's own layout below ``root``, read by torchvision's class ``source``."""

    source: ClassVar[Any]
    hint: ClassVar[str] = ""  # another way to get the files; {folder} stands for the folder they belong in

    @property
    @abstractmethod
    def folder(self) -> Path:
        """The folder that the files belong in, absolute."""

    @abstractmethod
    def file_names(self) -> list[str]:
        """The files that must be in ``folder``."""

    @abstractmethod
    def steps(self, missing: list[str]) -> str:
        """What to do by hand to get ``missing``, as sentences."""

    @abstractmethod
    def archives(self) -> list[Path]:
        """Archives on the disk that hold missing files."""

    @abstractmethod
    def unpack(self, stage: Path) -> None:
        """Unpack these archives into ``stage``, in the layout of ``root``."""

    @abstractmethod
    def fetch(self, stage: Path) -> None:
        """Download what is missing into ``stage``, in the layout of ``root``."""

    def prepare_data(self) -> None:
        """Unpack or download the files that are absent; raises DataError with the steps to do by hand."""
        if self.missing() and self.archives():
            try:
                with self._stage() as made:
                    self.unpack(made)
            except FETCH_ERRORS as error:
                raise DataError(f"{self.name}: cannot unpack into {self.folder}: {one_line(error)}") from error
        if not self.missing():
            return
        if not self.download:
            raise DataError(self._absent("data.download is false"))
        log.info("downloading %s into %s", self.name, self.folder)
        try:
            with self._stage() as made, quiet_network():
                self.fetch(made)
        except FETCH_ERRORS as error:
            raise DataError(self._absent(f"the download failed ({one_line(error)})")) from error
        if self.missing():
            raise DataError(self._absent("the download did not contain it"))

    def missing(self) -> list[str]:
        """Names of the files that ``folder`` lacks."""
        return [name for name in self.file_names() if not (self.folder / name).is_file()]

    def require(self) -> None:
        """Raise DataError if a file is absent."""
        if self.missing():
            raise DataError(self._absent("prepare_data() has not been called"))

    def _absent(self, reason: str) -> str:
        missing = self.missing()
        others = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        about = f"https://docs.pytorch.org/vision/stable/generated/torchvision.datasets.{self.source.__name__}.html"
        hint = " " + self.hint.format(folder=self.folder) if self.hint else ""
        return (
            f"{self.name}: {missing[0]}{others} is missing from {self.folder}, and {reason}. "
            f"By hand: {self.steps(missing)}{hint} The set is described at {about}"
        )

    @contextlib.contextmanager
    def _stage(self) -> Iterator[Path]:
        """An empty folder; what is missing and turned up there is moved into place, the rest vanishes with it.

        So a failure leaves nothing behind, and of two runs that start together neither sees half a file.
        """
        with stage(self.folder, self.name) as made:
            yield made
            arrived = made / self.folder.relative_to(self.root)
            for name in self.missing():
                if (arrived / name).is_file():
                    self.folder.mkdir(parents=True, exist_ok=True)
                    (arrived / name).replace(self.folder / name)


def downloader(source: Any, stage: Path, **changed: Any) -> Any:
    """A ``source`` object that only knows its root, with class attributes ``changed``: enough for its ``download()``.

    Constructing it in full would also read the data.
    """
    cls: Any = type(source.__name__, (source,), changed)
    made = cls.__new__(cls)
    made.root = str(stage)
    return made
