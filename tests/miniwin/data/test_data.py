"""Data: sources and their split, the corpus cache, deterministic batches, and errors by their text."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from search_helpers import write_search
from tiny import run_cli
from tiny_runs import tiny_train

from miniwin.data import Corpus, batch_at, corpus_files, loader, prepare, windows_per_epoch
from miniwin.data.batches import TextRows, _Steps
from miniwin.data.passes import Passes
from miniwin.data.sources import list_source, side_of
from miniwin.specs import UserError
from miniwin.specs.data import DataSpec, JsonlData, PythonStdlibData, TaskData, TextData
from miniwin.tokenizer import ByteTokenizer, HFTokenizer

BYTE = ByteTokenizer()
ADAPTER: TypeAdapter[Any] = TypeAdapter(DataSpec)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return folder


def documents(ids: np.ndarray) -> list[str]:
    parts = bytes(ids.tolist()).decode("utf-8").split("\0")
    assert parts.pop() == "", "every document is followed by a separator"
    return parts


def ramp(length: int) -> np.ndarray:
    return np.arange(length, dtype=np.uint16)


# --- specs


def test_specs_from_yaml_and_back() -> None:
    for data in (
        {"source": "python-stdlib"},
        {"source": "text", "paths": ["a.txt", "folder"], "split": "tail", "valid_fraction": 0.25},
        {"source": "text", "paths": ["a.txt"], "valid_paths": ["b.txt"]},
        {"source": "jsonl", "paths": ["a.jsonl"], "field": "body"},
        {"source": "tasks", "task": "associative-recall", "tokens": 4e6},
    ):
        spec = ADAPTER.validate_python(data)
        assert ADAPTER.validate_python(spec.model_dump(mode="json")) == spec
        assert hash(spec) == hash(ADAPTER.validate_python(data))
    assert spec.tokens == 4_000_000
    assert TextData(paths=("a",)).share == 0.1 and TextData(paths=("a",), valid_paths=("b",)).share == 0.0


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"source": "text", "paths": []}, "got an empty list; expected at least one path"),
        ({"source": "text", "paths": "a.txt"}, "valid tuple"),
        ({"source": "text", "paths": ["a"], "valid_fraction": 1.0}, "less than 1"),
        (
            {"source": "text", "paths": ["a"], "valid_paths": ["b"], "valid_fraction": 0.1},
            "got both valid_fraction",
        ),
        ({"source": "text", "paths": ["a"], "valid_paths": ["b"], "split": "file"}, "got both split"),
        ({"source": "web"}, "'python-stdlib', 'text', 'jsonl', 'tasks'"),
        ({"source": "tasks"}, "Field required"),
        ({"source": "python-stdlib", "paths": ["a"]}, "Extra inputs are not permitted"),
    ],
)
def test_broken_specs(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ADAPTER.validate_python(data)


# --- python-stdlib


def test_the_standard_library_of_this_machine() -> None:
    corpus = prepare(PythonStdlibData(), BYTE)
    assert corpus.train.dtype == corpus.valid.dtype == np.uint16
    assert isinstance(corpus.train, np.memmap)
    train, valid = documents(corpus.train), documents(corpus.valid)
    assert len(train) > 300 and len(valid) > 20
    assert not set(train) & {one for one in valid if len(one) > 1000}
    assert any("class JSONDecoder" in one for one in train + valid)
    facts = corpus.describe()
    assert facts["source"] == "python-stdlib" and facts["fingerprint"] == corpus.fingerprint
    assert facts["tokens"] == len(corpus.train) + len(corpus.valid)
    assert facts["bytes"] + facts["train_documents"] + facts["valid_documents"] == facts["tokens"]
    assert json.loads(json.dumps(facts)) == facts


def test_the_standard_library_leaves_out_what_is_not_of_it() -> None:
    files = list_source(PythonStdlibData()).files
    names = [file.name for file in files]
    assert names == sorted(names) and len(set(names)) == len(names)
    assert {"argparse.py", "json/decoder.py", "asyncio/base_events.py"} <= set(names)
    assert all(name.endswith(".py") for name in names)
    for left_out in ("test", "tests", "idlelib", "site-packages", "dist-packages", "__pycache__"):
        assert not [name for name in names if left_out in name.split("/")[:-1]]
    assert not [name for name in names if name.startswith(("_sysconfigdata", "sitecustomize"))]


def test_the_split_does_not_depend_on_what_else_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"module_{number}.py" for number in range(200)]
    sides: list[dict[str, str]] = []
    for place, some in (("here", names), ("there", names[::2])):
        root = write(tmp_path / place, {name: f"# {name}\n" for name in some})
        write(root, {"test/test_it.py": "x", "site-packages/other.py": "x", "notes.txt": "x"})
        monkeypatch.setattr("sysconfig.get_path", lambda _, root=root: str(root))
        sides.append({file.name: file.side for file in list_source(PythonStdlibData()).files})
    assert set(sides[0]) == set(names) and set(sides[1]) == set(names[::2])
    assert all(sides[0][name] == side for name, side in sides[1].items())
    assert 10 <= list(sides[0].values()).count("valid") <= 30
    # Held fixed: another hash would silently train on what earlier models were validated on.
    held_out = [name for name in names[:40] if side_of(name, 0.1) == "valid"]
    assert held_out == ["module_3.py", "module_10.py", "module_19.py"]


def test_a_larger_fraction_keeps_what_was_valid() -> None:
    names = [f"{number}.py" for number in range(500)]
    small, large = ({name for name in names if side_of(name, share) == "valid"} for share in (0.1, 0.3))
    assert small < large
    assert 100 <= len(large) <= 200


def test_a_python_without_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path / "zipped"))
    with pytest.raises(UserError, match=r"source python-stdlib: no .py files in .*zipped; use source: text"):
        prepare(PythonStdlibData(), BYTE)


# --- text


def test_files_folders_and_globs_are_relative_to_the_base(tmp_path: Path) -> None:
    base = write(
        tmp_path / "odd[1] base",
        {
            "one.txt": "first",
            "folder/b.md": "second",
            "folder/deep/a.txt": "third",
            "folder/.hidden/c.txt": "no",
            "folder/picture.png": b"\x89PNG\0\0",
            "src/x.py": "fourth",
            "src/in/y.py": "fifth",
            "src/in/z.c": "no",
            "valid.txt": "sixth",
        },
    )
    paths = ("one.txt", "folder", "src/**/*.py", "src/x.py")
    spec = TextData(paths=paths, valid_paths=("valid.txt",))
    corpus = prepare(spec, BYTE, base=base)
    assert documents(corpus.train) == ["first", "second", "third", "fifth", "fourth"]
    assert documents(corpus.valid) == ["sixth"]
    assert corpus.describe()["left_out"] == 1 and corpus.describe()["files"] == 6


def test_a_train_spec_finds_its_files_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its paths, made independent of where its YAML file is: home, patterns, and folders that look like patterns."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    write(tmp_path / "home", {"mine.txt": "first"})
    base = write(tmp_path / "odd[1]", {"a/b.txt": "second", "a/c.txt": "third", "[x].txt": "fourth", "v.txt": "fifth"})
    spec = tiny_train(
        data={"source": "text", "paths": ["~/mine.txt", "a/*.txt", "[x].txt"], "valid_paths": ["v.txt"]},
        tokenizer="~/tokenizer.json",
    ).resolved(base)
    assert spec.tokenizer == str(tmp_path / "home" / "tokenizer.json")
    corpus = prepare(spec.data, BYTE)
    assert documents(corpus.train) == ["first", "second", "third", "fourth"]
    elsewhere = write(
        tmp_path / "plain", {"a/b.txt": "second", "a/c.txt": "third", "[x].txt": "fourth", "v.txt": "fifth"}
    )
    moved = spec.data.model_copy(update={"paths": ("~/mine.txt", "a/*.txt", "[x].txt"), "valid_paths": ("v.txt",)})
    assert prepare(moved, BYTE, base=elsewhere).fingerprint == corpus.fingerprint


def test_one_file_is_split_by_its_tail(tmp_path: Path) -> None:
    text = "".join(f"line {number} é\n" for number in range(100))
    corpus = prepare(TextData(paths=("a.txt",), valid_fraction=0.2), BYTE, base=write(tmp_path, {"a.txt": text}))
    (train,), (valid,) = documents(corpus.train), documents(corpus.valid)
    assert train + valid == text
    assert len(valid) == round(len(text) * 0.2)
    assert corpus.describe()["split"] == "tail"


def test_many_files_are_split_by_file(tmp_path: Path) -> None:
    base = write(tmp_path, {f"texts/{number}.txt": f"text {number:03}" for number in range(150)})
    spec = TextData(paths=("texts",))
    corpus = prepare(spec, BYTE, base=base)
    assert corpus.describe()["split"] == "file"
    train, valid = set(documents(corpus.train)), set(documents(corpus.valid))
    assert len(train) + len(valid) == 150 and not train & valid and 5 <= len(valid) <= 30
    tail = prepare(TextData(paths=("texts",), split="tail"), BYTE, base=base)
    assert len(documents(tail.train)) == len(documents(tail.valid)) == 150
    assert tail.fingerprint != corpus.fingerprint


def test_a_split_by_file_that_leaves_a_side_empty(tmp_path: Path) -> None:
    base = write(tmp_path, {"a.txt": "hello"})
    with pytest.raises(UserError, match=r"puts all 1 files on the (train|valid) side; .*use split: tail"):
        prepare(TextData(paths=("a.txt",), split="file"), BYTE, base=base)


@pytest.mark.filterwarnings("ignore:.*read as U")
def test_text_is_utf8_with_bad_bytes_replaced_and_nul_removed(tmp_path: Path) -> None:
    base = write(tmp_path, {"a.txt": b"caf\xc3\xa9 \xff\0!", "b.txt": "valid"})
    corpus = prepare(TextData(paths=("a.txt",), valid_paths=("b.txt",)), BYTE, base=base)
    assert documents(corpus.train) == ["café \ufffd!"]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (PythonStdlibData(), "cd18e6568b82d66c871e8087869849e58f3c41f22062213e39459b1341d28899"),
        (
            TextData(paths=("t",), valid_paths=("v.txt",)),
            "57ee37f2ca9c4f29180fe53b5299fe030245da9f5542a7b05ee91ac104aa2080",
        ),
        (
            JsonlData(paths=("a.jsonl",), valid_paths=("v.jsonl",)),
            "d8105179992a41d7c410157b9a732003b8c6bf73232e619a75a62ccd7a9691d0",
        ),
        (
            TaskData(task="associative-recall", tokens=2000),
            "979cce8c9ce07c2ebcde4ccf709f33651f9b50a7da4f8bd6578ba64c54553b18",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:.*read as U")
def test_fingerprints_stay_what_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: DataSpec, expected: str
) -> None:
    """Of runs that exist: with others, the same command would no longer continue them."""
    files: dict[str, bytes | str] = {
        "lib/a.py": b"\xef\xbb\xbfprint('caf\xc3\xa9')\n",
        "lib/b.py": b"# caf\xe9\n" * 40,
        "lib/module_3.py": "valid = 1\n",
        "t/a.txt": "one é\n",
        "t/b.txt": b"two \xff\n",
        "v.txt": b"three\0\n",
        "a.jsonl": '{"text": "four"}\n\n{"text": "five \\ud800"}\n',
        "v.jsonl": '{"text": "six"}\n',
    }
    base = write(tmp_path, files)
    if isinstance(spec, PythonStdlibData):
        monkeypatch.setattr("sysconfig.get_path", lambda _: str(base / "lib"))
    assert prepare(spec, BYTE, base=base).fingerprint == expected


# --- encodings

RUSSIAN = "Съешь же ещё этих мягких французских булок.\n" * 40


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (
            RUSSIAN.encode("cp1251"),
            r"{base}/a.txt:1:1: byte 0xd1 is not UTF-8, .*the file is in another encoding, such",
        ),
        (
            ("plain line\n" * 3 + "café crème\n" * 20).encode("latin-1"),
            r"{base}/a.txt:4:4: byte 0xe9 is not UTF-8, and so are 39 other places \(\d+% of the text\): .*iconv",
        ),
        (
            "hello\n".encode("utf-16"),
            r"paths: {base}/a.txt:1:1: this is UTF-16. MiniWin reads UTF-8: convert the ",
        ),
        (RUSSIAN.encode("utf-16-le"), r"a.txt:1:1: this is UTF-16"),
        (RUSSIAN.encode("utf-16-be"), r"a.txt:1:1: this is UTF-16"),
        (b"h\0i\0", r"a.txt:1:1: this is UTF-16"),
        (RUSSIAN.encode("utf-32"), r"a.txt:1:1: this is UTF-32. .*iconv -f UTF-32 -t UTF-8"),
        (RUSSIAN.encode("gb18030"), r"is not UTF-8, .*another encoding"),
    ],
)
def test_text_in_another_encoding_is_refused(tmp_path: Path, raw: bytes, message: str) -> None:
    base = write(tmp_path / "base", {"a.txt": raw, "b.txt": "valid", "a.jsonl": raw})
    message = message.replace("{base}", str(base))
    with pytest.raises(UserError, match=message):
        prepare(TextData(paths=("a.txt",), valid_paths=("b.txt",)), BYTE, base=base)
    with pytest.raises(UserError, match=message):
        prepare(TextData(paths=("b.txt",), valid_paths=("a.txt",)), BYTE, base=base)
    with pytest.raises(UserError, match=r"a.jsonl:1(:1: this is UTF|: not JSON)"):
        prepare(JsonlData(paths=("a.jsonl",)), BYTE, base=base)
    assert not list((tmp_path / "cache").glob("data/*/corpus.json"))


def test_all_files_in_another_encoding_are_named_at_once(tmp_path: Path) -> None:
    """In a folder of many, nobody wants to find them one by one, each after minutes of reading."""
    raw = RUSSIAN.encode("cp1251")
    base = write(tmp_path, {"t/a.txt": "fine", "t/b.txt": raw, "t/c.txt": "fine", "t/d.txt": raw, "t/e.txt": raw})
    said = rf"t/b.txt:1:1: byte 0xd1 is not .*NEW. In another encoding, too: {base}/t/d.txt, {base}/t/e.txt$"
    with pytest.raises(UserError, match=said):
        prepare(TextData(paths=("t",), split="tail"), BYTE, base=base)


def test_json_lines_in_another_encoding_are_refused(tmp_path: Path) -> None:
    lines = "".join(json.dumps({"text": f"{number} {RUSSIAN[:40]}"}, ensure_ascii=False) + "\n" for number in range(9))
    base = write(tmp_path, {"a.jsonl": ('{"text": "plain"}\n' + lines).encode("cp1251")})
    with pytest.raises(UserError, match=r"a.jsonl:2:13: byte 0xd1 is not UTF-8, .*another encoding"):
        prepare(JsonlData(paths=("a.jsonl",)), BYTE, base=base)


def test_a_few_bytes_that_are_no_text_are_said_every_time(tmp_path: Path) -> None:
    base = write(tmp_path, {"a.txt": b"fine\nbad \xe9 and \xe8\n" + b"fine\n" * 50, "b.txt": "valid \ufffd"})
    spec = TextData(paths=("a.txt",), valid_paths=("b.txt",))
    for _ in range(2):  # the second time nothing is read
        with pytest.warns(UserWarning, match=r"2 places in the text data: not UTF-8, .*; first .*a.txt:2:5: byte 0xe9"):
            corpus = prepare(spec, BYTE, base=base)
    assert corpus.describe()["replaced"] == 2
    assert "replaced" not in prepare(TextData(paths=("b.txt",), split="tail"), BYTE, base=base).describe()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1251"])
@pytest.mark.parametrize("given", ["t", "t/*"])
def test_one_file_in_another_encoding_among_good_ones_is_refused(tmp_path: Path, encoding: str, given: str) -> None:
    """Whichever it is: a corpus without what was named is not the one that was asked for."""
    raw = RUSSIAN.encode(encoding)
    base = write(tmp_path, {"t/a.txt": "first", "t/b.txt": raw, "t/c.bin": b"\0\0", "t/d.txt": raw, "v.txt": "v"})
    said = rf"{base}/t/b.txt:1:1: .*iconv -f .*In another encoding, too: {base}/t/d.txt$"
    for spec in (
        TextData(paths=(given,), valid_paths=("v.txt",)),
        TextData(paths=("v.txt",), valid_paths=(given,)),
    ):
        with pytest.raises(UserError, match=said):
            prepare(spec, BYTE, base=base)
    assert not list((tmp_path / "cache").glob("data/*/corpus.json"))


def test_binary_files_that_look_like_utf16_are_left_out(tmp_path: Path) -> None:
    numbers = np.arange(3000, dtype="<u2")
    files = {"t/a.txt": "first", "t/b.raw": numbers.tobytes(), "t/c.raw": (numbers % 9).tobytes(), "v.txt": "v"}
    base = write(tmp_path, {**files, "t/d.raw": b"\xff\xfe" + bytes(range(256)) * 9})
    corpus = prepare(TextData(paths=("t",), valid_paths=("v.txt",)), BYTE, base=base)
    assert documents(corpus.train) == ["first"] and corpus.describe()["left_out"] == 3


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    files = {"a.txt": "first \ufeff", "b.txt": "valid", "a.jsonl": '{"text": "first"}\n{"text": "\ufeffsecond"}\n'}
    plain = write(tmp_path / "plain", files)
    marked = write(tmp_path / "marked", {name: text.encode("utf-8-sig") for name, text in files.items()})
    text = TextData(paths=("a.txt",), valid_paths=("b.txt",))
    lines = JsonlData(paths=("a.jsonl",))
    corpus = prepare(text, BYTE, base=marked)
    assert documents(corpus.train) == ["first \ufeff"] and documents(corpus.valid) == ["valid"]
    assert corpus.fingerprint == prepare(text, BYTE, base=plain).fingerprint
    both = [list(list_source(lines, base).documents()) for base in (plain, marked)]
    assert both[0] == both[1] and [document.text for document in both[0]] == ["first", "\ufeffsecond"]


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (
            ("gone.txt",),
            r"data.paths: no such file or folder: 'gone.txt' \(looked for {base}/gone.txt\); a path",
        ),
        (
            ("*.md",),
            r"data.paths: '\*.md' names no text files \(looked in {base}/\*.md\); expected at least one",
        ),
        (("empty",), r"data.paths: 'empty' names no text files \(looked in {base}/empty\)"),
        (("blank.txt",), r"no text on the train side of 1 files; expected some on both: give more text"),
        (
            ("a.txt",),
            r"no text on the valid side of 1 files; expected some on both: give more text, or name",
        ),
    ],
)
def test_text_that_is_not_there(tmp_path: Path, paths: tuple[str, ...], message: str) -> None:
    base = write(tmp_path / "base", {"a.txt": "x", "blank.txt": ""})
    (base / "empty").mkdir()
    with pytest.raises(UserError, match=message.replace("{base}", str(base))):
        prepare(TextData(paths=paths), BYTE, base=base)


def test_a_text_on_both_sides_is_refused(tmp_path: Path) -> None:
    base = write(tmp_path, {"texts/a.txt": "a", "texts/b.txt": "b"})
    with pytest.raises(UserError, match=r"texts/b.txt is named by both paths and valid_paths"):
        prepare(TextData(paths=("texts",), valid_paths=("texts/b.txt",)), BYTE, base=base)


# --- jsonl


def test_json_lines_are_split_by_their_text(tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"document {number % 90}", "n": number}) for number in range(100)]
    base = write(tmp_path, {"data/a.jsonl": "\n".join(lines[:50]) + "\n\n", "data/b.jsonl": "\n".join(lines[50:])})
    write(base, {"data/notes.txt": "not a line of JSON"})
    corpus = prepare(JsonlData(paths=("data",), valid_fraction=0.3), BYTE, base=base)
    train, valid = documents(corpus.train), documents(corpus.valid)
    assert len(train) + len(valid) == 100
    assert not set(train) & set(valid), "equal texts land on the same side"
    assert 10 <= len(valid) <= 50


def test_json_lines_of_another_field_and_valid_paths(tmp_path: Path) -> None:
    base = write(tmp_path, {"a.jsonl": '{"body": "x\\u0000y\\ud800"}\n', "v.jsonl": '{"body": "é"}'})
    corpus = prepare(JsonlData(paths=("a.jsonl",), valid_paths=("v.jsonl",), field="body"), BYTE, base=base)
    assert documents(corpus.train) == ["xy?"] and documents(corpus.valid) == ["é"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            '{"text": "x"',
            r"a.jsonl:3: not JSON \(Expecting ',' delimiter\); expected a JSON object with text in \"text\"",
        ),
        ('["x"]', r"a.jsonl:3: got a list; expected a JSON object"),
        ('{"body": "x"}', r"a.jsonl:3: got the fields 'body'; expected"),
        ('{"text": null}', r"a.jsonl:3: got null in 'text'; expected"),
        ('{"text": 7}', r"a.jsonl:3: got a number in 'text'; expected"),
        ("[" * 100_000, r"a.jsonl:3: not JSON \("),
        ('{"text": "x", "n": ' + "1" * 5000 + "}", r"a.jsonl:3: not JSON \(a number is too long\); expected"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    base = write(tmp_path, {"a.jsonl": f'{{"text": "fine"}}\n\n{line}\n'})
    with pytest.raises(UserError, match=message):
        prepare(JsonlData(paths=("a.jsonl",)), BYTE, base=base)


# --- tasks


def test_tasks_are_a_corpus_like_any_other() -> None:
    spec = TaskData(task="associative-recall", length=100, num_pairs=4, tokens=5000)
    corpus = prepare(spec, BYTE)
    train, valid = documents(corpus.train), documents(corpus.valid)
    assert {len(one) for one in train + valid} == {100}
    assert 5000 <= len(corpus.train) < 5000 + 101 and 500 <= len(corpus.valid) < 500 + 101
    assert not set(train) & set(valid)
    assert prepare(spec.model_copy(update={"seed": 1}), BYTE).fingerprint != corpus.fingerprint
    with pytest.raises(UserError, match="16 pairs and 16 queries take 160 bytes, and length is 100"):
        prepare(TaskData(task="associative-recall", length=100), BYTE)


# --- the corpus and its cache


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return write(tmp_path / "base", {"a.txt": "abc\n" * 200, "b.txt": "xyz\n" * 50})


SPEC = TextData(paths=("a.txt",), valid_paths=("b.txt",))


def entry(cache: Path) -> Path:
    (folder,) = [path for path in (cache / "data").iterdir() if path.is_dir()]
    return folder


def test_the_fingerprint_follows_the_content(texts: Path, tmp_path: Path, cache: Path) -> None:
    first = prepare(SPEC, BYTE, base=texts)
    moved = Path(shutil.copytree(texts, tmp_path / "moved"))
    os.utime(moved / "a.txt", (1, 1))
    assert prepare(SPEC, BYTE, base=moved).fingerprint == first.fingerprint
    swapped = TextData(paths=("b.txt",), valid_paths=("a.txt",))
    assert prepare(swapped, BYTE, base=texts).fingerprint != first.fingerprint
    write(texts, {"a.txt": "abd\n" * 200})
    os.utime(texts / "a.txt", (2, 2))
    assert prepare(SPEC, BYTE, base=texts).fingerprint != first.fingerprint


def test_the_fingerprint_does_not_run_documents_together(tmp_path: Path) -> None:
    prints = set()
    for place, contents in enumerate((("ab", "c"), ("a", "bc"))):
        base = write(tmp_path / str(place), {"1.txt": contents[0], "2.txt": contents[1], "v.txt": "v"})
        prints.add(prepare(TextData(paths=("1.txt", "2.txt"), valid_paths=("v.txt",)), BYTE, base=base).fingerprint)
    assert len(prints) == 2


def test_it_is_prepared_once(texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepare(SPEC, BYTE, base=texts)
    monkeypatch.setattr(corpus_files, "_make", lambda *_: pytest.fail("prepared again"))
    again = prepare(SPEC, BYTE, base=texts)
    assert again.fingerprint == first.fingerprint and again.describe() == first.describe()
    assert np.array_equal(again.train, first.train)


def truncate(folder: Path) -> None:
    path = folder / "train.npy"
    path.write_bytes(path.read_bytes()[:-10])


def flip(folder: Path) -> None:
    path = folder / "valid.npy"
    content = bytearray(path.read_bytes())
    content[-5] ^= 255
    path.write_bytes(content)
    os.utime(path, (7, 7))


def half_a_record(folder: Path) -> None:
    path = folder / "corpus.json"
    path.write_text(path.read_text()[:-40])


DAMAGE = {
    "truncated": truncate,
    "flipped": flip,
    "half a record": half_a_record,
    "no record": lambda folder: (folder / "corpus.json").unlink(),
    "an empty record": lambda folder: (folder / "corpus.json").write_text("{}"),
    "a list for a record": lambda folder: (folder / "corpus.json").write_text("[1]"),
    "no tokens": lambda folder: (folder / "train.npy").unlink(),
    "killed while writing": lambda folder: folder.rename(folder.with_name(f"{folder.name}.{os.getpid()}.tmp")),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_corpus_is_prepared_again(texts: Path, cache: Path, damage: str) -> None:
    want = np.array(prepare(SPEC, BYTE, base=texts).train)
    DAMAGE[damage](entry(cache))
    again = prepare(SPEC, BYTE, base=texts)
    assert np.array_equal(again.train, want)
    assert documents(again.valid) == ["xyz\n" * 50]
    assert sorted(path.name for path in entry(cache).iterdir()) == ["corpus.json", "train.npy", "valid.npy"]


def test_a_corpus_only_touched_or_copied_is_kept(texts: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(SPEC, BYTE, base=texts)
    os.utime(entry(cache) / "train.npy", (5, 5))
    monkeypatch.setattr(corpus_files, "_make", lambda *_: pytest.fail("prepared again"))
    prepare(SPEC, BYTE, base=texts)


def test_a_failure_leaves_nothing_behind(tmp_path: Path, cache: Path) -> None:
    base = write(tmp_path, {"a.jsonl": '{"text": "x"}\noops\n'})
    with pytest.raises(UserError, match=r"a\.jsonl:2"):
        prepare(JsonlData(paths=("a.jsonl",)), BYTE, base=base)
    assert [path.suffix for path in (cache / "data").iterdir()] == [".lock"]


def _prepare_and_report(base: Path, log: Path, barrier: Any) -> None:
    make = corpus_files._make

    def logged(*arguments: Any) -> None:
        with log.open("a") as file:
            file.write("made\n")
        make(*arguments)

    corpus_files._make = logged  # type: ignore[assignment]
    barrier.wait()
    corpus = prepare(SPEC, BYTE, base=base)
    with log.open("a") as file:
        file.write(f"{corpus.fingerprint} {int(corpus.train.sum())}\n")


def test_processes_at_once_prepare_it_once(texts: Path, tmp_path: Path) -> None:
    write(texts, {"a.txt": "some text to take a moment\n" * 40_000})
    log = tmp_path / "log"
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(3)
    processes = [context.Process(target=_prepare_and_report, args=(texts, log, barrier)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    lines = log.read_text().splitlines()
    assert lines.count("made") == 1 and lines[0] == "made"
    assert len(lines) == 4 and len(set(lines)) == 2


def test_a_cache_that_cannot_be_written(texts: Path, tmp_path: Path) -> None:
    write(tmp_path, {"file": "in the way"})
    with pytest.raises(
        UserError, match=r"cannot write the prepared data to .*file/data: .*; set MINIWIN_CACHE to a folder"
    ):
        prepare(SPEC, BYTE, base=texts, cache_dir=tmp_path / "file")


def test_the_width_of_ids_follows_the_vocabulary(texts: Path) -> None:
    class Wide(ByteTokenizer):
        identity, vocab_size = "wide", 65537

        def encode_batch(self, texts: Any) -> list[np.ndarray]:
            return [np.full(len(text), 65536) for text in texts]

    corpus = prepare(SPEC, Wide(), base=texts)
    assert corpus.train.dtype == np.uint32 and corpus.train.max() == 65536


def test_another_tokenizer_makes_another_corpus(texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tokenizers import Tokenizer as Inner
    from tokenizers import models, pre_tokenizers, trainers

    inner = Inner(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["</s>"], initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator(["abc\nxyz\n"] * 9, trainer)
    tokenizer = HFTokenizer(inner.to_str())
    monkeypatch.setattr(corpus_files, "PIECE", 64)
    corpus = prepare(SPEC, tokenizer, base=texts)
    assert corpus.fingerprint != prepare(SPEC, BYTE, base=texts).fingerprint
    assert tokenizer.decode(corpus.train[:-1].tolist()) == "abc\n" * 200
    assert corpus.train[-1] == tokenizer.separator == 0
    # The separator counts as one byte, so that bits per byte of different tokenizers share their denominator.
    assert tokenizer.token_bytes(corpus.train).sum() == len(prepare(SPEC, BYTE, base=texts).train)


def test_a_tokenizer_without_a_separator_is_refused(texts: Path) -> None:
    class Bare(ByteTokenizer):
        name, separator = "bare", None  # type: ignore[assignment]

    with pytest.raises(
        UserError, match=r"the tokenizer bare has no token to separate documents with; expected one of <\|end"
    ):
        prepare(SPEC, Bare(), base=texts)


# --- batches


@pytest.mark.parametrize("offset", [0, 1, 9])
def test_every_token_is_seen_once_per_epoch(offset: int) -> None:
    split, seq_len = ramp(40 * 10 + offset), 10
    assert windows_per_epoch(split, seq_len) == 40
    for epoch in range(3):
        steps = [batch_at(split, 10 * epoch + step, batch_size=4, seq_len=seq_len, seed=5) for step in range(10)]
        inputs = torch.cat([one for one, _ in steps])
        targets = torch.cat([one for _, one in steps])
        assert inputs.shape == targets.shape == (40, 10) and inputs.dtype == targets.dtype == torch.int64
        assert torch.equal(targets, (inputs + 1) % len(split))
        for seen in (inputs, targets):
            counts = torch.bincount(seen.flatten(), minlength=len(split))
            assert counts.max() == 1 and (counts == 0).sum() == offset


def test_epochs_and_seeds_differ_in_order_and_in_offset() -> None:
    split = ramp(403)

    def starts(epoch: int, seed: int) -> list[int]:
        return batch_at(split, epoch, batch_size=40, seq_len=10, seed=seed)[0][:, 0].tolist()

    orders = [starts(epoch, seed) for epoch in range(2) for seed in range(2)]
    assert len({tuple(order) for order in orders}) == 4
    assert len({min(order) % 10 for order in orders}) > 1
    assert all(order != sorted(order) for order in orders)


def test_a_batch_may_span_epochs() -> None:
    split = ramp(50)
    one_by_one = [batch_at(split, step, batch_size=1, seq_len=10, seed=0)[0] for step in range(14)]
    together = batch_at(split, 1, batch_size=7, seq_len=10, seed=0)[0]
    assert torch.equal(together, torch.cat(one_by_one[7:]))


def test_batches_stay_what_they_were() -> None:
    # Held fixed: another order would break resuming of runs that were started before.
    inputs, _ = batch_at(ramp(1000), 3, batch_size=4, seq_len=16, seed=7)
    assert inputs[:, 0].tolist() == [431, 383, 31, 871]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_the_loader_is_batch_at_whatever_the_workers(texts: Path, workers: int) -> None:
    split = prepare(SPEC, BYTE, base=texts).train
    settings = {"batch_size": 3, "seq_len": 16, "seed": 11}
    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    batches = list(loader(split, start_step=5, num_steps=7, workers=workers, **settings))
    assert torch.equal(torch.random.get_rng_state(), state), "loading draws nothing from the run's random numbers"
    assert len(batches) == 7
    for step, (inputs, targets) in enumerate(batches, 5):
        want_inputs, want_targets = batch_at(split, step, **settings)
        assert torch.equal(inputs, want_inputs) and torch.equal(targets, want_targets)


def test_workers_get_the_place_of_the_tokens_not_the_tokens(texts: Path) -> None:
    write(texts, {"a.txt": "abc\n" * 10_000})
    split = prepare(SPEC, BYTE, base=texts).train
    passes = Passes((8,), (1.0,), 2)
    steps = _Steps(TextRows(split), 0, 3, passes, 0)
    packed = pickle.dumps(steps)
    assert len(packed) < 2000
    assert torch.equal(pickle.loads(packed)[2][0], steps[2][0])
    part = _Steps(TextRows(split[100:]), 0, 3, passes, 0)
    assert torch.equal(pickle.loads(pickle.dumps(part))[2][0], part[2][0])


def test_too_little_data() -> None:
    message = "the split has 16 tokens, and one sequence of seq_len 16 needs 17; give more text or a smaller"
    with pytest.raises(UserError, match=message):
        batch_at(ramp(16), 0, batch_size=1, seq_len=16, seed=0)
    with pytest.raises(UserError, match=message):
        loader(ramp(16), start_step=0, num_steps=1, batch_size=1, seq_len=16, seed=0, workers=1)
    inputs, targets = batch_at(ramp(17), 0, batch_size=2, seq_len=16, seed=0)
    assert torch.equal(targets, (inputs + 1) % 17)


def test_a_corpus_can_be_made_of_arrays() -> None:
    corpus = Corpus(ramp(10), ramp(5), "0" * 64, {"source": "test"})
    assert corpus.describe() == {"source": "test", "fingerprint": "0" * 64}


def test_progress_is_shown_on_stderr_and_only_when_asked_for(
    texts: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    prepare(SPEC, BYTE, base=texts)
    assert capsys.readouterr() == ("", "")
    write(texts, {"b.txt": "other"})
    prepare(SPEC, BYTE, base=texts, progress=True)
    out, err = capsys.readouterr()
    assert out == "" and "preparing data" in err


# --- what `miniwin check` says


def test_check_finds_text_and_tokenizer(tmp_path: Path) -> None:
    head = "kind: train\nformat: 1\nname: t\ntokens: 1e5\n"
    path = tmp_path / "train.yaml"
    path.write_text(
        f"{head}data:\n  source: text\n  paths: [here.txt]\n  valid_paths: [gone.txt]\ntokenizer: no.json\n"
    )
    code, out, err = run_cli("check", str(path))
    assert code == 2 and out == ""
    assert f"{path}:7:10: data.paths: no such file or folder: 'here.txt' (looked for {tmp_path}/here.txt)" in err
    assert f"{path}:9:12: tokenizer: no such file: 'no.json'" in err and "data.paths: data.paths" not in err
    write(tmp_path, {"here.txt": "text", "bad.json": "{", "wide.txt": "hello".encode("utf-16")})
    assert f"{path}:8:16: data.valid_paths: no such file or folder: 'gone.txt'" in run_cli("check", str(path))[2]
    sets = ["--set", "data.valid_paths=[wide.txt]", "--set", "tokenizer=bad.json"]
    code, _, err = run_cli("check", str(path), *sets)
    assert code == 2 and "--set data.valid_paths=[wide.txt]: data.valid_paths: " in err and "this is UTF-16" in err
    assert "--set tokenizer=bad.json: tokenizer: " in err and "not JSON" in err
    write(tmp_path, {"gone.txt": "text", "no.json": '{"type": "byte"}'})
    assert run_cli("check", str(path)) == (0, f"ok: {path}: train t\n", "")
    path.write_text(f"{head}data: {{source: tasks, task: associative-recall, length: 16}}\n")
    assert f"error: {path}:5:7: data: associative recall: 16 pairs" in run_cli("check", str(path))[2]


def test_check_of_a_search_finds_its_text(tmp_path: Path) -> None:
    path = write_search(tmp_path, constraints=[])
    assert run_cli("check", str(path))[0] == 0
    (tmp_path / "text.txt").unlink()
    code, out, err = run_cli("check", str(path))
    assert code == 2 and out == "" and err.startswith(f"error: {tmp_path}/train.yaml:") and "data.paths: no such" in err
