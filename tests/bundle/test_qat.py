from __future__ import annotations

import pytest
import torch

from monai_fetalkd.networks import student_resnet
from monai_fetalkd.utils.checkpoints import load_weights, save_weights
from monai_fetalkd.utils.machine import root_error


@pytest.fixture
def trained(tmp_path):
    """The folder of a teacher and a distilled student, as the stages before would leave them."""
    folder = tmp_path / "out" / "models"
    folder.mkdir(parents=True)
    for name, width in (("teacher.pt", 4), ("model.pt", 2)):
        save_weights(student_resnet(width=width, layers=(1, 1, 1, 1)), folder / name)
    return folder


def test_stage_2_goes_on_with_a_student_on_the_grid_of_int8(run, trained, tmp_path):
    before = (trained / "model.pt").read_bytes()
    flow = run("train.json", "qat.json", **{"train#lr": 0.01})
    assert (trained / "model.pt").read_bytes() == before
    plain = student_resnet(width=2, layers=(1, 1, 1, 1))
    load_weights(plain, trained / "qat.pt")
    start = torch.load(trained / "model.pt", weights_only=True)
    assert any(not torch.equal(value, start[name]) for name, value in plain.state_dict().items())

    student = flow.parser.get_parsed_content("student").eval()
    plain.load_state_dict(student.state_dict())
    frames = torch.rand(4, 1, 32, 32)
    assert not torch.equal(student(frames), plain.eval()(frames))  # it computed on the grid
    assert "on the grid of INT8" in (tmp_path / "out" / "eval" / "log.txt").read_text()


def test_without_a_distilled_student_there_is_nothing_to_go_on_from(run, trained):
    (trained / "model.pt").unlink()
    with pytest.raises(RuntimeError) as caught:
        run("train.json", "qat.json")
    assert isinstance(root_error(caught.value), FileNotFoundError)
    assert "model.pt" in str(root_error(caught.value))
    assert not (trained / "qat.pt").exists()
