"""Rows of tokens: text with facts at random places, then the questions about them with their answers.

    <bos> text fact text text fact text ...

    Question: What is the passkey of Arno Amber?
    Answer: The passkey of Arno Amber is 48213

    Question: ...

A row is read once, and all its answers are scored in that one pass. A later question sees the earlier ones with their
answers, as examples of how to answer. They tell nothing else: each question is about people of its own. Every piece is
encoded for itself, so the tokens of an answer are known without doubt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from random import Random

from miniwin.search.adapt.kinds import HARDER, Question, draw
from miniwin.search.adapt.texts import Text
from miniwin.specs import UserError
from miniwin.tokenizer import Tokenizer

USED = 0.8  # of the text in a pass: rows take a little more or less than their share
PASS = 1_000_003  # added to the seed
ASKED = "\n\nQuestion: {text}\nAnswer:"


@dataclass(frozen=True)
class Answer:
    """start, stop: the tokens of an answer. depth: where its fact stands in the text, from 0, its start, to 1."""

    kind: str
    start: int
    stop: int
    depth: float

    @property
    def judged(self) -> bool:
        return self.kind not in HARDER


@dataclass(frozen=True)
class Row:
    """text: the numbers of the tokens whose loss counts: all of the text but its first piece. bytes: of that text."""

    ids: tuple[int, ...]
    text: tuple[int, ...]
    bytes: int
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Wanted:
    """How many rows of how many tokens, with how many questions each."""

    rows: int
    tokens: int
    judged: int
    harder: int = 0


def make_rows(text: Text, tokenizer: Tokenizer, wanted: Wanted, *, search: bool, seed: int = 0) -> list[Row]:
    """The rows, from places all over the text. No two rows share text.

    Raises:
        UserError: the text is too short for them, or the rows for their questions.
    """
    starts = [len(text.pieces) * i // wanted.rows for i in range(wanted.rows + 1)]
    made = []
    for i in range(wanted.rows):
        random = Random(f"adapt {seed} {'search' if search else 'report'} {wanted.tokens} {i}")
        questions = draw(random, wanted.judged, wanted.harder, search)
        pieces = text.pieces[starts[i] : starts[i + 1]]
        made.append(_row(random, questions, pieces, text, tokenizer, wanted))
    return made


def many_rows(text: Text, tokenizer: Tokenizer, wanted: Wanted, like: Sequence[Row], seed: int) -> Iterator[Row]:
    """As `make_rows` for the search, and more than the text has room for: then it is read again, with other facts.

    like: rows of it, which tell how many bytes a token has. seed: of the first pass.
    """
    each = sum(row.bytes for row in like) / max(sum(len(row.text) for row in like), 1)
    whole = len("".join(text.pieces).encode()) / max(each, 1e-9)
    at_once = max(int(USED * whole / wanted.tokens), 1)
    left, passes = wanted.rows, 0
    while left > 0:
        some = replace(wanted, rows=min(left, at_once))
        yield from make_rows(text, tokenizer, some, search=True, seed=seed + PASS * passes)
        left, passes = left - some.rows, passes + 1


def _row(
    random: Random,
    questions: Sequence[Question],
    pieces: Sequence[str],
    text: Text,
    tokenizer: Tokenizer,
    wanted: Wanted,
) -> Row:
    tails = [_tail(tokenizer, one) for one in questions]
    facts = [_encoded(tokenizer, [f" {fact}" for fact in one.facts]) for one in questions]
    prefix = list(tokenizer.prefix)
    room = wanted.tokens - len(prefix) - sum(map(len, [*chain(*tails), *chain(*facts)]))
    if room < wanted.tokens // 4:
        raise UserError(
            f"rows of {wanted.tokens:,} tokens leave {max(room, 0):,} for text, beside {len(questions)} questions and "
            "their facts; make --seq-len and --search-len longer, or ask fewer --questions"
        )
    filler: list[list[int]] = []
    used: list[str] = []
    for piece in pieces:
        if len(ids := tokenizer.encode(piece)) <= room:
            room -= len(ids)
            filler.append(ids)
            used.append(piece)
        elif filler:
            break  # the row is full; a first piece that is too long is left out
    else:
        if not filler:
            raise UserError(
                f"rows of {wanted.tokens:,} tokens have no room for a piece of text, beside {len(questions)} questions "
                "and their facts; make --seq-len and --search-len longer, or ask fewer --questions"
            )
        raise UserError(
            f"{text.name}: too short for the questions. {wanted.rows} rows of {wanted.tokens:,} tokens are asked for, "
            f"and a row's share of the text is {room:,} tokens short; give more --text, or ask for fewer rows"
        )
    ids, counted, at = _mixed(random, prefix, filler, facts)
    whole = len(ids)
    found = []
    for number, (one, tail) in enumerate(zip(questions, tails, strict=True)):
        for (_, _, about), lead, answer in zip(one.parts, tail[::2], tail[1::2], strict=True):
            start = len(ids) + len(lead)
            ids += lead + answer
            found.append(Answer(one.kind, start, len(ids), at[number, about] / whole))
    return Row(tuple(ids), tuple(counted[len(filler[0]) :]), len("".join(used[1:]).encode()), tuple(found))


def _tail(tokenizer: Tokenizer, question: Question) -> list[list[int]]:
    """The ids of a question and its answer: what comes before each part of the answer, and the part."""
    texts = []
    for number, (said, answer, _) in enumerate(question.parts):
        before = ASKED.format(text=question.text) if number == 0 else "."
        texts += [f"{before} {said}", f" {answer}"]
    return _encoded(tokenizer, texts)


def _mixed(
    random: Random, prefix: list[int], filler: list[list[int]], facts: list[list[list[int]]]
) -> tuple[list[int], list[int], dict[tuple[int, int], int]]:
    """Facts at random places between the pieces of filler; those of one question keep their order.

    Returns the ids, which of them are filler, and where fact (question, number) begins.
    """
    owners = [number for number, some in enumerate(facts) for _ in some]
    random.shuffle(owners)
    places = sorted(random.randrange(len(filler) + 1) for _ in owners)
    ids, at = list(prefix), {}
    counted: list[int] = []
    given = [0] * len(facts)
    done = 0
    for owner, place in zip(owners, places, strict=True):
        for piece in filler[done:place]:
            counted += range(len(ids), len(ids) + len(piece))
            ids += piece
        done = place
        at[owner, given[owner]] = len(ids)
        ids += facts[owner][given[owner]]
        given[owner] += 1
    for piece in filler[done:]:
        counted += range(len(ids), len(ids) + len(piece))
        ids += piece
    return ids, counted, at


def _encoded(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [ids.tolist() for ids in tokenizer.encode_batch(texts)]
