"""What to do next: each sentence follows from a fact, and is not there without it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from html_page import Page
from report_helpers import confirmed, make_study, search_spec

from miniwin.search.report import render
from miniwin.search.report.importance import importances
from miniwin.search.report.next_steps import steps
from miniwin.search.study_data import StudyData, TrialRecord


@pytest.fixture
def study(tmp_path: Path) -> StudyData:
    return make_study(tmp_path / "study", trials=40, several=False)


def said(study: StudyData) -> dict[str, str | None]:
    return {step.text: step.command for step in steps(study, importances(study.spec, study.trials))}


def command(study: StudyData, beginning: str) -> str | None:
    """What follows the name of the study in the command of the one sentence that begins so."""
    (found,) = (command for text, command in said(study).items() if text.startswith(beginning))
    return None if found is None else found.replace(str(study.folder), "STUDY")


def with_budget(study: StudyData, trials: int) -> StudyData:
    budget = study.spec.budget.model_copy(update={"trials": trials})
    return replace(study, spec=study.spec.model_copy(update={"budget": budget}))


def kept_back(study: StudyData) -> StudyData:
    """The study, of data that keep a part back for a test."""
    data = study.train.data.model_copy(update={"test_fraction": 0.05})
    return replace(study, train=study.train.model_copy(update={"data": data}))


def test_what_is_left_of_the_search_comes_first(study: StudyData) -> None:
    more = with_budget(study, len(study.trained) + 3)
    assert next(iter(said(more))) == f"The budget is not spent: 3 trials of {len(study.trained) + 3} are left."
    assert command(more, "The budget is not spent") == "miniwin search resume STUDY"
    assert not any(text.startswith("The budget") for text in said(study))
    running = replace(more, trials=[*more.trials, TrialRecord(99, "running", {}, alive=True)])
    assert next(iter(said(running))).startswith("The search is running: ")
    failed = replace(study, trials=[*study.trials, TrialRecord(99, "failed", {}, reason="KeyError: 'x'")])
    assert command(failed, "1 trial failed, the last with: KeyError: 'x'. The next run tries") is not None
    tried = replace(more, exhausted=True, assignments=63)
    assert (
        command(
            tried, f"All 63 assignments of the variables have been tried, for a budget of {more.spec.budget.trials}"
        )
        is None
    )
    trained = len(study.trained)
    nothing = {
        f"The budget is not spent: {trained} trials of {trained} are left.": f"miniwin search resume {study.folder}"
    }
    assert said(replace(study, trials=[])) == nothing


def test_a_winner_is_to_be_confirmed_where_that_can_be(study: StudyData) -> None:
    assert (
        command(study, "The winner is measured on the text that it was chosen by, with one seed, and it cannot") is None
    )
    assert command(kept_back(study), "The winner is measured on the text that it was chosen by, with one seed: ") == (
        "miniwin search confirm STUDY"
    )
    assert not any("confirm" in text for text in said(with_budget(kept_back(study), 100)))
    assert not any("chosen by" in text for text in said(confirmed(study, "better")))


def test_what_follows_from_a_confirmation(study: StudyData) -> None:
    best = study.best
    assert best is not None
    equal = confirmed(study, "not distinguishable")
    assert command(equal, f"Trial {best.number} and the baseline cannot be told apart with 3 seeds") == (
        "miniwin search confirm STUDY --seeds 6"
    )
    better = f"Trial {best.number} is better than the baseline on unseen text"
    assert command(confirmed(study, "better"), better) == (
        f"miniwin search promote STUDY --trial {best.number} --name period-window-ratio-winner --tokens 40000000"
    )
    assert best.spec is not None and best.spec.parameters() == 361_552
    assert command(confirmed(study, "better"), "Whether that holds at other sizes, a ladder says.") == (
        "miniwin search ladder STUDY --sizes 0.36M,0.72M,1.4M"
    )
    assert not any("unseen text" in text or "ladder" in text for text in said(confirmed(study, "worse")))
    assert equal.confirmation is not None
    old = replace(equal, confirmation=replace(equal.confirmation, trained=1))
    assert command(old, "The confirmation is of fewer trials") == "miniwin search resume STUDY"


def test_a_baseline_that_is_better_is_said(study: StudyData) -> None:
    assert study.baseline is not None
    better = replace(study.baseline, values={"loss@4096": 0.1})
    assert (
        "The baseline is better in bits per byte at 4,096 tokens than every trial: search another space, or longer."
        in said(replace(study, baseline=better))
    )
    assert not any("every trial" in text for text in said(study))


def test_a_winner_at_the_edge_of_what_was_allowed_is_said_unless_it_does_not_matter(study: StudyData) -> None:
    assert "The winner's window, 64, is the largest that was allowed: allow larger ones." in said(study)
    assert not any("factor" in text or "ratio" in text for text in said(study)), "they cannot be told from chance"
    wider = search_spec(
        False,
        variables={**search_spec(False).model_dump(mode="json")["variables"], "window": {"choice": [16, 32, 64, 128]}},
    )
    assert not any("allowed" in text for text in said(replace(study, spec=wider)))
    turned = replace(
        study, trials=[replace(t, params={**t.params, "window": 80 - t.params["window"]}) for t in study.trials]
    )
    spec = search_spec(
        False, variables={"window": {"int": [16, 70]}, "ratio": {"int": [1, 7]}, "factor": {"choice": [1, 2, 4]}}
    )
    assert "The winner's window, 16, is the smallest that was allowed: allow smaller ones." in said(
        replace(turned, spec=spec)
    )


def test_trials_that_stopped_within_noise_of_the_winner_are_named(study: StudyData) -> None:
    best = study.best
    assert best is not None
    there = best.rungs[0]["values"]["loss@4096"]

    def stopped(number: int, loss: float, finished: str | None = None) -> TrialRecord:
        rungs = [{"tokens": best.rungs[0]["tokens"], "values": {"loss@4096": loss}}] if best is not None else []
        return TrialRecord(number, "pruned", best.params if best is not None else {}, rungs=rungs, finished=finished)

    others = [t for t in study.trials if t.state != "pruned"]
    near = [stopped(90, there * 1.004), stopped(91, there * 0.9), stopped(92, there * 1.1), stopped(93, there, "over")]
    found = with_budget(replace(study, trials=[*others, *near]), len(others) + 4)
    found = with_budget(found, len(found.trained))
    text = "2 trials (90, 91) stopped at a rung, and were there within 0.5% of the winner's value, or better."
    trials = len(found.trained)
    assert command(found, text) == f"miniwin search resume STUDY --trials {trials + trials // 4}"
    # Once seeds say how much is noise, that counts.
    noisy = confirmed(found, "better", noise=there * 0.06)
    assert (
        command(noisy, "3 trials (90, 91, 92) stopped at a rung, and were there within the noise of seeds") is not None
    )
    quiet = confirmed(found, "better", noise=1e-9)
    assert command(quiet, "1 trial (91) stopped at a rung, and was there within the noise of seeds") is not None
    spread = [replace(t, spread={"loss@4096": there * 0.06}) if t.state == "complete" else t for t in found.trials]
    of_seeds = replace(quiet, trials=spread)
    assert command(of_seeds, "3 trials (90, 91, 92) stopped at a rung") is not None, (
        "the seeds of the search come first"
    )
    far = replace(found, trials=[*others, near[2], near[3]])
    assert not any("stopped" in text for text in said(far))


def test_what_the_importances_do_not_say(study: StudyData) -> None:
    trials = [
        replace(t, values={"loss@4096": float(hash(str(t.number)) % 97)}, rungs=[]) if t.values else t
        for t in study.trials
    ]
    found = said(replace(study, trials=[t for t in trials if t.state != "pruned"]))
    assert found is not None
    shares = importances(study.spec, study.trials)
    tied = replace(shares[0], ties=(("window", "ratio"),))
    texts = [step.text for step in steps(study, [tied])]
    assert (
        f"Whether window or ratio matters more for bits per byte at 4,096 tokens cannot be told with {tied.of} trials."
        in texts
    )
    nothing = replace(shares[0], shares={}, note="No variable can be told from chance with 40 trials.")
    asked = {step.text: step.command for step in steps(study, [nothing])}
    assert not any("allowed" in text for text in asked)
    (more,) = (command for text, command in asked.items() if text.endswith("more trials would."))
    assert more is not None and more.endswith(f"--trials {2 * study.spec.budget.trials}")
    many = {step.text: step.command for step in steps(study, [replace(nothing, of=2000)])}
    said_of_many = "What was varied made no difference in bits per byte at 4,096 tokens that 2,000 trials could show: "
    assert [command for text, command in many.items() if text.startswith(said_of_many)] == [None]


def test_the_page_has_them_with_commands_to_copy(study: StudyData) -> None:
    page = Page(render(confirmed(study, "better")))
    assert "What to do next" in page.words and [attrs.get("class") for attrs in page.all("ol")] == ["steps"]
    assert f"miniwin search promote {study.folder}" in page.words
