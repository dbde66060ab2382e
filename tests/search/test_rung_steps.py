"""Trials whose steps differ in size are measured at a rung after the same tokens, or the search is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from search_helpers import SEARCH, write_search

from miniwin.search.creation import create_study
from miniwin.search.space import check_search
from miniwin.specs import UserError, load_search_spec

HALF = {"type": "halving", "reduction": 2}


def written(folder: Path, batches: list[int], **changes: Any) -> Path:
    """A search whose trials have 32 tokens a sequence, and a batch of one of these sizes."""
    variables = {**SEARCH["variables"], "batch": {"choice": batches}}
    settings = {**SEARCH["set"], "train.batch_size": "batch"}
    return write_search(folder, **{"variables": variables, "set": settings, "pruner": HALF, **changes})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {},
            r"search.yaml:\d+:\d+: rungs: trials have 128 to 160 tokens a step, so some would get to the rung at 384 "
            r"tokens later than others; expected rungs at multiples of 640 tokens, such as by "
            r"budget.tokens_per_trial: 2560",
        ),
        (
            {"pruner": {**HALF, "min_tokens": 700}, "rungs": [0.25, 0.5]},
            r"search.yaml:\d+:\d+: pruner.min_tokens: trials have .* at 700 tokens .* such as by min_tokens: 1280",
        ),
    ],
)
def test_a_rung_in_the_midst_of_a_step_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    path = written(tmp_path, [4, 5], **changes)
    with pytest.raises(UserError, match=said):
        check_search(path)
    with pytest.raises(UserError, match="later than others"):
        create_study(load_search_spec(path), tmp_path, out=tmp_path / "study")
    assert not (tmp_path / "study").exists()


def test_rungs_of_whole_steps_are_not(tmp_path: Path) -> None:
    for batches, changes in (
        ([4, 5], {"budget": {"trials": 2, "tokens_per_trial": 2560}}),
        ([4, 5], {"pruner": None}),
        ([2, 4], {}),
        ([5], {}),
    ):
        assert "4 variables" in check_search(written(tmp_path, batches, **changes))


def test_a_study_that_has_begun_goes_on_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = load_search_spec(written(tmp_path, [4, 5]))
    with monkeypatch.context() as patch:
        patch.setattr("miniwin.search.creation.check_rungs", lambda space: None)  # an older version made it
        create_study(spec, tmp_path, out=tmp_path / "study")
    assert create_study(spec, tmp_path, out=tmp_path / "study").rungs == [384, 768]
