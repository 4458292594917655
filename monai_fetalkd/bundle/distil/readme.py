"""The page of a student bundle: how it is trained, resumed, changed and used."""

from __future__ import annotations

from pathlib import Path
from string import Template

import torch

from .overlay import checkpoint_name
from .plan import DistillationPlan

__all__ = ["readme"]

_README = Template(
    """\
# $title, distilled

A smaller network ($network, $student_size parameters) that learns from the network of the bundle `$teacher` $version
($teacher_size parameters). Written by `python -m monai_fetalkd init`; data, transforms, loss and metric are those of
`$teacher`, and so are the licences. Its weights are not here yet: they come from the training below.

From the folder that holds both bundles, with `monai-fetalkd[bundle]` and what `$teacher` needs installed:

| what | command |
| --- | --- |
| all stages and the table | `${path}python -m monai.bundle run --bundle_root $name \
--config_file "['$teacher/$config','$name/configs/distill.json']"` |
| on your own copy of the data | the same with `--dataset_dir FOLDER`, as for `$teacher` |
| one stage alone | the same with `--run_id run_baseline`, `run_attention`, `run_distillation` or `run_summary` |
| fewer epochs | the same with `--distil#distillation#epochs 100` |
| go on after an interruption | the same with `--distil#resume true` |
| with stored targets of the teacher | the same with `--distil#views 16` |
| inference, with MONAI alone | `${path}python -m monai.bundle run --bundle_root $name \
--config_file $name/configs/inference.json` |

Give the teacher bundle's config before `distill.json`: later files change earlier ones. Weights go to `models/`
(`$checkpoint` is the distilled student), the table and metrics to `eval/metrics.json`, curves to `eval/` for
TensorBoard. The table is computed on the validation split of `$teacher`, which has also chosen the epoch: for figures
to publish, give data that chose nothing.

## What may be changed in `configs/distill.json`

- `distil#student_layers` and `distil#teacher_layers`: the layers whose attention maps stage 1 compares, one for one.
  They are those that `$teacher` compares itself, or else the last of each resolution, on the way down and up:

| student | teacher |
| --- | --- |
$pairs

- `distil#loss`: the weights of labels, soft targets and attention in stage 2, and the temperature.
- `distil#lr`, `distil#attention#epochs`, `distil#distillation#epochs`: the student alone gets the sum of both.
- The student itself is `network_def` in `configs/inference.json`.
"""
)


def readme(plan: DistillationPlan, folder: Path, has_scripts: bool) -> str:
    """The text of ``docs/README.md``.

    Args:
        plan: what has been found out.
        folder: the student bundle.
        has_scripts: whether it holds Python modules, which must be on the path.
    """
    teacher = plan.teacher
    return _README.substitute(
        name=folder.name,
        teacher=teacher.name,
        version=teacher.version,
        title=teacher.metadata.get("name", teacher.name),
        config=teacher.train.path.relative_to(teacher.root).as_posix(),
        network=type(plan.student_network).__name__,
        student_size=f"{_size(plan.student_network):,}",
        teacher_size=f"{_size(plan.teacher_network):,}",
        checkpoint=checkpoint_name(plan),
        path=f"PYTHONPATH={folder.name} " if has_scripts else "",
        pairs="\n".join(f"| `{student}` | `{large}` |" for student, large in plan.pairs),
    )


def _size(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
