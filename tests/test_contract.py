"""The contract that every registered block and every shipped model keeps, whatever it computes.

Prefill, decoding and chunked prefill agree; padding changes nothing; later tokens change nothing; gradients arrive
everywhere; what the spec computes is what is built. A new block is tested by being registered: its cases below come
from the registry, and only fields without a default need an entry in EXAMPLES.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import pytest
import torch
from helpers import GLOBAL, LOCAL, attention, enliven, largest, random_ids, tiny_spec
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from miniwin.blocks import ATTENTIONS, LOGIT_SCALES, MLPS, NORMS, POSITIONS, Decoder, Registry
from miniwin.specs import ModelSpec, UserError, load_model_spec, parse_spec, shipped_specs

TOLERANCE = 1e-4  # float32 logits

# What a block needs beyond its defaults, and its variants worth a case of their own.
EXAMPLES: dict[tuple[str, str], list[dict[str, Any]]] = {
    ("position", "p-rope"): [
        {"period": 14},
        {"period": 8, "harmonics": "all"},
        {"period": 9, "harmonics": [4, 3, 2, 1]},
        {"period": 11, "harmonic": False},
    ],
    ("position", "nope"): [{"logit_scale": None}],  # each logit scale has its own cases
    ("mlp", "swiglu"): [{"intermediate_size": 24}],
    ("attention", "softmax"): [{"num_heads": 4, "num_kv_heads": 2}],
}


def examples(registry: Registry) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, fields) of every registered block of one kind."""
    for name in registry.names():
        for fields in EXAMPLES.get((registry.kind, name), [{}]):
            label = ",".join([name, *(f"{key}={value}" for key, value in fields.items())])
            yield label.replace(" ", ""), {"type": name, **fields}


Make = Callable[[], ModelSpec]


def windowed(label: str, block: Callable[[int | None], dict[str, Any]]) -> Iterator[tuple[str, Make]]:
    """Cases of one block, local and global, where it allows both; it must allow one of them."""
    found = 0
    for window in (7, None):
        try:
            tiny_spec({"X": block(window)})
        except UserError as error:
            if "window" not in str(error):
                raise
            continue
        found += 1
        sees = "global" if window is None else f"window{window}"
        yield f"{label}-{sees}", lambda w=window: tiny_spec({"X": block(w)})
    assert found, f"{label} is allowed neither with a window nor without"


def registered() -> Iterator[tuple[str, Make]]:
    for label, position in examples(POSITIONS):
        yield from windowed(label, lambda w, p=position: attention(w, p))
    for label, scale in examples(LOGIT_SCALES):
        yield from windowed(f"nope,{label}", lambda w, s=scale: attention(w, {"type": "nope", "logit_scale": s}))
    for label, fields in examples(ATTENTIONS):
        yield from windowed(label, lambda w, f=fields: {**f, "window": w, "position": LOCAL if w else GLOBAL})
    for label, norm in examples(NORMS):
        yield label, lambda n=norm: tiny_spec(norm=n)
        yield from windowed(f"qk_norm={label}", lambda w, n=norm: attention(w, LOCAL if w else GLOBAL, qk_norm=n))
    for label, mlp in examples(MLPS):
        yield label, lambda m=mlp: tiny_spec({"X": {"attention": attention(7, LOCAL), "mlp": m}})


def combined() -> Iterator[tuple[str, Make]]:
    for heads, kv_heads in ((4, 4), (4, 1), (6, 3), (8, 1)):
        for window in (7, None):
            shape = {"num_heads": heads, "num_kv_heads": kv_heads, "head_dim": 6}
            yield (
                f"heads{heads}:{kv_heads}-{window or 'global'}",
                lambda w=window, s=shape: tiny_spec({"X": attention(w, {"type": "alibi"}, **s)}),
            )
    for window in (1, 2, 33, 64, 300):
        position = {"type": "p-rope", "period": 2 * window}
        yield f"window{window}", lambda w=window, p=position: tiny_spec({"X": attention(w, p)})
    yield "untied", lambda: tiny_spec(tie_word_embeddings=False)
    yield "odd-head_dim", lambda: tiny_spec({"X": attention(7, GLOBAL, head_dim=5)})
    qk = {"type": "rmsnorm"}
    both = {"S": attention(9, {"type": "rope"}, qk_norm=qk), "G": attention(None, GLOBAL, qk_norm=qk)}
    yield "mixed", lambda: tiny_spec(both, pattern="SSG", num_layers=5, last="G")


SPECS: dict[str, Make] = dict((*registered(), *combined()))
SPECS |= {f"shipped:{name}": lambda n=name: load_model_spec(n) for name in shipped_specs("model")}

every_spec = pytest.mark.parametrize("name", SPECS)


def reach(spec: ModelSpec) -> int:
    """Tokens after which every window and period has been passed."""
    attentions: list[Any] = [layer.attention for layer in spec.layer_specs]
    return max(max(a.window or 0, getattr(a.position, "period", 0)) for a in attentions)


@cache
def case(name: str) -> tuple[ModelSpec, Decoder, Tensor, Tensor]:
    """Spec, model, ids (1, N) well past every window and period, and the logits of one prefill."""
    spec = SPECS[name]()
    decoder = enliven(spec.build()).eval()
    ids = random_ids(spec, 1, min(reach(spec), 128) + 61)
    with torch.no_grad():
        logits = decoder(ids)
    assert logits.dtype == torch.float32 and logits.std() > 1, "logits too small for a comparison to mean anything"
    return spec, decoder, ids, logits


@torch.no_grad()
def in_chunks(decoder: Decoder, ids: Tensor, sizes: Sequence[int], cache: Any = None) -> Tensor:
    """Logits of ids fed to one cache in chunks of the given sizes, over and over."""
    cache = decoder.new_cache(len(ids)) if cache is None else cache
    parts, done = [], 0
    while done < ids.shape[1]:
        size = sizes[len(parts) % len(sizes)]
        parts.append(decoder(ids[:, done : done + size], cache=cache))
        done += parts[-1].shape[1]
    return torch.cat(parts, dim=1)


@every_spec
def test_chunked_prefill_and_decode_equal_prefill(name: str) -> None:
    _, decoder, ids, expected = case(name)
    for sizes in ((1,), (7,), (64,), (5, 13, 1, 37)):
        assert largest(in_chunks(decoder, ids, sizes), expected) < TOLERANCE, f"chunks of {sizes}"


@every_spec
@torch.no_grad()
def test_a_left_padded_batch_equals_each_row_alone(name: str) -> None:
    spec, decoder, ids, _ = case(name)
    more = random_ids(spec, 4, 24, seed=5)  # what each row goes on with, on the warm cache
    lengths = (ids.shape[1], 40, 3, 1)
    batch = torch.zeros(4, lengths[0], dtype=torch.int64)
    mask = torch.zeros_like(batch)
    for row, length in enumerate(lengths):
        batch[row, lengths[0] - length :] = ids[0, :length]
        mask[row, lengths[0] - length :] = 1
    cache = decoder.new_cache(batch_size=4)
    first = decoder(batch, cache=cache, attention_mask=mask)
    assert largest(decoder(batch, attention_mask=mask), first) < TOLERANCE
    rest = in_chunks(decoder, more, (1, 1, 5, 1, 16), cache)
    assert cache.length == lengths[0] + 24
    for row, length in enumerate(lengths):
        alone = decoder(torch.cat((ids[:, :length], more[row : row + 1]), dim=1))[0]
        assert largest(first[row, lengths[0] - length :], alone[:length]) < TOLERANCE, f"prefill of {length} tokens"
        assert largest(rest[row], alone[length:]) < TOLERANCE, f"decoding after {length} tokens"


@pytest.mark.parametrize("name", ["mixed", "alibi-window7", "nope,log-global", "shipped:miniwin-tiny"])
@pytest.mark.parametrize("size", [1, 7, 64])
@torch.no_grad()
def test_a_left_padded_batch_may_come_in_chunks(name: str, size: int) -> None:
    """The mask is cut like the ids. A short row's first chunks are then padding and nothing else."""
    _, decoder, ids, _ = case(name)
    n = min(ids.shape[1], 75)
    lengths = (n, 40, 3)
    batch = torch.stack([torch.cat((ids[0, :1].expand(n - length), ids[0, :length])) for length in lengths])
    mask = torch.stack([(torch.arange(n) >= n - length).long() for length in lengths])
    cache = decoder.new_cache(batch_size=3)
    parts = [
        decoder(batch[:, at : at + size], cache=cache, attention_mask=mask[:, at : at + size])
        for at in range(0, n, size)
    ]
    logits = torch.cat(parts, dim=1)
    for row, length in enumerate(lengths):
        assert largest(logits[row, n - length :], decoder(ids[:, :length])[0]) < TOLERANCE, f"{length} tokens"


@every_spec
@torch.no_grad()
def test_several_new_tokens_on_a_warm_cache(name: str) -> None:
    _, decoder, ids, expected = case(name)
    n = ids.shape[1]
    for warm in (1, 6, 40, n - 9):
        cache = decoder.new_cache()
        decoder(ids[:, :warm], cache=cache)
        branch = cache.clone()
        assert largest(decoder(ids[:, warm:], cache=cache), expected[:, warm:]) < TOLERANCE, f"after {warm}"
        # The copy is its own: it goes on from the same point, and keeps the last logits alone when asked to.
        last = decoder(ids[:, warm:], cache=branch, logits_to_keep=1)
        assert largest(last, expected[:, -1:]) < TOLERANCE


@every_spec
@torch.no_grad()
def test_later_tokens_never_change_earlier_logits(name: str) -> None:
    spec, decoder, ids, expected = case(name)
    for t in (1, 31, ids.shape[1] // 2, ids.shape[1] - 1):
        changed = ids.clone()
        changed[:, t:] = (changed[:, t:] + 1) % spec.vocab_size
        logits = decoder(changed)
        assert torch.equal(logits[:, :t], expected[:, :t]), f"tokens from {t} on reach back"
        assert largest(logits[:, t], expected[:, t]) > 0.01, "the change itself should show"


@every_spec
def test_gradients_reach_every_parameter(name: str) -> None:
    spec, _, ids, _ = case(name)
    decoder = enliven(spec.build())
    logits = decoder(ids)
    torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:]).backward()
    idle = ("q_proj", "k_proj") if name == "window1" else ()  # one visible key: its score decides nothing
    for parameter_name, parameter in decoder.named_parameters():
        assert parameter.grad is not None, f"no gradient for {parameter_name}"
        assert parameter.grad.isfinite().all(), f"{parameter_name}: gradient is not finite"
        if not any(word in parameter_name for word in idle):
            assert parameter.grad.abs().max() > 0, f"{parameter_name}: gradient is zero"


@every_spec
@torch.no_grad()
def test_computed_parameters_and_cache_bytes_are_those_built(name: str) -> None:
    spec, decoder, _, _ = case(name)
    assert spec.parameters() == sum(p.numel() for p in decoder.parameters())
    lengths = sorted({1, 6, 7, 8, reach(spec) - 1, reach(spec), reach(spec) + 1, 2 * reach(spec) + 3} - {-1, 0})
    for batch, dtype in ((1, "float32"), (2, "bfloat16")):
        cache = decoder.new_cache(batch, dtype=getattr(torch, dtype))
        assert cache.nbytes == 0
        ids = random_ids(spec, batch, lengths[-1])
        for length in lengths:
            decoder(ids[:, cache.length : length], cache=cache)
            assert cache.nbytes == batch * spec.cache_bytes(length, dtype), f"{length} tokens in {dtype}"


class RealTensors(TorchDispatchMode):
    """Counts the elements of tensors made anywhere but on the meta device."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.elements += sum(t.numel() for t in tree_leaves(out) if isinstance(t, Tensor) and not t.is_meta)
        return out


@every_spec
def test_builds_on_the_meta_device_without_allocating(name: str) -> None:
    spec = SPECS[name]()
    with RealTensors() as made, torch.device("meta"):
        decoder = spec.build()
    assert all(t.is_meta for t in (*decoder.parameters(), *decoder.buffers()))
    assert sum(p.numel() for p in decoder.parameters()) == spec.parameters()
    assert made.elements < 100 * spec.num_layers  # a few frequencies or slopes
    assert decoder(torch.zeros(2, 9, dtype=torch.int64, device="meta")).shape == (2, 9, spec.vocab_size)


@every_spec
@torch.no_grad()
def test_state_dict_round_trip(name: str) -> None:
    spec, decoder, ids, expected = case(name)
    file = io.BytesIO()
    torch.save(decoder.state_dict(), file)
    file.seek(0)
    other = spec.build().eval()
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(ids), expected)
    assert sum(t.numel() for t in other.state_dict().values()) == spec.parameters()  # no tables, nothing twice


@every_spec
def test_spec_round_trip(name: str) -> None:
    spec = SPECS[name]()
    again = parse_spec(spec.model_dump(mode="json"), "model")
    assert again == spec and again.hash == spec.hash
    assert again.layer_specs == spec.layer_specs and again.parameters() == spec.parameters()


@pytest.mark.parametrize("name", ["mixed", "shipped:miniwin-tiny"])
def test_a_seed_decides_the_weights(name: str) -> None:
    spec = SPECS[name]()

    def weights(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return torch.cat([p.detach().flatten() for p in spec.build().parameters()])

    assert torch.equal(weights(3), weights(3))
    assert not torch.equal(weights(3), weights(4))


@torch.no_grad()
def test_scaling_by_total_length_is_the_documented_exception() -> None:
    """`total_length: true` reproduces a published defect: a prefill is not causal, and decoding disagrees with it."""

    def logit_scale(**fields: Any) -> dict[str, Any]:
        return {"X": attention(None, {"type": "nope", "logit_scale": {"type": "log-ratio", **fields}})}

    causal, defect = tiny_spec(logit_scale()), tiny_spec(logit_scale(total_length=True))
    assert causal.hash == tiny_spec(logit_scale(total_length=False)).hash != defect.hash  # off by default
    decoder = enliven(defect.build()).eval()
    ids = random_ids(defect, 1, 80)
    prefill = decoder(ids)
    decoded = in_chunks(decoder, ids, (1,))
    assert largest(prefill, decoded) > 0.05
    assert largest(prefill[:, :40], decoder(ids[:, :40])) > 0.05
    assert largest(prefill[:, -1:], decoder(ids, logits_to_keep=1)) < TOLERANCE
    right = causal.build().eval()
    right.load_state_dict(decoder.state_dict())
    assert largest(right(ids), decoded) < TOLERANCE  # one token at a time, the total is what the query sees


def test_examples_name_registered_blocks_only() -> None:
    known = {(r.kind, name) for r in (POSITIONS, LOGIT_SCALES, ATTENTIONS, MLPS, NORMS) for name in r.names()}
    assert set(EXAMPLES) <= known
