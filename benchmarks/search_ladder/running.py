"""The search, then the ladder, by the commands that anybody would give; and what came of it, beside this file."""

from __future__ import annotations

import shutil
from pathlib import Path

from miniwin.display.formats import seconds_text
from miniwin.search import ladder_search, read_study, run_search
from miniwin.search.ladder.asking import plan_ladder, plan_lines
from miniwin.search.ladder.planning import Wish
from miniwin.search.study import Study
from miniwin.search.study_data import StudyData

HERE = Path(__file__).resolve().parent
SIZES = (100_000, 300_000, 1_000_000)
TOKENS = 6.0  # for each parameter: about an hour of one core in all
KEPT = ("ladder.md", "ladder.html", "ladder.json", "ladder/plan.json", "ladder/prediction.json")


def run(study: Path, workers: int, sizes: tuple[int, ...] = SIZES, tokens: float = TOKENS) -> StudyData:
    """Search, if that is not done, and climb. The same call goes on after a kill. study: its folder."""
    run_search(HERE / "search.yaml", workers=workers, out=study, tracking="off")
    wish = Wish(sizes, tokens_per_parameter=tokens, grow="stack")
    for line in plan_lines(plan_ladder(Study(study, reading=True), wish)):
        print(line, flush=True)
    return ladder_search(study, sizes=sizes, tokens_per_parameter=tokens, grow="stack", workers=workers, tracking="off")


def keep(study: Path, folder: Path) -> list[Path]:
    """Copy what came of a ladder. Returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    return [Path(shutil.copy(study / name, folder / Path(name).name)) for name in KEPT]


def cost(study: Path) -> str:
    """`trials 3m, ladder 58m`: seconds of workers."""
    data = read_study(study)
    trials = [*data.trials, *([data.baseline] if data.baseline else [])]
    climbed = [] if data.ladder is None else [one.outcome.seconds for one in data.ladder.every if one.outcome]
    return f"trials {seconds_text(sum(one.seconds for one in trials))}, ladder {seconds_text(sum(climbed))}"
