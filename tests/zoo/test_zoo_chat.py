"""Chat formats in zoo entries: added, pulled, verified and used, and a stranger's; and the licence of a base."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from zoo_runs import METRICS, make_run, sign_again

import miniwin
from miniwin.chat.format import FILES, LARGEST, TEMPLATE, TOKENS, ChatFormat
from miniwin.zoo import Entry, ZooError, add, check_addable, verify
from miniwin.zoo.entry import ENTRY_FILES, read_manifest, schema_of
from miniwin.zoo.index import write_index
from miniwin.zoo.pull import pull

FORMAT = ChatFormat(
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}", ("!",), {"eos_token": "!"}, 64
)
CHAT = [{"role": "user", "content": "Hi"}]


@pytest.fixture(autouse=True)
def _folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIWIN_ZOO", str(tmp_path / "zoo"))
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MINIWIN_OFFLINE", "1")
    for name in ("MINIWIN_ZOO_INDEX", "MINIWIN_ZOO_MIRROR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = make_run(tmp_path / "run")
    FORMAT.write(folder)
    return folder


def added(run: Path, **more: object) -> Entry:
    return add(run, name="tiny", metrics=METRICS, **more)  # type: ignore[arg-type]


def test_an_entry_has_the_chat_format_of_its_run(run: Path, tmp_path: Path) -> None:
    entry = added(run)
    assert sorted(path.name for path in entry.folder.iterdir()) == sorted([*ENTRY_FILES, *FILES])
    assert entry.require_manifest().schema_number == 3 and verify(entry) == []
    model = miniwin.load(entry.ref)
    assert model.chat_format == FORMAT
    chat = model.chat(max_new_tokens=4, seed=0)
    chat.say("Hi")
    assert chat.messages[0]["content"] == "Hi"
    rounded = added(run, dtype="bfloat16")
    assert miniwin.load(rounded.ref).chat_format == FORMAT


def test_an_entry_without_one_is_as_it_was(tmp_path: Path) -> None:
    entry = added(make_run(tmp_path / "plain"))
    assert sorted(path.name for path in entry.folder.iterdir()) == sorted(ENTRY_FILES)
    assert entry.require_manifest().schema_number == 1 and miniwin.load(entry.ref).chat_format is None
    assert schema_of([*ENTRY_FILES, "suite.json"]) == 2


def test_versions_and_a_new_card(run: Path, tmp_path: Path) -> None:
    first = added(run, licence="mit")
    card = add(first.folder, name="tiny", description="Another card.")
    assert (card.version, card.require_manifest().licence) == ("1.0.1", "mit")
    assert miniwin.load(card.ref).chat_format == FORMAT
    (run / TEMPLATE).write_text(f"{FORMAT.template}>")
    assert added(run).version == "1.1.0"
    for name in FILES:
        (run / name).unlink()
    assert added(run).version == "1.2.0"


def test_it_is_pulled_and_mirrored(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = added(run)
    site = tmp_path / "site"
    shutil.copytree(tmp_path / "zoo" / "tiny", site / "tiny")
    index = write_index(site)
    assert json.loads(index.read_text())["schema"] == 3
    monkeypatch.setenv("MINIWIN_ZOO", str(tmp_path / "other"))
    monkeypatch.setenv("MINIWIN_ZOO_INDEX", str(index))
    pulled = pull("tiny")
    assert pulled.folder != entry.folder and verify(pulled) == [] and miniwin.load("tiny").chat_format == FORMAT
    shutil.move(site / "tiny", tmp_path / "mirror" / "tiny")
    monkeypatch.setenv("MINIWIN_ZOO", str(tmp_path / "third"))
    monkeypatch.setenv("MINIWIN_ZOO_MIRROR", str(tmp_path / "mirror"))
    assert verify(pull("tiny")) == []


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        (TEMPLATE, "{% for x in range(10 ** 9) %}{% endfor %}{{ messages }}", ""),
        (TEMPLATE, "{% if %}", "line 1: Expected an expression"),
        (TOKENS, "[]", "end_tokens: got null; expected the tokens that end an answer"),
        (TOKENS, '{"format": 7, "end_tokens": []}', "format: got 7; this version reads 1"),
        (TOKENS, '{"format": 1, "end_tokens": [], "context": -1}', "context: got -1; expected a number of tokens"),
    ],
)
def test_a_strangers_chat_format_is_looked_at(run: Path, name: str, text: str, says: str) -> None:
    entry = added(run)
    (entry.folder / name).chmod(0o644)
    (entry.folder / name).write_text(text)
    assert [problem.file for problem in verify(entry)] == [name], "the hash"
    sign_again(entry.folder)
    problems = verify(entry)
    assert [problem.file for problem in problems] == ([name] if says else []) and says in str(problems)
    if not says:  # it refuses this chat, and may take others: who says something hears why
        with pytest.raises(miniwin.UserError, match="chat template: Range too big"):
            miniwin.load(entry.ref).chat().say("Hi")


def test_one_file_of_the_two_is_no_entry(run: Path) -> None:
    entry = added(run)
    (entry.folder / TOKENS).unlink()
    sign_again(entry.folder)
    with pytest.raises(ZooError, match=r"lists the wrong files \(chat\.json\)"):
        read_manifest(entry.folder)


def test_a_template_that_is_too_large_is_not_fetched(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    added(run)
    index = write_index(tmp_path / "zoo")
    data = json.loads(index.read_text())
    (file,) = (one for one in data["releases"][0]["files"] if one["path"] == TEMPLATE)
    file["size"] = LARGEST + 1
    index.write_text(json.dumps(data))
    monkeypatch.setenv("MINIWIN_ZOO", str(tmp_path / "other"))
    monkeypatch.setenv("MINIWIN_ZOO_INDEX", str(index))
    with pytest.raises(ZooError, match=r"chat_template\.jinja would be .*; the largest that is read is 1\.0"):
        pull("tiny")


@pytest.mark.parametrize("licence", ["unknown", None])
def test_a_base_whose_licence_nobody_knows(tmp_path: Path, licence: str | None) -> None:
    origin = {"kind": "imported model", "ref": "smol", "sha256": "0" * 64, "licence": licence}
    folder = make_run(tmp_path / "tuned", **{"from": origin})
    for refused in (add, check_addable):
        with pytest.raises(ZooError, match="began with the weights of smol, whose licence is not known; say it"):
            refused(folder, name="tuned")
    check_addable(folder, name="tuned", licence="mit")
    entry = add(folder, name="tuned", licence="mit")
    assert entry.require_manifest().licence == "mit" and "smol (imported model, sha256 000000000000)" in entry.card


def test_a_base_that_was_trained_here(tmp_path: Path) -> None:
    origin = {"kind": "run", "ref": "mine", "sha256": "0" * 64, "licence": None}
    folder = make_run(tmp_path / "more", **{"from": origin})
    assert add(folder, name="more").require_manifest().licence == "apache-2.0"
