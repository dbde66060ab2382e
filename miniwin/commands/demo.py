"""`miniwin demo`: a search from end to end on this machine, in minutes. Each step is shown as the command that it is.

Search -> report -> promote into the user's zoo -> generate. After a kill at any point, the same command continues.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from miniwin.commands.printing import say, write

if TYPE_CHECKING:
    from miniwin.search.study_data import StudyData
    from miniwin.zoo import Entry

SEARCH, ENTRY, PROMPT = "demo", "demo-winner", "def main("


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the study and the report.")] = Path("demo"),
    workers: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 2,
    fresh: Annotated[bool, typer.Option("--fresh", help="Discard an earlier demo in that folder first.")] = False,
) -> None:
    """Search a few small architectures, compare the winner with a baseline, add it to your zoo, generate from it."""
    import shutil

    from miniwin.commands.specs import LENGTHS, print_explanation
    from miniwin.explain import explanation
    from miniwin.loading import load
    from miniwin.search import run_search
    from miniwin.search.live_table import summary
    from miniwin.search.report import write_report
    from miniwin.specs import load_model_spec, user_path

    out = user_path(out)
    study = out / "search"
    if fresh and study.exists():
        shutil.rmtree(study)
    _say(f"miniwin search run {SEARCH} --out {study} --workers {workers}")
    data = run_search(SEARCH, out=study, workers=workers)
    for line in summary(data):
        say(line)

    report = out / "report.html"
    _say(f"miniwin search report {study} --out {report}")
    say(f"report: {write_report(study, report)}")

    entry = _promoted(study)
    _say(f"miniwin explain {entry.ref}")
    print_explanation(explanation(load_model_spec(entry.folder / "model.yaml"), LENGTHS))

    _say(f"miniwin generate {entry.ref} --prompt '{PROMPT}'")
    load(entry.ref).generate(PROMPT, max_new_tokens=200, seed=0, stream=write)
    say(f"\n\n{_verdict(data)}")
    say(f"open {report}: the search, the winner against the baseline, loss by length (works without network)")
    say(f"try  miniwin generate miniwin-1m --prompt '{PROMPT}'   a model that was trained for longer")
    say("     miniwin search run period-window-ratio --workers 2   the same search at a serious size")


def _promoted(study: Path) -> Entry:
    """The winner in the user's zoo. It is added once for each study, however often the demo runs."""
    from miniwin.search import promote
    from miniwin.search.study import Study
    from miniwin.zoo import list_entries

    study_id = Study(study).about["id"]
    for entry in list_entries():
        if entry.name == ENTRY and entry.provenance.get("study_id") == study_id:
            say(f"\n{entry.ref} is in the zoo already: {entry.folder}")
            return entry
    _say(f"miniwin search promote {study} --name {ENTRY}")
    entry = promote(study, name=ENTRY, description="What `make demo` found: trained for seconds, not for use.")
    say(f"added {entry.ref}: {entry.folder}")
    return entry


def _verdict(data: StudyData) -> str:
    """Winner against baseline, at every length at which both were measured."""
    best, baseline = data.best, data.baseline
    assert best is not None and baseline is not None and best.train is not None
    trained = best.train.longest
    lines = [f"bits per byte on the validation text that the winner was chosen on, trained at {trained} tokens:"]
    for length in sorted(set(best.losses) & set(baseline.losses)):
        mine, theirs = best.bits_per_byte[length], baseline.bits_per_byte[length]
        lines.append(
            f"  at {length:>6} ({length // trained:>2}x)   winner {best.layout} {mine:.3f}   baseline {theirs:.3f}"
        )
    return "\n".join(lines)


def _say(command: str) -> None:
    say(f"\n$ {command}")
