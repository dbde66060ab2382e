"""Run folders at a URL: what goes up and comes down, uploads that were cut off, and a place that refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from search_helpers import write_search

from miniwin.files.writing import Unwritable
from miniwin.search import promote, read_study
from miniwin.search.creation import create_study
from miniwin.search.places import find_place, make_place
from miniwin.search.remote_place import KEPT, Kept, RemotePlace
from miniwin.search.stopping import at_work
from miniwin.search.study import Study, find_study
from miniwin.search.worker import DONE, UNWRITABLE, main
from miniwin.specs import UserError, load_search_spec


def trained(folder: Path, tokens: int, checkpoint: str = "weights") -> None:
    """A run folder after so many tokens."""
    (folder / "run").mkdir(parents=True, exist_ok=True)
    (folder / "run" / "run.json").write_text(json.dumps({"tokens": tokens}))
    (folder / "run" / "checkpoint.pt").write_text(f"{checkpoint} at {tokens}")
    (folder / "run" / ".lock").touch()


@pytest.fixture
def machines(tmp_path: Path) -> tuple[RemotePlace, RemotePlace]:
    url = f"file://{tmp_path}/there"
    return RemotePlace(url, tmp_path / "one"), RemotePlace(url, tmp_path / "two")


def there(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "there" / "trials" / "ab").iterdir())


def test_the_latest_whole_file_comes_down(machines: tuple[RemotePlace, RemotePlace], tmp_path: Path) -> None:
    one, two = machines
    mine, yours = one.folder / "trials" / "ab", two.folder / "trials" / "ab"
    two.fetch(yours)
    assert not yours.exists(), "nothing is there yet"
    for tokens in (10, 20, 30):
        trained(mine, tokens)
        one.push(mine)
    assert [Kept.of(path.name).tokens for path in there(tmp_path)] == [20, 30] and KEPT == 2  # type: ignore[union-attr]
    two.fetch(yours)
    assert (yours / "run" / "checkpoint.pt").read_text() == "weights at 30" and not (yours / "run" / ".lock").exists()

    latest = there(tmp_path)[-1]
    latest.write_bytes(latest.read_bytes()[:-1])  # its upload was cut off, or it was damaged
    three = RemotePlace(one.remote.url, tmp_path / "three")
    three.fetch(three.folder / "trials" / "ab")
    assert (three.folder / "trials" / "ab" / "run" / "checkpoint.pt").read_text() == "weights at 20"
    for path in there(tmp_path):
        path.write_bytes(b"")
    four = RemotePlace(one.remote.url, tmp_path / "four")
    four.fetch(four.folder / "trials" / "ab")
    assert not (four.folder / "trials" / "ab").exists(), "then it begins anew"


def test_what_is_further_here_stays(machines: tuple[RemotePlace, RemotePlace], tmp_path: Path) -> None:
    one, two = machines
    mine, yours = one.folder / "trials" / "ab", two.folder / "trials" / "ab"
    trained(mine, 10)
    one.push(mine)
    trained(mine, 20)  # its worker was killed before this went up
    one.fetch(mine)
    assert (mine / "run" / "checkpoint.pt").read_text() == "weights at 20"
    two.fetch(yours)
    trained(yours, 40, "others")
    two.push(yours)
    one.fetch(mine)
    assert (mine / "run" / "checkpoint.pt").read_text() == "others at 40"
    trained(yours, 40, "measured")  # no further, but later
    two.push(yours, over=True)
    one.fetch(mine)
    assert not (mine / "run" / "checkpoint.pt").exists() and (mine / "run" / "run.json").exists()


def test_a_place_is_marked_and_known_by_its_mark(tmp_path: Path) -> None:
    url, id = f"file://{tmp_path}/there", "0123456789abcdef"
    root = make_place(f"{url}/", "small", id, tmp_path)
    assert root == f"{url}/small-01234567"
    assert find_place(None, root, "small", id) == find_place(url, root, "small", id) == root
    with pytest.raises(UserError, match="the run folders of the study 'small' are not there"):
        find_place(url, root, "small", "another")
    with pytest.raises(UserError, match=r"--place ftp://me:\*\*\*@host/x: it would be written down, with its password"):
        make_place("ftp://me:secret-word@host/x", "small", id, tmp_path)
    with pytest.raises(UserError, match=r"nonesuch://x/small-01234567: .*; expected a URL that fsspec knows"):
        make_place("nonesuch://x", "small", id, tmp_path)


def test_a_confirmation_by_machines_that_share_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, place = f"sqlite:///{tmp_path}/a.db", f"file://{tmp_path}/there"
    data = {"source": "text", "paths": ["text.txt"], "test_fraction": 0.2}
    changes = {"budget": {"trials": 1}, "confirm": {"top": 1, "seeds": 1}}
    spec = load_search_spec(write_search(tmp_path, train={"tokens": 256, "data": data}, **changes))
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "one"))
    study = create_study(spec, tmp_path, out=tmp_path / "study", storage=url, place=place)
    assert main([url]) == DONE
    for name in ("one", "two"):  # the second has nothing but the storage
        monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / name))
        found = read_study(url)
        assert found.finished and found.confirmation is not None and found.confirmation.result is not None
        assert [run.state for variant in found.confirmation.result.variants for run in variant.runs] == ["complete"] * 2
    assert not list(tmp_path.rglob("confirm.json")) and not list(study.folder.rglob("model.safetensors"))
    assert len(list((tmp_path / "there").rglob("confirm/*/*.tar"))) >= 2


def test_machines_that_share_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One is stopped in the midst by a full place; another goes on from the last checkpoint that is there."""
    url, place = f"sqlite:///{tmp_path}/a.db", f"file://{tmp_path}/there"
    train = {"tokens": 2048, "checkpoint_seconds": 0.0}  # 16 steps
    spec = load_search_spec(write_search(tmp_path, train=train, baseline=None, budget={"trials": 1}))
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "one"))
    create_study(spec, tmp_path, out=tmp_path / "study", storage=url, place=place)
    push, pushed = RemotePlace.push, []

    def until_full(self: RemotePlace, folder: Path, *, over: bool = False) -> None:
        pushed.append(over)
        if len(pushed) > 8:
            raise Unwritable(Path(self.remote.url), OSError(28, "no space"))
        push(self, folder, over=over)

    with monkeypatch.context() as patch:
        patch.setattr(RemotePlace, "push", until_full)
        assert main([url]) == UNWRITABLE
    study = Study(find_study(url))
    assert not at_work(study) and [trial.state for trial in read_study(url).trials] == ["running"]

    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "two"))
    fetched = []
    fetch = RemotePlace.fetch
    monkeypatch.setattr(RemotePlace, "fetch", lambda self, folder: (fetch(self, folder), fetched.append(folder)))
    assert main([url]) == DONE
    data = read_study(url)
    (trial,) = data.completed
    assert trial.attempts == 2 and trial.tokens == 2048 and len(fetched) == 1 and trial.spec is not None
    assert trial.run_folder is not None and not trial.run_folder.exists(), "this machine is free of it"
    entry = promote(url, name="tiny", zoo=tmp_path / "zoo", tracking="off", progress=False)
    lines = (trial.run_folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 17)) and entry.spec.hash == trial.spec.hash
    assert not list((tmp_path / "there").rglob("*.tmp"))
