"""The thread that owns a model. It repeats: admit texts that wait, read a piece of prompts, step all texts by a token.

A long prompt is read a piece at a time, so that the others go on between the pieces. A text leaves when it ends, when
its client has gone, or when its time is over; what its cache holds is then kept (kept.py).
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque

import torch
from torch import Tensor

from miniwin.blocks.cache.rollback import Mark
from miniwin.blocks.messages.escaping import escaped_line
from miniwin.generation.sampling import sample_rows
from miniwin.inference import InferenceModel, evaluating
from miniwin.machine.memory import failed_allocation
from miniwin.serving.batch import Batch
from miniwin.serving.errors import APIError
from miniwin.serving.job import Drawn, Job, tell
from miniwin.serving.kept import KeptStates
from miniwin.serving.metrics import Metrics
from miniwin.specs import UserError

LOG = logging.getLogger(__name__)
PIECE = 128  # ids of prompts that are read between two steps
PIECE_ALONE = 1024  # where nobody waits for a step


class Worker(threading.Thread):
    """`submit` from any thread; all else happens in this one."""

    def __init__(
        self, model: InferenceModel, name: str, kept: KeptStates, metrics: Metrics, max_batch: int, max_queue: int
    ) -> None:
        super().__init__(name=f"model {name}", daemon=True)
        self.model, self.kept, self.metrics = model, kept, metrics.of(name)
        self.max_batch, self.max_queue = max_batch, max_queue
        self.drawable = model.spec.vocab_size if model.tokenizer is None else model.tokenizer.vocab_size
        self._waiting: deque[Job] = deque()
        self._running: list[Job] = []
        self._batch = Batch(model)
        self._empty = model.new_cache(1)  # copying one is quicker than making one
        self._changed = threading.Condition()
        self._ending = False

    def submit(self, jobs: list[Job]) -> None:
        """
        Raises:
            APIError: too many texts wait, or the server ends.
        """
        with self._changed:
            if self._ending:
                raise _ending()
            self._waiting_only()
            if len(self._waiting) + len(jobs) > self.max_queue + max(0, self.max_batch - len(self._running)):
                raise APIError(429, f"{len(self._waiting)} texts wait already; try again later", code="queue_full")
            self._waiting.extend(jobs)
            self._changed.notify()

    def _waiting_only(self) -> None:
        """Forget texts whose clients have gone while they waited."""
        self._waiting = deque(job for job in self._waiting if not job.cancelled)

    def end(self) -> None:
        """End all texts, write what is kept, and stop. Returns at once; `join` waits."""
        with self._changed:
            self._ending = True
            self._changed.notify()

    def run(self) -> None:
        with evaluating(self.model):
            while True:
                with self._changed:
                    while not (self._waiting or self._running or self._ending):
                        self._changed.wait()
                    if self._ending:
                        break
                    self._waiting_only()
                    while self._waiting and len(self._running) < self.max_batch:
                        self._running.append(self._waiting.popleft())
                    self.metrics.queue.set(len(self._waiting))
                self.metrics.running.set(len(self._running))
                self._turn()
            for job in [*self._running, *self._waiting]:
                job.fail(_ending())
            self._leave()
            self.kept.close()
            if self.kept.disk is not None:
                self.kept.disk.close()

    def _turn(self) -> None:
        now = time.monotonic()
        for job in self._running:
            if job.deadline < now and not job.cancelled:
                job.fail(APIError(408, "the request took longer than the server allows (--timeout)", code="timeout"))
        self._leave()
        try:
            self._read()
            self._step()
        except (UserError, MemoryError, RuntimeError) as error:
            self._failed(error)

    def _read(self) -> None:
        """Read pieces of prompts, all but the last id of each, which the first step reads."""
        ready = any(job.read == len(job.ids) - 1 for job in self._running)
        left = PIECE if ready else PIECE_ALONE
        for job in self._running:
            if job.cache is None:
                job.cache = self.kept.take(job.ids) or self._empty.clone()
                job.read = job.cached = job.cache.length
                self.metrics.cached.inc(job.cached)
            if job.text.ids or job.mark is not None:
                continue
            end = min(len(job.ids) - 1, job.read + left)
            if end > job.read:
                job.cache.reserve(min(len(job.ids) + 64, 2 * end + 64))
                self._batch.read(job.cache, job.ids[job.read : end])
                left -= end - job.read
                self.metrics.read.inc(end - job.read)
                job.read = end
            if job.read == len(job.ids) - 1:
                job.mark = Mark(job.cache, job.text.most + 1)
            if left <= 0:
                break

    def _step(self) -> None:
        """One token for each text whose prompt is read."""
        members = [job for job in self._running if job.mark is not None and not job.cancelled]
        if not members:
            return
        first = sum(1 for job in members if not job.text.ids)
        logits = self._batch.step(members, [job.text.ids[-1] if job.text.ids else job.ids[-1] for job in members])
        self.metrics.read.inc(first)
        self.metrics.generated.inc(len(members))
        self.metrics.batch.observe(len(members))
        logits = logits[:, : self.drawable].float() if logits.dtype != torch.float64 else logits[:, : self.drawable]
        finite = torch.isfinite(logits.amax(1)).tolist()
        for job in (job for job, fine in zip(members, finite, strict=True) if not fine):
            job.fail(APIError(500, "the model's logits are not finite: its weights have diverged"))
        if not all(finite):
            members, logits = [job for job, fine in zip(members, finite, strict=True) if fine], logits[finite]
        self._push(members, logits)
        self._leave()

    def _push(self, members: list[Job], logits: Tensor) -> None:
        """Draw the next token of each text, and tell the clients."""
        tokens = sample_rows(logits, [job.sampling for job in members], [job.text.generator for job in members])
        now, news = time.monotonic(), []
        for row, (job, token) in enumerate(zip(members, tokens, strict=True)):
            if job.last is None:
                self.metrics.first.observe(now - job.begun)
            else:
                self.metrics.token.observe(now - job.last)
            job.last = now
            if job.top is not None:
                job.drawn.append(_drawn(logits[row], token, job.top))
            job.text.push(token)
            if (event := job.news(now)) is not None:
                news.append((job.waiting, event))
        if news:
            tell(news)

    def _leave(self) -> None:
        """Let texts go that have ended or whose clients have gone, and keep what was read."""
        gone = [job for job in self._running if job.cancelled or job.text.ended]
        if not gone:
            return
        self._batch.leave(gone)
        for job in gone:
            self._running.remove(job)
            if job.cache is not None:
                self.kept.put(job.context, job.cache, job.mark)
        self.metrics.kept.set(self.kept.nbytes)
        self.metrics.running.set(len(self._running))

    def _failed(self, error: Exception) -> None:
        """A step failed: its texts end, and the model goes on with others."""
        LOG.error("a step failed: %s", escaped_line(f"{type(error).__name__}: {error}"))
        said = failed_allocation(error) if isinstance(error, MemoryError | RuntimeError) else None
        message = "the server has no memory left for this" if said else "the server failed"
        for job in self._running:
            job.fail(APIError(500, message))
        self._running = []
        self.metrics.running.set(0)
        self._batch = Batch(self.model)


def _drawn(logits: Tensor, token: int, top: int) -> Drawn:
    logprobs = torch.log_softmax(logits.double(), 0)
    values, ids = logprobs.topk(min(top, len(logprobs)))
    return Drawn(token, float(logprobs[token]), list(zip(ids.tolist(), values.tolist(), strict=True)))


def _ending() -> APIError:
    return APIError(503, "the server is shutting down", code="shutting_down")
