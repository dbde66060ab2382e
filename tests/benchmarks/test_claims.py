"""The claims' page: figures are those of the result files, and a verdict follows from its interval."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.claims import figures, filler, results, running
from benchmarks.claims.__main__ import main
from benchmarks.claims.ablation import without
from benchmarks.claims.experiments import EXPERIMENTS, LAST_WRITE, REPORTED, trained_as
from benchmarks.claims.page import write_page
from benchmarks.claims.published_claims import NOT_MEASURED, findings, judged, layouts
from benchmarks.claims.quick import quick
from benchmarks.claims.running import AtLeastOne, at_length, is_done, run
from benchmarks.claims.training import model_spec, train_spec, work_folder
from benchmarks.claims.tuning import FIRST, LADDER, SEED, chosen, sweep, swept, untried
from benchmarks.claims.variants import TRAINED, VARIANTS
from miniwin import build
from miniwin.blocks.attention_ops import AttentionCall
from miniwin.evaluation.intervals import Interval
from miniwin.evaluation.tasks import draw
from miniwin.runs import read_run
from miniwin.specs import UserError


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(-0.3, -0.2, "holds"), (-0.2, 0.1, "not distinguishable"), (0.05, 0.1, "does not hold")],
)
def test_a_verdict_follows_from_the_interval(low: float, high: float, verdict: str) -> None:
    assert judged(Interval((low + high) / 2, low, high, 5), -math.inf, 0.0) == verdict


def test_one_seed_gives_no_verdict() -> None:
    assert judged(Interval(-1.0, -math.inf, math.inf, 1), -math.inf, 0.0) == "too few seeds yet"


def test_what_was_not_measured_is_said(tmp_path: Path) -> None:
    assert {one.verdict for one in findings(tmp_path)} == {NOT_MEASURED}


def result(variant: str, seed: int, right: str, bits: float) -> dict[str, Any]:
    return {
        "experiment": "text",
        "variant": variant,
        "seed": seed,
        "commit": "x",
        "steps": 1,
        "seconds": 1.0,
        "tasks": [],
        "text": [{"length": n, "bits": bits, "pieces": [bits, bits + 0.1]} for n in EXPERIMENTS["text"].text],
    }


def test_figures_are_paired_by_seed(tmp_path: Path) -> None:
    for seed, level in enumerate((2.0, 3.0, 5.0)):  # seeds differ far more than variants do
        results.write(result("published", seed, "", level - 0.2 + 0.001 * seed), tmp_path)
        results.write(result("minimind", seed, "", level), tmp_path)
    ratio = figures.perplexity_ratio("published", "minimind", 65536, tmp_path)
    assert ratio is not None and ratio.n == 3
    assert ratio.value == pytest.approx(2**-0.199) and 0.86 < ratio.low < ratio.high < 0.88
    assert figures.perplexity_ratio("published", "alibi", 65536, tmp_path) is None


def test_a_share_counts_every_answer_and_names_the_worst_seed(tmp_path: Path) -> None:
    for seed, right in enumerate(("44", "40")):
        row = {"task": "recall", "length": 128, "examples": 2, "answers": 4, "right": right, "nats": 0.1}
        results.write({**result("nope", seed, "", 1.0), "experiment": "tasks", "tasks": [row]}, tmp_path)
    found = figures.share("tasks", "nope", "recall", 128, tmp_path)
    assert found is not None and found[0].value == 0.75 and found[1].value == 0.5


def test_variants_have_one_size_and_experiments_name_variants_that_there_are() -> None:
    sizes = [model_spec(variant).parameters() for variant in TRAINED]
    assert max(sizes) / min(sizes) < 1.003
    for experiment in EXPERIMENTS.values():
        assert set(experiment.variants) <= set(VARIANTS)
        for name in experiment.variants:
            spec = train_spec(trained_as(experiment), VARIANTS[name], 3)
            assert spec.seed == 3 and spec.longest == experiment.trained_length


def test_a_change_at_test_time_keeps_the_weights() -> None:
    torch.manual_seed(0)
    model = build(model_spec(VARIANTS["minimind"]))
    for name in ("minimind-yarn", "minimind-ntk"):
        assert at_length(VARIANTS[name], model, 128, 128) is model
        changed = at_length(VARIANTS[name], model, 128, 512)
        assert changed.spec.hash != model.spec.hash
        assert all(torch.equal(a, b) for a, b in zip(changed.parameters(), model.parameters(), strict=True))
        ids = torch.randint(256, (1, 300), generator=torch.Generator().manual_seed(1))
        assert not torch.allclose(changed(ids), model(ids))


def test_scaling_at_test_time_changes_nothing_up_to_the_trained_length() -> None:
    torch.manual_seed(0)
    model = build(model_spec(VARIANTS["harmonic"]))
    scaled = at_length(VARIANTS["harmonic-test-log"], model, 128, 512)
    ids = torch.randint(256, (1, 400), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        one, other = model(ids), scaled(ids)
    assert torch.allclose(one[:, :128], other[:, :128], atol=1e-5)
    assert not torch.allclose(one[:, 300:], other[:, 300:], atol=1e-3)
    assert AtLeastOne(128)(torch.tensor([[1, 128, 128**2]]), 0).flatten().tolist() == pytest.approx([1.0, 1.0, 2.0])


def test_a_silenced_head_writes_nothing() -> None:
    torch.manual_seed(0)
    model = build(model_spec(VARIANTS["harmonic-log"]))
    silenced = without(model, 1, 0)
    before, after = (one.decoder.attentions[1].o_proj.weight for one in (model, silenced))
    size = before.shape[1] // 2
    assert not after[:, :size].any() and torch.equal(after[:, size:], before[:, size:])
    assert before[:, :size].any()


def of_tasks(variant: str, seed: int, right: dict[int, int], folder: Path) -> None:
    """A result of `tasks` whose recall has so many of 200 examples right, by length."""
    rows = [
        {"task": "recall", "length": n, "examples": 200, "answers": 1, "right": "1" * k + "0" * (200 - k)}
        for n, k in right.items()
    ]
    results.write({"experiment": "tasks", "variant": variant, "seed": seed, "tasks": rows}, folder)


def test_a_fall_is_paired_by_seed_and_never_surer_than_the_examples(tmp_path: Path) -> None:
    for seed, near in enumerate((200, 198, 199, 40, 42)):  # two seeds did not learn: seeds differ, falls do not
        of_tasks("published", seed, {128: near, 2048: near - seed % 2}, tmp_path)
    fall = figures.share_fall("tasks", "published", "recall", 2048, 128, tmp_path)
    assert fall is not None and fall.value == pytest.approx(2 / 1000) and fall.n == 5
    assert -0.06 < fall.low < -0.02 and 0.02 < fall.high < 0.06  # that of 256 * 5 examples against 128 * 5
    for seed in range(2):
        of_tasks("alibi", seed, {128: 200, 2048: 200}, tmp_path)
    alike = figures.share_fall("tasks", "alibi", "recall", 2048, 128, tmp_path)
    assert alike is not None and alike.low < 0 < alike.high < 0.03


def test_what_was_not_learnt_is_not_kept(tmp_path: Path) -> None:
    for seed in range(5):
        of_tasks("published", seed, {128: 50, 2048: 50}, tmp_path)
        of_tasks("harmonic-log", seed, {128: 200, 2048: 200}, tmp_path)
    said = {one.claim: one.verdict for one in findings(tmp_path)}
    assert said["Nothing has to extrapolate: recall stays."] == "not learnt"
    assert said["With log scaling of the global layers recall stays (this project's claim)."] == "holds"


def test_a_result_that_does_not_count_is_in_no_figure(tmp_path: Path) -> None:
    for rate, nats in zip(FIRST, (1.0, 0.5, 1.0), strict=True):
        found_by_sweep(tmp_path, rate, nats)
    said: list[dict[str, Any]] = [{"rate": FIRST[1]}, {"rate": FIRST[2]}, {"rate": FIRST[1], "diverged": "NaN"}]
    for seed, changed in enumerate(said):
        results.write({**result("nope", seed, "", 1.0), "experiment": "tasks", **changed}, tmp_path)
    assert list(figures._rows("tasks", "nope", tmp_path)) == [0]


def test_a_training_that_diverged_is_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = SimpleNamespace(steps=3, tokens=48, seconds=1.0, reason="the loss is NaN")
    monkeypatch.setattr(running, "trained", lambda *_, **__: (None, done))
    path = run(EXPERIMENTS["longer"], "harmonic-log", 0, tmp_path, progress=False)
    assert json.loads(path.read_text())["diverged"] == "the loss is NaN"
    assert is_done(EXPERIMENTS["longer"], "harmonic-log", 0, tmp_path)
    with pytest.raises(UserError, match="harmonic-log-0: the training diverged, so there is no order"):
        quick()
    monkeypatch.setattr(filler, "trained", lambda *_, **__: (None, done))
    with pytest.raises(UserError, match=r"longer, seed 0: the training diverged \(the loss is NaN\)"):
        filler.measure(tmp_path)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--variant", "typo"], "no run of variant ['typo'] and seed None; variants: adamw-fan-in, "),
        (["--only", "position", "--seed", "7"], "--only position: no run of variant None and seed [7]"),
        (["--only", "speed", "--list"], "--only speed measures all of it; expected no --list"),
    ],
)
def test_what_there_is_not_is_said(asked: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(asked) == 2
    assert said in capsys.readouterr().err


def test_a_damaged_result_is_named(tmp_path: Path) -> None:
    path = results.write(result("nope", 0, "", 1.0), tmp_path)
    path.write_text(path.read_text()[:40])
    with pytest.raises(UserError, match=r"nope-0\.json: is damaged"):
        results.read("text", "nope", 0, tmp_path)


def test_a_layout_is_asked_to_keep_only_what_it_learnt(tmp_path: Path) -> None:
    for seed in range(5):
        for variant, right in (
            ("published", {128: 192, 2048: 192}),
            ("alibi", {128: 192, 2048: 24}),
            ("nope", {128: 24}),
        ):
            of_tasks(variant, seed, right, tmp_path)
    said = {variant: cells[:2] for variant, cells in layouts(tmp_path)}
    assert said["published"] == ["holds", "holds"]
    assert said["alibi"] == ["holds", "does not hold"]
    assert said["nope"] == ["does not hold", "-"]
    assert said["forgetting"] == [NOT_MEASURED, "-"]


def cells(tried: dict[float, float]) -> list[str]:
    best = min(tried.values())
    return [f"**{nats:.4f}**" if nats == best else f"{nats:.4f}" for nats in tried.values()]


def found_by_sweep(folder: Path, rate: float, nats: float | None) -> None:
    one = {"experiment": "tasks-tuning", "variant": f"nope@{rate:g}", "seed": SEED}
    results.write({**one, "rate": rate, "nats": nats}, folder)


def test_the_best_learning_rate_is_chosen_and_a_diverged_one_never(tmp_path: Path) -> None:
    experiment = EXPERIMENTS["tasks"]
    for rate, nats in zip(FIRST, (1.0, 0.5, None), strict=True):
        assert chosen(experiment, "nope", tmp_path) is None
        found_by_sweep(tmp_path, rate, nats)
    assert chosen(experiment, "nope", tmp_path) == FIRST[1]
    for rate in LADDER:
        found_by_sweep(tmp_path, rate, None)
    with pytest.raises(UserError, match="diverged with each learning rate"):
        chosen(experiment, "nope", tmp_path)


@pytest.mark.parametrize("best", [0, 3, 4, 8])
def test_a_sweep_goes_on_while_the_best_rate_is_at_its_edge(best: int) -> None:
    found: dict[float, float] = {}
    while (rate := untried(found)) is not None:
        assert rate not in found
        found[rate] = abs(LADDER.index(rate) - best)
    assert min(found, key=lambda one: found[one]) == LADDER[best]
    assert len(found) == {0: 6, 3: 4, 4: 3, 8: 6}[best]


def test_a_sweep_has_a_seed_that_no_result_has_and_half_of_the_tokens() -> None:
    for experiment in EXPERIMENTS.values():
        assert experiment.seeds <= SEED
    whole, half = (train_spec(EXPERIMENTS["tasks"], VARIANTS["nope"], SEED, 1e-3, shorter) for shorter in (1, 2))
    assert half.tokens * 2 == whole.tokens and half.optimizer.lr == 1e-3


def test_no_variant_is_tuned_on_text_that_is_reported() -> None:
    assert all(experiment.text_bytes <= REPORTED for experiment in EXPERIMENTS.values())


def test_every_result_has_the_learning_rate_that_was_chosen() -> None:
    for experiment in EXPERIMENTS.values():
        for found in results.of_experiment(experiment.name, experiment.variants, experiment.seeds):
            assert is_done(experiment, found["variant"], found["seed"], results.FOLDER)


def test_a_result_with_a_rate_that_was_not_chosen_is_no_result(tmp_path: Path) -> None:
    results.write({"experiment": "tasks", "variant": "nope", "seed": 0}, tmp_path)
    assert is_done(EXPERIMENTS["tasks"], "nope", 0, tmp_path), "not tuned yet"
    for best in FIRST[1:]:
        for rate in LADDER:
            found_by_sweep(tmp_path, rate, 0.1 if rate == best else 1.0)
        assert is_done(EXPERIMENTS["tasks"], "nope", 0, tmp_path) == (best == 3e-3)
        results.write({"experiment": "tasks", "variant": "nope", "seed": 1, "rate": best}, tmp_path)
        assert is_done(EXPERIMENTS["tasks"], "nope", 1, tmp_path)


def test_the_share_on_events_is_that_of_a_softmax_over_every_key() -> None:
    torch.manual_seed(0)
    model = build(model_spec(VARIANTS["harmonic-log"]))
    found = {row["layer"]: row["share"] for row in filler.shares(model, 128, 2)}
    assert sorted(found) == [1, 3]
    for index in range(2):
        text = draw(LAST_WRITE, 128, seed=0, index=index, split="valid").text
        assert len(filler.WRITE.findall(text)) == 9 + 2  # writes and questions
    q, k = torch.ones(1, 12, 1, 2), torch.zeros(1, 12, 1, 2)
    k[0, 3] = math.log(2) / 2  # the score of this key is log 2, of all others 0
    ((share,),) = filler.on_events(AttentionCall(q, k, k, 1.0), [2])
    assert float(share) == pytest.approx((1 + 2 + 1 + 1) / (1 * 5 + 2))


def test_a_run_goes_from_training_to_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    whole = EXPERIMENTS["tasks"]
    small = replace(whole, train={**whole.train, "tokens": 4096, "dtype": "float32"}, lengths=((128, 2), (512, 2)))
    with pytest.raises(UserError, match="its learning rate has not been tuned"):
        run(small, "harmonic-test-log", 1, tmp_path / "results", progress=False)
    sweep(small, "harmonic-test-log", tmp_path / "results", progress=False)
    path = run(small, "harmonic-test-log", 1, tmp_path / "results", progress=False)
    found = json.loads(path.read_text())
    assert found["steps"] == 4 and [len(row["right"]) for row in found["tasks"]] == [2] * 6
    page = write_page(tmp_path / "results").read_text()
    tried = swept(small, "harmonic", tmp_path / "results")
    assert tried[found["rate"]] == min(tried.values())
    assert f"| harmonic | {' | '.join(cells(tried))} |" in page
    assert "1 of 90 runs" in page and (tmp_path / "plots" / "recall.svg").is_file()


def test_what_is_not_tuned_is_found_again_by_what_looks_at_its_model(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    whole = EXPERIMENTS["champion"]
    small = replace(whole, train={**whole.train, "tokens": 4096, "dtype": "float32"}, lengths=(), ablation=False)
    run(small, whole.variants[0], 1, tmp_path / "results", progress=False)
    assert read_run(work_folder() / "champion" / f"{whole.variants[0]}-1")["status"] == "complete"  # see choosing.py


def test_a_result_of_another_format_is_refused(tmp_path: Path) -> None:
    path = results.write(result("nope", 0, "", 1.0), tmp_path)
    path.write_text(path.read_text().replace('"format": 1', '"format": 7'))
    with pytest.raises(UserError, match="got format 7; expected 1"):
        results.read("text", "nope", 0, tmp_path)
