"""Trainers of the two stages of distillation."""

from __future__ import annotations

from .trainer import AttentionTransferTrainer, DistillationTrainer, TeacherStudentTrainer

__all__ = ["AttentionTransferTrainer", "DistillationTrainer", "TeacherStudentTrainer"]
