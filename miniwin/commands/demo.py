"""`miniwin demo`: a search from end to end on this machine, in minutes. Each step is shown as the command that it is.

Search with early stopping -> confirm on unseen text -> report -> train the winner for longer -> the user's zoo ->
generate. After a kill at any point, the same command continues.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from miniwin.commands.printing import say, write

if TYPE_CHECKING:
    from miniwin.search.study_data import StudyData
    from miniwin.zoo import Entry

SEARCH, ENTRY, PROMPT = "demo", "demo-winner", "def main("
TOKENS = 1_600_000  # of the last training, for which two minutes are left
LONGER = ("batch_size=4",)  # larger steps: more tokens a second
SHOWN, CALM = 300, 0.5  # tokens of text, and its temperature: of so small a model


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

    _say(f"miniwin generate {entry.ref} --prompt '{PROMPT}' --temperature {CALM} -n {SHOWN} --seed 0")
    write(PROMPT)
    load(entry.ref).generate(PROMPT, max_new_tokens=SHOWN, temperature=CALM, seed=0, stream=write)
    say("\n\n" + "\n".join(verdict(data)))
    say(f"open {report}: the search, the winner against the baseline, loss by length (works without network)")
    say(f"try  miniwin generate miniwin-1m --prompt '{PROMPT}'   a model that was trained for longer")
    say("     miniwin search run period-window-ratio --workers 2   the same search at a serious size")


def _promoted(study: Path) -> Entry:
    """The winner in the user's zoo, trained for longer. It is added once a study, however often the demo runs."""
    from miniwin.search import promote
    from miniwin.search.study import Study
    from miniwin.zoo import list_entries

    study_id = Study(study).about["id"]
    for entry in list_entries():
        if entry.name == ENTRY and entry.provenance.get("study_id") == study_id:
            say(f"\n{entry.ref} is in the zoo already: {entry.folder}")
            return entry
    longer = " ".join(f"--set-train {change}" for change in LONGER)
    _say(f"miniwin search promote {study} --name {ENTRY} --tokens {TOKENS} {longer}")
    said = "What `make demo` found, trained for two minutes: not for use."
    entry = promote(study, name=ENTRY, tokens=TOKENS, set_train=LONGER, description=said)
    say(f"added {entry.ref}: {entry.folder}")
    return entry


def verdict(data: StudyData) -> list[str]:
    """Winner against baseline on the text that nothing has seen: at every length, and what the interval says."""
    from miniwin.search.confirm import words

    trained, confirmation = data.train.longest, data.confirmation
    result = None if confirmation is None else confirmation.result
    if result is None or not result.comparisons:
        return [f"{data.name}: no trial came to its end, so there is no winner to confirm"]
    best, baseline = result.variants[0], result.variants[-1]
    lines = [f"bits per byte on the test split, which nothing has seen before; trained at {trained} tokens:"]
    for length in sorted(map(int, best.losses)):
        mine, theirs = best.losses[str(length)], baseline.losses.get(str(length))
        if mine is not None and theirs is not None:
            mine, theirs = mine / math.log(2), theirs / math.log(2)
            lines.append(
                f"  at {length:>6} ({length // trained:>2}x)   winner {best.layout} {mine:.3f}   baseline {theirs:.3f}"
            )
    return [*lines, *words.plainly(result, result.comparisons[0], trained)]


def _say(command: str) -> None:
    say(f"\n$ {command}")
