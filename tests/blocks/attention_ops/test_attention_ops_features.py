"""The features of an attention call beyond a causal window: each one, and pairs of them, on every backend.

A backend declines a call or agrees with the reference, in outputs and gradients. The table of features must have every
field of AttentionCall, so a test fails until a new field has a case here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import MISSING, fields, replace
from typing import Any

import pytest
import torch
from attention_calls import (
    BY_NAME,
    ON_CPU,
    TOLERANCE,
    LearnedBias,
    Sizes,
    agree,
    chosen,
    in_float32,
    make_call,
    naive,
    poisoned_memory,  # noqa: F401  (a fixture)
    real_rows,
    tensors,
    with_tensors,
)
from pretended_gpu import on_cuda
from torch import Tensor

from miniwin.blocks.attention_ops import AttentionCall, Kept, attend, block_local, cpu_banded, tiled, use_backend
from miniwin.blocks.attention_ops import xformers as xformers_backend
from miniwin.blocks.positions.alibi import Alibi
from miniwin.specs import UserError


def draw(call: AttentionCall, *shape: int, seed: int = 7) -> Tensor:
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return values.to(call.q.dtype).requires_grad_()


def kept(call: AttentionCall) -> AttentionCall:
    """Three kept tokens, each query seeing some of them, and some queries none."""
    shape = (len(call.q), 3, *call.k.shape[2:])
    seen = torch.rand(len(call.q), call.q.shape[1], 3, generator=torch.Generator().manual_seed(5)) < 0.5
    v = draw(call, *shape[:-1], call.v.shape[-1], seed=6)
    return replace(call, kept=Kept(draw(call, *shape), v, seen))


def padded(call: AttentionCall) -> AttentionCall:
    """Rows with no padding, a little, and up to the last token. As in a decoder, chunks begin after the padding."""
    m = call.k.shape[1]
    pad = torch.tensor([0, 3, m - 1, m // 2])[: len(call.q)].clamp(max=m - 1)
    start = (torch.zeros(1, dtype=torch.int64) if call.start is None else call.start) - pad
    return replace(call, pad=pad, start=None if call.chunk is None else start)


def gated(call: AttentionCall) -> AttentionCall:
    gates = torch.nn.functional.logsigmoid(draw(call, len(call.q), call.k.shape[1], call.q.shape[2]) + 1)
    return replace(call, log_gates=gates.detach())


def phase(q: Tensor, k: Tensor, distance: Tensor) -> Tensor:
    """A score that no dot product gives: it depends on distance, and is linear neither in queries nor in keys."""
    k = k.repeat_interleave(q.shape[2] // k.shape[2], dim=2)
    return torch.einsum("bnhd,bmhd->bhnm", q, k) * torch.cos(0.1 * distance) + torch.tanh(k.sum(-1)).mT.unsqueeze(2)


Feature = Callable[[AttentionCall], AttentionCall]
FEATURES: dict[str, Feature] = {
    "window": lambda call: replace(call, window=7),
    "bias": lambda call: replace(call, bias=Alibi(call.q.shape[2]).score_bias()),
    "learned bias": lambda call: replace(call, bias=LearnedBias(draw(call, call.q.shape[2], 1, 1))),
    "chunk": lambda call: replace(call, chunk=8, start=torch.tensor([5])),
    "sinks": lambda call: replace(call, sinks=draw(call, call.q.shape[2])),
    "softcap": lambda call: replace(call, softcap=1.5),
    "log_gates": gated,
    "score": lambda call: replace(call, score=phase),
    "weighting": lambda call: replace(call, weighting="stick-breaking"),
    "value_dim": lambda call: replace(call, v=draw(call, *call.v.shape[:3], 24)),
    "wide keys": lambda call: replace(call, v=draw(call, *call.v.shape[:3], 8)),
    "kept": kept,  # after those that set the values' dimension
    "pad": padded,  # after `chunk`, whose start it moves
}
MEANINGLESS = [
    {"window", "chunk"},
    {"weighting", "sinks"},
    {"weighting", "kept"},
    {"weighting", "log_gates"},
    {"score", "kept"},
]
EXCLUDED = [*MEANINGLESS, {"bias", "learned bias"}, {"value_dim", "wide keys"}]
PAIRS = [
    (a, b)
    for i, a in enumerate(FEATURES)
    for b in list(FEATURES)[i + 1 :]
    if not any(pair <= {a, b} for pair in EXCLUDED)
]
TRIPLES = [
    ("window", "kept", "sinks"),
    ("window", "kept", "pad"),
    ("window", "softcap", "pad"),
    ("window", "learned bias", "softcap"),
    ("window", "log_gates", "pad"),
    ("window", "weighting", "pad"),
    ("window", "sinks", "value_dim"),
    ("chunk", "softcap", "pad"),
    ("chunk", "value_dim", "pad"),
    ("chunk", "kept", "sinks"),
    ("kept", "log_gates", "sinks"),
]
SETS = [(name,) for name in FEATURES] + PAIRS + TRIPLES


def with_features(names: tuple[str, ...], n: int = 37, **more: Any) -> AttentionCall:
    call = make_call(n, **{"heads": (4, 2), "dim": 16, "batch": 3 if "pad" in names else 1} | more)
    for name in FEATURES:  # in the table's order
        if name in names:
            call = FEATURES[name](call)
    return call


def backends(call: AttentionCall) -> list[str | None]:
    """The backends that answer the call, and None for the dispatch itself."""
    able = [name for name in ON_CPU if BY_NAME[name].declines(call) is None]
    assert "tiled" in able
    return [None, *able]


# ---- no field is ignored


def test_every_field_of_a_call_has_its_feature() -> None:
    elsewhere = {"documents"}  # tests/blocks/test_documents.py
    optional = {f.name for f in fields(AttentionCall) if f.default is not MISSING} - {"start"} - elsewhere
    assert optional <= set(FEATURES)
    for name in optional:
        assert with_features((name,)).features == {name}
    assert make_call(9).features == frozenset()
    assert with_features(("chunk",)).features == {"chunk"}  # where the chunks begin is no feature by itself
    assert replace(make_call(9), start=torch.tensor([3])).features == frozenset()


@pytest.mark.parametrize("name", FEATURES)
def test_a_feature_changes_the_answer(name: str) -> None:
    """Otherwise agreement with the reference would prove nothing."""
    call = with_features((name,))
    plain = replace(make_call(37, heads=(4, 2), batch=len(call.q)), v=call.v)
    with torch.no_grad(), use_backend("reference"):
        got, without = attend(call), attend(plain)
    if name not in ("value_dim", "wide keys"):
        assert float(((got - without) * real_rows(call)).abs().max()) > 0.01


def every_backend_declines_or_agrees(names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiled, "QUERIES", 20)  # two tiles, the second not full
    call = with_features(names)
    agree(call, *backends(call))
    with torch.no_grad():  # others may answer where no gradient is asked for
        same_output(call, *backends(call))


def same_output(call: AttentionCall, *backends: str | None) -> None:
    with use_backend("reference"):
        want = attend(in_float32(call))
    for backend in backends:
        with use_backend(backend):
            got = attend(call)
        error = ((got.to(want.dtype) - want) * real_rows(call)).abs().max()
        assert float(error) <= TOLERANCE[call.q.dtype] * float(want.abs().max()), backend


@pytest.mark.parametrize("backend", ["tiled", "reference"])
@pytest.mark.parametrize("feature", ["log_gates", "score", "weighting", "kept"])
def test_autocast_narrows_nothing_that_was_widened(feature: str, backend: str) -> None:
    """Outputs and gradients against float64, with several tiles, which training computes once more."""
    call = with_features((feature,), n=300, heads=(2, 1))
    call = with_tensors(call, {name: t.detach().requires_grad_() for name, t in tensors(call).items()})
    double = with_tensors(call, {name: t.detach().double().requires_grad_() for name, t in tensors(call).items()})
    upstream = torch.randn(call.q.shape, generator=torch.Generator().manual_seed(3))

    def answered(call: AttentionCall, name: str, narrow: bool) -> list[Tensor]:
        with use_backend(name), torch.autocast("cpu", torch.bfloat16, enabled=narrow):
            out = attend(call)
        assert out.dtype == call.q.dtype
        return [out.detach(), *torch.autograd.grad(out, list(tensors(call).values()), upstream.to(out.dtype))]

    pairs = zip(answered(call, backend, True), answered(double, "reference", False), strict=True)
    for got, want in pairs:
        assert float((got - want).abs().max()) < 1e-5 * max(1.0, float(want.abs().max()))


def xformers_declines_all_but_a_window_and_padding(names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xformers_backend, "missing", lambda: None)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: False)  # as the memory is poisoned
    reason = xformers_backend.declines(on_cuda(with_features(names, dtype=torch.bfloat16)))
    assert (reason is None) == (set(names) <= {"window", "pad"})


def test_a_field_added_later_is_declined_by_all() -> None:
    """A backend takes only the features that it names, so it cannot overlook a new one."""

    class Later(AttentionCall):
        @property
        def features(self) -> frozenset[str]:  # type: ignore[override]
            return super().features | {"temperature"}

    call = Later(**{f.name: getattr(make_call(9, 4), f.name) for f in fields(AttentionCall)})
    for name, backend in BY_NAME.items():
        assert backend.declines(call) is not None, name
    with pytest.raises(UserError, match="no attention backend can answer this call: it takes no temperature"):
        attend(call)


@pytest.mark.parametrize("names", MEANINGLESS, ids=lambda pair: "+".join(sorted(pair)))
def test_what_has_no_meaning_is_refused(names: set[str]) -> None:
    call = with_features(tuple(names))
    assert all(backend.declines(call) is not None for backend in BY_NAME.values())
    with pytest.raises(UserError, match="no attention backend can answer this call: "):
        attend(call)


def test_refusals_name_the_feature() -> None:
    with use_backend("cpu_banded"), pytest.raises(UserError) as error:
        attend(with_features(("window", "softcap", "log_gates")))
    assert str(error.value) == (
        "attention backend 'cpu_banded' cannot answer this call: it takes no forget gates, no score soft-cap"
    )
    assert sdpa_reason("sinks") == "it takes no attention sinks"
    assert sdpa_reason("weighting") == "it takes no weighting other than softmax"
    assert sdpa_reason("bias", dtype=torch.bfloat16) == "it would round the score bias to torch.bfloat16"
    assert block_local.declines(make_call(9)) == "it is for chunks"


def sdpa_reason(name: str, **more: Any) -> str | None:
    reason: str | None = BY_NAME["sdpa"].declines(with_features((name,), **more))
    return reason


def test_who_answers_what() -> None:
    chosen_for = {
        ("window", "sinks"): "cpu_banded",
        ("window", "kept"): "cpu_banded",
        ("window", "value_dim"): "cpu_banded",
        ("window", "softcap"): "tiled",
        ("chunk",): "block_local",
        ("chunk", "pad"): "block_local",
        ("chunk", "bias"): "sdpa",
        ("chunk", "sinks"): "tiled",
        ("value_dim",): "sdpa",
        ("sinks",): "tiled",
        ("log_gates",): "tiled",
        ("weighting",): "tiled",
        ("score",): "tiled",
    }
    assert {names: chosen(with_features(names)) for names in chosen_for} == chosen_for
    assert chosen(with_features(("chunk",), n=1, m=8)) == "sdpa"  # one token: nothing to fold


# ---- agreement, beyond one shape

COMMON = [("kept", "sinks", "window"), ("softcap", "window"), ("log_gates", "pad"), ("weighting",), ("chunk", "pad")]
SHAPES: list[tuple[int, dict[str, Any]]] = [
    (1, {}),
    (1, {"m": 19}),
    (2, {"m": 3}),
    (5, {"m": 40, "heads": (5, 1), "dim": 32}),
    (41, {"m": 63, "heads": (6, 2)}),
    (131, {"heads": (8, 1), "dim": 24}),
    (129, {"heads": (3, 3), "dim": 128, "batch": 2}),
]


@pytest.mark.parametrize("names", COMMON, ids="+".join)
@pytest.mark.parametrize(("n", "more"), SHAPES, ids=[f"n{n}-{more}".replace(" ", "") for n, more in SHAPES])
def test_shapes(names: tuple[str, ...], n: int, more: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiled, "QUERIES", 16)  # several tiles
    call = with_features(names, n, **more)
    agree(call, *backends(call))


@pytest.mark.parametrize("names", [s for s in SETS if len(s) != 2], ids="+".join)
def test_bfloat16(names: tuple[str, ...]) -> None:
    call = with_features(names, dtype=torch.bfloat16, m=50)
    agree(call, *backends(call))


@pytest.mark.parametrize("names", [(name,) for name in FEATURES] + TRIPLES, ids="+".join)
def test_float64_is_computed_in_float64(names: tuple[str, ...]) -> None:
    call = with_features(names, dtype=torch.float64, m=50)
    agree(call, *backends(call))
    with torch.no_grad():
        same_output(call, *backends(call))


@pytest.mark.parametrize("seed", range(18))
def test_random_calls(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lengths, chunks, starts, windows, padding, features are drawn, to find boundaries that the cases above miss."""
    generator = torch.Generator().manual_seed(seed)

    def pick(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    monkeypatch.setattr(tiled, "QUERIES", pick(1, 40))
    n, past, size, kv_heads, batch = pick(1, 90), pick(0, 40), pick(1, 50), pick(1, 3), pick(1, 3)
    call = make_call(n, m=n + past, heads=(kv_heads * pick(1, 8), kv_heads), dim=8 * pick(1, 3), batch=batch, seed=seed)
    pad = torch.tensor([pick(0, n + past - 1) for _ in range(batch)])
    row = pick(0, 60)  # tokens that a ring has dropped
    choices: list[Feature] = [
        lambda c: replace(c, chunk=size, start=row - pad, pad=pad),
        lambda c: replace(c, chunk=size, start=torch.tensor([row])),
        lambda c: kept(replace(c, window=size)),
        lambda c: FEATURES["sinks"](replace(c, window=size, pad=pad)),
        lambda c: gated(replace(c, window=size, pad=pad, softcap=2.0)),
        lambda c: replace(c, window=size, pad=pad, weighting="stick-breaking"),
    ]
    call = choices[seed % len(choices)](call)
    agree(call, *backends(call))


def the_reference_equals_a_loop_over_scores(names: tuple[str, ...]) -> None:
    call = with_features(names, 7, m=11, dim=4, heads=(4, 2), dtype=torch.float64)
    with use_backend("reference"), torch.no_grad():
        assert float((attend(call) - naive(call)).abs().max()) < 1e-6  # a score bias is float32


def pieces_equal_the_whole(names: tuple[str, ...]) -> None:
    """A chunked prefill on a warm cache, then token by token, by the backends that the dispatch chooses."""
    call = with_features(names, 37)
    with torch.no_grad():
        whole = attend(call)
        for begin, end in [(0, 1), (1, 9), (9, 16), (16, 35), (35, 36), (36, 37)]:
            piece = replace(call, q=call.q[:, begin:end], k=call.k[:, :end], v=call.v[:, :end])
            if call.kept is not None:
                piece = replace(piece, kept=replace(call.kept, seen=call.kept.seen[:, begin:end]))
            if call.log_gates is not None:
                piece = replace(piece, log_gates=call.log_gates[:, :end])
            if call.pad is not None:
                piece = replace(piece, pad=call.pad.clamp(max=end))
            real = real_rows(call)[:, begin:end]
            assert float(((attend(piece) - whole[:, begin:end]) * real).abs().max()) < 1e-5


@pytest.mark.parametrize("names", COMMON, ids="+".join)
def test_padding_has_finite_gradients(names: tuple[str, ...]) -> None:
    call = padded(with_features(names, batch=3))
    for backend in backends(call):
        leaves = {name: t.detach().clone().requires_grad_() for name, t in tensors(call).items()}
        with use_backend(backend):
            out = attend(with_tensors(call, leaves))
        assert out.isfinite().all()
        assert all(g.isfinite().all() for g in torch.autograd.grad(out.sum(), list(leaves.values())))


def test_nothing_seen_is_zero_for_a_stick() -> None:
    """The first token of each row sees no earlier key: its output is zero, whatever the padding before it holds."""
    call = with_features(("weighting", "pad"))
    out = attend(call)
    assert call.pad is not None
    for row, first in enumerate(call.pad.tolist()):
        assert (out[row, : first + 1] == 0).all()
        assert (out[row, first + 1 :] != 0).all()


def test_an_extreme_stick_is_finite() -> None:
    """Shares may round to 0 or 1: sums of logarithms stay finite, logarithms of products would not."""
    call = replace(make_call(40), scale=200.0, weighting="stick-breaking")
    with use_backend("tiled"):
        out = attend(call)
    with use_backend("reference"):
        want = attend(replace(call, q=call.q.double(), k=call.k.double(), v=call.v.double()))
    assert float((out - want).detach().abs().max()) < 1e-3  # scores of a thousand are themselves rounded at 1e-4
    assert all(g.isfinite().all() for g in torch.autograd.grad(out.sum(), (call.q, call.k, call.v)))


# ---- precision and memory


def test_forget_gates_keep_their_precision_over_a_million_tokens() -> None:
    """Sums of gates reach 3e6, where float32 has steps of 0.25; their differences are exact to 1e-5."""
    m, seen = 1_000_000, 300
    generator = torch.Generator().manual_seed(0)
    gates = -6 * torch.rand(1, m, 1, generator=generator)
    gates[:, -seen:] *= 0.05
    q, k, v = (torch.randn(1, tokens, 1, 8, generator=generator) for tokens in (3, m, m))
    with torch.no_grad():
        got = attend(AttentionCall(q, k, v, 0.3, log_gates=gates))
        near = [t[:, -3 * seen :].double() for t in (k, v, gates)]  # older keys have weights below exp(-1000)
        with use_backend("reference"):
            want = attend(AttentionCall(q.double(), near[0], near[1], 0.3, log_gates=near[2]))
    assert float((got - want).abs().max()) < 1e-5


def kept_for_backward(call: AttentionCall) -> int:
    """Bytes that autograd holds between forward and backward, each storage once."""
    held: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        held[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = attend(call)
    out.sum().backward()
    return sum(held.values())


@pytest.mark.parametrize("names", [("log_gates",), ("weighting",), ("softcap", "sinks")])
def test_tiles_hold_memory_linear_in_length(names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiled, "QUERIES", 64)
    calls = {n: with_features(names, n, heads=(2, 1)) for n in (256, 1024)}
    assert chosen(calls[256]) == "tiled"
    bytes_held = {n: kept_for_backward(call) for n, call in calls.items()}
    assert bytes_held[1024] <= 4.2 * bytes_held[256]
    assert bytes_held[1024] < 1024 * 1024 * 4
    with Sizes() as sizes:
        attend(calls[1024]).sum().backward()
    assert sizes.largest <= 2 * 64 * (1024 + 1)  # a tile of scores, and never all of them


@pytest.mark.parametrize("names", [("window", "softcap"), ("window", "weighting"), ("chunk",), ("window", "sinks")])
def test_local_features_are_linear_in_length(names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """All memory that forward and backward allocate grows by equal steps."""
    monkeypatch.setattr(tiled, "QUERIES", 32)
    totals = {}
    attend(with_features(names, 128, heads=(2, 1))).sum().backward()  # masks are made once and kept
    for n in (128, 256, 512):
        call = with_features(names, n, heads=(2, 1))
        with Sizes() as sizes:
            attend(call).sum().backward()
        assert sizes.largest <= 4 * call.q.numel(), f"{sizes.largest} elements in one tensor"
        totals[n] = sizes.bytes
    assert totals[512] - totals[256] == pytest.approx(2 * (totals[256] - totals[128]), rel=0.02)


def test_a_tile_is_cut_so_that_its_scores_stay_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiled, "SCORES", 4 * 2000)
    call = with_features(("log_gates",), 64, m=1000)
    with torch.no_grad(), Sizes() as sizes:
        attend(call)
    assert sizes.largest <= 2 * max(call.k.numel(), 4 * 2000)


def meta_tensors_go_through(names: tuple[str, ...]) -> None:
    call = with_features(names)

    def meta(value: Any) -> Any:
        return value.to("meta") if isinstance(value, Tensor) else value

    if isinstance(call.bias, LearnedBias):
        call = replace(call, bias=LearnedBias(call.bias.weight.to("meta")))
    if call.kept is not None:
        call = replace(call, kept=Kept(*(meta(t) for t in (call.kept.k, call.kept.v, call.kept.seen))))
    call = replace(call, **{f.name: meta(getattr(call, f.name)) for f in fields(call)})
    out = attend(call)
    assert out.is_meta and out.shape == (*call.q.shape[:3], call.v.shape[3])


@pytest.mark.parametrize("names", SETS, ids="+".join)
def test_features_alone_and_together(names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    the_reference_equals_a_loop_over_scores(names)
    pieces_equal_the_whole(names)
    meta_tensors_go_through(names)
    for check in (every_backend_declines_or_agrees, xformers_declines_all_but_a_window_and_padding):
        with monkeypatch.context() as patch:
            check(names, patch)


def test_a_sink_takes_its_share() -> None:
    """One visible key and a sink of logit s: the value, times its share of two."""
    call = replace(make_call(5, 1), sinks=torch.full((4,), 0.7), scale=0.0)
    for backend in ("cpu_banded", "tiled", "reference"):
        with use_backend(backend), torch.no_grad():
            share = 1 / (1 + math.exp(0.7))
            assert torch.allclose(attend(call), share * call.v.repeat_interleave(2, dim=2), atol=1e-6)
    assert cpu_banded.declines(call) is None
