"""What a folder with weights holds: spec, tensors, tokenizer, chat format, and the special ids that an import named.

A run that began with an imported model's weights has that model's special ids in its run.json, under `from`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from miniwin.chat.format import ChatFormat, read_chat_format
from miniwin.files.json_files import read_json
from miniwin.references import Found
from miniwin.runs import CHECKPOINT, FROM, IMPORT, MODEL, RUN, TOKENIZER, WEIGHTS
from miniwin.specs import ModelSpec, UserError, load_model_spec
from miniwin.tokenizer import Tokenizer, load_tokenizer
from miniwin.tokenizer.special_ids import KEY, SpecialIds, parse_special_ids, read_special_ids
from miniwin.weights import read_weights


class StoredModel:
    """A folder with weights, as it is while `opened` yields it.

    spec: what model.yaml says. file: where the weights are, model.safetensors or the last checkpoint of a run.

    Raises:
        UserError: the spec is wrong, or there are no weights.
    """

    def __init__(self, found: Found, read: Callable[[str], bytes | None]) -> None:
        assert found.folder is not None
        self.found, self.folder, self._read = found, found.folder, read
        self.spec: ModelSpec = load_model_spec(self.folder / MODEL, raw=read(MODEL))
        self.file = self._weights()

    def _weights(self) -> Path:
        for name in (self.found.weights, CHECKPOINT):
            if (self.folder / name).is_file():
                return self.folder / name
        raise UserError(
            f"{self.folder} has no weights yet: neither {WEIGHTS} nor {CHECKPOINT}; train it first, or load "
            f"{self.folder / MODEL} for random weights"
        )

    def spec_with(self, overrides: Sequence[str]) -> ModelSpec:
        """The spec with some fields replaced: "field.path=value"."""
        return load_model_spec(self.folder / MODEL, overrides, self._read(MODEL))

    def tensors(self, device: torch.device) -> dict[str, Tensor]:
        """The weights, which nobody has held against the spec."""
        if self.file.name != CHECKPOINT:
            return read_weights(self.file, device, self._read(self.file.name))
        from miniwin.checkpoint import load_checkpoint

        state: dict[str, Tensor] = load_checkpoint(self.file, map_location=device)["model"]
        return state

    def special(self) -> SpecialIds | None:
        """The special ids of an imported model, or of one whose weights a run began with."""
        if self.found.entry is not None:  # an entry has no import.json
            return _of_run(self.found.entry.provenance.get("run"), self.folder)
        if (self.folder / IMPORT).is_file():
            return read_special_ids(self.folder / IMPORT)
        if (self.folder / RUN).is_file():
            try:
                return _of_run(read_json(self.folder / RUN, names=True), self.folder / RUN)
            except (OSError, ValueError):  # the weights are what counts here
                return None
        return None

    def tokenizer(self, special: SpecialIds | None) -> Tokenizer | None:
        """The tokenizer; None for a vocabulary that is not text.

        Raises:
            UserError: it is damaged, or belongs to another model.
        """
        if not (self.folder / TOKENIZER).is_file():
            return None
        tokenizer = load_tokenizer(self.folder, raw=self._read(TOKENIZER), special=special)
        if tokenizer.rows > self.spec.vocab_size:
            raise UserError(
                f"{self.folder}: the tokenizer has {tokenizer.rows} ids and the model only {self.spec.vocab_size}; "
                f"{TOKENIZER} and {MODEL} must come from the same run"
            )
        return tokenizer

    def chat_format(self) -> ChatFormat | None:
        """How chats are written for the model; None for one that was not made for chats."""
        return read_chat_format(self.folder, self._read)


@contextmanager
def opened(found: Found) -> Iterator[StoredModel]:
    """The stored model that a reference means. An entry is checked against its hashes."""
    with found.reading() as read:
        yield StoredModel(found, read)


def _of_run(record: Any, where: Path) -> SpecialIds | None:
    origin = record.get(FROM) if isinstance(record, dict) else None
    return parse_special_ids(origin, where) if isinstance(origin, dict) and KEY in origin else None
