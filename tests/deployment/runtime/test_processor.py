from __future__ import annotations

import pytest

from monai_fetalkd.deployment.runtime import processor

_OLD = "processor\t: 0\nflags\t\t: fpu sse4_2 avx2 avx512f\n"


@pytest.mark.parametrize(
    ("machine", "information", "exact"),
    [
        ("x86_64", _OLD, False),
        ("x86_64", _OLD.replace("avx512f", "avx512f avx512_vnni"), True),
        ("AMD64", _OLD.replace("avx2", "avx2 avx_vnni"), True),
        ("AMD64", None, None),
        ("aarch64", None, True),
    ],
)
def test_vnni_is_what_an_x86_processor_needs(tmp_path, monkeypatch, machine, information, exact):
    monkeypatch.setattr(processor.platform, "machine", lambda: machine)
    monkeypatch.setattr(processor, "_INFORMATION", tmp_path / "cpuinfo")
    if information:
        (tmp_path / "cpuinfo").write_text(information)
    assert processor.adds_exactly.__wrapped__() is exact
