"""`zoo site`: pages that stand alone, lead nowhere else, and hold nothing that a hostile entry would run."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from browser import browser, measured_in_browser, page_in_browser, served_folder
from html_page import Page
from suite_results import made_up
from typer.testing import CliRunner
from zoo_runs import METRICS, make_run, overwrite, sign_again

from miniwin.commands import zoo_site
from miniwin.evaluation.suite.result import key_of
from miniwin.files.json_files import parse_json
from miniwin.zoo import Entry, ZooError, add, adding
from miniwin.zoo.catalogue.listing import catalogue
from miniwin.zoo.site import build
from miniwin.zoo.site.building import file_names, pages_of
from miniwin.zoo.site.index_page import lengths_shown
from miniwin.zoo.site.limits import about_and_limits, limits
from miniwin.zoo.site.using import usage

EVIL = "</title></dd></script><script>alert('x')</script><img src=x onerror=\"alert(1)\">&amp;'\"\x1b[31m\u202e"
PACKAGED = ["index.html", "miniwin-1m-1.0.0.html", "miniwin-tasks-1.0.0.html", "site.json"]

app = typer.Typer()
app.command()(zoo_site.site)


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("zoo", "cache", "config"):
        monkeypatch.setenv(f"MINIWIN_{name.upper()}", str(tmp_path / name))
    for name in ("MINIWIN_ZOO_INDEX", "MINIWIN_ZOO_MIRROR", "MINIWIN_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture
def measured(run: Path, monkeypatch: pytest.MonkeyPatch) -> Entry:
    """An entry with a suite, of made-up numbers."""
    monkeypatch.setattr(adding, "check_suite", lambda *arguments, **options: None)  # they are of other weights
    return add(run, name="tiny", metrics=METRICS, suite=made_up("tiny@1.0.0"), description="Small. Limits: It is tiny.")


def pages(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.html"))}


def check_links(folder: Path) -> None:
    """Every link leads to a file of the site, or to a part of its page; and nothing is loaded."""
    for name, text in pages(folder).items():
        page = Page(text)
        idents = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
        assert len(set(idents)) == len(idents), name
        for _, attrs in page.elements:
            assert "src" not in attrs and not any(one.startswith("on") for one in attrs), (name, attrs)
            if (link := attrs.get("href")) is not None:
                file, _, part = link.partition("#")
                assert not file or (folder / file).is_file(), f"{name}: {link}"
                assert not part or part in idents, f"{name}: {link}"
        assert not re.search(r"url\(|@import|https?://", text), name


def test_the_pages_of_the_package(tmp_path: Path) -> None:
    done = build(tmp_path / "site")
    assert (done.models, done.versions, done.problems) == (2, 2, [])
    assert sorted(path.name for path in done.folder.iterdir()) == PACKAGED
    check_links(done.folder)
    for text in pages(done.folder).values():
        page = Page(text)
        fingerprint = base64.b64encode(hashlib.sha256(page.script.encode()).digest()).decode()
        policy = next(meta["content"] for meta in page.all("meta") if "http-equiv" in meta) or ""
        assert "default-src 'none'" in policy and f"script-src 'sha256-{fingerprint}'" in policy
        assert len(page.all("script")) == 1 and str(tmp_path) not in text
    one = Page(pages(done.folder)["miniwin-1m-1.0.0.html"])
    for words in (
        'import miniwin print(miniwin.load("miniwin-1m@1.0.0").generate("def main(", max_new_tokens=64))',
        "Parameters 1.21 M Download 4.9 MB, in the package Licence apache-2.0",
        "Cache at 128k, float32 128.0 MiB",
        "S, 6 layers: 0-3, 5-6: sees 16 keys; p-rope, harmonic",
        "Nothing is known beyond 16,384 tokens, 32 times the training length",
        "study period-window-ratio, study_id 1647b7e91a244244a738a9f1bd69a7e4; trials: 12 complete, 4 duplicate",
        "digest 11d7fee9e933ba63a4bfd3f6ecd5b76a2eb7efe4d494242a8c45b45aa72ff789",
        "1.209 at 512 tokens; 1.161 at 1,024 tokens",
    ):
        assert words in one.words, words
    tasks = Page(pages(done.folder)["miniwin-tasks-1.0.0.html"]).words
    assert "Limits It saw one-letter keys" in tasks and "max_new_tokens=1, temperature=0.0))" in tasks
    assert "All rows of the suite order-tasks" in tasks and "[97.0%, 100.0%]" in tasks


def test_the_same_zoo_gives_the_same_bytes(tmp_path: Path, measured: Entry) -> None:
    first, second = build(tmp_path / "a").folder, build(tmp_path / "deep" / "er" / "b").folder
    assert pages(first) == pages(second) and len(pages(first)) == 4
    assert (first / "site.json").read_bytes() == (second / "site.json").read_bytes()
    before = pages(first)
    assert pages(build(first).folder) == before and not list(tmp_path.glob(".*"))


def test_a_suite_is_drawn_with_its_needle_map(tmp_path: Path, measured: Entry) -> None:
    text = pages(build(tmp_path / "site", "user").folder)["tiny-1.0.0.html"]
    assert text.count('class="heat"') == 12 and 'id="length-bits_per_byte-t"' in text and "metrics-bits" not in text
    page = Page(text)
    assert "Bits per byte at 2,048 tokens (16 times the training length) is" in page.words
    assert "Small." in page.words and "Limits It is tiny." in page.words


def test_the_table_sorts_by_numbers(tmp_path: Path, measured: Entry) -> None:
    index = pages(build(tmp_path / "site").folder)["index.html"]
    heads = re.findall(r"<th scope=\"col\"[^>]*>(.*?)</th>", index)
    assert heads[:5] == ["model", "version", "parameters", "download", "trained at"] and "cache at 128k" in heads
    assert [head for head in heads if head.startswith("bits/byte at")] == [
        f"bits/byte at {length}" for length in ("128", "512", "2k", "16k")
    ]
    rows = re.findall(r"<tr>(<th scope=\"row\".*?)</tr>", index)
    assert ['<a href="miniwin-1m-1.0.0.html">miniwin-1m</a>' in row for row in rows] == [True, False, False]
    assert 'data-v="1214600"' in rows[0] and 'data-v="1.34266' not in rows[2] and ">8.0 MiB<" in rows[2]


def test_older_yanked_and_deprecated_versions_say_so(tmp_path: Path, run: Path) -> None:
    for seed in range(3):
        add(make_run(tmp_path / f"run{seed}", seed=seed), name="tiny", metrics=METRICS)
    said = {"1.0.0": ("deprecated", EVIL), "1.2.0": ("yanked", "a leak"), "1.1.0": ("active", None)}
    entries = [
        replace(one, status=said[one.version][0], reason=said[one.version][1]) for one in catalogue("user").entries
    ]
    texts, problems, models, versions = pages_of(entries)
    assert problems == [] and (models, versions) == (1, 3)
    assert "This version was yanked : a leak" in Page(texts["tiny-1.2.0.html"]).words
    assert "This version is deprecated" in texts["tiny-1.0.0.html"] and "<img" not in texts["tiny-1.0.0.html"]
    index = Page(texts["index.html"])
    assert [a["href"] for a in index.all("a")] == ["tiny-1.1.0.html"] * 2 + ["tiny-1.0.0.html", "tiny-1.2.0.html"]
    others = [a["href"] for a in Page(texts["tiny-1.1.0.html"]).all("a")]
    assert others == ["index.html", "tiny-1.2.0.html", "tiny-1.0.0.html"]


def hostile(entry: Entry) -> None:
    """Put EVIL wherever an entry holds text."""
    found = json.loads((entry.folder / "provenance.json").read_text(encoding="utf-8"))
    found |= {"study": EVIL, "trial": EVIL, "params": {EVIL: EVIL}, "trials": {EVIL: 1}}
    found["run"] |= {"code": EVIL, "started": EVIL, "from": {"ref": EVIL, "licence": EVIL}, "data": {"source": EVIL}}
    rows = [dict.fromkeys(("against", "measure", "difference", "interval", "verdict"), EVIL)]
    found |= {"confirmation": {"sentence": EVIL, "differences": rows}, "ladder": {"sentence": EVIL}}
    overwrite(entry.folder / "provenance.json", json.dumps(found).encode())
    result = made_up(EVIL)
    changed = [
        row.model_copy(update={**dict.fromkeys(("note", "of", "unit"), EVIL), "measure": f"{EVIL}{n}"})
        if n < 3
        else row
        for n, row in enumerate(result.rows)
    ]
    changed = [row.model_copy(update={"key": key_of(row.measure, row.length)}) for row in changed]
    result = result.model_copy(update={"rows": changed, "suite": EVIL, "data": {"source": EVIL}})
    overwrite(entry.folder / "suite.json", json.dumps(result.to_dict()).encode())
    metrics = {**METRICS, "data": {"source": EVIL}, "by_position": {EVIL: 1.0, "0-128": 2.0}}
    overwrite(entry.folder / "metrics.json", json.dumps(metrics).encode())
    overwrite(entry.folder / "README.md", f"---\nlicense: x\n---\n# {EVIL}\n\n## Limits {EVIL}\n\n{EVIL}\n".encode())
    overwrite(entry.folder / "model.yaml", (entry.folder / "model.yaml").read_bytes() + f"\n# {EVIL}\nx: 1\n".encode())
    sign_again(entry.folder, description=f"{EVIL} Limits: {EVIL}", licence=EVIL, layout=EVIL, created=EVIL)


def test_nothing_of_an_entry_breaks_out(tmp_path: Path, measured: Entry) -> None:
    hostile(measured)
    done = build(tmp_path / "site")
    assert done.problems == []
    check_links(done.folder)
    for name, text in pages(done.folder).items():
        page = Page(text)
        assert len(page.all("script")) == 1 and "alert" not in page.script and not page.all("img"), name
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text), name
    shown = Page(pages(done.folder)["tiny-1.0.0.html"]).words
    assert shown.count("alert('x')") > 20 and "They cannot be drawn here" in shown


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("suite.json", {"buckets": "x"}, "has no page: "),
        ("suite.json", {"depths": [{"start": "</b>"}]}, "has no page: "),
        ("provenance.json", b'{"run": 7}', "run: got 7; expected a mapping"),
        ("metrics.json", b'{"recall": {"x": 1}}', None),  # which the suite has better
        ("metrics.json", b'{"by_position": 7}', None),
        ("metrics.json", b"[]", "expected a JSON object, got list"),
        ("metrics.json", b'{"bits_per_byte": {"32": -1e299, "33": 1e299}}', None),
        ("metrics.json", b'{"by_position": {"0-0": 1, "-1": 2, "5-3": 1, "a-b": 1, "1-2": null}}', None),
        ("model.yaml", b"\xff\xfe", None),
        ("README.md", b"---\n{[\n---\n", "front matter of the card"),
        ("README.md", b"\xff", "README.md is not UTF-8 (byte 0xff)"),
    ],
)
def test_a_damaged_entry_takes_no_others_pages(
    tmp_path: Path, measured: Entry, run: Path, name: str, content: Any, message: str | None
) -> None:
    if isinstance(content, dict):  # the detail of every row
        data = json.loads((measured.folder / name).read_text(encoding="utf-8"))
        data["rows"] = [{**row, "detail": content} for row in data["rows"]]
        content = json.dumps(data).encode()
    overwrite(measured.folder / name, content)
    sign_again(measured.folder)
    add(run, name="whole", metrics=METRICS)
    done = CliRunner().invoke(app, [str(tmp_path / "site")])
    names = set(pages(tmp_path / "site"))
    check_links(tmp_path / "site")
    if message is None:
        assert done.exit_code == 0 and "tiny-1.0.0.html" in names
    else:
        assert done.exit_code == 1 and "error: tiny@1.0.0" in done.stderr and message in done.stderr, done.stderr
        assert names == {*PACKAGED[:3], "whole-1.0.0.html"}


def test_a_changed_file_and_a_broken_manifest_have_no_page(tmp_path: Path, measured: Entry, run: Path) -> None:
    add(run, name="broken", metrics=METRICS)
    overwrite(tmp_path / "zoo" / "broken" / "1.0.0" / "entry.json", b"{}")
    overwrite(measured.folder / "metrics.json", b"{}")
    done = build(tmp_path / "site")
    assert [problem.partition(" ")[0] for problem in done.problems] == ["broken@1.0.0", "tiny@1.0.0"]
    assert "has not the sha256" in done.problems[1] and done.models == 2


def test_names_of_files_do_not_collide(run: Path, tmp_path: Path) -> None:
    one = catalogue().entries[0]
    same = replace(one, zoos=("lab",), digest="0" * 64)
    assert list(file_names([one, same]).values()) == ["miniwin-1m-1.0.0.html", "lab.miniwin-1m-1.0.0.html"]
    with pytest.raises(ZooError, match="there is no zoo 'built_in'; did you mean 'built-in'"):
        build(tmp_path / "site", "built_in")
    assert not (tmp_path / "site").exists()


def test_an_empty_zoo_has_a_page(tmp_path: Path) -> None:
    done = build(tmp_path / "site", "user")
    assert done.models == 0 and "There is no model in this zoo yet." in pages(done.folder)["index.html"]


def test_few_lengths_are_shown() -> None:
    def row(*lengths: int) -> Any:
        return type("Row", (), {"losses": type("Losses", (), {"values": dict.fromkeys(lengths, 1.0)})})

    assert lengths_shown([row(512, 4096)]) == [512, 4096] and lengths_shown([row(), row()]) == []
    assert lengths_shown([row(*(2**n for n in range(7, 17)))]) == [128, 1024, 8192, 65536]
    assert lengths_shown([row(*range(1, 9)), row(5, 6), row(5)]) == [1, 5, 6, 8]
    assert lengths_shown([row(*range(1, 9)), row(5, 6, 7)]) == [1, 5, 6, 7]


def test_limits_of_the_card_are_points(tmp_path: Path, measured: Entry) -> None:
    card = "# tiny\n\n## Limits\n\nIt is tiny.\n\n- no <b>words</b>\n* no\n  numbers\n\n## Other\n\nnot this\n"
    overwrite(measured.folder / "README.md", card.encode())
    sign_again(measured.folder)
    (one,) = catalogue("user").entries
    assert limits(one) == [
        "It is tiny.",
        "No <b>words</b>",
        "No numbers",
        "Nothing was measured: how well it does is not known.",
    ]


def test_a_prompt_as_long_as_a_book_is_not_shown(tmp_path: Path, measured: Entry) -> None:
    data = json.loads((measured.folder / "provenance.json").read_text(encoding="utf-8"))
    task = {"type": "recall", "num_pairs": 400, "num_queries": 400, "key_length": 2}
    data["run"]["train"]["data"] = {"source": "examples", "task": task}
    overwrite(measured.folder / "provenance.json", json.dumps(data).encode())
    sign_again(measured.folder)
    (one,) = catalogue("user").entries
    assert one.kind == "tasks" and "max_new_tokens=64" in usage(one)


def test_limits_are_what_stands_behind_the_word() -> None:
    assert about_and_limits("A model. Limits: none, Limits: x.") == ("A model.", "none, Limits: x.")
    assert about_and_limits("It has Limits: no.") == ("It has Limits: no.", "")
    assert about_and_limits("Limits: all") == ("", "all")


SORT = """<!DOCTYPE html><meta charset="utf-8"><iframe src="index.html"></iframe><script>
  const names = inside => [...inside.querySelectorAll("tbody th")].map(cell => cell.textContent);
  document.querySelector("iframe").onload = event => {
    const inside = event.target.contentDocument, said = [names(inside)];
    for (const title of ["parameters", "parameters", "cache at 128k", "bits/byte at 16k"]) {
      [...inside.querySelectorAll("thead button")].find(button => button.textContent === title).click();
      said.push(names(inside));
    }
    const shown = document.createElement("pre");
    shown.id = "sorted"; shown.textContent = JSON.stringify(said);
    document.body.append(shown);
  };
</script>"""


def test_the_pages_in_a_browser(tmp_path: Path, measured: Entry, run: Path) -> None:
    """No error on the console, nothing that sticks out, and a table that sorts."""
    browser()
    add(run, name="a-name-of-64-letters-" + "w" * 43, metrics=METRICS, description="w" * 400)
    site = build(tmp_path / "site").folder
    said: list[str] = []
    found = measured_in_browser(sorted(site.glob("*.html")), (390, 1280), said)
    assert said == [] and len(found) == 10
    for (name, width), page in found.items():
        assert page["inner"] <= width and page["scroll"] <= page["inner"], f"{name} is wider than {width} pixels"
        assert page["out"] == [] and page["small"] == 0, (name, width, page)
        assert name == "index.html" or {"Two lines of Python", "Layers", "Limits"} <= set(page["sections"])
    (site / "sort.html").write_text(SORT, encoding="utf-8")
    with served_folder(site) as url:
        shown = re.search(r'<pre id="sorted">(.*?)</pre>', page_in_browser(f"{url}/sort.html", console=said))
    assert said == [] and shown is not None
    long, small, tasks, million = "a-name-of-64-letters-" + "w" * 43, "tiny", "miniwin-tasks", "miniwin-1m"
    assert parse_json(shown[1]) == [
        [long, million, tasks, small],
        [long, small, tasks, million],
        [million, tasks, long, small],
        [long, small, million, tasks],
        [million, long, small, tasks],
    ]
