"""The ladder that is run once: its specs are sound, its sizes can be had, and what comes of it is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.search_ladder.running import HERE, KEPT, SIZES, keep
from miniwin.search.creation import create_study
from miniwin.search.ladder.growing import at_size, find_layers
from miniwin.search.study import Study
from miniwin.specs import load_search_spec


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return create_study(load_search_spec(HERE / "search.yaml"), HERE, out=tmp_path_factory.mktemp("study") / "study")


def test_every_trial_can_have_every_size(study: Study) -> None:
    for ratio in range(1, 8):
        candidate = study.space.assign({"ratio": ratio, "window": 16, "factor": 2}).candidate
        assert candidate is not None
        for size in SIZES:
            model = at_size(candidate.model, size, find_layers(candidate.model, size, "stack"), "stack")
            assert abs(model.parameters() / size - 1) <= 0.02, (ratio, size)


def test_its_files_are_kept(tmp_path: Path) -> None:
    for name in KEPT:
        (tmp_path / "study" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "study" / name).write_text(name)
    kept = keep(tmp_path / "study", tmp_path / "kept")
    assert [path.read_text() for path in kept] == list(KEPT) and len({path.name for path in kept}) == len(KEPT)
