from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor

from monai_fetalkd.ultrasound.transforms import CheckLabelsd

CHECK = CheckLabelsd("label", ["background", "liver", "tumour"])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32])
@pytest.mark.parametrize("shape", [(1, 4, 4), (1, 4, 4, 4)])
def test_numbers_of_the_class_table_pass_as_they_are(shape, dtype):
    item = {"label": torch.randint(0, 3, shape).to(dtype), "image": 1}
    assert CHECK(item) is item


@pytest.mark.parametrize(("value", "told"), [(3, "3"), (-1, "-1"), (0.5, "0.5"), (255, "255")])
def test_another_number_is_named_with_its_file(value, told):
    label = MetaTensor(torch.full((1, 2, 2), float(value)), meta={"filename_or_obj": "case7.nii.gz"})
    with pytest.raises(ValueError, match=rf"'case7\.nii\.gz' holds {told}, but .* 0 to 2: background, liver, tumour"):
        CHECK({"label": label})
