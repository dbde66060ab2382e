"""The splits of text: train and valid are where they have always been, and test is taken from train or named apart."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError
from tiny import run_cli
from tiny_runs import MIXTURE, tiny_model, tiny_train, write_text

from miniwin.data import Corpus, prepare
from miniwin.data.sources import side_of
from miniwin.evaluation import evaluate
from miniwin.evaluation.streamed_loss import position_losses
from miniwin.loading import load
from miniwin.runs import read_run
from miniwin.specs import UserError, load_train_spec, shipped_specs
from miniwin.specs.data import DataSpec
from miniwin.tokenizer import ByteTokenizer
from miniwin.training.launch import train

BYTE = ByteTokenizer()
ADAPTER: TypeAdapter[Any] = TypeAdapter(DataSpec)
SPECS: dict[str, dict[str, Any]] = {
    "stdlib": {"source": "python-stdlib"},
    "text-file": {"source": "text", "paths": ["lib"]},
    "text-tail": {"source": "text", "paths": ["books"]},
    "text-valid": {"source": "text", "paths": ["books"], "valid_paths": ["v.txt"]},
    "jsonl": {"source": "jsonl", "paths": ["a.jsonl"]},
    "tasks": {"source": "tasks", "task": "associative-recall", "tokens": 20000},
}
# Of version 0.1.0, from before there was a test split: the fingerprint, and hashes of the ids of train and valid.
BEFORE = {
    "stdlib": (
        "23b534509a530209e4feee2d2cb44ae98e66ad9420bc36f3f250fdfacc399807",
        "649e8ccaf753e473",
        "8966dff2202831ea",
    ),
    "text-file": (
        "ce563a98a286d331eb80dc0a27fd14601450ebc8c4761dcf7a7c2890c1748baf",
        "6c4014206c383c64",
        "8966dff2202831ea",
    ),
    "text-tail": (
        "19a757ebc8b59b002c23b7336f689d07db6762ad6874f8b2899066312f8ed550",
        "89e0f6a3ca954013",
        "a79918757480ff90",
    ),
    "text-valid": (
        "e914a6aa3b1b6585643362e66e3939389157633033f0326578d0681349d72f75",
        "1ac5646e1b5430e2",
        "176aec84c3a66246",
    ),
    "jsonl": (
        "5d616cfe85521401cdd311a8a169a1dc7fe2cc3a4e4b6e27b4829243539d26bd",
        "f004f31082105024",
        "c2c4d87c52276463",
    ),
    "tasks": (
        "f025ba394ff01742507b954692ff8431a5ca62aace9dcca3a17297e3c4f7688d",
        "95626c74c21f1641",
        "48d2633354e952b3",
    ),
}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text of three kinds. `lib` is the standard library."""
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for number in range(40):
        path = Path(f"lib/pkg{number % 4}/m{number}.py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"def f{number}(x):\n    return x + {number}\n" * (number + 3))
    Path("lib/test").mkdir()
    Path("lib/test/t.py").write_text("left out\n")
    Path("books").mkdir()
    for number in range(3):
        Path(f"books/b{number}.txt").write_text(f"line {number} of a book.\n" * 50 * (number + 1))
    Path("v.txt").write_text("held out\n" * 30)
    Path("a.jsonl").write_text("".join(json.dumps({"text": f"story {n} is here"}) + "\n" for n in range(200)))
    monkeypatch.setattr("miniwin.data.sources.sysconfig.get_path", lambda _: str(tmp_path / "lib"))


def corpus(name: str, **changes: Any) -> Corpus:
    return prepare(ADAPTER.validate_python({**SPECS[name], **changes}), BYTE)


def digest(ids: np.ndarray) -> str:
    return hashlib.sha256(np.asarray(ids).tobytes()).hexdigest()[:16]


def documents(ids: np.ndarray | None) -> list[bytes]:
    assert ids is not None
    return bytes(ids.tolist()).split(b"\0")[:-1]


@pytest.mark.parametrize("name", SPECS)
def test_train_and_valid_are_where_they_were(name: str) -> None:
    found = corpus(name)
    assert (found.fingerprint, digest(found.train), digest(found.valid)) == BEFORE[name]
    assert found.test is None and "test_documents" not in found.info


def test_older_specs_are_written_as_before() -> None:
    """The name of a prepared corpus, and the hashes of runs and trials, are of what is written."""
    for data in SPECS.values():
        written = ADAPTER.validate_python(data).model_dump(mode="json")
        assert not {name for name in written if name.startswith("test_")}
    for name, path in shipped_specs("train").items():
        if name in ("demo", "order-tasks", "tiny-test"):  # newer than these fields
            continue
        spec = load_train_spec(path).model_dump(mode="json")
        assert isinstance(spec["seq_len"], int) and not {"seq_len_weights", "eval"} & set(spec)
        assert set(spec["data"]) == {"source", "valid_fraction"}, "of the standard library"


@pytest.mark.parametrize("name", ["stdlib", "text-file", "jsonl"])
def test_a_fraction_is_taken_out_of_train_and_valid_stays(name: str) -> None:
    before, after = corpus(name), corpus(name, test_fraction=0.3)
    assert digest(after.valid) == digest(before.valid) and after.fingerprint != before.fingerprint
    kept, test = documents(after.train), documents(after.test)
    assert len(test) > 3 and sorted([*kept, *test]) == sorted(documents(before.train))
    assert not set(test) & {*kept, *documents(after.valid)}
    assert after.info["test_documents"] == len(test) and after.info["tokens"] == before.info["tokens"]
    again = corpus(name, test_fraction=0.3)
    assert digest(again.texts_of("test")[0].ids) == digest(after.texts_of("test")[0].ids)


@pytest.mark.parametrize("name", ["stdlib", "text-file"])
def test_a_copy_of_what_is_trained_on_is_no_test(name: str) -> None:
    without = corpus(name, test_fraction=0.3)
    text = "x = 1\n"
    names = [f"copy{number}.py" for number in range(30)]
    sides = [side_of(one, 0.1, 0.3) for one in names]
    assert {"train", "valid", "test"} == set(sides)
    for one in names:
        Path("lib", one).write_text(text)
    before, after = corpus(name), corpus(name, test_fraction=0.3)
    assert digest(after.valid) == digest(before.valid)
    train = documents(after.train)
    assert train.count(text.encode()) == sides.count("train"), "train is not touched"
    assert documents(after.test) == documents(without.test)
    assert after.info["test_copies_left_out"] == sides.count("test")
    assert after.info["test_documents"] == len(documents(after.test)) and "test_copies_left_out" not in without.info


def test_texts_that_only_the_test_has_twice_stay() -> None:
    Path("t.jsonl").write_text('{"text": "other"}\n{"text": "story 3 is here"}\n{"text": "other"}\n')
    found = corpus("jsonl", test_paths=["t.jsonl"])
    assert documents(found.test) == [b"other", b"other"] and found.info["test_copies_left_out"] == 1
    Path("t.jsonl").write_text('{"text": "story 3 is here"}\n{"text": "story 4 is here"}\n')
    with pytest.raises(
        UserError, match=r"no text for the test: 2 documents kept back, all with text of train or valid; exp"
    ):
        corpus("jsonl", test_paths=["t.jsonl"])


def test_the_fingerprint_is_of_the_split_with_its_copies() -> None:
    """Runs with a test split, from before copies were left out, go on."""
    Path("t.jsonl").write_text('{"text": "other"}\n{"text": "story 3 is here"}\n')
    assert (
        corpus("jsonl", test_paths=["t.jsonl"]).fingerprint
        == "c6287cac6e43a0f487f97d05ee49ece951177ae9425cda0aa37a84e06d5df8f2"
    )


def test_shares_are_of_all_names() -> None:
    sides = [side_of(f"module_{number}.py", 0.1, 0.3) for number in range(5000)]
    assert [sides.count(side) / 5000 for side in ("valid", "test")] == pytest.approx([0.1, 0.3], abs=0.02)
    alone = [side_of(f"module_{number}.py", 0.1) for number in range(5000)]
    assert [side == "valid" for side in sides] == [side == "valid" for side in alone]


def test_of_every_file_the_part_before_valid_is_the_test() -> None:
    before, after = corpus("text-tail"), corpus("text-tail", test_fraction=0.2)
    assert digest(after.valid) == digest(before.valid)
    splits = zip(documents(before.train), documents(after.train), documents(after.test), strict=True)
    for whole, begin, end in splits:
        assert whole == begin + end and len(end) == pytest.approx(0.2 / 0.9 * len(whole), abs=2)


def test_examples_of_the_old_tasks_are_others_in_the_test() -> None:
    before, after = corpus("tasks"), corpus("tasks", test_fraction=0.2)
    assert digest(after.train) == digest(before.train) and digest(after.valid) == digest(before.valid)
    test = documents(after.test)
    assert len(test) == 16 and not set(test) & {*documents(after.train), *documents(after.valid)}


@pytest.mark.parametrize("name", ["text-tail", "text-valid"])
def test_paths_of_their_own(name: str) -> None:
    Path("t.txt").write_text("for the very end\n" * 20)
    before, after = corpus(name), corpus(name, test_paths=["t.txt"])
    assert digest(after.train) == digest(before.train) and digest(after.valid) == digest(before.valid)
    assert documents(after.test) == [b"for the very end\n" * 20]
    Path("t.jsonl").write_text('{"text": "other"}\n')
    assert documents(corpus("jsonl", test_paths=["t.jsonl"]).test) == [b"other"]


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "text-tail",
            {"test_fraction": 0.1, "test_paths": ["v.txt"]},
            "got both test_fraction .* and test_paths",
        ),
        ("text-valid", {"test_fraction": 0.1}, r"got both test_fraction \(0\.1\) and valid_paths"),
        ("stdlib", {"test_fraction": 0.95}, r"valid_fraction \(0\.1\) and test_fraction \(0\.95\) leave nothing"),
        ("text-file", {"test_fraction": 0.9}, "leave nothing to train on; expected less than 1 of both together"),
        ("stdlib", {"test_fraction": 0}, "greater than 0"),
    ],
)
def test_test_splits_that_make_no_sense(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ADAPTER.validate_python({**SPECS[name], **changes})


def test_text_is_on_one_side_only() -> None:
    with pytest.raises(UserError, match=r"b0\.txt is named by both paths and test_paths; text that is trained on"):
        corpus("text-tail", test_paths=["books/b0.txt"])
    with pytest.raises(UserError, match=r"v\.txt is named by both valid_paths and test_paths"):
        corpus("text-valid", test_paths=["v.txt"])
    with pytest.raises(UserError, match=r"data\.test_paths: no such file or folder: 'gone'"):
        corpus("text-valid", test_paths=["gone"])
    with pytest.raises(UserError, match=r"no text on the test side of 41 files; expected some on all three: give more"):
        corpus("text-file", split="file", test_fraction=1e-9)


def test_an_evaluation_on_the_test_split_is_asked_for(tmp_path: Path) -> None:
    write_text(tmp_path)
    options: dict[str, Any] = {"tracking": "off", "device": "cpu", "progress": False}
    measured: dict[str, Any] = {"lengths": [32], "tokens_per_length": 320, "recall": False, "speed": False}
    train(tiny_model(), tiny_train(tokens=256), out="without", **options)
    with pytest.raises(UserError, match="data: text has no test split; set test_fraction or test_paths in the data of"):
        evaluate("without", split="test", **measured)
    with pytest.raises(UserError, match="split: got 'train'; expected valid or test"):
        evaluate("without", split="train", **measured)
    data = {"source": "text", "paths": ["text.txt"], "test_fraction": 0.2}
    train(tiny_model(), tiny_train(tokens=256, data=data), out="with", **options)
    model, found = load("with"), prepare(tiny_train(data=data).data, BYTE)
    assert found.test is not None and read_run("with")["data"]["test_tokens"] == len(found.test)
    metrics = evaluate(model, split="test", **measured)
    assert metrics.loss[32] == pytest.approx(position_losses(model, found.test, 32, 320).nats_per_byte)
    assert metrics.data["measured_on"] == "test"
    line = ["eval", "with", "--lengths", "32", "--tokens", "320", "--no-recall", "--no-speed"]
    assert "320 test tokens of text" in run_cli(*line, "--split", "test")[1]
    assert "320 validation tokens of text" in run_cli(*line)[1]


def test_every_text_of_a_mixture_needs_a_test_split(tmp_path: Path) -> None:
    write_text(tmp_path)
    parts = [{**part, "data": dict(part["data"])} for part in MIXTURE["data"]["parts"]]
    without = prepare(tiny_train(data={"source": "mixture", "parts": parts}).data, BYTE)
    with pytest.raises(UserError, match=r"data\.parts\.0: text has no test split"):
        without.texts_of("test")
    parts[0]["data"]["test_fraction"] = 0.1
    found = prepare(tiny_train(data={"source": "mixture", "parts": parts}).data, BYTE)
    (text,) = found.texts_of("test")
    assert text.weight == 1.0 and np.array_equal(text.ids, found.parts[0][2].test)  # type: ignore[arg-type]


BOOKS = {"source": "text", "paths": ["books"]}


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"source": "text", "paths": ["v.txt"], "test_paths": ["books/b0.txt"]}, "b0.txt is test here, and "),
        ({"source": "text", "paths": ["v.txt"], "valid_paths": ["books/b1.txt"]}, "b1.txt is valid here, and "),
        ({**BOOKS, "split": "tail", "valid_fraction": 0.3}, "is split at its tail .valid_fraction 0.3, "),
    ],
)
def test_text_of_one_part_is_not_held_out_in_another(other: dict[str, Any], message: str) -> None:
    parts = [
        {"weight": 1, "name": name, "data": data} for name, data in (("a", {**BOOKS, "split": "tail"}), ("b", other))
    ]
    spec = ADAPTER.validate_python({"source": "mixture", "parts": parts})
    with pytest.raises(UserError, match=rf"^data\.parts\.1: .*{message}.*in data\.parts\.0; .*split it alike"):
        prepare(spec, BYTE)
    write_text(Path())
    Path("train.yaml").write_text(
        json.dumps(
            {
                "kind": "train",
                "format": 1,
                "name": "t",
                "tokens": 100,
                "seq_len": 8,
                "data": {"source": "mixture", "parts": parts},
            }
        )
    )
    code, _, err = run_cli("check", "train.yaml")
    assert code == 2 and "train.yaml:1:" in err and "data.parts.1: " in err


def test_a_hard_link_is_the_same_text() -> None:
    Path("linked.txt").hardlink_to("books/b1.txt")
    parts = [
        {"weight": 1, "name": "a", "data": {**BOOKS, "split": "tail"}},
        {"weight": 1, "name": "b", "data": {"source": "text", "paths": ["v.txt"], "valid_paths": ["linked.txt"]}},
    ]
    with pytest.raises(UserError, match=r"^data\.parts\.1: .*linked\.txt is valid here, and .*in data\.parts\.0; "):
        prepare(ADAPTER.validate_python({"source": "mixture", "parts": parts}), BYTE)
    with pytest.raises(UserError, match=r"linked\.txt is named by both paths and valid_paths"):
        corpus("text-tail", valid_paths=["linked.txt"])


def test_empty_files_may_be_one() -> None:
    Path("empty.txt").touch()
    Path("none.txt").hardlink_to("empty.txt")
    given = {"source": "text", "paths": ["v.txt", "empty.txt"], "valid_paths": ["books", "none.txt"]}
    assert prepare(ADAPTER.validate_python(given), BYTE)


def test_a_system_may_store_equal_files_of_the_library_once() -> None:
    for number in range(40):
        Path(f"lib/pkg1/same{number}.py").hardlink_to("lib/pkg0/m0.py")
    parts = [{"weight": 1, "name": name, "data": SPECS[name]} for name in ("stdlib", "text-valid")]
    assert prepare(ADAPTER.validate_python({"source": "mixture", "parts": parts}), BYTE)


def test_parts_may_share_text_that_they_split_alike() -> None:
    more = {**BOOKS, "paths": ["books", "v.txt"], "split": "tail"}
    parts = [
        {"weight": 1, "name": name, "data": data} for name, data in (("a", {**BOOKS, "split": "tail"}), ("b", more))
    ]
    found = prepare(ADAPTER.validate_python({"source": "mixture", "parts": parts}), BYTE)
    assert [name for name, _, _ in found.parts] == ["a", "b"]
