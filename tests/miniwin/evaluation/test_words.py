"""Scores in words: what a model reads, which tokens are the answer, and that a right answer is what greedy decoding
writes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from random import Random
from typing import Any, Literal

import numpy as np
import pytest
import torch
from word_tokenizers import KINDS, model, tokenizer

from miniwin.evaluation.tasks import Needle, Needles, Recall, ScatteredFacts
from miniwin.evaluation.tasks.words import BuiltIn, Passage, TextFile, WordTask, draw_passage, lay, prose
from miniwin.evaluation.words import Asked, ask, score_words
from miniwin.generation import generate
from miniwin.language_model import LanguageModel
from miniwin.specs import UserError

ONE = Recall(num_pairs=3, num_queries=1)
THREE = Recall(num_pairs=3, num_queries=3)


def decoded(kind: str, one: Asked, start: int, end: int | None = None) -> str:
    return tokenizer(kind).decode(one.ids[start:end])


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_has_at_most_so_many_tokens_and_almost_as_many(kind: str) -> None:
    chosen = tokenizer(kind)
    longest = 45  # tokens of a sentence: bytes in the worst case
    for length in (420, 1000, 3000):
        for one in ask(model(kind), THREE, length, examples=3, split="test"):
            assert length - (120 if kind == "byte" else longest) < len(one.ids) <= length
            assert tuple(one.ids[: len(chosen.prefix)]) == chosen.prefix
            text = decoded(kind, one, len(chosen.prefix))
            assert all(fact in text for fact in one.passage.facts)
            assert [text.index(fact) for fact in one.passage.facts] == sorted(map(text.index, one.passage.facts))


@pytest.mark.parametrize("kind", KINDS)
def test_the_tokens_of_an_answer_are_those_of_the_whole_text(kind: str) -> None:
    for one in ask(model(kind), THREE, 500, examples=5):
        assert len(one.spans) == 3
        for (start, end), answer in zip(one.spans, one.passage.answers, strict=True):
            assert decoded(kind, one, start, end).strip() == answer
            assert decoded(kind, one, 0, start).endswith(("Answer:", ","))
        assert one.spans[-1][1] == len(one.ids)


def bigrams(chosen: LanguageModel, after: dict[int, int]) -> None:
    """Make a model say one token after each, whatever came before."""
    table = torch.tensor([after.get(token, 0) for token in range(chosen.spec.vocab_size)])
    decoder: Any = chosen.decoder
    real = decoder.forward

    def forward(input_ids: torch.Tensor, **options: Any) -> torch.Tensor:
        real(input_ids, **options)  # the cache grows as it should
        keep = options.get("logits_to_keep") or input_ids.shape[1]
        return torch.nn.functional.one_hot(table[input_ids[:, -keep:]], chosen.spec.vocab_size).float()

    decoder.forward = forward


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_is_right_exactly_if_greedy_decoding_gives_it(kind: str) -> None:
    chosen = model(kind)
    asked = list(ask(chosen, ONE, 500, examples=12, seed=4))
    (start, end), ids = asked[0].spans[0], asked[0].ids
    chain = ids[start - 1 : end]
    if len(set(chain)) < len(chain):
        pytest.fail("take another seed: this answer has a token twice, which no table of pairs can say")
    bigrams(chosen, dict(pairwise(chain)))
    score = score_words(chosen, ONE, 500, examples=12, seed=4)
    assert score.right[0] == 1 and 0 < score.accuracy < 1
    for one, right in zip(asked, score.right, strict=True):
        (start, end) = one.spans[0]
        written = generate(chosen, one.ids[:start], max_new_tokens=end - start, temperature=0.0).ids
        assert (written == one.ids[start:end]) == bool(right)


@pytest.mark.parametrize("kind", KINDS)
def test_the_prompt_is_the_one_that_generate_reads(kind: str) -> None:
    """As text: the tokens before the answer are those of the text before the answer, with <bos> in front."""
    for one in ask(model(kind), ONE, 400, examples=5):
        prompt = one.text.removesuffix(one.passage.answer)
        assert tokenizer(kind).encode_prompt(prompt) == one.ids[: one.spans[0][0]]


@pytest.mark.parametrize("chunk", [None, 64])
@pytest.mark.parametrize("kind", ["byte", "bpe with <bos>"])
def test_nats_are_those_of_one_pass_alone(kind: str, chunk: int | None) -> None:
    """Whatever the chunks, and whatever longer texts are scored beside it."""
    chosen = model(kind)
    with torch.no_grad():
        chosen.decoder.head.weight.mul_(20)
    score = score_words(chosen, THREE, 330, examples=6, chunk=chunk)
    for number, one in enumerate(ask(chosen, THREE, 330, examples=6)):
        ids = torch.tensor(one.ids)
        with torch.no_grad():
            log_p = chosen(ids[None])[0].double().log_softmax(-1)  # (N, V)
        nats = -sum(float(log_p[at - 1, ids[at]]) for start, end in one.spans for at in range(start, end))
        assert np.isclose(score.nats[number], nats, rtol=1e-4)
        assert score.tokens[number] == sum(end - start for start, end in one.spans)
        assert score.bytes[number] == sum(len(answer) + 1 for answer in one.passage.answers)
    assert score.nats_per_token == score.nats.sum() / score.tokens.sum()
    assert score.nats_per_byte == score.nats.sum() / score.bytes.sum()


@pytest.mark.parametrize("task", [ScatteredFacts, Needles, partial(Needles, num_keys=9), Needle])
@pytest.mark.parametrize("depth", [0.0, 0.3, 1.0, None])
def test_a_fact_stands_at_the_depth_that_is_asked_for(task: Callable[..., WordTask], depth: float | None) -> None:
    for one in ask(model("byte"), task(depth=depth), 4000, examples=4):
        assert one.depth is not None and one.passage.about is not None
        fact = one.passage.facts[one.passage.about]
        place = one.text.index(fact) / (one.text.index("\n\nQuestion") - len(fact))
        assert abs(one.depth - place) < 0.01
        assert depth is None or abs(place - depth) < 0.03


def test_filler_may_be_a_text_of_the_user(tmp_path: Path) -> None:
    novel = tmp_path / "novel.txt"
    text = "It rained. \u201cWhy?\u201d she asked!\n\nChapter 2\n\nThe rest is silence.  " + "so long " * 90 + "it was."
    novel.write_text(text, encoding="utf-8")
    sentences = TextFile(novel).sentences
    assert sentences[:5] == ("It rained.", "\u201cWhy?\u201d", "she asked!", "Chapter 2", "The rest is silence.")
    assert all(len(sentence) <= prose.LONGEST for sentence in sentences)
    for one in ask(model("byte"), ONE, 1500, examples=3, filler=TextFile(novel)):
        context = one.text[: one.text.index("\n\nQuestion")]
        assert sum(map(context.count, sentences)) > 5
        for part in (*one.passage.facts, *sentences):
            context = context.replace(part, "")
        assert not context.strip()
    novel.write_text(" \n")
    with pytest.raises(UserError, match=r"filler: .*novel\.txt has no text; expected"):
        next(ask(model("byte"), ONE, 1500, examples=3, filler=TextFile(novel)))
    novel.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(UserError, match=r"filler: cannot read .*novel\.txt: .*; expected a text file in UTF-8"):
        next(ask(model("byte"), ONE, 1500, examples=3, filler=TextFile(novel)))


def test_built_in_sentences_are_many_and_different() -> None:
    found = list(islice(BuiltIn().pieces(Random(0)), 20_000))
    assert len(set(found)) > 19_000
    assert not [one for one in found if re.search(r"\ba [aeiou]|[{}]", one, re.IGNORECASE)]
    assert list(islice(BuiltIn().pieces(Random(0)), 50)) == found[:50]


class Letters(WordTask):
    """Not registered: two letters in any order."""

    type: Literal["letters"] = "letters"
    shortest = chance = words_chance = property(lambda self: 0)

    def example(self, random: Random, length: int) -> Any:
        raise NotImplementedError

    def words(self, random: Random) -> Passage:
        pair = random.sample("bcdf", 2)
        return Passage(
            tuple(f"There is {one}." for one in pair), "Question: What is there?", tuple(pair), ordered=False
        )


def test_answers_in_any_order_are_looked_for_in_what_is_written() -> None:
    chosen = model("byte")
    bigrams(chosen, {ord(a): ord(b) for a, b in [":x", "x ", " c", "c,", ",b", "bb"]})  # `:x c,bbbbb`, so only c is one
    score = score_words(chosen, Letters(), 600, examples=8, split="train")
    passages = [draw_passage(Letters(), seed=0, index=index, split="train") for index in range(8)]
    assert score.right.tolist() == [int("c" in passage.answers) for passage in passages]
    assert 0 < score.right.sum() < 8


def test_a_chat_has_its_special_tokens_and_no_second_bos() -> None:
    chosen, words = model("bpe with <bos>"), tokenizer("bpe with <bos>")
    template = "<bos><|user|>{prompt}<eos>"
    for one in ask(chosen, ONE, 500, examples=3, template=template):
        assert one.ids[:2] == [1, 3] and one.ids.count(1) == 1 and len(one.ids) <= 500
        (start, _) = one.spans[0]
        assert words.decode(one.ids[one.ids.index(2) : start]) == "<eos>Answer:"


def test_what_cannot_be_asked_is_refused() -> None:
    chosen = model("byte")
    with pytest.raises(UserError, match=r"task recall: an example takes up to \d+ tokens .* and length is 50"):
        ask(chosen, ONE, 50, examples=2)
    with pytest.raises(UserError, match=r"template: got 'hello'; expected a text with \{prompt\} in it once"):
        ask(chosen, ONE, 500, examples=2, template="hello")
    chosen.tokenizer = tokenizer("bpe")
    with pytest.raises(UserError, match="knows the ids 0 to 255 only"):
        next(ask(chosen, ONE, 500, examples=2))
    chosen.tokenizer = None
    with pytest.raises(UserError, match="has no tokenizer, and task recall is asked in words"):
        ask(chosen, ONE, 500, examples=2)


@pytest.mark.parametrize(
    "size",
    [
        pytest.param(lambda text: len(text) // 3 + 5, id="parts are larger than the whole"),
        pytest.param(lambda text: len(text) + len(text) ** 2 // 40_000, id="parts are smaller than the whole"),
        pytest.param(lambda text: max(0, len(text) - 10), id="parts are a little smaller"),
    ],
)
def test_a_text_fits_however_sizes_add_up(size: Callable[[str], int]) -> None:
    passage = draw_passage(ONE, seed=0, index=0, split="train")
    for room in range(400, 3000, 29):
        layout = lay(passage, Random(0), BuiltIn(), room, lambda texts: [size(text) for text in texts], passage.asked)
        assert room - 400 < size(passage.asked(layout.context)) <= room
        assert all(fact in layout.context for fact in passage.facts)
