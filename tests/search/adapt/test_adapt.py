"""`miniwin adapt`: placements over shared weights, rows of questions, the search, the folder, and mistakes."""

from __future__ import annotations

import json
import math
import shlex
from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from float64 import assert_as_near
from pretrained import LAYER, imported
from tiny import run_cli

import miniwin
from miniwin.blocks.decoder_inputs import placed
from miniwin.search.adapt.asking import adapt
from miniwin.search.adapt.gate_learning import GateStep, _gradient, learn, placements_of
from miniwin.search.adapt.gates import GatedLayers
from miniwin.search.adapt.journal import Journal
from miniwin.search.adapt.kinds import HARDER, JUDGED
from miniwin.search.adapt.layers import SharedLayers
from miniwin.search.adapt.page import page
from miniwin.search.adapt.plan import Plan, evenly
from miniwin.search.adapt.prepared import prepare
from miniwin.search.adapt.rows import Wanted, make_rows
from miniwin.search.adapt.scoring import Damage, RowScore, damage, original_says, score_row, score_rows
from miniwin.search.adapt.searching import Search, needed, opened, predicted
from miniwin.search.adapt.settings import Settings, share_of
from miniwin.search.adapt.texts import cut, read_texts
from miniwin.search.adapt.words import called, others_see, outcome, verdicts
from miniwin.specs import UserError, load_model_spec
from miniwin.tokenizer import load_tokenizer

QUICK = Settings(
    cache=0.6,
    window=16,
    sinks=2,
    length=256,
    seq_len=1400,
    search_len=1200,
    search_rows=1,
    rows=4,
    questions=3,
    harder=2,
    gates=4,
    evaluations=24,
)
OPTIONS = shlex.split(
    "--cache 60% --window 16 --sinks 2 --length 256 --seq-len 1400 --search-len 1200 --search-rows 1 --rows 4 "
    "--questions 3 --harder 2 --gates 4 --evaluations 24"
)
EVALUATED = shlex.split("--lengths 128 --tokens 512 --no-recall --no-speed")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return imported(tmp_path_factory.mktemp("models") / "pretrained")


@pytest.fixture(scope="module")
def made(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("adapted") / "local"
    code, said, errors = run_cli("adapt", str(model), "--out", str(out), *OPTIONS)
    assert code == 0, errors
    assert "chosen against the original" in said and "stay global" in errors
    return out


# Candidates share the weights.


def test_windows_that_reach_everything_change_nothing(model: Path) -> None:
    """W >= N in all layers, and no window at all, give the original's logits; a window gives those of its own spec."""
    original, exact = miniwin.load(model), miniwin.load(model)
    ids = torch.randint(256, (1, 45), generator=torch.Generator().manual_seed(3))
    exact.decoder.double()
    with torch.no_grad():
        truth, theirs = exact(ids), original(ids)
        for window, sinks, placement in ((64, 4, ()), (64, 0, (1,)), (7, 2, tuple(range(6)))):
            shared = SharedLayers(original, Plan(original.spec, window, sinks, 256))
            assert_as_near(original.decoder.logits(shared.hidden(placement, ids)), theirs, truth)
        plan = Plan(original.spec, 7, 2, 256)
        built = plan.spec_of((1, 4)).build().eval()
        built.load_state_dict(original.decoder.state_dict())
        mine = original.decoder.logits(SharedLayers(original, plan).hidden((1, 4), ids))
        double = plan.spec_of((1, 4)).build().double().eval()
        double.load_state_dict(exact.decoder.state_dict())
        assert_as_near(mine, built(ids), double(ids))
        assert not torch.allclose(mine, theirs, atol=1e-3)


def test_candidates_copy_no_weights(model: Path) -> None:
    original = miniwin.load(model)
    shared = SharedLayers(original, Plan(original.spec, 8, 2, 256))
    local = shared.layer(2, (False,))
    assert local is not original.decoder.layers[2] and local is shared.layer(2, (False,))
    for name, tensor in local.state_dict().items():
        assert tensor.data_ptr() == original.decoder.layers[2].state_dict()[name].data_ptr()
    assert all(tensor.device.type == "cpu" for tensor in local.state_dict().values())


def test_heads_of_a_layer_share_its_weights_too(model: Path) -> None:
    """Units are heads: what a placement computes is what its spec does, and its named form says which heads."""
    original = miniwin.load(model)
    plan = Plan(original.spec, 7, 2, 256, heads=True)
    assert plan.units == tuple(range(12)) and plan.named((0, 1, 3, 9)) == [0, "1.1", "4.1"]
    placement = (0, 1, 3, 9)
    specs = plan.spec_of(placement).layer_specs
    assert [one.attention.windows for one in specs] == [None, [7, None], None, None, [7, None], None]
    assert [one.attention.window for one in specs] == [None, None, 7, 7, None, 7]
    ids = torch.randint(256, (1, 45), generator=torch.Generator().manual_seed(3))
    built, double = plan.spec_of(placement).build().eval(), plan.spec_of(placement).build().double().eval()
    for one in (built, double):
        one.load_state_dict(original.decoder.state_dict())
    with torch.no_grad():
        mine = original.decoder.logits(SharedLayers(original, plan).hidden(placement, ids))
        assert_as_near(mine, built(ids), double(ids))
        assert torch.equal(
            original.decoder.logits(SharedLayers(original, plan).hidden(plan.original, ids)), original(ids)
        )
    count = plan.count(0.3)
    assert plan.share(plan.units[:count]) <= 0.3 < plan.share(plan.units[: count + 1])


@pytest.mark.parametrize("memory", [1 << 30, 3 * 300 * 32 * 4])
def test_a_row_goes_on_from_the_states_that_are_kept(model: Path, memory: int) -> None:
    """To the bit what a whole pass gives, whatever was kept; and only layers from the first difference on are run."""
    original = miniwin.load(model)
    plan = Plan(original.spec, 8, 2, 256)
    shared, plain = SharedLayers(original, plan, memory), SharedLayers(original, plan)
    rows = [torch.randint(256, (1, 300), generator=torch.Generator().manual_seed(i)) for i in range(2)]
    placements = [(1, 3), (1, 5), (1, 3, 5), (0, 3), (1, 4), (1, 3), (), tuple(range(6)), (1, 4)]
    with torch.no_grad():
        for number, placement in enumerate(placements):
            if number % 2 == 0:
                shared.keep(placement)
            for row, ids in enumerate(rows):
                assert torch.equal(shared.hidden(placement, ids, row), plain.hidden(placement, ids))
    assert shared.layers_run < plain.layers_run
    if memory == 1 << 30:
        shared.keep((1, 3))
        with torch.no_grad():
            shared.hidden((1, 3), rows[0], 0)
            before = shared.layers_run
            shared.hidden((1, 4), rows[0], 0)
        assert shared.layers_run - before == 3  # layers 3, 4 and 5


# Plans.


def test_a_share_of_the_cache_says_how_many_layers_stay_global(model: Path) -> None:
    spec = miniwin.load(model).spec
    plan = Plan(spec, 16, 2, 256)
    for share in (0.25, 0.5, 0.99):
        count = plan.count(share)
        assert plan.share(plan.units[:count]) <= share < plan.share(plan.units[: count + 1])
    # Built caches hold what the specs say: 2 layers of 256 tokens, 4 rings of 16 with 2 first tokens.
    decoder = plan.spec_of((0, 5)).build()
    cache = decoder.new_cache(1)
    with torch.no_grad():
        decoder(torch.zeros(1, 256, dtype=torch.int64), cache=cache)
    assert sum(layer.nbytes for layer in cache.layers) == plan.cache_bytes((0, 5))
    for wrong in (0.001, 0.08, 1.0):
        with pytest.raises(UserError, match="no layout meets it"):
            plan.count(wrong)


def test_layers_that_are_local_already_stay_as_they_are(tmp_path: Path) -> None:
    local = {**LAYER, "attention": {**LAYER["attention"], "window": 5}}
    spec = miniwin.load(imported(tmp_path / "m", pattern="SG", blocks={"S": local, "G": LAYER})).spec
    plan = Plan(spec, 16, 2, 256)
    assert plan.units == (1, 3, 5)
    assert [one.attention.window for one in plan.spec_of((3,)).layer_specs] == [5, 16, 5, None, 5, 16]
    spec = miniwin.load(imported(tmp_path / "s", pattern="S", blocks={"S": local})).spec
    with pytest.raises(UserError, match="no layer sees the whole context, so there is nothing to make local"):
        Plan(spec, 16, 2, 256).count(0.5)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Layers SGSGSG, windows of 64."""
    local = {**LAYER, "attention": {**LAYER["attention"], "window": 64}}
    return imported(tmp_path_factory.mktemp("mixed") / "m", pattern="SG", blocks={"S": local, "G": LAYER})


def test_layers_with_a_window_may_be_widened(mixed: Path) -> None:
    """The original's own layout is one of the placements, to the bit; the others are what their specs are."""
    original = miniwin.load(mixed)
    plan = Plan(original.spec, 16, 2, 256, widen=True)
    assert plan.units == tuple(range(6)) and plan.original == (1, 3, 5)
    assert plan.spec_of(plan.original).hash == original.spec.hash and plan.share(plan.original) == 1.0
    specs = plan.spec_of((0, 3)).layer_specs
    assert [one.attention.window for one in specs] == [None, 16, 64, None, 64, 16]
    assert [one.attention.keep_first for one in specs] == [0, 2, 0, 0, 0, 2]
    ids = torch.randint(256, (1, 90), generator=torch.Generator().manual_seed(3))
    shared = SharedLayers(original, plan)
    built, double = plan.spec_of((0, 3)).build().eval(), plan.spec_of((0, 3)).build().double().eval()
    for one in (built, double):
        one.load_state_dict(original.decoder.state_dict())
    with torch.no_grad():
        assert torch.equal(original.decoder.logits(shared.hidden(plan.original, ids)), original(ids))
        assert_as_near(original.decoder.logits(shared.hidden((0, 3), ids)), built(ids), double(ids))
        gates = torch.tensor([float(unit in (0, 3)) for unit in plan.units])
        assert_as_near(original.decoder.logits(GatedLayers(shared).hidden(gates, ids)), built(ids), double(ids))
    alike = Plan(original.spec, 64, 0, 256, widen=True)
    assert alike.count(1.0) == 3 and alike.count(0.85) == 2
    with pytest.raises(
        UserError, match=r"--cache 20.0%: no layout meets it. With windows of 64 in all 6 layers that may"
    ):
        alike.count(0.2)


def test_a_layout_of_ones_own_is_a_candidate(mixed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    more = ["--widen", "--cache", "100%", "--window", "64", "--sinks", "0", "--quiet"]
    code, said, errors = run_cli("adapt", str(mixed), "--out", str(out), *OPTIONS, *more)
    assert code == 0, errors
    result = json.loads((out / "adapt.json").read_text())
    scored = {tuple(one["layers"]): one for one in result["search"]["scored"]}
    assert scored[1, 3, 5]["damage"] == 0 and len(result["chosen"]) == 3
    assert result["placements"]["original"]["layers"] == [1, 3, 5] and "original" in said
    kept = result["chosen"] == [1, 3, 5]
    assert (
        "The search found nothing better than the layout that the model has" in (out / "adapt.html").read_text()
    ) == kept
    journal = tmp_path / "other.adapt.jsonl"
    journal.write_bytes((out / "evaluations.jsonl").read_bytes())
    with pytest.raises(UserError, match=r"other settings \(.*widen\)"):
        adapt(str(mixed), replace(QUICK, window=64, sinks=0, cache=0.9), tmp_path / "other")


def test_nothing_to_widen_is_refused(model: Path, tmp_path: Path) -> None:
    code, _, errors = run_cli("adapt", str(model), "--out", str(tmp_path / "out"), *OPTIONS, "--widen")
    assert code == 2 and "has no layer with a window that it could lose" in errors


@pytest.mark.parametrize(
    ("kind", "window", "sinks", "widen", "heads"),
    [
        ("mixed", 16, 2, True, False),  # a local layer costs more than a global one that becomes local
        ("mixed", 128, 0, True, True),
        ("uneven", 16, 2, False, False),
        ("uneven", 16, 2, False, True),
    ],
)
def test_no_placement_exceeds_the_share(
    mixed: Path, tmp_path: Path, kind: str, window: int, sinks: int, widen: bool, heads: bool
) -> None:
    """Every placement of the size that a share allows fits, and of one more there is one that does not."""
    few = {**LAYER, "attention": {**LAYER["attention"], "num_kv_heads": 1}}
    path = mixed if kind == "mixed" else imported(tmp_path / "m", pattern="FFG", blocks={"F": few, "G": LAYER})
    plan = Plan(miniwin.load(path).spec, window, sinks, 256, heads, widen)
    sets = {
        size: [plan.share(one) for one in combinations(plan.units, size)]
        for size in range(len(plan.units) + 1)
        if size < 5 or size > len(plan.units) - 2
    }
    for size, shares in sets.items():
        assert max(shares) == plan.share(plan.dearest(size))
    for size in range(1, 4):
        share = max(sets[size])
        if share < 1:
            assert plan.count(share) == size and plan.count(share + 1e-9) == size
    with pytest.raises(UserError, match="no layout meets it"):
        plan.count(max(sets[1]) - 1e-9)


def test_a_size_of_nothing_is_refused_with_the_least_share(mixed: Path, model: Path, tmp_path: Path) -> None:
    plan = Plan(miniwin.load(model).spec, 16, 2, 256)
    with pytest.raises(UserError, match=r"and with one global layer 22.6%; expected from 22.6% to below 100.0%"):
        plan.count(0.1)
    assert plan.count(0.226) == 1  # what the message says is enough
    local = {**LAYER, "attention": {**LAYER["attention"], "window": 64}}
    path = imported(tmp_path / "m", pattern="S", blocks={"S": local})
    code, said, errors = run_cli(
        "adapt", str(path), "--out", str(tmp_path / "out"), *OPTIONS, "--widen", "--cache", "100%"
    )
    assert code == 2 and not said and "and with one global layer 150.0%: there is no smaller layout" in errors


@pytest.mark.parametrize("name", ["length", "search_len", "seq_len"])
def test_windows_of_layers_that_never_bind_are_refused(mixed: Path, name: str) -> None:
    lengths = {"length": 256, "search_len": 1200, "seq_len": 1400, name: 64}
    if name == "seq_len":
        lengths["search_len"] = 64
    settings = replace(QUICK, widen=True, window=16, **lengths)
    shown = "search-len" if name == "seq_len" else name.replace("_", "-")
    with pytest.raises(
        UserError, match=f"--{shown}: got 64, and with --widen local layers of .* keep their windows of"
    ):
        prepare(str(mixed), settings)


def test_a_layer_that_needs_its_window_is_no_unit() -> None:
    spec = load_model_spec("specs/models/miniwin-1m.yaml")
    with pytest.raises(UserError, match="--widen: miniwin-1m has no layer with a window that it could lose"):
        Plan(spec, 64, 0, 2048, widen=True).count(0.9)


def test_the_intention_says_when_the_own_layout_is_no_candidate(mixed: Path, tmp_path: Path) -> None:
    more = ["--widen", "--cache", "100%", "--window", "64", "--dry-run"]
    _, _, errors = run_cli("adapt", str(mixed), "--out", str(tmp_path / "out"), *OPTIONS, *more)
    assert "2 layers of 6 stay global, the others keep the window that they have, or see 64 tokens and the first 2" in (
        errors
    )
    assert "the model's own layout has 3 global and is no candidate" in errors
    assert "as --window 64 --sinks 0 allows" in errors
    _, _, errors = run_cli("adapt", str(mixed), "--out", str(tmp_path / "out"), *OPTIONS, *more, "--sinks", "0")
    assert "3 layers of 6" in errors and "is no candidate" not in errors and "at most" not in errors


def test_words_of_the_originals_own_layout(made: Path) -> None:
    """Another name for it is said to be it, and is no peer; one that wins is held against it."""
    result = json.loads((made / "adapt.json").read_text())
    placements, original = result["placements"], result["placements"]["original"]
    assert not any("own layout" in one for one in verdicts(result))  # only --widen keeps the cache that it has
    result["settings"]["widen"] = True
    for value, verdict in ((-0.2, "is better on answers than"), (0.2, "is worse on answers than")):
        original["chosen_minus_this"]["answers"] = {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 4}
        original["cache_share"] = 1.0
        placements["chosen"]["cache_share"] = 0.93
        (said,) = [one for one in verdicts(result) if "own layout" in one]
        assert f"with 93.0% of the cache, {verdict} the original's own layout, with 100.0% of the cache: " in said
        assert f"{value:+.3f} [" in said
    original["chosen_minus_this"]["answers"]["low"] = -0.1
    assert any("cannot be told apart on answers from the original's own" in one for one in verdicts(result))
    even = placements["evenly spaced"]
    assert called(result, "evenly spaced") == "evenly spaced" and ">evenly spaced" in page(result)
    even["layers"] = original["layers"]
    assert called(result, "evenly spaced") == "evenly spaced (as in the original)"
    assert called(result, "original") == "original"
    assert not any("evenly" in one for one in verdicts(result))
    assert any(line.startswith("evenly spaced (as in the original)") for line in outcome(result))
    shown = page(result)
    assert "evenly spaced (as in the original): " in shown and "evenly spaced: 1" not in shown
    assert "the others keep the window that they have, or see 16 tokens and the first 2" in shown
    assert others_see(512, 4, False) == "the others see 512 tokens and the first 4"


def test_a_layer_that_cannot_have_sink_tokens_is_refused(tmp_path: Path) -> None:
    layer = {**LAYER, "attention": {**LAYER["attention"], "position": {"type": "alibi"}}}
    path = imported(tmp_path / "m", blocks={"G": layer})
    code, _, errors = run_cli("adapt", str(path), "--out", str(tmp_path / "out"), *OPTIONS)
    assert code == 2 and "windows of 16 and 2 sink tokens is no model that can be built" in errors
    assert "keep_first" in errors and not (tmp_path / "out").exists()


def test_even_spacing() -> None:
    assert evenly(tuple(range(30)), 5) == (5, 11, 17, 23, 29)
    assert evenly((1, 3, 5), 2) == (1, 5) and evenly((1, 3, 5), 3) == (1, 3, 5)


# Rows.


def test_a_row_holds_its_facts_once_and_its_answers_at_their_places() -> None:
    byte = load_tokenizer("byte")
    search, report = read_texts([], [])
    for text, mine in ((search, True), (report, False)):
        rows = make_rows(text, byte, Wanted(3, 4000, 6, 4), search=mine)
        for row in rows:
            whole = bytes(row.ids).decode()
            context, _, tail = whole.partition("\n\nQuestion: ")
            assert len(row.ids) <= 4000 and len(row.text) == row.bytes  # a byte is a token here
            assert max(row.text) < len(context.encode())
            assert (
                len(tail.split("\n\nQuestion: ")) == 10 and len(row.answers) == 12
            )  # two of the questions ask for two numbers each
            for one in row.answers:
                answer = bytes(row.ids[one.start : one.stop]).decode()
                assert answer.startswith(" ") and answer.strip() and one.start > len(context)
                if one.kind in ("needle", "several", "which of two"):
                    said = whole[: one.start].rpartition(". ")[2].rpartition("Answer: ")[2]
                    assert context.count(f"{said}{answer}.") == 1
            assert {one.kind for one in row.answers} == {*JUDGED, *HARDER}


def test_search_and_report_share_neither_text_nor_people(tmp_path: Path) -> None:
    byte = load_tokenizer("byte")
    file = tmp_path / "novel.txt"
    file.write_text("".join(f"Sentence number {i} is here. " for i in range(2000)))
    search, report = read_texts([str(file)], [])
    assert not set(search.pieces) & set(report.pieces)
    assert "".join((*search.pieces, *report.pieces)) == file.read_text()
    seen = []
    for text, mine in ((search, True), (report, False)):
        rows = make_rows(text, byte, Wanted(2, 3000, 6, 2), search=mine)
        whole = "".join(bytes(row.ids).decode() for row in rows)
        seen.append(
            {" ".join(words) for words in zip(whole.split(), whole.split()[1:], strict=False) if "passkey" in whole}
        )
        numbers = [bytes(row.ids).decode().split("Sentence number ")[1:] for row in rows]
        assert not {one.split()[0] for one in numbers[0]} & {one.split()[0] for one in numbers[1]}
    pairs = {pair for pair in seen[0] & seen[1] if pair.istitle() and pair.replace(" ", "").isalpha()}
    assert not {
        pair for pair in pairs if pair.split()[0] not in ("Question:", "Answer:", "The", "What", "Was", "Which")
    }


def test_pieces_put_together_are_the_text() -> None:
    text = "One. Two! Three?\n\nA paragraph\n \n  code(x)\n\n" + "word " * 400 + "x" * 1500
    assert "".join(cut(text)) == text and max(map(len, cut(text))) <= 600


# Scores.


def test_scores_are_those_of_the_model_itself(model: Path) -> None:
    original = miniwin.load(model)
    (row,) = make_rows(read_texts([], [])[0], load_tokenizer("byte"), Wanted(1, 900, 3), search=True)
    plan = Plan(original.spec, 16, 2, 256)
    with torch.no_grad():
        score = score_row(SharedLayers(original, plan), (1,), row, None, 1)
        built = plan.spec_of((1,)).build().eval()
        built.load_state_dict(original.decoder.state_dict())
        logs = built(torch.tensor([row.ids]))[0].double().log_softmax(-1)
    nats = [0.0, *(-float(logs[i, token]) for i, token in enumerate(row.ids[1:]))]
    assert math.isclose(sum(score.text), sum(nats[i] for i in row.text), rel_tol=1e-5)
    for mine, one in zip(score.answers, row.answers, strict=True):
        assert math.isclose(mine, sum(nats[one.start : one.stop]), rel_tol=1e-5)
    with torch.no_grad():
        base = score_rows(SharedLayers(original, plan), plan.original, [row], 1)
    assert damage(base, base, [row], 1, 1.0) == Damage(0.0, 0.0, 0.0)
    found = damage((score,), base, [row], 1, 0.5)
    assert found.total == 0.5 * found.text + found.answers
    assert math.isclose(found.text, (sum(score.text) - sum(base[0].text)) / len(row.text))


def test_how_far_apart_an_answer_is_said(model: Path) -> None:
    """KL over the whole vocabulary, judged by float64; it takes the place of the nats of the right tokens."""
    original = miniwin.load(model)
    rows = make_rows(read_texts([], [])[0], load_tokenizer("byte"), Wanted(2, 1400, 3, 1), search=False)
    plan = Plan(original.spec, 16, 2, 256)
    shared = SharedLayers(original, plan)
    said = [original_says(shared, row) for row in rows]
    score = score_rows(shared, (1,), rows, 1, originals=said)
    base = score_rows(shared, plan.original, rows, 1, originals=said)
    built = plan.spec_of((1,)).build().eval()
    built.load_state_dict(original.decoder.state_dict())
    total, tokens = 0.0, 0
    for row, found, same in zip(rows, score, base, strict=True):
        ids = torch.tensor([row.ids])
        with torch.no_grad():
            one, other = (m(ids)[0].double().log_softmax(-1) for m in (original.decoder, built))
        for answer, mine, none in zip(row.answers, found.apart, same.apart, strict=True):
            at = range(answer.start - 1, answer.stop - 1)
            expected = float((one[at].exp() * (one[at] - other[at])).sum())
            assert math.isclose(mine, expected, rel_tol=1e-3, abs_tol=1e-5) and abs(none) < 1e-5
            total, tokens = total + mine * answer.judged, tokens + (answer.stop - answer.start) * answer.judged
        assert RowScore.from_list(json.loads(json.dumps(found.to_list()))) == found
    judged = damage(score, base, rows, 1, 0.5)
    assert judged.apart is not None and math.isclose(judged.apart, total / tokens)
    assert judged.total == 0.5 * judged.text + judged.apart and judged.apart != judged.answers


def test_rows_in_threads_give_the_same_scores(model: Path) -> None:
    """States are kept while other rows go through, too. The number of threads is as it was."""
    original = miniwin.load(model)
    rows = make_rows(read_texts([], [])[0], load_tokenizer("byte"), Wanted(4, 1400, 3), search=True)
    plan = Plan(original.spec, 16, 2, 256)
    alone, shared = SharedLayers(original, plan), SharedLayers(original, plan)
    before = torch.get_num_threads()
    try:
        for placement in ((1, 2), (1, 4), (0, 4)):
            torch.set_num_threads(1)
            expected = score_rows(alone, placement, rows, 2, keep=False)
            torch.set_num_threads(3)
            shared.keep((1, 4))
            assert score_rows(shared, placement, rows, 2) == expected and torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert shared.layers_run < alone.layers_run


# The search, on damages that are made up.


def _circuit(placement: tuple[int, ...]) -> Damage:
    """Two units retrieve together and are worth nothing alone; a third one pretends."""
    together = {2, 9} <= set(placement)
    return Damage(0.0, 2.0 - 1.9 * together - 0.1 * (5 in placement) - 0.01 * len(placement), 0.0)


def _search(evaluate: Any, budget: int, *, units: int = 12, size: int = 3, stride: int = 1, **more: Any) -> Search:
    layers = [tuple(range(first, first + stride)) for first in range(0, units, stride)]
    return Search(tuple(range(units)), layers, size, evaluate, lambda one: None, budget=budget, **more)


def _opening(*openings: float) -> GateStep:
    return GateStep(openings, openings, openings, 0.1, 0.2, 1.0)


def test_the_search_finds_units_that_work_together_only() -> None:
    search = _search(_circuit, 120)
    assert search.run() == (2, 5, 9)
    assert len(search.found.scored) <= 120
    assert set(search.found.stages) >= {"repairs", "draws", "swaps", "front"}
    for size in range(4):
        assert search.found.best(size) is not None  # the front goes down to nothing
    alone = predicted((2, 9), search.found.scored)
    assert alone is not None and alone > 1.9  # single repairs foretell nothing


def test_the_search_begins_with_what_the_gates_say() -> None:
    """Few swaps are left, and the first of them are those that the gates speak for."""
    gates = [
        _opening(*(1.0 if unit in (2, 5) else 0.4 if unit == 9 else 0.5 if unit == 1 else 0.0 for unit in range(12)))
    ]
    search = _search(_circuit, 60, learn=lambda: gates)
    assert search.run() == (2, 5, 9)
    order = list(search.found.scored)
    assert order.index((1, 2, 5)) + 1 == order.index((2, 5, 9)) and search.found.stages["gates"] == 1
    assert search.found.best(6) is not None  # larger sets are part of the front


def test_few_heads_are_what_is_left_of_more_that_the_gates_kept() -> None:
    def evaluate(placement: tuple[int, ...]) -> Damage:
        return Damage(0.0, 2.0 - 1.9 * ({7, 28} <= set(placement)) - 0.01 * len(placement), 0.0)

    gates = [_opening(*(float(unit in (3, 7, 11, 20, 28, 33)) for unit in range(36)))]
    assert opened(36, 2) == 6 and opened(36, 9) == 9
    least = 1 + 12 + 1 + needed(36, 2)  # none, each layer, a random set
    search = _search(evaluate, least, units=36, size=2, stride=3, learn=lambda: gates)
    assert search.run() == (7, 28) and len(search.found.scored) <= least
    assert search.found.stages["removal"] <= needed(36, 2) and (0, 1, 2) in search.found.scored


# Gates.


def test_gates_at_their_ends_are_the_placement(model: Path) -> None:
    """All open: the original; all closed: windows everywhere; some open: that placement. Between: its own reference."""
    original, exact = miniwin.load(model), miniwin.load(model)
    exact.decoder.double()
    ids = torch.randint(256, (1, 45), generator=torch.Generator().manual_seed(3))
    plan = Plan(original.spec, 7, 2, 256, heads=True)
    shared, precise = SharedLayers(original, plan), SharedLayers(exact, plan)
    with torch.no_grad():
        for placement in (plan.original, (), (0, 1, 3, 9)):
            gates = torch.tensor([float(unit in placement) for unit in plan.units])
            mine, truth = GatedLayers(shared).hidden(gates, ids), precise.hidden(placement, ids)
            assert_as_near(mine, shared.hidden(placement, ids), truth)
        half = GatedLayers(precise).hidden(torch.full((12,), 0.5, dtype=torch.float64), ids)
        assert_as_near(half, _halfway(exact, plan, ids), _halfway(exact, plan, ids))


def _halfway(model: Any, plan: Plan, ids: torch.Tensor) -> torch.Tensor:
    """All gates at a half, layer by layer: the output projection is linear, so outputs of attention are averaged."""
    shared, h = SharedLayers(model, plan), model.decoder.embed_tokens(ids)
    where = placed(ids, None, None, None, None, [])
    for number, own in enumerate(model.decoder.layers):
        local = shared.layer(number, (False,) * len(plan.units_of(number)))
        x = own.attention_norm(h)
        h = h + (own.attention(x, where) + local.attention(x, where)) / 2
        h = h + own.mlp(own.mlp_norm(h))
    out: torch.Tensor = model.decoder.norm(h)
    return out


def test_the_gradient_of_a_gate_is_what_moving_it_does(model: Path) -> None:
    exact = miniwin.load(model)
    exact.decoder.double()
    (row,) = make_rows(read_texts([], [])[0], load_tokenizer("byte"), Wanted(1, 900, 3), search=True)
    gated = GatedLayers(SharedLayers(exact, Plan(exact.spec, 16, 2, 256, heads=True)))
    values = [0.9 - 0.05 * i for i in range(12)]
    gradient, text, answers = _gradient(gated, values, row, 0.7, 4)
    for unit in (0, 5, 11):
        sides = []
        for step in (1e-4, -1e-4):
            moved = [value + step * (i == unit) for i, value in enumerate(values)]
            _, *parts = _gradient(gated, moved, row, 0.7, 4)
            sides.append(0.7 * parts[0] + parts[1])
        assert math.isclose((sides[0] - sides[1]) / 2e-4, float(gradient[unit]), rel_tol=1e-3, abs_tol=1e-9)
    assert text > 0 and answers > 0
    assert _gradient(gated, [1.0] * 12, row, 0.7, 4)[1:] == pytest.approx((0, 0), abs=1e-6)


def test_learning_closes_gates_and_goes_on_where_it_was(model: Path) -> None:
    original = miniwin.load(model)
    weights = [weight.requires_grad for weight in original.decoder.parameters()]
    plan = Plan(original.spec, 16, 2, 256, heads=True)
    rows = make_rows(read_texts([], [])[0], load_tokenizer("byte"), Wanted(6, 900, 3), search=True)
    gated, kept = GatedLayers(SharedLayers(original, plan)), []
    steps = learn(gated, rows, 3, 1.0, 4, keep=lambda number, step: kept.append((number, step)))
    left = [sum(step.values) for step in steps]
    assert all(0 <= value <= 1 for step in steps for value in step.values)
    assert all(
        now <= most + 1e-6 for now, most in zip(left, [12 * 4 ** -min(1, (i + 1) / 4.8) for i in range(6)], strict=True)
    )
    assert left[-1] <= 3 + 1e-6 and kept == list(enumerate(steps))
    again = learn(gated, rows, 3, 1.0, 4, [replace(step) for step in json_again(steps[:2])])
    assert [one.values for one in again] == [one.values for one in steps]
    assert [weight.requires_grad for weight in original.decoder.parameters()] == weights
    assert len(placements_of(steps, plan.units, [3, 12])[0]) == 3 and placements_of(steps, plan.units, [12]) == [
        plan.original
    ]


def json_again(steps: list[GateStep]) -> list[GateStep]:
    """As a journal writes and reads them."""
    read = [json.loads(json.dumps(asdict(step))) for step in steps]
    return [GateStep(**{name: tuple(v) if isinstance(v, list) else v for name, v in one.items()}) for one in read]


@pytest.mark.parametrize("budget", [14, 15, 20, 40])
def test_the_search_keeps_to_its_budget_and_is_the_same_again(budget: int) -> None:
    asked: list[tuple[int, ...]] = []

    def evaluate(placement: tuple[int, ...]) -> Damage:
        asked.append(placement)
        return _circuit(placement)

    found = [_search(evaluate, budget, seed=4).run() for _ in range(2)]
    assert found[0] == found[1] is not None and len(asked) <= 2 * budget
    assert asked[: len(asked) // 2] == asked[len(asked) // 2 :] and len(set(asked)) == len(asked) // 2


# The whole command.


def test_the_folder_is_a_model_with_its_provenance(model: Path, made: Path) -> None:
    original, adapted = miniwin.load(model), miniwin.load(made)
    result = json.loads((made / "adapt.json").read_text())
    assert [i for i, layer in enumerate(adapted.spec.layer_specs) if layer.attention.window is None] == result["chosen"]
    assert {layer.attention.window for layer in adapted.spec.layer_specs} == {None, 16}
    for name, tensor in adapted.state_dict().items():
        assert torch.equal(tensor, original.state_dict()[name])
    assert (made / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    run = json.loads((made / "run.json").read_text())
    assert run["from"]["licence"] == "mit" and run["from"]["sha256"] == result["base"]["sha256"] and run["tokens"] == 0
    assert isinstance(adapted.generate("x", max_new_tokens=3, seed=0), str)
    chosen = result["placements"]["chosen"]
    assert chosen["cache_bytes"] == adapted.spec.cache_bytes(256, "bfloat16") and chosen["cache_share"] <= 0.6
    assert set(result["placements"]) >= {"original", "chosen", "evenly spaced", "best by single repairs"}
    assert chosen["answers"]["questions"] == 4 * 4 and chosen["answers"]["difference"]["n"] == 4
    assert not list(made.parent.glob("*.jsonl")) and (made / "evaluations.jsonl").is_file()


def test_the_folder_is_evaluated_without_naming_data(made: Path) -> None:
    """As docs/adapting.md says: it was trained on nothing, so there is no data that could have changed."""
    code, said, errors = run_cli("eval", str(made), *EVALUATED)
    assert code == 0 and "128" in said, errors


def test_verdicts_say_the_cache_of_what_has_another_share(made: Path) -> None:
    result = json.loads((made / "adapt.json").read_text())
    even = result["placements"]["evenly spaced"]
    (said,) = [one for one in verdicts(result) if "evenly spaced" in one]
    assert "of the cache" not in said
    even["cache_share"] = 0.094
    (said,) = [one for one in verdicts(result) if "evenly spaced" in one]
    assert "the one that is evenly spaced, with 9.4% of the cache: " in said


def test_the_folder_goes_into_the_zoo(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from miniwin.zoo import add

    entry = add(made, name="local", zoo=tmp_path / "zoo")
    assert entry.require_manifest().licence == "mit"
    assert "sha256" in (entry.folder / "README.md").read_text() and "global" in entry.provenance["run"]["adapt"]


def test_heads_and_known_scores_that_are_not_computed_again(
    model: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "heads"
    more = ["--cache", "31%", "--heads", "--evaluations", "30", "--known", str(made)]
    code, said, errors = run_cli("adapt", str(model), "--out", str(out), *OPTIONS, *more)
    assert code == 0, errors
    assert "scores of an earlier session are known" in errors and "best by single repairs" in said
    result, adapted = json.loads((out / "adapt.json").read_text()), miniwin.load(out)
    assert result["placements"]["chosen"]["cache_share"] <= 0.31 and result["units"] == 12
    assert len(result["chosen"]) >= 2 and any(isinstance(one, str) for one in result["chosen"])
    assert any(one.attention.windows is not None for one in adapted.spec.layer_specs)
    earlier = (made / "evaluations.jsonl").read_text().splitlines()
    assert (out / "evaluations.jsonl").read_text().splitlines()[1 : len(earlier)] == earlier[1:]
    assert "some of its heads" in (out / "adapt.html").read_text()
    # Once more, from the whole journal: nothing is left to compute.
    monkeypatch.setattr("miniwin.search.adapt.working.score_rows", None)
    again = tmp_path / "again"
    code, _, errors = run_cli("adapt", str(model), "--out", str(again), *OPTIONS, *more[:-1], str(out))
    assert code == 0, errors
    assert json.loads((again / "adapt.json").read_text())["chosen"] == result["chosen"]


def test_healing_teaches_the_chosen_placement(model: Path, made: Path, tmp_path: Path) -> None:
    """By the original, on text of its own, and the report has both. After a stop the same command goes on."""
    out = tmp_path / "healed"
    more = ["--known", str(made), "--heal", "5600", "--heal-lr", "1e-2", "--quiet"]
    code, said, errors = run_cli("adapt", str(model), "--out", str(out), *OPTIONS, *more)
    assert code == 0, errors
    assert "healing: 5,600 tokens with the original as teacher" in errors and "\nhealed " in said
    result, before = (json.loads((folder / "adapt.json").read_text()) for folder in (out, made))
    assert result["chosen"] == before["chosen"] and result["placements"]["chosen"] == before["placements"]["chosen"]
    run, healed = json.loads((out / "run.json").read_text()), miniwin.load(out)
    assert run["tokens"] == 5600 and run["from"]["licence"] == "mit" and run["adapt"]["global"] == result["chosen"]
    assert run["train"]["distill"]["loss"] == "kl"
    assert not torch.equal(healed.decoder.head.weight, miniwin.load(made).decoder.head.weight)
    code, _, errors = run_cli("eval", str(out), *EVALUATED)
    assert code == 0, errors  # on the text that it was healed with
    assert "Healed on 5,600 tokens" in (out / "adapt.html").read_text()
    assert not list(tmp_path.glob("*.healing")) and not list(tmp_path.glob("*.jsonl"))
    texts = [json.loads(line)["text"] for line in (out / "healing.jsonl").read_text().splitlines()]
    assert len(set(texts)) == len(texts) >= 5 and all("Question: " in text for text in texts)
    # The report's figures of the healed model are those of the folder's weights.
    nats = result["placements"]["healed"]["answers"]["nats"]
    rows = prepare(str(model), QUICK).rows
    plan = Plan(healed.spec, 16, 0, 256)
    score = score_rows(SharedLayers(healed, plan), plan.original, rows, 1)
    asked = [
        (one, cost)
        for row, mine in zip(rows, score, strict=True)
        for one, cost in zip(row.answers, mine.answers, strict=True)
    ]
    total = sum(cost for one, cost in asked if one.judged) / sum(one.stop - one.start for one, _ in asked if one.judged)
    assert math.isclose(nats, total, rel_tol=1e-6)


def test_the_page_stands_alone(made: Path) -> None:
    page = (made / "adapt.html").read_text()
    for title in ("Which layers stayed global", "Quality against cache", "What a layer is worth", "Loss by position"):
        assert title in page
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page


def _named(line: bytes) -> Any:
    """Which placement, or which step of the gates."""
    data = json.loads(line)
    return data.get("placement", data.get("number"))


def test_the_same_command_goes_on_and_scores_nothing_twice(model: Path, made: Path, tmp_path: Path) -> None:
    """Stopped after any line of the journal, even in the middle of one, the result is the same."""
    whole = (made / "evaluations.jsonl").read_bytes()
    expected = json.loads((made / "adapt.json").read_text())
    lines = whole.splitlines(keepends=True)
    for number, cut_at in enumerate((len(lines[0]) + 5, len(b"".join(lines[:20])), len(whole) - 1)):
        out = tmp_path / f"again-{number}"
        journal = out.with_name(out.name + ".adapt.jsonl")
        journal.write_bytes(whole[:cut_at])
        adapt(str(model), QUICK, out)
        result = json.loads((out / "adapt.json").read_text())
        assert result["chosen"] == expected["chosen"] and not journal.exists()
        assert result["placements"] == expected["placements"] and result["search"] == expected["search"]
        again = (out / "evaluations.jsonl").read_bytes()
        assert again.startswith(whole[: whole.rfind(b"\n", 0, cut_at) + 1])
        assert [_named(one) for one in again.splitlines()[1:]] == [_named(one) for one in lines[1:]]


# Mistakes: one message, exit code 2, nothing written.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cache", "5%"], "--cache 5.0%: no layout meets it"),
        (["--cache", "lots"], "--cache: got lots; expected a share of the cache, such as 25% or 0.25"),
        (["--cache", "120%"], "--cache: got 120%; expected a share"),
        (
            ["--window", "256"],
            "--window: got 256, and --length is 256: a window as long as the text leaves nothing out",
        ),
        (["--evaluations", "8"], "--evaluations: got 8, and the search would end before one candidate"),
        (["--heal", "many"], "--heal: got many; expected a number of tokens, such as 1e6"),
        (["--heal", "1e3"], "--heal: got 1,000 tokens, less than one row of 1,400 (--seq-len); give more"),
        (["--heads", "--evaluations", "9"], "and the search would end before one candidate"),
        (["--known", "nowhere"], "--known: nowhere: no evaluations.jsonl there"),
        (["--search-len", "9000"], "--search-len: got 9,000; expected at most --seq-len, 1,400"),
        (["--seq-len", "500", "--search-len", "300"], "make --seq-len and --search-len longer"),
        (["--rows", "2000"], "too short for the questions"),
        (["--rows", "100000"], "have no room for a piece of text"),
        (["--text", "nowhere.txt"], "--text: cannot read nowhere.txt"),
        (["--test-text", "a.txt"], "--test-text: got one without --text"),
        (["--rows", "0"], "--rows: got 0; expected 1 or more"),
        (["--name", "Not A Name"], "--name: got 'Not A Name'"),
    ],
)
def test_mistakes(model: Path, tmp_path: Path, options: list[str], message: str) -> None:
    out = tmp_path / "out"
    code, said, errors = run_cli("adapt", str(model), "--out", str(out), *OPTIONS, *options)
    assert code == 2 and message in errors and errors.count("error:") == 1 and not said
    assert not list(tmp_path.iterdir())


def test_a_folder_that_exists_is_refused(model: Path, made: Path) -> None:
    code, _, errors = run_cli("adapt", str(model), "--out", str(made), *OPTIONS)
    assert code == 2 and "exists already; give --out the name of a new folder" in errors


def test_a_journal_of_other_settings_is_refused(model: Path, made: Path, tmp_path: Path) -> None:
    journal = tmp_path / "out.adapt.jsonl"
    journal.write_bytes((made / "evaluations.jsonl").read_bytes())
    code, _, errors = run_cli("adapt", str(model), "--out", str(tmp_path / "out"), *OPTIONS, "--window", "20")
    assert code == 2 and "is of a `miniwin adapt` with other settings (window); give the same command" in errors
    for text in ("hello\n", "hello", "[]\n", '{"format": 1}\n', '{"format": 1, "settings": 3}\n'):
        journal.write_text(text)
        code, _, errors = run_cli("adapt", str(model), "--out", str(tmp_path / "out"), *OPTIONS)
        assert code == 2 and "is not a journal of `miniwin adapt`; give the same" in errors and "--known" not in errors
        assert journal.read_text() == text


def test_known_scores_are_of_the_same_settings_and_stay_as_they_are(model: Path, made: Path, tmp_path: Path) -> None:
    """A last line that is half written is not read, and not cut off either: the file is somebody else's."""
    known, settings = tmp_path / "known.jsonl", {"window": 16}
    lines = (made / "evaluations.jsonl").read_bytes().splitlines(keepends=True)
    known.write_bytes(whole := b"".join(lines[:4]) + lines[4][:20])
    asked = json.loads(lines[0])["settings"]
    journal = Journal(tmp_path / "a.jsonl", asked, known)
    assert len(journal.entries) == 3 and known.read_bytes() == whole
    assert (tmp_path / "a.jsonl").read_bytes() == b"".join(lines[:4])
    # A journal that has begun takes what it lacks, once.
    (tmp_path / "b.jsonl").write_bytes(b"".join(lines[:2]) + lines[2][:9])
    for _ in range(2):
        assert Journal(tmp_path / "b.jsonl", asked, known).entries == journal.entries
        assert (tmp_path / "b.jsonl").read_bytes() == b"".join(lines[:4])
    with pytest.raises(UserError, match=r"^--known: .*other settings \(window\); give the settings that it was made"):
        Journal(tmp_path / "c.jsonl", asked | {"window": 17}, known)
    for wrong in (b"\xff\xfe\n", b"", b"{}\n"):
        known.write_bytes(wrong)
        with pytest.raises(UserError, match=r"^--known: .*is not a journal of `miniwin adapt`; give the settings"):
            Journal(tmp_path / "c.jsonl", settings, known)
    assert not (tmp_path / "c.jsonl").exists()


def test_a_length_beyond_training_has_to_be_said(tmp_path: Path) -> None:
    path = imported(tmp_path / "m")
    (path / "chat_template.jinja").write_text("{{ messages[0].content }}")
    (path / "chat.json").write_text(
        '{"format": 1, "bos_token": null, "eos_token": "x", "end_tokens": ["x"], "context": 512}'
    )
    with pytest.raises(UserError, match=r"--length: got 1,400, and .* was made for 512 tokens"):
        prepare(str(path), QUICK)
    assert prepare(str(path), replace(QUICK, beyond=True)).size == 3


def test_random_weights_are_refused(tmp_path: Path) -> None:
    code, _, errors = run_cli("adapt", "miniwin-1m", "--out", str(tmp_path / "out"), "--cache", "25%")
    assert code == 2 and not (tmp_path / "out").exists() and errors.startswith("error:")


def test_a_dry_run_writes_nothing(model: Path, tmp_path: Path) -> None:
    code, said, errors = run_cli("adapt", str(model), "--out", str(tmp_path / "out"), *OPTIONS, "--dry-run")
    assert code == 0 and "nothing was written" in said and "search: 24 placements" in errors
    assert not list(tmp_path.iterdir())


def test_shares() -> None:
    assert share_of("25%") == share_of(" 0.25 ") == 0.25
