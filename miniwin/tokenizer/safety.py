"""What a tokenizer.json from anywhere may hold: nothing that takes endless time or memory on some text.

    regular expressions   must be sure to end soon (regex_safety.py)
    normaliser, decoder   may make a text longer, but not without bound
    post-processor        puts a few special tokens around a text, and has the text once
    ids                   the largest is near the number of tokens, since tables are as long as the largest id

All of this is read off the file before the tokenizers library sees it, so opening a tokenizer stays fast. A text that a
normaliser makes too long is found when that text is read.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator, Mapping
from typing import Any

from miniwin.tokenizer.regex_safety import Unsafe, check_regex

USUAL = 20.0  # normalising a text may make it so many times as long; Unicode's own rules reach 18
MOST = 64.0  # the same by a normaliser's rules, for the worst text
UNICODE = {"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt", "BertNormalizer"}
AROUND = 1000  # special tokens around a text
LONGEST_WORD = 10_000  # characters; WordPiece takes time that grows with the square
LONGEST_MARK = 256  # characters
GAPS = (16, 1 << 20)  # the largest id may be GAPS[0] times the number of tokens, and GAPS[1] more


def check_tokenizer(data: Mapping[str, Any]) -> float:
    """How many times as long normalising can make a text. data: the content of a tokenizer.json.

    Raises:
        Unsafe: the tokenizer could take endless time or memory. The message follows "tokenizer FILE: ".
    """
    for part in ("normalizer", "pre_tokenizer", "decoder", "post_processor"):
        for pattern in _regexes(data.get(part)):
            try:
                check_regex(pattern)
            except Unsafe as error:
                raise Unsafe(
                    f"{part}: the regular expression {_short(pattern)} {error}, so that it might not end on some text"
                ) from None
    growth = _growth(list(_steps(data.get("normalizer"), "normalizers")))
    for part, found in (
        ("normalizer", growth),
        ("decoder", _growth(list(_steps(data.get("decoder"), "decoders")))),
    ):
        if found > MOST:
            raise Unsafe(f"{part}: could make a text {found:.3g} times as long; expected at most {MOST:g} times")
    _check_around(data.get("post_processor"))
    _check_model(data["model"])
    return growth


def check_ids(vocabulary: Mapping[str, int]) -> None:
    """Raise Unsafe if the largest id is far above the number of tokens: tables are as long as the largest id."""
    token = max(vocabulary, key=lambda one: vocabulary[one])
    times, more = GAPS
    if vocabulary[token] >= times * len(vocabulary) + more:
        raise Unsafe(
            f"the token {_short(token)} has the id {vocabulary[token]}, far beyond the {len(vocabulary)} tokens that "
            "there are"
        )


def _regexes(value: Any) -> Iterator[str]:
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if isinstance(value.get("Regex"), str):
                yield value["Regex"]
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _steps(value: Any, inner: str) -> Iterator[Mapping[str, Any]]:
    """The parts of a sequence in their order. A sequence within it gives its own parts."""
    if isinstance(value, dict) and value.get("type") == "Sequence":
        for part in value.get(inner) or ():
            yield from _steps(part, inner)
    elif isinstance(value, dict):
        yield value


def _growth(steps: list[Mapping[str, Any]]) -> float:
    """How many times as long a text can become. A later step may read what a step wrote, and write more again."""
    # For each step so far: its growth times that of the steps that feed it, and the text that it writes (None: any).
    largest: list[tuple[float, str | None]] = []
    unicode = False
    for step in steps:
        kind, reads, writes = step.get("type"), None, None
        factor = 1.0
        if kind == "Replace":
            pattern, content = step.get("pattern"), str(step.get("content", ""))
            reads, writes = (pattern.get("String"), content) if isinstance(pattern, dict) else (None, content)
            factor = max(1.0, len(content) / _match(pattern)) if _match(pattern) else 1.0 + len(content)
        elif kind == "Prepend":  # once
            if len(str(step.get("prepend", ""))) > LONGEST_MARK:
                raise Unsafe(f"normalizer: prepends more than {LONGEST_MARK} characters to every text")
        elif kind == "ByteLevel":
            factor = 4.0
        elif kind in UNICODE or kind == "Precompiled":
            # Several of these grow a text no more than one: what is decomposed, or lower-case, stays so.
            factor = 1.0 if unicode else 18.0
            if kind == "Precompiled":
                table = _precompiled(step.get("precompiled_charsmap"))
                factor = table if table > 18.0 else factor
            unicode = True
        before = [grown for grown, text in largest if text is None or reads is None or set(text) & set(reads)]
        largest.append((factor * max(before, default=1.0), writes))
    return max((grown for grown, _ in largest), default=1.0)


def _match(pattern: Any) -> int:
    """The least number of characters in a match."""
    if not isinstance(pattern, dict):
        return 0
    if isinstance(pattern.get("String"), str):
        return len(pattern["String"])
    return check_regex(str(pattern.get("Regex", "")))


def _precompiled(value: Any) -> float:
    """The length of the longest text that SentencePiece's table puts in place of other text."""
    try:
        raw = base64.b64decode(value or "")
        (size,) = struct.unpack("<I", raw[:4])
        return float(max((len(text.decode("utf-8", "replace")) for text in raw[4 + size :].split(b"\0")), default=1))
    except (ValueError, TypeError, struct.error):
        return 1.0  # no table: the library refuses it


def _check_around(processor: Any) -> None:
    """Raise Unsafe if a post-processor repeats the text, or puts many tokens around it."""
    count = 0
    for step in _steps(processor, "processors"):
        if step.get("type") != "TemplateProcessing":
            continue
        special, single = step.get("special_tokens"), step.get("single")
        if not isinstance(special, dict) or not isinstance(single, list):
            continue  # the library says what is wrong
        texts = sum(isinstance(piece, dict) and "Sequence" in piece for piece in single)
        if texts > 1:
            raise Unsafe(f"post_processor: has the text {texts} times; expected it once")
        for piece in single:
            named = piece.get("SpecialToken") if isinstance(piece, dict) else None
            token = special.get(named.get("id")) if isinstance(named, dict) else None
            ids = token.get("ids") if isinstance(token, dict) else None
            count += len(ids) if isinstance(ids, list) else 0
    if count > AROUND:
        raise Unsafe(f"post_processor: puts {count} tokens around every text; expected at most {AROUND}")


def _check_model(model: Mapping[str, Any]) -> None:
    word = model.get("max_input_chars_per_word")
    if isinstance(word, int) and word > LONGEST_WORD:
        raise Unsafe(f"model: max_input_chars_per_word: got {word}; expected at most {LONGEST_WORD}")
    for name in ("continuing_subword_prefix", "end_of_word_suffix", "unk_token"):
        mark = model.get(name)
        if isinstance(mark, str) and len(mark) > LONGEST_MARK:
            raise Unsafe(f"model: {name}: has {len(mark)} characters; expected at most {LONGEST_MARK}")


def _short(text: str) -> str:
    return repr(text) if len(text) <= 60 else f"{text[:57]!r}..."
