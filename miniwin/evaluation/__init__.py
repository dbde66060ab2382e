"""Evaluation: bits per byte by length, recall and speed."""

from miniwin.evaluation.by_length import LENGTHS, evaluate, loss_at
from miniwin.evaluation.result import Metrics
from miniwin.evaluation.streamed_loss import sequence_loss

__all__ = ["LENGTHS", "Metrics", "evaluate", "loss_at", "sequence_loss"]
