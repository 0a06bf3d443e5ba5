"""Tiny sets in the true on-disk layouts, and torchvision classes that know their checksums and reach no network."""

import gzip
import hashlib
import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
from torchvision import datasets

from qbsnn.data import CIFAR10, CIFAR100

NOWHERE = "http://127.0.0.1:9/"  # the discard port: nothing listens


def write_tiny_cifar10(root: Path, n_train: int = 50, n_test: int = 50, seed: int = 0, packed: bool = False) -> type:
    """``n_train`` images in each of the five training files; ``packed`` leaves the archive only."""
    sizes = {**{f"data_batch_{k}": n_train for k in range(1, 6)}, "test_batch": n_test}
    return _write_cifar(root, datasets.CIFAR10, sizes, "labels", CIFAR10.class_names, seed, packed)


def write_tiny_cifar100(root: Path, n_train: int = 250, n_test: int = 100, seed: int = 0, packed: bool = False) -> type:
    return _write_cifar(
        root, datasets.CIFAR100, {"train": n_train, "test": n_test}, "fine_labels", CIFAR100.class_names, seed, packed
    )


def write_tiny_mnist(
    root: Path, cls: type, n_train: int = 250, n_test: int = 50, seed: int = 0, packed: bool = False
) -> type:
    """``cls`` is torchvision's MNIST or FashionMNIST; ``packed`` leaves the .gz files only."""
    raw = Path(root) / cls.__name__ / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    resources = []
    for k, (part, count) in enumerate((("train", n_train), ("t10k", n_test))):
        pixels, labels = _images(count, (28, 28), 10, seed + k)
        for name, array in ((f"{part}-images-idx3-ubyte", pixels), (f"{part}-labels-idx1-ubyte", labels)):
            head = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
            data = head + array.tobytes()
            zipped = gzip.compress(data, mtime=0)
            resources.append((f"{name}.gz", _md5(zipped)))
            (raw / (f"{name}.gz" if packed else name)).write_bytes(zipped if packed else data)
    return type(cls.__name__, (cls,), {"resources": resources, "mirrors": [NOWHERE]})


def _write_cifar(
    root: Path, cls: type, sizes: dict[str, int], key: str, names: tuple[str, ...], seed: int, packed: bool
) -> type:
    classes = len(names)
    files = {cls.meta["filename"]: pickle.dumps({cls.meta["key"]: list(names)})}
    for k, (name, count) in enumerate(sizes.items()):
        pixels, labels = _images(count, (3, 32, 32), classes, seed + k)
        files[name] = pickle.dumps({"data": pixels.reshape(count, -1), key: labels.tolist()})
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(f"{cls.base_folder}/{name}")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    if packed:
        (Path(root) / cls.filename).write_bytes(archive.getvalue())
    else:
        folder = Path(root) / cls.base_folder
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (folder / name).write_bytes(data)
    return type(
        cls.__name__,
        (cls,),
        {
            "url": NOWHERE + cls.filename,
            "tgz_md5": _md5(archive.getvalue()),
            "train_list": [[name, _md5(files[name])] for name, _ in cls.train_list],
            "test_list": [[name, _md5(files[name])] for name, _ in cls.test_list],
            "meta": {**cls.meta, "md5": _md5(files[cls.meta["filename"]])},
        },
    )


def _images(count: int, shape: tuple[int, ...], classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise, brighter in a row that tells the class, so that something can be learned."""
    labels = (np.arange(count) % classes).astype(np.uint8)
    pixels = np.random.default_rng(seed).integers(0, 128, (count, *shape), np.uint8)
    pixels[np.arange(count), ..., labels % shape[-2], :] += 100
    return pixels, labels


def _md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()
