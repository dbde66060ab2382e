"""The recorded step: the same logits as an ordinary step, and no number that only the host knows."""

from __future__ import annotations

from contextlib import nullcontext
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers import LOCAL, attention, enliven, largest, random_ids, tiny_spec
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

import miniwin
from miniwin.blocks import Attention, Decoder, use_backend
from miniwin.blocks.decode import graph_step
from miniwin.blocks.decode.graph_step import GraphStep, declines
from miniwin.generation import decode_step as ways
from miniwin.generation import generate
from miniwin.language_model import LanguageModel
from miniwin.sessions import new_session
from miniwin.specs import UserError

SCALED = {"type": "nope", "logit_scale": {"type": "log"}}
LAYOUTS: dict[str, dict[str, dict[str, Any]]] = {
    "published p-rope, nope": {"S": attention(7, LOCAL), "G": attention(None, {"type": "nope"})},
    "harmonic, scaled nope": {"S": attention(7, {**LOCAL, "harmonic": True}), "G": attention(None, SCALED)},
    "rope": {"S": attention(7, {"type": "rope"}), "G": attention(None, {"type": "rope", "partial_rotary_factor": 0.5})},
    "resonance": {"S": attention(1, {"type": "resonance"}), "G": attention(None, {"type": "resonance"})},
    "learned": {
        "S": attention(7, {"type": "learned", "num_positions": 9, "then": LOCAL}),
        "G": attention(None, SCALED),
    },
    "normed": {"S": attention(12, LOCAL, qk_norm={"type": "rmsnorm"}), "G": attention(None, SCALED)},
}


def built(blocks: dict[str, dict[str, Any]] | None = None, **fields: Any) -> Decoder:
    return enliven(tiny_spec(blocks, **fields).build().eval())


@torch.no_grad()
def warmed(decoder: Decoder, ids: Tensor, tokens: int) -> Any:
    cache = decoder.new_cache(len(ids))
    decoder(ids[:, :tokens], cache=cache)
    return cache


@lru_cache(maxsize=1)
@torch.no_grad()
def stepped(layout: str) -> tuple[Decoder, Tensor, list[Tensor]]:
    """A model, 40 tokens, and the logits of the model's own step for each of them."""
    decoder, ids = built(LAYOUTS[layout]), random_ids(tiny_spec(), 2, 40)
    cache = decoder.new_cache(2)
    return decoder, ids, [decoder(token, cache=cache) for token in ids.split(1, 1)]


@pytest.mark.parametrize("before", [1, 6, 7, 8, 23])
@pytest.mark.parametrize("layout", LAYOUTS)
@torch.no_grad()
def test_it_is_the_ordinary_step(layout: str, before: int) -> None:
    decoder, ids, wanted = stepped(layout)
    steps = GraphStep(decoder, warmed(decoder, ids, before), capacity=40)
    for t in range(before, 40):
        assert largest(steps.step(ids[:, t : t + 1]), wanted[t]) < 2e-5
    with pytest.raises(AssertionError, match="more tokens than there is room for"):
        steps.step(ids[:, :1])


@torch.no_grad()
def test_the_cache_is_left_as_it_is() -> None:
    decoder, ids = built(), random_ids(tiny_spec(), 1, 30)
    cache = warmed(decoder, ids, 20)
    kept = cache.clone()
    steps = GraphStep(decoder, cache, capacity=30)
    for t in range(20, 30):
        steps.step(ids[:, t : t + 1])
    assert cache.length == kept.length == 20
    assert torch.equal(decoder(ids[:, 20:], cache=cache), decoder(ids[:, 20:], cache=kept))


@torch.no_grad()
def test_a_step_that_is_repeated_changes_nothing() -> None:
    """A recording runs the step several times before the first token."""
    decoder, ids = built(), random_ids(tiny_spec(), 1, 30)
    cache = warmed(decoder, ids, 20)
    plain, repeated = (GraphStep(decoder, cache, capacity=30) for _ in range(2))
    for t in range(20, 30):
        for _ in range(3):
            repeated._run()
        assert torch.equal(repeated.step(ids[:, t : t + 1]), plain.step(ids[:, t : t + 1]))


class Inside(nn.Module):
    def __init__(self, decoder: Decoder, work: Any) -> None:
        super().__init__()
        self.decoder, self.work = decoder, work

    def forward(self) -> Tensor:
        out: Tensor = self.work()
        return out


@pytest.mark.parametrize("layout", LAYOUTS)
@torch.no_grad()
def test_no_number_is_asked_of_the_device(layout: str) -> None:
    """The step runs on fake tensors, which have shapes and no numbers."""
    decoder, ids = built(LAYOUTS[layout]), random_ids(tiny_spec(), 1, 20)
    steps = GraphStep(decoder, warmed(decoder, ids, 20), capacity=30)
    with FakeTensorMode(allow_non_fake_inputs=True):

        def fake(t: Tensor) -> Tensor:
            return torch.empty_strided(t.shape, t.stride(), dtype=t.dtype)

        at = fake(steps.at)
        steps.at, steps.ids = at, fake(steps.ids)
        for held in steps.layers:
            held.at, held.stored = at, [fake(t) for t in held.stored]
        weights = {f"decoder.{name}": fake(p) for name, p in decoder.named_parameters()}
        out = torch.func.functional_call(Inside(decoder, steps._run), weights, ())
        assert out.shape == (1, 1, 61)
        with pytest.raises(DataDependentOutputException):  # the check can fail
            torch.func.functional_call(Inside(decoder, lambda: steps._run() * int(at)), weights, ())


def test_what_it_declines() -> None:
    ids = random_ids(tiny_spec(), 1, 5)
    experts = {"type": "moe", "num_experts": 4, "experts_per_token": 2, "expert": {"intermediate_size": 24},
               "router": {"type": "softmax-topk"}}  # fmt: skip
    total = {"type": "nope", "logit_scale": {"type": "log-ratio", "total_length": True}}
    for block, reason in (
        (attention(7, LOCAL, keep_first=2), "sink tokens"),
        (attention(None, {"type": "alibi"}), "wanted in order"),
        (attention(None, {"type": "nope"}, softcap=20.0), "sinks or a soft-cap"),
        (attention(7, LOCAL, sinks=True), "sinks or a soft-cap"),
        ({"attention": attention(7, LOCAL), "mlp": experts}, "experts"),
        (attention(None, total), "the length at hand"),
    ):
        decoder = built({"S": block})
        assert reason in str(declines(decoder, warmed(decoder, ids, 3)))
    placed = built(embed_positions=9)
    assert "added to the embeddings" in str(declines(placed, warmed(placed, ids, 3)))
    decoder = built()
    assert declines(decoder, warmed(decoder, ids, 3)) is None
    with use_backend("sdpa"):
        assert declines(decoder, warmed(decoder, ids, 3)) is None
    with use_backend("reference"):
        assert "another attention backend" in str(declines(decoder, warmed(decoder, ids, 3)))
    other = built()
    other.attentions[1].__class__ = type("Another", (Attention,), {})
    assert "wanted in order" in str(declines(other, warmed(other, ids, 3)))
    assert "int8" in str(declines(decoder, decoder.new_cache(dtype=torch.int8)))
    padded = decoder.new_cache(2)
    decoder(ids.expand(2, -1), cache=padded, attention_mask=torch.tensor([[0, 1, 1, 1, 1], [1] * 5]))
    assert "padded" in str(declines(decoder, padded))


SCALES = {
    "product": lambda visible, total: visible.log() * total,
    "steps": lambda visible, total: visible * (1.0 if total < 1000 else 2.0),
    "equal": lambda visible, total: visible * (1.0 if total == 1000 else 2.0),
    "any": lambda visible, total: visible * (1.0 if total else 2.0),
    "whole": lambda visible, total: torch.full_like(visible, total),
}


@pytest.mark.parametrize("name", SCALES)
def test_a_scale_of_somebody_else_that_counts_keys_is_seen(name: str) -> None:
    """A plugin's query scale. On the meta device too, as `miniwin explain` asks."""
    for device in ("cpu", "meta"):
        decoder = built({"G": attention(None, SCALED)}).to(device)
        assert declines(decoder, decoder.new_cache()) is None
        position = decoder.attentions[0].position
        position.query_scale = SCALES[name]  # type: ignore[assignment, method-assign]
        assert "the length at hand" in str(declines(decoder, decoder.new_cache()))


@pytest.fixture
def model() -> LanguageModel:
    made = miniwin.build(tiny_spec(), seed=0).eval()
    enliven(made.decoder)
    return made


def drawn(model: LanguageModel, **wishes: Any) -> list[int]:
    return generate(model, [3, 1, 4], max_new_tokens=90, seed=5, **wishes).ids


def test_generation_goes_the_same_way(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, made = drawn(model), []

    class Watched(GraphStep):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            made.append(self)

    monkeypatch.setattr(ways, "GRAPHED", ("cpu",))
    monkeypatch.setattr(ways, "GraphStep", Watched)
    assert drawn(model) == plain
    assert [steps.length for steps in made] == [3 + 89], "every token but the last went through it"
    assert drawn(model, session=new_session(model)) == plain and len(made) == 1, "a session keeps its cache"
    monkeypatch.setenv(ways.SWITCH, "0")
    assert drawn(model) == plain and len(made) == 1
    monkeypatch.setenv(ways.SWITCH, "no")
    with pytest.raises(UserError, match="MINIWIN_CUDA_GRAPHS: got 'no' in the environment; expected 0"):
        drawn(model)


def test_it_is_for_one_row_of_many_tokens_and_not_for_huge_contexts(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = model.decoder
    cache = warmed(decoder, torch.tensor([[3, 1, 4]]), 3)
    assert ways.fastest_step(decoder, cache, 500, keep=False) is None, "on a CPU there is nothing to record"
    monkeypatch.setattr(ways, "GRAPHED", ("cpu",))
    assert ways.fastest_step(decoder, cache, 500, keep=False) is not None
    assert ways.fastest_step(decoder, cache, ways.MANY - 1, keep=False) is None
    assert ways.fastest_step(decoder, cache, ways.LONG, keep=False) is None
    assert ways.fastest_step(decoder, cache, 500) is None
    assert ways.fastest_step(decoder, warmed(decoder, torch.tensor([[3], [4]]), 1), 500, keep=False) is None


def test_where_it_cannot_be_recorded_it_is_done_without(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*given: Any) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    plain = drawn(model)
    monkeypatch.setattr(ways, "GRAPHED", ("cpu",))
    monkeypatch.setattr(ways, "GraphStep", broken)
    with pytest.warns(UserWarning, match="without a CUDA graph: RuntimeError: operation not permitted"):
        assert drawn(model) == plain


class Cuda:
    """The parts of torch.cuda that a recording needs: a current stream, and a graph that may fail at its end."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
        self.current, self.fails, self.recorded_on = SimpleNamespace(wait_stream=lambda other: None), fails, None
        monkeypatch.setattr(torch.cuda, "current_stream", lambda *device: self.current)
        monkeypatch.setattr(torch.cuda, "Stream", lambda *device: SimpleNamespace(wait_stream=lambda other: None))
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: self)
        monkeypatch.setattr(torch._C, "_host_emptyCache", lambda: None, raising=False)
        for name in ("synchronize", "empty_cache"):
            monkeypatch.setattr(torch.cuda, name, lambda: None)
        cuda = self

        class Within:
            def __init__(self, stream: Any) -> None:
                self.stream = stream

            def __enter__(self) -> None:
                self.before, cuda.current = cuda.current, self.stream

            def __exit__(self, *error: Any) -> None:
                cuda.current = self.before

        monkeypatch.setattr(torch.cuda, "stream", Within)

    def capture_begin(self, *given: Any, **named: Any) -> None:
        self.recorded_on = self.current

    def capture_end(self) -> None:
        if self.fails:
            raise RuntimeError("operation failed due to a previous error during capture")


def test_a_graph_is_recorded_and_replayed_on_the_device_of_its_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model's device need not be the current one. On a CPU everything except the graph itself can be observed."""
    seen: list[str] = []

    class Guard:
        def __init__(self, tensor: Tensor) -> None:
            self.place = tensor.device

        def __enter__(self) -> None:
            seen.append(f"on {self.place}")

        def __exit__(self, *error: Any) -> None:
            seen.append("off")

    class Step(GraphStep):
        def _record(self) -> None:
            seen.append("recorded")
            self.graph = SimpleNamespace(replay=lambda: seen.append("replayed"))  # type: ignore[assignment]
            self.logits = torch.zeros(1)

    monkeypatch.setattr(torch.cuda, "device_of", Guard)
    monkeypatch.setattr(graph_step, "RECORDED", "cpu")
    decoder, ids = built(), random_ids(tiny_spec(), 1, 20)
    Step(decoder, warmed(decoder, ids, 20), capacity=30).step(ids[:, :1])
    assert seen == ["on cpu", "recorded", "off", "on cpu", "replayed", "off"]


@pytest.mark.parametrize("fails", [True, False])
def test_the_stream_is_as_before_a_recording_though_it_fails(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a recording fails at its end, torch leaves its own stream current."""
    decoder = built()
    steps = GraphStep(decoder, warmed(decoder, random_ids(tiny_spec(), 1, 20), 20), capacity=30)
    cuda = Cuda(monkeypatch, fails)
    before = cuda.current
    with pytest.raises(RuntimeError, match="during capture") if fails else nullcontext():
        steps._record()
    assert cuda.current is before
    assert cuda.recorded_on not in (None, before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("layout", LAYOUTS)
@torch.no_grad()
def test_on_a_gpu_the_graph_is_the_step(layout: str) -> None:
    decoder, ids = built(LAYOUTS[layout]).cuda(), random_ids(tiny_spec(), 2, 40).cuda()
    cache = warmed(decoder, ids, 8)
    steps = GraphStep(decoder, cache, capacity=40)
    assert steps.graph is not None
    for t in range(8, 40):
        assert largest(steps.step(ids[:, t : t + 1]), decoder(ids[:, t : t + 1], cache=cache)) < 1e-3
