from __future__ import annotations

import pytest

from monai_fetalkd.files import written_whole


def write_half(path):
    with written_whole(path) as temporary:
        temporary.write_text("half of the sec")
        raise KeyboardInterrupt


def test_an_interrupted_write_leaves_the_former_file_and_no_litter(tmp_path):
    path = tmp_path / "folder" / "model.pt"
    with written_whole(path) as temporary:
        temporary.write_text("first")
    with pytest.raises(KeyboardInterrupt):
        write_half(path)
    assert path.read_text() == "first"
    assert [file.name for file in path.parent.iterdir()] == ["model.pt"]
