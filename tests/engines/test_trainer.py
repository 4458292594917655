from __future__ import annotations

import copy

import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.inferers import SimpleInferer
from monai.networks.nets import UNet
from torch import nn

from monai_fetalkd.engines import AttentionTransferTrainer, DistillationTrainer
from monai_fetalkd.losses import (
    AttentionTransferLoss,
    ChannelWiseLoss,
    DecoupledLoss,
    DistillationLoss,
    DISTLoss,
    FeatureLoss,
    IntraClassLoss,
    ProjectedLoss,
    RegionAffinityLoss,
    SimilarityPreservingLoss,
    SoftDiceLoss,
)
from monai_fetalkd.networks import student_resnet

CLASSES = 3


def plain_network(width: int) -> nn.Sequential:
    """Without normalisation over the batch, so that the size of a batch changes nothing but the noise."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, CLASSES),
    )


def batches(sizes=(4, 4), labels=True, seed=0):
    generator = torch.Generator().manual_seed(seed)
    made = []
    for size in sizes:
        batch = {"image": torch.rand(size, 1, 16, 16, generator=generator)}
        if labels:
            batch["label"] = torch.randint(CLASSES, (size,), generator=generator)
        made.append(batch)
    return made


def full_loss():
    return DistillationLoss(
        ce_weight=0.3, kd_weight=0.7, feature_losses={"at": AttentionTransferLoss()}, feature_weights={"at": 2.0}
    )


def make_trainer(kind=DistillationTrainer, student=None, teacher=None, loader=None, lr=0.1, **kwargs):
    torch.manual_seed(1)
    student = plain_network(4) if student is None else student
    teacher = plain_network(8) if teacher is None else teacher
    if kind is AttentionTransferTrainer:
        kwargs.setdefault("student_layers", ["1", "3"])
    return kind(
        device="cpu",
        max_epochs=1,
        train_data_loader=batches() if loader is None else loader,
        network=student,
        teacher=teacher,
        optimizer=torch.optim.SGD(student.parameters(), lr=lr),
        **kwargs,
    )


@pytest.fixture(params=[AttentionTransferTrainer, DistillationTrainer])
def kind(request):
    return request.param


def test_trainers_are_supervised_trainers_of_the_student_alone(kind):
    student, teacher = plain_network(4), plain_network(8)
    trainer = make_trainer(kind, student, teacher)
    assert isinstance(trainer, SupervisedTrainer)
    assert trainer.network is student
    trainer.run()
    assert trainer.state.output[0]["pred"].shape == (CLASSES,)


@pytest.mark.parametrize("decollate", [True, False])
def test_stage_one_ends_early_with_the_same_weights_where_nobody_wants_logits(decollate):
    weights, ran = [], []
    for logits in (True, False):
        torch.manual_seed(0)
        student, teacher = plain_network(4), plain_network(8)
        for network in (student, teacher):
            network[-1].register_forward_hook(lambda *_, logits=logits: ran.append(logits))
        trainer = make_trainer(
            AttentionTransferTrainer, student, teacher, student_layers=["1"], logits=logits, decollate=decollate
        )
        trainer.run()
        weights.append(student.state_dict())
    assert set(ran) == {True}
    output = trainer.state.output[0] if decollate else trainer.state.output
    assert output["pred"] is None
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


@pytest.mark.parametrize("layers", [["layer1"], ["layer4", "layer2"]])
def test_stage_one_learns_the_attention_of_any_subset_of_layers(layers):
    torch.manual_seed(0)
    student, teacher = student_resnet(4, num_classes=CLASSES), student_resnet(8, num_classes=CLASSES)
    image = torch.rand(4, 1, 64, 64)
    trainer = make_trainer(
        AttentionTransferTrainer, student, teacher, [{"image": image}] * 30, student_layers=layers, decollate=False
    )
    seen = []
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: seen.append(engine.state.output["loss"].item())
    )
    trainer.run()
    assert {f"at_{layer}" for layer in layers} <= trainer.state.output.keys()
    assert seen[-1] < 0.5 * seen[0]


def test_a_step_equals_the_same_arithmetic_written_by_hand():
    trainer = make_trainer(
        loss_function=full_loss(), student_layers=["1", "3"], loader=batches((4, 4, 4)), decollate=False
    )
    student, teacher = copy.deepcopy(trainer.network), copy.deepcopy(trainer.teacher.network).eval()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    trainer.run()

    def features(network, image):
        first = network[:2](image)
        second = network[2:4](first)
        return network[4:](second), [first, second]

    def attention(feature):
        return nn.functional.normalize(feature.square().mean(1).flatten(1))

    for batch in batches((4, 4, 4)):
        logits, hidden = features(student, batch["image"])
        with torch.no_grad():
            soft, hidden_teacher = features(teacher, batch["image"])
        ce = nn.functional.cross_entropy(logits, batch["label"])
        kd = 16 * nn.functional.kl_div((logits / 4).log_softmax(1), (soft / 4).softmax(1), reduction="batchmean")
        pairs = zip(hidden, hidden_teacher, strict=True)
        at = sum((attention(s) - attention(t)).square().sum(1).mean() for s, t in pairs)
        loss = 0.3 * ce + 0.7 * kd + 2 * at
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name, value in student.state_dict().items():
        torch.testing.assert_close(trainer.network.state_dict()[name], value)
    assert trainer.state.output["loss"].item() == pytest.approx(loss.item(), rel=1e-5)


def test_each_loss_part_is_in_the_output_and_their_weighted_sum_is_the_loss():
    trainer = make_trainer(loss_function=full_loss(), student_layers=["3"], decollate=False)
    trainer.run()
    output = trainer.state.output
    assert output["loss"].item() == pytest.approx(
        (0.3 * output["ce"] + 0.7 * output["kd"] + 2 * output["at"]).item(), rel=1e-6
    )


def test_two_accumulated_batches_give_the_step_of_one_of_twice_the_size():
    pytest.importorskip("monai", "1.6", reason="accumulation came with MONAI 1.6")
    whole = batches((16,))
    halves = [{name: value[rows] for name, value in whole[0].items()} for rows in (slice(8), slice(8, 16))]
    trainers = [
        make_trainer(loss_function=full_loss(), student_layers=["1"], loader=loader, accumulation_steps=len(loader))
        for loader in (whole, halves)
    ]
    for trainer in trainers:
        trainer.run()
    for one, other in zip(trainers[0].network.parameters(), trainers[1].network.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_the_teacher_stays_frozen_whoever_calls_train_on_it(kind):
    teacher = student_resnet(8, num_classes=CLASSES)
    teacher.layer1.eval()
    modes = [module.training for module in teacher.modules()]
    before = copy.deepcopy(teacher.state_dict())
    image = [{"image": torch.rand(4, 1, 32, 32), "label": torch.tensor([0, 1, 2, 0])}] * 2
    trainer = make_trainer(kind, student_resnet(4, num_classes=CLASSES), teacher, image, student_layers=["layer2"])
    trainer.run()
    # left as it was found
    assert [module.training for module in teacher.modules()] == modes
    assert all(p.requires_grad and p.grad is None for p in teacher.parameters())
    trainer.add_event_handler(Events.ITERATION_STARTED, lambda _: teacher.train())
    trainer.state.max_epochs += 1
    trainer.run()
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_nothing_of_the_teacher_is_in_the_state_of_the_student(kind):
    trainer = make_trainer(kind)
    trainer.run()
    assert trainer.network.state_dict().keys() == plain_network(4).state_dict().keys()
    held = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in trainer.network.parameters()}


def test_frames_without_labels_are_enough_for_attention_and_for_soft_targets(kind):
    loss = {} if kind is AttentionTransferTrainer else {"loss_function": DistillationLoss(ce_weight=0)}
    trainer = make_trainer(kind, loader=batches(labels=False), decollate=False, **loss)
    trainer.run()
    assert torch.isfinite(trainer.state.output["loss"])


def test_a_validation_between_steps_leaves_training_as_it_was():
    def weights(validate):
        trainer = make_trainer(loss_function=full_loss(), student_layers=["1", "3"])
        evaluator = SupervisedEvaluator(device="cpu", val_data_loader=batches((2,), seed=5), network=trainer.network)
        if validate:
            trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda _: evaluator.run())
        trainer.run()
        return list(trainer.network.parameters())

    for one, other in zip(weights(False), weights(True), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_the_student_can_be_copied_and_scripted_while_its_trainer_exists(kind):
    trainer = make_trainer(kind)
    trainer.run()
    image = torch.rand(2, 1, 16, 16)
    expected = trainer.network(image)
    torch.testing.assert_close(copy.deepcopy(trainer.network)(image), expected)
    torch.testing.assert_close(torch.jit.script(trainer.network)(image), expected)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_student_learns_as_a_plain_one(kind, backend):
    trainers = [make_trainer(kind, compile=on, compile_kwargs={"backend": backend}) for on in (False, True)]
    for trainer in trainers:
        trainer.run()
    for one, other in zip(trainers[0].network.parameters(), trainers[1].network.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_the_users_inferer_and_extra_inputs_reach_both_networks():
    seen = []

    class Recording(SimpleInferer):
        def __call__(self, inputs, network, *args, **kwargs):
            seen.append((network, kwargs))
            return super().__call__(inputs, network)

    def prepare(batch, device, non_blocking, **kwargs):
        return batch["image"], batch["label"], (), {"gain": 2}

    trainer = make_trainer(inferer=Recording(), prepare_batch=prepare, loader=batches((4,)))
    trainer.run()
    assert seen == [(trainer.network, {"gain": 2}), (trainer.teacher.network, {"gain": 2})]


@pytest.mark.parametrize("dims", [2, 3])
def test_segmentation_networks_distil_per_voxel_with_attention(dims):
    def unet(channels):
        return UNet(
            spatial_dims=dims, in_channels=1, out_channels=2, channels=channels, strides=(2,) * (len(channels) - 1)
        )

    batch = {"image": torch.rand(2, 1, *(16,) * dims), "label": torch.randint(2, (2, 1, *(16,) * dims))}
    trainer = make_trainer(
        student=unet((4, 8)),
        teacher=unet((8, 16, 32)),
        loader=[batch],
        loss_function=full_loss(),
        student_layers=["model.0"],
        teacher_layers=["model.0"],
        decollate=False,
    )
    trainer.run()
    assert {"ce", "kd", "at"} <= trainer.state.output.keys()
    assert torch.isfinite(trainer.state.output["loss"])


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("soft", [DecoupledLoss(), DISTLoss(), SoftDiceLoss(), ChannelWiseLoss()])
def test_losses_on_dense_outputs_train_student_and_projector(dims, soft):
    def unet(*channels):
        return UNet(spatial_dims=dims, in_channels=1, out_channels=3, channels=channels, strides=(2,))

    torch.manual_seed(0)
    student = unet(4, 8)
    losses = {
        "cwd": ProjectedLoss(ChannelWiseLoss(), student_channels=4, teacher_channels=8, spatial_dims=dims),
        "rad": RegionAffinityLoss(3),
        "ifvd": IntraClassLoss(3),
        "sp": SimilarityPreservingLoss(),
    }
    loss = DistillationLoss(soft_target_loss=soft, feature_losses=losses)
    size = (8,) * dims
    batch = {"image": torch.rand(2, 1, *size), "label": torch.randint(3, (2, 1, *size)).float()}
    trainer = DistillationTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=[batch],
        network=student,
        teacher=unet(8, 16),
        optimizer=torch.optim.SGD([*student.parameters(), *loss.parameters()], lr=0.1),
        loss_function=loss,
        student_layers=["model.0"],
        decollate=False,
    )
    before = copy.deepcopy(trainer.task.state_dict())
    trainer.run()
    parts = {name: trainer.state.output[name] for name in ("loss", "ce", "kd", *losses)}
    assert all(value.isfinite() and value > 0 for value in parts.values()), parts
    after = trainer.task.state_dict()
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert {"loss.feature_losses.cwd.loss.projector.weight", "student.model.0.conv.weight"} <= moved


def test_stage_one_hands_the_label_to_a_loss_that_sees_it():
    student = plain_network(4)
    trainer = make_trainer(
        AttentionTransferTrainer,
        student=student,
        loader=[{"image": torch.rand(2, 1, 16, 16), "label": torch.randint(3, (2, 1, 16, 16))}],
        loss_function=FeatureLoss(RegionAffinityLoss(3)),
        decollate=False,
    )
    trainer.run()
    assert trainer.state.output["at_1"] > 0
    unlabelled = make_trainer(
        AttentionTransferTrainer, loader=batches(labels=False), loss_function=FeatureLoss(RegionAffinityLoss(3))
    )
    with pytest.raises(ValueError, match="label is missing, which RegionAffinityLoss uses"):
        unlabelled.run()


def _teachers_optimizer(kind):
    student, teacher = plain_network(4), plain_network(8)
    optimizer = torch.optim.SGD([*student.parameters(), *teacher.parameters()], lr=0.1)
    return kind(
        device="cpu",
        max_epochs=1,
        train_data_loader=batches(),
        network=student,
        optimizer=optimizer,
        teacher=teacher,
        student_layers=["1"],
    )


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (_teachers_optimizer, "holds parameters of the teacher"),
        (
            lambda kind: make_trainer(kind, student_layers=["1"], teacher_layers=["1", "3"]),
            "1 of the student.*2 of the",
        ),
        (lambda kind: make_trainer(kind, student_layers=["layer9"]), "no layer 'layer9' in Sequential"),
        (lambda kind: make_trainer(kind, iteration_update=print), "iteration_update would bypass the teacher"),
    ],
)
def test_a_trainer_that_could_not_work_is_refused_when_it_is_made(kind, build, message):
    with pytest.raises(ValueError, match=message):
        build(kind)


def test_stage_one_without_layers_is_refused():
    with pytest.raises(ValueError, match="name at least one in student_layers"):
        make_trainer(AttentionTransferTrainer, student_layers=[])


def test_teacher_and_student_of_different_class_counts_are_named_with_their_shapes():
    teacher = plain_network(8)
    teacher[6] = nn.Linear(8, CLASSES + 1)
    with pytest.raises(ValueError, match=r"\(4, 3\).*\(4, 4\)"):
        make_trainer(teacher=teacher).run()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="automatic mixed precision of MONAI's trainers needs a GPU")
def test_mixed_precision_trains_on_a_gpu(kind):
    student, teacher = plain_network(4).cuda(), plain_network(8).cuda()
    trainer = kind(
        device="cuda",
        max_epochs=1,
        train_data_loader=batches(),
        network=student,
        teacher=teacher,
        optimizer=torch.optim.SGD(student.parameters(), lr=0.1),
        student_layers=["1"],
        amp=True,
        decollate=False,
    )
    trainer.run()
    assert torch.isfinite(trainer.state.output["loss"])
