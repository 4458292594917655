"""Studies: arms by folds by seeds, each a run of the bundle's configs, in one table with paired intervals.

What trains, :func:`monai_fetalkd.evaluation.study.runner.run_study`, is not imported here: a table needs neither torch
nor MONAI.
"""

from __future__ import annotations

from .plan import Arm, Cell, Study
from .reader import read_study
from .table import study_result, study_table

__all__ = ["Arm", "Cell", "Study", "read_study", "study_result", "study_table"]
