"""What the sets that torchvision reads have in common: where their files are, and how they get there."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from qbsnn.data import folders
from qbsnn.data.folders import Archive
from qbsnn.data.images.arrays import ImageDataModule
from qbsnn.errors import DataError


class TorchvisionImages(ImageDataModule):
    """Images in torchvision's own layout below ``root``, read by torchvision's class ``source``."""

    source: ClassVar[Any]
    hint: ClassVar[str] = ""  # another way to get the files; {folder} stands for the folder they belong in

    @property
    @abstractmethod
    def folder(self) -> Path:
        """The folder that the files belong in, absolute."""

    @property
    def place(self) -> Path:
        """The folder that the archives belong in, absolute."""
        return self.folder

    @abstractmethod
    def archives(self) -> list[Archive]:
        """The published archives."""

    @abstractmethod
    def file_names(self) -> list[str]:
        """The files that must be in ``folder``."""

    def get(self, archive: Archive, target: Path) -> None:
        """Download an archive into ``target``."""
        folders.torchvision_download(archive, target)

    def prepare_data(self) -> None:
        """Unpack or download the files that are absent; raises DataError with the steps to do by hand.

        Checksums of archives are compared whatever ``verify`` says.
        """
        folders.provide(self.place, self._absent(), self.name, self.download, True, self.get, self._note())

    def require(self) -> None:
        """Raise DataError if a file is absent."""
        if absent := self._absent():
            raise DataError(
                f"{self.name}: {absent[0].missing(self.place)[0]} is missing from {self.place}, and prepare_data() has "
                f"not been called. By hand: {folders.steps(self.place, absent)}{self._note()}"
            )

    def _absent(self) -> list[Archive]:
        return [archive for archive in self.archives() if archive.missing(self.place)]

    def _note(self) -> str:
        hint = " " + self.hint.format(folder=self.folder) if self.hint else ""
        page = f"https://docs.pytorch.org/vision/stable/generated/torchvision.datasets.{self.source.__name__}.html"
        return f"{hint} The set is described at {page}"
