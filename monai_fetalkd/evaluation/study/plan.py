"""What a study compares: arms by folds by seeds."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

__all__ = ["Arm", "Cell", "Study"]

_ONE_THREAD = {"num_workers": 0, "threads": 1}  # of PyTorch, as cells run side by side
_CHECKPOINT = "model.pt"

CHOSEN = "chosen on validation"  # the row of a nested study


@dataclass(frozen=True)
class Arm:
    """One way to train a network: a stage of the config, what it starts from, and what it changes.

    Args:
        stage: section of the config with ``trainer`` and ``ckpt``, such as ``"teacher"``, ``"baseline"``,
            ``"attention"`` or ``"train"``.
        teacher: the arm whose network is the teacher.
        start_from: the arm whose weights the network starts from; those of the config by default.
        set: items of the config to override.
        scored: whether it has a row in the table. A first stage has none: its network cannot classify yet.
    """

    stage: str
    teacher: str | None = None
    start_from: str | None = None
    set: Mapping[str, Any] = field(default_factory=dict)
    scored: bool = True

    @property
    def needs(self) -> tuple[str, ...]:
        """The arms that must be finished before this one starts."""
        return tuple(name for name in (self.teacher, self.start_from) if name is not None)


@dataclass(frozen=True)
class Cell:
    """One arm on one fold from one seed: what a worker process trains and evaluates.

    Attributes:
        name: what messages call it.
        fold: number of the fold; None where the data's own split is used.
        seed: seed of the run.
        arm: name of the arm.
        stage: section of the config that is trained.
        scored: whether its network is evaluated.
        folder: where everything of it is written.
        teacher: folder of the cell whose network is the teacher.
        start_from: folder of the cell whose weights the network starts from.
        overrides: items of the config to override.
        settings: what its result depends on besides the data.
    """

    name: str
    fold: int | None
    seed: int
    arm: str
    stage: str
    scored: bool
    folder: Path
    teacher: Path | None
    start_from: Path | None
    overrides: dict[str, Any]
    settings: dict[str, Any]

    @property
    def needs(self) -> list[Path]:
        """Folders of the cells that must be finished before."""
        return [folder for folder in (self.teacher, self.start_from) if folder is not None]

    @property
    def result(self) -> Path:
        """The file that is written last: a cell that has it is finished."""
        return self.folder / "result.json"

    def predictions(self, split: str) -> Path:
        """The file of its predictions on a split."""
        return self.folder / f"{split}.csv"


@dataclass(frozen=True)
class Study:
    """Arms, folds and seeds that are compared.

    Args:
        configs: config files, later ones overriding earlier ones.
        bundle_root: the folder of the bundle.
        arms: arm by name, in the order of the table.
        references: the scored arms that all others are compared to.
        seeds: seeds of the runs.
        folds: number of patient-grouped folds of all frames; the data's own split without it.
        nested: whether the table speaks of the whole recipe, its choice included: the student of each fold is chosen on
            the validation frames of that fold, and seeds are resampled along with patients.
        set: items of the config to override in every arm.

    Raises:
        ValueError: when an arm names another that is not there, or depends on itself, or there are fewer than three
            folds.

    Example:
        >>> study = Study(("train.json",), ".", {"teacher": Arm("teacher"), "student": Arm("train", teacher="teacher")})
        >>> [cell.name for cell in study.cells("runs", arms=["student"], seeds=[3])]
        ['seed 3, teacher', 'seed 3, student']
    """

    configs: tuple[str, ...]
    bundle_root: str
    arms: Mapping[str, Arm]
    references: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    folds: int | None = None
    nested: bool = False
    set: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, arm in self.arms.items():
            for other in arm.needs:
                self._require(other, f"the arm '{name}' starts from")
        for name in self.references:
            self._require(name, "the study compares with")
            if not self.arms[name].scored:
                raise ValueError(f"The arm '{name}' is not scored, so nothing can be compared with it.")
        folders = [_slug(name) for name in self.arms]
        if len(set(folders)) < len(folders):
            raise ValueError(f"Two arms would share a folder: name them apart ({', '.join(self.arms)}).")
        if self.nested and CHOSEN in self.arms:
            raise ValueError(f"The name '{CHOSEN}' is that of the row that a nested study adds: rename the arm.")
        if self.folds is not None and self.folds < 3:
            raise ValueError(f"One fold tests and one validates: folds must be 3 or more, got {self.folds}.")
        self.with_needs(self.arms)

    def students(self) -> list[str]:
        """The scored arms whose network is no other arm's teacher, in the order of the table."""
        teachers = {arm.teacher for arm in self.arms.values()}
        return [name for name, arm in self.arms.items() if arm.scored and name not in teachers]

    def with_needs(self, names: Collection[str]) -> list[str]:
        """These arms and those they start from, each after what it starts from.

        Args:
            names: names of arms.

        Returns:
            Names of arms.

        Raises:
            ValueError: when there is no such arm, or one depends on itself.
        """
        for name in names:
            self._require(name, "was asked for")
        wanted = [name for name in self.arms if name in names]
        for name in wanted:  # which grows
            wanted += [other for other in self.arms[name].needs if other not in wanted]
        order = TopologicalSorter({name: self.arms[name].needs for name in self.arms if name in wanted})
        try:
            return list(order.static_order())
        except CycleError as error:
            first, *_ = cycle = error.args[1][::-1]
            raise ValueError(f"The arm '{first}' would start from itself: {' < '.join(cycle)}.") from None

    def cells(
        self,
        output_dir: str | os.PathLike[str],
        arms: Collection[str] | None = None,
        seeds: Sequence[int] | None = None,
    ) -> Iterator[Cell]:
        """The cells of the study: all of a seed before the next seed, and each after those it starts from.

        Args:
            output_dir: the folder of the study.
            arms: names of the arms wanted, all by default; what they start from comes with them.
            seeds: seeds instead of those of the study.

        Yields:
            The cells.
        """
        names = self.with_needs(self.arms if arms is None else arms)
        for seed in dict.fromkeys(self.seeds if seeds is None else seeds):
            for fold in (None,) if self.folds is None else range(self.folds):
                for name in names:
                    yield self._cell(Path(output_dir).absolute(), name, fold, seed)

    def _cell(self, output: Path, name: str, fold: int | None, seed: int) -> Cell:
        arm = self.arms[name]
        split = "split" if fold is None else f"fold_{fold}"
        group = output / split / f"seed_{seed}"
        folder = group / _slug(name)
        teacher = None if arm.teacher is None else group / _slug(arm.teacher)
        start_from = None if arm.start_from is None else group / _slug(arm.start_from)
        overrides: dict[str, Any] = {
            **_ONE_THREAD,
            **self.set,
            **arm.set,
            "seed": seed,
            "resume": True,
            "bundle_root": self.bundle_root,
            "output_dir": str(folder),
            "dataset_dir": str(output / "data" / f"{split}.json"),
            "targets_dir": str(group / "_targets"),  # one store for all students of a teacher
            f"{arm.stage}#ckpt": str(folder / _CHECKPOINT),
        }
        if start_from is not None:
            overrides[f"{arm.stage}#start_from"] = str(start_from / _CHECKPOINT)
        if teacher is not None:
            overrides["teacher#ckpt"] = str(teacher / _CHECKPOINT)
        return Cell(
            name=f"{'' if fold is None else f'fold {fold}, '}seed {seed}, {name}",
            fold=fold,
            seed=seed,
            arm=name,
            stage=arm.stage,
            scored=arm.scored,
            folder=folder,
            teacher=teacher,
            start_from=start_from,
            overrides=overrides,
            settings=self._settings(name) | {"seed": seed, "scored": arm.scored},
        )

    def _settings(self, name: str) -> dict[str, Any]:
        arm = self.arms[name]
        return {
            "stage": arm.stage,
            "set": {**_ONE_THREAD, **self.set, **arm.set},
            "teacher": None if arm.teacher is None else self._settings(arm.teacher),
            "start_from": None if arm.start_from is None else self._settings(arm.start_from),
        }

    def _require(self, name: str, who: str) -> None:
        if name not in self.arms:
            raise ValueError(f"There is no arm '{name}', which {who}: the arms are {', '.join(self.arms)}.")


def _slug(name: str) -> str:
    """A folder's name: letters, with their marks, and digits of all scripts; a hash where there are none."""
    letters = unicodedata.normalize("NFC", name.lower())
    kept = "".join(each if unicodedata.category(each)[0] in "LMN" else " " for each in letters)
    return "_".join(kept.split()) or hashlib.sha256(name.encode()).hexdigest()[:8]
