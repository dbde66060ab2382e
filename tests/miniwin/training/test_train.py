"""Training: the golden loss curve, what a run folder holds, rungs, divergence, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file
from tiny import run_cli
from tiny_runs import tiny_model, tiny_train, write_text
from typer.testing import CliRunner

import miniwin
from miniwin import runs
from miniwin.checkpoint import load_checkpoint
from miniwin.cli import app
from miniwin.language_model import LanguageModel
from miniwin.runs import RunResult, read_metrics, read_run
from miniwin.specs import ModelSpec, TrainSpec, UserError, dump_yaml, load_spec, load_train_spec
from miniwin.specs.train import StopSpec
from miniwin.training import progress, same_run
from miniwin.training.divergence import LossWatch
from miniwin.training.launch import train
from miniwin.training.optimizer import split_parameters
from miniwin.zoo import add

# Loss by step of tiny_model() and tiny_train() on write_text(): a refactor must not move them.
GOLDEN = {1: 5.52453, 2: 5.2347, 10: 2.87368, 20: 2.72769, 30: 2.7364}

Run = Callable[..., RunResult]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Trains the tiny run in `tmp_path / out`, with changes to the train spec."""
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    return runs_in(tmp_path)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """The tiny run without changes, which others are compared with."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("plain")
        patch.setenv("MINIWIN_CACHE", str(folder / "cache"))
        return runs_in(folder)()


def runs_in(folder: Path) -> Run:
    write_text(folder)

    def go(
        out: str = "run", model: ModelSpec | None = None, options: dict[str, Any] | None = None, **changes: Any
    ) -> RunResult:
        spec = tiny_train(**changes)
        settings = {"base": folder, "progress": False, "tracking": "off", "device": "cpu", **(options or {})}
        return train(model or tiny_model(), spec, out=folder / out, **settings)

    return go


def losses(result: RunResult) -> list[float]:
    return [line["loss"] for line in read_metrics(result.folder)]


def weights(result: RunResult) -> dict[str, torch.Tensor]:
    return load_file(result.folder / "model.safetensors")


def same(one: RunResult, other: RunResult) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# The loss


def test_golden_loss_curve(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIWIN_PRODUCTS", "mkl")
    got = losses(run())
    assert {step: got[step - 1] for step in GOLDEN} == pytest.approx(GOLDEN, abs=5e-4)


def test_the_loss_falls_from_chance_to_below_the_frequencies_of_letters(run: Run, tmp_path: Path) -> None:
    got = losses(run(tokens=100 * 4 * 32))
    text = (tmp_path / "text.txt").read_text()
    shares = [text.count(letter) / len(text) for letter in set(text)]
    unigrams = -sum(share * math.log(share) for share in shares)
    assert got[0] == pytest.approx(math.log(256), abs=0.1)
    assert sum(got[-10:]) / 10 < unigrams - 0.2


def test_accumulation_equals_one_big_batch(run: Run, plain: RunResult) -> None:
    big, batch_size = plain, tiny_train().batch_size
    for parts in (2, 4):
        small = run(f"small-{parts}", batch_size=batch_size // parts, gradient_accumulation=parts)
        assert small.tokens == big.tokens
        assert losses(small) == pytest.approx(losses(big), rel=2e-4)
        assert [line["tokens"] for line in read_metrics(small.folder)] == [
            line["tokens"] for line in read_metrics(big.folder)
        ]


def test_workers_change_nothing(run: Run) -> None:
    alone = run("alone", tokens=10 * 4 * 32)
    helped = run("helped", tokens=10 * 4 * 32, options={"workers": 2})
    assert losses(alone) == losses(helped)
    assert same(alone, helped)


def test_the_seed_decides(run: Run, plain: RunResult) -> None:
    first, again, other = plain, run("again"), run("other", seed=1)
    assert same(first, again)
    assert losses(first)[0] != losses(other)[0] and not same(first, other)


def test_the_callers_random_numbers_are_left_alone(run: Run, plain: RunResult) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one = run("one")
    assert torch.equal(torch.rand(3), expected)
    assert same(one, plain), "and the caller's state does not reach the run"


def test_bfloat16_trains_and_is_not_float32(run: Run, plain: RunResult) -> None:
    result = run("rough", dtype="bfloat16")
    exact, rough = losses(plain), losses(result)
    assert rough != exact
    assert rough == pytest.approx(exact, abs=0.1)
    assert {tensor.dtype for tensor in weights(result).values()} == {torch.float32}


def test_clipping_bounds_the_step_and_null_turns_it_off(run: Run, plain: RunResult) -> None:
    norms = [line["grad_norm"] for line in read_metrics(plain.folder)]
    assert max(norms) > 0.05, "the norm before clipping is what is logged"
    clipped, free = run("clipped", clip_grad_norm=0.05), run("free", clip_grad_norm=None)
    assert losses(clipped)[0] == losses(free)[0] and losses(clipped)[1:] != losses(free)[1:]


def test_weight_decay_reaches_matrices_only() -> None:
    for tied in (True, False):
        decoder = tiny_model(tie_word_embeddings=tied).build()
        decayed, plain = split_parameters(decoder)
        names = {id(parameter): name for name, parameter in decoder.named_parameters()}
        assert len(decayed) + len(plain) == len(names)
        assert all(parameter.ndim >= 2 for parameter in decayed)
        assert [names[id(p)] for p in plain if p.ndim >= 2] == ["embed_tokens.weight"]
        assert ("lm_head.weight" in {names[id(p)] for p in decayed}) is not tied


def test_weight_decay_spares_tables_of_positions() -> None:
    """A row of a table that no token reaches would fade."""
    tables: tuple[tuple[dict[str, Any], tuple[str, ...]], ...] = (
        ({"type": "learned", "num_positions": 9, "then": {"type": "nope"}}, ("queries", "keys")),
        ({"type": "t5"}, ("bias",)),
        ({"type": "transformer-xl"}, ("content_bias", "position_bias")),
    )
    for position, spared in tables:
        blocks = tiny_model().model_dump(mode="json")["blocks"]
        blocks["G"]["attention"]["position"] = position
        decoder = tiny_model(blocks=blocks).build()
        plain = {id(parameter) for parameter in split_parameters(decoder)[1]}
        found = {name for name, p in decoder.named_parameters() if p.ndim >= 2 and id(p) in plain}
        assert {name.rpartition(".")[2] for name in found} == {*spared, "weight"}
        assert [name for name in found if name.endswith("weight")] == ["embed_tokens.weight"]


def test_muon_trains(run: Run, plain: RunResult) -> None:
    muon = {"type": "muon", "lr": 1e-2}
    got, adamw = losses(run(optimizer=muon)), losses(plain)
    assert got[0] == adamw[0] and got[-1] != adamw[-1] and got[-1] < 3.2


def test_compiled_layers_train_alike(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Captured and run as graphs, without the minutes that generating code for them would take."""
    monkeypatch.delenv("MINIWIN_PRODUCTS", raising=False)  # oneDNN and compiling exclude each other
    real, compiled_calls = torch.compile, []

    def captured(function: Any, **options: Any) -> Any:
        compiled_calls.append(function)
        return real(function, backend="aot_eager", **options)

    monkeypatch.setattr(torch, "compile", captured)
    model = tiny_model(pattern="S", last=None, num_layers=1, blocks={"S": tiny_model().blocks["S"].model_dump()})
    options = {"model": model, "tokens": 3 * 4 * 32}
    eager = run("eager", **options)
    assert not compiled_calls
    compiled = run("compiled", compile=True, **options)
    assert len(compiled_calls) == 1 + model.num_layers  # a trial of the compiler, and each layer
    assert losses(compiled) == pytest.approx(losses(eager), abs=5e-4)
    assert weights(compiled).keys() == weights(eager).keys()


def test_compiling_where_it_cannot_be_done(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("no compiler\nand so on")

    monkeypatch.delenv("MINIWIN_PRODUCTS", raising=False)  # oneDNN and compiling exclude each other
    monkeypatch.setattr(torch, "compile", broken)
    message = (
        r"compile: true was asked for, and torch.compile does not work here \(RuntimeError: no compiler\); install"
    )
    with pytest.raises(UserError, match=message):
        run(compile=True)


# The folder


def test_a_run_folder_says_everything(run: Run, tmp_path: Path) -> None:
    result = run(name="my-budget")
    elsewhere = {runs.BEST, runs.BEFORE_DECAY, runs.BEFORE_DECAY_BEST, *runs.CHAT}  # where specs ask for them
    assert sorted(path.name for path in result.folder.iterdir()) == sorted({*runs.FILES, runs.LOCK} - elsewhere)
    record = read_run(result.folder)
    assert record["status"] == result.status == "complete" and record["reason"] is None
    assert record["tokens"] == result.tokens == 30 * 4 * 32 and record["steps"] == result.steps == 30
    assert record["spec_hash"] == result.spec_hash == tiny_model().hash
    assert record["parameters"] == result.parameters == tiny_model().parameters()
    assert record["data"]["fingerprint"] == result.data_fingerprint and record["data"]["source"] == "text"
    assert record["code"].startswith(miniwin.__version__) and record["machine"]["torch"] == torch.__version__
    assert record["seed"] == 0 and result.seconds > 0 and result.tokens_per_second > 0
    lines = read_metrics(result.folder)
    assert [line["step"] for line in lines] == list(range(1, 31))
    assert set(lines[0]) == {
        "step", "tokens", "loss", "smoothed_loss", "lr", "grad_norm", "tokens_per_second"
    }  # fmt: skip
    assert result.final_loss == lines[-1]["smoothed_loss"]
    spec = load_train_spec(result.folder / "train.yaml")
    assert isinstance(spec, TrainSpec)
    assert spec.name == "my-budget" and spec.data.paths == (str(tmp_path / "text.txt"),)  # type: ignore[union-attr]
    checkpoint = load_checkpoint(result.folder / "checkpoint.pt")
    stored = weights(result)
    assert all(torch.equal(checkpoint["model"][name], stored[name]) for name in stored)


def test_a_run_folder_loads_as_a_model(run: Run) -> None:
    seen: list[torch.Tensor] = []
    ids = torch.arange(20)[None]

    def keep(rung: int, model: LanguageModel) -> None:
        seen.append(model(ids))

    result = run(options={"on_eval": keep, "eval_at": [30 * 4 * 32]})
    torch.testing.assert_close(miniwin.load(str(result.folder))(ids), seen[0])


def test_log_every_keeps_the_first_and_the_last_step(run: Run) -> None:
    result = run(log_every=8)
    assert [line["step"] for line in read_metrics(result.folder)] == [1, 8, 16, 24, 30]


def test_specs_are_read_from_files_and_paths_are_relative_to_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "specs"
    folder.mkdir()
    write_text(folder)
    (folder / "m.yaml").write_text(dump_yaml(tiny_model()))
    (folder / "t.yaml").write_text(dump_yaml(tiny_train(tokens=256)))
    monkeypatch.chdir(tmp_path)
    result = miniwin.train("specs/m.yaml", "specs/t.yaml", out="out", progress=False, tracking="off")
    assert (result.status, result.tokens, result.folder) == ("complete", 256, Path("out"))


def test_a_complete_run_is_returned_as_it_is(run: Run) -> None:
    first = run()
    before = {path.name: path.stat().st_mtime_ns for path in first.folder.iterdir()}
    again = run(name="renamed", checkpoint_seconds=9)  # neither changes the result
    assert again == first
    assert {path.name: path.stat().st_mtime_ns for path in first.folder.iterdir()} == before


def test_fresh_starts_over(run: Run) -> None:
    first = run()
    (first.folder / "notes.txt").write_text("mine")
    second = run(seed=3, options={"resume": False})
    assert second.seed == 3 and not math.isclose(second.final_loss, first.final_loss)
    assert [line["step"] for line in read_metrics(second.folder)] == list(range(1, 31))
    assert (first.folder / "notes.txt").read_text() == "mine"


def test_fresh_leaves_a_run_alone_that_is_not_begun_anew(run: Run) -> None:
    """Whatever is wrong is found before the finished run is gone."""
    folder = run().folder
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for changes, options, message in (
        (
            {"packing": "documents"},
            {"model": kept_model()},
            r"packing: documents does not work with keep_first \(blocks.S.att",
        ),
        ({}, {"options": {"workers": -1}}, "workers: got -1; expected how many processes"),
    ):
        options = {**options, "options": {"resume": False, **options.get("options", {})}}
        with pytest.raises(UserError, match=message):
            run(**options, **changes)  # type: ignore[arg-type]
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def kept_model() -> ModelSpec:
    blocks = tiny_model().model_dump(mode="json")["blocks"]
    blocks["S"]["attention"]["keep_first"] = 2
    return tiny_model(blocks=blocks)


def test_a_run_that_never_took_a_step_is_in_nobodys_way(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: object) -> None:
        raise RuntimeError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr("miniwin.training.batch_loss.next_token_loss", fails)
        with pytest.raises(RuntimeError, match="no memory"):
            run()
    other = run(seed=4)
    assert (other.status, other.seed) == ("complete", 4)
    assert [line["step"] for line in read_metrics(other.folder)] == list(range(1, 31))


def test_the_largest_seeds_and_budgets(run: Run) -> None:
    assert tiny_train(seed=2**64 - 1, tokens=3 * 10**12).tokens == 3 * 10**12
    assert run(seed=2**64 - 1, tokens=256).status == "complete"
    for name, value in (("seed", 2**64), ("tokens", 10**15 + 1)):
        with pytest.raises(ValueError, match=f"{name}: got .*; expected at most"):
            tiny_train(**{name: value})


# Rungs


def test_rungs_are_asked_once_each_in_eval_mode(run: Run) -> None:
    asked: list[tuple[int, bool, bool]] = []

    def on_eval(rung: int, model: LanguageModel) -> None:
        asked.append((rung, model.training, torch.is_grad_enabled()))
        torch.rand(7)  # an evaluation may draw

    result = run("asked", options={"on_eval": on_eval, "eval_at": [3000, 130, 1000, 3000]})
    assert asked == [(130, False, False), (1000, False, False), (3000, False, False)]
    assert same(result, run("plain")), "evaluations do not change the training"


def test_a_pruned_run_stays_pruned_until_it_is_trained_on(run: Run) -> None:
    asked: list[int] = []

    def on_eval(rung: int, model: LanguageModel) -> bool:
        asked.append(rung)
        return rung < 2000

    options = {"on_eval": on_eval, "eval_at": [1000, 2000, 3000]}
    pruned = run(options=options)
    assert pruned.status == "pruned" and pruned.reason == "given up after 2048 tokens, as on_eval said"
    assert asked == [1000, 2000] and not (pruned.folder / "model.safetensors").exists()
    assert run(options=options) == pruned and asked == [1000, 2000]
    assert same(run(), run("plain")), "without anyone to ask, it is trained to its end"


def test_a_paused_run_goes_on_where_it_was_and_is_asked_about_the_rung_again(run: Run) -> None:
    asked: list[int] = []

    def on_eval(rung: int, model: LanguageModel) -> bool | Literal["pause"]:
        asked.append(rung)
        return "pause" if asked.count(rung) < 3 and rung == 2000 else True

    options = {"on_eval": on_eval, "eval_at": [1000, 2000, 3000]}
    for _ in range(2):
        paused = run(options=options)
        assert paused.status == "interrupted" and paused.reason == "paused after 2048 tokens, as on_eval said"
    whole = run(options=options)
    assert whole.status == "complete" and asked == [1000, 2000, 2000, 2000, 3000]
    assert same(whole, run("plain")), "the same weights, to the bit"


def test_an_error_in_an_evaluation_is_recorded_and_the_run_continues(run: Run, tmp_path: Path) -> None:
    calls = []

    def on_eval(rung: int, model: LanguageModel) -> None:
        calls.append(rung)
        if len(calls) == 1:
            raise ZeroDivisionError("of the evaluation")

    options = {"on_eval": on_eval, "eval_at": [1000]}
    with pytest.raises(ZeroDivisionError):
        run(options=options)
    record = read_run(tmp_path / "run")
    assert (record["status"], record["reason"]) == ("failed", "ZeroDivisionError: of the evaluation")
    assert run(options=options).status == "complete" and calls == [1000, 1000]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eval_at": [100]}, r"eval_at is \[100\], but there is no on_eval to call: give both or neither"),
        (
            {"eval_at": [100, 10**6], "on_eval": print},
            r"eval_at is \[100, 1000000\]; expected numbers of tokens from 1 to 3840, the run's budget",
        ),
        ({"device": "gpu"}, "device: got 'gpu'; expected cpu, cuda, or cuda:1 and so on"),
    ],
)
def test_options_that_make_no_sense(run: Run, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(options=options)


# Divergence


def test_a_loss_that_is_not_a_number_ends_the_run(run: Run) -> None:
    result = run(optimizer={"lr": 1e38}, clip_grad_norm=None)
    assert result.status == "diverged"
    assert result.reason is not None
    assert "loss nan" in result.reason and "the median before was 5." in result.reason
    assert "try a lower optimizer.lr, a longer schedule.warmup or a smaller clip_grad_norm" in result.reason
    step = result.steps + 1
    assert result.reason.startswith(f"step {step}: ")
    last = read_metrics(result.folder)[-1]
    assert last["step"] == step and last["loss"] is None, "JSON has no NaN"
    assert not (result.folder / "model.safetensors").exists()
    assert run(optimizer={"lr": 1e38}, clip_grad_norm=None) == result, "the same specs diverge the same way"


def test_a_loss_that_stays_high_ends_the_run(run: Run) -> None:
    stop = {"loss_spike": 2.0, "patience": 3}
    result = run(optimizer={"lr": 3.0}, schedule={"type": "cosine", "warmup": 0.3}, stop=stop)
    assert result.status == "diverged"
    assert result.reason is not None
    assert ", 3 steps in a row more than 2 nats too high, the median before was " in result.reason


def test_loss_watch_counts_only_steps_in_a_row_and_remembers_before() -> None:
    watch = LossWatch(StopSpec(loss_spike=1.0, patience=3))
    for step, loss in enumerate([2.0] * 10 + [4.0, 4.0, 2.0, 4.0, 4.0], 1):
        assert watch.see(step, loss, 1.0) is None
    reason = watch.see(16, 4.5, 1.0)
    assert reason is not None
    assert reason.startswith(
        "step 16: loss 4.500, 3 steps in a row more than 1 nats too high, the median before was 2.000;"
    )


def test_loss_watch_can_be_told_to_bear_spikes_but_not_nan() -> None:
    watch = LossWatch(StopSpec(loss_spike=None))
    assert all(watch.see(step, 10.0**step, 1.0) is None for step in range(1, 9))
    assert (watch.see(9, 1.0, math.inf) or "").startswith("step 9: loss 1 with a gradient norm of inf")


def test_smoothed_loss_has_no_bias_at_the_start() -> None:
    watch = LossWatch(StopSpec())
    assert math.isnan(watch.smoothed)
    watch.see(1, 5.0, 1.0)
    assert watch.smoothed == pytest.approx(5.0)
    watch.see(2, 3.0, 1.0)
    assert watch.smoothed == pytest.approx((0.95 * 5 + 3) / 1.95)


# What is refused


def test_a_tokenizer_larger_than_the_vocabulary(run: Run) -> None:
    with pytest.raises(UserError, match=r"'byte' has 256 tokens, .* vocab_size of 100; expected at least as many"):
        run(model=tiny_model(vocab_size=100))


def test_other_settings_in_the_same_folder(run: Run) -> None:
    folder = run().folder
    message = r"other settings \(train\.optimizer\.lr: 0\.01 there, 0\.02 now; train\.seed: 0 there, 4 now\)"
    with pytest.raises(UserError, match=message):
        run(optimizer={"lr": 2e-2}, seed=4)
    assert read_run(folder)["status"] == "complete"


def test_another_architecture_in_the_same_folder(run: Run) -> None:
    run()
    with pytest.raises(UserError, match=r"another architecture \('tiny-test'.*start over with --fresh"):
        run(model=tiny_model(pattern="GS"))


def test_other_data_in_the_same_folder(run: Run, tmp_path: Path) -> None:
    run(options={"stop_after_tokens": 500})
    write_text(tmp_path, seed=1)
    with pytest.raises(UserError, match=r"a run on other data \(its fingerprint was .* put the data back"):
        run()


def test_the_same_data_elsewhere_is_the_same_run(run: Run, tmp_path: Path) -> None:
    run(options={"stop_after_tokens": 500})
    (tmp_path / "text.txt").rename(tmp_path / "moved.txt")
    assert run(data={"source": "text", "paths": ["moved.txt"]}).status == "complete"


def test_a_folder_that_is_no_run_folder_is_not_written_over(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/model.yaml").write_text("precious")
    for resume in (True, False):
        with pytest.raises(UserError, match=r"has a model\.yaml but no run\.json: it is not a run folder"):
            run("mine", options={"resume": resume})
    assert (tmp_path / "mine/model.yaml").read_text() == "precious"
    (tmp_path / "notes/old").mkdir(parents=True)
    (tmp_path / "notes/thesis.tex").write_text("precious")
    for resume in (True, False):
        with pytest.raises(UserError, match=r"notes holds old, thesis\.tex but no run\.json: .* such as .*notes.run$"):
            run("notes", options={"resume": resume})
    assert sorted(path.name for path in (tmp_path / "notes").iterdir()) == ["old", "thesis.tex"]
    with pytest.raises(UserError, match="is a file; expected a folder for the run"):
        run("text.txt")


def test_what_lies_beside_a_run_stays(run: Run, tmp_path: Path) -> None:
    """A folder with hidden files only is as good as empty. What is put beside a run is not discarded with the run."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/.gitignore").write_text("*")
    run("mine")
    (tmp_path / "mine/notes.md").write_text("precious")
    run("mine", options={"resume": False})
    assert (tmp_path / "mine/notes.md").exists() and (tmp_path / "mine/.gitignore").exists()


def test_a_folder_that_cannot_be_made(run: Run) -> None:
    for place, why in (("text.txt/x", "Not a directory"), ("x" * 300, "File name too long")):
        with pytest.raises(
            UserError, match=rf"{place}: no run folder can be made there \({why}\); choose another --out"
        ):
            run(place)


def test_two_processes_do_not_train_in_one_folder(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(same_run, "LOCK_SECONDS", 0.05)
    (tmp_path / "run").mkdir()
    with FileLock(tmp_path / "run" / runs.LOCK), pytest.raises(UserError, match="another process is training in"):
        run()
    assert run().status == "complete"


def test_a_mistake_leaves_no_folder_behind(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        run(data={"source": "text", "paths": ["nowhere.txt"]})
    assert not (tmp_path / "run").exists()


def test_too_little_data_leaves_the_folder_to_the_corrected_run(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"too little data: the split has .* smaller seq_len"):
        run(seq_len=32_768, tokens=200_000)
    assert not (tmp_path / "run").exists()
    assert run(tokens=256).status == "complete"


# What the person sees


def test_plain_progress_lines(run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)
    run(options={"progress": True})
    lines = capsys.readouterr().err.splitlines()
    assert len([line for line in lines if line.startswith("run: step ")]) == 30
    assert "run: step 30/30  loss " in lines[-1] and "tokens/s  0s left" in lines[-1]


def test_a_bar_on_a_terminal(run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    run(options={"progress": True})
    shown = capsys.readouterr()
    assert "30/30" in shown.err and "loss" in shown.err and "tokens/s" in shown.err and "left" in shown.err
    assert shown.out == ""


def test_quiet_is_quiet(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run()
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "")


def test_durations_and_rates() -> None:
    assert [progress.duration(seconds) for seconds in (0.2, 59.4, 185, 7620)] == ["0s", "59s", "3m05s", "2h07m"]
    assert [progress.rate(speed) for speed in (830.4, 12345)] == ["830 tokens/s", "12.3k tokens/s"]


# The command


def test_the_command_trains_and_says_what_is_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MINIWIN_HOME", "home")
    monkeypatch.chdir(tmp_path)
    write_text(tmp_path)
    Path("m.yaml").write_text(dump_yaml(tiny_model()))
    Path("t.yaml").write_text(dump_yaml(tiny_train()))
    line = ["train", "m.yaml", "--train", "t.yaml", "--set", "name=mine", "--set-train", "tokens=256"]
    line += ["--tracking", "off", "--device", "cpu", "--quiet"]
    done = CliRunner().invoke(app, line)
    assert done.exit_code == 0, done.output
    folder = Path("home/mine-tiny-test")
    assert read_run(folder)["tokens"] == 256
    assert done.stdout.startswith(f"complete: {folder}\n  256 tokens in ")
    assert f'next: miniwin generate {folder} --prompt "..."' in done.stdout

    spaced = CliRunner().invoke(app, [*line, "--out", "my first"])
    assert "next: miniwin generate 'my first' --prompt" in spaced.stdout and "eval 'my first'" in spaced.stdout

    code, out, err = run_cli(*line, "--set-train", "seq_len=8k", "--set", "name=other")
    assert code == 2 and "--set-train seq_len=8k: seq_len: got '8k'; expected a whole number: write it in digits" in err
    code, out, err = run_cli(*line, "--set-train", "lr=1")
    assert code == 2 and "--set-train lr=1: lr: unknown field" in err

    code, out, err = run_cli(*line, "--out", "")
    assert code == 2 and out == "" and err.startswith("error: --out: got an empty name; expected a folder for the run")
    assert not Path("run.json").exists()

    diverged = CliRunner().invoke(app, [*line, "--fresh", "--set-train", "optimizer.lr=1e38"])
    assert diverged.exit_code == 1
    assert diverged.stdout.startswith(f"diverged: {folder}\n  step ")


# --- what training starts from


@pytest.fixture
def brief(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A command line of train, but for the model."""
    monkeypatch.setenv("MINIWIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MINIWIN_ZOO", str(tmp_path / "zoo"))
    monkeypatch.chdir(tmp_path)
    write_text(tmp_path)
    (tmp_path / "train.yaml").write_text(dump_yaml(tiny_train(tokens=256)))
    (tmp_path / "model.yaml").write_text(dump_yaml(tiny_model()))
    return ["--train", "train.yaml", "--quiet", "--tracking", "off"]


def test_training_says_in_one_line_that_weights_are_random(brief: list[str], tmp_path: Path) -> None:
    code, _, err = run_cli("train", "model.yaml", *brief, "--out", "run")
    assert code == 0 and err == "tiny-test: training starts from random weights (seed 0)\n", err
    for again in (["--resume"], ["--resume", "--quiet"]):  # nothing starts
        code, _, err = run_cli("train", "model.yaml", *brief, "--out", "run", *again)
        assert code == 0 and err == ""
    code, _, err = run_cli("train", "model.yaml", *brief, "--out", "run", "--fresh")
    assert code == 0 and "training starts from random weights" in err
    code, _, err = run_cli("train", "run/model.yaml", *brief, "--out", "other")
    assert code == 0 and err == "tiny-test: training starts from random weights (seed 0), not from those in run\n"
    # A name of both kinds is the spec's.
    add(tmp_path / "run", name="miniwin-tiny")
    code, _, err = run_cli("train", "miniwin-tiny", *brief, "--out", "third", "--set-train", "tokens=64")
    assert code == 0 and err.startswith(
        "miniwin-tiny: training starts from random weights (seed 0), not from the zoo en"
    )
    assert read_run(tmp_path / "third")["spec_hash"] == load_spec("miniwin-tiny").hash


def test_trained_weights_are_not_trained_on(brief: list[str], tmp_path: Path) -> None:
    assert run_cli("train", "model.yaml", *brief, "--out", "run")[0] == 0
    entry = add(tmp_path / "run", name="mine")
    imported = tmp_path / "imported"
    imported.mkdir()
    for name in ("model.yaml", "model.safetensors"):
        (imported / name).write_bytes((tmp_path / "run" / name).read_bytes())
    refused = {
        "mine": entry.folder,
        "mine@1.0.0": entry.folder,
        "mine@latest": entry.folder,
        str(entry.folder): entry.folder,
        str(entry.folder / "model.yaml"): entry.folder,
        "miniwin-1m@1.0.0": None,
        "imported": imported,  # as an export is: weights, and nothing that says whence
        "imported/model.yaml": imported,
    }
    for ref, folder in refused.items():
        code, out, err = run_cli("train", ref, *brief, "--out", "new")
        assert code == 2 and out == "" and err.count("\n") == 1, err
        assert "without --from training starts from random weights. To go on from its weights, add --from " in err
        assert folder is None or err.endswith("model.yaml my-model.yaml\n")
        with pytest.raises(UserError, match="without --from training starts from random weights"):
            train(ref, tiny_train(), out="new", base=tmp_path, progress=False, tracking="off")
    (imported / "import.json").touch()
    code, _, err = run_cli("train", "imported/model.yaml", *brief, "--out", "new")
    assert code == 2 and err.startswith("error: imported/model.yaml belongs to an imported model, and without --from")
    code, _, err = run_cli("train", "run", *brief, "--out", "new")
    assert (
        code == 2
        and "run is a folder; without --from, training starts from random weights, whatever is in it: add --from run"
        in err
    )
    code, _, err = run_cli("train", "no-such-thing", *brief, "--out", "new")
    assert code == 2 and "no-such-thing: there is no such file, and no shipped spec is called so" in err
    assert not (tmp_path / "new").exists()
