"""The gradients of one optimizer step: its passes forward and backward, the mean over processes, clipping.

Shapes: B batch size, N sequence length, C hidden_size, P parts of a mixture.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from miniwin.data import Corpus, document_numbers, loader
from miniwin.data.passes import Passes
from miniwin.specs import TrainSpec
from miniwin.tokenizer import Tokenizer
from miniwin.training.batch_loss import PartLosses, shares
from miniwin.training.distilling.teacher import Teacher
from miniwin.training.engine import Engine


class StepLosses(NamedTuple):
    """loss: the mean next-token loss of a step. norm: of the gradients before clipping. auxiliary, distillation: losses
    that are reported by themselves; None for a model without an auxiliary loss, and for a run without a teacher.
    """

    loss: float
    norm: float
    auxiliary: float | None
    distillation: float | None


class StepGradients:
    """Gradients of the steps of one run, in order. parts: the losses of a mixture's parts, as they are seen here.

    teacher: the model that the run learns from; None: the text alone.
    """

    batches: Iterator[tuple[Tensor, Tensor]]

    def __init__(
        self, engine: Engine, spec: TrainSpec, corpus: Corpus, tokenizer: Tokenizer, teacher: Teacher | None = None
    ) -> None:
        self.teacher = teacher
        self.engine, self.spec, self.corpus, self.tokenizer = engine, spec, corpus, tokenizer
        self.group, self.device = engine.group, engine.device
        self.passes = Passes(spec.lengths, spec.length_weights, spec.batch_size)
        self.parts = PartLosses([name for name, _, _ in corpus.parts], self.device)
        self.parameters = [parameter for parameter in engine.decoder.parameters() if parameter.requires_grad]

    def read_from(self, step: int, workers: int) -> None:
        """Open the batches of the steps that are left. A step takes `gradient_accumulation` of them."""
        spec, passes = self.spec, self.spec.gradient_accumulation
        self.batches = loader(
            self.corpus.rows,
            start_step=step * passes,
            num_steps=(spec.steps - step) * passes,
            batch_size=spec.batch_size,
            seq_len=spec.lengths,
            weights=spec.length_weights,
            seed=spec.seed,
            workers=workers,
        )

    def compute(self, step: int) -> StepLosses:
        """The losses of a step. The gradients are left in place, clipped: those of what is minimised, auxiliary loss
        included.
        """
        passes = self.spec.gradient_accumulation
        for parameter in self.parameters:
            parameter.grad = None
        total, added, taught = torch.zeros(3, device=self.device)
        auxiliary: Tensor | None = None
        numbers = range(step * passes, (step + 1) * passes)
        for number in numbers:
            inputs, every = next(self.batches)  # (B, N), (B, N)
            sizes = self.corpus.rows.sizes(self.passes[number].first, len(every))  # (P,): rows of each part
            own = shares(self.group, every, sizes)
            inputs, targets = (self.group.rows(ids).to(self.device) for ids in (inputs, every))  # (B / processes, N)
            documents = self._documents(number, inputs)
            lesson = None if self.teacher is None else self.teacher.lesson(inputs, documents)
            with self.engine.of_pass(last=number == numbers[-1]):
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.spec.dtype == "bfloat16"):
                    losses = self.engine.one_pass(inputs, targets, documents, own, lesson)
                loss, auxiliary = losses.loss / passes, losses.auxiliary
                self.parts.see(losses.parts, sizes)
                total += losses.next_token / passes
                if losses.distillation is not None:
                    taught += losses.distillation / passes
                if auxiliary is not None:
                    loss = loss + auxiliary / passes
                    added += auxiliary.detach() / passes
                if loss.requires_grad:  # not if all that is trained are experts that no token chose
                    loss.backward()
        total, added, taught = self.group.mean(total), self.group.mean(added), self.group.mean(taught)
        self.parts.end_step(self.group)
        norm = self.engine.clip(self.parameters, self.spec.clip_grad_norm)
        return StepLosses(
            float(total),
            norm,
            None if auxiliary is None else float(added),
            None if self.teacher is None else float(taught),
        )

    def _documents(self, number: int, inputs: Tensor) -> Tensor | None:
        """The number of each token's document (B / processes, N); None where documents are not kept apart. number: of
        the pass. inputs: this process's rows of it.
        """
        if self.spec.packing == "stream":
            return None
        assert self.tokenizer.separator is not None
        found = document_numbers(inputs, self.tokenizer.separator)
        at, mine = self.passes[number], self.group.span(self.passes[number].batch_size)
        for place, own in self.corpus.rows.documents(at.first, at.batch_size, at.seq_len, self.spec.seed).items():
            if mine.start <= place < mine.stop:
                found[place - mine.start] = torch.from_numpy(own).to(found.device)
        return found
