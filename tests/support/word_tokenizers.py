"""Tokenizers of every kind, small, trained on sentences of the filler and of facts."""

from __future__ import annotations

import json
from functools import cache
from itertools import islice
from random import Random
from typing import Any

import tiny

from miniwin import build
from miniwin.evaluation.tasks.words import BuiltIn
from miniwin.language_model import LanguageModel
from miniwin.specs import parse_spec
from miniwin.tokenizer import ByteTokenizer, HFTokenizer, ImportedTokenizer, Tokenizer

KINDS = ("byte", "bpe", "bpe with <bos>", "unigram with <bos>")


@cache
def tokenizer(kind: str) -> Tokenizer:
    if kind == "byte":
        return ByteTokenizer()
    text = _trained(unigram="unigram" in kind, bos="<bos>" in kind)
    return ImportedTokenizer(text) if "<bos>" in kind else HFTokenizer(text)


@cache
def _trained(unigram: bool, bos: bool) -> str:
    from tokenizers import Tokenizer as Inner
    from tokenizers import decoders, models, pre_tokenizers, processors, trainers

    special = ["<unk>", "<bos>", "<eos>", "<|user|>"]
    if unigram:
        inner = Inner(models.Unigram())
        inner.pre_tokenizer, inner.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        trainer: Any = trainers.UnigramTrainer(
            vocab_size=400, special_tokens=special, unk_token="<unk>", show_progress=False
        )
    else:
        inner = Inner(models.BPE())
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=600,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
    letters = [" ".join(map(chr, range(33, 127)))]
    inner.train_from_iterator([*islice(BuiltIn().pieces(Random(0)), 300), *letters], trainer)
    if bos:
        inner.post_processor = processors.TemplateProcessing(
            single="<bos> $A", special_tokens=[("<bos>", inner.token_to_id("<bos>"))]
        )
    return json.dumps(json.loads(inner.to_str()))


def model(kind: str) -> LanguageModel:
    """A model of a few thousand weights with this tokenizer."""
    chosen = tokenizer(kind)
    spec = parse_spec({**tiny.TINY, "vocab_size": chosen.vocab_size}, "model")
    made = build(spec)
    made.tokenizer = chosen
    return made.eval()
