"""Optuna's pruners are asked once at each rung: a worker that died there changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from halving_helpers import TEXT, claimed, end
from search_helpers import make

from miniwin.search.claims import Claim
from miniwin.search.rungs import AtRungs
from miniwin.search.study import Study


def goes_on(study: Study, claim: Claim, loss: float) -> bool:
    """Bring a claim to its first rung."""
    at_rungs = AtRungs(study, claim, TEXT)
    at_rungs._measure = lambda model: {"loss@64": loss}  # type: ignore[method-assign]
    answer = at_rungs(study.rungs[0], cast(Any, None))
    assert isinstance(answer, bool)
    return answer


@pytest.mark.parametrize("pruner", [{"type": "median", "startup": 2}, {"type": "asha", "reduction": 2}])
def test_a_pruner_is_not_asked_again_after_a_kill(tmp_path: Path, pruner: dict[str, Any]) -> None:
    study = make(tmp_path, pruner=pruner, budget={"trials": 8}, constraints=[])
    for _ in range(2):
        claim = claimed(study)
        goes_on(study, claim, 2.0)
        end(study, claim, 2.0)
    passed, stopped = claimed(study), claimed(study)
    assert goes_on(study, passed, 1.0) and not goes_on(study, stopped, 3.0)
    for _ in range(3):  # others come after them, and are better
        claim = claimed(study)
        goes_on(study, claim, 0.5)
        end(study, claim, 0.5)
    for claim, answer in ((passed, True), (stopped, False)):
        claim.entry.let_go()  # its worker dies before training goes on, or before the trial is pruned
        again = claimed(Study(study.folder))
        assert again.number == claim.number
        assert goes_on(study, again, 99.0) is answer, "what was measured stays, and so does the answer"
