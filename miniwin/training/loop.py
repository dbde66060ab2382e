"""One process's work on a training run: the loop, the checkpoints, and the record of how it ended.

    loss = mean over the counted tokens of -log p(next token)      in nats per token, computed in float32; of a mixture,
                                                                   the mean over its parts (batch_loss.py)
    step = forward and backward over `gradient_accumulation` batches, clip (gradients.py), AdamW

A model may add to the loss: a mixture of experts adds its load balance. The gradient is that of the sum. The added
part is reported by itself, as `auxiliary_loss`; no evaluation and no other reported loss contains it. So is what a
teacher adds (distilling), as `distillation_loss`.
The order of the data and the learning rate are functions of the step. The checkpoint holds the rest. So a run that was
killed and continued gives the same weights bit for bit, on the same CPU with the same number of threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import torch

from miniwin import runs
from miniwin.blocks.matmul_library import Product
from miniwin.blocks.messages.passwords import masked
from miniwin.checkpoint import restore_rng, rng_state
from miniwin.data import Corpus
from miniwin.files.writing import Unwritable, copy_file, said_if_unwritable
from miniwin.language_model import LanguageModel
from miniwin.runs import RunResult, Status
from miniwin.specs import ModelSpec, TrainSpec
from miniwin.tokenizer import Tokenizer
from miniwin.tracking import Tracker
from miniwin.training.adapters import counts
from miniwin.training.distilling.teacher import Teacher
from miniwin.training.distributed import Group
from miniwin.training.engines import Distributed, make_engine
from miniwin.training.gradients import StepGradients
from miniwin.training.growing import WARMUP
from miniwin.training.optimizer import make_optimizer
from miniwin.training.progress import TrainProgress
from miniwin.training.run_writer import RunWriter
from miniwin.training.schedule import before_decay, learning_rate
from miniwin.training.signals import StopRequest
from miniwin.training.standing import Standing
from miniwin.training.start import Start
from miniwin.training.validation import Validation, shown

OnEval = Callable[[int, LanguageModel], bool | Literal["pause"] | None]


class TrainingLoop:
    """One process's work on a run: from the last checkpoint, if there is one, until the run ends or is stopped.

    before: what run.json says of the run so far; None for a new run. product: see machine/matmul_choice.py. start: the
    model whose weights the run begins with; None: random ones. teacher: the model that it learns from, if any.
    """

    bar: TrainProgress

    def __init__(
        self,
        folder: Path,
        model_spec: ModelSpec,
        spec: TrainSpec,
        corpus: Corpus,
        tokenizer: Tokenizer,
        tracker: Tracker,
        device: torch.device,
        before: dict[str, Any] | None,
        group: Group = Group(),
        product: Product | None = None,
        distributed: Distributed = "ddp",
        shared: Path | None = None,
        on_checkpoint: Callable[[], None] | None = None,
        start: Start | None = None,
        teacher: Teacher | None = None,
    ) -> None:
        self.on_checkpoint = on_checkpoint
        self.group = group
        self.checkpoint = (shared or folder) / runs.CHECKPOINT
        self.folder, self.spec, self.device = folder, spec, device
        self.paused = False  # `on_eval` ended this session, and a later one may go on
        self.validation = None if spec.eval is None else Validation(spec, corpus.texts)

        goes_on = before is not None and group.share(self.checkpoint.exists())
        first = start if group.leads and (not goes_on or spec.lora is not None) else None
        self.warmup = ((before or {}).get(runs.GROWN) or {}).get(WARMUP)  # steps of it, if they are not a share
        self.decays_at = before_decay(spec.schedule, spec.steps, self.warmup)
        self.engine = make_engine(distributed, model_spec, spec, group, device, product, first)
        decoder = self.engine.decoder
        special, chats = (None, None) if start is None else (start.origin.special, start.origin.chat_format)
        chats = corpus.chat_format or chats
        self.model = LanguageModel(decoder, model_spec, tokenizer, str(folder), folder, special, chats)
        self.gradients = StepGradients(self.engine, spec, corpus, tokenizer, teacher)
        self.parts = self.gradients.parts
        self.optimizer = make_optimizer(decoder, spec.optimizer, self.engine.muon)
        self.standing = Standing(spec, decoder, self.optimizer, self.parts, self.validation, device)
        if goes_on:
            self.standing.restore(self.engine.load(self.checkpoint, self.optimizer), self.checkpoint)
        self.logged = self.standing.moment

        record = runs.new_record(
            model_spec,
            spec,
            parameters=counts(decoder),
            data={**corpus.describe(spec.lengths), "fingerprint": corpus.fingerprint},
            device=device,
            product=product,
            tracking={"uri": masked(tracker.uri), "run_id": tracker.run_id},
            before=before,
            origin=None if start is None else start.record(),
            teacher=None if teacher is None else teacher.origin.record(),
        )
        self.writer = RunWriter(folder, record, tracker, self.standing)
        self.writer.write("running")  # before the other files: it makes the folder a run folder
        if self.validation is not None and self.validation.best is not None:
            self._keep_best(self.validation.best)
        self.writer.begin(model_spec, spec, tokenizer, chats)

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return self.standing.step

    @property
    def tokens(self) -> int:
        """Tokens seen so far."""
        return self.standing.tokens

    def run(
        self,
        on_eval: OnEval | None,
        rungs: list[int],
        stop_after_tokens: int | None,
        workers: int,
        progress: bool,
    ) -> RunResult:
        """Train, and write down how the run ended, whatever happens. rungs: tokens at which `on_eval` is called."""
        spec, name, metrics = self.spec, self.folder.resolve().name, self.folder / runs.METRICS
        self.bar = TrainProgress(name, spec.steps, spec.tokens_per_step, self.step, progress)
        try:
            with (
                said_if_unwritable(metrics),
                StopRequest() as stop,
                self.bar,
                open(metrics, "a", encoding="utf-8", newline="\n") as self.writer.metrics,
            ):
                self.gradients.read_from(self.step, workers)
                status, reason = self._train(on_eval, rungs, stop_after_tokens, stop)
        except KeyboardInterrupt:
            self.writer.end("interrupted", "a second Ctrl-C: the steps since the last checkpoint are lost")
            raise
        except BaseException as error:
            with suppress(Unwritable):  # on a full disk the first error is the one to tell
                self.writer.end("failed", f"{type(error).__name__}: {error}")
            raise
        return self.writer.end(status, reason, self.paused)

    def _train(
        self, on_eval: OnEval | None, rungs: list[int], stop_after_tokens: int | None, stop: StopRequest
    ) -> tuple[Status, str | None]:
        spec, steps = self.spec, self.spec.steps
        saved = time.monotonic()
        self.model.train()
        while True:
            verdict = True if on_eval is None else self._evaluate(on_eval, rungs)
            if verdict == "pause":
                self.paused = True
                return "interrupted", f"paused after {self.tokens} tokens, as on_eval said"
            if not verdict:
                return "pruned", f"given up after {self.tokens} tokens, as on_eval said"
            if self.step == self.decays_at:
                self._save_before_decay()
            if self.step == steps:
                self._save()
                if spec.lora is not None and self.group.leads:
                    self.writer.adapter(self.engine.decoder, self.model.spec)
                self.writer.weights(self.engine.weights())
                return "complete", None
            late = self.group.leads and self.step > 0 and time.monotonic() - saved >= self.spec.checkpoint_seconds
            asked, due = self.group.any(stop.received is not None, late)
            if asked:
                received = self.group.first_said(stop.received)
                self.bar.note(f"{received}: writing a checkpoint")
                self._save()
                return "interrupted", f"{received} after step {self.step} of {steps}"
            if stop_after_tokens is not None and self.tokens >= stop_after_tokens:
                self._save()
                return "interrupted", f"stopped after {self.tokens} tokens, as asked"
            if due:
                self._save()
                saved = time.monotonic()
            before = self.tokens
            diverged = self._advance()
            if diverged is not None:
                return "diverged", diverged
            self._validate(before)

    def _advance(self) -> str | None:
        """Take one optimizer step. If the run has diverged, take no step and return the reason."""
        spec, standing, began = self.spec, self.standing, time.monotonic()
        rate = learning_rate(spec.schedule, self.step, spec.steps, spec.optimizer.lr, self.warmup)
        loss, norm, auxiliary, distillation = self.gradients.compute(self.step)
        diverged = standing.watch.see(self.step + 1, loss, norm)
        if diverged is None:
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.step()
            standing.step += 1
        standing.step_seconds += time.monotonic() - began
        smoothed = standing.watch.smoothed
        self.bar.update(self.step, smoothed, standing.speed_since(standing.first), self.parts.means())
        if diverged is not None or self.step in (1, spec.steps) or self.step % spec.log_every == 0:
            line: dict[str, Any] = {
                "step": self.step + (diverged is not None),
                "tokens": self.tokens,
                "loss": loss,
                "smoothed_loss": smoothed,
                "lr": rate,
                "grad_norm": norm,
                "tokens_per_second": round(standing.speed_since(self.logged), 1),
            }
            if auxiliary is not None:
                line["auxiliary_loss"] = auxiliary
            if distillation is not None:
                line["distillation_loss"] = distillation
            if losses := self.parts.take():
                line["losses"] = losses
            self.logged = standing.moment
            self.writer.log(line)
        return diverged

    def _evaluate(self, on_eval: OnEval, rungs: list[int]) -> bool | Literal["pause"]:
        """Call `on_eval` at each rung that has been reached. False: the run has to end. pause: this session has to."""
        for rung in rungs:
            if rung in self.standing.passed or rung > self.tokens:
                continue
            random = rng_state(self.device)  # the evaluation's draws must not change the training
            model, answer = self.engine.whole(self.model), None
            if model is not None:
                model.eval()
                with torch.no_grad():
                    answer = on_eval(rung, model)
                model.train()
            restore_rng(random, self.device)
            verdict: bool | Literal["pause"] = "pause" if answer == "pause" else answer is None or bool(answer)
            verdict = self.group.share(verdict)
            if verdict is True:  # a rung that ends the session is not passed: it is asked again
                self.standing.passed.append(rung)
            self._save()
            if verdict is not True:
                return verdict
        return True

    def _validate(self, before: int) -> None:
        """Measure on the valid split, if it is due after the step that began at `before` tokens."""
        validation = self.validation
        if validation is None:
            return
        if self.step < self.spec.steps and not validation.due(before, self.tokens):
            return
        model = self.engine.whole(self.model)
        if model is not None:
            random = rng_state(self.device)
            line = validation.measure(model, self.step, self.tokens, self.bar.evaluating)
            restore_rng(random, self.device)
            self.writer.log(line)
            self.bar.evaluated(shown(line))
            validation.improved(line)
        validation.best = self.group.share(validation.best)
        self._save()
        self._keep_best(validation.best)

    def _keep_best(self, best: dict[str, Any] | None) -> None:
        """Write the weights of the best evaluation, if it is the one of this very step, and put it on record.

        The checkpoint comes first. So the weights of a best evaluation can be written again until a later checkpoint
        is there, and by then they have been.
        """
        if best is not None and best["step"] == self.step:
            self.writer.weights(self.engine.weights(), runs.BEST)
        if best is not None:
            self.writer.record["best"] = best
        self.writer.write("running")

    def _save_before_decay(self) -> None:
        """Write the checkpoint from which a larger budget goes on, and the best weights of before."""
        best = self.folder / runs.BEST
        if self.group.leads and best.is_file():
            copy_file(best, best.with_name(runs.BEFORE_DECAY_BEST))
        self.engine.save(self.checkpoint.with_name(runs.BEFORE_DECAY), self.standing.state())

    def _save(self) -> None:
        """Write a checkpoint."""
        self.writer.flush()
        self.engine.save(self.checkpoint, self.standing.state())
        self.writer.write("running")
        if self.on_checkpoint is not None and self.group.leads:
            self.on_checkpoint()
