from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor


@dataclass
class ReferenceCase:
    """What another code base computes in float64 for given tensors."""

    id: str
    params: dict
    students: list[np.ndarray]
    teachers: list[np.ndarray]
    target: np.ndarray | None
    loss: float
    layers: list[float] | None
    grads: list[np.ndarray]

    def assert_agrees(
        self, loss: Callable[[list[Tensor], list[Tensor], Tensor | None], Tensor], rel: float = 1e-10
    ) -> None:
        students = [torch.tensor(values, dtype=torch.float64, requires_grad=True) for values in self.students]
        teachers = [torch.tensor(values, dtype=torch.float64) for values in self.teachers]
        value = loss(students, teachers, None if self.target is None else torch.tensor(self.target))
        value.backward()
        assert value.item() == pytest.approx(self.loss, rel=rel), self.id
        for student, expected in zip(students, self.grads, strict=True):
            tolerance = rel if expected.dtype == np.float64 else max(rel, 1e-6)  # some are stored in float32
            difference = np.abs(student.grad.numpy() - expected).max()
            assert difference <= tolerance * np.abs(expected).max(), self.id


class Reference:
    def __init__(self, path: Path) -> None:
        with np.load(path) as archive:
            self._arrays = dict(archive)
        self._cases = json.loads(str(self._arrays["cases"]))

    def family(self, name: str) -> list[ReferenceCase]:
        cases = [self._read(case) for case in self._cases if case["family"] == name]
        assert cases, f"no reference case of family {name}"
        return cases

    def _read(self, case: dict) -> ReferenceCase:
        inputs, results = f"in/{case['inputs']}", f"case/{case['id']}"
        layers = self._arrays.get(f"{results}/layers")
        return ReferenceCase(
            id=case["id"],
            params=case["params"],
            students=self._numbered(f"{inputs}/student"),
            teachers=self._numbered(f"{inputs}/teacher"),
            target=self._arrays.get(f"{inputs}/target"),
            loss=float(self._arrays[f"{results}/loss"]),
            layers=None if layers is None else layers.tolist(),
            grads=self._numbered(f"case/{case.get('same_grad_as') or case['id']}/grad"),
        )

    def _numbered(self, prefix: str) -> list[np.ndarray]:
        count = sum(key.startswith(f"{prefix}/") for key in self._arrays)
        return [self._arrays[f"{prefix}/{index}"] for index in range(count)]


@pytest.fixture
def reference(project_dir: Path) -> Reference:
    return Reference(project_dir / "tests" / "reference" / "kd_reference.npz")


@pytest.fixture
def dense_reference(project_dir: Path) -> Reference:
    return Reference(project_dir / "tests" / "reference" / "dense_reference.npz")
