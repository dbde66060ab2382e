"""Two studies side by side: fronts in one box, costs, and refusals where values do not mean the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from processes import miniwin_without_torch
from search_helpers import make, write_search
from tiny import run_cli

from miniwin.search import compare_studies
from miniwin.search.claims import Claim, finish, take_work
from miniwin.search.creation import create_study
from miniwin.search.study import Study
from miniwin.specs import UserError, load_search_spec

TWO = ["minimize loss@64", "maximize recall@64"]


def spend(study: Study, *values: tuple[float, ...]) -> Path:
    """End a trial with each of these values, in the order of the objectives. The baseline has the first."""
    for one in values:
        claim = take_work(study, "0")
        assert isinstance(claim, Claim)
        names = [objective.name for objective in study.spec.parsed_objectives]
        claim.outcome.values = dict(zip(names, one, strict=True))
        claim.outcome.losses = {64: one[0], 32: 1.0}
        claim.outcome.tokens, claim.outcome.seconds = 1000, 30.0
        claim.outcome.end("complete")
        finish(study, claim)
        claim.entry.let_go()
    return study.folder


def two(folder: Path, **changes: Any) -> tuple[Path, Path]:
    for name in ("a", "b"):
        (folder / name).mkdir()
    first = make(folder / "a", name="first", objectives=TWO, budget={"trials": 3})
    second = make(folder / "b", **{"name": "second", "objectives": TWO, "budget": {"trials": 2}, **changes})
    return spend(first, (1.0, 0.5), (3.0, 0.9), (3.5, 0.8)), spend(second, (2.0, 0.7), (2.0, 0.5))


def test_the_order_of_objectives_does_not_matter(tmp_path: Path) -> None:
    ours, theirs = two(tmp_path)
    (tmp_path / "c").mkdir()
    turned = spend(make(tmp_path / "c", name="turned", objectives=TWO[::-1], budget={"trials": 1}), (0.7, 2.0))
    found = compare_studies(ours, turned)
    assert found.objectives == sorted(TWO)
    assert [side.volume for side in found.sides] == [side.volume for side in compare_studies(ours, theirs).sides]
    first = found.sides[0]
    assert first.states["complete"] == 3 and (first.tokens, first.seconds) == (3000, 90.0)


def test_volumes_are_those_by_hand(tmp_path: Path) -> None:
    ours, theirs = two(tmp_path)
    found = compare_studies(ours, theirs)
    first, second = found.sides
    # Losses from 1 to 3 and recalls from 0.9 down to 0.5: the box is 2.2 wide and 0.44 high.
    assert found.reference == {"minimize loss@64": pytest.approx(3.2), "maximize recall@64": pytest.approx(0.46)}
    assert (len(first.front), len(second.front)) == (2, 1)
    box = 2.2 * 0.44
    assert first.volume == pytest.approx((2.2 * 0.04 + 0.2 * 0.4) / box)
    assert second.volume == pytest.approx(1.2 * 0.24 / box)
    assert (first.beaten, second.beaten) == (0, 0)
    assert first.best is not None and first.best["number"] == first.front[0]
    assert first.best["losses"] == {"32": 1.0, "64": 1.0}
    swapped = compare_studies(theirs, ours)
    assert [side.volume for side in swapped.sides] == [second.volume, first.volume]


def test_the_table_and_the_file_say_the_same(tmp_path: Path) -> None:
    ours, theirs = two(
        tmp_path, variables={"window": {"choice": [4, 8]}, "factor": {"choice": [1]}, "ratio": {"int": [1, 2]}}
    )
    path = tmp_path / "c.json"
    lines = [["search", "compare", str(ours), str(theirs), "--json", where] for where in (str(path), "-")]
    ((code, out, err), (again, printed, _)), loaded = miniwin_without_torch(*lines)
    assert code == again == 0, err
    assert not loaded & {"torch", "optuna"}
    assert json.loads(printed) == json.loads(path.read_text())
    rows = {line[:25].strip(): line[25:].split("  ") for line in out.splitlines()}
    assert "first" in out.splitlines()[0] and "second" in out.splitlines()[0]
    for title in ("base", "window", "sampler", "pruner", "budget", "trials", "front", "volume", "best"):
        assert any(name.startswith(title) for name in rows), title
    assert "choice [4, 8, 16]" in out and "choice [4, 8]" in out and "minimize loss@64" in out
    path.write_text("mine")
    code, _, err = run_cli(*lines[0])
    assert code == 2 and "is not a comparison of studies of miniwin" in err and path.read_text() == "mine"


def test_a_study_beside_its_baseline(tmp_path: Path) -> None:
    spec = load_search_spec(write_search(tmp_path, budget={"trials": 1}))
    study = create_study(spec, tmp_path, out=tmp_path / "study")
    with pytest.raises(UserError, match=r"has a baseline that is running: give a second study to compare it with"):
        compare_studies(study.folder)
    spend(study, (3.0,), (2.0,))
    found = compare_studies(study.folder)
    ours, base = found.sides
    assert (ours.name, base.name, found.reference) == ("small", "baseline", {})
    assert ours.volume is None and ours.best is not None and ours.best["values"] == {"minimize loss@64": 2.0}
    assert base.best is not None and base.best["values"] == {"minimize loss@64": 3.0}
    assert "variables" not in base.asked and base.asked["trials"] == 1
    code, out, err = run_cli("search", "compare", str(study.folder))
    assert code == 0, err
    assert "baseline" in out and "volume" not in out and "front" not in out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"objectives": ["minimize loss@64"]},
            r"objectives: maximize recall@64, minimize loss@64 against minimize loss@64\)",
        ),
        ({"objectives": ["minimize loss@32", TWO[1]]}, "against maximize recall@64, minimize loss@32"),
        ({"eval_tokens": 512}, "tokens measured: 256 against 512"),
        ({"train": {"data": {"source": "text", "paths": ["text.txt", "more.txt"]}}}, r"data: .*against.*more\.txt"),
    ],
)
def test_what_does_not_mean_the_same_is_not_compared(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "b" / "more.txt").write_text("more")
    first = make(tmp_path / "a", name="first", objectives=TWO)
    second = make(tmp_path / "b", **{"name": "second", "objectives": TWO, **changes})
    with pytest.raises(UserError, match=rf"cannot be compared, since their values do not mean the same \(.*{message}"):
        compare_studies(first.folder, second.folder)


def test_studies_without_trials_have_no_volume(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    first, second = (make(tmp_path / name, objectives=TWO) for name in ("a", "b"))
    found = compare_studies(first.folder, second.folder)
    assert [side.volume for side in found.sides] == [None, None] and found.reference == {}
    assert [side.name for side in found.sides] == [str(first.folder), str(second.folder)]
    assert "none yet" in run_cli("search", "compare", str(first.folder), str(second.folder))[1]
