"""What a table of a user's own files may say, whatever kind of files they are."""

import pytest

from qbsnn.data import EventFolder, ImageFolder
from qbsnn.errors import DataError
from tests.data.images.test_image_folder import made, pictures


@pytest.mark.parametrize("own", [ImageFolder, EventFolder])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path;label\na.png;x", "got path;label: separate the columns by commas, not by semicolons"),
        ("path\tlabel\na.png\tx", "separate the columns by commas, not by tabs"),
        ("path,label\na.png,x\n ,y", r"line 3 must have a path, a label .* got ' ', 'y' and 'train'"),
        ("path,label,part\na.png,x,\nb.png,y,\na.png,x,test", r"a\.png stands in line 2 \(x, train\) .* 4 \(x, test\)"),
        ("path,label\na.png,x\n./a.png,y", r"\./a\.png stands in line 2 \(x, train\) and in line 3 \(y, train\)"),
        ("path,label\nb.png,y\na.png,x\na.png,x", r"name every file once, but a\.png stands in line 3 .* in line 4 "),
        ("path,label\na.png,x\n{root}/a.png,y", r"set/a\.png stands in line 2 \(x, train\) and in line 3 \(y, train\)"),
    ],
)
def test_a_bad_table_is_named(tmp_path, own, text, words):
    root = tmp_path / "set"
    root.mkdir()
    (root / "all.csv").write_text(text.replace("{root}", str(root)))
    with pytest.raises(DataError, match=rf"{own.name}: .*all\.csv.*{words}"):
        own(root=root, table="all.csv")


@pytest.mark.parametrize("part", ["train", "val", "test"])
@pytest.mark.parametrize(("cache", "workers"), [("none", 0), ("none", 1), ("memory", 0)])
def test_a_class_of_which_nothing_can_be_read_is_an_error(tmp_path, part, cache, workers):
    root = pictures(tmp_path / "pets", {"train": 8, "val": 3, "test": 3})
    for path in (root / part / "dog").iterdir():
        path.write_bytes(b"")
    options = {"cache": cache, "num_workers": workers, "mean": [0.5] * 3, "std": [0.5] * 3, "batch_size": 4}
    data = made(root, on_bad_sample="skip", **options)
    count = 8 if part == "train" else 3
    words = (
        rf"image_folder, {part} samples: none of the {count} of the class dog can be read, .*dog/000\.png among them"
    )
    with pytest.raises(DataError, match=words):
        data.setup()
        loader = getattr(data, f"{part}_dataloader")()
        batches = iter(loader)
        for _ in range(len(loader)):  # Lightning asks for so many, and for no more
            next(batches)
    if part == "test":  # fewer samples than there are: whoever asks for that has no claim to all classes
        cut = made(root, on_bad_sample="skip", limit_test=5, **options)
        cut.setup("test")
        assert sum(len(labels) for _, labels in cut.test_dataloader()) in (2, 3)


def test_a_summary_says_how_many_samples_of_how_many_could_be_read(tool, capsys):
    root = pictures(tool.folder / "pets", {"train": 8, "val": 4, "test": 4})
    (root / "test/dog/000.png").write_bytes(b"")
    small = ["data.size=12", "data.num_workers=0", "data.batch_size=4", "model=mlp", "model.hidden=[8]", "T=2"]
    command = ["data=image_folder", f"data.root={root}", "data.on_bad_sample=skip", *small]
    assert tool("train.py", *command, "trainer=cpu", "trainer.max_epochs=1", "report=false") == 0
    assert tool.result()["data"]["samples"] == {"train": 16, "val": 8, "test": 7}
    assert "8 val, 7 of 8 test (the others cannot be read)" in " ".join(capsys.readouterr().out.split())
