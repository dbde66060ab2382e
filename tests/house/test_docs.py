"""The words and tables of the README and docs/ agree with the code, and their links lead somewhere.

Their commands run in test_readme.py.
"""

from __future__ import annotations

import re
import runpy
from itertools import chain
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pages import OTHERS, PAGES, README, anchors, blocks, commands, in_backticks, links, read, table
from paths import ROOT

from benchmarks import beside
from miniwin import runs
from miniwin.blocks import LOGIT_SCALES, MLPS, NORMS, POSITIONS, ROUTERS, SCALINGS, AttentionSpec, LayerSpec
from miniwin.blocks.registry import Registry
from miniwin.specs import ModelSpec, load_model_spec, load_search_spec, parse_spec, shipped_specs
from miniwin.specs.expressions import FUNCTION_NAMES
from miniwin.specs.objectives import METRICS, NATS
from miniwin.specs.yaml_document import Document
from miniwin.zoo import download, http_client, pull, timeouts
from miniwin.zoo.importing.converting import FROM_SETTINGS
from miniwin.zoo.importing.families import FAMILIES

SPECS, FOLDERS = read("docs/specs.md"), ("blocks", "specs", "miniwin", "zoo", "search", "benchmarks")


@pytest.mark.parametrize("path", [*PAGES, *OTHERS], ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for link in links(text):
        if link.startswith("https://"):
            continue
        file, _, anchor = link.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists() and there.is_relative_to(ROOT), f"{path.name}: {link}"
        if anchor:
            assert anchor in anchors(there.read_text(encoding="utf-8")), f"{path.name}: {link}"


def test_the_readme_is_short_and_leads_to_every_page() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 200
    shown = {link for row in table(text, "| page ") for link in links(" ".join(row)) if link.startswith("docs/")}
    assert shown == {f"docs/{path.name}" for path in PAGES if path != README}


def test_the_site_has_every_page_once() -> None:
    """`make docs` builds it; tests/house/test_site.py does, where the extra is installed."""
    site: dict[str, Any] = yaml.safe_load(read("mkdocs.yml"))

    def pages(part: Any) -> list[str]:
        return [part] if isinstance(part, str) else [page for one in _values(part) for page in pages(one)]

    assert sorted(pages(site["nav"])) == sorted(path.name for path in PAGES if path != README)


def _values(part: Any) -> list[Any]:
    return list(part.values()) if isinstance(part, dict) else part


def test_the_fields_are_those_of_the_schemas() -> None:
    made: dict[str, str] = runpy.run_path(str(ROOT / "docs" / "fields.py"))["pages"]()
    assert set(made) == {"fields.md", "model-fields.md"}
    for name, text in made.items():
        assert read(f"docs/{name}") == text, "run: python docs/fields.py"


def test_a_field_that_nobody_describes_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways: a field without words, and words without a field."""
    made = runpy.run_path(str(ROOT / "docs" / "fields.py"))
    means: dict[str, str] = made["MEANS"]
    monkeypatch.setitem(means, "train.gone", "nothing")
    with pytest.raises(SystemExit, match=r"no field has: train\.gone"):
        made["pages"]()
    monkeypatch.delitem(means, "train.seq_len")
    with pytest.raises(SystemExit, match=r"train\.seq_len has no line in docs/fields\.yaml"):
        made["pages"]()


def test_the_page_of_tasks_is_theirs() -> None:
    """Its examples are drawn anew: a task whose examples move is noticed here."""
    made: str = runpy.run_path(str(ROOT / "docs" / "tasks.py"))["page"]()
    assert read("docs/tasks.md") == made, "run: python docs/tasks.py"


def test_the_picture_is_of_the_figures_shown() -> None:
    drawn = runpy.run_path(str(ROOT / "docs" / "picture.py"))["svg"](README.read_text(encoding="utf-8"))
    assert read("docs/loss-by-length.svg") == drawn, "run: python docs/picture.py"


def test_every_environment_variable_is_listed() -> None:
    """A name anywhere in the code, comments included."""
    files = chain([ROOT / "setup.py"], *((ROOT / folder).rglob("*.py") for folder in FOLDERS))
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    used = set(re.findall(r"MINIWIN_[A-Z]+(?:_[A-Z]+)*", text))
    assert {row[0].strip("`") for row in table(read("docs/environment.md"), "| variable | values |")} == used


def test_other_programs_variables_are_listed() -> None:
    """Variables that the code reads by name."""
    listed = set(in_backticks(read("docs/environment.md")))
    for folder in FOLDERS[:-1]:
        for path in (ROOT / folder).rglob("*.py"):
            for name in re.findall(r"environ(?:\.get\(|\[)\"([A-Z_]+)\"", path.read_text(encoding="utf-8")):
                assert name in listed or name in ("PYTHONPATH", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE"), (
                    f"{path}: {name}"
                )


def test_the_expression_language_is_what_the_page_says() -> None:
    text = read("docs/expressions.md")
    rows = {row[0]: row[1] for row in table(text, "| what | how |")}
    assert in_backticks(rows["functions"]) == list(FUNCTION_NAMES)
    metrics = {in_backticks(row[0])[0]: row[1] for row in table(text, "| metric | known |")}
    known = {True: "after training", False: "from the spec"}
    rows = {row.name + ("@N" if row.by_length else ""): known[row.measured] for row in METRICS.values()}
    assert metrics == {**rows, "TASK@N": known[True], f"TASK{NATS}@N": known[True]}


def test_a_run_folder_holds_what_the_page_says() -> None:
    rows = table(read("docs/training.md"), "| file of a run folder |")
    assert {name for row in rows for name in in_backticks(row[0])} == set(runs.FILES)


def test_the_train_spec_is_one() -> None:
    (text,) = [block for block in blocks(ROOT / "docs" / "training.md", "yaml") if "kind: train" in block]
    spec = parse_spec(Document(text, "training.md").data, "train")
    assert spec.data.paths == ("novels/*.txt",) and spec.tokens == 4_000_000


@pytest.mark.parametrize("page", ["README.md", "docs/expressions.md"])
def test_the_search_shown_is_one(page: str, tmp_path: Path) -> None:
    from miniwin.search.space import Space, check_space
    from miniwin.specs import load_train_spec

    shown = next(text for text in blocks(ROOT / page, "yaml") if text.startswith("variables:"))
    shipped: dict[str, Any] = yaml.safe_load(read("specs/searches/period-window-ratio.yaml"))
    path = tmp_path / "search.yaml"
    data: dict[str, Any] = shipped | {"base": "miniwin-1m", "train": "tiny", "baseline": None} | yaml.safe_load(shown)
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    spec = load_search_spec(path)
    if page == "README.md":
        assert (spec.variables, spec.set, spec.objectives) == tuple(
            getattr(load_search_spec("period-window-ratio"), name) for name in ("variables", "set", "objectives")
        )
    assert "hold the constraints" in check_space(Space(spec, load_model_spec("miniwin-1m"), load_train_spec("tiny")))


@pytest.mark.parametrize("shown", range(3))
def test_the_variables_shown_make_architectures(shown: int) -> None:
    """Each block of docs/searching.md: all of its assignments that are drawn can be built."""
    from miniwin.search.space import Space, check_space
    from miniwin.specs import load_train_spec

    texts = [text for text in blocks(ROOT / "docs" / "searching.md", "yaml") if text.startswith("variables:")]
    assert len(texts) == 3
    shipped: dict[str, Any] = yaml.safe_load(read("specs/searches/period-window-ratio.yaml"))
    own = {**yaml.safe_load(texts[shown]), "constraints": [], "budget": {"trials": 4}}
    spec = parse_spec({**shipped, **own}, "search")
    said = check_space(Space(spec, load_model_spec("miniwin-1m"), load_train_spec("tiny")))
    drawn, fine = re.findall(r"of (\d+) drawn at random (\d+) hold", said)[0]
    assert drawn == fine, said


def test_the_search_from_weights_shown_is_one() -> None:
    (shown,) = (text for text in blocks(ROOT / "docs" / "searching.md", "yaml") if text.startswith("weights:"))
    spec = parse_spec({"kind": "search", "format": 1, "name": "shown", **yaml.safe_load(shown)}, "search")
    assert spec.blocks["W"].set["attention.keep_first"] == 4 and spec.budget.tokens_per_trial == 0


def test_the_rungs_shown_are_those_of_the_halving_shown() -> None:
    (shown,) = (text for text in blocks(ROOT / "docs" / "searching.md", "yaml") if text.startswith("objectives:"))
    shipped: dict[str, Any] = Document(read("specs/searches/period-window-ratio.yaml"), "shipped").data
    spec = parse_spec(shipped | Document(shown, "searching.md").data, "search")
    assert spec.objectives == shipped["objectives"] and spec.budget.tokens_per_trial == 4_000_000
    assert spec.rung_tokens(4_000_000) == [400_000, 1_200_000, 3_600_000]


def test_the_deadlines_are_the_codes() -> None:
    text = read("docs/zoo.md")
    assert f"begin within {timeouts.TIMEOUT:g} seconds" in text and f"counted over {timeouts.TIMEOUT:g} seconds" in text
    assert text.count(f"{timeouts.MIN_RATE:,} bytes") == 2 and 4 * timeouts.TIMEOUT == 120  # two minutes
    assert f"An index has {download.SMALL_SECONDS:g} seconds in all" in text
    assert f"- {download.ATTEMPTS} tries in a row" in text and f"up to {download.MOST_WAIT:g} seconds" in text
    assert f"Up to {http_client.MOST_REDIRECTS} redirects" in text
    assert f"The first {pull.MOST_SOURCES} of a file" in text


def test_every_error_of_the_page_is_shown_by_a_command() -> None:
    """test_readme.py runs the commands and compares what they say."""
    errors = [command for command in commands() if command.page == "errors.md"]
    assert len(errors) > 20
    assert all(command.below and command.below[0].startswith("error: ") for command in errors)


# -- the tables


@pytest.mark.parametrize("row", table(SPECS, "| spec | what |"), ids=lambda row: row[0].strip("`"))
def test_the_gallery_says_what_the_specs_say(row: list[str]) -> None:
    spec = load_model_spec(row[0].strip("`"))
    pattern, *last = in_backticks(row[2])
    assert int(row[2].split(" of ")[0]) == spec.num_layers
    layout = (pattern * spec.num_layers)[: spec.num_layers]
    assert spec.layout == (layout[:-1] + last[0] if last else layout)
    sees = {}
    for letter in dict.fromkeys(spec.layout):
        attention = spec.blocks[letter].attention
        assert isinstance(attention, AttentionSpec)
        chunk = f"chunk {attention.chunk:,}" if attention.chunk else "all"
        sees[letter] = f"{attention.window:,}" if attention.window else chunk
    assert row[3] == ", ".join(f"{letter} {seen}" for letter, seen in sees.items())
    active = f" ({spec.active_parameters():,} a token)" if spec.active_parameters() != spec.parameters() else ""
    assert row[4] == f"{spec.parameters():,}{active}"


def test_the_gallery_has_every_full_size_spec() -> None:
    names = shipped_specs("model")
    rows = [row[0].strip("`") for row in table(SPECS, "| spec | what |")]
    assert sorted(rows) == sorted(name for name in names if f"{name}-tiny" in names)
    section = SPECS[SPECS.index("## The gallery") : SPECS.index("| spec | what |")]
    others = {name for name in in_backticks(section) if name in names and name not in rows}
    assert others - {"llama-3-8b-tiny"} == {name for name in names if name.removesuffix("-tiny") not in rows}


def own(registry: Registry) -> set[str]:
    """What the package itself registers, without plugins that this process has loaded."""
    return {name for name in registry.names() if registry[name].__module__.startswith("miniwin.")}


def test_what_a_spec_can_say_is_all_there_is() -> None:
    rows = {row[0].strip("`"): set(in_backticks(row[1])) for row in table(SPECS, "| field | values |")}
    for field, registry in {"position": POSITIONS, "mlp": MLPS, "norm": NORMS}.items():
        assert rows[field] == own(registry), field
    assert rows["position.logit_scale"] - {"nope"} == own(LOGIT_SCALES)
    assert rows["position.scaling"] - {"rope", "resonance"} == own(SCALINGS)
    assert rows["mlp.router"] - {"moe", "balance_loss"} == own(ROUTERS)
    assert rows["residual"] == set(get_args(LayerSpec.model_fields["residual"].annotation))
    plain = {"type", "num_heads", "position"}
    assert rows["attention"] == set(AttentionSpec.model_fields) - plain
    assert rows["the model"] == ModelSpec.LATER | {"tie_word_embeddings"}


def test_the_architectures_are_those_that_can_be_imported() -> None:
    text = read("docs/import-export.md")
    paragraph = text[text.index("Architectures, in and out") :].split("\n\n")[0]
    stock = set(FAMILIES) - set(FROM_SETTINGS)
    assert set(in_backticks(paragraph)) == stock
    assert f"Models of {len(stock)} architectures" in README.read_text(encoding="utf-8")


def test_the_benchmarks_shown_are_the_newest_committed_ones() -> None:
    """Of each machine: `python benchmarks/beside.py --write docs/benchmarks.md` puts them there."""
    found = beside.newest(list((ROOT / "benchmarks" / "results").glob("*.json")))
    shown = read("docs/benchmarks.md").partition(beside.FROM)[2].partition(beside.TO)[0]
    assert found and shown.strip() == beside.markdown(found).strip()
    for path, result in found:
        assert result["date"] in shown and f"benchmarks/results/{path.stem}.md" in shown
        assert path.with_suffix(".md").is_file() and path.with_suffix(".svg").is_file()
