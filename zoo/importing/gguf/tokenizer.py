"""The tokenizer of a GGUF file as a `tokenizer.json` of Hugging Face's library.

    tokenizer.ggml.model   gpt2: byte-level BPE, split by tokenizer.ggml.pre
                           llama: SentencePiece's BPE. Neighbours become the token of the highest score; ▁ is a space
    tokenizer.ggml.tokens, token_type, scores, merges; bos_token_id and others; add_bos_token, add_space_prefix

Where a `llama` file has no merges they are made of its tokens: every way to cut a token into two tokens is one, and
that of the token with the higher score comes first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from miniwin.blocks.messages.nearest import nearest
from miniwin.specs.base import UserError
from miniwin.specs.yaml_scalars import shown
from miniwin.zoo.importing.gguf.header import said
from miniwin.zoo.importing.gguf.pre_tokenizers import BEGINS, SPLITS, WHOLE_WORDS, pre_tokenizer

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # tokenizer.ggml.token_type
SPACE = "\u2581"
WORK = 200_000_000  # characters that may be looked at to find all merges; large vocabularies need 15,000,000
OTHERWISE = "give --tokenizer a tokenizer.json, or none to import without it"


def tokenizer_json(where: str, metadata: Mapping[str, Any]) -> str:
    """The text of the tokenizer.json.

    Raises:
        UserError: the kind of tokenizer is not known, or something is missing or wrong in it.
    """
    kind = metadata.get("tokenizer.ggml.model")
    if kind not in ("gpt2", "llama"):
        known = "gpt2 (byte-level BPE) and llama (SentencePiece)"
        raise UserError(
            f"{where}: tokenizer.ggml.model: got {said(kind)}, a kind of tokenizer that is not known here; known are "
            f"{known}; {OTHERWISE}"
        )
    file = _Vocabulary(where, metadata)
    data = _byte_level(file) if kind == "gpt2" else _sentencepiece(file)
    whole = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": file.added(kind == "gpt2"), **data}
    return json.dumps({**whole, "post_processor": file.frame(kind)}, ensure_ascii=False)


class _Vocabulary:
    """The tokens of a file, checked."""

    def __init__(self, where: str, metadata: Mapping[str, Any]) -> None:
        self.where, self.metadata = where, metadata
        tokens = metadata.get("tokenizer.ggml.tokens")
        if not isinstance(tokens, list) or not tokens or not isinstance(tokens[0], str):
            raise self.refuse("tokens", "expected a list of texts")
        self.tokens: list[str] = tokens
        types = self._numbers("token_type")
        self.types: list[int] = [NORMAL] * len(tokens) if types is None else types
        self.scores = self._numbers("scores")

    def refuse(self, name: str, why: str) -> UserError:
        got = said(self.metadata.get(f"tokenizer.ggml.{name}"))
        return UserError(f"{self.where}: tokenizer.ggml.{name}: got {got}; {why}; {OTHERWISE}")

    def _numbers(self, name: str) -> list[Any] | None:
        found = self.metadata.get(f"tokenizer.ggml.{name}")
        if found is None:
            return None
        if not isinstance(found, list) or len(found) != len(self.tokens) or isinstance(found[0], str):
            raise self.refuse(name, f"expected a number for each of {len(self.tokens)} tokens")
        return found

    def merges(self) -> list[list[str]] | None:
        found = self.metadata.get("tokenizer.ggml.merges")
        if found is None:
            return None
        if not isinstance(found, list) or not all(isinstance(one, str) for one in found[:1]):
            raise self.refuse("merges", "expected a list of texts")
        pairs = []
        for text in filter(None, found):  # an empty one stands for none: GGUF's writer takes no empty list
            at = text.find(" ", 1)  # a part may be a space itself
            if at < 0 or at + 1 == len(text):
                raise self.refuse("merges", f"{shown(text)} is not two tokens with a space between")
            pairs.append([text[:at], text[at + 1 :]])
        return pairs

    def flag(self, name: str, default: bool) -> bool:
        value = self.metadata.get(f"tokenizer.ggml.{name}", default)
        if not isinstance(value, bool):
            raise self.refuse(name, "expected true or false")
        return value

    def special(self, name: str) -> str | None:
        """The token of `bos_token_id` and the like."""
        number = self.metadata.get(f"tokenizer.ggml.{name}_token_id")
        if number is None or number == 0xFFFFFFFF:
            return None
        if type(number) is not int or not 0 <= number < len(self.tokens):
            raise self.refuse(f"{name}_token_id", f"expected an id below {len(self.tokens)}")
        return self.tokens[number]

    def ids(self) -> dict[str, int]:
        """The tokens and their ids, without those that only fill a gap."""
        return {token: number for number, token in enumerate(self.tokens) if not self._fills(number)}

    def _fills(self, number: int) -> bool:
        return self.types[number] == UNUSED and self.tokens[number] == f"[PAD{number}]"

    def added(self, byte_level: bool) -> list[dict[str, Any]]:
        """The tokens that are found in a text before it is split. Spaces alone are not: the merges find those too."""
        plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        ids = self.ids()
        found = []
        for number, (token, kind) in enumerate(zip(self.tokens, self.types, strict=True)):
            special = kind == CONTROL or (kind == UNKNOWN and not byte_level)
            if ids.get(token) == number and token and (special or (kind == USER and set(token) != {SPACE})):
                found.append({"id": number, "content": token, **plain, "special": special})
        return found

    def frame(self, kind: str) -> dict[str, Any]:
        """The post-processor: <bos> before a text, <eos> behind it, or neither."""
        begins = kind == "llama" or self.metadata.get("tokenizer.ggml.pre", "") in BEGINS
        before = self.special("bos") if self.flag("add_bos_token", begins) else None
        behind = self.special("eos") if self.flag("add_eos_token", False) else None
        ids = self.ids()

        def framed(sequence: str, place: int) -> list[dict[str, Any]]:
            pieces = [{"SpecialToken": {"id": one, "type_id": place}} for one in (before, behind) if one is not None]
            pieces.insert(int(before is not None), {"Sequence": {"id": sequence, "type_id": place}})
            return pieces

        special = {one: {"id": one, "ids": [ids[one]], "tokens": [one]} for one in (before, behind) if one is not None}
        return {
            "type": "TemplateProcessing",
            "single": framed("A", 0),
            "pair": [*framed("A", 0), *framed("B", 1)],
            "special_tokens": special,
        }


def _byte_level(file: _Vocabulary) -> dict[str, Any]:
    name = file.metadata.get("tokenizer.ggml.pre", "default")
    if not isinstance(name, str) or name not in SPLITS:
        near = nearest(name, SPLITS) if isinstance(name, str) else None
        hint = f"did you mean {near}?" if near else f"known are {', '.join(sorted(SPLITS))}"
        raise file.refuse("pre", f"a way to split text that is not known here; {hint}")
    merges = file.merges()
    if merges is None:
        raise file.refuse("merges", "a gpt2 tokenizer needs them")
    return {
        "normalizer": None,
        "pre_tokenizer": pre_tokenizer(name),
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": _bpe(file, merges, ignore_merges=name in WHOLE_WORDS),
    }


def _sentencepiece(file: _Vocabulary) -> dict[str, Any]:
    # llama.cpp writes the tokens of spaces alone, which SentencePiece's users define, as spaces.
    file.tokens = [
        SPACE * len(token) if kind == USER and token and set(token) == {" "} else token
        for token, kind in zip(file.tokens, file.types, strict=True)
    ]
    merges = file.merges()
    if merges is None:
        if file.scores is None:
            raise file.refuse("scores", "a llama tokenizer needs them, or merges")
        merges = _merges(file, file.scores)
    prefix = file.flag("add_space_prefix", True)
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    back = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    decoders: list[dict[str, Any]] = [back, {"type": "ByteFallback"}, {"type": "Fuse"}]
    normalizer: dict[str, Any] = spaces
    if prefix:
        normalizer = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": SPACE}, spaces]}
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {
        "normalizer": normalizer,
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": _bpe(file, merges, unk_token=file.special("unknown"), fuse_unk=True, byte_fallback=True),
    }


def _bpe(file: _Vocabulary, merges: list[list[str]], **more: Any) -> dict[str, Any]:
    ids = file.ids()
    for left, right in merges:
        if not (left in ids and right in ids and left + right in ids):
            raise UserError(
                f"{file.where}: tokenizer.ggml.merges: {shown(left)} and {shown(right)}: one of them, or both "
                f"together, is no token; {OTHERWISE}"
            )
    usual: dict[str, Any] = {
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
    }
    usual |= {"fuse_unk": False, "byte_fallback": False, "ignore_merges": False}
    # As text they take a third of the memory. A token with a space has to stand by itself.
    plain = not any(" " in token for token in ids)
    return {"type": "BPE", **usual, **more, "vocab": ids, "merges": list(map(" ".join, merges)) if plain else merges}


def _merges(file: _Vocabulary, scores: list[float]) -> list[list[str]]:
    """Every way to make a token of two others, the best first."""
    if sum(len(token) ** 2 for token in file.tokens) > WORK:
        raise file.refuse("tokens", "they are too long for their merges to be found")
    ids = file.ids()
    # Tokens that users define come first, in their order, and the others by score: as SentencePiece merges them.
    ranks = {
        number: (0, float(number)) if kind == USER else (1, -scores[number])
        for number, kind in enumerate(file.types)
        if kind in (NORMAL, USER, UNUSED) and ids.get(file.tokens[number]) == number
    }
    return [cut for number in sorted(ranks, key=ranks.__getitem__) for cut in _cuts(file.tokens[number], ids)]


def _cuts(token: str, ids: Mapping[str, int]) -> Iterator[list[str]]:
    """The ways to make a token of two others, the longest first part first."""
    for at in range(len(token) - 1, 0, -1):
        if token[:at] in ids and token[at:] in ids:
            yield [token[:at], token[at:]]
