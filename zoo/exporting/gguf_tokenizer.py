"""A tokenizer.json as the fields of a GGUF file, read back to see that it is the same.

byte-level BPE   tokenizer.ggml.model gpt2, and the name by which llama.cpp knows how text is split
BPE with byte fallback, ▁ for spaces   llama: the tokens have scores in the order of their merges
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from miniwin.specs.yaml_scalars import shown
from miniwin.zoo.exporting.gguf_stock import as_read
from miniwin.zoo.exporting.tokenizing import byte_alphabet
from miniwin.zoo.importing.family import CannotSay
from miniwin.zoo.importing.gguf.pre_tokenizers import SPLITS, WHOLE_WORDS, pre_tokenizer
from miniwin.zoo.importing.gguf.tokenizer import BYTE, CONTROL, NORMAL, SPACE, UNKNOWN, UNUSED, USER, tokenizer_json

Merges = list[tuple[str, str]]


def byte_fields(size: int) -> dict[str, Any]:
    """The fields of the byte tokenizer: 256 tokens and no merges. size: ids that the model knows."""
    return _fields("gpt2", dict(enumerate(byte_alphabet())), {}, size) | {
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.merges": [""],  # stands for none: the writer takes no empty list
        "tokenizer.ggml.add_bos_token": False,
    }


def tokenizer_fields(text: str, size: int) -> dict[str, Any]:
    """The fields for a tokenizer.json. size: how many ids the model knows.

    Raises:
        CannotSay: llama.cpp would read some text as other ids.
    """
    data = json.loads(text)
    model = data["model"]
    if model.get("type") != "BPE":
        raise _cannot("model", f"got {shown(model.get('type'))}; expected BPE, which llama.cpp's gpt2 and llama are")
    added = {one["content"]: one for one in data.get("added_tokens") or ()}
    for token, one in added.items():
        if any(one.get(flag) for flag in ("lstrip", "rstrip", "single_word")):
            raise _cannot("added_tokens", f"{shown(token)} takes spaces or whole words; llama.cpp's tokens do not")
    tokens = {number: token for token, number in model["vocab"].items()}
    tokens |= {one["id"]: token for token, one in added.items()}
    if max(tokens) >= size:
        raise _cannot("vocab", f"has ids up to {max(tokens)}, and the model knows {size} only")
    merges = _pairs(model["merges"])
    make = _sentencepiece if model.get("byte_fallback") else _byte_level
    fields = make(data, tokens, added, merges, size) | _frame(data.get("post_processor"))
    _prove(fields, tokens, merges)
    return fields


def _cannot(part: str, why: str) -> CannotSay:
    return CannotSay(f"tokenizer.{part}", why)


def _fields(kind: str, tokens: Mapping[int, str], types: Mapping[int, int], size: int) -> dict[str, Any]:
    """The tokens of all ids. An id without one has a token that no text gives."""
    unused = {number: UNUSED for number in range(size) if number not in tokens}
    return {
        "tokenizer.ggml.model": kind,
        "tokenizer.ggml.tokens": [tokens.get(number, f"[PAD{number}]") for number in range(size)],
        "tokenizer.ggml.token_type": [{**types, **unused}.get(number, NORMAL) for number in range(size)],
    }


def _types(tokens: Mapping[int, str], added: Mapping[str, Any]) -> dict[int, int]:
    return {
        number: CONTROL if added[token].get("special") else USER for number, token in tokens.items() if token in added
    }


def _byte_level(
    data: Mapping[str, Any], tokens: Mapping[int, str], added: Mapping[str, Any], merges: Merges, size: int
) -> dict[str, Any]:
    if data.get("normalizer") is not None:
        raise _cannot("normalizer", f"got {data['normalizer'].get('type')}; llama.cpp's gpt2 tokenizers have none")
    if (data.get("decoder") or {}).get("type") != "ByteLevel":
        raise _cannot("decoder", "expected ByteLevel, or byte_fallback")
    model = data["model"]
    for name in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            raise _cannot(name, f"got {shown(model[name])}; llama.cpp's gpt2 tokenizers have none")
    steps, whole = _steps(data.get("pre_tokenizer")), bool(model.get("ignore_merges"))
    found = [name for name in SPLITS if _steps(pre_tokenizer(name)) == steps and (name in WHOLE_WORDS) == whole]
    if not found:
        raise _cannot("pre_tokenizer", "llama.cpp has no name for this way to split text")
    return _fields("gpt2", tokens, _types(tokens, added), size) | {
        "tokenizer.ggml.pre": found[0],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in merges] or [""],
    }


def _steps(part: Any) -> list[tuple[Any, ...]]:
    """What a pre-tokenizer does, step by step, without what changes nothing."""
    if not isinstance(part, dict):
        return []
    kind = part.get("type")
    if kind == "Sequence":
        return [step for one in part.get("pretokenizers") or () for step in _steps(one)]
    if kind == "ByteLevel":
        return [(kind, part.get("add_prefix_space", True), part.get("use_regex", True))]
    if kind == "Digits":
        return [(kind, part.get("individual_digits", False))]
    return [(kind, json.dumps(part.get("pattern")), part.get("behavior"), part.get("invert"))]


def _sentencepiece(
    data: Mapping[str, Any], tokens: Mapping[int, str], added: Mapping[str, Any], merges: Merges, size: int
) -> dict[str, Any]:
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    prefixed = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": SPACE}, spaces]}
    forms = {json.dumps(spaces, sort_keys=True): False, json.dumps(prefixed, sort_keys=True): True}
    prefix = forms.get(json.dumps(data.get("normalizer"), sort_keys=True))
    split = data.get("pre_tokenizer")
    if prefix is None or not (split is None or split.get("pattern") == {"String": " "}):  # no space is left to split at
        raise _cannot("normalizer", f"expected a {SPACE} for each space, as SentencePiece has it")
    model, types = data["model"], _types(tokens, added)
    types |= {number: BYTE for number, token in tokens.items() if len(token) == 6 and token.startswith("<0x")}
    unknown = model.get("unk_token")
    types |= {number: UNKNOWN for number, token in tokens.items() if token == unknown}
    first: dict[str, int] = {}
    for left, right in merges:
        first.setdefault(left + right, len(first))
    # Tokens that users define are merged first. Runs of spaces may be among them, and are no added tokens here.
    last = max((first.get(tokens[number], -1) for number, kind in types.items() if kind == USER), default=-1)
    runs = [n for n, token in tokens.items() if set(token) == {SPACE} and first.get(token, last) < last]
    types |= dict.fromkeys(runs, USER)
    scores = [-float(first.get(tokens.get(number, ""), len(first) + number)) for number in range(size)]
    fields = {"tokenizer.ggml.scores": scores, "tokenizer.ggml.add_space_prefix": prefix}
    ids = {token: number for number, token in tokens.items()}
    if unknown in ids:
        fields["tokenizer.ggml.unknown_token_id"] = ids[unknown]
    return _fields("llama", tokens, types, size) | fields


def _frame(processor: Any) -> dict[str, Any]:
    """add_bos_token and add_eos_token, with the ids of these tokens."""
    steps = processor.get("processors") or [processor] if isinstance(processor, dict) else []
    fields: dict[str, Any] = {"tokenizer.ggml.add_bos_token": False, "tokenizer.ggml.add_eos_token": False}
    for step in steps:
        if step.get("type") == "ByteLevel":
            continue
        if step.get("type") != "TemplateProcessing":
            raise _cannot("post_processor", f"got {step.get('type')}; it has one token before and behind a text")
        place = "bos"
        for piece in step["single"]:
            if "Sequence" in piece:
                place = "eos"
                continue
            ids = step["special_tokens"][piece["SpecialToken"]["id"]]["ids"]
            if len(ids) != 1 or fields[f"tokenizer.ggml.add_{place}_token"]:
                raise _cannot("post_processor", "llama.cpp knows one token before a text, and one behind")
            fields |= {f"tokenizer.ggml.add_{place}_token": True, f"tokenizer.ggml.{place}_token_id": ids[0]}
    return fields


def _prove(fields: Mapping[str, Any], tokens: Mapping[int, str], merges: Merges) -> None:
    read = {name: as_read(value) for name, value in fields.items()}
    again = json.loads(tokenizer_json("the file", read))["model"]
    if {number: token for token, number in again["vocab"].items()} != dict(tokens):
        raise _cannot("vocab", "tokens would be read back as others")
    if _grouped(_pairs(again["merges"])) != _grouped(merges):
        raise _cannot("merges", "llama.cpp would merge tokens in another order")


def _pairs(merges: list[Any]) -> Merges:
    """The merges of a tokenizer.json, each of which is a text or two."""
    return [tuple(one.split(" ", 1) if isinstance(one, str) else one) for one in merges]


def _grouped(merges: Merges) -> list[tuple[str, frozenset[tuple[str, str]]]]:
    """The tokens in the order of their merges, each with all ways to merge it."""
    found: dict[str, set[tuple[str, str]]] = {}
    for pair in merges:
        found.setdefault("".join(pair), set()).add(pair)
    return [(token, frozenset(pairs)) for token, pairs in found.items()]
