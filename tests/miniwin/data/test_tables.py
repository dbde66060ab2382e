"""Parquet, Arrow and folders of Hugging Face's `datasets` as a source: one corpus whatever the file; and refusals."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paths import ROOT
from tiny import run_cli
from tiny_runs import tiny_train

from miniwin.data import Corpus, prepare, tables
from miniwin.data.sources import list_source
from miniwin.evaluation.data import corpus_for
from miniwin.language_model import LanguageModel
from miniwin.specs import UserError
from miniwin.specs.data import JsonlData, TableData
from miniwin.tokenizer import ByteTokenizer

pytestmark = pytest.mark.skipif(find_spec("pyarrow") is None, reason="pyarrow is not installed")

BYTE = ByteTokenizer()
SAVED = ROOT / "tests" / "fixtures" / "saved-dataset"  # Dataset.save_to_disk of datasets 5.2.0: 12 rows in two files
TEXTS = [f"row {number}: {'the window sees ' * (number % 7)}é\x00\n" for number in range(600)]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


def table(texts: Any = TEXTS, **columns: Any) -> Any:
    import pyarrow

    return pyarrow.table({"id": list(range(len(texts))), "text": texts, **columns})


def parquet(path: str, rows: Any, **options: Any) -> None:
    from pyarrow.parquet import write_table

    write_table(rows, path, **options)


def stream(path: str, rows: Any) -> None:
    import pyarrow

    with pyarrow.ipc.new_stream(path, rows.schema) as writer:
        writer.write_table(rows, max_chunksize=100)


def feather(path: str, rows: Any, **options: Any) -> None:
    from pyarrow.feather import write_feather

    write_feather(rows, path, **options)


def large(rows: Any) -> Any:
    import pyarrow

    return rows.set_column(1, "text", rows["text"].cast(pyarrow.large_string()))


def corpus(path: str, **changes: Any) -> Corpus:
    return prepare(TableData(paths=(path,), **changes), BYTE, Path())


FILES: dict[str, Callable[[str], None]] = {
    "small-groups.parquet": lambda path: parquet(path, table(), row_group_size=50, compression="zstd"),
    "one-group.parquet": lambda path: parquet(path, table(), use_dictionary=False),
    "large.parquet": lambda path: parquet(path, large(table())),
    "categories.parquet": lambda path: parquet(
        path, table().set_column(1, "text", table()["text"].dictionary_encode())
    ),
    "stream.arrow": lambda path: stream(path, table()),
    "file.arrow": lambda path: feather(path, table(), compression="uncompressed", chunksize=70),
    "packed.feather": lambda path: feather(path, table(), compression="zstd"),
    "no-suffix": lambda path: parquet(path, table()),
}


def test_every_kind_of_file_is_the_corpus_of_the_same_json_lines() -> None:
    Path("rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    expected = prepare(JsonlData(paths=("rows.jsonl",)), BYTE, Path())
    assert 0 < len(expected.valid) < len(expected.train)
    for name, write in FILES.items():
        write(name)
        found = corpus(name)
        assert found.fingerprint == expected.fingerprint, name
        assert np.array_equal(found.valid, expected.valid) and np.array_equal(found.train, expected.train)
        assert found.info["source"] == "table" and found.info["files"] == 1


def test_folders_patterns_and_valid_paths() -> None:
    Path("shards/deep").mkdir(parents=True)
    parquet("shards/a.parquet", table(TEXTS[:300]))
    stream("shards/deep/b.arrow", table(TEXTS[300:]))
    Path("shards/README.md").write_text("about the shards")
    parquet("valid.parquet", table(["kept back"]))
    names = {
        spec.paths: [file.name for file in list_source(spec, Path()).files]
        for spec in (
            TableData(paths=("shards",)),
            TableData(paths=("shards/*.parquet",)),
            TableData(paths=("shards", "shards/a.parquet")),
        )
    }
    assert list(names.values()) == [["a.parquet", "deep/b.arrow"], ["a.parquet"], ["a.parquet", "deep/b.arrow"]]
    found = corpus("shards", valid_paths=("valid.parquet",))
    assert bytes(found.valid.tolist()) == b"kept back\0"
    parquet("test.parquet", table(["for the end"]))
    (last,) = corpus("shards", test_paths=("test.parquet",)).texts_of("test")
    assert bytes(last.ids.tolist()) == b"for the end\0"
    with pytest.raises(UserError, match=r"data: .*valid\.parquet is named by both paths and valid_paths"):
        corpus("valid.parquet", valid_paths=("valid.parquet",))


def test_a_folder_that_datasets_saved() -> None:
    """Only what state.json names: `map` and `filter` keep their caches in the same folder."""
    shutil.copytree(SAVED, "saved")
    stream("saved/cache-0123456789abcdef.arrow", table(["A CACHE"]))
    found = corpus("saved", valid_fraction=0.5)
    texts = b"".join(bytes(ids.tolist()) for ids in (found.train, found.valid)).decode().split("\0")
    assert sorted(filter(None, texts)) == sorted(
        f"Row {number}: the window sees no more than its period.\n" for number in range(12)
    )
    assert found.info["files"] == 2
    state = json.loads(Path("saved/state.json").read_text())
    Path("saved/state.json").write_text(json.dumps({**state, "_indices_data_files": [{"filename": "indices.arrow"}]}))
    with pytest.raises(
        UserError, match=r"data\.paths: \S*saved has its rows in another order than its files; .*flatten"
    ):
        corpus("saved")
    Path("saved/state.json").write_text(json.dumps(state))
    Path("saved/data-00001-of-00002.arrow").unlink()
    with pytest.raises(UserError, match=r"state\.json names data-00001-of-00002\.arrow, which is not there"):
        corpus("saved")


def test_several_splits_are_not_mixed() -> None:
    for split in ("train", "test"):
        shutil.copytree(SAVED, f"all/{split}")
    Path("all/dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    message = (
        r"data\.paths: \S*all holds several splits of a dataset \(train, test\); name the one .* such as \S*all/train"
    )
    for path in ("all", "."):
        with pytest.raises(UserError, match=message):
            corpus(path)
    assert corpus("all/train", valid_fraction=0.5).info["files"] == 2


def test_what_the_real_library_writes() -> None:
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict({"text": TEXTS})
    rows.filter(lambda row: "row 7" not in row["text"]).save_to_disk("saved", num_shards=3)
    rows.filter(lambda row: "row 7" not in row["text"]).to_parquet("rows.parquet")
    assert corpus("saved").fingerprint == corpus("rows.parquet").fingerprint != ""
    datasets.DatasetDict({"train": rows, "test": rows.select(range(3))}).save_to_disk("all")
    with pytest.raises(UserError, match=r"all holds several splits of a dataset \(train, test\)"):
        corpus("all")
    assert corpus("all/train").info["train_documents"] + corpus("all/train").info["valid_documents"] == len(TEXTS)


def test_a_row_group_is_read_in_pieces() -> None:
    parquet("one.parquet", table(["x" * 100] * 2000), row_group_size=2000)
    with tables._opened(Path("one.parquet"), "text") as opened:
        assert {len(batch) for batch in tables._batches(opened, "text")} <= set(range(tables.ROWS + 1))
    assert tables.size(Path("one.parquet"), "text") > 0
    assert list(tables.texts(Path("one.parquet"), "text")) == ["x" * 100] * 2000


# Refusals


def damaged(path: str, start: int, write: Callable[[str], None]) -> None:
    """As it came from a transfer with a part of it in ruins."""
    write(path)
    raw = bytearray(Path(path).read_bytes())
    raw[start : start + 400] = b"\xa5" * len(raw[start : start + 400])
    Path(path).write_bytes(raw)


def cut(path: str, write: Callable[[str], None]) -> None:
    write(path)
    Path(path).write_bytes(Path(path).read_bytes()[:-600])


def not_utf8(path: str) -> None:
    import pyarrow

    binary = pyarrow.array([b"good", b"\xff\xfe", *[b"more"] * 40])
    wrong = pyarrow.StringArray.from_buffers(len(binary), binary.buffers()[1], binary.buffers()[2])
    stream(path, pyarrow.table({"text": wrong}))


REFUSED: dict[str, tuple[Callable[[str], object], str]] = {
    "other.parquet": (
        lambda path: parquet(path, table().rename_columns(["id", "body"])),
        r"there is no column 'text'; its columns are: id, body",
    ),
    "number.parquet": (
        lambda path: parquet(path, table(list(range(9)), body=["a"] * 9)),
        r"the column 'text' is int64; expected text; columns of text are: body",
    ),
    "chat.arrow": (
        lambda path: stream(path, table([[{"role": "user"}]])),
        r"the column 'text' is list<.*; expected text; it has no column of text",
    ),
    "null.parquet": (
        lambda path: parquet(path, table([*TEXTS, None, "x"]), row_group_size=50),
        r"row 600 \(from 0\) has no text in 'text': it is null; expected text",
    ),
    "cut.parquet": (lambda path: cut(path, FILES["large.parquet"]), r"the file is damaged or cut short"),
    "cut.arrow": (lambda path: cut(path, FILES["stream.arrow"]), r"the file is damaged or cut short"),
    "cut.feather": (lambda path: cut(path, FILES["packed.feather"]), r"the file is damaged or cut short"),
    "damaged.parquet": (
        lambda path: damaged(path, 8000, FILES["one-group.parquet"]),
        r"the file is damaged or cut short",
    ),
    "damaged.feather": (
        lambda path: damaged(path, 1500, FILES["packed.feather"]),
        r"the file is damaged or cut short",
    ),
    "bytes.arrow": (not_utf8, r"the file is damaged or cut short \(Invalid UTF8 sequence at string index 1"),
    "empty.parquet": (
        lambda path: Path(path).write_bytes(b""),
        r"neither a Parquet nor an Arrow file, or it is damaged",
    ),
    "rows.csv": (lambda path: Path(path).write_text("id,text\n1,x\n"), r"neither a Parquet nor an Arrow file"),
    "old.feather": (
        lambda path: Path(path).write_bytes(b"FEA1" + b"\0" * 99),
        r"Feather version 1; expected version 2",
    ),
    "folder": (lambda path: Path(path).mkdir(), r"data\.paths: 'folder' names no tables \(looked in \S*folder\)"),
    "gone.parquet": (lambda path: None, r"data\.paths: no such file or folder: 'gone\.parquet'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_table_of_texts_is_refused_and_nothing_is_half_written(name: str, cache: Path) -> None:
    write, message = REFUSED[name]
    write(name)
    with pytest.raises(UserError, match=message) as caught:
        corpus(name)
    assert "\n" not in str(caught.value) and name in str(caught.value)
    assert not [path for path in cache.rglob("*") if path.is_dir() and path.parent.name == "data"]


def test_check_and_train_say_where(tmp_path: Path) -> None:
    parquet("rows.parquet", table().rename_columns(["id", "body"]))
    spec = tiny_train().model_dump(mode="json")
    spec["data"] = {"source": "table", "paths": ["rows.parquet"], "field": "txt"}
    Path("train.yaml").write_text(json.dumps(spec, indent=1))
    line = Path("train.yaml").read_text().splitlines().index('  "field": "txt"') + 1
    code, _, err = run_cli("check", "train.yaml")
    assert (code, err.count("\n")) == (2, 1) and err.startswith(f"error: train.yaml:{line}:12: data.field: ")
    assert "rows.parquet: there is no column 'txt'; its columns are: id, body" in err
    code, _, err = run_cli("train", "miniwin-tiny", "--train", "train.yaml", "--out", "run", "--tracking", "off")
    assert code == 2 and "there is no column 'txt'" in err and "Traceback" not in err
    assert not Path("run").exists()


def test_without_pyarrow_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    parquet("rows.parquet", table())
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"source: table needs pyarrow, .* pip install 'miniwin\[parquet\]'"):
        corpus("rows.parquet")


def test_a_table_named_for_an_evaluation(tmp_path: Path) -> None:
    import miniwin

    model: LanguageModel = miniwin.load("miniwin-tiny")
    parquet("rows.parquet", table())
    shutil.copytree(SAVED, "saved")
    assert corpus_for(model, "rows.parquet").fingerprint == corpus("rows.parquet").fingerprint
    Path("saved/dataset_dict.json").write_text('{"splits": ["train"]}')
    with pytest.raises(UserError, match="holds several splits"):
        corpus_for(model, "saved")


# Rows named as text, and JSON lines without the field


def test_rows_named_as_text_are_said() -> None:
    Path("rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    spec = tiny_train(data={"source": "text", "paths": ["rows.jsonl"]})
    with pytest.warns(
        UserWarning, match=r"rows\.jsonl: source: text trains on the file as it is, .* write source: jsonl"
    ):
        list_source(spec.data, Path())  # type: ignore[arg-type]


def test_check_looks_for_the_field_of_json_lines() -> None:
    Path("rows.jsonl").write_text('{"body": "one"}\n{"body": "two"}\n')
    spec = tiny_train().model_dump(mode="json")
    Path("train.yaml").write_text(json.dumps({**spec, "data": {"source": "jsonl", "paths": ["rows.jsonl"]}}, indent=1))
    code, _, err = run_cli("check", "train.yaml")
    assert code == 2 and "train.yaml:" in err and "rows.jsonl:1: got the fields 'body'; expected" in err
