from __future__ import annotations

import pytest
from monai.data import DataLoader, Dataset
from monai.transforms import Compose, ToTensord
from torch.utils.data import SubsetRandomSampler

from monai_fetalkd.bundle.distil.views import loader_of_views
from monai_fetalkd.targets import FixedViews


@pytest.fixture
def dataset():
    return Dataset([{"number": index} for index in range(5)], Compose([ToTensord("number")]))


def test_without_views_a_loader_stays_as_it_is(dataset):
    loader = DataLoader(dataset, batch_size=2)
    assert loader_of_views(loader) is loader


@pytest.mark.parametrize("views", [0, 3])
def test_views_that_the_loader_shows_give_way(dataset, views):
    result = loader_of_views(DataLoader(FixedViews(dataset, 16), batch_size=2), views)
    assert result.dataset is dataset if not views else result.dataset.views == views
    assert [batch["number"].tolist() for batch in result] == [[0, 1], [2, 3], [4]]


def test_a_sampler_of_the_loader_is_kept(dataset):
    loader = DataLoader(dataset, batch_size=1, sampler=SubsetRandomSampler([3]))
    assert [batch["number"].tolist() for batch in loader_of_views(loader, 2)] == [[3]]
