"""A network is used on the classes that it learned: their names travel in the checkpoint."""

import re

import pytest

from qbsnn.data import Digits, ImageFolder, TinyImageNet, trained_on
from qbsnn.errors import CheckpointError, SettingsError
from qbsnn.training import checkpoints
from tests.data.images.test_image_folder import picture, pictures
from tests.tool import one_paragraph

OTHERS = "learned the classes cat, dog; image_folder has dog, zebra; class 0 is cat there and dog here"
SMALL = ("data=image_folder", "data.size=12", "data.num_workers=0", "data.batch_size=4", "data.val_fraction=0.25",
         "data.test_fraction=0.25", "model=mlp", "model.hidden=[8]", "T=2", "trainer=cpu", "trainer.max_epochs=1",
         "report=false")  # fmt: skip


def test_a_network_is_not_used_on_other_classes(tool, capsys):
    pets, others = (
        pictures(tool.folder / name, {".": 12}, names)
        for name, names in (("pets", ("cat", "dog")), ("zoo", ("dog", "zebra")))
    )
    assert tool("train.py", *SMALL, f"data.root={pets}", "neuron=relu", "hydra.run.dir=outputs/pets") == 0
    path = tool.folder / "outputs/pets/checkpoints/best.ckpt"
    assert checkpoints.load(path)["qbsnn"]["classes"] == ["cat", "dog"]
    capsys.readouterr()
    for script in ("evaluate.py", "scripts/verify.py"):
        assert tool(script, f"ckpt={path}", f"data.root={others}") == 1
        assert f"checkpoint {path} {OTHERS}" in one_paragraph(capsys.readouterr().err)
    assert tool("train.py", *SMALL, f"data.root={others}", f"teacher={path}", "hydra.run.dir=outputs/no") == 1
    assert f"teacher: checkpoint {path} {OTHERS}" in one_paragraph(capsys.readouterr().err)
    assert not (tool.folder / "outputs/no").exists()
    pets.rename(tool.folder / "moved")
    assert tool("evaluate.py", f"ckpt={path}", f"data.root={tool.folder / 'moved'}") == 0


def test_files_that_may_have_been_trained_on_are_no_test(tmp_path):
    root = pictures(tmp_path / "pets", {".": 10})
    kept = {"qbsnn": trained_on.known(ImageFolder(root=root)) | {"config": {"data": {"root": str(root)}}}}
    trained_on.check(kept, tmp_path, ImageFolder(root=root))
    words = r"was trained when other files of .*pets were held out for the test.*Put test files .* into .*pets/test"
    with pytest.raises(SettingsError, match=words):
        trained_on.check(kept, tmp_path, ImageFolder(root=root, split_seed=1))
    picture(root / "cat/000a.png")
    with pytest.raises(SettingsError, match=words):
        trained_on.check(kept, tmp_path, ImageFolder(root=root))
    trained_on.check(kept, tmp_path, ImageFolder(root=pictures(tmp_path / "others", {".": 12})))
    own = ImageFolder(root=pictures(tmp_path / "own", {"train": 10, "test": 2}))
    assert trained_on.known(own)["held_test"] is None is trained_on.known(Digits(root=tmp_path))["held_test"]


def test_what_is_compared(tmp_path):
    pets = ImageFolder(root=pictures(tmp_path / "pets", {"train": 2}))
    for about in ({}, {"classes": None}, {"classes": ["cat", "dog"]}):
        trained_on.check({"qbsnn": about}, tmp_path, pets)
    trained_on.check({}, tmp_path, pets)
    words = "learned the classes dog, cat; image_folder has cat, dog; class 0 is dog there and cat here"
    with pytest.raises(SettingsError, match=f"checkpoint {re.escape(str(tmp_path))} {words}"):
        trained_on.check({"qbsnn": {"classes": ["dog", "cat"]}}, tmp_path, pets)
    many = [str(i) for i in range(200)]
    with pytest.raises(SettingsError, match=r"0, 1, .* 10, 11 and 188 more; image_folder has cat, dog; class 0 is"):
        trained_on.check({"qbsnn": {"classes": many}}, tmp_path, pets)
    with pytest.raises(SettingsError, match=r"0, 1, 2; digits has 0, 1, 2, 3, 4, 5, 6, 7, 8, 9\. It must"):
        trained_on.check({"qbsnn": {"classes": ["0", "1", "2"]}}, tmp_path, Digits(root=tmp_path))
    trained_on.check({"qbsnn": {"classes": many}}, tmp_path, TinyImageNet(root=tmp_path))  # its words are not read yet
    for bad in ("cat", [1, 2], {"cat": 0}):
        with pytest.raises(CheckpointError, match="its classes must be a list of names"):
            trained_on.check({"qbsnn": {"classes": bad}}, tmp_path, pets)
