from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn

from monai_fetalkd.engines import AttentionTransferTrainer, DistillationTrainer
from monai_fetalkd.losses import DistillationLoss
from monai_fetalkd.teachers import LiveTeacher, Query, TeacherEnsemble, as_teacher

CLASSES = 3


def network(width=8, classes=CLASSES, channels=1):
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, stride=2, padding=1),
        nn.BatchNorm2d(width),
        nn.Tanh(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, classes),
    )


def segmenter(width=4):
    return nn.Sequential(
        nn.Conv2d(1, width, 3, stride=2, padding=1), nn.Tanh(), nn.ConvTranspose2d(width, CLASSES, 2, 2)
    )


def query(inputs, layers=(), **batch):
    """Logits and features as they are."""
    features = {layer: torch.zeros(1) for layer in layers}
    return Query(
        inputs=inputs,
        batch={"image": inputs, **batch},
        inferer=lambda x, net: net(x),
        args=(),
        kwargs={},
        logits=True,
        layers={layer: layer for layer in layers},
        features=features,
        all_features=dict,
        reduce=lambda layer, teacher, student: teacher,
    )


@pytest.fixture
def image():
    return torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))


def trained_by(teacher, image, **arguments):
    student = network(4)
    trainer = DistillationTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=[{"image": image, "label": torch.tensor([0, 1, 2, 0])}],
        network=student,
        teacher=teacher,
        optimizer=torch.optim.SGD(student.parameters(), lr=0.1),
        decollate=False,
        **arguments,
    )
    trainer.run()
    return trainer


def loaded(net):
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(net), file)
    file.seek(0)
    return torch.jit.load(file)


SEALED = {
    "jit.load": lambda net, image: loaded(net),
    "jit.script": lambda net, image: torch.jit.script(net),
    "jit.trace": lambda net, image: torch.jit.trace(net, image),
    "export": lambda net, image: torch.export.export(net, (image,)).module(),
}


@pytest.mark.filterwarnings("ignore")  # TorchScript warns that it is deprecated
@pytest.mark.parametrize("kind", SEALED)
def test_a_teacher_without_layers_teaches_by_its_logits(kind, image):
    net = network().eval()
    teacher = SEALED[kind](net, image)
    torch.testing.assert_close(LiveTeacher(teacher).targets(query(image)).logits, net(image))
    assert trained_by(teacher, image).state.output["kd"] > 0


@pytest.mark.filterwarnings("ignore")
def test_a_script_that_was_saved_in_training_mode_answers_in_eval_mode(image):
    net = network()
    teacher = loaded(net)
    assert teacher.training
    torch.testing.assert_close(LiveTeacher(teacher).targets(query(image)).logits, net.eval()(image))
    assert teacher.training


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", SEALED)
def test_the_layers_of_a_teacher_without_layers_are_refused(kind, image):
    teacher = SEALED[kind](network().eval(), image)
    with pytest.raises(ValueError, match="layers of a teacher that is (TorchScript|an exported graph).*logits"):
        AttentionTransferTrainer(
            device="cpu",
            max_epochs=1,
            train_data_loader=[{"image": image}],
            network=(student := network(4)),
            teacher=teacher,
            student_layers=["2"],
            optimizer=torch.optim.SGD(student.parameters(), lr=0.1),
        )


def test_a_teacher_is_left_as_it_was_found_also_where_it_fails(image):
    teacher = network().train()
    teacher[1].eval()
    teacher[0].weight.requires_grad_(False)
    state, modes = copy.deepcopy(teacher.state_dict()), [module.training for module in teacher.modules()]
    seen = []
    teacher.register_forward_hook(lambda net, *_: seen.append([module.training for module in net.modules()]))
    LiveTeacher(teacher).targets(query(image))
    with pytest.raises(RuntimeError):
        LiveTeacher(teacher).targets(query(image.repeat(1, 2, 1, 1)))
    assert seen == [[False] * len(modes)]
    assert [module.training for module in teacher.modules()] == modes
    assert [parameter.requires_grad for parameter in teacher.parameters()] == [False] + [True] * 5
    assert all(torch.equal(value, state[name]) for name, value in teacher.state_dict().items())


def test_the_targets_of_a_teacher_carry_no_gradient(image):
    teacher = LiveTeacher(network())
    targets = teacher.targets(query(image.requires_grad_(), layers=["2"]))
    assert not targets.logits.requires_grad
    assert not targets.features["2"].requires_grad


def test_a_teacher_has_an_input_of_its_own(image):
    net, own = network(channels=3).eval(), torch.rand(4, 3, 24, 24)
    logits = LiveTeacher(net, input_key="colour").targets(query(image, colour=own)).logits
    torch.testing.assert_close(logits, net(own))
    with pytest.raises(ValueError, match="no 'color'.*colour.*image"):
        LiveTeacher(net, input_key="color").targets(query(image, colour=own))


@pytest.mark.parametrize(("mean", "std"), [(0.5, 0.25), ([0.5, 0.1, 0.2], [0.25, 1, 2]), (0.5, [0.25, 1, 2])])
def test_a_teacher_has_intensities_of_its_own_by_channel(mean, std):
    net, image = network(channels=3).eval(), torch.rand(4, 3, 16, 16)
    shift, scale = (torch.as_tensor(values).expand(3).view(1, 3, 1, 1) for values in (mean, std))
    logits = LiveTeacher(net, mean=mean, std=std).targets(query(image)).logits
    torch.testing.assert_close(logits, net((image - shift) / scale))


def test_integers_are_standardised_as_numbers_with_a_fraction():
    net, image = network().eval(), torch.randint(256, (4, 1, 16, 16), dtype=torch.uint8)
    logits = LiveTeacher(net, mean=127.5, std=0.25).targets(query(image)).logits
    torch.testing.assert_close(logits, net((image.float() - 127.5) / 0.25))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"mean": [0.5, 0.5]}, r"mean.*1 channels.*\[0.5, 0.5\]"),
        ({"std": [1, 2, 3]}, "std.*1 channels"),
        ({"spatial_size": (8, 8, 8)}, r"spatial_size \(8, 8, 8\).*\(4, 1, 16, 16\)"),
    ],
)
def test_settings_that_do_not_fit_the_input_are_refused(image, arguments, told):
    with pytest.raises(ValueError, match=told):
        LiveTeacher(network(), **arguments).targets(query(image))


def test_a_teacher_has_a_size_of_its_own(image):
    net = network().eval()
    larger = nn.functional.interpolate(image, [24, 32], mode="bilinear")
    torch.testing.assert_close(LiveTeacher(net, spatial_size=(24, 32)).targets(query(image)).logits, net(larger))
    net = segmenter().eval()
    voxels = LiveTeacher(net, spatial_size=(24, 32)).targets(query(image)).logits
    torch.testing.assert_close(voxels, nn.functional.interpolate(net(larger), [16, 16], mode="bilinear"))


@pytest.mark.parametrize("classes", [[2, 0, 1], [4, 1], [0, 0, 3]])
def test_classes_of_the_teacher_are_put_in_the_order_of_the_student(image, classes):
    net = network(classes=5).eval()
    logits = LiveTeacher(net, classes=classes).targets(query(image)).logits
    torch.testing.assert_close(logits, net(image)[:, classes])


def test_a_class_that_the_teacher_does_not_know_is_refused(image):
    with pytest.raises(ValueError, match="names 5.*5 classes"):
        LiveTeacher(network(classes=5), classes=[0, 5]).targets(query(image))


class Several(nn.Module):
    def __init__(self):
        super().__init__()
        self.inside = network()

    def forward(self, x):
        return {"aux": torch.zeros(len(x), 9), "out": [self.inside(x)]}


def test_the_output_of_a_teacher_is_named(image):
    net = Several().eval()
    logits = LiveTeacher(net, output=["out", 0]).targets(query(image)).logits
    torch.testing.assert_close(logits, net.inside(image))
    with pytest.raises(ValueError, match="teacher returned a dict of 2.*`output`"):
        LiveTeacher(net).targets(query(image))


class ChannelsLast(nn.Module):
    def forward(self, x):
        return x.movedim(1, -1)


def test_the_layout_of_a_layer_of_the_teacher_is_given(image):
    net = nn.Sequential(nn.Conv2d(1, 24, 3, stride=2, padding=1), ChannelsLast()).eval()
    with pytest.raises(ValueError, match="1 of the teacher.*channels last"):
        LiveTeacher(net).targets(query(image, layers=["1"]))
    for layout in ("channels_last", {"1": "channels_last"}):
        features = LiveTeacher(net, layout=layout).targets(query(image, layers=["1"]))
        torch.testing.assert_close(features.features["1"], net[0](image))


def test_a_layout_of_a_layer_that_is_not_there_is_refused():
    teacher = LiveTeacher(network(), layout={"1": None, "layer9": "tokens"})
    teacher.check_layers([])
    with pytest.raises(ValueError, match="no layer 'layer9'"):
        teacher.check_layers(["2"])


def test_a_teacher_has_an_inferer_of_its_own(image):
    net = network().eval()
    logits = LiveTeacher(net, inferer=lambda x, net: net(x.flip(-1))).targets(query(image)).logits
    torch.testing.assert_close(logits, net(image.flip(-1)))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"std": 0}, "std.*zero"),
        ({"std": [1, 0, 1]}, "std.*zero"),
        ({"classes": [0, -1]}, r"classes.*\[0, -1\]"),
        ({"layout": "last"}, "layout.*channels_last"),
        ({"layout": {"blocks.1": "last"}}, "layout.*channels_last"),
    ],
)
def test_settings_that_make_no_sense_are_refused(arguments, told):
    with pytest.raises(ValueError, match=told):
        LiveTeacher(network(), **arguments)


@pytest.mark.parametrize("teacher", [None, "resnet", lambda x: x, {"network": nn.Identity()}])
def test_what_is_no_teacher_is_refused(teacher):
    with pytest.raises(TypeError, match="teacher is a network"):
        as_teacher(teacher)


@pytest.mark.parametrize("weights", [None, [2, 1, 1]])
@pytest.mark.parametrize("make", [network, segmenter])
def test_an_ensemble_answers_by_the_mean_of_the_probabilities(image, weights, make):
    nets = [make().eval() for _ in range(3)]
    shares = torch.tensor(weights or [1, 1, 1]).float()
    shares = (shares / shares.sum()).view(-1, *(1,) * nets[0](image).ndim)
    for sigmoid, probabilities in ((False, lambda z: z.softmax(1)), (True, torch.sigmoid)):
        logits = TeacherEnsemble(nets, weights, sigmoid).targets(query(image)).logits
        expected = (shares * torch.stack([probabilities(net(image)) for net in nets])).sum(0)
        torch.testing.assert_close(probabilities(logits), expected)


def test_an_ensemble_reads_layers_from_its_first_teacher_and_keeps_the_settings_of_each(image):
    first, second = network().eval(), network(classes=5).eval()
    ensemble = TeacherEnsemble([first, LiveTeacher(second, classes=[4, 0, 2], mean=0.5)])
    assert ensemble.networks() == [first, second]
    targets = ensemble.targets(query(image, layers=["2"]))
    torch.testing.assert_close(targets.features["2"], first[:3](image))
    mean = (first(image).softmax(1) + second(image - 0.5)[:, [4, 0, 2]].softmax(1)) / 2
    torch.testing.assert_close(targets.logits.softmax(1), mean)
    assert trained_by(ensemble, image).state.output["kd"] > 0


def test_an_ensemble_asks_only_the_first_teacher_where_nobody_wants_logits(image):
    first, second = network().eval(), network().eval()
    second.register_forward_hook(lambda *_: pytest.fail("the second teacher was asked"))
    TeacherEnsemble([first, second]).targets(query(image, layers=["2"])._replace(logits=False))


@pytest.mark.parametrize(
    ("count", "weights"), [(0, None), (2, [1]), (2, [1, 0]), (2, [1, -1]), (1, [float("inf")]), (1, [float("nan")])]
)
def test_an_ensemble_without_teachers_or_with_weights_that_are_none_is_refused(count, weights):
    with pytest.raises(ValueError, match="one"):
        TeacherEnsemble([network() for _ in range(count)], weights)


def test_nobody_asks_a_teacher_for_a_weight_of_zero(image):
    teacher = network()
    teacher.register_forward_hook(lambda *_: pytest.fail("the teacher was asked"))
    trainer = trained_by(teacher, image, loss_function=DistillationLoss(kd_weight=0))
    assert "kd" not in trainer.state.output
