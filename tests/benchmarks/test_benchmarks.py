"""The benchmark itself: every case runs, a wrong result gets no figure, and what is reported is what was measured.

Nothing here asserts how fast anything is.
"""

from __future__ import annotations

import copy
import gc
import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from paths import ROOT

sys.path.insert(0, str(ROOT))  # the benchmarks are run from a checkout, and are no part of the package

from float64 import all_float64, assert_exact, called_in_float64

from benchmarks import (
    alone,
    attention,
    bars,
    beside,
    child,
    compare,
    continued,
    gate,
    gpu,
    machine,
    models,
    plan,
    plot,
    report,
    runner,
    timing,
    training,
)
from benchmarks.__main__ import main
from benchmarks.case import OURS, Case, Work
from benchmarks.growth import exponent, growth
from benchmarks.machine import described
from benchmarks.models import (
    AUTHORS,
    INT8,
    TITLES,
    WITH_MKL,
    Ours,
    TheirOwn,
    built,
    local_only,
    random_piece,
    small_spec,
)
from benchmarks.peers import attention as peers
from benchmarks.peers.authors import Authors
from miniwin.blocks import Decoder, matmul_library
from miniwin.blocks.matmul_library import MKL, ONEDNN
from miniwin.blocks.triton_kernels import qkv_entry
from miniwin.specs import ModelSpec, load_model_spec


def tiny_spec() -> ModelSpec:
    return load_model_spec("miniwin-512-tiny")


def strong(spec: ModelSpec) -> Decoder:
    """Weights so large that every part shows in the logits."""
    decoder = built(spec)
    with torch.no_grad():
        for i, weight in enumerate(decoder.parameters()):
            torch.manual_seed(i)
            weight.copy_(torch.randn_like(weight) * (0.3 if weight.dim() > 1 else 0.2) + (weight.dim() == 1))
    return decoder.eval()


@pytest.fixture(scope="module", autouse=True)
def thawed() -> Iterator[None]:
    """What `at_once` has frozen is garbage again, if it is garbage, once these tests are over."""
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    """All tiny cases but those with processes of their own."""
    cases = [case for case in plan.tiny().cases if case.family != "memory"]
    return runner.run_all(cases, 2, "tiny", lambda line: None, 64, measure=at_once)


def at_once(case: Case, repeats: int) -> dict[str, Any]:
    """`runner.run_case`, a run to a sample: figures are not what is tested here.

    Garbage is collected before each measurement: only of what the case leaves, not of all that is loaded by now.
    """
    gc.freeze()
    return runner.run_case(case, repeats, steady=0.0)


# Cases


def test_the_cases_of_a_gpu_run_on_a_cpu_too(capsys: pytest.CaptureFixture[str]) -> None:
    """Tiny; but for the rotary kernel, which is for GPUs (and Triton's interpreter) only."""
    attention_case, decode_case, rotary_case = plan.gpu("cpu", k=16).cases
    found = at_once(attention_case, 2)
    assert found["status"] == "ok" and set(found["sides"]) == {OURS, gpu.DENSE}, found
    assert found["sides"][OURS]["flops_per_second"] > 0
    found = at_once(decode_case, 2)
    assert found["status"] == "ok" and len(found["sides"]) == 2, found
    if not qkv_entry.INTERPRETED and not torch.cuda.is_available():
        with pytest.warns(UserWarning, match="fused rotary kernel is not used on cpu"):
            qkv_entry.distrust.cache_clear()
            assert "does not run here" in at_once(rotary_case, 2)["reason"]
    cases = {case.name for case in plan.gpu().cases}
    for bar in bars.GPU_BARS:
        measured: list[str] = []
        bar.measure(Asked(measured), {})
        assert set(measured) <= cases and measured, bar.text
    if not torch.cuda.is_available():
        with pytest.raises(SystemExit) as exit:
            main(["--gpu"])
        assert exit.value.code == 2 and "no CUDA device" in capsys.readouterr().err


class Asked(dict[str, Any]):
    """Notes the names of the cases that a bar asks for."""

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def get(self, name: str, default: Any = None) -> Any:  # type: ignore[override]
        self.names.append(name)
        return default


def test_every_case_runs_with_its_peers(result: dict[str, Any]) -> None:
    assert {case["family"] for case in result["cases"]} == {"attention", "prefill", "train", "decode"}
    for case in result["cases"]:
        assert case["status"] == "ok", case
        # The one peer that may not be installed, and the one that there is only where others are chosen.
        assert set(case["absent"]) <= {attention.LOCAL, WITH_MKL}, case
        assert next(iter(case["sides"])) == OURS
        for side in case["sides"].values():
            assert len(side["values"]) == 2 and 0 < side["low"] <= side["median"] <= side["high"]
    named = {case["name"]: case for case in result["cases"]}
    first = named["attention/forward/W=8/float32/N=33"]["sides"]
    assert {attention.MASKED, attention.AUTHORS, attention.CAUSAL, attention.MATMUL} <= set(first)
    assert {AUTHORS, *TITLES.values()} < set(named["prefill/miniwin-512-tiny/N=16"]["sides"])
    assert training.PLAIN in named["train/miniwin-512-tiny/bfloat16/2x40"]["sides"]
    assert {AUTHORS, *TITLES.values()} < set(named["decode/miniwin-512-tiny/context=48"]["sides"])


def test_quick_and_full_have_unique_names_and_cover_every_bar() -> None:
    for kind in ("quick", "full"):
        names = [case.name for case in plan.PLANS[kind]().cases]
        assert len(names) == len(set(names))
    sizes = {case.name: case.series for case in plan.quick().cases}
    whole = {case.name: case.series for case in plan.full().cases}
    asked: list[str] = []

    class Recorder(dict[str, Any]):
        def get(self, name: str, default: Any = None) -> Any:
            asked.append(name)
            return default

    for bar in bars.BARS:
        bar.measure(Recorder(), {"growth": []})
    assert asked and set(asked) <= set(whole)
    assert set(asked) - set(sizes) == {"memory/bits per byte of miniwin-1m/N=1000000"}  # hours: only in full
    assert list(sizes.values()).count("memory/attention forward+backward/W=64") >= 3


@pytest.mark.parametrize(
    "asked",
    [
        {"what": "attention", "length": 200, "window": 16, "side": OURS},
        {"what": "attention", "length": 200, "window": 16, "side": attention.MASKED},
        {"what": "prefill", "model": "miniwin-512-tiny", "length": 64, "side": AUTHORS},
        {"what": "decode", "model": "miniwin-512-tiny", "length": 96, "piece": 24, "side": OURS},
        {"what": "million", "model": "miniwin-tiny", "length": 200, "side": OURS},
    ],
    ids=lambda asked: f"{asked['what']}-{asked['side']}",
)
def test_memory_work_runs(asked: dict[str, Any]) -> None:
    answer = child.main({**asked, "threads": torch.get_num_threads()})
    assert answer["seconds"] > 0 and isinstance(answer["bytes"], int)
    if asked["what"] == "million":
        assert 7 < float(answer["note"].split()[0]) < 9  # random bytes have 8 bits each
        assert "200 tokens" in answer["note"]


def test_peak_memory_is_measured_in_a_process_of_its_own() -> None:
    """65,536 tokens of 64-wide keys and values for 2 heads, and 8 heads of queries: 192 MiB without gradients."""
    asked = {"what": "attention", "length": 16384, "window": 16, "side": OURS, "threads": torch.get_num_threads()}
    command = [sys.executable, "-m", "benchmarks.child", json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    held = 16384 * 64 * (8 + 2 + 2) * 4
    assert 2 * held < json.loads(done.stdout)["bytes"] < 20 * held  # inputs and their gradients at least


def test_a_case_that_fails_says_so_and_the_next_one_runs() -> None:
    cases = [Case("attention/a", "attention/a", 1, _broken), Case("attention/b", "attention/b", 1, _work)]
    found = runner.run_all(cases, 3, "tiny", lambda line: None, 16, measure=at_once)
    assert [case["status"] for case in found["cases"]] == ["failed", "ok"]
    assert found["cases"][0]["reason"] == "RuntimeError: no such kernel"
    text = report.markdown(found)
    assert "**attention/a** failed: RuntimeError: no such kernel" in text and "Matrix products: float32" in text
    without = runner.run_all(cases, 3, "gpu", lambda line: None, None, measure=at_once)
    assert "Matrix products" not in report.markdown(without)


def test_a_timed_case_is_measured_in_a_process_of_its_own() -> None:
    """What is wrong here does not matter there: the case is made anew, by its name."""
    case = replace(plan.tiny().cases[0], make=_broken)
    assert at_once(case, 1)["status"] == "failed"
    found = alone.run_alone("tiny", case, 1, steady=0.0)
    assert (found["name"], found["status"]) == (case.name, "ok"), found
    assert all(len(side["values"]) == 1 for side in found["sides"].values())


def test_a_case_whose_process_ends_early_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="not enough values"):
        alone.main({"kind": "tiny", "name": "attention/none", "threads": torch.get_num_threads()})
    answer = alone.process.answer  # of a module that ends sooner
    monkeypatch.setattr(alone.process, "answer", lambda module, asked: answer("benchmarks.compare", asked))
    found = alone.run_alone("tiny", Case("attention/none", "attention", 1, _work), 1, steady=0.0)
    assert found["status"] == "failed" and found["sides"] == {}
    assert found["reason"].startswith("RuntimeError: its process ended with 2: "), found


def test_no_case_begins_after_the_minutes_are_over() -> None:
    cases = [Case("attention/b", "attention/b", 1, _work)]
    (case,) = runner.run_all(cases, 3, "tiny", lambda line: None, 16, minutes=0)["cases"]
    assert case["reason"] == "TimeoutError: left out after 0 minutes; --minutes allows more"


def _broken() -> Work:
    raise RuntimeError("no such\n  kernel")


def _work() -> Work:
    def refuses() -> None:
        raise LookupError("not installed: pip install it")

    work = Work({OURS: lambda: None, "breaks": refuses}, gate="nothing to compare")
    work.offer("absent", lambda: refuses())  # type: ignore[func-returns-value, arg-type, return-value]
    return work


def test_a_peer_that_fails_is_absent_with_its_reason() -> None:
    found = at_once(Case("attention/b", "attention/b", 1, _work), 3)
    why = "LookupError: not installed: pip install it"
    assert found["absent"] == {"absent": why, "breaks": why} and list(found["sides"]) == [OURS]


# The gate


def test_the_gate_catches_a_wrong_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = attention.Shape(64, 8, heads=4, kv_heads=2, head_dim=16)
    right = attention.attend
    monkeypatch.setattr(attention, "attend", lambda call: right(call) * 1.001)
    found = at_once(attention.case(shape), 2)
    assert found["status"] == "failed" and found["sides"] == {}
    assert "Disagreement: queries" in found["reason"] and "the reference" in found["reason"]


def test_the_gate_catches_a_peer_with_another_window(monkeypatch: pytest.MonkeyPatch) -> None:
    right = peers.banded
    monkeypatch.setattr(peers, "banded", lambda length, window: right(length, window + 1))
    shape = attention.Shape(64, 8, heads=4, kv_heads=2, head_dim=16, backward=True)
    found = at_once(attention.case(shape), 2)
    assert set(found["sides"]) == {OURS, attention.OPERATORS, attention.CAUSAL}
    assert f"Disagreement: {attention.MASKED} and ours: differ by" in found["absent"][attention.MASKED]


def test_the_gate_catches_a_wrong_training_step(monkeypatch: pytest.MonkeyPatch) -> None:
    right = training.next_token_loss
    monkeypatch.setattr(training, "next_token_loss", lambda *given: right(*given) * 1.01)
    found = at_once(training.case(tiny_spec(), 40, 1, torch.float32, ()), 2)
    assert found["status"] == "failed" and "Disagreement: the loss" in found["reason"]


def test_the_gate_catches_a_wrong_model(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Authors.rotated
    monkeypatch.setattr(Authors, "rotated", lambda self, x, first, window: right(self, x, first + 1, window + 0) * 1.1)
    for case in plan.tiny().cases:
        if case.name in ("prefill/miniwin-512-tiny/N=32", "decode/miniwin-512-tiny/context=48"):
            assert "Disagreement" in at_once(case, 2)["absent"][AUTHORS]


def test_agree_refuses_nan_and_shapes() -> None:
    x = torch.ones(3)
    assert gate.agree("x", x, x) == 0
    with pytest.raises(gate.Disagreement, match="differ by nan"):
        gate.agree("x", x * float("nan"), x)
    with pytest.raises(gate.Disagreement, match=r"shapes \(3,\) and \(2,\)"):
        gate.agree("x", x, x[:2])


# The peers


@torch.no_grad()
def test_the_authors_code_restated_has_our_logits() -> None:
    """Past window and period: training pass, prefill, and decoding on the caches that the prefill left."""
    spec = tiny_spec()
    decoder = strong(spec).double()
    with all_float64():
        theirs = Authors(decoder, spec)
    forward = called_in_float64(theirs)
    ids = torch.randint(0, spec.vocab_size, (2, 45), generator=torch.Generator().manual_seed(0))
    assert_exact(decoder(ids), forward(ids)[0])
    cache = decoder.new_cache(2)
    ours = decoder(ids[:, :31], cache=cache, logits_to_keep=1)
    logits, past = forward(ids[:, :31], use_cache=True, logits_to_keep=1)
    assert_exact(ours, logits)
    for t in range(31, 45):
        ours = decoder(ids[:, t : t + 1], cache=cache)
        logits, past = forward(ids[:, t : t + 1], past, use_cache=True)
        assert_exact(ours, logits)
    assert all(k.shape[1] == 45 for k, _ in past)  # every layer holds every token
    with pytest.raises(ValueError, match="one token at a time"):
        theirs(ids[:, :2], past)


def test_the_authors_code_restated_has_our_gradients() -> None:
    spec = tiny_spec()
    ids = torch.randint(0, spec.vocab_size, (1, 30), generator=torch.Generator().manual_seed(0))
    ours, other = Ours(strong(spec).double()), strong(spec).double()
    ours.loss(ids[:, :-1], ids[:, 1:]).backward()
    with all_float64():
        theirs = TheirOwn(other, spec)
        theirs.loss(ids[:, :-1], ids[:, 1:]).backward()
    for mine, their in zip(ours.module.parameters(), theirs.module.parameters(), strict=True):
        assert mine.grad is not None and their.grad is not None
        assert_exact(mine.grad, their.grad)


@torch.no_grad()
def test_filled_caches_are_those_of_a_prefill_of_their_keys() -> None:
    """With the same random keys our ring and the authors' long cache go on alike, past the window."""
    spec = tiny_spec()
    decoder, piece = strong(spec), random_piece(spec, 20)
    sides = [Ours(decoder).decoder(piece, 60), TheirOwn(decoder, spec).decoder(piece, 60)]
    token = torch.ones(1, 1, dtype=torch.int64)
    for _ in range(15):
        a, b = (side.step(token) for side in sides)
        torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-4)
    assert sides[0].nbytes() < sides[1].nbytes()
    assert sides[1].nbytes() == 75 * 2 * spec.num_layers * piece[0, 0].numel() * 4


def test_the_authors_code_restated_refuses_other_models() -> None:
    spec = load_model_spec("miniwin-tiny")
    with pytest.raises(ValueError, match="no layer like"):
        Authors(spec.build(), spec)


def test_the_small_model_has_1_6_million_parameters() -> None:
    assert round(small_spec().parameters() / 1e6, 1) == 1.6
    assert round(load_model_spec(plan.MODEL).parameters() / 1e6) == 26
    assert set(local_only(tiny_spec()).layout) == {"S"}


def test_local_attention_is_only_absent_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "local_attention", None)
    shape = attention.Shape(64, 8, heads=4, kv_heads=2, head_dim=16, package=True)
    found = at_once(attention.case(shape), 2)
    assert found["absent"] == {attention.LOCAL: "LookupError: not installed: pip install local-attention"}


# Timing, growth, report, plot


def test_sides_take_turns_and_a_slow_one_is_left_out() -> None:
    order: list[str] = []
    clock = iter(range(1000))
    took = {"a": 1.0, "b": 2.0, "quick": 0.05, "slow": 50.0}

    def perf_counter() -> float:
        return now[0]

    now = [0.0]

    def run(name: str) -> None:
        order.append(name)
        now[0] += took[name] + next(clock) * 1e-6

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing.time, "perf_counter", perf_counter)
        sides = {name: (lambda name=name: run(name)) for name in took}
        found, left = timing.interleaved(sides, repeats=9, budget=15.5)
    # The quick one is asked once more how many of it make up a sample; 15.5 s allow four rounds of 3.2 s.
    assert order[4:] == ["a", "quick", *["a", "b", *["quick"] * 4] * 4]
    assert list(left) == ["slow"] and "one run took 50.0 s" in left["slow"]
    assert round(found["b"].median) == 2 and len(found["a"].values) == 4
    assert round(found["quick"].median, 3) == 0.05
    value, low, high = timing.ratio(found["b"], found["a"])
    assert low <= value <= high and round(value, 3) == 2


def test_exponent() -> None:
    assert exponent([(n, 3e-6 * n**2) for n in (1024, 4096, 65536)]) == pytest.approx(2)
    cases = [_synthetic("attention/x/N=1", OURS, [2.0 * n], at=n) for n in (1, 2, 4)]
    assert [row["exponent"] for row in growth(cases)] == [1.0]
    assert growth(cases[:2]) == []


def _synthetic(name: str, side: str, values: list[float], at: int = 1, **sides: list[float]) -> dict[str, Any]:
    found = {}
    for each, numbers in {side: values, **sides}.items():
        samples = timing.Samples(tuple(numbers))
        low, high = samples.quartiles
        found[each] = {"median": samples.median, "low": low, "high": high, "values": numbers}
    family = name.partition("/")[0]
    facts = {"name": name, "family": family, "series": name.rpartition("/")[0], "at": at, "unit": "seconds"}
    return {**facts, "tokens": 10, "status": "ok", "gate": "", "notes": [], "absent": {}, "sides": found, "took": 1.0}


def test_verdicts_follow_the_numbers() -> None:
    name = "attention/forward/W=64/float32/N=4096"
    wanted = (
        bars.Bar("fast", bars.times(name, "peer"), least=35.0),
        bars.Bar("slow", bars.times(name, "slow peer"), least=35.0),
        bars.Bar("flat", bars.times(name, "peer"), most=1.1),
        bars.Bar("told", bars.times(name, "peer")),
        bars.Bar("none", bars.times(name, "nobody"), least=1.0),
    )
    sides = {"peer": [40.0, 36.0, 44.0], "slow peer": [30.0, 31.0, 30.0]}
    result = {"cases": [_synthetic(name, OURS, [1.0, 1.0, 1.0], **sides)], "growth": []}
    rows = {row["bar"]: row for row in bars.judged(result, wanted)}
    verdicts = {text: row["verdict"] for text, row in rows.items()}
    assert verdicts == {
        "fast": "met",
        "slow": "missed",
        "flat": "missed",
        "told": "for information",
        "none": "not measured",
    }
    assert (rows["fast"]["measured"], rows["fast"]["low"], rows["fast"]["high"]) == (40.0, 38.0, 42.0)
    assert rows["fast"]["wanted"] == ">= 35x" and rows["flat"]["wanted"] == "<= 1.1x" and rows["told"]["wanted"] == ""


def test_share_of_the_peak_is_a_ratio_of_rates() -> None:
    case = _synthetic("attention/x/N=1", OURS, [2.0, 2.0], **{attention.MATMUL: [1.0, 1.0]})
    case["sides"][OURS]["flops_per_second"] = 50.0
    case["sides"][attention.MATMUL]["flops_per_second"] = 200.0
    assert bars.share("attention/x/N=1")({"attention/x/N=1": case}, {}) == (25.0, 25.0, 25.0)


def test_useful_operations_count_the_keys_that_are_seen() -> None:
    shape = attention.Shape(7, 3, heads=1, kv_heads=1, head_dim=1)
    seen = int(peers.banded(7, 3).sum())
    assert shape.flops == 4 * seen


def test_markdown_json_and_plot(result: dict[str, Any], tmp_path: Path) -> None:
    again = json.loads(json.dumps(result))
    text = report.markdown(again, "plot.svg")
    for case in result["cases"]:
        assert f"| {case['name'].partition('/')[2]} | {OURS} |" in text
    assert "![tokens per second by length](plot.svg)" in text and "## Growth with length" in text
    assert "a million" not in text and "| not measured |" in text
    for word in ("/home", "/tmp", "/work", str(ROOT)):
        assert word not in text and word not in json.dumps(result)
    import platform

    assert platform.node() not in text or len(platform.node()) < 4
    picture = ElementTree.fromstring(plot.svg(again))
    names = [element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert {"Prefill: tokens/s by length", "Decoding: tokens/s by context", OURS, AUTHORS} <= set(names)
    dots = list(picture.iter("{http://www.w3.org/2000/svg}circle"))
    panels = plot.tokens_per_second(again)
    assert len(dots) == sum(len(line) for lines in panels.values() for line in lines.values()) > 10
    assert len(panels["prefill"][OURS]) == 3
    assert len(plot.svg(again)) < 60_000


def test_command_writes_three_files_and_only_chooses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--tiny", "--only", "float32/N=33", "--repeats", "1"]
    measured = []

    def run_alone(kind: str, case: Case, repeats: int, *, steady: float) -> dict[str, Any]:
        measured.append((kind, repeats, steady))
        return runner.run_case(case, repeats, steady)

    monkeypatch.setattr(sys.modules[main.__module__], "run_alone", run_alone)
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    assert measured == [("tiny", 1, 0.0)]
    assert "| case | bar | measured | verdict |" in capsys.readouterr().out
    files = {path.suffix: path for path in tmp_path.iterdir()}
    assert set(files) == {".json", ".md", ".svg"} and len({path.stem for path in files.values()}) == 1
    result = json.loads(files[".json"].read_text())
    assert files[".json"].stem.endswith(f"{result['date']}-tiny-float32-n-33")
    assert {case["family"] for case in result["cases"]} == {"attention"} and result["format"] == compare.FORMAT
    assert main(["--list", "--only", "decode"]) == 0
    assert "decode/miniwin-512/context=262144" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="no case has this in its name"):
        main(["--only", "nothing"])
    with pytest.raises(SystemExit, match="--repeats: got 0; expected at least 1"):
        main(["--tiny", "--repeats", "0"])


def test_a_killed_run_is_gone_on_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = {**described(), "miniwin": "1.0+gabc"}
    for module in (runner, continued):
        monkeypatch.setattr(module, "described", lambda: machine)
    asked, killed = ["--tiny", "--repeats", "1"], []

    def run_alone(kind: str, case: Case, repeats: int, *, steady: float) -> dict[str, Any]:
        if case.name in killed:
            raise KeyboardInterrupt
        return runner.run_case(case, repeats, steady)

    monkeypatch.setattr(sys.modules[main.__module__], "run_alone", run_alone)
    names = [case.name for case in plan.tiny().cases if "attention/forward/" in case.name]
    killed.append(names[1])
    with pytest.raises(KeyboardInterrupt):
        main([*asked, "--only", "attention/forward/", "--out", str(tmp_path)])
    (file,) = tmp_path.iterdir()  # no half-written one beside it
    (first,) = json.loads(file.read_text())["cases"]
    assert first["name"] == names[0]
    killed[:] = names[:1]  # what is there is not measured again
    capsys.readouterr()
    assert main([*asked, "--only", "attention/forward/", "--continue", str(file)]) == 0
    whole = json.loads(file.read_text())
    assert [case["name"] for case in whole["cases"]] == names and whole["cases"][0] == first
    assert len(whole["load"]) == 3 and file.with_suffix(".md").is_file() and file.with_suffix(".svg").is_file()
    with pytest.raises(SystemExit, match="got a tiny result; expected a full one"):
        main(["--full", "--continue", str(file)])
    machine["miniwin"] = "1.0+gdef"
    with pytest.raises(SystemExit, match=r"\(miniwin 1\.0\+gabc, now 1\.0\+gdef\): begin anew"):
        main([*asked, "--continue", str(file)])
    machine["miniwin"] = "1.0+gabc.dirty"
    with pytest.raises(SystemExit, match="commit them first"):
        main([*asked, "--continue", str(file)])


# Products, and several machines


def test_the_same_with_mkls_products_is_there_where_others_are_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    case = training.case(tiny_spec(), 40, 1, torch.float32, (WITH_MKL,))
    monkeypatch.setenv("MINIWIN_PRODUCTS", "mkl")
    assert at_once(case, 1)["absent"] == {WITH_MKL: "LookupError: MKL's products are what is chosen here"}
    if ONEDNN not in matmul_library.offered():
        pytest.skip("this torch has no oneDNN here")
    monkeypatch.setenv("MINIWIN_PRODUCTS", "onednn")
    assert set(at_once(case, 1)["sides"]) == {OURS, WITH_MKL}
    kinds = [model.module for model in (models.side(OURS, tiny_spec()), models.side(WITH_MKL, tiny_spec()))]
    assert [module.product for module in kinds] == [ONEDNN, MKL]
    theirs = models.side(AUTHORS, tiny_spec()).module
    assert not any(isinstance(module, matmul_library.Linear) for module in theirs.modules()), (
        "peers are as torch has them"
    )


def test_the_bar_of_products_is_asked_where_onednn_is_clearly_faster() -> None:
    name = "train/miniwin-512/float32/1x2048"
    (bar,) = (bar for bar in bars.BARS if bar.asked is bars.onednn_is_clear and bar.text.startswith("train"))
    case = _synthetic(name, OURS, [1.0, 1.0], **{WITH_MKL: [1.4, 1.4]})

    def verdict(mkl: float | None, onednn: float, cases: list[dict[str, Any]]) -> str:
        rates = {"mkl": {"median": mkl}, "onednn": {"median": onednn}} if mkl else {}
        (row,) = bars.judged({"cases": cases, "growth": [], "products": {"float32": rates}}, (bar,))
        return str(row["verdict"])

    assert verdict(1.0, 1.6, [case]) == "missed"
    assert verdict(1.0, 1.6, [_synthetic(name, OURS, [1.0, 1.0], **{WITH_MKL: [1.5, 1.5]})]) == "met"
    assert verdict(1.0, 1.4, [case]) == "for information"
    assert verdict(1.0, 1.6, []) == "not measured"
    assert verdict(1.0, 1.4, []) == verdict(None, 1.0, []) == "not asked here"
    assert len([bar for bar in bars.BARS if bar.asked is bars.onednn_is_clear]) == 2


def test_the_peak_is_that_of_the_best_product(monkeypatch: pytest.MonkeyPatch) -> None:
    took = {"mkl": 3.0, "onednn": 1.0}
    monkeypatch.setattr(matmul_library, "offered", lambda: (MKL, ONEDNN))
    monkeypatch.setattr(machine, "seconds", lambda run: took[run.args[3]])
    rates = machine.matmul_peaks(torch.float32, 8)
    assert {name: rate["median"] for name, rate in rates.items()} == {"mkl": 2 * 512 / 3, "onednn": 2 * 512.0}
    found = runner.run_all([], 1, "tiny", lambda line: None, 8)
    assert found["matmul_peak"]["float32"]["median"] == 2 * 512 and set(found["products"]["float32"]) == set(took)
    assert "float32 0 (mkl) and 0 (onednn), bfloat16 0 GFLOP/s" in report.markdown(found)
    assert machine.fastest_square(torch.ones(8, 8)).args[3] == "onednn"  # type: ignore[attr-defined]
    took["onednn"] = 4.0
    assert machine.fastest_square(torch.ones(8, 8)).args[3] == "mkl"  # type: ignore[attr-defined]
    assert machine.fastest_square(torch.ones(8, 8, dtype=torch.bfloat16)).args[3] == "mkl"  # type: ignore[attr-defined]


def test_a_result_names_the_processor_its_sets_and_the_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIWIN_PRODUCTS", "mkl")
    monkeypatch.setattr(machine, "instructions", lambda: ["avx2", "fma", "avx512f", "avx512_bf16"])
    facts = machine.described()
    assert facts["sets"] == "avx2 fma avx512f avx512_bf16" and facts["products"] == "mkl" and facts["amx"] is False
    assert f"-avx512-bf16-{torch.get_num_threads()}threads-" in machine.stem("quick")
    assert machine.stem("quick").startswith(machine._plain(facts["cpu"]))
    assert "sets avx2 fma avx512f avx512_bf16; products mkl;" in report.markdown(
        runner.run_all([], 1, "tiny", lambda line: None, 8)
    )


def _of(folder: Path, name: str, cpu: str, date: str, **changes: Any) -> Path:
    facts = {"cpu": cpu, "threads": 2, "instructions": "AVX512", "amx": False, "torch": "2", **changes.pop("more", {})}
    row = {"bar": "speed", "wanted": ">= 2x", "unit": "x", "measured": 3.0, "low": 3.0, "high": 3.0, "verdict": "met"}
    result = {"format": 1, "kind": "quick", "date": date, "machine": facts, "bars": [row], "cases": [], **changes}
    path = folder / f"{name}-{date}.json"
    path.write_text(json.dumps(result))
    return path


def test_results_of_several_machines_stand_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = {"bar": "size", "wanted": "", "unit": " GB", "measured": 1.5, "low": 1.4, "high": 1.6}
    rows = [
        {"bar": "speed", "wanted": ">= 2x", "unit": "x", "measured": 1.0, "low": 1.0, "high": 1.0, "verdict": "missed"},
        {**more, "verdict": "for information"},
        {"bar": "new", "wanted": "<= 1x", "unit": "x", "measured": None, "verdict": "not measured"},
    ]
    files = [
        _of(tmp_path, "old", "A cpu", "2026-01-01"),
        _of(tmp_path, "new", "A cpu", "2026-02-01", bars=rows, more={"sets": "avx2 fma", "products": "onednn"}),
        _of(tmp_path, "amx", "A cpu", "2026-01-03", more={"amx": True}),
        _of(tmp_path, "full", "A cpu", "2026-03-01", kind="full"),
        _of(tmp_path, "part", "A cpu", "2026-03-01").rename(tmp_path / "part-2026-03-01-decode.json"),
    ]
    assert [path.name[:3] for path, _ in beside.newest(files)] == ["new", "amx"]
    assert beside.main([str(path) for path in files]) == 0
    told = capsys.readouterr().out
    assert "- A: A cpu, 2 threads; torch 2; avx2 fma; products of onednn; [2026-02-01](" in told
    assert "[2026-02-01](../benchmarks/results/new-" in told  # a page of docs/ shows it
    assert "- B: A cpu, 2 threads; torch 2; AVX512 and AMX; [2026-01-03](" in told
    table = ["| case | bar | A | B |", "|---|---:|---:|---:|", "| speed | ≥ 2x | 1x, missed | 3x, met |"]
    table += ["| size |  | 1.5 GB [1.4, 1.6] |  |", "| new | ≤ 1x | not measured |  |"]
    assert "\n".join(table) in told
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{beside.FROM}\nold\n{beside.TO}\nafter\n")
    beside.main(["--write", str(readme), *(str(path) for path in files)])
    assert readme.read_text() == f"before\n{beside.FROM}\n{told}\n{beside.TO}\nafter\n"
    readme.write_text("nothing")
    with pytest.raises(SystemExit, match=r"README.md: got no <!-- benchmark: from --> with"):
        beside.main(["--write", str(readme), str(files[0])])
    assert readme.read_text() == "nothing"


# compare.py


def _result(*cases: dict[str, Any]) -> dict[str, Any]:
    return {"format": compare.FORMAT, "machine": {"cpu": "x", "threads": 2}, "cases": list(cases)}


def test_compare_says_what_got_slower_beyond_the_noise() -> None:
    quiet, noisy = [1.0, 1.01, 0.99, 1.0], [0.7, 1.3, 1.0, 1.0]
    peer = [5.0, 5.0, 5.0, 5.0]
    old = _result(
        *(_synthetic(f"attention/{name}", OURS, values, peer=peer) for name, values in (("a", quiet), ("b", noisy))),
        _synthetic("attention/c", OURS, quiet, peer=peer),
        _synthetic("attention/gone", OURS, quiet, peer=peer),
    )
    new = _result(
        *(
            _synthetic(f"attention/{name}", OURS, [1.2 * v for v in values], peer=peer)
            for name, values in (("a", quiet), ("b", noisy))
        ),
        _synthetic("attention/c", OURS, [0.5 * v for v in quiet], peer=peer),
    )
    found = {change.case: change.verdict for change in compare.compare(old, new)}
    assert found == {"attention/a": "slower", "attention/b": "same", "attention/c": "faster", "attention/gone": "gone"}


def test_compare_watches_every_side_that_is_ours() -> None:
    old = _result(_synthetic("decode/a", OURS, [1.0] * 4, **{INT8: [0.5] * 4}, peer=[5.0] * 4))
    new = _result(_synthetic("decode/a", OURS, [1.0] * 4, **{INT8: [0.8] * 4}, peer=[5.0] * 4))
    changes = {change.case: change.verdict for change in compare.compare(old, new)}
    assert changes == {"decode/a": "same", f"decode/a, {INT8}": "slower"}


def test_compare_takes_out_what_slowed_everybody_down() -> None:
    old = _result(_synthetic("attention/a", OURS, [1.0] * 4, peer=[5.0] * 4))
    new = copy.deepcopy(old)
    for side in new["cases"][0]["sides"].values():
        for key in ("median", "low", "high"):
            side[key] *= 2
    (change,) = compare.compare(old, new)
    assert (change.verdict, change.drift, change.change) == ("same", 2.0, 1.0)


def test_compare_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new, strange = (tmp_path / f"{name}.json" for name in ("old", "new", "strange"))
    before = _result(_synthetic("attention/a", OURS, [1.0] * 4, peer=[5.0] * 4))
    after = _result(_synthetic("attention/a", OURS, [1.5] * 4, peer=[5.0] * 4))
    after["machine"]["threads"] = 4
    after["machine"]["sets"] = "avx2"  # which older results do not say
    old.write_text(json.dumps(before))
    new.write_text(json.dumps(after))
    strange.write_text('{"rows": []}')
    assert compare.main([str(old), str(old)]) == 0
    assert capsys.readouterr().out == "0 slower or gone, 1 the same within the noise, of 1 figures\n"
    assert compare.main([str(old), str(new)]) == 1
    told = capsys.readouterr().out
    assert "the machines differ in threads:" in told
    assert "slower  attention/a: 1.50x the old, noise 5%, drift of the peers 1.00x" in told
    script = [sys.executable, str(ROOT / "benchmarks" / "compare.py"), str(old), str(new)]
    done = subprocess.run(script, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (1, told, "")
    with pytest.raises(SystemExit, match="got format none; expected 1: measure again"):
        compare.main([str(old), str(strange)])


def test_results_in_the_repository_can_be_read() -> None:
    files = list((ROOT / "benchmarks" / "results").glob("*.json"))
    assert files
    for path in files:
        result, picture = compare.read(path), path.with_suffix(".svg")
        names = {case["name"] for case in result["cases"]}
        assert len(names) == len(result["cases"]) and result["bars"] and result["date"] in path.stem
        shown = f"({picture.name})" in path.with_suffix(".md").read_text(encoding="utf-8")
        assert picture.exists() == shown, "a part of a run may have no picture"
