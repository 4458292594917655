"""The bundle from Python: loaded, read and changed through the properties that MONAI defines for every bundle."""

from __future__ import annotations

import importlib.machinery
import shutil
import sys
import types

import monai
import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigWorkflow, ckpt_export, create_workflow
from monai.bundle.properties import InferProperties, MetaProperties, TrainProperties
from monai.data import Dataset
from monai.inferers import SimpleInferer
from monai.networks.nets import ResNet
from monai.transforms import Compose, Identityd

from monai_fetalkd.handlers import StageCheckpoint
from monai_fetalkd.networks import student_resnet

NAME = "fetal_ultrasound_plane_classification"
# MONAI defines them as optional, and training here has no use for them
UNUSED = {"train_postprocessing", "train_key_metric"}


class Recorder:
    """A handler that remembers whom it was attached to."""

    def attach(self, engine):
        engine.state.recorded = True


class OwnInferer(SimpleInferer):
    pass


def own_metric():
    return {"own": monai.handlers.ROCAUC(output_transform=monai.handlers.from_engine(["pred", "label"]))}


def item(flow, name):
    return flow.parser.get_parsed_content(name)


def schedule(trainer):
    owners = [getattr(handler, "__self__", None) for handler, *_ in trainer._event_handlers[Events.STARTED]]
    (keeper,) = (owner for owner in owners if isinstance(owner, StageCheckpoint))
    return keeper.schedule.lr_scheduler


def rows(flow, split="training", count=8):
    return item(flow, "datalist").section(split)[:count]


@pytest.fixture
def bundles(bundle_dir, tmp_path, monkeypatch):
    """A folder with the bundle under its name, and random weights; the process works elsewhere."""
    folder = tmp_path / "bundles" / NAME
    shutil.copytree(bundle_dir / "configs", folder / "configs")
    (folder / "models").mkdir()
    torch.save(student_resnet(width=16).state_dict(), folder / "models" / "model.pt")
    monkeypatch.chdir(tmp_path)
    return folder.parent


def test_load_gives_the_student_with_its_weights(bundles):
    network = monai.bundle.load(NAME, bundle_dir=bundles, workflow_type="inference", device="cpu")
    assert isinstance(network, ResNet)
    weights = torch.load(bundles / NAME / "models" / "model.pt", weights_only=True)
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())


def test_load_gives_the_torchscript_module_with_its_metadata(bundles):
    folder = bundles / NAME
    ckpt_export(
        net_id="network_def",
        filepath=str(folder / "models" / "model.ts"),
        ckpt_file=str(folder / "models" / "model.pt"),
        meta_file=str(folder / "configs" / "metadata.json"),
        config_file=str(folder / "configs" / "inference.json"),
    )
    module, metadata, _ = monai.bundle.load(NAME, bundle_dir=bundles, load_ts_module=True, device="cpu")
    assert module(torch.rand(3, 1, 128, 128)).shape == (3, 6)
    assert list(metadata["network_data_format"]["outputs"]["pred"]["channel_def"].values())[1] == "Fetal brain"


def test_load_fills_a_network_of_ones_own(bundles):
    network = monai.bundle.load(NAME, model=student_resnet(width=16), bundle_dir=bundles, device="cpu")
    weights = torch.load(bundles / NAME / "models" / "model.pt", weights_only=True)
    assert torch.equal(network.conv1.weight, weights["conv1.weight"])


def test_a_workflow_of_the_inference_is_made_from_its_folder_alone(bundles, frames_dir):
    folder = bundles / NAME
    flow = create_workflow(
        config_file=str(folder / "configs" / "inference.json"),
        workflow_type="inference",
        bundle_root=str(folder),
        dataset_dir=str(frames_dir),
        output_dir=str(folder / "eval"),
        logging_file=False,
    )
    flow.run()
    assert (folder / "eval" / "predictions.csv").is_file()
    assert flow.version == "0.1.0"
    assert flow.spatial_shape == [128, 128]


def test_a_config_that_is_not_there_is_named(bundles):
    with pytest.raises(FileNotFoundError, match=r"nowhere/train\.json"):
        create_workflow(config_file=str(bundles / "nowhere" / "train.json"))


def test_every_property_of_training_can_be_read(workflow):
    flow = workflow("train.json")
    flow.initialize()
    missing = {name for name in (TrainProperties | MetaProperties) if getattr(flow, name) is None}
    assert missing == UNUSED
    assert flow.max_epochs == flow.trainer.state.max_epochs == 1
    assert flow.train_dataset_data == flow.train_dataset.data
    assert flow.evaluator.data_loader.dataset is flow.val_dataset


def readable(configs, frames_dir) -> dict[str, str]:
    """What a config needs to be read: inference.json checks weights as soon as they are there, evaluate.json later."""
    if configs == ("inference.json",):
        return {"ckpt": "none_yet.pt", "dataset_dir": str(frames_dir)}
    return {"ckpt": __file__}


@pytest.mark.parametrize("configs", [("inference.json",), ("train.json", "evaluate.json")])
def test_every_property_of_inference_and_evaluation_can_be_read(workflow, frames_dir, configs):
    overrides = readable(configs, frames_dir)
    flow = workflow(*configs, kind="inference", **overrides)
    flow.initialize()
    missing = {name for name in (InferProperties | MetaProperties) if getattr(flow, name) is None}
    assert missing == ({"key_metric"} if len(configs) == 1 else set())  # frames to classify have no labels


TRAIN = [
    ("max_epochs", lambda flow: 3, lambda flow: flow.trainer.state.max_epochs == 3),
    ("max_epochs", lambda flow: 3, lambda flow: schedule(flow.trainer).total_steps == 6),
    ("max_epochs", lambda flow: 3, lambda flow: item(flow, "baseline#epochs") == 4),
    ("device", lambda flow: torch.device("cpu", 0), lambda flow: flow.trainer.state.device.index == 0),
    (
        "network_def",
        lambda flow: student_resnet(width=3, layers=(1, 1, 1, 1)),
        lambda flow: flow.trainer.network.conv1.out_channels == 3,
    ),
    ("train_dataset_data", rows, lambda flow: len(flow.trainer.data_loader.dataset) == 8),
    (
        "train_dataset",
        lambda flow: Dataset(rows(flow), flow.train_preprocessing),
        lambda flow: len(flow.trainer.data_loader.dataset) == 8,
    ),
    (
        "train_preprocessing",
        lambda flow: Compose([*flow.train_preprocessing.transforms, Identityd("image")]),
        lambda flow: isinstance(flow.train_dataset.transform.transforms[-1], Identityd),
    ),
    (
        "train_inferer",
        lambda flow: OwnInferer(),
        lambda flow: isinstance(item(flow, "teacher#trainer").inferer, OwnInferer),
    ),
    ("train_handlers", lambda flow: [Recorder()], lambda flow: flow.trainer.state.recorded),
    ("val_interval", lambda flow: 7, lambda flow: flow.train_handlers[0].interval == 7),
    ("val_handlers", lambda flow: [Recorder()], lambda flow: flow.evaluator.state.recorded),
    (
        "val_dataset_data",
        lambda flow: rows(flow, "validation", 5),
        lambda flow: len(flow.evaluator.data_loader.dataset) == 5,
    ),
    (
        "val_dataset",
        lambda flow: Dataset(rows(flow, "validation", 5), flow.val_preprocessing),
        lambda flow: len(flow.evaluator.data_loader.dataset) == 5,
    ),
    (
        "val_preprocessing",
        lambda flow: Compose([*flow.val_preprocessing.transforms, Identityd("image")]),
        lambda flow: isinstance(flow.val_dataset.transform.transforms[-1], Identityd),
    ),
    ("val_inferer", lambda flow: OwnInferer(), lambda flow: isinstance(flow.evaluator.inferer, OwnInferer)),
    (
        "val_postprocessing",
        lambda flow: Compose([Identityd("pred")]),
        lambda flow: isinstance(item(flow, "evaluation").keywords["postprocessing"].transforms[0], Identityd),
    ),
    ("val_key_metric", lambda flow: own_metric(), lambda flow: flow.evaluator.state.key_metric_name == "own"),
]


@pytest.mark.parametrize(("name", "value", "effective"), TRAIN, ids=[name for name, _, _ in TRAIN])
def test_a_property_of_training_takes_effect_when_it_is_set(workflow, name, value, effective):
    flow = workflow("train.json")
    flow.initialize()
    assert not effective_before(effective, flow)
    setattr(flow, name, value(flow))
    flow.initialize()
    assert effective(flow)


def effective_before(effective, flow) -> bool:
    try:
        return bool(effective(flow))
    except AttributeError:
        return False


def test_training_goes_on_with_what_was_set(workflow, training, tmp_path):
    flow = workflow("train.json", **training)
    flow.initialize()
    flow.max_epochs = 2
    flow.train_dataset_data = rows(flow, count=16)
    flow.initialize()
    flow.run()
    assert flow.trainer.state.epoch == 2
    assert (tmp_path / "out" / "models" / "model.pt").is_file()


INFER = [
    ("device", lambda flow: torch.device("cpu", 0), lambda flow: flow.evaluator.state.device.index == 0),
    (
        "network_def",
        lambda flow: student_resnet(width=3, layers=(1, 1, 1, 1)),
        lambda flow: flow.evaluator.network.conv1.out_channels == 3,
    ),
    ("dataset_data", lambda flow: flow.dataset.data[:5], lambda flow: len(flow.evaluator.data_loader.dataset) == 5),
    (
        "dataset",
        lambda flow: Dataset(flow.dataset.data[:5], flow.preprocessing),
        lambda flow: len(flow.evaluator.data_loader.dataset) == 5,
    ),
    (
        "preprocessing",
        lambda flow: Compose([*flow.preprocessing.transforms, Identityd("image")]),
        lambda flow: isinstance(flow.evaluator.data_loader.dataset.transform.transforms[-1], Identityd),
    ),
    ("inferer", lambda flow: OwnInferer(), lambda flow: isinstance(flow.evaluator.inferer, OwnInferer)),
    ("handlers", lambda flow: [Recorder()], lambda flow: flow.evaluator.state.recorded),
    ("key_metric", lambda flow: own_metric(), lambda flow: flow.evaluator.state.key_metric_name == "own"),
    (
        "postprocessing",
        lambda flow: Compose([Identityd("pred")]),
        lambda flow: isinstance(item(flow, "postprocessing").transforms[0], Identityd),
    ),
]


@pytest.mark.parametrize("configs", [("inference.json",), ("train.json", "evaluate.json")], ids=["infer", "evaluate"])
@pytest.mark.parametrize(("name", "value", "effective"), INFER, ids=[name for name, _, _ in INFER])
def test_a_property_of_inference_and_evaluation_takes_effect_when_it_is_set(
    workflow, frames_dir, configs, name, value, effective
):
    if configs == ("inference.json",) and name == "key_metric":
        pytest.skip("frames to classify have no labels")
    overrides = readable(configs, frames_dir)
    flow = workflow(*configs, kind="inference", **overrides)
    flow.initialize()
    assert not effective_before(effective, flow)
    setattr(flow, name, value(flow))
    flow.initialize()
    assert effective(flow)


@pytest.fixture
def tensorrt(monkeypatch):
    """Stands for torch_tensorrt, which teaches torch.jit.load to read its engines."""
    module = types.ModuleType("torch_tensorrt")
    module.__spec__ = importlib.machinery.ModuleSpec("torch_tensorrt", None)
    monkeypatch.setitem(sys.modules, "torch_tensorrt", module)


def on_tensorrt(bundles, frames_dir, name) -> ConfigWorkflow:
    folder = bundles / NAME
    flow = ConfigWorkflow(
        config_file=[str(folder / "configs" / config) for config in name],
        workflow_type="inference",
        logging_file=False,
        bundle_root=str(folder),
        dataset_dir=str(frames_dir),
        output_dir=str(folder / name[-1]),
        device="cpu",
    )
    flow.initialize()
    flow.run()
    return flow


def test_the_overlay_for_tensorrt_runs_the_exported_module_in_place_of_the_checkpoint(bundles, frames_dir, tensorrt):
    """TensorRT itself needs a GPU; what is tested is that the overlay runs the module that lies there."""
    folder = bundles / NAME
    network = torch.jit.script(monai.bundle.load(NAME, bundle_dir=bundles, workflow_type="inference", device="cpu"))
    torch.jit.save(network, folder / "models" / "model_trt.ts")
    plain, exported = (("inference.json",), ("inference.json", "inference_trt.json"))
    for configs in (plain, exported):
        on_tensorrt(bundles, frames_dir, configs)
    first, second = ((folder / configs[-1] / "predictions.csv").read_text().split() for configs in (plain, exported))
    assert len(first) == len(second) == len(list(frames_dir.glob("*.png")))
    for one, other in zip(first, second, strict=True):
        assert one.split(",")[0] == other.split(",")[0]
        values = [[float(value) for value in line.split(",")[1:]] for line in (one, other)]
        assert values[0] == pytest.approx(values[1], abs=1e-5)


def test_without_tensorrt_the_overlay_says_what_is_missing(bundles, frames_dir, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_tensorrt", None)
    with pytest.raises(RuntimeError) as caught:
        on_tensorrt(bundles, frames_dir, ("inference.json", "inference_trt.json"))
    assert "torch-tensorrt" in str(caught.value.__cause__)


def test_without_an_exported_module_the_overlay_says_how_to_make_it(bundles, frames_dir, tensorrt):
    with pytest.raises(RuntimeError) as caught:
        on_tensorrt(bundles, frames_dir, ("inference.json", "inference_trt.json"))
    assert "trt_export" in str(caught.value.__cause__)
