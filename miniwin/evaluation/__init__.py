"""Evaluation: bits per byte by length, recall and speed."""

from miniwin.evaluation.metrics import Metrics
from miniwin.evaluation.run import LENGTHS, evaluate, loss_at
from miniwin.evaluation.streamed_loss import sequence_loss

__all__ = ["LENGTHS", "Metrics", "evaluate", "loss_at", "sequence_loss"]
