"""Sampling against naive distributions; generation: greedy, seeds, stop strings, streaming, wrong settings."""

from __future__ import annotations

import inspect
import math
import re
from itertools import product

import numpy as np
import pytest
import torch
from scripted import scripted
from tiny import run_cli, spec

import miniwin
from miniwin.generation import generate, generate_batch
from miniwin.generation.sampling import Sampling, draw, probabilities, sample, sample_rows
from miniwin.generation.settings import DEFAULTS, Options
from miniwin.generation.stop_strings import StopFilter
from miniwin.language_model import LanguageModel
from miniwin.specs import UserError


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    """Random weights, large enough that the next token depends on the context."""
    model = miniwin.build(spec(), seed=1).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(8)
    return model


# --- sampling -------------------------------------------------------------------------------------


def naive(logits: list[float], temperature: float, top_k: int, top_p: float, min_p: float) -> list[float]:
    """One token at a time, in Python floats."""
    top = max(logits)
    weights = {i: math.exp((value - top) / temperature) for i, value in enumerate(logits)}
    ranked = sorted(weights, key=lambda i: (-logits[i], i))
    if top_k:
        ranked = ranked[:top_k]
    total = sum(weights[i] for i in ranked)
    kept, mass = [], 0.0
    for i in ranked:
        if top_p < 1 and mass >= top_p:
            break
        kept.append(i)
        mass += weights[i] / total
    kept = [i for i in kept if weights[i] >= min_p * weights[kept[0]]]
    total = sum(weights[i] for i in kept)
    return [weights[i] / total if i in kept else 0.0 for i in range(len(logits))]


@pytest.mark.parametrize("temperature", [0.1, 0.8, 1.0, 3.0])
def test_probabilities_equal_the_naive_reference(temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    for top_k, top_p, min_p in product((0, 1, 5, 40, 1000), (1e-9, 0.3, 0.9, 1.0), (0.0, 0.05, 1.0)):
        logits = torch.randn(50, generator=generator) * 3
        found = probabilities(logits, Sampling(temperature, top_k, top_p, min_p))
        expected = torch.tensor(naive(logits.tolist(), temperature, top_k, top_p, min_p), dtype=torch.float64)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12, msg=f"{top_k=} {top_p=} {min_p=}")


def test_ties_keep_exactly_k_the_lower_ids_first() -> None:
    found = probabilities(torch.tensor([1.0, 2.0, 2.0, 2.0]), Sampling(1.0, top_k=2))
    assert found.tolist() == [0.0, 0.5, 0.5, 0.0]


def test_temperature_0_is_greedy_and_the_smallest_temperature_is_finite() -> None:
    logits = torch.tensor([0.0, 100.0, 99.0])
    assert probabilities(logits, Sampling(0.0)).tolist() == [0.0, 1.0, 0.0]
    assert probabilities(logits, Sampling(5e-324)).tolist() == [0.0, 1.0, 0.0]


def test_samples_follow_the_distribution() -> None:
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0])
    sampling = Sampling(1.0, top_k=3)
    generator = torch.Generator().manual_seed(0)
    draws = torch.tensor([sample(logits, sampling, generator) for _ in range(4000)])
    frequencies = torch.bincount(draws, minlength=4) / 4000
    torch.testing.assert_close(frequencies.double(), probabilities(logits, sampling), rtol=0, atol=0.03)
    assert frequencies[3] == 0


def test_rows_are_drawn_as_each_would_be_alone() -> None:
    logits = torch.randn(9, 50, generator=torch.Generator().manual_seed(1)) * 3
    logits[2, 7:] = float("-inf")
    ways = [Sampling(0.0), Sampling(1.0), Sampling(0.7, min_p=0.1), Sampling(1.3, top_k=3), Sampling(0.8, top_p=0.5)]
    ways += [Sampling(5e-324), Sampling(2.0, 4, 0.9, 0.2), Sampling(1.0, top_k=1000), Sampling(0.0, top_k=2)]
    together, alone = ([torch.Generator().manual_seed(i) for i in range(9)] for _ in range(2))
    for _ in range(50):
        wanted = [sample(row, way, own) for row, way, own in zip(logits, ways, alone, strict=True)]
        assert sample_rows(logits, ways, together) == wanted


def test_a_draw_is_where_the_sum_of_the_weights_passes_a_uniform_number() -> None:
    weights = [0.0, 2.0, 0.0, 1.0, 5.0, 0.0]
    own, twin = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    for _ in range(200):
        number = float(torch.rand(1, dtype=torch.float64, generator=twin)) * sum(weights)
        wanted = next(i for i in range(6) if sum(weights[: i + 1]) > number)
        assert draw(torch.tensor(weights, dtype=torch.float64), own) == wanted


def test_rounding_never_draws_what_has_no_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (0.0, 1 - 2**-53):
        monkeypatch.setattr(torch, "rand", lambda *a, number=number, **k: torch.tensor([number], dtype=torch.float64))
        for first in (0.1, 1e-300, 3.0):
            weights = torch.tensor([0.0, first, first / 3, 0.0], dtype=torch.float64)
            assert draw(weights, torch.Generator()) in (1, 2)


def test_a_diverged_model_is_an_error_not_a_token() -> None:
    with pytest.raises(UserError, match="logits are not finite: its weights have diverged"):
        sample(torch.tensor([0.0, float("nan")]), Sampling(), torch.Generator())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -0.1}, r"temperature: expected 0 \(greedy\) or more, got -0.1"),
        ({"temperature": float("nan")}, "temperature: expected a finite number, got nan"),
        ({"temperature": "hot"}, "temperature: expected a finite number, got 'hot'"),
        ({"top_k": -1}, r"top_k: expected a whole number, 0 \(off\) or more, got -1"),
        ({"top_k": 2.5}, r"top_k: expected a whole number, 0 \(off\) or more, got 2.5"),
        ({"top_p": 0.0}, r"top_p: expected more than 0 and at most 1 \(off\), got 0.0"),
        ({"top_p": 1.5}, r"top_p: expected more than 0 and at most 1 \(off\), got 1.5"),
        ({"min_p": -0.5}, r"min_p: expected 0 \(off\) to 1, got -0.5"),
        ({"max_new_tokens": 0}, "max_new_tokens: expected a whole number of at least 1, got 0"),
        ({"stop": ""}, "stop: expected strings of at least one character, got ''"),
        ({"stop": ["a", ""]}, "stop: expected strings of at least one character, got ''"),
        ({"stop": None}, r"stop: expected a string or several, or \(\) for none, got None"),
        ({"temperature": 10**400}, "temperature: expected a finite number, got 1000"),
        ({"seed": "x"}, r"seed: expected a whole number from -2\*\*63 to 2\*\*64 - 1, or none, got 'x'"),
        ({"seed": 1.0}, "seed: expected a whole number .*, got 1.0"),
        ({"seed": True}, "seed: expected a whole number .*, got True"),
        ({"seed": 2**64}, "seed: expected a whole number .*, got 18446744073709551616"),
        ({"seed": -(2**63) - 1}, "seed: expected a whole number .*, got -9223372036854775809"),
    ],
)
def test_bad_settings_are_refused(model: LanguageModel, settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        model.generate("x", **settings)  # type: ignore[call-overload]


def test_numbers_of_numpy_are_numbers(model: LanguageModel) -> None:
    plain = {"seed": 3, "max_new_tokens": 6, "top_k": 9, "temperature": 1.5, "top_p": 0.5, "min_p": 0.25}
    kinds = {int: np.int64, float: np.float32}
    theirs = {name: kinds[type(value)](value) for name, value in plain.items()}
    assert model.generate(np.array([1, 2]), **theirs) == model.generate([1, 2], **plain)  # type: ignore[call-overload]


def test_the_ends_of_what_a_seed_can_be(model: LanguageModel) -> None:
    for seed in (-(2**63), 2**64 - 1):
        assert len(generate(model, "x", seed=seed, max_new_tokens=2, temperature=0).ids) == 2


# --- generation -----------------------------------------------------------------------------------


def greedy_without_cache(model: LanguageModel, ids: list[int], count: int) -> list[int]:
    ids = list(ids)
    start = len(ids)
    for _ in range(count):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[start:]


@pytest.mark.parametrize("prompt_length", [1, 7, 40])
def test_greedy_equals_argmax_of_full_forward_passes(model: LanguageModel, prompt_length: int) -> None:
    prompt = torch.randint(1, 256, (prompt_length,), generator=torch.Generator().manual_seed(3)).tolist()
    expected = greedy_without_cache(model, prompt, 30)
    assert len(set(expected)) > 3, "the model repeats itself: it could not tell a broken cache"
    if 0 in expected:
        expected = expected[: expected.index(0)]
    assert model.generate(prompt, max_new_tokens=30, temperature=0) == expected


def test_a_prompt_longer_than_a_prefill_chunk(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = torch.randint(1, 256, (61,), generator=torch.Generator().manual_seed(4)).tolist()
    whole = generate(model, prompt, max_new_tokens=10, temperature=0)
    monkeypatch.setattr("miniwin.generation.loop.chunk_for", lambda length: 9)
    assert generate(model, prompt, max_new_tokens=10, temperature=0).ids == whole.ids
    assert whole.prompt_tokens == 61


def test_text_list_and_tensor_prompts_agree(model: LanguageModel) -> None:
    ids = list(b"def main(")
    from_ids = model.generate(ids, seed=5, max_new_tokens=20)
    assert model.generate(torch.tensor(ids), seed=5, max_new_tokens=20) == from_ids
    assert model.generate(torch.tensor([ids]), seed=5, max_new_tokens=20) == from_ids
    result = generate(model, "def main(", seed=5, max_new_tokens=20)
    assert result.ids == from_ids
    assert isinstance(model.generate("def main(", seed=5, max_new_tokens=20), str)


def test_a_seed_decides_the_text_and_the_global_generator_is_left_alone(model: LanguageModel) -> None:
    torch.manual_seed(123)
    before = torch.get_rng_state()
    first = model.generate("x", seed=7, temperature=1.5, max_new_tokens=40)
    torch.manual_seed(99)
    torch.rand(5)
    assert model.generate("x", seed=7, temperature=1.5, max_new_tokens=40) == first
    assert model.generate("x", seed=8, temperature=1.5, max_new_tokens=40) != first
    torch.manual_seed(123)
    model.generate("x", max_new_tokens=3)
    assert torch.equal(torch.get_rng_state(), before)


def test_without_a_seed_texts_differ(model: LanguageModel) -> None:
    texts = {tuple(model.generate([5], temperature=3.0, max_new_tokens=30)) for _ in range(4)}
    assert len(texts) > 1


def test_training_mode_is_given_back(model: LanguageModel) -> None:
    model.train()
    frozen = model.decoder.layers[0].eval()
    try:
        model.generate("x", max_new_tokens=1, seed=0)
        assert model.training and model.decoder.layers[1].training
        assert not any(module.training for module in frozen.modules()), "each module has a mode of its own"
    finally:
        model.eval()


def test_an_empty_prompt_starts_a_document(model: LanguageModel) -> None:
    expected = generate(model, [0], temperature=0, max_new_tokens=8).ids
    assert generate(model, "", temperature=0, max_new_tokens=8).ids == expected
    assert model.generate([], temperature=0, max_new_tokens=8) == expected, "one prompt of no ids, not no prompts"


def test_the_separator_ends_the_text() -> None:
    result = generate(scripted(b"abc\0def"), "p", temperature=0)
    assert (result.text, result.ids, result.ended) == ("abc", list(b"abc"), "separator")


def test_wrong_prompts(model: LanguageModel) -> None:
    with pytest.raises(UserError, match="prompt: expected token ids from 0 to 255, got 256"):
        model.generate([1, 256])
    with pytest.raises(UserError, match="prompt: expected token ids from 0 to 255, got -1"):
        model.generate([1, -1])
    with pytest.raises(UserError, match=r"expected one sequence of integer ids.*shape \(2, 3\)"):
        model.generate(torch.zeros(2, 3, dtype=torch.int64))
    with pytest.raises(UserError, match=r"expected one sequence of integer ids.*float32"):
        model.generate(torch.zeros(3))
    with pytest.raises(UserError, match="expected text or a list of integer ids, got 'a' in the list"):
        model.generate([1, "a"])  # type: ignore[list-item]
    for prompt, got in ((["a", 5], "5"), (None, "None"), (7, "7")):
        with pytest.raises(UserError, match=f"prompt: expected text or a list of integer ids, got {got}$"):
            model.generate(prompt)  # type: ignore[call-overload]


def test_a_model_without_a_tokenizer_takes_ids_only() -> None:
    small = spec().model_copy(update={"vocab_size": 64})
    model = miniwin.build(small).eval()
    assert model.tokenizer is None
    assert len(model.generate([1, 2], max_new_tokens=5, seed=0)) == 5
    with pytest.raises(UserError, match="tiny has no tokenizer: give the prompt as token ids"):
        model.generate("x")
    with pytest.raises(UserError, match="no tokenizer, so it has no text to stream or stop at"):
        model.generate([1], stop="x")
    with pytest.raises(UserError, match="the prompt is empty, and this model has no document separator"):
        model.generate([])


def test_ids_beyond_the_tokenizer_are_never_drawn() -> None:
    wide = miniwin.build(spec().model_copy(update={"vocab_size": 300}), seed=0).eval()
    with torch.no_grad():
        wide.decoder.embed_tokens.weight[256:] *= 100
    result = generate(wide, "x", temperature=5.0, max_new_tokens=50, seed=0)
    assert result.ids and max(result.ids) < 256


# --- several prompts ------------------------------------------------------------------------------


def some_prompts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(8)
    return [torch.randint(1, 256, (n,), generator=generator).tolist() for n in (40, 1, 7, 90, 7)]


@pytest.mark.parametrize("settings", [{"temperature": 0}, {"temperature": 1.2, "seed": 4}, {"top_k": 9, "seed": 5}])
def test_prompts_together_give_what_each_gives_alone(
    model: LanguageModel, settings: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = some_prompts()
    alone = [generate(model, prompt, max_new_tokens=40, **settings) for prompt in prompts]  # type: ignore[arg-type]
    # Rows that end in different places, for different reasons: the batch shrinks on the way.
    stop = alone[0].text[4:6]
    alone = [generate(model, prompt, max_new_tokens=40, stop=stop, **settings) for prompt in prompts]  # type: ignore[arg-type]
    assert len({result.new_tokens for result in alone}) > 1
    for chunk in (1000, 13):  # the second one: padding longer than a chunk
        monkeypatch.setattr("miniwin.generation.loop.chunk_for", lambda length, size=chunk: size)
        together = generate_batch(model, prompts, max_new_tokens=40, stop=stop, **settings)  # type: ignore[arg-type]
        for one, other in zip(alone, together, strict=True):
            facts = [(r.text, r.ids, r.prompt_tokens, r.new_tokens, r.ended) for r in (one, other)]
            assert facts[0] == facts[1]


def test_a_list_of_prompts_gives_a_list(model: LanguageModel) -> None:
    texts = ["def main(", "x", ""]
    found = model.generate(texts, seed=3, max_new_tokens=12)
    assert found == [model.generate(text, seed=3, max_new_tokens=12) for text in texts]
    ids = [list(text.encode()) for text in texts[:2]]
    assert model.generate(ids, seed=3, max_new_tokens=12) == [model.generate(i, seed=3, max_new_tokens=12) for i in ids]
    with pytest.raises(UserError, match="stream: got one with several prompts; it is for a single prompt"):
        model.generate(texts, stream=print)  # type: ignore[call-overload]


def test_the_docstring_has_the_settings_and_their_defaults() -> None:
    said = re.findall(r"^ {4}(\w+) +(\S+) ", str(inspect.getdoc(LanguageModel.generate)), re.MULTILINE)
    assert dict(said) == {name: repr(value) for name, value in DEFAULTS.items()}
    assert set(DEFAULTS) == set(Options.__annotations__)


def test_a_setting_that_does_not_exist_is_refused(model: LanguageModel) -> None:
    for prompt in ("x", ["x", "y"]):
        with pytest.raises(TypeError, match=r"generate\(\) got an unexpected keyword argument 'temprature'"):
            model.generate(prompt, temprature=1.0)  # type: ignore[call-overload]


# --- stop strings and streaming -------------------------------------------------------------------


def test_a_stop_string_across_tokens_is_cut_off() -> None:
    streamed: list[str] = []
    result = generate(scripted("one\n\ndef two"), "p", temperature=0, stop=["\n\ndef"], stream=streamed.append)
    assert result.text == "one" and "".join(streamed) == "one"
    assert result.ended == "stop" and result.ids == list(b"one") and result.new_tokens == len("one\n\ndef")


def test_what_only_looked_like_a_stop_string_is_let_out() -> None:
    streamed: list[str] = []
    text = "a\n\nde\n\n"
    result = generate(
        scripted(text), "p", temperature=0, stop="\n\ndef", stream=streamed.append, max_new_tokens=len(text)
    )
    assert result.text == text == "".join(streamed)
    assert result.ended == "length"


def test_several_stop_strings_the_first_complete_one_counts() -> None:
    assert generate(scripted("xxabcyy"), "p", temperature=0, stop=["yy", "bc", "abcy"]).text == "xxa"


def test_a_stop_string_of_wide_characters() -> None:
    result = generate(scripted("é中文!"), "p", temperature=0, stop="文")
    assert result.text == "é中" and bytes(result.ids).decode() == "é中"


def test_the_streaming_never_splits_a_character_nor_waits_for_the_next() -> None:
    text = "aé中😀b"
    streamed: list[str] = []
    result = generate(scripted(text), "p", temperature=0, stream=streamed.append)
    assert streamed == list(text) and result.text == text


def test_a_text_that_ends_inside_a_character_leaves_the_half_out() -> None:
    streamed: list[str] = []
    result = generate(scripted("a😀"), "p", temperature=0, max_new_tokens=3, stream=streamed.append)
    assert result.text == "a" == "".join(streamed)


def test_bytes_that_are_no_character_are_replaced() -> None:
    result = generate(scripted(b"a\xffb\xe4c"), "p", temperature=0)
    assert result.text == "a\ufffdb\ufffdc"


def test_the_stop_filter_does_not_depend_on_how_the_text_was_cut() -> None:
    text, stops = "the cat sat on the mat", ["at on", "mat", "cat sat o"]
    expected = "the "
    for size in range(1, len(text) + 1):
        pieces = [text[i : i + size] for i in range(0, len(text), size)]
        stop_filter, out = StopFilter(stops), ""
        for piece in pieces:
            out += stop_filter.push(piece)
            assert expected.startswith(out)
        assert out + stop_filter.flush() == expected and stop_filter.stopped


# --- command line ---------------------------------------------------------------------------------


def test_the_command_prints_prompt_and_text_to_stdout_and_speed_to_stderr() -> None:
    settings = ["generate", "miniwin-tiny", "-p", "def main(", "--max-new-tokens", "12", "--seed", "0"]
    code, out, err = run_cli(*settings)
    assert code == 0 and out.startswith("def main(") and out.endswith("\n")
    assert "tokens/s" in err and "after a prompt of 9" in err
    assert run_cli(*settings, "--no-stream")[1] == out


def test_the_command_refuses_with_one_line() -> None:
    code, out, err = run_cli("generate", "miniwin-tiny", "-p", "x", "--seed", "9" * 30)
    assert code == 2 and out == "" and err.startswith("error: seed: expected a whole number from -2**63")
    code, out, err = run_cli("generate", "miniwin-tiny", "-p", "x", "--top-p", "0")
    assert code == 2 and out == ""
    assert err == "error: top_p: expected more than 0 and at most 1 (off), got 0.0\n"
