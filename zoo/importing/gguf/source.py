"""A GGUF file, or the shards of one, as a source to import from: as if it were a Hugging Face folder.

Quantised weights become float32 when they are read, a piece at a time. The metadata becomes the config.json that the
families read; tensors have Hugging Face's names and values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from miniwin.specs.base import UserError
from miniwin.zoo.importing.gguf.architectures import find_architecture
from miniwin.zoo.importing.gguf.header import said
from miniwin.zoo.importing.gguf.metadata import Metadata
from miniwin.zoo.importing.gguf.names import views
from miniwin.zoo.importing.gguf.own_config import KEY, refined
from miniwin.zoo.importing.gguf.rope import TABLES
from miniwin.zoo.importing.gguf.shards import SHARD, read_headers
from miniwin.zoo.importing.gguf.tensors import dtype_of, kind_name, whole
from miniwin.zoo.importing.gguf.tokenizer import tokenizer_json
from miniwin.zoo.importing.source import Source

IDS = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}
TOKENS = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
NO_ID = 0xFFFFFFFF
ENDS = ("eot", "eom")  # further tokens at which an answer ends


class GgufFile(Source):
    kind = "gguf"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        header, self.files = read_headers(path)
        self._metadata = header.metadata
        name = header.metadata.get("general.architecture")
        if not isinstance(name, str) or not name:
            raise UserError(f"{path}: general.architecture: got {said(name)}; expected a name, such as llama")
        if header.metadata.get("general.type", "model") != "model":
            kind = said(header.metadata["general.type"])
            raise UserError(f"{path}: general.type: got {kind}; expected model: an adapter or a projector is not one")
        known = {name: info for name, info in header.tensors.items() if name not in TABLES}
        metadata = Metadata(
            str(path), name, header.metadata, header.tensors, lambda table: whole(header.tensors[table])[0]
        )
        architecture = find_architecture(metadata)
        layers = metadata.count("block_count")
        if layers > len(known):
            raise metadata.refuse("block_count", f"the file has {len(known)} tensors, which cannot be so many layers")
        config = self.config = refined(architecture.config(metadata), header.metadata.get(KEY))
        self._views = views(
            known, architecture.names(layers), architecture.experts, lambda one: architecture.change(one, config)
        )
        self.shapes = {name: view.shape for name, view in self._views.items()}
        self.dtypes = {name: dtype_of(view.info) for name, view in self._views.items()}
        for key, token in IDS.items():
            self.config[key] = self._id(token)
        ends = [self._id(token) for token in ENDS]
        self.generation = {"eos_token_id": [end for end in ends if end is not None]}
        template = header.metadata.get("tokenizer.chat_template")
        self.chat_template = template if isinstance(template, str) and template.strip() else None
        self.special_tokens = self._special_tokens()
        licence = header.metadata.get("general.license")
        self.licence = licence if isinstance(licence, str) else None
        self.quantization = dict(Counter(kind_name(info) for info in header.tensors.values()))

    def where(self, name: str) -> str:
        return self._views[name].info.path.name if name in self._views else self.path.name

    @property
    def stem(self) -> str:
        shard = SHARD.fullmatch(self.path.name)
        return shard[1] if shard else super().stem

    def tokenizer_json(self) -> tuple[Path, bytes] | None:
        if self._metadata.get("tokenizer.ggml.model", "no_vocab") == "no_vocab":
            return None
        return self.path, tokenizer_json(str(self.path), self._metadata).encode()

    def _special_tokens(self) -> dict[str, str]:
        """bos_token and the like: texts."""
        tokens = self._metadata.get("tokenizer.ggml.tokens")
        ids = {name: self._id(token) for name, token in TOKENS.items()}
        known = tokens if isinstance(tokens, list) else []
        return {name: known[one] for name, one in ids.items() if type(one) is int and 0 <= one < len(known)}

    def _id(self, token: str) -> int | None:
        found: Any = self._metadata.get(f"tokenizer.ggml.{token}_token_id")
        if found is None or found == NO_ID:
            return None
        if type(found) is not int:
            raise UserError(f"{self.path}: tokenizer.ggml.{token}_token_id: got {said(found)}; expected an id")
        return found

    def _read(self, name: str) -> Tensor:
        return self._views[name].whole()

    def _pieces(self, name: str) -> Iterator[Tensor]:
        return self._views[name].pieces()
