from __future__ import annotations

import dataclasses
from collections import OrderedDict
from types import SimpleNamespace

import pytest
import torch
from monai.networks.nets import HoVerNet

from monai_fetalkd.outputs import heads_of, logits_of

LOGITS, OTHER = torch.zeros(2, 3), torch.zeros(2, 8)


@dataclasses.dataclass
class Output:
    logits: torch.Tensor
    hidden: object = None


class ModelOutput(OrderedDict):
    """As the transformers library returns it: a mapping whose entries are attributes too."""

    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


@pytest.mark.parametrize(
    "output",
    [
        LOGITS,
        (LOGITS,),
        [LOGITS],
        (LOGITS, None),
        {"out": LOGITS},
        {"logits": LOGITS, "aux": OTHER},
        ModelOutput(loss=torch.zeros(()), logits=LOGITS, hidden_states=(OTHER, OTHER)),
        Output(LOGITS),
        Output(LOGITS, [OTHER]),
    ],
    ids=lambda output: type(output).__name__,
)
def test_logits_that_can_be_told_need_no_path(output):
    assert logits_of(output, None, "teacher") is LOGITS


@pytest.mark.parametrize(
    ("output", "path"),
    [
        ((OTHER, LOGITS), 1),
        ([OTHER, LOGITS], -1),
        ({"out": LOGITS, "aux": OTHER}, "out"),
        ({"heads": [OTHER, LOGITS]}, ["heads", 1]),
        (([OTHER], [OTHER, LOGITS]), (1, 1)),
        (ModelOutput(a=OTHER, b=LOGITS), "b"),
        (Output(OTHER, LOGITS), "hidden"),
        (SimpleNamespace(head=LOGITS), "head"),
        ({0: OTHER, 1: LOGITS}, 1),
    ],
)
def test_a_path_leads_to_the_logits(output, path):
    assert logits_of(output, path, "teacher") is LOGITS


@pytest.mark.parametrize(
    ("output", "path", "told"),
    [
        ((LOGITS, OTHER), None, r"student returned a tuple of 2 \(0: \(2, 3\), 1: \(2, 8\)\).*`output`"),
        ((LOGITS, [OTHER]), None, "a tuple of 2"),
        ([], None, "a list"),
        ({"a": LOGITS, "b": OTHER}, None, r"a dict of 2 \(a: .*`output` \(such as 'a'\)"),
        (Output(None, [OTHER]), None, "an? Output of 2"),
        ("text", None, "a str"),
        (None, None, "a NoneType"),
        ((LOGITS,), 1, r"a tuple of 1 .*no 1"),
        ({"a": LOGITS}, "logits", "no 'logits'"),
        ({"a": [OTHER]}, ["a", 3], "no 3"),
        (LOGITS, "logits", r"a tensor of shape \(2, 3\).*no 'logits'"),
        ({"a": [OTHER]}, "a", "'a' of the student is a list of 1"),
    ],
)
def test_logits_that_cannot_be_told_are_refused_with_what_was_returned(output, path, told):
    with pytest.raises(ValueError, match=told):
        logits_of(output, path, "student")


def test_the_branches_of_hovernet_are_named():
    network = HoVerNet("fast", out_classes=3).to("meta")
    output = network(torch.zeros(1, 3, 256, 256, device="meta"))
    with pytest.raises(ValueError, match="nucleus_prediction.*horizontal_vertical.*type_prediction"):
        logits_of(output, None, "student")
    assert logits_of(output, "type_prediction", "student").shape[1] == 3


@pytest.mark.parametrize(
    ("output", "heads"),
    [
        ([torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 4, 4)], [(2, 3, 8, 8), (2, 3, 4, 4)]),
        ((torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 8, 8)), [(2, 3, 8, 8)] * 2),
        (torch.zeros(2, 4, 3, 8, 8), [(2, 3, 8, 8)] * 4),
        (torch.zeros(2, 3, 8, 8), None),
        ([torch.zeros(2, 3, 8, 8)], None),
        ([torch.zeros(2, 3, 8, 8), torch.zeros(2, 16)], None),
        ([torch.zeros(2, 3, 8, 8), None], None),
        ({"out": torch.zeros(2, 3, 8, 8)}, None),
    ],
)
def test_heads_of_deep_supervision(output, heads):
    found = heads_of(output, image_dims=4)
    assert (None if found is None else [tuple(head.shape) for head in found]) == heads
