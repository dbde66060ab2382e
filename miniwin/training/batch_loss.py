"""The loss of a pass: of a mixture, each part's mean loss in proportion to its rows, however few targets it counts.

    loss = sum over the parts p of (rows of p / rows of the pass) * L_p
    L_p  = mean over the counted targets of p of -log p(target)       in nats, computed in float32

With a teacher, L_p is (1 - w) times that and w times the part's distillation loss (training/distilling).

So rows with a few answers are not drowned by rows of text, of which every token counts. With a single part this is the
mean over all counted targets.

Under torchrun a process has some of the rows, and the gradients are averaged over the processes. It computes, of the
parts that it has rows of, the sum of w_p * (its own mean of p), so that the mean over the processes is the loss above:

    w_p = (rows of p / rows) * (its targets of p / all targets of p) * processes

Shapes: B rows of the pass, b rows of this process, N tokens, C hidden_size, P parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from miniwin.blocks import Decoder
from miniwin.data.rows import IGNORED
from miniwin.training.distilling.lessons import Lesson
from miniwin.training.distributed import Group
from miniwin.training.loss import next_token_loss


class Share(NamedTuple):
    """What this process has of a part: `rows` of its rows, `of_part` of its counted targets, times the processes.

    rows_of_pass: which share of the whole pass the part is.
    """

    rows: int
    of_part: float
    rows_of_pass: float


def shares(group: Group, targets: Tensor, sizes: Sequence[int]) -> list[Share]:
    """This process's share of each part. targets (B, N): of all processes. sizes (P,): rows of each part."""
    found, start, whole = [], 0, len(targets)
    for size in sizes:
        mine = group.span(whole)
        own = range(max(start, mine.start), min(start + size, mine.stop))
        if group.size == 1:
            of_part = 1.0 if size else 0.0
        else:
            counted = targets[start : start + size] != IGNORED
            inside = counted[own.start - start : own.stop - start] if len(own) else counted[:0]
            of_part = int(inside.sum()) * group.size / max(1, int(counted.sum()))
        found.append(Share(len(own), of_part, size / whole))
        start += size
    return found


class BatchLoss(NamedTuple):
    """loss (): what is minimised. next_token, distillation (): without gradients. parts (P,): next-token losses."""

    loss: Tensor
    next_token: Tensor
    distillation: Tensor | None
    parts: Tensor


def batch_loss(
    decoder: Decoder, hidden: Tensor, targets: Tensor, parts: Sequence[Share], lesson: Lesson | None = None
) -> BatchLoss:
    """The losses of hidden (b, N, C) and targets (b, N), in which parts follow one another.

    Their mean over the processes is that of the pass. A part without rows has a loss of 0. lesson: what a teacher says
    of the pass.
    """
    if len(parts) == 1 and parts[0].of_part == 1 and lesson is None:
        loss = next_token_loss(decoder, hidden, targets)
        return BatchLoss(loss, loss.detach(), None, loss.detach().reshape(1))
    nothing = hidden.new_zeros((), dtype=torch.float32)
    total, next_token, taught, losses, start = None, nothing, nothing, [], 0
    for part in parts:
        rows = slice(start, start + part.rows)
        start += part.rows
        if part.of_part == 0:  # a mean over nothing has no gradient
            losses.append(nothing)
            continue
        loss, own, distillation = _of_part(decoder, rows, hidden, targets, lesson)
        loss, own, distillation = (one * part.of_part for one in (loss, own, distillation))
        total = loss * part.rows_of_pass if total is None else total + loss * part.rows_of_pass
        next_token = next_token + own * part.rows_of_pass
        taught = taught + distillation * part.rows_of_pass
        losses.append(own.float())
    if total is None:  # every parameter still gets a gradient: the processes reduce the same ones
        total = (hidden.sum() + decoder.head.weight.sum()) * 0.0
    return BatchLoss(total, next_token, None if lesson is None else taught, torch.stack(losses))


def _of_part(decoder: Decoder, rows: slice, hidden: Tensor, targets: Tensor, lesson: Lesson | None) -> Sequence[Tensor]:
    """(loss, next-token loss, distillation loss) of some rows; the last is 0 without a teacher."""
    if lesson is not None:
        return lesson.part(decoder, rows, hidden[rows], targets[rows])
    loss = next_token_loss(decoder, hidden[rows], targets[rows])
    return loss, loss.detach(), torch.zeros_like(loss.detach())


class PartLosses:
    """The mean loss of each part since the last line of metrics, weighted by rows. names: () without a mixture."""

    def __init__(self, names: Sequence[str], device: torch.device) -> None:
        self.names = tuple(names)
        self.in_step = torch.zeros(len(names), device=device)  # (P,): of the passes of this step, losses times rows
        self._begin()

    def _begin(self) -> None:
        self.sums, self.rows = [0.0] * len(self.names), [0] * len(self.names)

    def see(self, losses: Tensor, sizes: Sequence[int]) -> None:
        """The losses of a pass (P,), as `batch_loss` gives them, and the rows of each part in the whole pass."""
        if self.names:
            self.in_step += losses * torch.tensor(sizes, device=losses.device)
            self.rows = [before + more for before, more in zip(self.rows, sizes, strict=True)]

    def end_step(self, group: Group) -> None:
        """Add up what all processes have seen in this step."""
        if self.names:
            sums: list[float] = group.mean(self.in_step).tolist()
            self.sums = [before + more for before, more in zip(self.sums, sums, strict=True)]
            self.in_step.zero_()

    def means(self) -> dict[str, float]:
        """The losses of the parts that had rows."""
        parts = zip(self.names, self.sums, self.rows, strict=True)
        return {name: total / rows for name, total, rows in parts if rows}

    def take(self) -> dict[str, float]:
        """`means`, and begin anew."""
        found = self.means()
        self._begin()
        return found

    def state(self) -> dict[str, Any]:
        """For a checkpoint: nothing without a mixture."""
        return {"parts": {"sums": self.sums, "rows": self.rows}} if self.names else {}

    def restore(self, checkpoint: Mapping[str, Any]) -> None:
        if self.names:
            self.sums, self.rows = list(checkpoint["parts"]["sums"]), list(checkpoint["parts"]["rows"])
