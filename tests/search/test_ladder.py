"""A ladder: the winner and the baseline at several sizes, the largest predicted before it is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from html_page import Page
from search_helpers import MODEL, write_search
from tiny import run_cli

from miniwin.loading import load
from miniwin.search import promote, read_study
from miniwin.search.claims import Claim, NoClaim, finish, retry_failed, take_work
from miniwin.search.confirm.scores import Scores, read_scores, write_scores
from miniwin.search.creation import create_study
from miniwin.search.ladder import fit
from miniwin.search.ladder.asking import parse_sizes, plan_ladder, plan_lines
from miniwin.search.ladder.growing import at_size, find_layers, laid_out, repeats
from miniwin.search.ladder.plan import Plan, hash_of, read_plan, size_text, write_plan
from miniwin.search.ladder.planning import Wish
from miniwin.search.ladder.prediction import Prediction, read_prediction
from miniwin.search.ladder.result import LadderResult, read_ladder_result
from miniwin.search.ladder.scored import scored_of
from miniwin.search.live_table import summary
from miniwin.search.records import collect
from miniwin.search.report import render
from miniwin.search.study import Study
from miniwin.search.study_data import StudyData
from miniwin.search.worker import DONE, work
from miniwin.specs import ModelSpec, UserError, load_model_spec, load_search_spec, parse_spec
from miniwin.zoo.card_values import check_provenance
from miniwin.zoo.errors import ZooError

DATA = {"source": "text", "paths": ["text.txt"], "test_fraction": 0.2}
SIZES = [6000, 10_000, 18_000]
WISH = Wish(SIZES, tokens_per_parameter=1.0, grow="stack")


def make(folder: Path, url: str | None = None, **changes: Any) -> Study:
    changes = {"train": {"data": DATA}, "budget": {"trials": 2}, "constraints": [], **changes}
    spec = load_search_spec(write_search(folder, **changes))
    return create_study(spec, folder, out=folder / "study", storage=url)


def pretend(study: Study, claim: Claim, state: str = "complete", ours: float = 7.0) -> None:
    """End a claim as if it had been trained. Losses fall with compute, from 8 of the baseline and `ours` of a trial."""
    loss = 3.0 if claim.number is None else 2.0 - claim.number / 10
    if claim.training is not None:
        rng = np.random.default_rng(int(claim.outcome.hash[:8], 16))
        compute = claim.candidate.model.training_flops(32) * claim.candidate.train.tokens
        loss = (8.0 if claim.number is None else ours) * compute**-0.1 * (1 + rng.normal(0, 0.002))
        nats = (loss * (1 + rng.normal(0, 0.01, 10))) * 64
        pieces = {"32": nats.tolist(), "64": (nats * 1.1).tolist()}
        claim.folder.mkdir(parents=True, exist_ok=True)
        write_scores(claim.folder, Scores(fingerprint="f", documents=list(range(10)), bytes=[64.0] * 10, nats=pieces))
        loss = float(nats.sum()) / 640
    claim.outcome.values = {objective.name: loss for objective in study.spec.parsed_objectives}
    claim.outcome.losses = {32: loss, 64: loss * 1.1}
    claim.outcome.tokens = claim.candidate.train.tokens
    claim.outcome.end(state, None if state == "complete" else "as it goes")
    finish(study, claim)
    claim.entry.let_go()


def spend(study: Study, most: int = 1000, ours: float = 7.0) -> list[Claim]:
    """Do the work there is, without training, so many pieces at most."""
    done = []
    while len(done) < most and isinstance(claim := take_work(study, "0"), Claim):
        pretend(study, claim, ours=ours)
        done.append(claim)
    return done


def begun(folder: Path, wish: Wish = WISH, **changes: Any) -> Study:
    """A study whose trials are over, with the plan of a ladder."""
    study = make(folder, **changes)
    spend(study)
    write_plan(study, plan_ladder(study, wish))
    return study


def plan_of(study: Study) -> Plan:
    found = read_plan(study)
    assert found is not None
    return found


def prediction_of(study: Study) -> Prediction:
    found = read_prediction(study)
    assert found is not None
    return found


def result_of(study: Study | StudyData) -> LadderResult:
    found = read_ladder_result(study if isinstance(study, Study) else Study(study.folder, reading=True))
    assert found is not None
    return found


# -- sizes

GALLERY = ("miniwin-1m", "minimind-1m", "gemma-3-1b-tiny", "gpt-oss-20b-tiny", "minimind-3-moe-tiny")


@pytest.mark.parametrize("name", GALLERY)
@pytest.mark.parametrize("grow", ["stack", "stretch"])
def test_a_model_has_the_size_and_sees_what_it_saw(name: str, grow: Any) -> None:
    model = load_model_spec(name)
    for target in (3e5, 3e6):
        found = at_size(model, target, find_layers(model, target, grow), grow)
        assert abs(found.parameters() / target - 1) <= 0.02
        assert sum(p.numel() for p in found.build().parameters()) == found.parameters(), "it can be built"
        assert found.layout[-1] == model.layout[-1] and set(found.layout) == set(model.layout)
        for letter, block in found.blocks.items():
            before: Any = model.blocks[letter].resolve(model.hidden_size).attention
            now: Any = block.attention
            assert (now.head_dim, now.window) == (before.head_dim, before.window)
            assert now.position == before.position
            assert now.num_heads / now.num_kv_heads == before.num_heads / before.num_kv_heads
        shape = found.hidden_size / found.num_layers * model.num_layers / model.hidden_size
        assert 0.75 < shape < 1.33  # width and depth keep their proportion


def test_layouts_grow_as_they_are_asked_to() -> None:
    model = parse_spec({**MODEL, "num_layers": 3, "pattern": "SSG", "last": None}, "model")
    assert isinstance(model, ModelSpec) and not repeats(model)
    assert [laid_out(model, n, "stack") for n in (2, 3, 6, 8)] == ["SG", "SSG", "SSGSSG", "SSGSSGSG"]
    assert [laid_out(model, n, "stretch") for n in (2, 3, 6, 9)] == ["SG", "SSG", "SSSSGG", "SSSSSSGGG"]
    with pytest.raises(UserError, match=r"of 1 layers \(G\) none is S"):
        laid_out(model, 1, "stack")
    pattern = parse_spec({**MODEL, "pattern": "SG", "last": "G"}, "model")
    assert isinstance(pattern, ModelSpec) and repeats(pattern)


@pytest.mark.parametrize(
    ("text", "sizes"), [("0.3M,1M,3e6", [300_000, 1_000_000, 3_000_000]), ("50k, 1_000_000,1B", [50_000, 10**6, 10**9])]
)
def test_sizes_are_read_and_said(text: str, sizes: list[int]) -> None:
    assert parse_sizes("--sizes", text) == sizes
    assert [parse_sizes("--sizes", size_text(size)) for size in sizes] == [[size] for size in sizes]


# -- the plan


def test_all_have_the_same_parameters_and_the_same_compute(tmp_path: Path) -> None:
    plan = plan_of(begun(tmp_path))
    assert [member.label for member in plan.members] == ["trial 1", "baseline"] and plan.length == 32
    assert [len(size.seeds) for size in plan.sizes] == [3, 3, 1] and plan.grow == "stack"
    assert len({seed for size in plan.sizes for seed in size.seeds}) == 7  # no size shares a seed with another
    for size in plan.sizes:
        ours, base = size.models
        assert abs(ours.parameters / size.target - 1) <= 0.02 and abs(base.parameters / size.target - 1) <= 0.02
        step = 32 * 4
        assert abs(base.tokens - base.parameters) <= step  # one token for each
        assert abs(ours.flops - base.flops) <= step * ours.flops_per_token and ours.tokens > base.tokens
        for model in size.models:
            spec = parse_spec(model.model, "model")
            assert isinstance(spec, ModelSpec) and model.flops == spec.training_flops(32) * model.tokens
            assert model.train["tokens"] == model.tokens and model.train["optimizer"]["lr"] == 3e-3


def test_what_is_asked_for_decides_the_plan(tmp_path: Path) -> None:
    study = make(tmp_path)
    spend(study)
    wish = Wish(SIZES, 2, 2, 2, 0.5, "stretch", "width", 64)
    plan = plan_ladder(study, wish)
    assert [member.label for member in plan.members] == ["trial 1", "trial 0", "baseline"]
    assert [len(size.seeds) for size in plan.sizes] == [2, 2, 2] and (plan.grow, plan.length) == ("stretch", 64)
    for size in plan.sizes:
        for model in size.models:
            assert model.train["optimizer"]["lr"] == pytest.approx(3e-3 * 16 / model.model["hidden_size"])
    lines = plan_lines(plan)
    assert lines[0].startswith("ladder: 6k, 10k, 18k parameters with 2, 2, 2 seeds, 0.5 tokens a parameter")
    assert len(lines) == 11
    assert read_plan(study) is None  # nothing is written


def test_the_plan_is_not_made_a_second_time(tmp_path: Path) -> None:
    """A larger budget of the study finds another winner; the ladder stays with its own."""
    study = begun(tmp_path)
    before = plan_of(study)
    study = create_study(load_search_spec(tmp_path / "search.yaml", ["budget.trials=3"]), tmp_path, out=study.folder)
    spend(study)
    assert plan_of(study) == before and result_of(study).labels == ["trial 1", "baseline"]
    assert collect(study).ranked[0].number == 2
    with pytest.raises(UserError, match=r"--sizes: got 6k, 10k, 20k, and .* has a ladder with 6k, 10k, 18k, whose"):
        plan_ladder(study, Wish([6000, 10_000, 20_000]))
    with pytest.raises(UserError, match=r"--seeds: got 2, and .* has a ladder with 3"):
        plan_ladder(study, Wish(seeds=2))
    assert plan_ladder(study, Wish(SIZES, seeds=3)) == before


# -- the prediction comes first


def test_the_largest_size_is_predicted_before_it_is_begun(tmp_path: Path) -> None:
    study = begun(tmp_path)
    assert len(spend(study, most=12)) == 12  # two sizes, two variants, three seeds
    assert read_prediction(study) is None and not collect(study).finished
    assert "ladder: 12 of 14 trainings" in summary(collect(study))
    claim = take_work(study, "0")
    assert isinstance(claim, Claim) and claim.label == "trial 1 at 18k with seed 3000"
    prediction = prediction_of(study)  # it is there as soon as anything of the largest size is
    assert prediction.written <= claim.outcome.started and prediction.hash == hash_of(prediction, "hash")
    assert json.loads((claim.folder / "begun.json").read_text())["prediction"] == prediction.hash
    assert {source.size for source in prediction.sources} == {6000, 10_000} and len(prediction.sources) == 12
    assert any(line.strip().startswith("predicted at 18k") for line in summary(collect(study)))
    pretend(study, claim)
    assert len(spend(study)) == 1 and collect(study).finished
    result = result_of(study)
    assert result.prediction == prediction.hash and prediction_of(study) == prediction
    assert [held.predicted for held in result.held] == prediction.predicted


def test_a_worker_that_waits_for_the_smaller_sizes_begins_nothing_of_the_largest(tmp_path: Path) -> None:
    study = begun(tmp_path)
    spend(study, most=11)
    last = take_work(study, "0")
    assert isinstance(last, Claim) and last.label == "baseline at 10k with seed 2002"
    assert take_work(study, "1") == NoClaim(over=False)
    assert read_prediction(study) is None


def test_a_prediction_that_was_changed_is_refused(tmp_path: Path) -> None:
    study = begun(tmp_path)
    spend(study, most=13)
    path = study.folder / "ladder" / "prediction.json"
    before = path.read_text()
    path.unlink()
    with pytest.raises(UserError, match=r"prediction.json is gone, and trial 1 at 18k with seed 3000 has begun"):
        take_work(study, "0")
    data = json.loads(before)
    data["predicted"][0]["high"] *= 2
    path.write_text(json.dumps(data))
    with pytest.raises(UserError, match=r"prediction.json was changed after it was written \(its hash"):
        take_work(study, "0")
    changed = Prediction.model_validate(data)
    data["hash"] = hash_of(changed, "hash")  # whoever changes it may know about the hash
    path.write_text(json.dumps(data))
    with pytest.raises(UserError, match=r"was changed after trial 1 at 18k with seed 3000 had begun"):
        take_work(study, "0")
    path.write_text("{")
    with pytest.raises(UserError, match=r"prediction.json cannot be read .* put it back from a copy"):
        take_work(study, "0")
    path.write_text(before)
    assert len(spend(study)) == 1 and result_of(study).held


@pytest.mark.parametrize("before", [0, 12])  # of a smaller size, and of the largest
def test_a_training_whose_worker_is_gone_goes_on(before: int, tmp_path: Path) -> None:
    study = begun(tmp_path)
    spend(study, most=before)
    claim = take_work(study, "0")
    assert isinstance(claim, Claim)
    claim.entry.let_go()  # as if its process were gone
    again = take_work(study, "1")
    assert isinstance(again, Claim) and again.folder == claim.folder and again.outcome.attempts == 2
    pretend(study, again)
    assert len(spend(study)) == 13 - before and collect(study).finished


def test_nothing_is_said_where_a_training_diverged(tmp_path: Path) -> None:
    study = begun(tmp_path)
    spend(study, most=2)
    claim = take_work(study, "0")
    assert isinstance(claim, Claim)
    pretend(study, claim, "pruned")
    assert take_work(study, "0") == NoClaim(over=True)
    data = collect(study)
    assert data.finished and read_ladder_result(study) is None
    said = f"note: ladder: nothing can be said, since {claim.label} is pruned: as it goes"
    assert said in summary(data)


def test_a_training_that_failed_may_be_tried_again(tmp_path: Path) -> None:
    study = begun(tmp_path)
    claim = take_work(study, "0")
    assert isinstance(claim, Claim)
    pretend(study, claim, "failed")
    assert len(spend(study)) == 11 and not collect(study).finished
    assert read_prediction(study) is None
    assert retry_failed(study) == 1
    assert len(spend(study)) == 3 and collect(study).finished


# -- what comes of it


def test_the_result_is_what_the_fit_says(tmp_path: Path) -> None:
    study = begun(tmp_path)
    spend(study)
    plan, result, ladder = plan_of(study), result_of(study), collect(study).ladder
    assert ladder is not None
    scored = scored_of(plan, ladder.trainings)
    assert scored.units is not None and len(scored.units) == 10 and (result.draws, result.of) == (10, "documents")
    found = fit.speed_up(scored, 0, 1)
    (compared,) = result.compared
    assert (compared.speed_up.value, compared.speed_up.low) == (found.value, found.low)
    assert compared.verdict == "better" and compared.speed_up.value == pytest.approx((8 / 7) ** 10, rel=0.2)
    for place, step in enumerate(result.steps):
        (one,) = step.compared
        assert one.loss is not None and one.loss.value == fit.difference(scored, place, 0, 1).value
        for model, losses in zip(step.models, scored.losses[:, place], strict=True):
            assert model.losses["32"] == pytest.approx(losses) and model.losses["64"] == pytest.approx(1.1 * losses)
    for held in result.held:
        low, high = held.predicted.low, held.predicted.high
        assert low is not None and high is not None and held.within == (low <= held.measured <= high)
    assert [(h.predicted.first, h.predicted.other) for h in result.held] == [
        *(("trial 1", None), ("baseline", None), ("trial 1", "baseline")),
    ]


def test_it_is_said_everywhere(tmp_path: Path) -> None:
    study = begun(tmp_path)
    spend(study)
    said = "trial 1 is better than the baseline: the baseline needs "
    code, out, _ = run_cli("search", "status", str(study.folder))
    assert code == 0 and f"ladder: {said}" in out and "ladder: predicted at 18k before it was trained" in out
    text = (study.folder / "ladder.md").read_text()
    assert said[1:] in text and "| 18k | trial 1 |" in text and result_of(study).prediction[:16] in text
    for page in (Page((study.folder / "ladder.html").read_text()), Page(render(collect(study)))):
        assert said[1:] in page.words and "Beside the points at 18k: what was predicted" in page.words


def test_a_study_in_a_database_keeps_its_ladder_there(tmp_path: Path) -> None:
    study = begun(tmp_path, url=f"sqlite:///{tmp_path / 'studies.db'}")
    assert study.stored and not (study.folder / "ladder" / "plan.json").exists()
    assert len(spend(study, most=13)) == 13
    prediction = prediction_of(study)
    study.optuna.set_user_attr("ladder:prediction", {**prediction.model_dump(mode="json"), "seeds": 2})
    with pytest.raises(UserError, match=r"the attribute ladder:prediction in the storage .* was changed after"):
        take_work(study, "0")
    study.optuna.set_user_attr("ladder:prediction", prediction.model_dump(mode="json"))
    assert len(spend(study)) == 1 and result_of(study).prediction == prediction.hash
    assert collect(study).finished and not (study.folder / "ladder.json").exists()


def test_losses_that_are_alike_are_not_told_apart(tmp_path: Path) -> None:
    study = begun(tmp_path)
    spend(study, ours=8.0)
    (compared,) = result_of(study).compared
    assert compared.verdict == "not distinguishable"
    assert any("are not distinguishable: the baseline needs" in line for line in summary(collect(study)))


def test_a_damaged_result_is_said_and_made_anew(tmp_path: Path) -> None:
    study = begun(tmp_path)
    spend(study)
    path = study.folder / "ladder.json"
    whole = json.loads(path.read_text())
    path.write_text("[]")
    assert any(line.startswith("note: ladder: ") and "ladder.json" in line for line in summary(collect(study)))
    path.unlink()
    assert take_work(study, "0") == NoClaim(over=True)
    assert {**json.loads(path.read_text()), "made": ""} == {**whole, "made": ""}


# -- trained


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> StudyData:
    """A ladder whose trainings are real, as are the trials."""
    study = make(tmp_path_factory.mktemp("trained"), budget={"trials": 1}, report_lengths=[32, 64])
    assert work(study.folder, "0") == DONE
    study = Study(study.folder)
    write_plan(study, plan_ladder(study, Wish(SIZES, seeds=2, tokens_per_parameter=0.25)))
    assert work(study.folder, "0") == DONE
    return read_study(study.folder)


def test_every_size_is_trained_as_planned(trained: StudyData) -> None:
    assert trained.finished and trained.ladder is not None and trained.ladder.plan is not None
    assert len(trained.ladder.every) == 10 and not list((trained.folder / "leases").iterdir())
    for size, trainings in zip(trained.ladder.plan.sizes, trained.ladder.trainings, strict=True):
        for sized, of in zip(size.models, trainings, strict=True):
            for seed, training in zip(size.seeds, of, strict=True):
                model = load(training.folder / "run")
                assert model.spec.hash == training.candidate.model.hash
                assert sum(p.numel() for p in model.parameters()) == sized.parameters
                assert training.candidate.train.seed == seed and training.outcome is not None
                assert training.outcome.tokens == sized.tokens
                scores = read_scores(training.folder)
                assert scores is not None
                loss = sum(scores.nats["32"]) / sum(scores.bytes)
                assert training.outcome.losses[32] == pytest.approx(loss)
    first = {one.outcome.started for one in trained.ladder.largest if one.outcome}
    assert trained.ladder.prediction is not None and trained.ladder.prediction.written <= min(first)
    assert len(result_of(trained).held) == 3


def test_a_promoted_trial_carries_it(trained: StudyData, tmp_path: Path) -> None:
    entry = promote(trained.folder, name="climbed", zoo=tmp_path, lengths=[32], progress=False, tracking="off")
    found = entry.provenance["ladder"]
    assert found["sizes"] == SIZES and found["speed_up"] == result_of(trained).compared[0].speed_up.model_dump()
    assert f"## At other sizes\n\n{found['sentence']}" in (entry.folder / "README.md").read_text()


@pytest.mark.parametrize("ladder", ["text", {}, {"sentence": 3}])
def test_a_card_is_not_written_from_nonsense(ladder: Any) -> None:
    with pytest.raises(ZooError, match="ladder"):
        check_provenance({"ladder": ladder})


# -- mistakes


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--sizes", "1M,3M"], "--sizes: got 1M, 3M; expected at least 3, such as 0.3M,1M,3M"),
        (["--sizes", "1M,3M,2M"], "--sizes: got 1M, 3M, 2M; expected each size to be larger than the one before"),
        (["--sizes", "1M,1M,3M"], "expected each size to be larger than the one before"),
        (["--sizes", "1M,many"], "--sizes: got 'many'; expected numbers of parameters, such as 0.3M,1M,3M"),
        (["--sizes", "1M,-3,0"], "--sizes: got '-3'; expected numbers of parameters"),
        ([], "has no ladder yet: say which sizes, such as --sizes 0.3M,1M,3M"),
        (["--sizes", "100,10k,18k"], "--sizes: 100: "),
        (["--sizes", "4k,10k,18k", "--seeds", "1"], "--seeds: got 1; expected at least 2"),
        (["--sizes", "6k,10k,18k", "--top", "3"], "--top: got 3; "),
        (["--sizes", "6k,10k,18k", "--grow", "up"], "--grow: got 'up'; expected stack or stretch"),
        (["--sizes", "6k,10k,18k", "--learning-rate", "1"], "--learning-rate: got '1'; expected constant or width"),
        (["--sizes", "6k,10k,18k", "--length", "128"], "--length: got 128; the study measures at 32, 64"),
        (["--sizes", "6k,10k,18k", "--tokens-per-parameter", "0"], "--tokens-per-parameter: got 0; expected a number"),
        (["--sizes", "6k,10k,18k", "--tokens-per-parameter", "1e300"], "got 1e+300; expected a number above 0"),
        (["--sizes", "6k,10k,18k", "--seeds", "1001"], "--seeds: got 1001; expected at most 1000"),
        (["--sizes", "6k,10000,10001"], "--sizes: 10,000 and 10,001 are too near to each other: trial "),
        (["--sizes", "6k,10k,18k", "--tokens-per-parameter", "0.1"], "--sizes: 6,000: its training would have 5 steps"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked(options: list[str], said: str, over: Study) -> None:
    code, _, err = run_cli("search", "ladder", str(over.folder), *options, "--tracking", "off")
    assert code == 2 and said in err and err.count("\n") == 1, err
    assert not (over.folder / "ladder").exists()


@pytest.fixture(scope="module")
def over(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study whose trials are over."""
    study = make(tmp_path_factory.mktemp("over"))
    spend(study)
    return study


def test_a_plan_is_said_and_not_written(over: Study) -> None:
    options = ["--sizes", "6k,10k,18k", "--tokens-per-parameter", "1", "--plan"]
    code, out, _ = run_cli("search", "ladder", str(over.folder), *options)
    assert code == 0 and "  18k  baseline: 1" in out and "FLOPs in all" in out
    assert not (over.folder / "ladder").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"baseline": None}, "has no baseline to hold its winner against"),
        ({"train": {}}, "its data keep nothing back for a test (data of the train spec, source text)"),
        ({"train": {"data": {**DATA, "test_fraction": 0.05}}, "report_lengths": [2048]}, "the test split has"),
    ],
)
def test_a_study_that_cannot_have_one(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    study = make(tmp_path, **changes)
    spend(study)
    code, _, err = run_cli("search", "ladder", str(study.folder), "--sizes", "6k,10k,18k", "--tracking", "off")
    assert code == 2 and said in err and not (study.folder / "ladder").exists(), err


def test_a_study_that_is_not_over(tmp_path: Path) -> None:
    study = make(tmp_path)
    spend(study, most=2)
    code, _, err = run_cli("search", "ladder", str(study.folder), "--sizes", "6k,10k,18k", "--tracking", "off")
    assert code == 2 and "is not finished (1 of 2 trials are trained), so its winner is not known" in err
