"""The studies that come with the bundle, without training."""

from __future__ import annotations

from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from monai_fetalkd.evaluation.study import read_study

STUDIES = sorted((Path(__file__).parents[3] / "bundle" / "studies").glob("*.json"))


@pytest.fixture(params=STUDIES, ids=lambda path: path.stem)
def study(request):
    return read_study(request.param)


@pytest.fixture
def config(study):
    return ConfigParser(ConfigParser.load_config_files(list(study.configs)))


# of components, which the configs leave at their defaults
ARGUMENTS = {"attention_loss#kind", "attention_loss#mode", "train#trainer#lr_scheduler"}


def test_every_item_that_is_set_is_one_of_the_configs(study, config):
    changed = {name for part in (study, *study.arms.values()) for name in part.set}
    assert not [name for name in changed if "#" in name and name.rpartition("#")[0] not in config]
    assert not [name for name in changed if name not in config and name not in ARGUMENTS]


def test_all_students_train_for_as_many_steps_stage_1_included(study, config):
    def epochs(name):  # through the labelled frames; with unlabelled ones besides, an epoch has more steps
        arm = study.arms[name]
        settings = {**study.set, **arm.set}
        own, before, after = (
            settings.get(f"{stage}#epochs", config.get(f"{stage}#epochs"))
            for stage in (arm.stage, "attention", "train")
        )
        if arm.stage == "baseline":  # "$@attention#epochs + @train#trainer#max_epochs"
            return before + after
        share = settings.get("unlabelled_share", config.get("unlabelled_share"))
        return own / (1 - share) + (epochs(arm.start_from) if arm.start_from else 0)

    lengths = {name: epochs(name) for name in study.students()}
    usual = lengths.get("soft targets alone", next(iter(lengths.values())))
    factors = {"twice as long": 2, "four times as long": 4}
    assert lengths == {
        name: usual * next((factor for end, factor in factors.items() if name.endswith(end)), 1) for name in lengths
    }
