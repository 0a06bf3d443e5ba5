import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from qbsnn.data import ImageFolder, ImageNet, class_folders
from qbsnn.data.images.decoding import decode
from qbsnn.data.loading import EpochSampler
from qbsnn.errors import ArgumentError, DataError

SUFFIXES = ("png", "jpg", "jpeg", "webp", "bmp", "tif", "gif", "PNG")


def picture(path: Path, seed: int = 0, mode: str = "RGB", size: tuple[int, int] = (20, 14)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def pictures(root: Path, parts: dict[str, int], classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    """``parts``: folder -> pictures per class, of all suffixes, sizes and modes; ``"."`` is the root itself."""
    for part, each in parts.items():
        for k, name in enumerate(classes):
            for i in range(each):
                mode = ("RGB", "L")[i % 2]
                path = root / part / name / f"{i:03d}.{SUFFIXES[i % len(SUFFIXES)]}"
                picture(path, 100 * k + i, mode, (12 + i % 5, 12 + i % 7))
    return root


def made(root: Path, **options) -> ImageFolder:
    return ImageFolder(**{"root": root, "size": 12, "batch_size": 4, "random_crop": False} | options)


@pytest.mark.parametrize(
    ("parts", "sizes"),
    [
        ({"train": 8, "val": 3, "test": 2}, {"train": 16, "val": 6, "test": 4}),
        ({"train": 10, "test": 2}, {"train": 18, "val": 2, "test": 4}),
        ({"train": 10, "val": 2}, {"train": 18, "val": 4, "test": 2}),
        ({"train": 10}, {"train": 16, "val": 2, "test": 2}),
        ({".": 10}, {"train": 16, "val": 2, "test": 2}),
        ({"Train": 10, "TEST": 2}, {"train": 18, "val": 2, "test": 4}),
    ],
)
def test_absent_parts_are_held_out_of_the_training_pictures(tmp_path, parts, sizes, caplog):
    caplog.set_level("INFO")
    data = made(pictures(tmp_path / "pets", parts), cache_dir=tmp_path)
    data.setup()
    assert data.split_sizes() == sizes
    for part in ("val", "test"):
        assert (f"image_folder has no {part} files of its own" in caplog.text) == (part not in map(str.lower, parts))
    paths = [path for part in ("train", "val", "test") for path in data._splits[part].paths]
    assert len(set(paths)) == len(paths) == 2 * sum(parts.values())
    for part in sizes:
        split = data._splits[part]
        assert [path.parent.name for path in split.paths] == [data.class_names[label] for label in split.labels]
        pixels, labels = split[0]
        assert pixels.shape == (3, 12, 12) and labels.dtype == torch.int64
    again = made(data.root, cache_dir=tmp_path)
    again.setup()
    assert [again._splits[p].paths for p in sizes] == [data._splits[p].paths for p in sizes]
    other = made(data.root, cache_dir=tmp_path, split_seed=1)
    other.setup()
    assert ([other._splits[p].paths for p in sizes] == [data._splits[p].paths for p in sizes]) == (len(parts) == 3)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("cache", ["none", "memory", "disk"])
def test_grey_and_colour_cached_or_not(tmp_path, channels, cache):
    data = made(pictures(tmp_path / "pets", {"train": 8, "val": 8, "test": 8}), channels=channels, cache=cache)
    data.setup()
    assert data.in_shape == (channels, 12, 12)
    batch = torch.cat([pixels for pixels, _ in data.test_dataloader()])
    assert batch.shape == (16, channels, 12, 12)
    plain = made(data.root, channels=channels)
    plain.setup("test")
    assert torch.equal(batch, torch.cat([pixels for pixels, _ in plain.test_dataloader()]))
    assert next(iter(data.train_dataloader()))[0].shape == (4, channels, 12, 12)


def test_mean_and_deviation_are_computed_once_and_recorded(tmp_path, monkeypatch):
    data = made(pictures(tmp_path / "pets", {"train": 9, "val": 2, "test": 2}), cache_dir=tmp_path / "cache")
    data.setup()
    pixels = torch.cat([data._splits["train"]._view(0, i).flatten(1) for i in range(18)], 1).double() / 255
    assert data.mean == pytest.approx(pixels.mean(1).tolist())
    assert data.std == pytest.approx(pixels.std(1, correction=0).tolist())
    found = data.describe()
    assert found["classes"] == ["cat", "dog"] and found["mean"] == list(data.mean) and found["std"] == list(data.std)
    json.dumps(found)
    monkeypatch.setattr("qbsnn.data.images.folder.moments", None)
    again = made(data.root, cache_dir=tmp_path / "cache")
    assert (again.mean, again.std) == (data.mean, data.std)
    given = made(data.root, mean=[0.5] * 3, std=[0.25] * 3, cache_dir=tmp_path / "none")
    assert (given.mean, given.std) == ((0.5,) * 3, (0.25,) * 3) and not (tmp_path / "none").exists()
    picture(data.root / "train/cat/000.png", 77)
    with pytest.raises(TypeError):  # another file: they are to be computed anew
        _ = made(data.root, cache_dir=tmp_path / "cache").mean


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bits_keep_their_tones(tmp_path, suffix):
    values = np.array([[0, 128, 129, 257, 32768, 65278, 65535]], np.uint16)
    path = tmp_path / f"deep.{suffix}"
    Image.fromarray(values).save(path)
    assert decode(path, 1).tolist() == [[[0, 0, 1, 1, 128, 254, 255]]]
    assert torch.equal(decode(path, 3), decode(path, 1).expand(3, -1, -1))


def test_floats_from_0_to_1_are_converted_and_others_refused(tmp_path):
    path = tmp_path / "float.tif"
    Image.fromarray(np.array([[0, 0.25, 0.5, 1]], np.float32)).save(path)
    assert decode(path, 1).tolist() == [[[0, 64, 128, 255]]]
    for bad in (-0.1, 200.0, np.nan):
        Image.fromarray(np.array([[0, bad]], np.float32)).save(path)
        with pytest.raises(DataError, match=r"float\.tif: its floats must be from 0 \(black\) to 1 \(white\)"):
            decode(path)
    Image.fromarray(np.array([[0, 70000]], np.int32)).save(path)
    with pytest.raises(DataError, match=r"float\.tif: its integers of 32 bits have no known white"):
        decode(path)


def test_palettes_alpha_and_bits_become_colour(tmp_path):
    colour = np.zeros((4, 4, 3), np.uint8)
    colour[..., 0] = 200
    for mode in ("P", "RGBA", "CMYK"):
        path = tmp_path / f"{mode}.{'tif' if mode == 'CMYK' else 'png'}"
        Image.fromarray(colour).convert(mode).save(path)
        assert (decode(path).float() - torch.tensor([200.0, 0, 0])[:, None, None]).abs().max() < 8
    Image.fromarray(np.eye(4, dtype=bool)).save(tmp_path / "bits.png")
    assert torch.equal(decode(tmp_path / "bits.png", 1)[0], 255 * torch.eye(4, dtype=torch.uint8))


@pytest.mark.parametrize("cache", ["none", "memory", "disk"])
@pytest.mark.parametrize("table", [False, True])
def test_a_picture_that_is_gone_is_named_or_skipped_and_counted(tmp_path, cache, table):
    root = pictures(tmp_path / "pets", {"train": 6, "val": 2, "test": 4})
    gone = root / "test/dog/gone.png"
    if table:
        rows = [f"{path.relative_to(root)},{path.parent.name},{path.parent.parent.name}" for path in root.rglob("*.*")]
        (root / "set.csv").write_text("\n".join(["path,label,part", "test/dog/gone.png,dog,test", *rows]))
    else:
        gone.symlink_to(tmp_path / "nowhere.png")
    options = {"cache": cache, "table": "set.csv" if table else None}
    with pytest.raises(DataError, match=r"test/dog/gone\.png"):
        data = made(root, **options)
        data.setup("test")
        list(data.test_dataloader())
    data = made(root, on_bad_sample="skip", **options)
    data.setup()
    assert sum(len(labels) for _, labels in data.test_dataloader()) == 8
    assert data.describe()["skipped"] == {"test": [str(gone)]}


@pytest.mark.parametrize("cache", ["none", "memory", "disk"])
@pytest.mark.parametrize("content", [b"", b"no picture", None])
def test_a_bad_file_is_named_or_skipped_and_counted(tmp_path, cache, content):
    root = pictures(tmp_path / "pets", {"train": 6, "val": 2, "test": 4})
    bad = root / "test/dog/000.png"
    bad.write_bytes(bad.read_bytes()[:60] if content is None else content)
    with pytest.raises(DataError, match=r"test/dog/000\.png: is no sound image"):
        data = made(root, cache=cache)
        data.setup("test")
        list(data.test_dataloader())
    data = made(root, cache=cache, on_bad_sample="skip")
    data.setup()
    assert sum(len(labels) for _, labels in data.test_dataloader()) == 7
    assert data.describe()["skipped"] == {"test": [str(bad)]}


def test_a_table_takes_the_place_of_folders(tmp_path):
    for i in range(12):
        picture(tmp_path / f"all/{i}.png", i)
    rows = [f"all/{i}.png,{'b' if i % 2 else 'a'},{'train' if i < 8 else 'test'}" for i in range(12)]
    (tmp_path / "set.csv").write_text("\n".join(["path,label,part", *rows]))
    data = made(tmp_path, table="set.csv", val_fraction=0.25)
    data.setup()
    assert data.class_names == ("a", "b") and data.split_sizes() == {"train": 6, "val": 2, "test": 4}
    assert [path.name for path in data._splits["test"].paths] == ["10.png", "11.png", "8.png", "9.png"]
    assert data._splits["test"].labels.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file,kind\na.png,x", "must have the columns path and label, got file, kind"),
        ("", "must have the columns path and label"),
        ("path,label\na.png,x\na.png,", r"line 3 must have a path, a label .* got 'a\.png', '' and 'train'"),
        ("path,label,part\na.png,x,dev", "one of train, val, test as part, .*'dev'"),
        ("path,label\na.png,x\nb.png,x", "must have at least two classes, got 1"),
        ("path,label,part\na.png,x,\nb.png,y,test", "has no training file of the class y"),
        ("path,label\na.png,x\nb.doc,y", r"b\.doc, whose suffix is none of "),
    ],
)
def test_a_bad_table_is_named(tmp_path, text, words):
    (tmp_path / "set.csv").write_text(text)
    with pytest.raises(DataError, match=rf"image_folder: .*set\.csv.*{words}"):
        made(tmp_path, table="set.csv").setup()


def test_absent_and_odd_folders_are_named(tmp_path, caplog):
    with pytest.raises(DataError, match=r"cannot list .*none: No such file.*Point data\.root at your folder"):
        made(tmp_path / "none")
    with pytest.raises(DataError, match=r"set\.csv cannot be read: .*No such file"):
        made(tmp_path, table="set.csv")
    root = pictures(tmp_path / "one", {"train": 2}, ("cat",))
    with pytest.raises(DataError, match="must have at least two classes, got 1"):
        made(root)
    root = pictures(tmp_path / "untrained", {"test": 2})
    with pytest.raises(DataError, match="has the folders test, but no train"):
        made(root)
    root = pictures(tmp_path / "twice", {"train": 2, "Train": 2})
    with pytest.raises(DataError, match="has both Train and train: which is train"):
        made(root)
    root = pictures(tmp_path / "foreign", {"train": 4, "test": 2})
    picture(root / "test/bird/a.png")
    with pytest.raises(DataError, match=r"test/bird is of a class that the training files do not have"):
        made(root).setup()
    root = pictures(tmp_path / "empty", {"train": 4})
    (root / "train/emu").mkdir()
    with pytest.raises(DataError, match="has no training file of the class emu"):
        made(root).setup()
    root = pictures(tmp_path / "stray", {"train": 10})
    (root / "train/cat/notes.txt").write_text("")
    (root / "train/cat/.hidden").write_text("")
    made(root).setup()
    assert "files of other kinds in" in caplog.text and "{'.txt': 1}" in caplog.text
    for name, meant in (("valid", "val"), ("Validation2", "val"), ("Testing", "test"), ("test_set", "test")):
        (root / name).mkdir()
        with pytest.raises(DataError, match=f"stray/{name} would not be read: rename it to {meant}, or move it"):
            made(root)
        (root / name).rmdir()
    for name in ("drafts", "testimonials", "values"):
        (root / name).mkdir()
    made(root)
    assert "folders beside train are left out: drafts, testimonials, values" in caplog.text
    with pytest.raises(ArgumentError, match="test_fraction must hold out at least one of the 20"):
        made(root, test_fraction=0.001).setup()


@pytest.mark.parametrize("parts", [("Training", "Testing"), ("train_set", "val_set", "test_set"), ("valid", "testing")])
def test_parts_of_other_names_are_no_classes(tmp_path, parts):
    root = pictures(tmp_path / "pets", dict.fromkeys(parts, 3))
    with pytest.raises(
        DataError, match=rf"image_folder: {', '.join(sorted(parts))} in .*pets look like parts, not like"
    ):
        made(root)


def test_trains_beside_cars_are_classes(tmp_path):
    assert made(pictures(tmp_path, {".": 3}, ("cars", "trained", "trains"))).class_names == (
        "cars",
        "trained",
        "trains",
    )


def test_samples_are_recorded_by_their_names(tmp_path):
    found = []
    for seed, root in ((0, "pets"), (0, "moved"), (1, "moved")):
        data = made(pictures(tmp_path / root, {".": 10}), split_seed=seed, cache_dir=tmp_path)
        data.setup()
        found.append(data.describe()["samples_sha256"])
    assert found[0] == found[1] and set(found[0]) == {"train", "val", "test"}
    assert not set(found[1].values()) & set(found[2].values())


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_a_bad_file_with_a_name_that_is_no_text_is_skipped(tmp_path, cache):
    root = pictures(tmp_path / "pets", {"train": 4, "val": 2, "test": 2})
    (root / "train/cat" / os.fsdecode(b"caf\xe9.png")).write_bytes(b"junk")
    data = made(root, on_bad_sample="skip", cache=cache, mean=[0.5] * 3, std=[0.5] * 3)
    data.setup("fit")
    list(data.train_dataloader())
    assert data.describe()["samples"]["train"] == 8


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list everything")
def test_a_folder_without_rights_is_named(tmp_path):
    root = pictures(tmp_path / "pets", {"train": 10})
    (root / "train/cat").chmod(0)
    with pytest.raises(DataError, match="cannot list"):
        made(root).setup()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"channels": 2}, r"channels must be 1 \(grey\) or 3 \(colour\), got 2"),
        ({"channels": 4}, "channels must be an integer from 1 to 3"),
        ({"test_fraction": 0.0}, "test_fraction must be a number above 0"),
        ({"mean": [0.5] * 3}, "mean and std must both be given"),
        ({"mean": [0.5], "std": [0.5]}, r"mean must be a list of 3 numbers, one a channel, got \[0\.5\]"),
        ({"mean": 0.5, "std": 0.5}, r"mean must be a list of 3 numbers, one a channel, got 0\.5"),
        ({"cache_dir": 5}, "cache_dir must be the path of a folder, got 5"),
        ({"mean": [0.5] * 3, "std": [0.0] * 3}, "std must be a number above 0"),
    ],
)
def test_bad_settings(tmp_path, options, words):
    root = pictures(tmp_path / "pets", {"train": 2})
    with pytest.raises(ArgumentError, match=words):
        made(root, **options)


def test_imagenet_names_it(tmp_path):
    root = pictures(tmp_path / "pets", {"train": 1, "val": 1})
    with pytest.raises(DataError, match=r"must have 1000 class folders, got 2\. .*use data=image_folder data\.root="):
        ImageNet(root=root).setup("fit")


def test_a_resnet_on_a_folder(tool):
    root = pictures(tool.folder / "pets", {"train": 12, "val": 4, "test": 4}, ("ant", "bee", "cat"))
    small = ["data.size=16", "data.num_workers=0", "data.batch_size=8", "model.width=0.125", "T=2"]
    command = ["data=image_folder", f"data.root={root}", "model=resnet18", "neuron.delta=0.05", *small]
    assert tool("train.py", *command, "debug=tiny", "report=false") == 0
    result = tool.result()
    assert result["status"] == "finished" and result["data"]["classes"] == ["ant", "bee", "cat"]
    assert result["absorption"]["spike_mismatches"] == result["integer"]["spike_mismatches"] == 0
    assert len(result["data"]["mean"]) == len(result["data"]["std"]) == 3


def test_a_table_is_read_once(tmp_path, monkeypatch):
    for i in range(20):
        picture(tmp_path / f"{i}.png", i)
    (tmp_path / "set.csv").write_text("\n".join(["path,label", *(f"{i}.png,{'ab'[i % 2]}" for i in range(20))]))
    reads = []
    honest = class_folders.read_table
    monkeypatch.setattr(class_folders, "read_table", lambda *given: reads.append(given) or honest(*given))
    data = made(tmp_path, table="set.csv", val_fraction=0.25, test_fraction=0.2)
    data.setup()
    assert data.split_sizes() == {"train": 12, "val": 4, "test": 4} and len(reads) == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_without_a_good_picture_is_left_out_and_in_training_replaced(tmp_path, workers):
    root = pictures(tmp_path / "pets", {"train": 8, "val": 5, "test": 5})
    for part in ("val", "test"):
        for path in sorted((root / part / "cat").iterdir())[:4]:
            path.write_bytes(b"")
    order = list(EpochSampler(16, seed=0))
    data = made(root, cache="none", on_bad_sample="skip", num_workers=workers, mean=[0.5] * 3, std=[0.5] * 3)
    data.setup()
    train = data._splits["train"]
    for _, index in order[4:8]:  # the second batch
        train.paths[index].write_bytes(b"")
    for loader in (data.val_dataloader(), data.test_dataloader()):
        assert [labels.tolist() for _, labels in loader] == [[0, 1, 1, 1], [1] * 2]
    batches = list(data.train_dataloader())
    assert [len(labels) for _, labels in batches] == [4] * 4
    start = order[4][1]
    readable = [k % 16 for k in range(start + 1, start + 16) if k % 16 not in {index for _, index in order[4:8]}]
    assert batches[1][1].tolist() == train.labels[readable[:4]].tolist()
    for path in (root / "test").glob("*/*"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="none of 10 samples can be read"):
        list(data.test_dataloader())


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, -1), (8, 1)])
def test_a_photograph_is_turned_as_its_exif_orientation_says(tmp_path, orientation, turns):
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(decode(tmp_path / "a.png").permute(1, 2, 0).numpy(), np.rot90(pixels, turns))


def test_hidden_folders_are_left_out_and_links_followed(tmp_path):
    root = pictures(tmp_path / "pets", {"train": 4, "val": 2, "test": 2})
    for hidden in (".ipynb_checkpoints", "deeper/.@__thumb"):
        picture(root / "train/cat" / hidden / "1.png")
    picture(tmp_path / "more/1.png")
    (root / "train/dog/more").symlink_to(tmp_path / "more")
    (tmp_path / "more/up").symlink_to(root / "train")  # a circle
    train = made(root).own.given["train"]
    assert [sum(train.labels == label) for label in (0, 1)] == [4, 5]
    assert root / "train/dog/more/1.png" in train.paths


def test_a_class_that_holding_out_leaves_without_training_pictures_is_named(tmp_path):
    root = pictures(tmp_path / "few", {".": 1}, tuple(f"c{k:02d}" for k in range(20)))
    words = r"image_folder: no training file is left of 4 of 20 classes \(c\d\d, c\d\d, c\d\d, c\d\d\), since files are"
    with pytest.raises(DataError, match=words):
        made(root).setup()


def test_moments_are_kept_only_where_every_picture_was_read(tmp_path):
    root = pictures(tmp_path / "pets", {"train": 6, "val": 2, "test": 2})
    (root / "train/dog/000.png").write_bytes(b"")
    kept = tmp_path / "cache/image_folder"
    assert made(root, cache_dir=tmp_path / "cache", on_bad_sample="skip").mean and not kept.exists()
    picture(root / "train/dog/000.png")
    assert made(root, cache_dir=tmp_path / "cache").mean
    assert [path.suffix for path in kept.iterdir()] == [".json"]


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_pictures_of_every_depth_are_turned_once(tmp_path, kind, suffix):
    if kind == np.float32 and suffix == "png":
        return  # there is none
    white = {np.uint8: 1, np.uint16: 257, np.float32: 1 / 255}[kind]
    pixels = np.arange(0, 240, 40).reshape(2, 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray((pixels * white).astype(kind)).save(tmp_path / f"a.{suffix}", exif=exif)
    assert decode(tmp_path / f"a.{suffix}", 1)[0].tolist() == np.rot90(pixels, -1).tolist()


def test_a_picture_of_any_length_is_cached(tmp_path):
    root = pictures(tmp_path / "pets", {"train": 4, "val": 2, "test": 2})
    picture(root / "test/cat/long.png", size=(60_000, 8))
    data = made(root, cache="memory", size=12)
    data.setup("test")
    plain = made(root)
    plain.setup("test")
    batches = [torch.cat([pixels for pixels, _ in each.test_dataloader()]) for each in (data, plain)]
    assert torch.equal(*batches)
