"""A full disk is a full disk, and not a damaged frame."""

from __future__ import annotations

import errno

import pytest

from monai_fetalkd.utils.machine import machine_error, writing


def behind(cause, error):
    try:
        try:
            raise cause
        except type(cause):
            raise error  # noqa: B904 (as torch does)
    except type(error) as raised:
        return raised


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EROFS, errno.EMFILE, errno.ENOMEM])
def test_an_error_of_the_machine_is_found_behind_others(number):
    cause = OSError(number, "why")
    assert machine_error(behind(cause, RuntimeError("unexpected pos"))) is cause


@pytest.mark.parametrize("error", [ValueError(), OSError("cannot identify"), FileNotFoundError(errno.ENOENT, "no")])
def test_an_error_of_the_data_is_none(error):
    assert machine_error(error) is None


def test_a_full_disk_is_told_with_the_file(tmp_path):
    with pytest.raises(OSError, match=r"model\.pt") as caught, writing(tmp_path / "model.pt"):
        raise behind(OSError(errno.ENOSPC, "No space left on device"), RuntimeError("unexpected pos 3 vs 2"))
    assert caught.value.errno == errno.ENOSPC


def test_other_errors_stay_as_they_are(tmp_path):
    with pytest.raises(RuntimeError, match="bug"), writing(tmp_path):
        raise RuntimeError("bug")
