"""What a session of training writes into the run folder beside its checkpoints: run.json, metrics, weights."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, TextIO

from safetensors.torch import save
from torch import Tensor

from miniwin import runs
from miniwin.blocks import Decoder
from miniwin.chat.format import ChatFormat
from miniwin.files.writing import finite, replacing, write_text
from miniwin.runs import RunResult, Status
from miniwin.specs import ModelSpec, TrainSpec, dump_yaml
from miniwin.tokenizer import Tokenizer
from miniwin.tracking import Tracker
from miniwin.training.adapter_folder import write_adapter
from miniwin.training.standing import Standing


class RunWriter:
    """Writes the files of one run. record: what run.json says, all but the progress."""

    metrics: TextIO

    def __init__(self, folder: Path, record: dict[str, Any], tracker: Tracker, standing: Standing) -> None:
        self.folder, self.record, self.tracker, self.standing = folder, record, tracker, standing

    def begin(self, model: ModelSpec, spec: TrainSpec, tokenizer: Tokenizer, chat_format: ChatFormat | None) -> None:
        """The files that say what is trained. Lines of metrics past the checkpoint are cut."""
        write_text(self.folder / runs.MODEL, dump_yaml(model))
        write_text(self.folder / runs.TRAIN, dump_yaml(spec))
        tokenizer.save(self.folder)
        if chat_format is not None:
            chat_format.write(self.folder)
        self.tracker.log_params(
            {
                "model": model.model_dump(mode="json"),
                "layout": model.layout,
                "parameters": self.record["parameters"],
                "train": self.record["train"],
            }
        )
        self.tracker.catch_up(runs.keep_metrics(self.folder, self.standing.step))

    def write(self, status: Status, reason: str | None = None) -> None:
        """run.json, as things stand."""
        standing = self.standing
        runs.write_record(
            self.folder,
            self.record,
            status,
            reason,
            steps=standing.step,
            tokens=standing.tokens,
            seconds=standing.all_seconds(),
            tokens_per_second=standing.speed_since((0, 0.0)),
            final_loss=standing.watch.smoothed,
        )

    def log(self, line: dict[str, Any]) -> None:
        """A line of metrics.jsonl."""
        self.metrics.write(json.dumps(finite(line)) + "\n")
        self.metrics.flush()
        self.tracker.catch_up([line])

    def flush(self) -> None:
        """Have the metrics on the disk: they may be ahead of the checkpoint, never behind."""
        self.metrics.flush()
        os.fsync(self.metrics.fileno())

    def weights(self, state: dict[str, Tensor] | None, name: str = runs.WEIGHTS) -> None:
        """A file of weights. state: None in a process that does not write."""
        if state is None:
            return
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        with replacing(self.folder / name) as temporary:
            temporary.write_bytes(save(weights, metadata={"format": "pt"}))

    def adapter(self, decoder: Decoder, spec: ModelSpec) -> None:
        """The adapter by itself, in a folder of its own."""
        write_adapter(self.folder / runs.ADAPTER, decoder, spec)

    def end(self, status: Status, reason: str | None, paused: bool = False) -> RunResult:
        try:
            self.write(status, reason)
        finally:
            self.tracker.set_status("paused" if paused else status, reason)
            self.tracker.close()
        return runs.read_result(self.folder)
