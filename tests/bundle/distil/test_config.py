from __future__ import annotations

import sys

import pytest
import yaml
from monai.engines import SupervisedTrainer
from monai.networks.nets import UNet

from monai_fetalkd.bundle.distil.config import Config, importable

from .make import UNET

RAW = {
    "bundle_root": ".",
    "root_of_data": "$@bundle_root + '/data'",
    "names": ["a", "b", "c"],
    "net": {"def": UNET, "net": "$@#def#channels and @net#def.to('cpu')"},
    "data": {"dir": "@root_of_data", "again": "%data#dir", "other": "@##names"},
    "make": {"_target_": "SupervisedTrainer", "_mode_": "callable", "network": "@net#net", "max_epochs": 3},
    "trainer": {"_target_": "@make", "max_epochs": 5},
    "unknown": {"_target_": "nowhere.Nothing"},
}


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump(RAW))
    return Config(path, tmp_path)


def test_components_are_found_with_their_classes(config):
    found = {one.id: one.target for one in config.components()}
    assert found["net#def"] is UNet
    assert found["make"] is SupervisedTrainer
    assert found["unknown"] is None


def test_a_component_that_completes_another_has_the_arguments_of_both(config):
    trainer = config.component("trainer")
    assert trainer.target is SupervisedTrainer
    assert trainer.arguments == {"network": "make#network", "max_epochs": "trainer#max_epochs"}


def test_a_definition_is_followed_through_references_and_expressions(config):
    assert config.component("make#network").id == "net#def"


def test_values_are_evaluated_with_the_folder_of_the_bundle(config, tmp_path):
    assert config.value("data#dir") == f"{tmp_path}/data"


def test_what_an_item_is_made_of_is_where_it_is_written(config):
    written = config.written("data")
    assert written["root_of_data"] == "$@bundle_root + '/data'"
    assert written["data#again"] == "%data#dir"  # not a copy of what is there
    assert written["names#2"] == "c"


def test_a_replaced_item_leaves_the_config_as_it_was(config):
    other = config.replaced("net#def#channels", [1, 2, 4])
    assert other.value("net#def#channels") == [1, 2, 4]
    assert config.value("net#def#channels") == UNET["channels"]


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "- a\n- b"])
def test_what_is_no_config_is_refused_by_name(tmp_path, text):
    (tmp_path / "broken.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"broken\.yaml"):
        Config(tmp_path / "broken.yaml", tmp_path)


def test_modules_of_a_bundle_are_forgotten(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name / "scripts").mkdir(parents=True)
        (tmp_path / name / "scripts" / "__init__.py").write_text(f"NAME = {name!r}")
        with importable(tmp_path / name):
            import scripts

            assert name == scripts.NAME
    assert "scripts" not in sys.modules
    assert str(tmp_path / "one") not in sys.path
