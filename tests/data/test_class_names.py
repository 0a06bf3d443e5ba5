"""A network is used on the classes that it learned: their names travel in the checkpoint."""

import re

import pytest

from qbsnn.data import Digits, ImageFolder, TinyImageNet, class_names
from qbsnn.errors import CheckpointError, SettingsError
from qbsnn.training import checkpoints
from tests.data.images.test_image_folder import pictures
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


def test_what_is_compared(tmp_path):
    pets = ImageFolder(root=pictures(tmp_path / "pets", {"train": 2}))
    for about in ({}, {"classes": None}, {"classes": ["cat", "dog"]}):
        class_names.check({"qbsnn": about}, tmp_path, pets)
    class_names.check({}, tmp_path, pets)
    words = "learned the classes dog, cat; image_folder has cat, dog; class 0 is dog there and cat here"
    with pytest.raises(SettingsError, match=f"checkpoint {re.escape(str(tmp_path))} {words}"):
        class_names.check({"qbsnn": {"classes": ["dog", "cat"]}}, tmp_path, pets)
    many = [str(i) for i in range(200)]
    with pytest.raises(SettingsError, match=r"0, 1, .* 10, 11 and 188 more; image_folder has cat, dog; class 0 is"):
        class_names.check({"qbsnn": {"classes": many}}, tmp_path, pets)
    with pytest.raises(SettingsError, match=r"0, 1, 2; digits has 0, 1, 2, 3, 4, 5, 6, 7, 8, 9\. It must"):
        class_names.check({"qbsnn": {"classes": ["0", "1", "2"]}}, tmp_path, Digits(root=tmp_path))
    class_names.check({"qbsnn": {"classes": many}}, tmp_path, TinyImageNet(root=tmp_path))  # its words are not read yet
    for bad in ("cat", [1, 2], {"cat": 0}):
        with pytest.raises(CheckpointError, match="its classes must be a list of names"):
            class_names.check({"qbsnn": {"classes": bad}}, tmp_path, pets)
