"""Confirming: new seeds, unseen text, the same for the baseline; little is said where little is known."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forked import workers_forked
from html_page import Page
from search_helpers import MODEL, write_search
from tiny import run_cli

from miniwin.data import prepare
from miniwin.evaluation import crossed
from miniwin.evaluation.streamed_loss import position_losses
from miniwin.loading import load
from miniwin.search import confirm_search, promote, read_study, run_search
from miniwin.search.claims import Claim, NoClaim, finish, retry_failed, take_work
from miniwin.search.confirm.comparing import conclude
from miniwin.search.confirm.result import Result, read_result
from miniwin.search.confirm.scores import Scores, read_scores, write_scores
from miniwin.search.creation import create_study
from miniwin.search.live_table import summary
from miniwin.search.records import collect
from miniwin.search.report import render
from miniwin.search.study import Study
from miniwin.search.study_data import StudyData
from miniwin.search.worker import DONE, work
from miniwin.specs import UserError, load_search_spec
from miniwin.tokenizer import load_tokenizer
from miniwin.zoo.card_values import check_provenance
from miniwin.zoo.errors import ZooError

DATA = {"source": "text", "paths": ["text.txt"], "test_fraction": 0.2}
CONFIRM = {"top": 2, "seeds": 2, "split": "test"}


def make(folder: Path, **changes: Any) -> Study:
    changes = {"train": {"data": DATA}, "confirm": CONFIRM, "budget": {"trials": 3}, "constraints": [], **changes}
    spec = load_search_spec(write_search(folder, **changes))
    return create_study(spec, folder, out=folder / "study")


def pretend(study: Study, claim: Claim, loss: float) -> None:
    """End a claim as if it had been trained; a training of the confirmation has scores of 10 pieces, too."""
    claim.outcome.values = {objective.name: loss for objective in study.spec.parsed_objectives}
    claim.outcome.losses = {32: loss, 64: loss}
    claim.outcome.tokens = study.space.train.tokens
    if claim.confirms:
        rng = np.random.default_rng(int(claim.outcome.hash[:8], 16))
        nats = (loss + rng.normal(0, 0.01, 10)) * 64
        pieces = {str(length): nats.tolist() for length in (32, 64)}
        write_scores(claim.folder, Scores(fingerprint="f", documents=list(range(10)), bytes=[64.0] * 10, nats=pieces))
    claim.outcome.end("complete")
    finish(study, claim)
    claim.entry.let_go()


def spend(study: Study) -> list[Claim]:
    """Do all the work there is, without training. The later a trial, the better. Returns what was confirmed."""
    done = []
    while isinstance(claim := take_work(study, "0"), Claim):
        pretend(study, claim, 3.0 if claim.number is None else 2.0 - claim.number / 10)
        done += [claim] if claim.confirms else []
    assert claim == NoClaim(over=True)
    return done


def result_of(study: Study | StudyData) -> Result:
    found = read_result(study.folder)
    assert found is not None
    return found


# -- a whole search, trained


@pytest.fixture(scope="module")
def confirmed(tmp_path_factory: pytest.TempPathFactory) -> StudyData:
    folder = tmp_path_factory.mktemp("confirmed")
    study = make(folder)
    assert work(study.folder, "0") == DONE
    return read_study(study.folder)


def test_the_best_and_the_baseline_are_trained_with_the_same_new_seeds(confirmed: StudyData) -> None:
    result = result_of(confirmed)
    assert confirmed.finished and confirmed.confirmation is not None and confirmed.confirmation.done
    first, second, *_ = confirmed.ranked
    assert [variant.trial for variant in result.variants] == [first.number, second.number, None]
    assert result.seeds == [1, 2] and confirmed.train.seed == 0  # a seed of the search is not used again
    for variant in result.variants:
        assert [run.seed for run in variant.runs] == [1, 2]
        assert all(run.state == "complete" and run.tokens == 1536 for run in variant.runs)
        losses = [run.values["loss@64"] for run in variant.runs]
        assert variant.values["loss@64"] == pytest.approx(np.mean([loss for loss in losses if loss]))
        assert len(set(losses)) == 2
    assert len(list((confirmed.folder / "confirm").iterdir())) == 6
    assert not list((confirmed.folder / "leases").iterdir())


def test_losses_are_those_of_the_test_split(confirmed: StudyData) -> None:
    assert confirmed.confirmation is not None
    training = confirmed.confirmation.trainings[0]
    scores, outcome = read_scores(training.folder), training.outcome
    assert scores is not None and outcome is not None
    base = confirmed.folder.parent
    corpus = prepare(confirmed.train.data, load_tokenizer("byte", base), base)
    (text,) = corpus.texts_of("test")
    model = load(training.folder / "run")
    start = np.linspace(0, len(text.ids) - 65, len(scores.bytes)).astype(int)
    for place in (0, 3, len(start) - 1):
        piece = text.ids[start[place] : start[place] + 65]
        for length in (32, 64):
            found = position_losses(model, piece, length, 64)
            assert scores.nats[str(length)][place] == pytest.approx(found.nats.sum(), rel=1e-4)
            assert scores.bytes[place] == found.bytes.sum()
    for length, loss in outcome.losses.items():
        assert loss == pytest.approx(sum(scores.nats[str(length)]) / sum(scores.bytes))
    assert outcome.values == {"loss@64": outcome.losses[64]}
    # Four times the tokens of a trial's evaluation, in whole pieces, none of them on another.
    assert len(scores.bytes) == 16 and min(np.diff(start)) >= 64 and scores.fingerprint == corpus.fingerprint


def test_each_trial_is_held_against_the_baseline_and_the_winner_against_the_next(confirmed: StudyData) -> None:
    result, (first, second) = result_of(confirmed), confirmed.ranked[:2]
    pairs = [(one.first, one.other) for one in result.comparisons]
    assert pairs == [(first.label, "baseline"), (second.label, "baseline"), (first.label, second.label)]
    assert confirmed.confirmation is not None
    scores = {}
    for training in confirmed.confirmation.trainings:
        scores.setdefault(training.variant.label, []).append(read_scores(training.folder))
    for one in result.comparisons:
        assert [(m.name, m.objective) for m in one.measures] == [("loss@64", True), ("loss@32", False)]
        for measured in one.measures:
            length = measured.name.partition("@")[2]
            ours, theirs = ([s.nats[length] for s in scores[name] if s] for name in (one.first, one.other))
            found = crossed.loss_difference(ours, theirs, scores[one.first][0].bytes)
            assert (measured.value, measured.low, measured.high) == (found.value, found.low, found.high)
            assert (measured.draws, measured.of) == (16, "pieces")  # all of one document


def test_status_says_what_came_of_it(confirmed: StudyData) -> None:
    code, out, _ = run_cli("search", "status", str(confirmed.folder))
    assert code == 0 and "confirmed on the test split, with 2 new seeds each, 1,024 tokens at each length:" in out
    best = confirmed.ranked[0].label
    assert f"  {best} against the baseline: bits per byte at 64 tokens " in out and "not distinguishable" in out


# -- who does it, and when


def test_it_waits_for_the_trials_and_nothing_is_trained_twice(tmp_path: Path) -> None:
    study = make(tmp_path)
    while isinstance(claim := take_work(study, "0"), Claim) and not claim.confirms:
        other = take_work(study, "1")  # while a trial runs, nobody confirms
        assert isinstance(other, NoClaim) or not other.confirms
        pretend(study, claim, 3.0 if claim.number is None else 2.0 - claim.number / 10)
        if isinstance(other, Claim):
            pretend(study, other, 3.0 if other.number is None else 2.0 - other.number / 10)
    assert isinstance(claim, Claim) and claim.confirms and claim.label == "trial 2 with seed 1"
    assert not collect(study).finished and "confirming: 0 of 6 trainings, 1 running" in summary(collect(study))
    others = [take_work(study, str(worker)) for worker in range(1, 6)]
    assert [one.label for one in others if isinstance(one, Claim)] == [
        *("trial 1 with seed 1", "baseline with seed 1"),
        *("trial 2 with seed 2", "trial 1 with seed 2", "baseline with seed 2"),
    ]
    assert take_work(study, "6") == NoClaim(over=False)  # one of them may die
    for one in (claim, *others):
        assert isinstance(one, Claim)
        pretend(study, one, 3.0 if one.number is None else 2.0 - one.number / 10)
    assert read_result(study.folder) is None  # whoever looks next writes it
    assert take_work(study, "6") == NoClaim(over=True) and result_of(study).trained == 3
    assert collect(study).finished and not spend(study)


def test_a_training_whose_worker_is_gone_goes_on(tmp_path: Path) -> None:
    study = make(tmp_path)
    while isinstance(claim := take_work(study, "0"), Claim) and not claim.confirms:
        pretend(study, claim, 2.0)
    assert isinstance(claim, Claim)
    claim.entry.let_go()  # as if its process were gone
    again = take_work(study, "1")
    assert isinstance(again, Claim) and again.folder == claim.folder and again.outcome.attempts == 2
    pretend(study, again, 2.0)
    assert len(spend(study)) == 5


def test_a_larger_budget_confirms_anew_and_keeps_the_old_result(tmp_path: Path) -> None:
    study = make(tmp_path)
    assert len(spend(study)) == 6
    old = result_of(study)
    assert [variant.trial for variant in old.variants] == [2, 1, None] and old.trained == 3
    spec = load_search_spec(tmp_path / "search.yaml", ["budget.trials=4"])
    study = create_study(spec, tmp_path, out=study.folder)
    data = collect(study)
    assert not data.finished
    assert "note: this is of the first 3 trials; miniwin search resume confirms anew" in summary(data)
    assert [claim.label for claim in spend(study)] == ["trial 3 with seed 1", "trial 3 with seed 2"]
    new = result_of(study)
    assert [variant.trial for variant in new.variants] == [3, 2, None] and new.trained == 4
    kept = json.loads((study.folder / "confirm" / "of-3-trials.json").read_text())
    assert Result.model_validate(kept) == old
    assert not any("this is of" in line for line in summary(collect(study)))


def test_more_trials_that_are_no_better_train_nothing_anew(tmp_path: Path) -> None:
    study = make(tmp_path)
    spend(study)
    old = result_of(study)
    study = create_study(load_search_spec(tmp_path / "search.yaml", ["budget.trials=4"]), tmp_path, out=study.folder)
    claim = take_work(study, "0")
    assert isinstance(claim, Claim) and claim.number == 3
    pretend(study, claim, 9.0)
    assert not collect(study).finished and not spend(study) and collect(study).finished
    assert result_of(study) == old.model_copy(update={"trained": 4})
    assert (study.folder / "confirm" / "of-3-trials.json").exists()


def test_a_seed_that_the_search_chose_confirms_nothing(tmp_path: Path) -> None:
    study = make(
        tmp_path,
        confirm={"top": 3, "seeds": 2},
        variables={"seed": {"choice": [1, 3, 4]}},
        set={"train.seed": "seed"},
        sampler={"type": "grid"},
    )
    confirmed = spend(study)
    assert {trial.seed for trial in collect(study).trained} == {1, 3, 4}
    assert {claim.candidate.train.seed for claim in confirmed} == {2, 5} and result_of(study).seeds == [2, 5]


def test_a_training_that_failed_or_diverged_is_said_and_has_no_interval(tmp_path: Path) -> None:
    study = make(tmp_path)
    done = 0
    while isinstance(claim := take_work(study, "0"), Claim):
        if claim.confirms and not done:
            claim.outcome.end("failed", "OSError: away")
            finish(study, claim)
            claim.entry.let_go()
            done += 1
            continue
        pretend(study, claim, 2.0)
    data = collect(study)
    assert not data.finished  # the same command tries it again
    comparison = result_of(study).comparisons[0]
    assert [m.verdict for m in comparison.measures] == ["not measured"] * 2
    lines = summary(data)
    assert any(line.startswith("note: trial 0 with seed 1: failed, OSError: away") for line in lines)
    assert retry_failed(study) == 1
    (again,) = spend(study)
    assert again.label == "trial 0 with seed 1" and collect(study).finished
    assert "not measured" not in {m.verdict for one in result_of(study).comparisons for m in one.measures}


def test_what_no_training_changes_is_exact(tmp_path: Path) -> None:
    study = make(tmp_path, objectives=["minimize loss@64", "minimize cache_bytes@4096"])
    while isinstance(claim := take_work(study, "0"), Claim):
        pretend(study, claim, 2.0)
    confirmation = collect(study).confirmation
    assert confirmation is not None
    measured = conclude(study, confirmation).comparisons[0].measures[1]
    assert (measured.name, measured.of, measured.draws) == ("cache_bytes@4096", "spec", 0)
    assert measured.value is not None and measured.value < 0 and measured.low == measured.high == measured.value
    assert measured.verdict == "better"


def test_many_documents_are_what_varies(tmp_path: Path) -> None:
    study = make(tmp_path, confirm={"top": 1, "seeds": 3})
    spend(study)
    (comparison,) = result_of(study).comparisons
    assert {(m.draws, m.of) for m in comparison.measures} == {(10, "documents")}
    assert comparison.measures[0].verdict == "better"  # 1.8 against 3, with a noise of 0.01


# -- asked for later


def test_a_study_without_it_is_confirmed_when_asked(tmp_path: Path) -> None:
    study = make(tmp_path, confirm=None, budget={"trials": 2})
    while isinstance(claim := take_work(study, "0"), Claim):
        pretend(study, claim, 2.0)
    assert collect(study).finished and collect(study).confirmation is None
    with workers_forked():
        data = confirm_search(study.folder, top=1, seeds=1, workers=1, tracking="off", progress=False)
    assert data.finished and len(list((study.folder / "confirm").iterdir())) == 2
    assert load_search_spec(study.folder / "search.yaml").confirm.top == 1  # the wish is kept
    measured = result_of(data).comparisons[0].measures[0]
    assert (measured.low, measured.high, measured.verdict) == (None, None, "not distinguishable")  # of one seed
    # The search's own file, which does not ask for it, does not take it back.
    again = run_search(tmp_path / "search.yaml", out=study.folder, tracking="off", progress=False)
    assert again.confirmation is not None and again.finished


# -- mistakes


def test_a_split_that_the_data_lack_is_refused_at_its_place(tmp_path: Path) -> None:
    path = write_search(tmp_path, confirm=CONFIRM)
    for command in (["search", "run", str(path), "--out", str(tmp_path / "study")], ["check", str(path)]):
        code, _, err = run_cli(*command)
        line = next(n for n, text in enumerate(path.read_text().splitlines(), 1) if "split: test" in text)
        assert code == 2 and f"search.yaml:{line}:" in err and "set test_fraction" in err
        assert "confirm.split: got test, and the data of train spec" in err
    assert not (tmp_path / "study").exists()


def test_a_later_wish_that_cannot_be_had_leaves_the_study_as_it_was(tmp_path: Path) -> None:
    study = make(tmp_path, confirm=None, train={})
    before = (study.folder / "search.yaml").read_bytes()
    code, _, err = run_cli("search", "confirm", str(study.folder), "--tracking", "off")
    assert code == 2 and "cannot be confirmed: its data keep nothing back" in err
    assert (study.folder / "search.yaml").read_bytes() == before
    (tmp_path / "short").mkdir()
    short = make(
        tmp_path / "short", confirm=None, report_lengths=[2048],
        train={"data": {**DATA, "valid_fraction": 0.3, "test_fraction": 0.05}},
    )  # fmt: skip
    before = (short.folder / "search.yaml").read_bytes()
    code, _, err = run_cli("search", "confirm", str(short.folder), "--tracking", "off")
    assert code == 2 and "the test split has" in err, err
    assert (short.folder / "search.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("confirm", "said"),
    [
        ({"seeds": 0}, "confirm.seeds: got 0; expected at least 1"),
        ({"top": 0}, "confirm.top: got 0; expected at least 1"),
        ({"top": 4}, "confirm.top: got 4, more than there are trials; expected at most budget.trials (3)"),
        ({"split": "valid"}, "confirm.split: got 'valid'; expected test: the trials were chosen by it"),
        ({"split": "text"}, "confirm.split: "),
        ({"seed": 3}, "confirm.seed"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked(confirm: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = write_search(tmp_path, train={"data": DATA}, confirm=confirm, budget={"trials": 3})
    code, _, err = run_cli("check", str(path))
    assert code == 2 and said in err and "search.yaml:" in err, err


def test_more_than_the_front_has_is_refused(tmp_path: Path) -> None:
    study = make(tmp_path, confirm=None, objectives=["minimize loss@64", "minimize cache_bytes@4096"])
    while isinstance(claim := take_work(study, "0"), Claim):
        pretend(study, claim, 2.0)
    front = len(collect(study).front)
    with pytest.raises(UserError, match=rf"--top: got 4; .* has {front} trials on the front"):
        confirm_search(study.folder, top=4)
    with pytest.raises(UserError, match="--seeds: got 0; expected at least 1"):
        confirm_search(study.folder, seeds=0)


def test_a_damaged_result_is_said_and_made_anew(confirmed: StudyData, tmp_path: Path) -> None:
    folder = shutil.copytree(confirmed.folder, tmp_path / "study")
    whole = (folder / "confirm.json").read_text()
    (folder / "confirm.json").write_text(whole[: len(whole) // 2])
    assert any("confirm.json cannot be read" in line for line in summary(read_study(folder)))
    assert take_work(Study(folder), "0") == NoClaim(over=True)
    assert (folder / "confirm.json").read_text() == whole


def test_the_shape_of_the_model_is_that_of_the_trial(confirmed: StudyData) -> None:
    assert confirmed.confirmation is not None
    for training in confirmed.confirmation.trainings:
        spec = load(training.folder / "run").spec
        assert spec.hash == training.candidate.model.hash and spec.vocab_size == MODEL["vocab_size"]


# -- where it is shown


def test_the_report_shows_it(tmp_path: Path) -> None:
    study = make(tmp_path, confirm={"top": 2, "seeds": 3})
    while isinstance(claim := take_work(study, "0"), Claim) and not claim.confirms:
        pretend(study, claim, 3.0 if claim.number is None else 2.0 - claim.number / 10)
    begun = Page(render(collect(study)))
    assert "Confirming: 0 of 9 trainings, 1 running." in begun.words and "Confirmed on unseen text" not in begun.words
    assert "Trial 2 (" in begun.words and " won." in begun.words  # the trials are over
    assert isinstance(claim, Claim)
    pretend(study, claim, 1.8)
    spend(study)
    text = render(collect(study))
    page = Page(text)
    assert "Trial 2 is better than the baseline on the test split: -1.7" in page.words
    assert "(95 % interval -1.7" in page.words and "3 seeds each)." in page.words
    assert "Confirmed on unseen text" in page.words and 'id="confirmed-t"' in text
    assert "trial 2 trial 1 bits per byte at 64 tokens -0.1" in page.words  # the winner against the runner-up
    assert "3 seeds, 10 documents better" in page.words


def test_a_promoted_trial_carries_it(confirmed: StudyData, tmp_path: Path) -> None:
    best, last = confirmed.ranked[0], confirmed.ranked[-1]
    entry = promote(confirmed.folder, name="held", zoo=tmp_path, lengths=[160], progress=False, tracking="off")
    assert entry.provenance["trial"] == best.number  # the test split chooses nothing
    found = entry.provenance["confirmation"]
    assert (found["split"], found["seeds"], found["tokens"], found["trials"]) == ("test", [1, 2], 1536, 3)
    assert [one["against"] for one in found["differences"]] == ["baseline"] * 2 + [confirmed.ranked[1].label] * 2
    measured = result_of(confirmed).comparisons[0].measures[0]
    assert found["differences"][0]["low"] == measured.low and found["differences"][0]["verdict"] == measured.verdict
    card = (entry.folder / "README.md").read_text()
    assert f"## Confirmation\n\n{found['sentence']}" in card
    assert f"| baseline | bits per byte at 64 tokens | {found['differences'][0]['difference']} |" in card
    other = promote(
        confirmed.folder, name="not", trial=last.number, zoo=tmp_path, lengths=[160], progress=False, tracking="off"
    )
    assert "confirmation" not in other.provenance and "## Confirmation" not in (other.folder / "README.md").read_text()


NONSENSE = ["text", {"differences": 3}, {"differences": []}, {"sentence": "x", "differences": [{"against": 3}]}]


@pytest.mark.parametrize("confirmation", NONSENSE)
def test_a_card_is_not_written_from_nonsense(confirmation: Any) -> None:
    with pytest.raises(ZooError, match="confirmation"):
        check_provenance({"confirmation": confirmation})
