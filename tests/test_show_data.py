"""The viewer of data sets, on pictures and on events."""

import pytest

from tests.data.images.test_image_folder import pictures
from tests.tool import one_paragraph

MAGIC = {"png": b"\x89PNG", "gif": b"GIF8", "html": b"<!do"}
SMALL = ("data.limit_train=12", "data.limit_val=8", "data.limit_test=8")


@pytest.mark.parametrize("suffix", ["png", "gif", "html"])
def test_events(tool, suffix):
    out = tool.folder / f"events.{suffix}"
    assert (
        tool("scripts/show_data.py", "data=digits_dvs", "T=3", "data.cache=none", "count=1", f"out={out}", *SMALL) == 0
    )
    assert out.read_bytes()[:4] == MAGIC[suffix]


@pytest.mark.parametrize("suffix", ["png", "html"])
def test_pictures_before_and_after_augmentation(tool, suffix):
    root = pictures(tool.folder / "pets", {"train": 6, "val": 2, "test": 2})
    out = tool.folder / f"new/pets.{suffix}"
    settings = ("data=image_folder", f"data.root={root}", "data.size=12", "data.crop=2", "data.mix=mixup")
    assert tool("scripts/show_data.py", *settings, "part=train", "count=2", f"out={out}") == 0
    assert out.read_bytes()[:4] == MAGIC[suffix]


def test_pictures_in_memory(tool):
    tool.folder = tool.folder / "a folder, with = in its name"
    tool.folder.mkdir()
    assert tool("scripts/show_data.py", "data=digits", "data.crop=1", "part=train", "count=2", *SMALL) == 0
    assert (tool.folder / "data.png").read_bytes()[:4] == MAGIC["png"]


@pytest.mark.parametrize("trust", ["trust=mine_data", "trust=[another,mine_data]"])
def test_a_data_set_of_one_s_own_is_shown_when_its_package_is_trusted(tool, capsys, monkeypatch, trust):
    (tool.folder / "mine_data.py").write_text("from qbsnn.data import Digits\nclass Mine(Digits): ...\n")
    monkeypatch.syspath_prepend(tool.folder)
    words = ("data=digits", "data._target_=mine_data.Mine", "count=1", *SMALL)
    assert tool("scripts/show_data.py", *words) == 1
    assert "trust=PACKAGE" in one_paragraph(capsys.readouterr().err)
    assert tool("scripts/show_data.py", *words, trust) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["data=digits", "out=digits.gif"], "out must end in .png or .html for pictures, got digits.gif"),
        (["data=digits", "out=digits.bmp"], "out must end in .png, .gif or .html, got digits.bmp"),
        (["data=digits", "part=all"], "part must be one of train, val, test, got 'all'"),
        (["data=digits", "count=0"], "count must be an integer from 1 to 64, got '0'"),
        (["data=nope"], "data=nope: no such data; there are: cifar10,"),
        (["data=null"], "data=null: data takes the name of an option, a run needs one"),
        (["data=digits", "foo=1"], "foo is not a setting: "),
        (["data=digits", "data.batch_sise=1"], "data.batch_sise is not a setting: did you mean data.batch_size?"),
        (["data=digits", "data.batch_size=0"], "data.batch_size must be an integer from 1"),
        (["data=image_folder", "data.root=none"], "cannot list"),
        (
            ["data=digits", "data._target_=os.system"],
            "data._target_ may not be 'os.system': data takes what is defined",
        ),
        (["data=digits", "data._target_=json.loads", "trust=1"], "data._target_ may not be 'json.loads'"),
    ],
)
def test_bad_arguments(tool, capsys, arguments, words):
    assert tool("scripts/show_data.py", *arguments) == 1
    shown = capsys.readouterr().err
    assert words in shown and shown.count("\n") == 1
    assert tool.left_behind() == []
