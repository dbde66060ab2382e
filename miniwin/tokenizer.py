"""Text to token ids and back: bytes by default, any Hugging Face `tokenizer.json` otherwise.

The byte tokenizer has 256 ids, id = byte. Documents are joined by a separator: byte 0, which text never
holds, or the end-of-document token of a Hugging Face tokenizer. Loss is compared across tokenizers in bits
per byte, so a tokenizer says how many UTF-8 bytes each id stands for; a separator counts as one byte
everywhere.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from miniwin.json_files import JSONProblem, parse_json
from miniwin.regex_check import Unsafe
from miniwin.special_ids import SpecialIds
from miniwin.specs import UserError, user_path
from miniwin.tokenizer_check import USUAL, check_ids, check_tokenizer
from miniwin.writing import said_if_unwritable, write_text

FILE = "tokenizer.json"
TEXT = "cannot read this text"
SEPARATORS = (
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eos|>",
    "<eos>",
    "</s>",
    "[EOS]",
    "[SEP]",
)  # the first one there is used


class Tokenizer(Protocol):
    """What the data, the engine and generation ask of a tokenizer."""

    @property
    def name(self) -> str: ...

    @property
    def identity(self) -> str:
        """Equal for two tokenizers exactly when they give the same ids for every text."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def rows(self) -> int:
        """How many ids a model has to know: `vocab_size`, special tokens beyond all others not counted."""

    @property
    def separator(self) -> int | None:
        """The id between documents; None where the vocabulary has none."""

    @property
    def prefix(self) -> tuple[int, ...]:
        """The ids that a text begins with when the model reads it; none but for an imported model."""

    def encode(self, text: str) -> list[int]: ...

    def encode_prompt(self, text: str, begins: bool = True) -> list[int]:
        """The ids of a prompt: as `encode`, but for an imported model. begins: nothing was said before it."""

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]: ...

    def decode(self, ids: Sequence[int]) -> str:
        """Bytes that are not UTF-8 become U+FFFD."""

    def piece(self, token: int) -> bytes | None:
        """The bytes this id always decodes to; None where they depend on the ids around it."""

    def token_bytes(self, ids: np.ndarray) -> np.ndarray:
        """How many UTF-8 bytes of text each id stands for, int64, in the shape of `ids`."""

    def save(self, folder: Path) -> None:
        """Writes `tokenizer.json`, which `load_tokenizer` reads back."""


def load_tokenizer(
    ref: str | Path, base: Path | None = None, raw: bytes | None = None, special: SpecialIds | None = None
) -> Tokenizer:
    """`byte`, a `tokenizer.json`, or a folder that holds one. Paths are relative to `base`.

    raw: the bytes of the file, where they have been read already. special: of an imported model, whose prompts are read
    as transformers reads them.
    """
    if ref == "byte":
        return ByteTokenizer()
    path = (base or Path()) / user_path(ref)
    if path.is_dir():
        path = path / FILE
    try:
        raw = path.read_bytes() if raw is None else raw
    except FileNotFoundError:
        raise UserError(
            f"tokenizer: no such file: {str(ref)!r} (looked for {path.absolute()}); expected `byte`, a "
            "Hugging Face tokenizer.json, or a folder that holds one"
        ) from None
    except OSError as error:
        raise UserError(f"tokenizer: cannot read {path}: {error}; expected a Hugging Face tokenizer.json") from None
    try:
        data = parse_json(raw)
    except JSONProblem as error:
        where = ":".join(map(str, (path, *error.place))) if error.place else f"cannot read {path}"
        raise UserError(f"tokenizer: {where}: {error.problem}; expected a Hugging Face tokenizer.json") from None
    if isinstance(data, dict) and data.get("type") == "byte":
        return ByteTokenizer()
    text = raw.decode("utf-8-sig")
    if special is not None:
        from miniwin.imported_tokenizer import ImportedTokenizer

        return ImportedTokenizer(text, str(path), special.ends)
    return HFTokenizer(text, where=str(path))


class ByteTokenizer:
    """id = byte. Nothing to train, nothing out of vocabulary, every text round-trips."""

    name = "byte"
    identity = "byte"
    vocab_size = rows = 256
    separator = 0
    prefix: tuple[int, ...] = ()

    def encode(self, text: str) -> list[int]:
        return list(_utf8(text))

    def encode_prompt(self, text: str, begins: bool = True) -> list[int]:
        return self.encode(text)

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [np.frombuffer(_utf8(text), dtype=np.uint8) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        return _join(self, ids)

    def piece(self, token: int) -> bytes:
        # A model may have more rows than there are bytes; those ids stand for no text, and 0xFF
        # never does either.
        return bytes([token]) if 0 <= token < 256 else b"\xff"

    def token_bytes(self, ids: np.ndarray) -> np.ndarray:
        return np.ones(np.shape(ids), dtype=np.int64)

    def save(self, folder: Path) -> None:
        _write(folder, json.dumps({"type": "byte"}) + "\n")


class HFTokenizer:
    """A Hugging Face `tokenizer.json`, read by the `tokenizers` library.

    Text is only ever text: `<|endoftext|>` written in a file is encoded letter by letter, and no special
    tokens are added. For byte-level BPE the bytes of a token are known exactly (of the normalised text, if it
    normalises); for the others they are the bytes of its letters, with the word-boundary mark counted as one
    space.
    """

    prefix: tuple[int, ...] = ()

    def __init__(self, text: str, where: str = FILE) -> None:
        # Tokenising runs in threads; set explicitly, the library does not warn when data workers
        # are forked later.
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
        self.vocab_size = max(self._vocab.values()) + 1
        self.rows = 1 + max((number for token, number in self._vocab.items() if token not in special), default=-1)
        self._pieces, self._sizes = self._measure(plain)
        digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
        self.identity = f"hf:{digest}"
        self.name = f"{str(plain['model'].get('type') or 'hf').lower()}-{self.vocab_size}-{digest[:8]}"

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

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        if self._grows:  # what many texts become is not to be held at once
            return [np.array(self.encode(text), dtype=np.int64) for text in texts]
        with self._library(TEXT):
            encoded = self._inner.encode_batch_fast([_sound(text) for text in texts], add_special_tokens=False)
        return [np.array(one.ids, dtype=np.int64) for one in encoded]

    def decode(self, ids: Sequence[int]) -> str:
        if self._byte_level:
            return _join(self, ids)
        with self._library("cannot decode these ids"):
            text: str = self._inner.decode([int(token) for token in ids], skip_special_tokens=False)
        return text

    def piece(self, token: int) -> bytes | None:
        return self._pieces.get(token, b"\xff") if self._byte_level else None

    def token_bytes(self, ids: np.ndarray) -> np.ndarray:
        return self._sizes[np.asarray(ids)]

    def save(self, folder: Path) -> None:
        _write(folder, self._text)

    def _encoded(self, text: str, frame: bool = False) -> Any:
        """frame: with what the post-processor adds."""
        text = _sound(text)
        with self._library(TEXT):
            if self._grows and len(self._inner.normalizer.normalize_str(text)) > USUAL * len(text) + 1000:
                raise Unsafe(f"normalizer: makes this text more than {USUAL:g} times as long")
            return self._inner.encode(text, add_special_tokens=frame)

    @contextmanager
    def _library(self, what: str = "", expected: str = "; take another tokenizer.json") -> Iterator[None]:
        """The library's errors, and ours about the file, as one message. It raises bare Exception, and panics."""
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
        """The bytes of every id, and how many of them are text (a special token is none)."""
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


class StreamDecoder:
    """Decodes ids one at a time, as a model makes them, and never lets out half a UTF-8 character.

    `"".join(push(i) for i in ids) + flush()` is `decode(ids)` wherever a token always stands for the same
    bytes.
    """

    HELD = 8  # ids held back at most: a UTF-8 character has at most 4 bytes, so these will never become one

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._ids: list[int] = []
        self._read = 0  # ids before this are out already, and only context: words are written differently at a start

    def push(self, token: int) -> str:
        """The text that is certain now that this id is known."""
        piece = self._tokenizer.piece(int(token))
        if piece is not None:
            return self._utf8.decode(piece)
        self._ids.append(int(token))
        text = self._pending()
        if text.endswith("\ufffd") and len(self._ids) - self._read < self.HELD:
            return ""
        self._ids, self._read = self._ids[self._read :], len(self._ids) - self._read
        return text

    def flush(self) -> str:
        """What was held back, once nothing follows."""
        text = self._utf8.decode(b"", final=True) + self._pending()
        self._utf8.reset()
        self._ids, self._read = [], 0
        return text

    def _pending(self) -> str:
        shown = self._tokenizer.decode(self._ids[: self._read])
        return self._tokenizer.decode(self._ids)[len(shown) :]


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")  # half a surrogate pair is no character: "?"


def _sound(text: str) -> str:
    return _utf8(text).decode("utf-8")


def _join(tokenizer: Tokenizer, ids: Iterable[int]) -> str:
    return b"".join(tokenizer.piece(int(token)) or b"" for token in ids).decode("utf-8", "replace")


def _write(folder: Path, text: str) -> None:
    with said_if_unwritable(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / FILE, text)


def _byte_level_alphabet() -> dict[str, int]:
    """GPT-2's spelling of bytes: printable ones stand for themselves, others are U+0100 and on, in order."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}
