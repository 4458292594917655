"""Images without labels beside labelled ones: the loaders that mix them, and the label that says there is none.

The teacher has a target for every image, so only the loss on labels needs a label. A row of a datalist that has no
``label`` is unlabelled. Labelled and unlabelled rows share one dataset, and with it its cache, its fixed views and the
stored targets. :class:`MixedSampler` draws both kinds into each batch, :func:`labelled_part` gives the labelled items
alone for stages without a teacher, and :class:`FillLabeld` gives the others a label of :data:`NO_LABEL`, which
:class:`~monai_fetalkd.losses.DistillationLoss` does not count.
"""

from __future__ import annotations

import copy
import json
import math
import os
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor, load_decathlon_datalist
from monai.transforms import Compose, MapTransform
from torch import Tensor
from torch.utils.data import Dataset, DistributedSampler, Subset

from monai_fetalkd.losses._labels import NO_LABEL

__all__ = ["NO_LABEL", "FillLabeld", "MixedSampler", "labelled_part", "unlabelled_rows", "with_optional_label"]


class MixedSampler(DistributedSampler):
    r"""Draw batches of labelled and unlabelled items in a fixed proportion.

    Of :math:`n` items in a batch, :math:`\mathrm{round}(s n)` are unlabelled, :math:`s` being the share. Every batch is
    full. An epoch has :math:`\lceil L / k \rceil` batches for :math:`L` labelled items, :math:`k` in each batch: it
    shows each of them at least once. Both kinds come in passes, shuffled anew, in which each item comes once; a pass
    goes on where the epoch before has ended, so that all unlabelled items are shown equally often in the long run.

    The order depends on seed and epoch alone, and so is the same in a run that was killed and resumed. The engines of
    MONAI tell it the epoch. Of several ranks each draws a share of its own of the global batch, with the same numbers
    of both kinds, so that the mean over the labelled items of all ranks is the mean of the ranks.

    Args:
        dataset: the dataset of the loader, or the one inside a :class:`~monai_fetalkd.targets.FixedViews`; its ``data``
            are rows, and one without ``label_key`` is unlabelled.
        batch_size: number of items in a batch (of one rank), that of the loader.
        share: share of unlabelled items in a batch, above 0 and below 1.
        seed: seed of the order, the same on all ranks.
        label_key: key of the label.
        num_replicas: number of ranks; that of the process group by default, or 1 without one.
        rank: number of this rank; that in the process group by default.

    Raises:
        ValueError: when the share leaves no place in a batch for one of both kinds, or there are no items of it.

    Example:
        >>> from monai.data import Dataset
        >>> rows = [{"image": 0, "label": 1}, {"image": 1, "label": 0}, {"image": 2}, {"image": 3}, {"image": 4}]
        >>> sampler = MixedSampler(Dataset(rows), batch_size=2, share=0.5)
        >>> drawn = list(sampler)
        >>> sorted(drawn[::2]), all("label" not in rows[index] for index in drawn[1::2])
        ([0, 1], True)
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        share: float,
        seed: int = 0,
        label_key: str = "label",
        num_replicas: int | None = None,
        rank: int | None = None,
    ) -> None:
        labelled, unlabelled = _by_kind(dataset, label_key)
        hidden = round(share * batch_size)
        if not 0 < share < 1 or not 0 < hidden < batch_size:
            raise ValueError(
                f"a share of {share:g} of unlabelled items leaves no place for one of both kinds in a batch of "
                f"{batch_size}: give a share between 0 and 1, or a larger batch"
            )
        if not labelled or not unlabelled:
            raise ValueError(
                f"batches of labelled and unlabelled items need both, but there are {len(labelled)} rows with "
                f"'{label_key}' and {len(unlabelled)} without: give the dataset the rows of both sections"
            )
        ranks = idist.get_world_size() if num_replicas is None else num_replicas
        super().__init__(dataset, ranks, idist.get_rank() if rank is None else rank, seed=seed)
        self._parts = [(torch.tensor(labelled), batch_size - hidden), (torch.tensor(unlabelled), hidden)]
        self.batches = math.ceil(len(labelled) / (ranks * (batch_size - hidden)))
        self.num_samples = self.batches * batch_size
        self.total_size = self.num_samples * ranks

    def __iter__(self) -> Iterator[int]:
        """The indices of one epoch, batch after batch."""
        drawn = [self._drawn(part, items, count) for part, (items, count) in enumerate(self._parts)]
        return iter(torch.cat(drawn, 1).flatten().tolist())

    def _drawn(self, part: int, items: Tensor, count: int) -> Tensor:
        """Items of one kind, ``[batches, count]``, from where the last epoch has ended."""
        wanted = self.batches * count * self.num_replicas
        first, skipped = divmod(self.epoch * wanted, len(items))
        last = (self.epoch * wanted + wanted - 1) // len(items)
        passes = torch.cat([items[self._order(len(items), 2 * number + part)] for number in range(first, last + 1)])
        return passes[skipped : skipped + wanted].view(self.batches, count, self.num_replicas)[..., self.rank]

    def _order(self, length: int, stream: int) -> Tensor:
        # a large odd factor keeps the streams of neighbouring seeds apart
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + stream)
        return torch.randperm(length, generator=generator)


def labelled_part(dataset: Any, label_key: str = "label") -> Any:
    """The labelled items of a dataset, for stages that learn from labels alone; they share its cache.

    Args:
        dataset: a dataset whose ``data`` are rows.
        label_key: key of the label.

    Returns:
        The dataset itself where all of its rows have a label, else a ``Subset`` of it.

    Example:
        >>> from monai.data import Dataset
        >>> len(labelled_part(Dataset([{"image": 0, "label": 1}, {"image": 1}])))
        1
    """
    labelled, unlabelled = _by_kind(dataset, label_key)
    return Subset(dataset, labelled) if unlabelled else dataset


def unlabelled_rows(datalist: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The rows of the section ``unlabelled`` of a datalist.

    Args:
        datalist: a JSON file that :func:`monai.data.load_decathlon_datalist` reads, which takes paths from the file's
            folder.

    Returns:
        The rows; none where the datalist has no such section.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "datalist.json"
        >>> _ = path.write_text('{"training": [{"image": "a.nii", "label": "b.nii"}]}')
        >>> unlabelled_rows(path)
        []
    """
    if "unlabelled" not in json.loads(Path(datalist).read_text(encoding="utf-8")):
        return []
    rows: list[dict[str, Any]] = load_decathlon_datalist(str(datalist), True, "unlabelled")
    return rows


class FillLabeld(MapTransform):
    """Give an item that has no label one of :data:`NO_LABEL` alone; others pass as they are.

    Place it last: a label that went through padding would hold voxels of the background.

    Args:
        keys: keys of the labels.
        image_key: key of the image whose spatial size the label has, for segmentation, and metadata where the image has
            them; None is a label of the whole image.
        channels: number of channels, or of classes where labels are vectors; None is a label without that axis.
        dtype: type of a label that is an array; that of the other labels, to be collated with them.

    Example:
        >>> FillLabeld("label")({"image": torch.zeros(1, 8, 8)})["label"]
        -100
        >>> FillLabeld("label", "image", channels=1)({"image": torch.zeros(3, 8, 8)})["label"].shape
        torch.Size([1, 8, 8])
    """

    def __init__(
        self,
        keys: KeysCollection,
        image_key: str | None = None,
        channels: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.image_key = image_key
        self.channels = channels
        self.dtype = dtype

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Fill the labels of one item."""
        return {**{key: self._label(data) for key in self.keys}, **data}

    def _label(self, data: Mapping[Hashable, Any]) -> int | Tensor:
        shape = () if self.channels is None else (self.channels,)
        if self.image_key is None:
            return torch.full(shape, NO_LABEL, dtype=self.dtype) if shape else NO_LABEL
        image = data[self.image_key]
        label = torch.full((*shape, *image.shape[1:]), NO_LABEL, dtype=self.dtype)
        # MONAI collates either kind of tensor, but no mixture of both
        return MetaTensor(label, affine=image.affine) if isinstance(image, MetaTensor) else label


def with_optional_label(transform: Compose, fill: FillLabeld) -> Compose:
    """The same transforms for items that may lack a label: each passes over it, and it is filled at the end.

    Args:
        transform: transforms of images and labels; they stay as they are.
        fill: fills the labels.

    Returns:
        A copy, whose transforms allow missing keys, with ``fill`` behind them.

    Raises:
        ValueError: when a transform needs the label, such as one that crops by it.

    Example:
        >>> from monai.transforms import RandFlipd
        >>> both = with_optional_label(Compose([RandFlipd(["image", "label"])]), FillLabeld("label", "image", 1))
        >>> both({"image": torch.ones(1, 2, 2)})["label"].unique().tolist()
        [-100.0]
    """
    copied = copy.deepcopy(transform)
    for part in copied.flatten().transforms:
        if isinstance(part, MapTransform):
            needed = {getattr(part, name, None) for name in ("label_key", "source_key")} & set(fill.keys)
            if needed:
                raise ValueError(
                    f"{type(part).__name__} works by '{needed.pop()}', which unlabelled items lack: crop by the image, "
                    "as RandSpatialCropd does"
                )
            part.allow_missing_keys = True
    copied.transforms = (*copied.transforms, fill)
    return copied


def _by_kind(dataset: Any, label_key: str) -> tuple[list[int], list[int]]:
    """The indices of the labelled items, and of the others."""
    rows: Sequence[Mapping[str, Any]] | None = getattr(dataset, "data", None)
    if rows is None or not isinstance(dataset, Dataset):
        raise TypeError(f"labelled items are told by the `data` of a MONAI dataset, but got a {type(dataset).__name__}")
    kinds: tuple[list[int], list[int]] = ([], [])
    for index, row in enumerate(rows):
        kinds[0 if row.get(label_key) is not None else 1].append(index)
    return kinds
