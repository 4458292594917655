from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Lambda, RandAffined, RandFlipd

from monai_fetalkd.keys import hash_of_data, hash_of_transforms


def test_equal_values_have_equal_hashes_whatever_objects_they_share():
    name = "a name"
    apart = "".join(["a ", "name"])
    assert hash_of_data([{"a": name, "b": name}]) == hash_of_data([{"b": apart, "a": name}])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([1, [2]], [[1], 2]),
        (["ab", "c"], ["a", "bc"]),
        ({"a": 1}, {"a": 2}),
        ({"a": 1}, {"b": 1}),
        ({"a": {"b": 1}}, {"a": {}, "b": 1}),
        (torch.zeros(2), torch.zeros(2, 1)),
        (torch.zeros(2), torch.zeros(2, dtype=torch.int32)),
        (torch.zeros(2, dtype=torch.bfloat16), torch.ones(2, dtype=torch.bfloat16)),
        (np.zeros(2), np.array([0, 1e-9])),
        (1, "1"),
        (None, False),
    ],
)
def test_unequal_values_have_unequal_hashes(one, other):
    assert hash_of_data(one) != hash_of_data(other)


def test_a_tensor_counts_by_its_values_alone():
    values = torch.arange(6.0).reshape(2, 3)
    assert hash_of_data(values) == hash_of_data(MetaTensor(values.T.contiguous().T).requires_grad_())


@pytest.mark.parametrize("change", [lambda path: path.write_text("longer"), lambda path: os.utime(path, ns=(1, 1))])
def test_a_name_of_a_file_stands_for_the_file_too(tmp_path, change):
    path = tmp_path / "frame.png"
    path.write_text("short")
    before = hash_of_data(path)
    assert before == hash_of_data(str(path))
    change(path)
    assert before != hash_of_data(path)


@pytest.mark.parametrize("transform", [RandFlipd, RandAffined])  # the second holds tensors
def test_transforms_count_with_their_settings(transform):
    assert hash_of_transforms([transform("image", prob=0.5)]) == hash_of_transforms([transform("image", prob=0.5)])
    assert hash_of_transforms([transform("image", prob=0.5)]) != hash_of_transforms([transform("image", prob=0.6)])


@pytest.mark.parametrize("hashed", [hash_of_transforms, hash_of_data])
def test_what_cannot_be_pickled_is_refused(hashed):
    with pytest.raises(ValueError, match="cannot be pickled, so a cache on disk could not tell when it changes"):
        hashed([Compose([Lambda(lambda image: image)])])
