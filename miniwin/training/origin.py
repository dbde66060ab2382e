"""The model that a run's first weights come from: a run folder, a zoo entry or an imported folder.

run.json keeps which model that was, under `from`: the reference, the hash of the architecture, the sha256 of the file
of weights, the licence where one is known, and the special ids of an import.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from miniwin.blocks import Decoder
from miniwin.chat.format import ChatFormat
from miniwin.files.hashing import sha256_file
from miniwin.licences import licence_of
from miniwin.references import Found, resolve
from miniwin.runs import RUN, WEIGHTS
from miniwin.specs import ModelSpec, UserError
from miniwin.stored_model import opened
from miniwin.tokenizer import Tokenizer
from miniwin.tokenizer.special_ids import KEY, SpecialIds
from miniwin.weights import put_weights

CPU = torch.device("cpu")
ASKED = "--from"  # what names an origin, unless it is a field of a spec


@dataclass(frozen=True)
class Origin:
    """A model with weights. ref: as the user named it. kind: what it is. file: the weights, and their sha256.

    asked: what the user named it with, for messages.
    """

    ref: str
    kind: str
    found: Found
    folder: Path
    spec: ModelSpec
    file: Path
    sha256: str
    tokenizer: Tokenizer | None
    special: SpecialIds | None
    chat_format: ChatFormat | None
    licence: str | None
    asked: str = ASKED

    def record(self) -> dict[str, Any]:
        """What run.json keeps."""
        return {
            "ref": self.ref,
            "kind": self.kind,
            "spec_hash": self.spec.hash,
            "weights": self.file.name,
            "sha256": self.sha256,
            "licence": self.licence,
            **({} if self.special is None else {KEY: self.special.record()}),
        }

    def described(self) -> str:
        return f"{self.ref} ({self.kind}; {self.file.name}, sha256 {self.sha256[:12]})"

    def shapes(self) -> Decoder:
        """The decoder, on the meta device."""
        with torch.device("meta"):
            return self.spec.build()

    def tensors(self) -> dict[str, Tensor]:
        """The weights. Raises what `decoder` raises."""
        return dict(self.decoder().state_dict())

    def decoder(self) -> Decoder:
        """The decoder with its weights, on the CPU, in the types that the file has.

        Raises:
            UserError: they are damaged, do not fit the spec beside them, or have changed since they were hashed.
        """
        with opened(self.found) as stored:
            decoder = self.shapes()
            put_weights(decoder, stored.tensors(CPU), stored.file)
            if stored.file != self.file or (self.found.entry is None and sha256_file(self.file) != self.sha256):
                raise UserError(
                    f"{self.asked}: {self.file} changed while it was read; try again once nothing writes to it"
                )
        return decoder


def find_origin(ref: str | os.PathLike[str], asked: str = ASKED) -> Origin:
    """The model with weights that `ref` names. Its file of weights is hashed, and not yet read.

    asked: what the user named it with, for messages.

    Raises:
        UserError: it names no model, one without weights, or a damaged one.
    """
    named = os.fspath(ref)
    found = resolve(named)
    if found.folder is None:
        without = ", or no --from for random weights" if asked == ASKED else ""
        raise UserError(
            f"{asked}: {ref} is a model spec, which has no weights; expected a run folder, a zoo entry or an imported "
            f"folder{without}"
        )
    with opened(found) as stored:
        special = stored.special()
        return Origin(
            ref=named,
            kind=_kind(found),
            found=found,
            folder=stored.folder,
            spec=stored.spec,
            file=stored.file,
            sha256=_sha256(found, stored.file, asked),
            tokenizer=stored.tokenizer(special),
            special=special,
            chat_format=stored.chat_format(),
            licence=licence_of(stored.folder),
            asked=asked,
        )


def _kind(found: Found) -> str:
    if found.entry is not None:
        return "zoo entry"
    assert found.folder is not None
    return "run" if (found.folder / RUN).is_file() else "imported model"


def _sha256(found: Found, file: Path, asked: str) -> str:
    if found.entry is not None:  # opening the entry has compared them
        return found.entry.require_manifest().files[WEIGHTS].sha256
    try:
        return sha256_file(file)
    except OSError as error:
        raise UserError(f"{asked}: {file} cannot be read: {error.strerror or error}") from None
