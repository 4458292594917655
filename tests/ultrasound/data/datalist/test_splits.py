from __future__ import annotations

import re

import numpy as np
import pytest

from monai_fetalkd.ultrasound.data.datalist import Pseudonyms, group_folds, held_out, read_source


def cohort(patients=300, seed=0):
    """Patients with one to eight frames of classes as unequal as those of FETAL_PLANES_DB."""
    generator = np.random.default_rng(seed)
    labels, groups = [], []
    for patient in range(patients):
        for label in generator.choice(6, generator.integers(1, 9), p=[0.06, 0.25, 0.08, 0.14, 0.13, 0.34]):
            labels.append(int(label))
            groups.append(f"p{patient}")
    return labels, groups


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_part_held_out_has_the_wanted_fraction_of_each_class_and_no_shared_group(fraction, seed):
    labels, groups = map(np.asarray, cohort())
    mask = held_out(labels, groups, fraction, seed)
    assert not set(groups[mask]) & set(groups[~mask])
    assert mask.mean() == pytest.approx(fraction, abs=0.02)
    for label in range(6):
        assert mask[labels == label].mean() == pytest.approx(fraction, abs=0.05)


@pytest.mark.parametrize("folds", [2, 5, 10])
def test_folds_are_balanced_and_keep_groups_whole(folds):
    labels, groups = map(np.asarray, cohort())
    fold = group_folds(labels, groups, folds)
    assert all(len(set(fold[groups == group])) == 1 for group in set(groups))
    for label in range(6):
        assert np.bincount(fold[labels == label], minlength=folds).min() > 0
    assert np.bincount(fold).min() > 0.8 * len(fold) / folds


def test_the_order_of_the_frames_does_not_matter_and_the_seed_does():
    labels, groups = map(np.asarray, cohort())
    order = np.random.default_rng(1).permutation(len(labels))
    mask = held_out(labels, groups, 0.2, seed=4)
    assert np.array_equal(held_out(labels[order], groups[order], 0.2, seed=4), mask[order])
    assert not np.array_equal(held_out(labels, groups, 0.2, seed=5), mask)


def test_a_class_of_few_groups_is_not_held_out_whole():
    labels = [0] * 40 + [1] * 2
    groups = [f"p{number}" for number in range(40)] + ["q0", "q1"]
    rare = held_out(labels, groups, 0.2)[-2:]
    assert rare.sum() <= 1


@pytest.mark.parametrize(
    ("groups", "fraction", "message"),
    [
        (["p"] * 10, 0.2, r"10 frames of 1 group\(s\) are too few to hold out 20% by group"),
        ([], 0.2, "0 frames of 0 group"),
        (["p", "q"], 0.6, "above 0 and at most 0.5, got 0.6"),
        (["p", "q"], 0.0, "above 0"),
    ],
)
def test_too_few_groups_and_ill_fractions_are_refused(groups, fraction, message):
    with pytest.raises(ValueError, match=message):
        held_out([0] * len(groups), groups, fraction)


def test_two_groups_are_enough_for_two_parts():
    assert held_out([0, 0, 0, 0], ["p", "p", "q", "q"], 0.1).sum() == 2


def test_fewer_groups_than_folds_are_refused():
    with pytest.raises(ValueError, match="4 frames of 2 groups .*3 folds"):
        group_folds([0, 0, 0, 0], ["p", "p", "q", "q"], 3)


def images_by_section(datalist):
    return {section: {row["image"] for row in rows} for section, rows in datalist.sections.items()}


def test_a_split_is_the_same_whatever_the_salt_and_the_order_of_the_rows(clinic, write):
    first = read_source(clinic, seed=2)
    header, *lines = clinic.read_text().splitlines()
    again = read_source(write("\n".join([header, *reversed(lines)]), "reversed.csv"), seed=2)
    assert images_by_section(first) == images_by_section(again)
    assert not {row["group"] for row in first.section("testing")} & {row["group"] for row in again.section("testing")}
    assert images_by_section(read_source(clinic, seed=3)) != images_by_section(first)


def test_the_split_of_a_table_is_stratified_and_by_patient(clinic):
    datalist = read_source(clinic, val=0.25, test=0.2)
    assert not datalist.shared_groups()
    frames = {section: sum(counts.values()) for section, counts in datalist.counts().items()}
    assert frames["testing"] / 237 == pytest.approx(0.2, abs=0.03)
    assert frames["validation"] / (237 - frames["testing"]) == pytest.approx(0.25, abs=0.04)
    for counts in datalist.counts().values():
        assert max(counts.values()) - min(counts.values()) <= 1


def test_a_class_that_is_absent_from_a_section_is_told(clinic, folder, caplog):
    (folder / "rare.png").touch()
    clinic.write_text(clinic.read_text() + "rare.png,heart,MRN000\n")
    read_source(clinic)
    assert re.search("'heart' .*'testing'.*1 group", caplog.text)


def test_parts_of_nothing_are_left_away(clinic):
    assert set(read_source(clinic, val=0, test=0).sections) == {"training"}


def test_pseudonyms_differ_by_salt_and_tell_nothing_of_the_id(tmp_path):
    kept = tmp_path / "salt"
    first, again, other = Pseudonyms(kept), Pseudonyms(kept), Pseudonyms()
    assert first("MRN 17") == again("MRN 17") != other("MRN 17")
    assert first("MRN 17") != first("MRN 18")
    assert set(first("MRN 17")) <= set("0123456789abcdef")
    assert kept.stat().st_mode & 0o777 == 0o600


def test_a_salt_that_is_too_short_is_refused(tmp_path):
    (tmp_path / "salt").write_text("pepper")
    with pytest.raises(ValueError, match="holds 6 bytes, not at least 32"):
        Pseudonyms(tmp_path / "salt")
