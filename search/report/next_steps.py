"""What to do next, in plain sentences: each follows from facts of the study, and has a command where one helps."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from statistics import fmean, variance
from typing import Any

from miniwin.display.formats import plural
from miniwin.display.page.sheet import copyable
from miniwin.files.folders import home
from miniwin.search.confirm import words
from miniwin.search.confirm.result import Result
from miniwin.search.ladder import words as ladder
from miniwin.search.ladder.plan import size_text
from miniwin.search.objectives import chief
from miniwin.search.report.importance import FEWEST, Importance
from miniwin.search.report.measures import known, measure
from miniwin.search.study_data import StudyData, TrialRecord
from miniwin.specs.data import without_test
from miniwin.specs.variables import ChoiceVariable, IntVariable

CLOSE = 0.005  # a difference of this share of the loss may come from the seed alone
MANY = 200  # trials with which a difference that matters would show
SIZES = (1, 2, 4)  # of a ladder, in sizes of the winner
NAMED = 5  # trials that a sentence names
HEALING = 1_000_000  # tokens that are proposed for a winner that was not trained


@dataclass(frozen=True)
class Step:
    """command: what to type, if that is all."""

    text: str
    command: str | None = None


def section(study: StudyData, shares: Sequence[Importance]) -> str:
    found = steps(study, shares)
    items = (f"<li>{escape(step.text)}{copyable(step.command) if step.command else ''}</li>" for step in found)
    return f'<ol class="steps">{"".join(items)}</ol>' if found else ""


def steps(study: StudyData, shares: Sequence[Importance]) -> list[Step]:
    """The most urgent first."""
    found = [*_unfinished(study)]
    if study.best is not None:
        found += [*_beaten(study, study.best), *_confirm(study), *_climb(study), *_edges(study, study.best, shares)]
        found += [*_close(study, study.best), *_unknown(study, shares)]
    return found


def command(study: StudyData, verb: str, *options: str) -> str:
    """A command about this study, by its name where that is enough."""
    at_home = study.folder.resolve() == (home() / "searches" / study.name).resolve()
    return shlex.join(["miniwin", "search", verb, study.name if at_home else str(study.folder), *options])


def _unfinished(study: StudyData) -> Iterator[Step]:
    trained, wanted = len(study.trained), study.spec.budget.trials
    if failed := [trial for trial in study.trials if trial.state == "failed"]:
        reason = f", the last with: {failed[-1].reason}" if failed[-1].reason else ""
        yield Step(
            f"{plural(len(failed), 'trial')} failed{reason}. The next run tries failed trials again.",
            command(study, "resume"),
        )
    if study.searched:
        if study.exhausted and trained < wanted:
            yield Step(
                f"All {study.assignments:g} assignments of the variables have been tried, for a budget of {wanted} "
                "trials. To learn more, widen the variables: a study goes on with wider ones."
            )
        return
    if any(trial.alive for trial in study.trials):
        yield Step(f"The search is running: {trained} of {plural(wanted, 'trial')} are trained.")
    elif not failed:
        left = wanted - trained
        yield Step(
            f"The budget is not spent: {plural(left, 'trial')} of {wanted} {'is' if left == 1 else 'are'} left."
            if left > 0
            else "The search is not over.",
            command(study, "resume"),
        )


def _beaten(study: StudyData, best: TrialRecord) -> Iterator[Step]:
    objective = chief(study.objectives)
    sign = 1 if objective.direction == "minimize" else -1
    ours = known(best.values.get(objective.name))
    theirs = known(study.baseline.values.get(objective.name)) if study.baseline is not None else math.nan
    if sign * theirs < sign * ours:
        title = measure(objective, study.train.longest).title
        yield Step(f"The baseline is better in {title} than every trial: search another space, or longer.")


def _confirm(study: StudyData) -> Iterator[Step]:
    if not study.searched:
        return
    found = study.confirmation
    if found is None or (found.result is None and not found.trainings):
        seeds = "" if study.untrained else f", with {_seeds(study)}"
        chosen = f"The winner is measured on the text that it was chosen by{seeds}"
        if lacking := without_test(study.train.data):
            yield Step(
                f"{chosen}, and it cannot be confirmed: the data keep nothing back for a test ({lacking[0]} of the "
                "train spec). Set test_fraction there, such as 0.05, and search anew."
            )
        else:
            yield Step(f"{chosen}: confirm it on text that nothing has seen.", command(study, "confirm"))
    elif words.progress(found):
        yield Step("The confirmation is not over.", command(study, "resume"))
    elif words.outdated(found):
        yield Step("The confirmation is of fewer trials, or of another wish.", command(study, "resume"))
    elif found.result is not None and found.result.comparisons:
        yield from _after(study, found.result)


def _seeds(study: StudyData) -> str:
    return "one seed" if study.spec.seeds == 1 else f"{study.spec.seeds} seeds"


def _after(study: StudyData, result: Result) -> Iterator[Step]:
    """What follows from a confirmation that is over."""
    pair = result.comparisons[0]
    measured = next((one for one in pair.measures if one.name == result.chosen_by), None)
    if measured is None:
        return
    seeds = len(result.seeds)
    if study.untrained:
        yield from _after_measuring(study, pair.first, words.other(pair), measured.verdict)
    elif measured.verdict == "not distinguishable":
        yield Step(
            f"{pair.first.capitalize()} and {words.other(pair)} cannot be told apart with {plural(seeds, 'seed')}: "
            "more seeds make the interval narrower.",
            command(study, "confirm", "--seeds", str(2 * seeds)),
        )
    elif measured.verdict == "better" and study.best is not None:
        name, tokens = f"{study.name.lower()}-winner", str(10 * study.train.tokens)
        trial = str(study.best.number)
        yield Step(
            f"{pair.first.capitalize()} is better than {words.other(pair)} on unseen text: train it for longer.",
            command(study, "promote", "--trial", trial, "--name", name, "--tokens", tokens),
        )
        if study.ladder is None and study.baseline is not None and study.best.spec is not None:
            size = study.best.spec.parameters()
            sizes = ",".join(size_text(round(float(f"{times * size:.2g}"))) for times in SIZES)
            yield Step(
                "Whether that holds at other sizes, a ladder says. It predicts the largest size before it trains it.",
                command(study, "ladder", "--sizes", sizes),
            )


def _after_measuring(study: StudyData, first: str, other: str, verdict: str) -> Iterator[Step]:
    """What follows from a confirmation without training."""
    if verdict == "not distinguishable":
        yield Step(
            f"{first.capitalize()} and {other} cannot be told apart on this text: more of it might (confirm.tokens)."
        )
    elif study.best is not None:
        name, trial = f"{study.name.lower()}-winner", str(study.best.number)
        yield Step(
            f"{first.capitalize()} is {verdict} than {other} on unseen text, without training: some training from "
            "these weights on may close a gap.",
            command(study, "promote", "--trial", trial, "--name", name, "--tokens", str(HEALING)),
        )


def _climb(study: StudyData) -> Iterator[Step]:
    """Go on with a ladder."""
    if study.ladder is not None and ladder.progress(study.ladder) and not study.ladder.problem:
        yield Step("The ladder is not over.", command(study, "ladder"))


def _edges(study: StudyData, best: TrialRecord, shares: Sequence[Importance]) -> Iterator[Step]:
    """Variables of which the winner has the largest or the smallest value, if they are not known not to matter."""
    of_chief = _of_chief(study, shares)
    if of_chief is not None and of_chief.of >= FEWEST and not of_chief.shares:
        return  # none can be told from chance
    for name, variable in study.spec.variables.items():
        ends, value = _ends(variable), best.params.get(name)
        share = of_chief.shares.get(name) if of_chief is not None else None
        if ends is None or not _number(value) or (share is not None and share.chance):
            continue
        low, high = ends
        if value == high > low:
            yield Step(f"The winner's {name}, {value:g}, is the largest that was allowed: allow larger ones.")
        elif value == low < high and not (isinstance(variable, IntVariable) and low <= 1):
            yield Step(f"The winner's {name}, {value:g}, is the smallest that was allowed: allow smaller ones.")


def _ends(variable: Any) -> tuple[float, float] | None:
    """The smallest and the largest value that a variable of numbers may have."""
    if isinstance(variable, ChoiceVariable):
        numbers: list[Any] = [choice for choice in variable.choice if _number(choice)]
        return (min(numbers), max(numbers)) if len(numbers) == len(variable.choice) else None
    ends = getattr(variable, "int", None) or getattr(variable, "float", None)
    return None if ends is None else (ends[0], ends[1])


def _close(study: StudyData, best: TrialRecord) -> Iterator[Step]:
    """Trials that wait at a rung, where they were as good as the winner, or nearly so."""
    objective = chief(study.objectives)
    if not objective.measured:
        return
    sign, noise = (1 if objective.direction == "minimize" else -1), _noise(study)
    there = {rung["tokens"]: known(rung["values"].get(objective.name)) for rung in best.rungs}
    found: list[TrialRecord] = []
    for trial in study.trials:
        if not trial.rungs or not (trial.waited_to_the_end or trial.state == "paused"):
            continue
        last = trial.rungs[-1]
        theirs, ours = known(last["values"].get(objective.name)), there.get(last["tokens"], math.nan)
        margin = CLOSE * abs(ours) if noise is None else 2 * noise
        if sign * (theirs - ours) <= margin:
            found.append(trial)
    if found:
        named = ", ".join(str(trial.number) for trial in found[:NAMED]) + (", ..." if len(found) > NAMED else "")
        near = f"{CLOSE:.1%} of the winner's value" if noise is None else "the noise of seeds from the winner"
        trials = study.spec.budget.trials
        were, more = ("was", "it goes") if len(found) == 1 else ("were", "the best of them go")
        yield Step(
            f"{plural(len(found), 'trial')} ({named}) stopped at a rung, and {were} there within {near}, or better. "
            f"With a larger budget {more} on.",
            command(study, "resume", "--trials", str(trials + max(len(found), trials // 4)))
            if study.searched
            else None,
        )


def _noise(study: StudyData) -> float | None:
    """How much the value of a trial in the chief objective comes of its seeds, as a standard deviation: from the seeds
    of the search, or else of its confirmation. None if nobody knows."""
    name = chief(study.objectives).name
    own = [trial.spread[name] ** 2 for trial in study.completed if math.isfinite(trial.spread.get(name, math.nan))]
    if own:
        return math.sqrt(fmean(own))
    result = None if study.confirmation is None else study.confirmation.result
    spreads = []
    for variant in result.variants if result is not None else ():
        values = [known(run.values.get(name)) for run in variant.runs]
        values = [value for value in values if math.isfinite(value)]
        spreads += [variance(values)] if len(values) > 1 else []
    return math.sqrt(fmean(spreads)) if spreads else None


def _unknown(study: StudyData, shares: Sequence[Importance]) -> Iterator[Step]:
    """What the importances do not say."""
    found = _of_chief(study, shares)
    if found is None or not study.searched:
        return
    title = measure(found.objective, study.train.longest).title
    if not found.shares and found.of >= MANY:
        yield Step(
            f"What was varied made no difference in {title} that {found.of:,} trials could show: search other "
            "variables, or wider ones."
        )
    elif not found.shares and found.of:
        yield Step(
            f"With {plural(found.of, 'trial')} nobody can say which variable matters for {title}: more trials would.",
            command(study, "resume", "--trials", str(2 * study.spec.budget.trials)),
        )
    for one, other in found.ties:
        yield Step(f"Whether {one} or {other} matters more for {title} cannot be told with {found.of:,} trials.")


def _of_chief(study: StudyData, shares: Sequence[Importance]) -> Importance | None:
    name = chief(study.objectives).name
    return next((one for one in shares if one.objective.name == name), None)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
