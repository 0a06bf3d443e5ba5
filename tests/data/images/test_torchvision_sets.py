import contextlib
import functools
import gzip
import hashlib
import http.server
import pickle
import shutil
import socket
import threading
from pathlib import Path

import pytest
import torch
from torchvision import datasets

from qbsnn.data import CIFAR10, CIFAR100, MNIST, FashionMNIST, folders
from qbsnn.data.images import mnist as mnist_file
from qbsnn.errors import DataError
from tests.data.images import tiny

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
WRITERS = {
    CIFAR10: tiny.write_tiny_cifar10,
    CIFAR100: tiny.write_tiny_cifar100,
    MNIST: functools.partial(tiny.write_tiny_mnist, cls=datasets.MNIST),
    FashionMNIST: functools.partial(tiny.write_tiny_mnist, cls=datasets.FashionMNIST),
}


def written(cls: type, root: Path, **options) -> type:
    """``cls`` for a tiny set just written to ``root``."""
    return type(cls.__name__, (cls,), {"source": WRITERS[cls](root=root, **options)})


def everything(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(self, address):
        if self.family != socket.AF_UNIX and address[0] != "127.0.0.1":
            raise ConnectionRefusedError(f"a test asked for {address}")
        return connect(self, address)

    connect = socket.socket.connect
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("cls", WRITERS)
def test_true_layout(cls, verify, tmp_path):
    module = written(cls, tmp_path)(root=tmp_path, download=False, verify=verify)
    before = everything(tmp_path)
    module.prepare_data()
    module.setup()
    assert everything(tmp_path) == before
    sizes = module.split_sizes()
    assert sizes["train"] + sizes["val"] == 250 and sizes["val"] == 25
    assert torch.cat([module.indices["train"], module.indices["val"]]).sort().values.tolist() == list(range(250))
    # the same images as torchvision's own class gives
    for part, train in (("val", True), ("test", False)):
        source = module.source(tmp_path, train=train)
        pixels = torch.cat([x for x, _ in getattr(module, f"{part}_dataloader")()])
        assert pixels.shape[1:] == module.in_shape
        for image, index in zip(pixels, module.indices[part].tolist(), strict=True):
            expected = torch.from_numpy(source.data[index]).permute(2, 0, 1) if "CIFAR" in cls.__name__ else None
            expected = source.data[index][None] if expected is None else expected
            assert torch.equal((image * 255).round().byte(), expected)
    # a shuffled loader over all classes
    labels = torch.cat([y for _, y in module.test_dataloader()])
    assert labels.unique().tolist() == list(range(module.num_classes))


def test_without_checksums_the_true_class_reads_foreign_files(tmp_path):
    for cls in WRITERS:
        written(cls, tmp_path)
        module = cls(root=str(tmp_path), verify=False)
        module.prepare_data()
        module.setup()
        assert module.split_sizes()["train"] == 225
        with pytest.raises(DataError, match="MD5 checksum"):
            cls(root=tmp_path).setup("fit")


@pytest.mark.parametrize("cls", WRITERS)
def test_archives_are_unpacked_without_a_network(cls, tmp_path):
    module = written(cls, tmp_path, packed=True)(root=tmp_path, download=False)
    before = everything(tmp_path)
    module.prepare_data()
    module.setup()
    assert module.split_sizes()["train"] == 225
    names = {str((module.folder / name).relative_to(tmp_path)) for name in module.file_names()}
    assert set(everything(tmp_path)) - set(before) - {module.folder.name} == names
    assert set(before) <= set(everything(tmp_path))


@pytest.mark.parametrize("cls", WRITERS)
@pytest.mark.parametrize("damage", ["flip", "cut"])
def test_damaged_archives_are_named(cls, damage, tmp_path):
    module = written(cls, tmp_path, packed=True)(root=tmp_path)
    archive = max(tmp_path.rglob("*.gz"), key=lambda path: path.stat().st_size)
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(data if damage == "flip" else data[: len(data) // 2])
    before = everything(tmp_path)
    with pytest.raises(DataError, match=f"{archive} is damaged"):
        module.prepare_data()
    assert everything(tmp_path) == before


def test_an_archive_of_something_else_is_refused(tmp_path):
    module = written(MNIST, tmp_path, packed=True)(root=tmp_path, verify=False)
    with gzip.open(module.folder / "t10k-labels-idx1-ubyte.gz", "wb") as file:
        file.write(b"something else")
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz is damaged or another file: its MD5"):
        module.prepare_data()
    assert not (module.folder / "t10k-labels-idx1-ubyte").exists()


def test_an_archive_that_was_packed_again_is_known_by_its_content(tmp_path, monkeypatch):
    module = written(MNIST, tmp_path, packed=True)(root=tmp_path)
    name, checksum = module.source.resources[0]
    packed = module.folder / name
    data = gzip.decompress(packed.read_bytes())
    monkeypatch.setitem(mnist_file.CONTENT_MD5, checksum, hashlib.md5(data).hexdigest())
    packed.write_bytes(gzip.compress(data[:-1] + b"?", mtime=1))
    with pytest.raises(DataError, match=f"{packed} is damaged or another file: its content's MD5 checksum is"):
        module.prepare_data()
    packed.write_bytes(gzip.compress(data, mtime=1)[:-9])
    with pytest.raises(DataError, match=f"{packed} cannot be unpacked: .*If it is damaged, delete it and start again"):
        module.prepare_data()
    assert not packed.with_suffix("").exists()
    packed.write_bytes(gzip.compress(data, mtime=1))
    module.prepare_data()
    assert packed.with_suffix("").read_bytes() == data


@pytest.mark.parametrize("cls", WRITERS)
@pytest.mark.parametrize("download", [True, False])
def test_absent(cls, download, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    source = WRITERS[cls](root=tmp_path / "elsewhere")
    root = tmp_path / "not" / "there"
    module = type(cls.__name__, (cls,), {"source": source})(root=root, download=download)
    before, timeout = everything(tmp_path), socket.getdefaulttimeout()
    with pytest.raises(DataError) as caught:
        module.prepare_data()
    message = str(caught.value)
    assert everything(tmp_path) == before and socket.getdefaulttimeout() == timeout
    assert "\n" not in message
    assert f"{module.file_names()[0]} is missing from {module.place}, and" in message
    assert all(
        archive.name in message and archive.url.removesuffix(archive.name) in message for archive in module.archives()
    )
    assert module.folder.is_absolute()
    assert ("the download failed (" if download else "data.download is false") in message
    assert tiny.NOWHERE in message and f"generated/torchvision.datasets.{cls.__name__}.html" in message
    assert ("apt install dataset-fashion-mnist" in message) == (cls is FashionMNIST)
    with pytest.raises(DataError, match=r"prepare_data\(\) has not been called"):
        module.setup("fit")


class Quiet(http.server.SimpleHTTPRequestHandler):
    cut = False

    def log_message(self, *_):
        pass

    def copyfile(self, source, outputfile):
        data = source.read()
        with contextlib.suppress(ConnectionError):  # torchvision asks where a file is, and hangs up
            outputfile.write(data[: len(data) // 2] if self.cut else data)


@pytest.fixture(params=[False, True], ids=["whole", "cut short"])
def server(request, tmp_path):
    """An HTTP server of ``tmp_path / "served"``, and whether it closes the connection in the middle of a file."""
    (tmp_path / "served").mkdir()
    handler = functools.partial(type("Handler", (Quiet,), {"cut": request.param}), directory=tmp_path / "served")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/", request.param
        running.shutdown()
        thread.join()


@pytest.mark.parametrize("cls", [CIFAR10, FashionMNIST])
def test_download(cls, server, tmp_path, capfd):
    url, cut = server
    module_type = written(cls, tmp_path / "served", packed=True)
    for packed in list((tmp_path / "served").rglob("*.gz")):
        shutil.move(packed, tmp_path / "served" / packed.name)
    where = {"url": url + module_type.source.filename} if cls is CIFAR10 else {"mirrors": [tiny.NOWHERE, url]}
    module_type.source = type(cls.__name__, (module_type.source,), where)
    module = module_type(root=tmp_path / "root")
    if cut:
        with pytest.raises(DataError, match="the download failed"):
            module.prepare_data()
        assert not module.root.exists()
    else:
        module.prepare_data()
        archives = [archive.name for archive in module.archives()]
        names = sorted([*module.file_names(), *archives])
        assert sorted(path.name for path in module.root.rglob("*") if path.is_file()) == names
        module.setup()
        # a second start fetches one file that has gone, and leaves the others alone
        for name in archives:
            (module.place / name).unlink()
        gone, kept = (module.folder / name for name in module.file_names()[:2])
        gone.unlink()
        changed = kept.stat().st_mtime_ns
        module.prepare_data()
        assert gone.is_file() and kept.stat().st_mtime_ns == changed
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("cls", WRITERS)
@pytest.mark.parametrize("train", [True, False])
def test_cut_files_are_named(cls, verify, train, tmp_path):
    module = written(cls, tmp_path)(root=tmp_path, verify=verify)
    number = {CIFAR10: (3, 5), CIFAR100: (0, 1)}.get(cls, (0, 2))[0 if train else 1]
    path = module.folder / module.file_names()[number]
    for length in (path.stat().st_size - 1, 5, 0):
        path.write_bytes(path.read_bytes()[:length])
        module.prepare_data()
        with pytest.raises(DataError, match=f"{path} .*is damaged"):
            module.setup("fit" if train else "test")
        assert module.split_sizes() == {}


@pytest.mark.parametrize("cls", [CIFAR10, CIFAR100])
def test_a_flipped_bit_is_noticed(cls, tmp_path):
    module = written(cls, tmp_path)(root=tmp_path)
    for path in sorted(module.folder.iterdir()):
        data = bytearray(path.read_bytes())
        data[-10] ^= 1
        path.write_bytes(data)
        with pytest.raises(DataError, match=f"{path} is damaged: its MD5 checksum"):
            type(module)(root=tmp_path).setup()
        data[-10] ^= 1
        path.write_bytes(data)
    module.setup()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"data": torch.zeros(4, 3072).byte().numpy(), "labels": [0, 1, 2]}, "4 images, but 3 labels"),
        ({"data": torch.zeros(4, 3072).byte().numpy()}, "KeyError: 'fine_labels'"),
        ({"data": torch.zeros(4, 99).byte().numpy(), "labels": [0] * 4}, "cannot reshape"),
        ({"data": torch.zeros(4, 3072).numpy(), "labels": [0] * 4}, "pixels must be uint8"),
        ({"data": torch.zeros(4, 3072).byte().numpy(), "labels": [0, 1, 2, 10]}, "labels must be from 0 to 9"),
        (["nothing"], "TypeError"),
    ],
)
def test_structure_is_checked_without_checksums(entry, message, tmp_path):
    module = written(CIFAR10, tmp_path)(root=tmp_path, verify=False)
    (module.folder / "test_batch").write_bytes(pickle.dumps(entry))
    module.setup("fit")
    with pytest.raises(DataError, match=message):
        module.setup("test")


def test_test_images_are_not_read_for_training(tmp_path):
    for cls in (CIFAR100, MNIST):
        module = written(cls, tmp_path)(root=tmp_path)
        for name in module.file_names():
            if name.startswith(("test", "t10k")):
                (module.folder / name).write_bytes(b"damaged")
        module.setup("fit")
        with pytest.raises(DataError, match="is damaged"):
            module.setup("test")


def test_content_checksums_cover_torchvisions_resources():
    published = [checksum for source in (datasets.MNIST, datasets.FashionMNIST) for _, checksum in source.resources]
    assert list(mnist_file.CONTENT_MD5) == published


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs Debian's package dataset-fashion-mnist")
def test_the_real_fashion_mnist_from_debian(tmp_path):
    module = FashionMNIST(root=tmp_path, download=False)
    module.folder.mkdir(parents=True)
    for packed in DEBIAN.glob("*.gz"):
        (module.folder / packed.name).symlink_to(packed)
    module.prepare_data()
    module.setup()
    assert module.split_sizes() == {"train": 54000, "val": 6000, "test": 10000}
    for part, split in module._splits.items():
        assert split.labels.bincount().tolist() == [module.split_sizes()[part] // 10] * 10
    pixels = torch.cat([module._splits[part].pixels for part in ("train", "val")]).double() / 255
    assert module.mean == pytest.approx([pixels.mean().item()], abs=1e-3)
    assert module.std == pytest.approx([pixels.std().item()], abs=1e-3)


def test_the_steps_by_hand_name_a_common_place_once():
    archives = [folders.Archive(name, f"https://x/y/{name}", "", ()) for name in ("a.gz", "b.gz")]
    assert folders.steps(Path("d"), archives).startswith("save a.gz, b.gz from https://x/y/ in d; it is unpacked")
