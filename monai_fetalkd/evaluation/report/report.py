"""The report of finished runs: what was evaluated, shown to people."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from markupsafe import Markup
from torch import nn

from monai_fetalkd.evaluation.scores.calibration import reliability_bins, with_temperature
from monai_fetalkd.evaluation.scores.predictions import Predictions, read_predictions
from monai_fetalkd.evaluation.scores.result import FEW_GROUPS
from monai_fetalkd.evaluation.scores.text import notes
from monai_fetalkd.ultrasound.data.datalist import Datalist
from monai_fetalkd.ultrasound.maps import LEAST_POSITIONS
from monai_fetalkd.utils.files import written_whole

from . import figures
from .curves import StageCurves, read_curves
from .exhibits import Exhibits
from .findings import count_frames, findings, generated
from .page import render
from .streams import read_stream

__all__ = ["Report"]

# costs that accuracy is drawn against, and the label of the axis
_COSTS = {"milliseconds": "milliseconds a frame, batch 1, one core", "parameters": "parameters"}


class Report:
    """Writes one HTML file that shows an evaluation: tables, curves, attention maps, Grad-CAM and mistakes.

    The file holds its figures and needs neither network nor script. It names a frame by its row in the files of
    predictions and never by its file or patient, as file names often carry a patient's number.

    The networks given are not touched: each checkpoint is loaded into a copy. What is missing, such as the logs or a
    checkpoint, is left out and the report says so. The folder is enough: a report of the predictions of
    any other program needs no network and no frame.

    Args:
        folder: folder of an evaluation, with ``metrics.json`` and ``predictions/``; see
            :func:`~monai_fetalkd.evaluation.scores.output.write_evaluation`.
        output: the HTML file to write; None is ``report.html`` in the folder.
        dataset: the frames evaluated, in the order of the predictions: ``dataset[i]["image"]`` is ``[1, H, W]`` from
            0 to 1, and ``dataset.data[i]`` its row of the datalist.
        networks: network and its checkpoint, by the names of ``metrics.json``.
        layers: names of the hidden layers of each network, by the same names; Grad-CAM is taken at the last of them
            that has at least 7 x 7 positions.
        history: columns of the figure of attention maps: the name of a network and a checkpoint of it, by the title of
            the column. The first column, the teacher, is what the others are compared with, layer by layer.
        log_dir: folder of the TensorBoard logs, one subfolder for each stage.
        datalist: the data of the run, for its licence, and for frames and patients by split, class and source.
        title: title of the page.
        streams: answers of ``python -m monai_fetalkd stream``, the file of its JSON lines by a title, each of which
            gets a timeline.

    Raises:
        ValueError: when ``layers`` or ``history`` name a network that ``networks`` does not hold, or the columns of the
            attention maps have different numbers of layers.

    Example:
        As an item of a bundle's config, called by ``"$@report()"``::

            "report": {
                "_target_": "monai_fetalkd.evaluation.report.Report",
                "folder": "$@log_dir + '/evaluation'",
                "dataset": "@test#dataset",
                "networks": "@summary#networks",
                "layers": {"teacher": "@teacher_layers", "student, distilled": "@layers"},
                "history": {
                    "teacher": ["teacher", "@teacher#ckpt"],
                    "student after stage 1": ["student, distilled", "@attention#ckpt"],
                    "student after stage 2": ["student, distilled", "@train#ckpt"]
                },
                "log_dir": "@log_dir",
                "datalist": "@datalist"
            }
    """

    def __init__(
        self,
        folder: str | PathLike[str],
        output: str | PathLike[str] | None = None,
        dataset: Any | None = None,
        networks: Mapping[str, tuple[nn.Module, str]] | None = None,
        layers: Mapping[str, Sequence[str]] | None = None,
        history: Mapping[str, tuple[str, str]] | None = None,
        log_dir: str | PathLike[str] | None = None,
        datalist: Datalist | None = None,
        title: str = "Knowledge distillation: evaluation report",
        streams: Mapping[str, str | PathLike[str]] | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.output = self.folder / "report.html" if output is None else Path(output)
        self.dataset = dataset
        self.networks = dict(networks or {})
        self.layers = {name: list(names) for name, names in (layers or {}).items()}
        self.history = dict(history or {})
        self.log_dir = None if log_dir is None else Path(log_dir)
        self.datalist = datalist
        self.title = title
        self.streams = dict(streams or {})
        for name in [*self.layers, *(name for name, _ in self.history.values())]:
            if name not in self.networks or name not in self.layers:
                raise ValueError(
                    f"'{name}' needs an entry in networks ({', '.join(self.networks)}) and in layers "
                    f"({', '.join(self.layers)}) of the report."
                )
        if len({len(self.layers[name]) for name, _ in self.history.values()}) > 1:
            raise ValueError("Attention maps are compared layer by layer: give each network of history as many layers.")

    @idist.one_rank_only()
    def __call__(self) -> Path:
        """Write the report and print where it is.

        Returns:
            The path of the file.

        Raises:
            FileNotFoundError: when the folder holds no evaluation, or there is no such file of answers.
            ValueError: when the evaluation, its predictions, the dataset and the checkpoints do not belong together, or
                a file of answers holds none.
        """
        content = self._read_metrics()
        predictions = {name: self._read_predictions(name, content) for name in content["networks"]}
        first = next(iter(predictions.values()))
        exhibits = Exhibits(self.dataset, first)
        metrics = {metric for network in content["networks"].values() for metric in network["metrics"]}
        stages = [] if self.log_dir is None else read_curves(self.log_dir, metrics)
        text = render(
            title=self.title,
            date=datetime.date.today(),
            content=content,
            findings=findings(content),
            notes=notes(content["networks"]),
            generated=generated(first),
            about={} if self.datalist is None else self.datalist.about,
            splits=self._splits(first, content["split"]),
            size=None if self.dataset is None else tuple(self.dataset[0]["image"].shape[1:]),
            few=FEW_GROUPS,
            least=LEAST_POSITIONS,
            logs=self.log_dir is not None,
            architectures={name: type(network).__name__ for name, (network, _) in self.networks.items()},
            stages=stages,
            curves=_curves(stages),
            confusions=_confusions(content),
            reliability=_reliability(content, predictions),
            costs=_costs(content),
            attention=exhibits.attention({title: self._look(*entry) for title, entry in self.history.items()}),
            grad_cam=exhibits.grad_cam({name: self._look(name, self.networks[name][1]) for name in self.layers}),
            mistakes={name: exhibits.mistakes(table) for name, table in predictions.items()},
            streams=[read_stream(title, path) for title, path in self.streams.items()],
        )
        with written_whole(self.output) as temporary:
            temporary.write_text(text, encoding="utf-8")
        print(f"report       {self.output}")
        return self.output

    def _read_metrics(self) -> dict[str, Any]:
        path = self.folder / "metrics.json"
        if not path.is_file():
            raise FileNotFoundError(
                f"'{path}' does not exist: evaluate the networks first, then make the report of what was found."
            )
        return json.loads(path.read_text(encoding="utf-8"))

    def _read_predictions(self, name: str, content: Mapping[str, Any]) -> Predictions:
        """The predictions of a network, once it is certain that metrics.json was made of them, on these frames."""
        path = self.folder / content["networks"][name]["predictions"]
        if not path.is_file():
            raise FileNotFoundError(f"'{path}', which '{self.folder / 'metrics.json'}' names, does not exist.")
        table = read_predictions(path)
        frames = content["networks"][name]["frames"]
        if list(table.class_names) != content["class_names"] or len(table) != frames:
            raise ValueError(
                f"'{path}' holds {len(table)} frames of the classes {', '.join(table.class_names)}, but "
                f"'{self.folder / 'metrics.json'}' {frames} of {', '.join(content['class_names'])}: evaluate anew."
            )
        if self.dataset is None:
            return table
        rows = self.dataset.data
        if len(rows) != len(table) or _file_names(table) != _file_names(
            Predictions.from_rows(table.class_names, rows, table.probabilities)
        ):
            raise ValueError(f"The frames of '{path}' are not those of the dataset, in its order: evaluate anew.")
        return table

    def _splits(self, table: Predictions, split: str) -> dict[str, Any]:
        """Frames and patients of all splits, or of the one that was evaluated where no more is known."""
        if self.datalist is not None:
            splits = {name: rows for name, rows in self.datalist.sections.items() if rows}
        else:
            known = zip(table.labels.tolist(), table.groups, table.sources, strict=True)
            splits = {split: [dict(zip(("label", "group", "source"), row, strict=True)) for row in known]}
        return {"names": list(splits), "counts": count_frames(splits, table.class_names)}

    def _look(self, name: str, path: str) -> tuple[nn.Module, str, list[str]]:
        return self.networks[name][0], path, self.layers[name]


def _file_names(table: Predictions) -> list[str]:
    """Names without their folders: the frames may lie elsewhere by now."""
    return [Path(file).name for file in table.files]


def _curves(stages: Sequence[StageCurves]) -> dict[str, Any]:
    return {
        "accuracy": figures.accuracy_curves(stages) if any(stage.accuracy for stage in stages) else None,
        "stages": [(stage, figures.loss_curves(stage)) for stage in stages if stage.losses],
    }


def _confusions(content: Mapping[str, Any]) -> dict[str, Markup]:
    return {
        name: figures.confusion_matrix(name, content["class_names"], network["confusion"])
        for name, network in content["networks"].items()
    }


def _reliability(content: Mapping[str, Any], predictions: Mapping[str, Predictions]) -> dict[str, Markup]:
    diagrams = {}
    for name, network in content["networks"].items():
        bins = {"as trained": network["reliability"]}
        if network["temperature"]:
            temperature = network["temperature"]["value"]
            scaled = with_temperature(predictions[name], temperature)
            bins[f"temperature {temperature:.2f}"] = reliability_bins(scaled, len(network["reliability"]))
        diagrams[name] = figures.reliability_diagram(name, bins)
    return diagrams


def _costs(content: Mapping[str, Any]) -> list[Markup]:
    known = {name: network for name, network in content["networks"].items() if network["cost"]}
    drawn = []
    for key, label in _COSTS.items():
        points = {}
        for name, network in known.items():
            cost = network["cost"][key]
            points[name] = (cost["median"] if isinstance(cost, Mapping) else cost, network["metrics"]["accuracy"])
        if points:
            drawn.append(figures.cost_figure(points, label))
    return drawn
