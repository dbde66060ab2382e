"""Speculative decoding: the text without it, or its distribution; what it counts; what it refuses."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from helpers import BLOCKS, GLOBAL, attention, enliven, tiny_spec
from tiny import run_cli

import miniwin
from miniwin.blocks import native
from miniwin.blocks.cache import Cache, GrowingCache
from miniwin.blocks.decode.native_step import NativeStep
from miniwin.generation import generate, generate_batch
from miniwin.generation import sampling as sampling_module
from miniwin.generation.continuation import Continuation
from miniwin.generation.sampling import Sampling
from miniwin.generation.speculation import Speculation, acceptance, decoding
from miniwin.generation.speculation.decoding import Speculator
from miniwin.generation.speculation.lookup import Lookup
from miniwin.generation.speculation.pace import Pace
from miniwin.language_model import LanguageModel
from miniwin.sessions import new_session
from miniwin.specs import UserError

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6] * 4
SAMPLED: dict[str, Any] = {"temperature": 0.9, "top_p": 0.85, "top_k": 5}


def model_of(blocks: str = "nope", seed: int = 0, **fields: Any) -> LanguageModel:
    spec = tiny_spec(BLOCKS[blocks], tie_word_embeddings=False, **fields)  # tied, it says one token for ever
    decoder = enliven(spec.build(), seed).eval()
    return LanguageModel(decoder, spec, None, f"{blocks}-{seed}")


def always(self: Pace, kind: int, room: int) -> int:
    return min(self._most, room)


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guess as much as may be, whether it pays or not, and where the text repeats nothing, too."""
    place = Lookup.place
    monkeypatch.setattr(Pace, "tokens", always)
    monkeypatch.setattr(Lookup, "place", lambda self: place(self) if place(self)[1] else (len(self._ids) // 2, 3))


CASES = [*(("lookup", blocks) for blocks in BLOCKS), ("model", "nope"), ("model", "heads")]


@pytest.mark.parametrize(("draft", "blocks"), CASES)
def test_greedy_text_is_the_text_without_guesses(blocks: str, draft: str, eager: None) -> None:
    """In float64, where the sums of several tokens at once and of one token differ by less than any margin."""
    model = model_of(blocks)
    model.decoder.double()
    speculate = "lookup" if draft == "lookup" else model_of("nope", 1)
    plain = generate(model, PROMPT, max_new_tokens=20, temperature=0)
    guessed = generate(model, PROMPT, max_new_tokens=20, temperature=0, speculate=speculate)
    assert guessed.ids == plain.ids and guessed.guesses is not None
    assert guessed.guesses.proposed > 0 and plain.guesses is None


def test_a_seed_gives_the_same_text_with_lookup(eager: None) -> None:
    model = model_of()
    model.decoder.double()
    for seed in range(2):
        texts = [
            generate(model, PROMPT, max_new_tokens=16, seed=seed, **SAMPLED, speculate=how).ids
            for how in (None, "lookup", Speculation("lookup", 3))
        ]
        assert texts[0] == texts[1] == texts[2]


class Table:
    """A model of five ids that depends on the last two. Its cache holds the ids, so a wrong rollback shows."""

    device = torch.device("cpu")

    def __init__(self, seed: int) -> None:
        self.rows = torch.randn(5, 5, 5, generator=torch.Generator().manual_seed(seed)) * 1.5

    def __call__(self, ids: torch.Tensor, cache: Cache) -> torch.Tensor:
        seen = cache.layers[0].append(ids[..., None, None].float())[0].flatten().long()
        cache.length += ids.shape[1]
        new = torch.arange(cache.length - ids.shape[1], cache.length)
        return self.rows[seen[new - 1], seen[new]][None]


class TableDraft:
    """Stands for Draft: guesses drawn from another table."""

    def __init__(self, rows: torch.Tensor, sampling: Sampling) -> None:
        self.rows, self.sampling = rows, sampling

    def guess(self, ids: Sequence[int], count: int, generator: torch.Generator) -> tuple[list[int], list[Any]]:
        context, each = list(ids), []
        for _ in range(count):
            each.append(sampling_module.distribution(self.rows[context[-2], context[-1]], self.sampling))
            context.append(sampling_module.draw(each[-1], generator))
        return context[len(ids) :], each

    def keep(self, right: int) -> None: ...


TEXT, PLACES = [0, 1, 2, 3, 0, 1, 2], 3  # a text, in which 3 comes next for the lookup, and new tokens
DRAWS = 10_000
LIKELY = Sampling(0.9, top_p=0.9)


def drawn(how: str, draws: int = DRAWS) -> Counter[tuple[int, ...]]:
    """The new ids of so many texts."""
    model, draft, found = Table(1), Table(2), Counter[tuple[int, ...]]()
    row = Continuation(None, TEXT, PLACES, (), 0, None)
    for _ in range(draws):
        cache = Cache([GrowingCache([torch.empty(1, 0, 1, 1)])])
        logits = model(torch.tensor([TEXT]), cache)[:, -1:]
        made = Speculator(model, cache, None, Speculation("lookup", 2), list(TEXT), LIKELY, 5, PLACES)  # type: ignore[arg-type]
        if how == "draft":
            made.lookup, made.draft = None, TableDraft(draft.rows, LIKELY)  # type: ignore[assignment]
        row.ids, row.ended = [], None
        made.run(logits, row, PLACES, None, None)
        found[tuple(row.ids)] += 1
    return found


def agreement(found: Counter[tuple[int, ...]], draws: int = DRAWS) -> float:
    """The p-value of chi-square against the product of the model's own distributions. Rare texts count as one."""
    model, chances = Table(1), {}
    for text in product(range(5), repeat=PLACES):
        ids, chance = [*TEXT, *text], 1.0
        for place in range(len(TEXT), len(ids)):
            row = model.rows[ids[place - 2], ids[place - 1]]
            chance *= float(sampling_module.distribution(row, LIKELY)[ids[place]])
        chances[text] = chance
    assert not [text for text in found if chances[text] == 0], "a text that the model alone cannot give"
    often = [text for text in chances if chances[text] * draws >= 10]
    observed = [found[text] for text in often] + [draws - sum(found[text] for text in often)]
    expected = [chances[text] * draws for text in often]
    expected.append(draws - sum(expected))
    from scipy.stats import chisquare  # takes long to import: only where this runs

    if expected[-1] < 1:
        observed, expected = observed[:-1], expected[:-1]
    return float(chisquare(observed, np.array(expected) * sum(observed) / sum(expected)).pvalue)


SLOW = pytest.mark.skipif(os.environ.get("MINIWIN_TEST_SLOW") != "1", reason="MINIWIN_TEST_SLOW=1 runs it")


@pytest.mark.parametrize("how", [pytest.param("lookup", marks=SLOW), "draft"])
def test_10000_texts_have_the_distribution_of_the_model_alone(
    how: str, eager: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    remember(monkeypatch)
    assert agreement(drawn(how)) > 1e-3


@pytest.mark.parametrize("wrong", ["always kept", "drawn anew from p"])
def test_a_wrong_rule_is_noticed(wrong: str, eager: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: guesses that are always kept, or a wrong guess replaced by a draw from p and not from the rest."""
    remember(monkeypatch)

    def rule(logits: Any, guess: int | None, q: Any, sampling: Sampling, generator: torch.Generator) -> int:
        p = sampling_module.distribution(logits, sampling)
        if guess is not None and q is not None:
            kept = wrong == "always kept" or torch.rand((), generator=generator) < p[guess] / q[guess]
            if kept and p[guess] > 0:
                return guess
        return sampling_module.draw(p, generator)

    monkeypatch.setattr(decoding, "next_token", rule)
    assert agreement(drawn("draft", 2_000), 2_000) < 1e-6


def remember(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sorting five logits takes longer than all else here: compute each distribution once."""
    known: dict[tuple[float, ...], torch.Tensor] = {}
    plain = sampling_module.distribution

    def distribution(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
        key = tuple(logits.tolist())
        if key not in known:
            known[key] = plain(logits, sampling)
        return known[key]

    for module in (sampling_module, acceptance):
        monkeypatch.setattr(module, "distribution", distribution)

    def sample(logits: torch.Tensor, sampling: Sampling, generator: torch.Generator) -> int:
        return sampling_module.draw(distribution(logits, sampling), generator)

    monkeypatch.setattr(acceptance, "sample", sample)


def test_a_real_draft_keeps_a_session_and_its_cache_as_they_would_be(eager: None) -> None:
    model, draft = model_of(seed=0), model_of(seed=0)
    model.decoder.double(), draft.decoder.double()
    with torch.no_grad():  # a draft that is often right, not always
        draft.decoder.layers[0].mlp.down_proj.weight.mul_(0.5)
    sessions = [new_session(model), new_session(model)]
    for prompt in (PROMPT, [7, 8], []):
        one, two = (
            generate(model, prompt, session=session, max_new_tokens=20, temperature=0, speculate=how)
            for session, how in zip(sessions, (None, draft), strict=True)
        )
        assert one.ids == two.ids
        assert (sessions[0].pending, sessions[0].tail) == (sessions[1].pending, sessions[1].tail)
        assert sessions[0].cache.length == sessions[1].cache.length
        guesses = two.guesses
        assert guesses is not None and 0 < guesses.accepted < guesses.proposed and guesses.passes < 20


def test_stopped_in_the_midst_of_a_guess_a_session_goes_on(eager: None) -> None:
    model = model_of()
    model.decoder.double()
    plain, guessed = new_session(model), new_session(model)
    for session, how in ((plain, None), (guessed, "lookup")):
        left = iter([True] * 10 + [False] * 5)
        made = generate(
            model,
            PROMPT,
            session=session,
            max_new_tokens=30,
            temperature=0,
            speculate=how,
            going_on=lambda: next(left),  # noqa: B023
        )
        assert made.ended == "interrupted"
    again = [generate(model, [2], session=one, max_new_tokens=12, temperature=0).ids for one in (plain, guessed)]
    assert again[0] == again[1]


def test_a_failed_pass_leaves_the_session_as_before_it(eager: None, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of()
    session = new_session(model)

    def failing(self: Speculator, ids: list[int]) -> torch.Tensor:
        self.model(torch.tensor([ids]), cache=self.cache)
        raise KeyboardInterrupt

    monkeypatch.setattr(Speculator, "_pass", failing)
    with pytest.raises(KeyboardInterrupt):
        generate(model, PROMPT, session=session, max_new_tokens=20, temperature=0, speculate="lookup")
    monkeypatch.undo()
    assert not session.cache.halfway and session.tokens == len(PROMPT) + 1


# --- guesses and their number ---------------------------------------------------------------------


def test_the_lookup_takes_the_place_with_most_in_common_and_goes_round() -> None:
    found = Lookup([9, 1, 2, 3, 7, 8, 1, 2, 3, 5, 4, 9, 1, 2, 3])
    place, same = found.place()
    assert (place, same) == (4, 4) and found.guess(place, 3) == [7, 8, 1]
    assert Lookup([1, 2, 3, 4]).place() == (0, 0) and Lookup([1, 2]).place() == (0, 0)
    round_and_round = Lookup([5, 6, 5, 6, 5, 6])
    assert round_and_round.guess(round_and_round.place()[0], 5) == [5, 6, 5, 6, 5]


def test_the_pace_follows_what_was_right() -> None:
    pace = Pace(16)
    assert 0 < pace.tokens(0, 100) < 16 and pace.tokens(0, 1) <= 1 and pace.tokens(0, 0) == 0
    for _ in range(100):
        pace.learn(0, 0, True)
        pace.learn(1, 16, False)
    assert pace.tokens(0, 100) == 0 and pace.tokens(1, 100) == 16  # each kind by itself


def test_nothing_is_guessed_that_no_window_can_take_back() -> None:
    model = model_of(blocks="nope")
    made = generate(model, PROMPT, max_new_tokens=60, temperature=0, speculate=Speculation("lookup", 64))
    assert made.guesses is not None and made.guesses.passes >= 60 / 7 - 1  # windows of 7 tokens


# --- several tokens in one native step ------------------------------------------------------------


@pytest.mark.skipif(native.missing() is not None, reason="needs the kernels")
def test_several_tokens_in_one_step_are_as_many_steps_to_the_last_bit() -> None:
    model = miniwin.load("miniwin-1m")
    ids = torch.arange(300)[None] % 256
    one, other = model.new_cache(), model.new_cache()
    with torch.no_grad():
        for cache in (one, other):
            model(ids[:, :250], cache=cache)
        first, second = NativeStep(model.decoder, one), NativeStep(model.decoder, other)
        for start, end in ((250, 251), (251, 258), (258, 288), (288, 300)):
            expected = torch.cat([first.step(ids[:, t : t + 1]) for t in range(start, end)], 1)
            assert torch.equal(second.steps(ids[:, start:end]), expected)
    assert all(torch.equal(a, b) for a, b in zip(one.held().values(), other.held().values(), strict=True))


# --- refusals -------------------------------------------------------------------------------------


def test_refusals() -> None:
    model = model_of()
    for given, words in (
        (3, "expected 'lookup', a model or the name of one"),
        ("", "expected 'lookup', a model or the name of one"),
        ("no-such-model", "no-such-model"),
        (model, "the model itself"),
        (miniwin.load("miniwin-tasks"), "same tokenizer"),
        (model_of(vocab_size=40), "knows 40 ids"),
    ):
        with pytest.raises(UserError, match=words):
            generate(model, PROMPT, speculate=given)
    with pytest.raises(UserError, match="one at a time"):
        generate_batch(model, [PROMPT, PROMPT], speculate="lookup")
    with pytest.raises(UserError, match="from 1 to 64, got 65"):
        Speculation("lookup", 65)
    narrow = tiny_spec({"S": attention(1, GLOBAL)})
    with pytest.raises(UserError, match="window of 1 token"):
        generate(LanguageModel(narrow.build().eval(), narrow, None), PROMPT, speculate="lookup")


def test_the_command_line_says_what_came_of_the_guesses() -> None:
    prompt = "def first(a):\n    return a\n\n\n" * 3
    given = ("generate", "miniwin-1m", "--prompt", prompt, "-n", "40", "--temperature", "0")
    code, text, _ = run_cli(*given)
    again, same, said = run_cli(*given, "--speculate", "lookup", "--draft-tokens", "4")
    assert (code, again) == (0, 0) and text == same and "guesses right" in said and "tokens a pass" in said
    code, _, said = run_cli(*given, "--draft-tokens", "4")
    assert code == 2 and "--draft-tokens: got it without --speculate" in said
