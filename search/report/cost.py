"""What a search cost, in tokens and seconds, and what it did not cost: trials that were pruned, or repeated others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

from miniwin.display.formats import count_text, plural, seconds_text
from miniwin.display.page.figures import scrolling
from miniwin.search.study_data import StudyData
from miniwin.search.trial_trainings import tokens_of_trial

KINDS = (
    ("complete", "trials trained to the end"),
    ("pruned", "pruned trials"),
    ("paused", "trials that wait at a rung"),
    ("running", "trials being trained"),
    ("failed", "failed trials"),
)
TEXT = ' class="text"'


@dataclass(frozen=True)
class Cost:
    """One line: what was trained, how many, and what it took."""

    what: str
    count: int
    tokens: int
    seconds: float


@dataclass(frozen=True)
class Saved:
    """What was not trained. spent: the tokens of all trials; whole: were each trained to the end.

    duplicates: architectures that were proposed again. Each would have cost what a trial costs on average.
    """

    spent: int
    whole: int
    pruning: int
    duplicates: int
    duplicate_tokens: int
    infeasible: int


def costs(study: StudyData) -> list[Cost]:
    """The lines that there are, and nothing of trials that were taken from another study as they are."""
    own = [trial for trial in study.trials if trial.origin is None]
    found = [
        _sum(what, ((t.tokens, t.seconds) for t in own if t.state == state and (t.tokens or t.seconds)))
        for state, what in KINDS
    ]
    if study.baseline is not None:
        found.append(_sum("the baseline", [(study.baseline.tokens, study.baseline.seconds)]))
    for doing, trainings in study.anew:
        outcomes = [one.outcome for one in trainings if one.outcome is not None]
        what = f"trainings: {doing}"
        found.append(_sum(what, ((one.tokens, one.seconds) for one in outcomes)))
    return [one for one in found if one.count and (one.tokens or one.seconds)]


def saved(study: StudyData) -> Saved:
    trained = [trial for trial in study.trained if trial.tokens]
    tokens = [trial.tokens for trial in trained]
    pruned = [trial.tokens for trial in trained if trial.state == "pruned"]
    # A trial that another takes further is no repetition.
    repeated = [t for t in study.trials if t.state == "duplicate" and (t.duplicate_of or 0) < t.number]
    mean = sum(tokens) / len(tokens) if tokens else 0.0
    whole = tokens_of_trial(study.spec, study.train)
    return Saved(
        spent=sum(tokens),
        whole=len(trained) * whole,
        pruning=sum(max(whole - one, 0) for one in pruned),
        duplicates=len(repeated),
        duplicate_tokens=round(len(repeated) * mean),
        infeasible=sum(trial.state == "infeasible" for trial in study.trials),
    )


def sentences(study: StudyData) -> list[str]:
    found, said = saved(study), []
    if found.pruning:
        said.append(
            f"Pruning saved {count_text(found.pruning)} of {count_text(found.whole)} tokens, "
            f"{found.pruning / found.whole:.0%} of what the trials would have cost to the end."
        )
    if found.duplicates:
        share = f", {found.duplicate_tokens / found.spent:.0%} of what the trials cost" if found.spent else ""
        said.append(
            f"{plural(found.duplicates, 'proposal')} repeated an architecture and cost nothing: as many trials cost "
            f"{count_text(found.duplicate_tokens)} tokens on average{share}."
        )
    if found.infeasible:
        said.append(f"{plural(found.infeasible, 'proposal')} broke a constraint and cost nothing.")
    return said


def section(study: StudyData) -> str:
    rows = costs(study)
    if not rows:
        return ""
    tokens, seconds = sum(one.tokens for one in rows), sum(one.seconds for one in rows)
    body = "".join(_row(one, tokens) for one in rows)
    if len(rows) > 1:
        body += _row(Cost("together", sum(one.count for one in rows), tokens, seconds), tokens, "best")
    heads = ("", "how many", "tokens", "share", "time")
    head = "".join(f'<th scope="col"{"" if place else TEXT}>{one}</th>' for place, one in enumerate(heads))
    said = "".join(f"<p>{escape(text)}</p>" for text in sentences(study))
    return said + scrolling("Cost", f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")


def _row(one: Cost, tokens: int, look: str = "") -> str:
    share = f"{one.tokens / tokens:.0%}" if tokens else "–"
    cells = (f"{one.count:,}", count_text(one.tokens), share, seconds_text(one.seconds))
    kind = f' class="{look}"' if look else ""
    return (
        f'<tr{kind}><th scope="row" class="text">{escape(one.what)}</th>'
        f"{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
    )


def _sum(what: str, parts: Iterable[tuple[int, float]]) -> Cost:
    known = list(parts)
    return Cost(what, len(known), sum(tokens for tokens, _ in known), sum(seconds for _, seconds in known))
