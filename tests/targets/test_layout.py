from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_fetalkd.losses import AttentionTransferLoss
from monai_fetalkd.targets import TargetLayout


@pytest.mark.parametrize("classes", [(), (6,), (2, 5, 3), (2, 4, 4, 4)])
@pytest.mark.parametrize("sizes", [[], [(1, 7)], [(1, 9, 8), (1, 3, 3)], [(1, 2, 3, 4)], [(16, 1, 1)]])
def test_float32_is_kept_exactly(classes, sizes):
    logits = torch.randn(3, *classes)
    features = {f"layer{index}": torch.rand(3, *size) for index, size in enumerate(sizes)}
    layout = TargetLayout(classes, {name: feature.shape[1:] for name, feature in features.items()}, "float32")
    kept, kept_features = layout.unpack(layout.pack(MetaTensor(logits), features), True, list(features))
    torch.testing.assert_close(kept, logits, rtol=0, atol=0)
    torch.testing.assert_close(kept_features, features, rtol=0, atol=0)


def test_what_is_not_wanted_is_not_unpacked():
    layout = TargetLayout((2,), {"a": (1, 3), "b": (1, 2)})
    packed = layout.pack(torch.zeros(1, 2), {"a": torch.rand(1, 1, 3), "b": torch.rand(1, 1, 2)})
    logits, features = layout.unpack(packed, False, ["b"])
    assert logits is None
    assert list(features) == ["b"]


def test_a_byte_is_off_by_half_a_step_of_the_squared_maximum_at_most():
    features = [torch.rand(5, 1, 9, 9) * torch.tensor([1e-6, 1.0, 3.0, 1e6, 0.0]).reshape(5, 1, 1, 1)]
    layout = TargetLayout((2,), {"layer": (1, 9, 9)})
    kept = layout.unpack(layout.pack(torch.zeros(5, 2), {"layer": features[0]}), True, ["layer"])[1]["layer"]
    squares = features[0].square()
    step = squares.amax((1, 2, 3), keepdim=True) / 255
    assert ((kept.square() - squares).abs() <= 0.501 * step).all()


def test_logits_are_exact_beside_bytes():
    logits = torch.randn(4, 6)
    layout = TargetLayout((6,), {"layer": (1, 3)})
    packed = layout.pack(logits, {"layer": torch.rand(4, 1, 3)})
    torch.testing.assert_close(layout.unpack(packed, True, [])[0], logits, rtol=0, atol=0)


def test_bytes_change_the_loss_by_less_than_a_thousandth():
    torch.manual_seed(0)
    student, teacher = torch.rand(16, 8, 14, 14), torch.randn(16, 32, 28, 28).relu()
    loss = AttentionTransferLoss()
    feature = loss.reduce(teacher, student)
    layout = TargetLayout((1,), {"layer": feature.shape[1:]})
    kept = layout.unpack(layout.pack(torch.zeros(16, 1), {"layer": feature}), True, ["layer"])[1]["layer"]
    torch.testing.assert_close(loss(student, kept), loss(student, teacher), rtol=1e-3, atol=0)


def test_four_layers_at_224_take_four_kilobytes_a_view():
    sizes = {f"layer{index + 1}": (1, side, side) for index, side in enumerate((56, 28, 14, 7))}
    row = TargetLayout((6,), sizes).row
    assert row.itemsize == 4 + 6 * 4 + 4 * 4 + 4165
    assert row.itemsize * 12_400 * 8 < 600e6
    assert TargetLayout((6,), sizes, "float32").row.itemsize == 4 + 6 * 4 + 4 * 4165


def test_numpy_reads_a_row_by_the_names_of_its_fields():
    layout = TargetLayout((2,), {"model.0": (1, 2)})
    packed = layout.pack(torch.tensor([[1.0, -1.0]]), {"model.0": torch.tensor([[[2.0, 4.0]]])}).numpy()
    row = np.concatenate([np.zeros((1, 4), np.uint8), packed], 1).view(layout.row)[0, 0]
    assert row.dtype.names == ("crc32", "logits", "maximum.model.0", "feature.model.0")
    assert (row["logits"].tolist(), row["maximum.model.0"]) == ([1.0, -1.0], 4.0)
    assert row["feature.model.0"].tolist() == [[64, 255]]


def test_targets_of_another_shape_are_refused():
    layout = TargetLayout((2,), {"layer4": (1, 7, 7)})
    with pytest.raises(ValueError, match=r"'feature.layer4' of this batch is \(1, 8, 8\) and was \(1, 7, 7\) before"):
        layout.pack(torch.zeros(1, 2), {"layer4": torch.zeros(1, 1, 8, 8)})


def test_another_type_is_refused():
    with pytest.raises(ValueError, match="must be one of .*'uint8', 'float32'.*, got 'float16'"):
        TargetLayout((2,), {}, "float16")
