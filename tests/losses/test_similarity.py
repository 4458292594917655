from __future__ import annotations

import pytest
import torch

from monai_fetalkd.losses import FeatureLoss, SimilarityPreservingLoss


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_agrees_with_other_code_bases(dense_reference, reference):
    for case in dense_reference.family("sp") + reference.family("sp"):
        loss = FeatureLoss(SimilarityPreservingLoss())
        case.assert_agrees(lambda students, teachers, _, loss=loss: loss(students, teachers))


def test_features_need_have_nothing_in_common_but_the_batch():
    student, teacher = randn(4, 3, 5, 5), randn(4, 7, seed=1)
    expected = SimilarityPreservingLoss()(student, teacher)
    assert expected > 0
    scaled = SimilarityPreservingLoss()((1e-25 * student).float(), (1e25 * teacher).float())
    torch.testing.assert_close(scaled.double(), expected, rtol=1e-5, atol=0)


def test_one_sample_costs_nothing():
    assert SimilarityPreservingLoss()(randn(1, 3, 4), randn(1, 3, 4, seed=1)) == 0


def test_a_sample_of_zeros_gives_no_nan():
    student = randn(3, 4)
    student[0] = 0
    loss = SimilarityPreservingLoss()(student.requires_grad_(), randn(3, 4, seed=1))
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("shape", [(3,), (2, 4)])
def test_features_of_another_batch_are_refused(shape):
    with pytest.raises(ValueError, match=r"same batch, got \(3, 4\) and \(" + str(shape[0])):
        SimilarityPreservingLoss()(torch.zeros(3, 4), torch.zeros(shape))
