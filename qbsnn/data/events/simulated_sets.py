"""Event sets simulated from images that need no recording: labelled simulated wherever they are named."""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from qbsnn.data.events.events import Events, Sensor
from qbsnn.data.events.module import EventDataModule
from qbsnn.data.events.recordings import Recordings
from qbsnn.data.events.simulate import PixelModel, simulate
from qbsnn.data.images.arrays import ImageDataModule
from qbsnn.data.images.digits import Digits
from qbsnn.data.images.mnist import FashionMNIST
from qbsnn.data.randomness import Purpose, generator
from qbsnn.data.signatures import with_settings


class SimulatedRecordings(Recordings):
    """Recordings of images ``pixels`` uint8 ``[N, H, W]`` from 0 to ``pixel_max``, enlarged by ``zoom``.

    Training and test images meet different noise, so that none tells of a label of the other.
    """

    def __init__(
        self,
        names: list[str],
        labels: NDArray[np.int64],
        pixels: NDArray[np.uint8],
        pixel_max: int,
        zoom: int,
        travel: int,
        pixel: PixelModel,
        train: bool,
    ) -> None:
        height, width = (zoom * side + travel for side in pixels.shape[1:])
        super().__init__(names, labels, Sensor(width, height, 2))
        self.pixels, self.pixel_max, self.zoom, self.travel, self.pixel = pixels, pixel_max, zoom, travel, pixel
        self.stream = 0 if train or not pixel.noise_hz else 1

    def read(self, index: int) -> Events:
        """Simulate one recording."""
        image = np.kron(self.pixels[index] / self.pixel_max, np.ones((self.zoom, self.zoom)))
        return simulate(image, self.travel, self.pixel, generator(Purpose.NOISE, 0, self.stream, index))

    def fingerprint(self) -> Any:
        """The pictures, how they move and the camera."""
        digest = hashlib.sha256(self.pixels.tobytes() + self.labels.tobytes()).hexdigest()
        known = [digest, self.pixel_max, self.zoom, self.travel, self.pixel.key()]
        return [*known, self.stream] if self.stream else known


@with_settings
class SimulatedEvents(EventDataModule):
    """Events of the images of ``source``, each of its pixels ``zoom`` pixels of the sensor wide.

    pixel: the camera, see ``PixelModel``. The rest: see ``EventDataModule``.
    """

    source: ClassVar[type[ImageDataModule]]
    zoom: ClassVar[int]
    travel: ClassVar[int]  # of the saccades, in pixels of the sensor
    simulated = True

    def __init__(self, *, pixel: PixelModel | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        self.pixel = pixel if pixel is not None else PixelModel()
        self.images = self.source(root=self.root, download=self.download, verify=self.verify)

    def prepare_data(self) -> None:
        """Get the images."""
        self.images.prepare_data()

    def open(self, train: bool) -> tuple[Recordings, NDArray[np.int64], NDArray[np.int64]]:
        """Read the images; nothing is simulated yet."""
        images, labels, ids = self.images.open(train)
        names = [f"{self.name} (simulated), image {i} of {self.images.name}" for i in ids]
        pixels = images.pixels[:, 0].numpy()
        made = SimulatedRecordings(
            names, labels, pixels, self.images.pixel_max, self.zoom, self.travel, self.pixel, train
        )
        return made, labels, ids


class SimulatedDigitsDVS(SimulatedEvents):
    """Simulated events of scikit-learn's 1797 digits, on 20×20 pixels.

    >>> digits = SimulatedDigitsDVS(T=4, cache="none", batch_size=8, limit_test=8)
    >>> digits.setup("test")
    >>> frames, labels = next(iter(digits.test_dataloader()))
    >>> frames.shape, labels.shape
    (torch.Size([8, 4, 2, 20, 20]), torch.Size([8]))
    """

    name = "digits_dvs"
    source = Digits
    class_names = Digits.class_names
    zoom, travel = 2, 4
    sensor = Sensor(20, 20, 2)


class SimulatedFashionDVS(SimulatedEvents):
    """Simulated events of Fashion-MNIST, on 34×34 pixels, the size of N-MNIST's recordings."""

    name = "fashion_dvs"
    source = FashionMNIST
    class_names = FashionMNIST.class_names
    zoom, travel = 1, 6
    sensor = Sensor(34, 34, 2)
