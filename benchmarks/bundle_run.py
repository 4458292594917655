"""Runs part of a bundle for the benchmarks that compare its arms, unless it has been run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow


def run_bundle(
    bundle: Path, configs: Sequence[str], folder: Path, run_id: str, overrides: dict[str, Any]
) -> dict[str, Any]:
    """Run a bundle as ``python -m monai.bundle run`` does, and read the figures that it wrote.

    Args:
        bundle: its folder.
        configs: names of its configs.
        folder: where it writes; a run that has ended there is read and not run again, one that was cut off goes on.
        run_id: what is run.
        overrides: items of the configs.

    Returns:
        What ``eval/metrics.json`` holds.
    """
    result = folder / "eval" / "metrics.json"
    if not result.is_file():
        workflow = ConfigWorkflow(
            workflow_type="train",
            config_file=[str(bundle / "configs" / name) for name in configs],
            bundle_root=str(bundle),
            output_dir=str(folder),
            resume=True,
            **overrides,
        )
        workflow.run_id = run_id
        workflow.initialize()
        workflow.run()
        workflow.finalize()
    content: dict[str, Any] = json.loads(result.read_text())
    return content
