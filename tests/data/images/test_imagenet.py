import io
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from qbsnn.data import ImageNet, TinyImageNet
from qbsnn.data.images.decoding import decode
from qbsnn.errors import DataError
from tests.data.test_loading import epoch_of, same

pytestmark = pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")


def jpeg(value: int, height: int = 12, width: int = 16) -> bytes:
    pixels = np.random.default_rng(value).integers(0, 256, (height, width, 3), np.uint8)
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "JPEG")
    return written.getvalue()


WNIDS = [f"n{1000 + 7 * i:08d}" for i in range(1000)]
TINY = WNIDS[:200]


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory) -> Path:
    """``{train,val}/<WordNet id>/*.JPEG`` of 1000 classes, two and one images each."""
    root = tmp_path_factory.mktemp("imagenet")
    data = [jpeg(i, 12 + i % 3) for i in range(9)]
    for part, names in (("train", ("a", "b")), ("val", ("c",))):
        for i, wnid in enumerate(WNIDS):
            (root / part / wnid).mkdir(parents=True)
            for k, name in enumerate(names):
                (root / part / wnid / f"{wnid}_{name}.JPEG").write_bytes(data[(i + k) % 9])
    return root


def write_tiny(root: Path, packed: bool = False) -> Path:
    """``train/<id>/images/*.JPEG``, ``val/images``, ``val/val_annotations.txt``, ``wnids.txt``, ``words.txt``."""
    data = [jpeg(i, 64, 64) for i in range(7)]
    files = {"wnids.txt": "\n".join(reversed(TINY)).encode()}
    files["words.txt"] = "\n".join(f"{wnid}\tthing {i}, object" for i, wnid in enumerate(WNIDS)).encode()
    for i, wnid in enumerate(TINY):
        for k in range(2):
            files[f"train/{wnid}/images/{wnid}_{k}.JPEG"] = data[(i + k) % 7]
        files[f"train/{wnid}/{wnid}_boxes.txt"] = b""
        files[f"val/images/val_{i}.JPEG"] = data[i % 7]
    rows = [f"val_{i}.JPEG\t{wnid}\t0\t0\t63\t63" for i, wnid in enumerate(TINY)]
    files["val/val_annotations.txt"] = "\n".join(rows).encode()
    folder = root / "tiny-imagenet-200"
    if packed:
        with zipfile.ZipFile(root / "tiny-imagenet-200.zip", "w") as archive:
            for name, content in files.items():
                archive.writestr(f"tiny-imagenet-200/{name}", content)
        return folder
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def made(root: Path, **options) -> ImageNet:
    settings = {"root": root, "verify": False, "size": 16, "batch_size": 8, "limit_train": 64, "limit_val": 8}
    return ImageNet(**settings | options)


def tiny(root: Path, **options) -> TinyImageNet:
    settings = {"root": root, "verify": False, "download": False, "size": 64, "random_crop": False, "val_fraction": 0.1}
    return TinyImageNet(**settings | options)


def test_imagenet_in_plain_folders(imagenet):
    data = made(imagenet, limit_train=None, limit_val=None, val_fraction=0.1)
    data.prepare_data()
    data.setup()
    assert data.split_sizes() == {"train": 1800, "val": 200, "test": 1000}
    assert data._splits["test"].labels.tolist() == list(range(1000))
    pixels, labels = next(iter(data.train_dataloader()))
    assert pixels.shape == (8, 3, 16, 16) and labels.dtype == torch.int64
    data.on_before_batch_transfer((pixels, labels), 0)
    split = data._splits["test"]
    image = decode(split.paths[5])
    expected = v2.functional.center_crop(v2.functional.resize(image, [18], antialias=True), [16, 16])
    assert torch.equal(split[5][0], expected.float() / 255)
    assert len(data.class_names) == 1000 and data.class_names[0] == "tench"


def test_imagenet_through_torchvisions_meta(imagenet):
    meta = imagenet / "meta.bin"
    torch.save(({wnid: (f"name {i}",) for i, wnid in enumerate(WNIDS)}, [WNIDS[0]]), meta)
    try:
        data = made(imagenet)
        data.setup("test")
        assert data._splits["test"].labels.tolist() == list(range(1000))
        torch.save((dict.fromkeys(WNIDS[1:], ("x",)), []), meta)
        with pytest.raises(DataError, match=f"imagenet: val cannot be used: .*{WNIDS[0]}"):
            made(imagenet).setup("test")
        meta.write_bytes(b"nothing")
        with pytest.raises(DataError, match="imagenet: val cannot be used"):
            made(imagenet).setup("test")
    finally:
        meta.unlink()


def test_imagenet_without_files_or_with_others(imagenet, tmp_path):
    with pytest.raises(
        DataError, match=r"imagenet: .*train is missing\. By hand: get ILSVRC2012_img_train\.tar.*point data"
    ):
        made(tmp_path / "none").prepare_data()
    with pytest.raises(DataError, match=r"cannot list .*train: No such file"):
        made(tmp_path / "none").setup()
    with pytest.raises(DataError, match="are not ImageNet's 1000 WordNet ids"):
        made(imagenet, verify=True).setup("test")
    moved = imagenet / "val" / WNIDS[3]
    moved.rename(tmp_path / "elsewhere")
    try:
        with pytest.raises(DataError, match=f"other class folders; {WNIDS[3]} is in one of them only"):
            made(imagenet).setup("test")
        (imagenet / "val" / WNIDS[3]).mkdir()
        with pytest.raises(DataError, match=f"val cannot be used: .*{WNIDS[3]}"):
            made(imagenet).setup("test")
        (imagenet / "val" / WNIDS[3]).rmdir()
    finally:
        (tmp_path / "elsewhere").rename(moved)


@pytest.mark.parametrize("cache", ["none", "disk"])
@pytest.mark.parametrize("damage", ["cut", "text", "empty"])
def test_a_corrupt_jpeg_is_named_or_skipped_and_counted(imagenet, tmp_path, cache, damage, caplog):
    path = imagenet / "val" / WNIDS[4] / f"{WNIDS[4]}_c.JPEG"
    good, other = path.read_bytes(), path.with_name(f"{WNIDS[4]}_d.JPEG")
    other.write_bytes(good)  # without it the class would be lost
    path.write_bytes({"cut": good[: len(good) // 2], "text": b"no image", "empty": b""}[damage])

    def run(on_bad_sample: str) -> tuple[ImageNet, int]:
        data = made(imagenet, cache=cache, cache_dir=tmp_path, on_bad_sample=on_bad_sample, batch_size=100)
        data.setup("test")
        return data, sum(len(labels) for _, labels in data.test_dataloader())

    try:
        with pytest.raises(DataError, match=f"{path.name}: is no sound image: "):
            run("raise")
        data, count = run("skip")
        assert count == 1000 and data.describe()["skipped"] == {"test": [str(path)]}
        data.teardown("test")
        assert "imagenet: 1 test samples were skipped" in caplog.text
    finally:
        path.write_bytes(good)
        other.unlink()


def test_batches_do_not_depend_on_workers(imagenet):
    runs = []
    for workers in (0, 1, 2):
        data = made(imagenet, num_workers=workers, autoaugment="randaugment", cutout=4, mix="cutmix")
        data.setup("fit")
        loader = data.train_dataloader()
        runs.append([epoch_of(loader, epoch) for epoch in (0, 1)])
    for epochs in runs:
        assert all(same(one, two) for one, two in zip(epochs, runs[0], strict=True))
    assert not same(*runs[0]) and runs[0][0][0][1].shape == (8, 1000)


def test_tiny_imagenet(tmp_path):
    write_tiny(tmp_path)
    data = tiny(tmp_path, crop=8, limit_train=64, batch_size=8)
    data.prepare_data()
    data.setup()
    assert data.split_sizes() == {"train": 64, "val": 40, "test": 200}
    # the list is sorted by file name, val_10 before val_2
    labels = data._splits["test"].labels.tolist()
    assert labels == sorted(range(200), key=lambda i: f"val_{i}.JPEG")
    assert data.class_names[3] == "thing 3" and len(data.class_names) == 200
    assert next(iter(data.train_dataloader()))[0].shape == (8, 3, 64, 64)
    plain = torch.cat([pixels for pixels, _ in data.test_dataloader()])
    cached = tiny(tmp_path, cache="disk")
    cached.setup("test")
    assert torch.equal(torch.cat([pixels for pixels, _ in cached.test_dataloader()]), plain)
    again = tiny(tmp_path, cache="disk")
    again.setup("test")
    assert again.describe()["cache"]["test"]["hits"] == 200


def test_tiny_imagenet_from_its_archive_and_damaged(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"is missing .* By hand: save http://cs231n\S+ as tiny-imagenet-200\.zip in "):
        tiny(tmp_path).prepare_data()
    folder = write_tiny(tmp_path, packed=True)
    data = tiny(tmp_path)
    data.prepare_data()
    data.setup("test")
    assert data.split_sizes() == {"test": 200}
    with pytest.raises(
        DataError, match="train holds 400 of 100,000 images, as if the archive were extracted only in part"
    ):
        tiny(tmp_path, verify=True).setup("fit")
    shutil.rmtree(folder / "train" / TINY[9])
    with pytest.raises(DataError, match=f"1 classes have no images in train, {TINY[9]} is the first"):
        tiny(tmp_path).setup("fit")
    annotations = folder / "val/val_annotations.txt"
    annotations.write_text(annotations.read_text().replace(TINY[5], "n99999999"))
    with pytest.raises(DataError, match=r"is of class n99999999, which wnids\.txt does not name"):
        tiny(tmp_path).setup("test")
    annotations.unlink()
    with pytest.raises(DataError, match=r"val_annotations\.txt cannot be read"):
        tiny(tmp_path).setup("test")
    (folder / "wnids.txt").write_text("n1\nn2")
    with pytest.raises(DataError, match=r"wnids\.txt must name 200 classes, got 2"):
        tiny(tmp_path).setup("test")


SMALL = (
    "debug=tiny",
    "report=false",
    "data.verify=false",
    "data.num_workers=0",
    "data.batch_size=4",
    "model.width=0.125",
)


def test_a_resnet_on_imagenet(tool, imagenet):
    command = ["data=imagenet", "model=resnet18", "model.stem=imagenet", "T=2", f"data.root={imagenet}", "data.size=64"]
    assert tool("train.py", *command, *SMALL) == 0
    result = tool.result()
    assert result["status"] == "finished" and result["data"]["name"] == "imagenet"
    assert result["absorption"]["spike_mismatches"] == result["integer"]["spike_mismatches"] == 0
    assert result["integer"]["images"] == 8


def test_a_resnet_on_tiny_imagenet(tool):
    write_tiny(tool.folder / "data")
    assert tool("train.py", "data=tiny_imagenet", "model=resnet18", "T=2", *SMALL) == 0
    assert tool.result()["status"] == "finished" and tool.result()["data"]["name"] == "tiny_imagenet"
