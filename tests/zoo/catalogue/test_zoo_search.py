"""`zoo search`: by size, context, score, licence and kind, over the zoos here and elsewhere; and careless questions."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer
from tiny import run_cli
from typer.testing import CliRunner
from zoo_server import Server, change_index, environment, file_of, published, release, server

from miniwin.commands import zoo_search
from miniwin.specs import UserError
from miniwin.zoo import ZooError
from miniwin.zoo.catalogue.conditions import Range, condition, context_length, size_range
from miniwin.zoo.catalogue.described import of_entry
from miniwin.zoo.catalogue.listing import catalogue, newest
from miniwin.zoo.catalogue.scores import Score, scores_of
from miniwin.zoo.catalogue.search import Wanted, search
from miniwin.zoo.lookup import find

__all__ = ["environment", "published", "server"]  # fixtures


app = typer.Typer()
app.command()(zoo_search.search)


def asked(*arguments: str) -> tuple[int, str, str]:
    """The command alone: the whole command line takes most of a second to begin."""
    done = CliRunner().invoke(app, arguments)
    if isinstance(done.exception, UserError):
        return 2, done.stdout, str(done.exception)
    return done.exit_code, done.stdout, done.stderr


def refs(*arguments: str) -> list[str]:
    code, out, err = asked(*arguments, "--json")
    assert code == 0, err
    return [one["ref"] for one in json.loads(out)]


def card(*metrics: Any) -> str:
    front = {"license": "mit", "model-index": [{"name": "x", "results": [{"metrics": list(metrics)}]}]}
    return f"---\n{json.dumps(front)}\n---\n\n# x\n"


def test_all_zoos_are_searched_and_only_the_newest_version_is_shown(server: Server) -> None:
    assert refs() == ["miniwin-1m@1.0.0", "miniwin-tasks@1.0.0", "tiny@1.1.0"]
    assert refs("--all-versions", "tiny") == ["tiny@1.0.0", "tiny@1.1.0"]
    assert refs("--source", "index") == ["tiny@1.1.0"] and refs("--source", "built-in", "tiny") == []
    assert {name for name, _ in server.asked} == {"index.json"}  # no card was asked for


def test_scores_of_what_is_not_here_are_read_once(server: Server) -> None:
    assert refs("tiny", "--task", "bits_per_byte@512<=2.4") == ["tiny@1.1.0"]
    assert len(server.ranges("README.md")) == 1 and server.ranges("model.safetensors") == []
    assert refs("--task", "bits_per_byte@32<=2.2", "tiny") == ["tiny@1.1.0"]
    assert len(server.ranges("README.md")) == 1  # from the cache
    server.faults["README.md"] = 500
    for path in (server.folder.parent / "cache" / "cards").glob("*/*"):
        path.write_bytes(b"changed in the cache")
    code, out, err = asked("tiny", "--kind", "text")
    assert code == 2 and "error: tiny@1.1.0 was passed over: " in err and "the server answered 500" in err, out + err


def test_the_best_comes_first_and_scores_have_their_n_and_interval() -> None:
    assert refs("--task", "recall>=0") == ["miniwin-tasks@1.0.0", "tiny@1.1.0", "miniwin-1m@1.0.0"]
    assert refs("--task", "recall<=1") == ["miniwin-1m@1.0.0", "tiny@1.1.0", "miniwin-tasks@1.0.0"]
    assert refs("--task", "recall>=90%") == ["miniwin-tasks@1.0.0"]
    _, out, _ = asked("--task", "recall@8k>=0.05")
    assert "100.0% [97.0%, 100.0%], n 128 at 8k" in out and "10.2% at 8k" in out and "tiny" not in out


def test_a_context_is_one_that_was_measured() -> None:
    assert refs("--context", "8k") == ["miniwin-1m@1.0.0", "miniwin-tasks@1.0.0"]
    assert refs("--context", "8193") == ["miniwin-1m@1.0.0"] and refs("--context", "1M") == []
    # a score without a length is the one at the context
    assert refs("--context", "2k", "--task", "bits_per_byte<=1.15") == ["miniwin-1m@1.0.0"]
    assert refs("--context", "16k", "--task", "bits_per_byte<=1.15") == []


def test_size_words_licence_and_kind() -> None:
    assert refs("--size", "1M..2M") == ["miniwin-1m@1.0.0"] and refs("--size", "..0.3M", "--size", "..1k") == []
    assert refs("--size", "279366..279366") == ["miniwin-tasks@1.0.0"]
    assert refs("PYTHON", "bytes") == ["miniwin-1m@1.0.0"]
    assert refs("--kind", "tasks") == ["miniwin-tasks@1.0.0"] and refs("--kind", "chat") == []
    assert len(refs("--licence", "MIT", "--licence", "Apache-2.0")) == 3 and refs("--licence", "mit") == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "recal>=0.9"], "was measured by 'recal'; did you mean recall? measured are: bits_per_byte"),
        (["--task", "recall@3000>=0.9"], "no entry was measured by recall at 3,000 tokens; measured are: 32, 128"),
        (["--task", "recall"], "--task: got 'recall'; expected NAME>=SCORE"),
        (["--task", "recall>=many"], "expected NAME>=SCORE"),
        (["--task", "recall@long>=1"], "the length: got 'long'; expected a number of tokens"),
        (["--size", "10M..1M"], "--size: got '10M..1M', which ends before it begins; write 1M..10M"),
        (["--size", "5M"], "--size: got '5M'; expected a range of parameters"),
        (["--size", ".."], "expected a range"),
        (["--size", "-1..5"], "expected a range"),
        (["--size", "nan.."], "expected a range"),
        (["--context", "16x"], "--context: got '16x'; expected a number of tokens"),
        (["--context", "0"], "--context: got '0'"),
        (["--context", "99999M"], "expected a number of tokens from 1 to 2,147,483,647"),
        (["--kind", "images"], "--kind: got 'images'; expected one of text, chat, tasks"),
        (["--source", "indx"], "--source: there is no zoo 'indx'; did you mean 'index'?"),
    ],
)  # fmt: skip
def test_bad_questions_are_refused(arguments: list[str], message: str) -> None:
    code, out, err = asked(*arguments)
    assert code == 2 and out == "" and message in err and len(err.splitlines()) == 1, err


def test_numbers_as_they_are_typed() -> None:
    assert size_range("1e6..1.5M") == Range(1e6, 1.5e6) and size_range("1M..") == Range(1e6, math.inf)
    assert 7e9 in size_range(" 7B..7G ") and 6.9e9 not in size_range("7B..")
    assert context_length("16k") == 16384 == context_length("16384")
    one = condition("bits_per_byte@16k <= 1.2")
    assert (one.task, one.length, one.score, one.more_is_better) == ("bits_per_byte", 16384, 1.2, False)
    assert one.holds(1.2) and not condition("a<1.2").holds(1.2) and condition("a>1").holds(1.5)


def test_without_a_network_what_is_here_is_found(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIWIN_OFFLINE", "1")
    assert refs("--kind", "text") == ["miniwin-1m@1.0.0"] and server.asked == []
    monkeypatch.delenv("MINIWIN_OFFLINE")
    server.close()
    code, out, err = asked()
    assert code == 2 and "miniwin-1m" in out and "error: " in err and "could not be fetched" in err


def test_a_zoo_that_gives_no_answer_is_asked_once(server: Server) -> None:
    for name in ("README.md", "provenance.json"):
        server.faults[name] = lambda request: iter(())  # the connection ends at once
    code, out, err = asked("--kind", "text", "--all-versions")
    assert code == 2 and "miniwin-1m" in out and len(server.ranges("README.md") + server.ranges("provenance.json")) == 4
    assert "error: tiny@1.1.0 was passed over: its zoo gave no answer" in err


def test_the_zoo_that_was_added_is_named(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MINIWIN_ZOO_INDEX")
    assert run_cli("zoo", "source", "add", "lab", server.url)[0] == 0
    assert refs("tiny") == ["lab/tiny@1.1.0"]
    assert run_cli("zoo", "pull", "lab/tiny@1.1.0")[0] == 0
    (one,) = [one for one in catalogue("lab").entries if one.version == "1.1.0"]
    assert one.here and one.zoos == ("user", "lab") and one.to_load == "lab/tiny@1.1.0"
    assert [one.version for one in newest(catalogue().entries) if one.name == "tiny"] == ["1.1.0"]
    change_index(server, lambda data: release(data).update(status="yanked", reason="a leak"))
    assert refs("tiny") == ["lab/tiny@1.0.0"]
    _, out, err = asked("tiny", "--all-versions")
    assert "yanked" in out and "lab/tiny@1.1.0 is yanked: a leak" in err


def test_a_changed_file_is_not_believed(server: Server, tmp_path: Path) -> None:
    code, _, err = run_cli("zoo", "pull", "tiny@1.1.0")
    assert code == 0, err
    entry = find("tiny@1.1.0")
    (entry.folder / "README.md").chmod(0o644)
    (entry.folder / "README.md").write_text(card({"type": "recall", "value": 1.0}), encoding="utf-8")
    with pytest.raises(ZooError, match="has not the sha256"):
        of_entry(entry).card  # noqa: B018  # it is read
    code, _, err = asked("tiny", "--task", "recall>=0")
    assert code == 2 and "tiny@1.1.0 was passed over" in err
    shutil.rmtree(entry.folder)


def test_a_card_as_large_as_a_disk_is_not_fetched(server: Server) -> None:
    change_index(server, lambda data: file_of(data, "README.md").update(size=1 << 40))
    code, _, err = asked("tiny", "--kind", "text")
    assert code == 2 and "README.md would be 1.1 TB; the largest" in err and server.ranges("README.md") == []


def test_what_a_hostile_card_says_counts_for_nothing() -> None:
    good = {"type": "recall", "value": 0.5, "args": {"length": 8, "n": 4, "low": 0.1, "high": 0.9, "unit": "share"}}
    bad: list[Any] = [
        {"type": "recall", "value": math.inf},
        {"type": "recall", "value": "1"},
        {"type": "recall", "value": True},
        {"type": ["recall"], "value": 1},
        {"type": "<script>", "value": 1},
        {"type": "\x1b[2J", "value": 1},
        {"value": 1},
        7,
        None,
    ]
    found = scores_of(card(*bad, {**good, "args": {"length": 8}, "value": 1.0}, good), "x@1.0.0")
    assert found == [Score("recall", 8, 0.5, "share", 0.1, 0.9, 4)]
    odd = scores_of(card({"type": "a", "value": 1, "args": {"length": -3, "n": 1e3, "low": "x", "high": 2}}), "x")
    assert odd == [Score("a", None, 1.0)]
    for empty in (
        "",
        "# no front matter",
        "---\n[1]\n---\n",
        "---\nmodel-index: {}\n---\n",
        "---\nmodel-index: [3]\n---\n",
    ):
        assert scores_of(empty, "x") == []
    for broken in (
        "---\n!!python/object:os.system x\n---\n",
        "---\n{[\n---\n",
        "---\na: 1\na: 2\n---\n",
        "x" * (1 << 19),
    ):
        with pytest.raises(ZooError, match=r"^x: "):
            scores_of(broken, "x")


def test_costs_are_no_context() -> None:
    entries = [one for one in catalogue("built-in").entries if one.name == "miniwin-tasks"]
    (hit,) = search(entries, Wanted(context=8192)).hits
    assert hit.measured_to == 8192
    assert Score("cache_bytes", 1 << 20, 1.0, "bytes").is_cost
    with pytest.raises(UserError, match="no entry was measured by 'bits_per_byte'"):
        search(entries, Wanted(conditions=[condition("bits_per_byte<=2")]))
