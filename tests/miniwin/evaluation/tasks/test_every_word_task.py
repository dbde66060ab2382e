"""What holds for every task in words: an oracle is always right, a guesser as often as chance says, splits are
disjoint, and filler does not answer the question.
"""

from __future__ import annotations

import re
from random import Random

import pytest
from paths import ROOT
from word_answers import WORD_ANSWERS
from word_tokenizers import model, tokenizer

from miniwin.evaluation.tasks import SPLITS, TASKS
from miniwin.evaluation.tasks.ruler.variables import VariableTracking
from miniwin.evaluation.tasks.words import WordTask, draw_passage, lists, prose
from miniwin.evaluation.words import ask
from miniwin.specs.loading import load_spec

DEFAULTS = {name: TASKS[name]() for name in TASKS.names() if issubclass(TASKS[name], WordTask)}
EVERY = [pytest.param(task, id=name) for name, task in DEFAULTS.items()]
SUITES = [load_spec(ROOT / "specs" / "suites" / f"{name}.yaml") for name in ("ruler", "babilong")]
MORE = [
    pytest.param(one.task, id=f"{suite.name}-{one.measure}")
    for suite in SUITES
    for one in suite.tasks
    if one.task not in DEFAULTS.values()
]
MORE.append(pytest.param(VariableTracking(num_chains=3, num_hops=2), id="ruler-vt-3"))


def test_every_word_task_has_an_oracle_and_a_guesser() -> None:
    assert sorted(WORD_ANSWERS) == sorted(DEFAULTS)


@pytest.mark.parametrize("kind", ["byte", "bpe with <bos>"])
@pytest.mark.parametrize("task", EVERY + MORE)
def test_an_oracle_answers_everything(task: WordTask, kind: str) -> None:
    chosen = model(kind)
    for length in (6000, 9001) if kind == "byte" else (5000,):
        for one in ask(chosen, task, length, examples=3, seed=1, split="test"):
            assert one.text.endswith(one.passage.answer) and len(one.ids) <= length
            assert WORD_ANSWERS[task.type].oracle(one.text.removesuffix(one.passage.answer)) == one.passage.answers
            for (start, end), answer in zip(one.spans, one.passage.answers, strict=True):
                assert tokenizer(kind).decode(one.ids[start:end]) == f" {answer}"


@pytest.mark.parametrize("task", EVERY)
def test_a_guesser_is_right_as_often_as_chance_says(task: WordTask) -> None:
    random, right, asked, index = Random(0), 0, 0, 0
    while asked < 3000:
        passage = draw_passage(task, seed=2, index=index, split="train")
        index += 1
        for number, answer in enumerate(passage.answers):
            text = passage.asked(passage.bare) + passage.lead + "".join(f" {one}," for one in passage.answers[:number])
            right += WORD_ANSWERS[task.type].guess(random, text) == answer
            asked += 1
    chance = task.words_chance
    # Four standard errors: the draws are seeded, so this passes or fails for good.
    assert abs(right / asked - chance) <= 4 * (chance * (1 - chance) / asked) ** 0.5


@pytest.mark.parametrize("task", EVERY)
def test_no_passage_is_in_two_splits(task: WordTask) -> None:
    found = {
        split: {draw_passage(task, seed=seed, index=index, split=split).key for seed in range(3) for index in range(30)}
        for split in SPLITS
    }
    assert all(len(keys) > 1 for keys in found.values())
    for one, other in [("train", "valid"), ("train", "test"), ("valid", "test")]:
        assert not found[one] & found[other]


@pytest.mark.parametrize("task", EVERY)
def test_passages_are_a_function_of_seed_index_and_split(task: WordTask) -> None:
    def key(seed: int, index: int) -> bytes:
        return draw_passage(task, seed=seed, index=index, split="train").key

    assert key(1, 2) == key(1, 2)
    assert len({key(seed, index) for seed in range(3) for index in range(3)}) > 4


def test_to_know_the_candidates_of_babilong_4_is_to_be_right_half_of_the_time() -> None:
    """As its docstring says: two rooms are named besides the one in the question."""
    for index in range(50):
        passage = draw_passage(DEFAULTS["babilong-qa4"], seed=0, index=index, split="train")
        rooms = {room for room in lists.ROOMS if room in passage.bare}
        assert len(rooms - {room for room in rooms if room in passage.question}) == 2


def test_no_word_of_the_filler_is_in_a_fact() -> None:
    filler = set(re.findall(r"\w+", " ".join((*prose.FRAMES, *prose.WORDS.values())).lower()))
    words = {name: value for name, value in vars(lists).items() if name.isupper() and isinstance(value, tuple)}
    assert len(words) >= 8
    for name, values in words.items():
        assert len(set(values)) == len(values), name
        assert not {value.lower() for value in values} & filler, name
