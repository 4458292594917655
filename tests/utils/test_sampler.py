from __future__ import annotations

import pytest
from monai.data import DataLoader, Dataset

from monai_fetalkd.utils.sampler import GlobalBatchSampler


def samplers(count, ranks, batch_size, **arguments):
    return [
        GlobalBatchSampler(range(count), batch_size, num_replicas=ranks, rank=rank, **arguments)
        for rank in range(ranks)
    ]


def batches(sampler, count, batch_size):
    loader = DataLoader(Dataset([{"frame": index} for index in range(count)]), batch_size=batch_size, sampler=sampler)
    return [batch["frame"].tolist() for batch in loader]


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("count", range(12, 26))
def test_ranks_step_through_the_batches_of_one(count, ranks, drop_last):
    one, *_ = samplers(count, 1, 3 * ranks, drop_last=drop_last)
    expected = batches(one, count, 3 * ranks)
    if len(expected[-1]) < ranks:  # every rank needs a frame
        expected.pop()
    shares = [batches(sampler, count, 3) for sampler in samplers(count, ranks, 3, drop_last=drop_last)]
    assert {len(share) for share in shares} == {len(expected)}
    for number, batch in enumerate(expected):
        assert sorted(frame for share in shares for frame in share[number]) == sorted(batch)


def test_frames_come_in_another_order_in_each_epoch_and_by_each_seed():
    (sampler,) = samplers(12, 1, 3, seed=1)
    (other,) = samplers(12, 1, 3, seed=7)
    first = list(sampler)
    assert first == list(sampler) != list(other)
    sampler.set_epoch(1)
    assert first != list(sampler)


@pytest.mark.parametrize(("count", "drop_last"), [(1, False), (7, True)])
def test_fewer_frames_than_the_ranks_need_are_refused(count, drop_last):
    with pytest.raises(ValueError, match=f"{count} frames do not make one batch of 2 ranks with 4 each"):
        samplers(count, 2, 4, drop_last=drop_last)
