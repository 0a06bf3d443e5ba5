"""What a table of a user's own files may say, whatever kind of files they are."""

import pytest

from qbsnn.data import EventFolder, ImageFolder
from qbsnn.errors import DataError


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
