"""How far a run is, and all that its next step depends on and that is no function of the step: a checkpoint's contents.

The order of the data and the learning rate are functions of the step, and so need nothing here.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer

from miniwin.blocks import Decoder
from miniwin.checkpoint import restore_rng, rng_state
from miniwin.specs import TrainSpec, UserError
from miniwin.training.adapters import adapter_weights, plain_weights, put_adapter
from miniwin.training.batch_loss import PartLosses
from miniwin.training.divergence import LossWatch
from miniwin.training.optimizer import Together
from miniwin.training.validation import Validation


class Standing:
    """The steps that are done, what they have made of weights and optimizer, and how long they took.

    step: optimizer steps done. passed: rungs evaluated. seconds: of the sessions before this one. step_seconds: of all
    sessions, spent in steps.
    """

    def __init__(
        self,
        spec: TrainSpec,
        decoder: Decoder,
        optimizer: Optimizer | Together,
        parts: PartLosses,
        validation: Validation | None,
        device: torch.device,
    ) -> None:
        self.spec, self.decoder, self.optimizer = spec, decoder, optimizer
        self.parts, self.validation, self.device = parts, validation, device
        self.watch = LossWatch(spec.stop)
        self.step = 0
        self.passed: list[int] = []
        self.seconds = 0.0
        self.step_seconds = 0.0
        self.begins()

    def begins(self) -> None:
        """From here on the clock counts this session; and speed since the beginning of the session."""
        self.began = time.monotonic()
        self.first = self.moment

    @property
    def tokens(self) -> int:
        """Tokens seen so far."""
        return self.step * self.spec.tokens_per_step

    @property
    def moment(self) -> tuple[int, float]:
        return self.step, self.step_seconds

    def speed_since(self, moment: tuple[int, float]) -> float:
        """Tokens per second of the steps since a moment."""
        step, seconds = moment
        return (self.step - step) * self.spec.tokens_per_step / max(self.step_seconds - seconds, 1e-9)

    def all_seconds(self) -> float:
        return self.seconds + time.monotonic() - self.began

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {
            "step": self.step,
            "passed": self.passed,
            "seconds": self.all_seconds(),
            "step_seconds": self.step_seconds,
            "model": plain_weights(self.decoder),
            **({} if self.spec.lora is None else {"adapter": adapter_weights(self.decoder)}),
            "optimizer": self.optimizer.state_dict(),
            "random": rng_state(self.device),
            "watch": self.watch.state(),
            **({} if self.validation is None else {"best": self.validation.best}),
            **self.parts.state(),
        }

    def restore(self, state: dict[str, Any], path: Path) -> None:
        """Go on from what the checkpoint at `path` holds.

        Raises:
            UserError: it was written by a version that groups parameters differently.
        """
        self.step, self.passed = state["step"], list(state["passed"])
        self.seconds, self.step_seconds = state["seconds"], state["step_seconds"]
        if self.spec.lora is None:
            self.decoder.load_state_dict(state["model"])
        else:  # the model beside it is merged, and the weights around which it is trained are in the decoder
            put_adapter(self.decoder, state["adapter"])
        try:
            self.optimizer.load_state_dict(state["optimizer"])
        except ValueError:  # another version may decay other parameters
            raise UserError(
                f"{path} was written by a version of miniwin that groups the optimizer's "
                "parameters differently: train again with --fresh, or continue with that version"
            ) from None
        self.watch.restore(state["watch"])
        if self.validation is not None:
            self.validation.best = state["best"]
        self.parts.restore(state)
        restore_rng(state["random"], self.device)
        self.begins()
