"""`miniwin search ladder`: asking for a ladder of a study, or going on with one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from miniwin.display.formats import plural
from miniwin.search.confirm.scores import test_tokens
from miniwin.search.ladder.keeping import FOLDER
from miniwin.search.ladder.page import write_pages
from miniwin.search.ladder.plan import Plan, read_plan, size_text, write_plan
from miniwin.search.ladder.planning import APART, FEWEST_SIZES, Wish, make_plan, notes
from miniwin.search.ladder.standing import find_ladder
from miniwin.search.ladder.words import GROWN, RATES, about, stuck
from miniwin.search.launchers.launcher import Launcher
from miniwin.search.records import collect
from miniwin.search.resuming import resume_search
from miniwin.search.spec_errors import SpaceError
from miniwin.search.study import Study, find_study
from miniwin.search.study_data import StudyData
from miniwin.specs import ModelSpec, UserError, parse_spec
from miniwin.specs.data import has_text, without_test

UNITS = {"k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9}
MOST = 1e15


def ladder_search(
    study: str | Path,
    *,
    sizes: Sequence[int] | None = None,
    top: int | None = None,
    seeds: int | None = None,
    largest_seeds: int | None = None,
    tokens_per_parameter: float | None = None,
    grow: str | None = None,
    learning_rate: str | None = None,
    length: int | None = None,
    workers: int | None = None,
    tracking: str | None = None,
    progress: bool = True,
    launcher: str | Path | Launcher = "local",
    launcher_options: Sequence[str] = (),
) -> StudyData:
    """Train the best trials of a study and its baseline at several sizes, the largest last, and predict the largest
    from the others before it is trained.

    The plan is kept in the folder of the study, so `resume_search` goes on with it. study: its folder or its name.
    sizes: numbers of parameters, three or more, increasing; None: those of the ladder that is there. top: how many of
    the best trials (1). seeds: at each size but the largest (3). largest_seeds: at the largest (1).
    tokens_per_parameter: of the baseline (20); other variants are trained for as many FLOPs. grow: `stack` or `stretch`
    (growing.py); None: stack where the layout is a repeated pattern. learning_rate: `constant` (the default), or
    `width`, which lets it fall as 1 / width. length: of the loss; None: the training length.
    workers, tracking, launcher, launcher_options: as of `resume_search`.

    Raises:
        UserError: there is no such study; its trials are not over; it has no baseline, no text or no test split; a size
            cannot be reached; there is a ladder of another plan; or a training that the result needs diverged.
    """
    wish = Wish(sizes, top, seeds, largest_seeds, tokens_per_parameter, grow, learning_rate, length)
    opened = Study(find_study(study))
    plan = plan_ladder(opened, wish)
    with opened.lock:
        if read_plan(opened) is None:
            write_plan(opened, plan)
    data = resume_search(
        opened.folder,
        workers=workers,
        tracking=tracking,
        progress=progress,
        launcher=launcher,
        launcher_options=launcher_options,
    )
    assert data.ladder is not None
    if broken := stuck(data.ladder):
        raise UserError(broken[0].removeprefix("note: "))
    if data.ladder.result is not None:
        write_pages(data.folder, data.ladder.result)  # a worker on another machine has written them there
    return data


def plan_ladder(study: Study, wish: Wish) -> Plan:
    """The plan of a study's ladder: the one that has begun, if it is as asked, or a new one, which is not written yet.

    Raises:
        UserError: see `ladder_search`.
    """
    _check(wish)
    there = find_ladder(study)
    if there is not None and there.problem is not None:
        raise UserError(there.problem)
    if there is not None and there.plan is not None:
        _check_same(study, there.plan, wish)
        return there.plan
    data = collect(study)
    _check_study(study, data, wish)
    plan = make_plan(study, data, wish)
    _check_text(study, plan)
    return plan


def plan_lines(plan: Plan) -> list[str]:
    """What a ladder trains, for a terminal."""
    found = [f"ladder: {about(plan)}"]
    for size in plan.sizes:
        for member, model in zip(plan.members, size.models, strict=True):
            spec = parse_spec(model.model, "model")
            assert isinstance(spec, ModelSpec)
            found.append(
                f"  {size_text(size.target)}  {member.label}: {model.parameters:,} parameters, {spec.layout}, "
                f"hidden_size {spec.hidden_size}, {model.tokens:,} tokens, {model.flops:.3g} FLOPs, "
                f"{plural(len(size.seeds), 'seed')}"
            )
    every = sum(model.flops * len(size.seeds) for size in plan.sizes for model in size.models)
    return [*found, f"  {every:.3g} FLOPs in all", *(f"  note: {note}" for note in notes(plan))]


def parse_sizes(option: str, text: str) -> list[int]:
    """The numbers of parameters that `0.3M,1M,3e6` says.

    Raises:
        UserError: a part is no number. option: named in the message.
    """
    found = []
    for part in text.split(","):
        plain = part.strip().replace("_", "")
        factor = UNITS.get(plain[-1:].lower(), 1)
        try:
            value = float(plain if factor == 1 else plain[:-1]) * factor
        except ValueError:
            value = math.nan
        if not 1 <= value < MOST:
            raise UserError(f"{option}: got {part.strip()!r}; expected numbers of parameters, such as 0.3M,1M,3M")
        found.append(round(value))
    return found


def _check(wish: Wish) -> None:
    """What is wrong with the options by themselves."""
    if wish.sizes is not None:
        shown = ", ".join(map(size_text, wish.sizes))
        if len(wish.sizes) < FEWEST_SIZES:
            raise UserError(f"--sizes: got {shown}; expected at least {FEWEST_SIZES}, such as 0.3M,1M,3M")
        if any(after <= before for before, after in pairwise(wish.sizes)):
            raise UserError(f"--sizes: got {shown}; expected each size to be larger than the one before")
    for option, word, known in (("--grow", wish.grow, GROWN), ("--learning-rate", wish.learning_rate, RATES)):
        if word is not None and word not in known:
            raise UserError(f"{option}: got {word!r}; expected {' or '.join(known)}")
    for option, count, least, most in (
        ("--top", wish.top, 1, None),
        ("--seeds", wish.seeds, 2, APART),  # from one seed nothing is known about others
        ("--largest-seeds", wish.largest_seeds, 1, APART),
        ("--length", wish.length, 1, None),
    ):
        if count is not None and count < least:
            raise UserError(f"{option}: got {count}; expected at least {least}")
        if count is not None and most is not None and count > most:
            raise UserError(f"{option}: got {count}; expected at most {most}")
    per = wish.tokens_per_parameter
    if per is not None and not 0 < per < MOST:
        raise UserError(f"--tokens-per-parameter: got {per:g}; expected a number above 0, and below {MOST:g}")


def _check_study(study: Study, data: StudyData, wish: Wish) -> None:
    """What is wrong with the study."""
    folder = study.folder
    if wish.sizes is None:
        raise UserError(f"{folder} has no ladder yet: say which sizes, such as --sizes 0.3M,1M,3M")
    if study.spec.weights is not None:
        raise UserError(
            f"{folder} begins with the weights of {study.spec.weights}, which have one size, and a ladder trains at "
            "several: search from random weights for a ladder"
        )
    if study.baseline is None:
        raise UserError(
            f"{folder} has no baseline to hold its winner against: search with `baseline: MODEL` in the search spec, "
            "and with another --out"
        )
    if not has_text(study.train.data):
        raise UserError(f"{folder} was trained on tasks alone, and a ladder is about the loss of text")
    if lacking := without_test(study.train.data):
        raise UserError(
            f"{folder}: its data keep nothing back for a test ({lacking[0]} of the train spec, source {lacking[1]}), "
            "and its trials have seen all of them; set test_fraction, such as 0.05, or test_paths there, and search "
            "anew with another --out"
        )
    if not data.searched:
        raise UserError(
            f"{folder} is not finished ({len(data.trained)} of {data.spec.budget.trials} trials are trained), so its "
            "winner is not known: miniwin search resume goes on with it"
        )
    if not data.ranked:
        raise UserError(f"{folder} has no complete trial, and so no winner")
    if wish.top is not None and wish.top > len(data.ranked):
        where = "on the front" if len(data.objectives) > 1 else "that are complete"
        raise UserError(
            f"--top: got {wish.top}; {folder} has {len(data.ranked)} trials {where}: expected at most as many"
        )


def _check_text(study: Study, plan: Plan) -> None:
    """UserError if the test split is too short for a piece of the longest length."""
    from miniwin.data import prepare
    from miniwin.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(study.train.tokenizer, study.train_base)
    corpus = prepare(study.train.data, tokenizer, study.train_base)
    try:
        test_tokens(study.spec, plan.measured, study.space.train, corpus)
    except SpaceError as error:
        raise UserError(f"{study.folder}: {error.problems[0].message}") from None


def _check_same(study: Study, plan: Plan, wish: Wish) -> None:
    """UserError if another ladder is asked for than the one that is there."""
    lower, largest = len(plan.sizes[0].seeds), len(plan.sizes[-1].seeds)
    asked = [
        ("--sizes", None if wish.sizes is None else list(wish.sizes), plan.targets),
        ("--top", wish.top, len(plan.members) - 1),
        ("--seeds", wish.seeds, lower),
        ("--largest-seeds", wish.largest_seeds, largest),
        ("--tokens-per-parameter", wish.tokens_per_parameter, plan.tokens_per_parameter),
        ("--grow", wish.grow, plan.grow),
        ("--learning-rate", wish.learning_rate, plan.learning_rate),
        ("--length", wish.length, plan.length),
    ]
    for option, now, before in asked:
        if now is not None and now != before:
            raise UserError(
                f"{option}: got {_shown(now)}, and {study.folder} has a ladder with {_shown(before)}, whose prediction "
                f"must not change: leave the option out to go on with it, or {_anew(study)}"
            )


def _anew(study: Study) -> str:
    if study.stored:
        return "search anew, since a study in a database has one ladder"
    return f"move {study.folder / FOLDER} away to begin another"


def _shown(value: object) -> str:
    return ", ".join(map(size_text, value)) if isinstance(value, list) else f"{value}"
