"""Preparing a corpus: a source is tokenised once, and kept in the cache, <cache>/data/<key>/ (corpus_files.py).

The key is a hash of the spec, the file list (path, size, time) and the tokenizer, so looking a corpus up reads
no text. The fingerprint is a hash of the text itself, the split and the tokenizer: it is the same on every
machine with the same text. The fingerprint is of the split before copies are left out of the test (copies.py), so that
it stays what it was.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from miniwin.chat.format import ChatFormat, make_chat_format, template_text
from miniwin.data.copies import COPIES, looked_for
from miniwin.data.corpus import Corpus
from miniwin.data.corpus_files import FORMAT, made, open_corpus
from miniwin.data.examples import ExampleRows, fingerprint
from miniwin.data.mixture import MixedRows
from miniwin.data.sources import Source, check_apart, list_source
from miniwin.files.folders import cache_folder
from miniwin.files.writing import Unwritable
from miniwin.specs import UserError, user_path
from miniwin.specs.data import ChatData, DataSpec, ExamplesData, JsonlData, MixtureData, TextData
from miniwin.tokenizer import Tokenizer
from miniwin.tokenizer.hugging_face import SEPARATORS

READING = 2  # version of how bytes become text; part of the key, so that corpora of older versions are made anew
ANSWERS = "counted"  # likewise, of chats: which ids are counted is known on each side


def prepare(
    spec: DataSpec,
    tokenizer: Tokenizer,
    base: Path | None = None,
    cache_dir: Path | None = None,
    *,
    progress: bool = False,
    chat_format: ChatFormat | None = None,
) -> Corpus:
    """The corpus of `spec`, from the cache or made now. Paths in the spec are relative to `base`.

    chat_format: that of the model, for chats; a template that the spec names comes first.

    Raises:
        UserError: the text cannot be found or read, one side of the split is empty, or the tokenizer has no separator.
        Unwritable: the cache folder cannot be written.
    """
    if isinstance(spec, ExamplesData):
        return _drawn(spec, tokenizer)
    if isinstance(spec, MixtureData):
        check_apart(spec, base)
        return _mixed(
            spec,
            tokenizer,
            [_part(spec, n, tokenizer, base, cache_dir, progress, chat_format) for n in range(len(spec.parts))],
        )
    if tokenizer.separator is None:
        raise UserError(
            f"the tokenizer {tokenizer.name} has no token to separate documents with; expected one of "
            f"{', '.join(SEPARATORS)}, or byte 0 in a byte-level vocabulary: add one as a special token"
        )
    source = list_source(spec, base)
    if isinstance(spec, ChatData):
        source = _with_format(source, spec, tokenizer, base, chat_format)
    root = (cache_folder() if cache_dir is None else user_path(cache_dir)) / "data"
    key = _key(source, tokenizer)
    found = open_corpus(root / key) or made(root, key, source, tokenizer, progress)
    if replaced := found.info.get("replaced"):
        warnings.warn(
            f"{replaced} place{'s' * (replaced > 1)} in the {spec.source} data: not UTF-8, and read as U+FFFD; first "
            f"{found.info['replaced_first']}",
            stacklevel=2,
        )
    return replace(found, chat_format=source.chat_format)


def _with_format(
    source: Source, spec: ChatData, tokenizer: Tokenizer, base: Path | None, own: ChatFormat | None
) -> Source:
    """The source with the format of its chats: the template that the spec names, or that of the model."""
    if spec.template is not None:
        assert tokenizer.separator is not None
        ends = [*(() if own is None else own.end_tokens), tokenizer.decode([tokenizer.separator])]
        text = template_text((base or Path()) / user_path(spec.template))
        own = make_chat_format(text, {} if own is None else own.names, ends, tokenizer)
    if own is None:
        raise UserError(
            "data: chats need a chat template, and there is none: begin with the weights of a model that has one "
            "(--from), or name a file of your own as template"
        )
    known = {"template": own.template, "names": dict(own.names), "end_tokens": list(own.end_tokens)}
    digest_of = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()
    return replace(source, chat_format=own, facts={"chat_format": digest_of[:16], "loss": spec.loss})


def _drawn(spec: ExamplesData, tokenizer: Tokenizer) -> Corpus:
    none = np.zeros(0, dtype=np.int64)
    info = {"source": spec.source, "task": spec.parsed_task.model_dump(mode="json"), "loss": spec.loss}
    info |= {"tokenizer": tokenizer.name}
    return Corpus(none, none, fingerprint(spec, tokenizer), info, ExampleRows(spec, tokenizer))


def _part(
    spec: MixtureData,
    place: int,
    tokenizer: Tokenizer,
    base: Path | None,
    cache_dir: Path | None,
    progress: bool,
    chat_format: ChatFormat | None,
) -> Corpus:
    try:
        return prepare(spec.parts[place].data, tokenizer, base, cache_dir, progress=progress, chat_format=chat_format)
    except Unwritable:  # the cache, not the data
        raise
    except UserError as error:
        said = str(error)
        raise UserError(f"data.parts.{place}.{said if said.startswith('data') else f'data: {said}'}") from None


def _mixed(spec: MixtureData, tokenizer: Tokenizer, corpora: Sequence[Corpus]) -> Corpus:
    none = np.zeros(0, dtype=np.int64)
    parts = tuple((part.label, part.weight, corpus) for part, corpus in zip(spec.parts, corpora, strict=True))
    rows = MixedRows([(name, corpus.rows) for name, _, corpus in parts], [weight for _, weight, _ in parts])
    question = [FORMAT, [[str(weight), corpus.fingerprint] for _, weight, corpus in parts]]
    info = {
        "source": spec.source,
        "parts": [{"name": name, "weight": weight, **corpus.describe()} for name, weight, corpus in parts],
        "tokenizer": tokenizer.name,
    }
    found = hashlib.sha256(json.dumps(question).encode()).hexdigest()
    chat_format = next((corpus.chat_format for corpus in corpora if corpus.chat_format is not None), None)
    return Corpus(none, none, found, info, rows, parts, chat_format=chat_format)


def _key(source: Source, tokenizer: Tokenizer) -> str:
    """The name of a corpus in the cache: a hash of all that its ids depend on, without reading text."""
    files = [file.key() for file in source.files]
    reading: list[Any] = [READING] if isinstance(source.spec, TextData | JsonlData | ChatData) else []
    reading += [f"copies {COPIES}"] if looked_for(source) else []
    reading += [ANSWERS] if isinstance(source.spec, ChatData) else []
    question = [FORMAT, source.spec.model_dump(mode="json"), files, source.facts, tokenizer.identity, *reading]
    text = json.dumps(question, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:32]
