"""The page of a study: an HTML file that needs no other file and no network.

    write_report(study_folder) -> <study_folder>/report.html

It shows what won and by how much, the front, bits per byte against length for the winner and the baseline, which
variables mattered, how the trials learnt, every trial in a table, and the winner's YAML. All text from a study (names,
choices, reasons, paths) is escaped: a spec may come from anybody.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from miniwin.blocks.messages.escaping import escaped
from miniwin.display.formats import bits_text, count_text, plural, seconds_text
from miniwin.display.page.sheet import copyable, sheet
from miniwin.files.json_files import read_json
from miniwin.files.writing import said_if_unwritable, write_text
from miniwin.search.records import read_study, with_specs
from miniwin.search.report import charts, confirmation, cost, ladder_section, layouts, next_steps
from miniwin.search.report.importance import importances
from miniwin.search.report.measures import LN2, known, measure
from miniwin.search.report.shortlist import note, shortlist
from miniwin.search.report.tables import STATES, length_table, periods, trial_table, windows
from miniwin.search.study_data import StudyData, TrialRecord
from miniwin.specs import UserError, dump_yaml, user_path

# Sections below the charts, in this order: a title, and the HTML from the study; an empty one is left out.
SECTIONS: tuple[tuple[str, Callable[[StudyData], str]], ...] = (
    ("Layouts of the best", layouts.section),
    ("Confirmed on unseen text", confirmation.section),
    ("At other sizes", ladder_section.section),
    ("What it cost", cost.section),
)

EQUAL = 0.005  # a difference up to this share of the loss may come from the seed alone


def write_report(study_folder: Path | str, out: Path | str | None = None) -> Path:
    """Write the report of a study, finished or not, and return its path.

    study_folder: the folder or the name of the study. out: the file; None: report.html in the study folder. An older
    report is replaced in one step.
    """
    study = read_study(study_folder)
    target = study.folder / "report.html" if out is None else user_path(out)
    if target.is_dir():
        example = target / "report.html"
        raise UserError(f"--out {target} is a folder; expected the name of a file, such as {example}")
    page = render(study)
    with said_if_unwritable(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        write_text(target, page)
    return target


def render(study: StudyData) -> str:
    """The page as text."""
    drawn = with_specs(shortlist(study))  # to read the specs of all takes seconds, where they are thousands
    read = {trial.number: trial for trial in drawn.trials}
    study = replace(study, baseline=drawn.baseline, trials=[read.get(t.number, t) for t in study.trials])
    baseline = [] if study.baseline is None else [study.baseline]
    lengths = sorted({n for trial in [*study.trials, *baseline] for n in trial.losses})
    several = len(study.objectives) > 1
    shares = importances(study.spec, study.trials)
    best = study.best
    said = [*verdict(study), *_tuning(study), *confirmation.sentences(study), *ladder_section.sentences(study)]
    parts = [_header(study), *map(_sentence, said), _facts(study)]
    if todo := next_steps.section(study, shares):
        parts.append(_section("What to do next", todo))
    parts.append('<div class="figures">')
    if front := charts.front_chart(drawn, lengths[-1] if lengths else None):
        parts.append(_section("The front" if several else "Quality against memory", front))
    if by_length := charts.length_chart(drawn):
        parts.append(_section("Beyond the training length", by_length + length_table(drawn)))
    bars = "".join(charts.importance_chart(share, f"share-{n}", study.train.longest) for n, share in enumerate(shares))
    parts.append(_section("Which variable mattered", _IMPORTANCE + bars))
    if curves := charts.curve_chart(drawn, study.trials):
        parts.append(_section("While training", curves))
    parts.append("</div>")
    parts += [_section(title, body) for title, of in SECTIONS if (body := of(study))]
    which = note(study)
    title = "The trials" if which else f"All {plural(len(study.trials), 'trial')}"
    parts.append(
        _section(title, (f'<p class="note">{escape(which)}</p>' if which else "") + trial_table(drawn, lengths))
    )
    if best is not None:
        parts.append(_section("The winner", _winner(study, best)))
    asked = _folded("The search spec", dump_yaml(study.spec)) + _folded("The train spec", dump_yaml(study.train))
    parts.append(_section("What was asked", asked))
    parts.append(_footer(study))
    # Also escaped: characters that reverse the direction of text, and halves of surrogate pairs.
    return escaped(sheet(f"{study.name}: MiniWin search report", "\n".join(parts)))


def verdict(study: StudyData) -> list[str]:
    """In plain words: what won, and how it compares with the baseline."""
    best = study.best
    if best is None:
        return ["No trial has completed yet, so there is no winner. The same search command continues this study."]
    goals = []
    for objective in study.objectives:
        shown, value = measure(objective, study.train.longest), known(best.values.get(objective.name))
        if not math.isfinite(value):
            continue
        text = f"{shown.title}: {shown.text(value * shown.factor)}"
        if objective.name in best.spread:
            text += f" ± {abs(best.spread[objective.name] * shown.factor):.2g}"
        other = known(study.baseline.values.get(objective.name)) if study.baseline is not None else math.nan
        if math.isfinite(other):
            text += f" (baseline {shown.text(other * shown.factor)}{_ratio(value, other)})"
        goals.append(text)
    return [_beyond(study, best), *([f"At what was asked for: {'; '.join(goals)}."] if goals else [])]


def _tuning(study: StudyData) -> list[str]:
    """What is to be said of tuned learning rates: how they were found, and where a wider sweep might help."""
    asked = study.spec.learning_rate
    if asked is None:
        return []
    rates = ", ".join(f"{rate:g}" for rate in asked.rates(study.train.optimizer.lr))
    said = f"Each trial and the baseline tuned the learning rate: {rates}, on {asked.share:.0%} of the tokens each."
    labels = [trial.label for trial in (study.best, study.baseline) if trial is not None and trial.rate_at_edge]
    edge = f" The best rate of {' and of the '.join(labels)} is at the edge of these: a wider sweep may suit it better."
    return [said + (edge if labels else "")]


def _beyond(study: StudyData, best: TrialRecord) -> str:
    """The comparison at 8 times the training length, or at the longest length that was measured."""
    seq_len, baseline = study.train.longest, study.baseline
    shape = ", ".join(
        [best.layout, *(f"{word} {of(best)}" for word, of in (("window", windows), ("period", periods)) if of(best))]
    )
    so_far = f"leads so far, after {len(study.trained)} of {plural(study.spec.budget.trials, 'trial')}"
    won = f"Trial {best.number} ({shape}) {'won' if study.searched else so_far}."
    comparable = _finite(best.losses)
    if baseline is not None and (both := comparable & _finite(baseline.losses)):
        comparable = both
    if not comparable:
        return f"{won} It has not been measured at several lengths."
    length = 8 * seq_len if 8 * seq_len in comparable else max(comparable)
    ours = best.losses[length] / LN2
    won += (
        f" It needs {bits_text(ours)} bits per byte at {length:,} tokens, {length / seq_len:.4g} times its training"
        f" length of {seq_len:,}"
    )
    if baseline is None:
        return f"{won}. There is no baseline to compare with."
    theirs = known(baseline.losses.get(length)) / LN2
    if not math.isfinite(theirs):
        return f"{won}. The baseline has not been measured there ({baseline.reason or baseline.state})."
    name = baseline.spec.name if baseline.spec is not None else "model"
    how = "with the same weights" if study.untrained else f"trained with {_tokens(best, baseline)}"
    won += f"; the baseline {name}, {how}, needs {bits_text(theirs)}"
    if abs(ours - theirs) <= EQUAL * theirs:
        return f"{won}: no difference to speak of{'' if study.untrained else f', on {_seeds(study)}'}."
    if ours < theirs:
        return f"{won}: {1 - ours / theirs:.1%} fewer for the winner."
    return f"{won}: the baseline is better, by {1 - theirs / ours:.1%}."


def _header(study: StudyData) -> str:
    goals = " and ".join(study.spec.objectives)
    limits = f", with {' and '.join(study.spec.constraints)}" if study.spec.constraints else ""
    return (
        f'<header><p class="kind">MiniWin search report</p><h1>{escape(study.name)}</h1>'
        f'<p class="soft">Asked to {escape(goals + limits)}.</p></header>'
    )


def _facts(study: StudyData) -> str:
    states = Counter(trial.state for trial in study.trials)
    everything = [*study.trials, *([] if study.baseline is None else [study.baseline])]
    facts = [("Trained", f"{len(study.trained):,} of {plural(study.spec.budget.trials, 'trial')}", False)]
    lengths = " and ".join(f"{length:,}" for length in study.train.lengths)
    each = "" if study.spec.seeds == 1 else f"{_seeds(study)}, each "
    # The first four states are always shown, also with a zero.
    facts += [(state.title(), f"{states[state]:,}", False) for n, state in enumerate(STATES) if n < 4 or states[state]]
    facts += [
        ("Time, all trials", seconds_text(sum(t.seconds for t in everything)), False),
        ("Tokens, all trials", count_text(sum(t.tokens for t in everything)), False),
        ("Each trial", f"{each}{count_text(study.train.tokens)} tokens of length {lengths}", False),
    ]
    if study.untrained:
        facts[-1] = ("Each trial", "measured without training", False)
    if study.spec.weights is not None:
        facts.append(("Weights", study.spec.weights, True))
    about = _about(study)
    data, machine = (found if isinstance(found := about.get(key), dict) else {} for key in ("data", "machine"))
    if data or study.untrained:
        data = data or {"source": study.train.data.source}
        facts.append(("Data", str(data.get("source", "")), False))
    words = [
        str(machine.get("gpu") or machine.get("cpu") or ""),
        plural(machine["cores"], "core") if isinstance(machine.get("cores"), int) else "",
        *(f"{name} {machine[key]}" for name, key in (("torch", "torch"), ("Python", "python")) if machine.get(key)),
    ]
    facts.append(("Machine", ", ".join(filter(None, words)), True))
    facts.append(("Code", f"miniwin {about['code']}" if about.get("code") else "", True))
    rows = (
        f"<div{WIDE if wide else ''}><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value, wide in facts
        if value
    )
    return f'<dl class="facts">{"".join(rows)}</dl>'


WIDE = ' class="wide"'
_IMPORTANCE = (
    '<p class="note">A share of the difference between the best trials and all of them (PED-ANOVA). Whiskers: 95 %, '
    "over samples drawn from the trials.</p>"
)


def _about(study: StudyData) -> dict[str, Any]:
    """run.json of the best trial, or of the first trial that has one: data, machine and code."""
    for trial in [*([] if study.best is None else [study.best]), *study.trials]:
        if trial.run_folder is None:
            continue
        try:
            about = read_json(trial.run_folder / "run.json", names=True)
        except (OSError, ValueError):
            continue
        if isinstance(about, dict):
            return about
    return {}


def _winner(study: StudyData, best: TrialRecord) -> str:
    promote = next_steps.command(
        study, "promote", "--trial", str(best.number), "--name", f"{study.name.lower()}-winner"
    )
    tokens, more = 10 * study.train.tokens, "trained afresh, on ten times as many"
    if study.untrained:
        tokens, more = next_steps.HEALING, "trained, from these weights on"
    return (
        f"<p>Make trial {best.number} an entry of your zoo, to load and to share. With "
        f"<code>--tokens {tokens}</code> it is first {more}.</p>"
        f"{copyable(promote)}" + (_folded("Its model spec", dump_yaml(best.spec)) if best.spec is not None else "")
    )


def _footer(study: StudyData) -> str:
    from miniwin.version import __version__

    seeds = "one seed"
    if study.spec.seeds > 1:
        seeds = f"{_seeds(study)}: its values are means, ± their standard errors"
    if study.untrained:
        seeds = "the same weights in another architecture, measured once"
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return (
        "<footer>Bits per byte is the cross-entropy on held-out text divided by the bytes of that text: lower is "
        "better, and it does not depend on the tokenizer. Pruned trials were stopped before their budget was spent; "
        "infeasible ones broke a constraint and duplicates repeated an architecture, so neither was trained. Every "
        f"trial is {seeds}.<br>Written by MiniWin {escape(__version__)}, {now}.</footer>"
    )


def _seeds(study: StudyData) -> str:
    return "one seed" if study.spec.seeds == 1 else plural(study.spec.seeds, "seed")


def _folded(title: str, text: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{copyable(text)}</details>"


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def _sentence(text: str) -> str:
    return f'<p class="verdict">{escape(text)}</p>'


def _finite(losses: Mapping[int, float]) -> set[int]:
    return {n for n, loss in losses.items() if math.isfinite(known(loss))}


def _tokens(best: TrialRecord, baseline: TrialRecord) -> str:
    if best.tokens_each == baseline.tokens_each:
        return f"the same {count_text(best.tokens_each)} tokens"
    return f"{count_text(baseline.tokens_each)} tokens"


def _ratio(ours: float, theirs: float) -> str:
    """How many times larger the larger value is, if it is at least half as large again; else nothing."""
    if min(ours, theirs) <= 0 or max(ours, theirs) < 1.5 * min(ours, theirs):
        return ""
    if theirs > ours:
        return f", {theirs / ours:.3g} times as much"
    return f"; the winner's is {ours / theirs:.3g} times as much"
