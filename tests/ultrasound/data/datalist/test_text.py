"""Tables and datalists whose text is not what it should be."""

from __future__ import annotations

import pytest

from monai_fetalkd.ultrasound.data.datalist import read_source

ROWS = "image,label,patient_id\na.png,x,1\nb.png,y,2\n"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (ROWS.replace("a.png", '"a.png'), "line"),
        (ROWS.replace("x", "x\0"), "text"),
        ("PK\x03\x04" + "\0" * 50, "text"),
        (ROWS.replace("x", "?"), "line 2"),
        (ROWS.replace(",1\n", ",?\n"), "line 2"),
    ],
)
def test_a_table_that_is_none_is_refused_with_the_place(tmp_path, content, told):
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(ValueError, match=told) as caught:
        read_source(tmp_path / "t.csv", test=0, val=0)
    assert "t.csv" in str(caught.value)
    assert "\0" not in str(caught.value)


def test_json_that_is_nested_too_deeply_is_refused(tmp_path):
    (tmp_path / "planes.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="planes.json"):
        read_source(tmp_path / "planes.json")
