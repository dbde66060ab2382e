"""Suites in YAML: lengths in tokens and in multiples, tasks of the registry, and what is refused, with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from miniwin.specs import SuiteSpec, UserError, load_spec, parse_spec
from miniwin.specs.lengths import in_tokens

HEAD = "kind: suite\nformat: 1\nname: mine\n"


def load(tmp_path: Path, text: str) -> SuiteSpec:
    path = tmp_path / "mine.yaml"
    path.write_text(HEAD + text)
    spec = load_spec(path, "suite")
    assert isinstance(spec, SuiteSpec)
    return spec


def test_lengths_are_tokens_or_multiples(tmp_path: Path) -> None:
    spec = load(tmp_path, "lengths: [256, 1e3, 1x, 16x]\ncache: {}\n")
    assert spec.lengths == [256, 1000, "1x", "16x"]
    assert [in_tokens(length, 128) for length in spec.lengths] == [256, 1000, 128, 2048]
    assert parse_spec(spec.model_dump(mode="json"), "suite") == spec


def test_a_multiple_needs_the_training_length() -> None:
    with pytest.raises(UserError, match="16x is a multiple of the training length, and that is not known"):
        in_tokens("16x", None)
    with pytest.raises(UserError, match="999999x of a training length of 4,096 is more than"):
        in_tokens("999999x", 4096)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("0", "got 0; expected a number of tokens from 1 to 2147483647, or a multiple of the training length"),
        ("true", "got True; expected a number"),
        ("1.5", "got 1.5; expected a number"),
        ("4k", "got '4k'; .*: write it in digits, such as 4096"),
        ("'512'", "got '512'; .*: remove the quotes"),
        ("x16", "got 'x16'; .* such as 16x"),
        ("0x", "got '0x'"),
    ],
)
def test_other_lengths_are_refused_at_their_place(tmp_path: Path, written: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load(tmp_path, f"lengths: [1x, {written}]\ncache: {{}}\n")
    assert str(caught.value).startswith(f"{tmp_path / 'mine.yaml'}:4:15: lengths.1: got ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "lengths: [1x]\ntasks:\n  - task: {type: recal}\n",
            ":6:18: tasks.0.task.type: unknown type 'recal'; did you mean 'recall'?",
        ),
        (
            "lengths: [1x]\ntasks:\n  - task: {type: recall, pairs: 3}\n",
            ":6:26: tasks.0.task.pairs: unknown field 'pairs'; did you mean 'num_pairs'?",
        ),
        (
            "lengths: [1x]\ntasks:\n  - task: {type: recall}\n  - task: {type: recall, num_pairs: 4}\n",
            ":7:5: tasks.1: the name 'recall' is taken by tasks.0; give a `name`",
        ),
        (
            "lengths: [1x]\ntasks:\n  - task: {type: recall}\n  - {name: recall-nats, task: {type: copy}}\n",
            ":7:5: tasks.1: the name 'recall-nats' is taken by tasks.0; give a `name`",
        ),
        (
            "lengths: [1x]\ntasks:\n  - {name: recall-nats, task: {type: copy}}\n  - task: {type: recall}\n",
            ":7:5: tasks.1: the name 'recall-nats' is taken by tasks.0; give a `name`",
        ),
        (
            "lengths: [4096]\ntasks:\n  - {task: {type: recall}, lengths: [512, 50], form: bytes}\n",
            ":6:43: tasks.0.lengths.1: task recall: an example takes at least 100 bytes, and length is 50",
        ),
        ("lengths: [1x]\n", ":1:1: the whole file: nothing would be measured; expected at least one of tasks, loss"),
        ("lengths: []\ncache: {}\n", ":4:10: lengths: got []; expected 1 or more"),
        ("lengths: [1x]\nspeed: {repeats: 5}\n", ":5:18: speed.repeats: got 5; expected at least 6"),
        ("lengths: [1x]\nloss: {split: train}\n", ":5:15: loss.split: got 'train'; expected 'valid', 'test' or 'all'"),
    ],
)
def test_what_is_wrong_is_said_at_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load(tmp_path, text)
    assert f"{tmp_path / 'mine.yaml'}{message}" in str(caught.value)


def test_a_task_with_a_name_is_told_apart(tmp_path: Path) -> None:
    spec = load(
        tmp_path,
        "lengths: [1x]\ntasks:\n  - task: {type: recall}\n  - {name: few, task: {type: recall, num_pairs: 4}}\n",
    )
    assert [one.measure for one in spec.tasks] == ["recall", "few"]
