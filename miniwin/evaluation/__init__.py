"""Evaluation: bits per byte by length, tasks, recall and speed.

Names are imported when they are asked for: a spec that names a task does not load PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from miniwin.evaluation.by_length import LENGTHS, evaluate, loss_at
    from miniwin.evaluation.result import Metrics
    from miniwin.evaluation.streamed_loss import sequence_loss

_MODULES = {
    "LENGTHS": "by_length",
    "Metrics": "result",
    "evaluate": "by_length",
    "loss_at": "by_length",
    "sequence_loss": "streamed_loss",
}

__all__ = ["LENGTHS", "Metrics", "evaluate", "loss_at", "sequence_loss"]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        import importlib

        return getattr(importlib.import_module(f"miniwin.evaluation.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'miniwin.evaluation' has no attribute '{name}'")
