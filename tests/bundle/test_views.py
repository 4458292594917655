"""Fixed views with stored targets of the teacher, and precision, as settings of the bundle."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from monai_fetalkd.bundle.workflow import native_precision


def weights(path):
    return torch.load(path, weights_only=True)


def test_views_make_one_store_for_both_stages_that_the_next_run_reads(run, training, tmp_path):
    settings = {"views": 2, "targets_dir": str(tmp_path / "targets"), "attention#epochs": 2, "train#epochs": 2}
    run(output_dir=str(tmp_path / "first"), **settings, **training)
    (store,) = (tmp_path / "targets").iterdir()
    assert json.loads((store / "manifest.json").read_text())["views"] == 2
    written = (store / "rows.npy").read_bytes()
    rows = np.load(store / "rows.npy", mmap_mode="r")
    assert len(rows) == 2 * 18  # of each frame of training two views
    teacher = {"teacher#ckpt": str(tmp_path / "first" / "models" / "teacher.pt"), **settings}
    for run_id in ("run_attention", "run_distillation"):
        run(run_id=run_id, output_dir=str(tmp_path / "second"), **teacher)
    assert [path.name for path in (tmp_path / "targets").iterdir()] == [store.name]
    assert len((store / "rows.npy").read_bytes()) == len(written)
    first, second = (weights(tmp_path / folder / "models" / "model.pt") for folder in ("first", "second"))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_bfloat16_is_for_hardware_that_computes_in_it(monkeypatch):
    for capabilities, precision in (({"avx512_bf16": True}, "bfloat16"), ({"avx2": True}, "float32")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=capabilities: found, raising=False)
        assert native_precision("cpu") == precision


def test_no_views_ask_the_teacher_at_every_step(run, training, tmp_path):
    run(views=0, targets_dir=str(tmp_path / "targets"), **training)
    assert not (tmp_path / "targets").exists()


@pytest.mark.parametrize(("precision", "channels_last"), [("bfloat16", False), ("bfloat16", True), ("float32", True)])
def test_precision_and_layout_are_settings(run, training, tmp_path, precision, channels_last):
    run(precision=precision, channels_last=channels_last, views=1, **training)
    student = weights(tmp_path / "out" / "models" / "model.pt")
    assert all(value.isfinite().all() for value in student.values())
    assert {value.dtype for value in student.values() if value.is_floating_point()} == {torch.float32}


@pytest.mark.slow  # a minute of compiling
def test_a_compiled_stage_ends_with_the_same_weights(run, tmp_path):
    settings = {"precision": "float32", "channels_last": False, "num_workers": 0}
    plain, compiled = tmp_path / "plain" / "models", tmp_path / "compiled" / "models"
    run(output_dir=str(plain.parent), **settings)
    stages = {"teacher#ckpt": str(plain / "teacher.pt"), "train#start_from": str(plain / "attention.pt")}
    run(output_dir=str(compiled.parent), run_id="run_distillation", compile=True, **stages, **settings)
    torch.testing.assert_close(weights(compiled / "model.pt"), weights(plain / "model.pt"), rtol=1e-3, atol=1e-4)
