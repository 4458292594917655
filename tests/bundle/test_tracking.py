"""``--tracking mlflow``: MONAI's own handlers write the curves and the figures into MLflow's database."""

from __future__ import annotations

import json

import pytest

monai = pytest.importorskip("monai", "1.6", reason="before MONAI 1.6 its handlers wrote into a folder of files")
tracking = pytest.importorskip("mlflow.tracking", reason="MLflow is an extra: pip install .[tracking]")


def metrics(folder):
    """By name the history of each metric in the database of a folder."""
    client = tracking.MlflowClient(monai.utils.path_to_sqlite_uri(str(folder / "mlruns.db")))
    (experiment,) = client.search_experiments(filter_string="name = 'monai_experiment'")
    runs = client.search_runs([experiment.experiment_id])
    assert runs
    return {
        name: [point.value for point in client.get_metric_history(run.info.run_id, name)]
        for run in runs
        for name in run.data.metrics
    }


def test_training_is_tracked(run, training, tmp_path):
    run("train.json", tracking="mlflow", **training, **{"train#epochs": 2})
    found = metrics(tmp_path / "out")
    assert len(found["accuracy"]) == 2
    assert {"macro_auroc", "negative_log_likelihood", "train_loss"} <= set(found)


@pytest.mark.usefixtures("trained")
def test_evaluation_is_tracked(run, tmp_path):
    run("train.json", "evaluate.json", tracking="mlflow", ckpt=str(tmp_path / "out" / "models" / "model.pt"))
    content = json.loads((tmp_path / "out" / "eval" / "evaluation" / "metrics.json").read_text())
    figures = content["networks"]["student"]["metrics"]
    found = metrics(tmp_path / "out")
    for name in ("accuracy", "macro_f1", "negative_log_likelihood"):
        assert found[name] == [pytest.approx(figures[name]["value"])]
