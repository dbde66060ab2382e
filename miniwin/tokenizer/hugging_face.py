"""The tokenizer of any Hugging Face `tokenizer.json`, read by the `tokenizers` library."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from miniwin.specs import UserError
from miniwin.tokenizer.interface import FILE, write_file
from miniwin.tokenizer.regex_safety import Unsafe
from miniwin.tokenizer.safety import USUAL, check_ids, check_tokenizer
from miniwin.tokenizer.utf8 import joined, sound

TEXT = "cannot read this text"
# A setting of the library's object decides which of two ways it reads text. One thread at a time may set and use it.
_READING = threading.RLock()
SEPARATORS = (
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eos|>",
    "<eos>",
    "</s>",
    "[EOS]",
    "[SEP]",
)  # the first one there is used


class HFTokenizer:
    """A vocabulary and its rules, from a file.

    Text is only ever text: `<|endoftext|>` written in a file is encoded letter by letter, and no special tokens are
    added. For byte-level BPE the bytes of a token are known exactly (those of the normalised text, if the tokenizer
    normalises). For other vocabularies they are the bytes of the token's letters, and a word-boundary mark counts as
    one space.
    """

    prefix: tuple[int, ...] = ()

    def __init__(self, text: str, where: str = FILE) -> None:
        # Tokenising runs in threads. With the setting made here, the library does not warn when data workers are
        # forked later.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
        from tokenizers import Tokenizer as Inner

        self._where = where
        with self._library(
            "not a tokenizer that the `tokenizers` library can read", "; expected a Hugging Face tokenizer.json"
        ):
            data = json.loads(text)
            # Settings for training batches of a fixed size: they would cut, pad or randomise the corpus.
            plain = {**data, "truncation": None, "padding": None, "model": {**data["model"]}}
            if "dropout" in plain["model"]:
                plain["model"]["dropout"] = None
            self._grows = check_tokenizer(plain) > USUAL
            self._inner = Inner.from_str(json.dumps(plain))
        self._inner.encode_special_tokens = True
        self._text = text
        self._vocab: dict[str, int] = self._inner.get_vocab(with_added_tokens=True)
        if not self._vocab:
            raise UserError(f"tokenizer: {where}: the vocabulary is empty; train the tokenizer before using it")
        with self._library():
            check_ids(self._vocab)
        self._byte_level = '"ByteLevel"' in json.dumps(
            [plain.get(k) for k in ("normalizer", "pre_tokenizer", "decoder")]
        )
        special = {one["content"] for one in plain.get("added_tokens") or () if one.get("special")}
        self.special = tuple(sorted(special))
        self.vocab_size = max(self._vocab.values()) + 1
        self.rows = 1 + max((number for token, number in self._vocab.items() if token not in special), default=-1)
        self._pieces, self._sizes = self._measure(plain)
        digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
        self.identity = f"hf:{digest}"
        self.name = f"{str(plain['model'].get('type') or 'hf').lower()}-{self.vocab_size}-{digest[:8]}"

    @property
    def json(self) -> str:
        """The text of the tokenizer.json."""
        return self._text

    @property
    def separator(self) -> int | None:
        for token in (
            *SEPARATORS,
            "\u0100" if self._byte_level else "",
        ):  # byte-level BPE spells byte 0 as U+0100
            if token in self._vocab:
                return self._vocab[token]
        return None

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._encoded(text).ids
        return ids

    def encode_prompt(self, text: str, begins: bool = True) -> list[int]:
        return self.encode(text)

    def encode_marked(self, text: str) -> list[int]:
        return self._marked(text, frame=False)[0]

    def encode_marked_at(self, text: str) -> tuple[list[int], list[int]]:
        return self._marked(text, frame=False)

    def token_id(self, token: str) -> int | None:
        return self._vocab.get(token)

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        if self._grows:  # normalised texts may be many times as long: hold one at a time
            return [np.array(self.encode(text), dtype=np.int64) for text in texts]
        with _READING, self._library(TEXT):
            encoded = self._inner.encode_batch_fast([sound(text) for text in texts], add_special_tokens=False)
        return [np.array(one.ids, dtype=np.int64) for one in encoded]

    def decode(self, ids: Sequence[int]) -> str:
        if self._byte_level:
            return joined(self, ids)
        with self._library("cannot decode these ids"):
            text: str = self._inner.decode([int(token) for token in ids], skip_special_tokens=False)
        return text

    def piece(self, token: int) -> bytes | None:
        return self._pieces.get(token, b"\xff") if self._byte_level else None

    def token_bytes(self, ids: np.ndarray) -> np.ndarray:
        return self._sizes[np.asarray(ids)]

    def save(self, folder: Path) -> None:
        write_file(folder, self._text)

    def _encoded(self, text: str, frame: bool = False) -> Any:
        """frame: whether the post-processor adds its special tokens."""
        text = sound(text)
        with _READING, self._library(TEXT):
            if self._grows and len(self._inner.normalizer.normalize_str(text)) > USUAL * len(text) + 1000:
                raise Unsafe(f"normalizer: makes this text more than {USUAL:g} times as long")
            return self._inner.encode(text, add_special_tokens=frame)

    def _marked(self, text: str, frame: bool) -> tuple[list[int], list[int]]:
        """The ids of a text, where a special token that is written in it is that token, and where each begins."""
        with _READING:
            self._inner.encode_special_tokens = False
            try:
                found = self._encoded(text, frame)
                return found.ids, [begin for begin, _ in found.offsets]
            finally:
                self._inner.encode_special_tokens = True

    @contextmanager
    def _library(self, what: str = "", expected: str = "; take another tokenizer.json") -> Iterator[None]:
        """Turn the library's errors, and `Unsafe`, into a UserError. The library raises bare Exception, and panics."""
        try:
            yield
        except Unsafe as error:
            raise UserError(f"tokenizer: {self._where}: {error}; take another tokenizer.json") from None
        except BaseException as error:
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            said = f"{type(error).__name__}: {error}"
            raise UserError(f"tokenizer: {self._where}: {what} ({said}){expected}") from None

    def _measure(self, data: dict[str, Any]) -> tuple[dict[int, bytes], np.ndarray]:
        """(the bytes of every id, how many of them are text (vocab_size,)). A special token is no text: 0 bytes."""
        added = {int(one["id"]): one for one in data.get("added_tokens") or ()}
        alphabet = _byte_level_alphabet()
        model = data["model"]
        glue = (model.get("continuing_subword_prefix") or "") if model.get("type") == "WordPiece" else ""
        ending = model.get("end_of_word_suffix") or ""
        pieces: dict[int, bytes] = {}
        sizes = np.zeros(self.vocab_size, dtype=np.int64)
        for token, number in self._vocab.items():
            if number in added:
                piece = str(added[number]["content"]).encode("utf-8", "replace")
            elif self._byte_level and all(letter in alphabet for letter in token):
                piece = bytes(alphabet[letter] for letter in token)
            elif len(token) == 6 and token.startswith("<0x") and token.endswith(">"):  # byte fallback of SentencePiece
                piece = b"?"
            elif glue:
                piece = (token.removeprefix(glue) if token.startswith(glue) else f" {token}").encode("utf-8", "replace")
            else:
                word = token.removesuffix(ending) + " " if ending and token.endswith(ending) else token
                piece = word.replace("\u2581", " ").encode("utf-8", "replace")  # U+2581 marks a space
            pieces[number] = piece
            sizes[number] = 0 if added.get(number, {}).get("special") else len(piece)
        if self.separator is not None:
            sizes[self.separator] = 1
        return pieces, sizes


def _byte_level_alphabet() -> dict[str, int]:
    """GPT-2's spelling of bytes: printable ones stand for themselves, others are U+0100 and on, in order."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}
