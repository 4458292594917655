"""The setting ``unlabelled_share`` of the bundle."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Events
from PIL import Image

from monai_fetalkd.ultrasound.data.datalist import load_datalist
from monai_fetalkd.unlabelled import NO_LABEL


@pytest.fixture(scope="module")
def datalist(frames_dir, tmp_path_factory) -> Path:
    """The frames of the other tests, with ten frames more that nobody has labelled."""
    folder = tmp_path_factory.mktemp("unlabelled")
    generator = np.random.default_rng(1)
    for index in range(10):
        Image.fromarray(generator.integers(0, 256, (40, 48), dtype=np.uint8)).save(folder / f"{index}.png")
    path = folder / "planes.json"
    load_datalist(frames_dir / "planes.csv", unlabelled=str(folder)).save(path)
    assert len(json.loads(path.read_text())["unlabelled"]) == 10
    return path


@pytest.mark.slow  # ten seconds each
@pytest.mark.parametrize("views", [0, 2])
def test_both_stages_mix_and_the_others_learn_from_labels_alone(workflow, datalist, views):
    stages = ["@run_teacher", "@run_baseline", "@run_attention", "@run_distillation"]
    flow = workflow("train.json", dataset_dir=str(datalist), unlabelled_share=0.25, views=views, run=stages)
    flow.initialize()
    seen: dict[str, set[int]] = {}
    trainers = {
        name: flow.parser.get_parsed_content(f"{name}#trainer")
        for name in ("teacher", "baseline", "attention", "train")
    }
    for name, trainer in trainers.items():
        trainer.add_event_handler(
            Events.ITERATION_COMPLETED,
            lambda engine, name=name: seen.setdefault(name, set()).add(
                int((engine.state.output["label"] == NO_LABEL).sum())
            ),
        )
    flow.run()
    flow.finalize()
    assert seen == {"teacher": {0}, "baseline": {0}, "attention": {2}, "train": {2}}
    steps = {name: trainer.state.iteration for name, trainer in trainers.items()}
    assert steps["attention"] == steps["train"] == 3  # 18 labelled frames, six in a batch
    assert abs(steps["baseline"] - 6) <= 2  # as many steps as both stages, in whole epochs


def test_a_share_needs_unlabelled_frames(workflow):
    flow = workflow("train.json", unlabelled_share=0.5)
    with pytest.raises(RuntimeError) as caught:
        flow.initialize()
    assert "no frames in 'unlabelled'" in str(caught.getrepr(chain=True))


def test_a_share_of_all_is_refused(workflow, datalist):
    flow = workflow("train.json", dataset_dir=str(datalist), unlabelled_share=1)
    with pytest.raises(RuntimeError) as caught:
        flow.initialize()
    assert "'unlabelled_share'" in str(caught.getrepr(chain=True))


@pytest.mark.slow
def test_a_stage_that_was_killed_ends_with_the_weights_of_one_in_one_go(run, workflow, datalist, tmp_path):
    settings = {"dataset_dir": str(datalist), "unlabelled_share": 0.5, "views": 0, "train#epochs": 3}
    settings |= {"run_id": "run_distillation", "train#start_from": None}
    teacher = tmp_path / "teacher"
    run(run_id="run_teacher", output_dir=str(teacher))
    settings["teacher#ckpt"] = str(teacher / "models" / "teacher.pt")
    run(output_dir=str(tmp_path / "one"), **settings)
    flow = workflow(
        "train.json", output_dir=str(tmp_path / "two"), **{k: v for k, v in settings.items() if k != "run_id"}
    )
    flow.run_id = "run_distillation"
    flow.initialize()
    trainer = flow.parser.get_parsed_content("train#trainer")

    @trainer.on(Events.ITERATION_COMPLETED(once=5))
    def kill(engine):
        raise ConnectionResetError

    with pytest.raises(RuntimeError, match="train::trainer"):
        flow.run()
    assert trainer.state.iteration == 5
    run(output_dir=str(tmp_path / "two"), resume=True, **settings)
    one, two = (torch.load(tmp_path / name / "models" / "model.pt", weights_only=True) for name in ("one", "two"))
    assert all(torch.equal(value, two[name]) for name, value in one.items())
