"""The contract that every registered block and every shipped model keeps, whatever it computes.

Prefill, decoding and chunked prefill agree; padding changes nothing; later tokens change nothing; every parameter has a
gradient; costs computed from the spec are those of the built model. A registered block is tested by itself: the cases
below come from the registry, and only fields without a default need an entry in EXAMPLES.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest
import torch
from covering import pairwise
from helpers import GLOBAL, LOCAL, SMALL, RealTensors, attention, enliven, largest, random_ids, tiny_spec
from torch import Tensor

from miniwin.blocks import (
    ATTENTIONS,
    LOGIT_SCALES,
    MLPS,
    NORMS,
    POSITIONS,
    ROUTERS,
    SCALINGS,
    Decoder,
    MixtureOfExperts,
    Registry,
)
from miniwin.specs import ModelSpec, UserError, dump_yaml, load_model_spec, parse_spec, shipped_specs

TOLERANCE = 1e-4  # float32 logits

# What a block needs beyond its defaults, and its variants worth a case of their own.
MLP = {"intermediate_size": 24}
EXPERTS = {"type": "moe", "num_experts": 4, "experts_per_token": 2, "expert": MLP}
SHARED_ALIBI = {"share": 0.5, "type": "alibi"}
EXAMPLES: dict[tuple[str, str], list[dict[str, Any]]] = {
    ("position", "rope"): [
        {},
        {"partial_rotary_factor": 0.5},
        {"pairing": "interleaved"},
        {"partial_rotary_factor": 0.5, "pairing": "interleaved"},
    ],  # each scaling has its own cases
    ("position", "p-rope"): [
        {"period": 14},
        {"period": 8, "harmonics": "all"},
        {"period": 9, "harmonics": [4, 3, 2, 1]},
        {"period": 11, "harmonic": False},
        {"period": 11, "harmonic": False, "partial_rotary_factor": 0.5, "pairing": "half-mismatched"},
        {"period": 14, "partial_rotary_factor": 0.5, "pairing": "interleaved"},
        {"periods": [5, 14]},
        {"periods": [5, 14], "partial_rotary_factor": 0.5, "pairing": "interleaved"},
        {"periods": [5, 14, 9], "gate": True},
        {"periods": [5, 14], "gate": True, "partial_rotary_factor": 0.5, "pairing": "interleaved"},
    ],
    ("position", "nope"): [{"logit_scale": None}],  # each logit scale has its own cases
    ("position", "t5"): [{"num_buckets": 8, "max_distance": 40}],
    ("position", "learned"): [
        {"num_positions": 5, "then": {"type": "p-rope", "period": 14}},
        {"num_positions": 30, "then": {"type": "forgetting"}},
    ],
    ("position", "per-head"): [
        {"of": [{"share": 0.5, "type": "nope"}, {"share": 0.5, "type": "stick-breaking"}]},
        {
            "of": [
                {"share": 0.5, "type": "p-rope", "periods": [5, 14], "gate": True},
                {"share": 0.5, "type": "forgetting"},
            ]
        },
        {"of": [{"share": 0.5, "type": "learned", "num_positions": 5, "then": {"type": "rope"}}, SHARED_ALIBI]},
    ],
    ("logit_scale", "log"): [{}, {"learned": False}],
    ("logit_scale", "temperature"): [{"floor": 5, "scale": 0.5}],
    ("scaling", "linear"): [{"factor": 4}],
    ("scaling", "ntk"): [{"factor": 4}],
    ("scaling", "dynamic-ntk"): [{"factor": 4, "original_max_position_embeddings": 16, "length": 48}],
    ("scaling", "yarn"): [{"factor": 4, "original_max_position_embeddings": 16}],
    ("scaling", "llama3"): [
        {"factor": 4, "low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 16}
    ],
    ("scaling", "longrope"): [
        {
            "short_factor": [1.0, 1.1, 1.2, 1.3],
            "long_factor": [1.0, 2.0, 3.0, 4.0],
            "original_max_position_embeddings": 16,
            "max_position_embeddings": 64,
        }
    ],
    ("norm", "rmsnorm"): [{}, {"gain": "one-plus"}, {"gain": "none"}],
    ("norm", "layernorm"): [{}, {"bias": True}],
    ("mlp", "swiglu"): [MLP, {**MLP, "bias": True}],
    ("mlp", "geglu"): [MLP, {**MLP, "bias": True, "approximate": "tanh"}],
    ("mlp", "clamped-swiglu"): [{**MLP, "bias": True, "limit": 1.0}],
    ("mlp", "gelu"): [MLP, {**MLP, "bias": True, "approximate": "tanh"}],
    ("mlp", "relu2"): [MLP, {**MLP, "bias": True}],
    ("mlp", "moe"): [{**EXPERTS, "shared": MLP, "router": {"type": "softmax-topk"}}],  # each router has its own cases
    ("router", "softmax-topk"): [{}, {"normalise": False}],
    ("attention", "softmax"): [  # all other cases have the plain one
        {"num_heads": 4, "num_kv_heads": 2, "qkv_bias": True, "o_bias": True, "score_scale": 0.5},
        {"num_heads": 4, "softcap": 2.0},
        {"num_heads": 4, "num_kv_heads": 1, "sinks": True},
        {"num_heads": 4, "num_kv_heads": 2, "sinks": True, "softcap": 3.0},
    ],
}
QK_NORMS: list[dict[str, str]] = [
    {},
    {"qk_norm_scope": "all"},
    {"qk_norm_order": "after"},
    {"qk_norm_scope": "all", "qk_norm_order": "after"},
]
RESIDUALS = ["pre", "post", "sandwich", "parallel", "parallel-two-norms"]
# Which keys a query sees, and a position encoding for it.
SIGHTS: dict[str, dict[str, Any]] = {
    "global": {"window": None},
    "window7": {"window": 7},
    "chunk7": {"window": None, "chunk": 7},
    "window7-keep3": {"window": 7, "keep_first": 3},
    "all-window7": {"window": None, "windows": [None, 7]},
}


def examples(registry: Registry) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, fields) of every registered block of one kind."""
    for name in registry.names():
        for fields in EXAMPLES.get((registry.kind, name), [{}]):
            said = [
                value if isinstance(value, str) else f"{key}={value}" for key, value in fields.items() if key != "type"
            ]
            yield ",".join([name, *said]).replace(" ", ""), {"type": name, **fields}


Make = Callable[[], ModelSpec]


def sighted(
    label: str, block: Callable[[dict[str, Any]], dict[str, Any]], names: Sequence[str] = tuple(SIGHTS)
) -> Iterator[tuple[str, Make]]:
    """Cases of one block with each visibility that it allows. It must allow a window or a global layer."""
    found = []
    for name in names:
        sight = SIGHTS[name]
        try:
            tiny_spec({"X": block(sight)})
        except UserError as error:
            if not any(word in str(error) for word in ("window", "keep_first")):
                raise
            continue
        found.append(name)
        yield f"{label}-{name}", lambda s=sight: tiny_spec({"X": block(s)})
    assert {"global", "window7"} & set(found), f"{label} is allowed neither with a window nor without"


def plain(sight: dict[str, Any]) -> dict[str, Any]:
    return LOCAL if sight["window"] or sight.get("chunk") else GLOBAL


def positions() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every position encoding's examples, and RoPE with every scaling's."""
    yield from examples(POSITIONS)
    for label, scaling in examples(SCALINGS):
        yield f"rope,{label.split(',')[0]}", {"type": "rope", "scaling": scaling}
    for label, scale in examples(LOGIT_SCALES):
        yield f"nope,{label}", {"type": "nope", "logit_scale": scale}


def mlps() -> Iterator[tuple[str, dict[str, Any]]]:
    for label, mlp in examples(MLPS):
        yield "moe,shared" if mlp["type"] == "moe" else label, mlp
    for label, router in examples(ROUTERS):
        yield f"moe,{label}", {**EXPERTS, "router": router, "router_bias": True}


def registered() -> Iterator[tuple[str, Make]]:
    """Cases that `covering` lacks. It has the first example of each position and MLP, and all norms and residuals."""
    firsts = [fields for registry in (POSITIONS, MLPS) for _, fields in one_of_each(registry)]
    for label, position in positions():
        if position not in firsts:
            # Variants of one encoding differ in angles or scales, which do not interact with visibility.
            names = ("global", "window7")
            yield from sighted(label, lambda s, p=position: attention(s["window"], p, **extra(s)), names)
    for label, fields in examples(ATTENTIONS):
        yield from sighted(label, lambda s, f=fields: {**f, **s, "position": plain(s)})
    for label, norm in examples(NORMS):
        for window, position in ((7, LOCAL), (None, GLOBAL)):
            yield (
                f"qk_norm={label}-{window or 'global'}",
                lambda n=norm, w=window, p=position: tiny_spec({"X": attention(w, p, qk_norm=n)}),
            )
    for fields in QK_NORMS[1:]:
        yield (
            f"qk_norm,{','.join(fields.values())}",
            lambda f=fields: tiny_spec({"X": attention(7, {"type": "rope"}, qk_norm={"type": "rmsnorm"}, **f)}),
        )
    for label, mlp in mlps():
        if mlp not in firsts:
            yield label, lambda m=mlp: tiny_spec({"X": {"attention": attention(7, LOCAL), "mlp": m}})


def extra(sight: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in sight.items() if key != "window"}


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
    yield (
        "ends",
        lambda: tiny_spec(embed_scale=5.0, embed_norm={"type": "rmsnorm"}, logit_scale=2.0, logit_softcap=9.0),
    )
    yield "embed_positions", lambda: tiny_spec(embed_positions=97, embed_scale=2.0)
    for residual in ("sandwich", "parallel"):
        layer = {"attention": attention(7, LOCAL), "mlp": MLP, "residual": residual, "residual_scale": 0.7}
        yield f"residual_scale,{residual}", lambda one=layer: tiny_spec({"X": one})
    qk = {"type": "rmsnorm"}
    both = {"S": attention(9, {"type": "rope"}, qk_norm=qk), "G": attention(None, GLOBAL, qk_norm=qk)}
    yield "mixed", lambda: tiny_spec(both, pattern="SSG", num_layers=5, last="G")


def one_of_each(registry: Registry) -> list[tuple[str, Any]]:
    """The first example of every registered block; other examples have cases of their own."""
    found: dict[str, Any] = {}
    for _, fields in examples(registry):
        found.setdefault(fields["type"], fields)
    return list(found.items())


def covering() -> Iterator[tuple[str, Make]]:
    """Models in which every two meet of: a position, a visibility, a norm, an MLP and an arrangement."""
    factors: list[list[tuple[str, Any]]] = [
        one_of_each(POSITIONS),
        list(SIGHTS.items()),
        list(examples(NORMS)),
        one_of_each(MLPS),
        [(name, name) for name in RESIDUALS],
    ]

    def spec(row: tuple[int, ...]) -> ModelSpec:
        (_, position), (_, sight), (_, norm), (_, mlp), (_, residual) = (
            f[i] for f, i in zip(factors, row, strict=True)
        )
        block = attention(sight["window"], position, **extra(sight))
        layer = {"attention": block, "mlp": mlp, "norm": norm, "residual": residual}
        return tiny_spec({"X": layer}, norm=norm)

    @cache
    def allowed(position: int, sight: int) -> bool:
        try:
            spec((position, sight, 0, 0, 0))
        except UserError:
            return False
        return True

    for row in pairwise(factors, lambda row: allowed(*row[:2])):
        label = "+".join(f[i][0] for f, i in zip(factors, row, strict=True))
        yield f"pair:{label}", lambda r=row: spec(r)


SPECS: dict[str, Make] = dict((*registered(), *combined()))
SPECS |= {
    f"shipped:{name}": lambda n=name: load_model_spec(n)
    for name in shipped_specs("model")
    if load_model_spec(name).parameters() < SMALL
}
COVERING: dict[str, Make] = dict(covering())

# The first row of each pair of position and visibility: checks of a single block run on these rows only.
FIRST = set({tuple(name.split("+")[:2]): name for name in reversed(COVERING)}.values())


def reach(spec: ModelSpec) -> int:
    """The number of tokens that is past every window, period and other count of tokens."""
    attentions: list[Any] = [layer.attention for layer in spec.layer_specs]
    counts = ("num_positions", "max_distance")
    periods = [period for a in attentions for period in a.position.all_periods()]
    numbers = [getattr(a.position, name, 0) for a in attentions for name in counts]
    return max(
        *periods, *numbers, *(a.visibility.reach or 0 for a in attentions), *(w for a in attentions for w in a.bounded)
    )


def make(name: str) -> ModelSpec:
    return (SPECS | COVERING)[name]()


@cache
def case(name: str) -> tuple[ModelSpec, Decoder, Tensor, Tensor]:
    """Spec, model, ids (1, N) well past every window and period, and the logits of one prefill."""
    spec = make(name)
    decoder = enliven(spec.build()).eval()
    # A phase that depends on the tokens' content magnifies any rounding a thousandfold, so this encoding is compared
    # in float64.
    precise = "token-aware-phase" in name
    decoder = decoder.double() if precise else decoder
    ids = random_ids(spec, 1, min(reach(spec), 128) + 22)
    with torch.no_grad():
        logits = decoder(ids)
    assert logits.dtype == (torch.float64 if precise else torch.float32)
    assert logits.std() > 0.5, "logits too small for a comparison to mean anything"
    return spec, decoder, ids, logits


@torch.no_grad()
def in_chunks(decoder: Decoder, ids: Tensor, sizes: Sequence[int], cache: Any = None) -> Tensor:
    """Logits of ids that are fed to one cache in chunks; the given sizes repeat."""
    cache = decoder.new_cache(len(ids)) if cache is None else cache
    parts, done = [], 0
    while done < ids.shape[1]:
        size = sizes[len(parts) % len(sizes)]
        parts.append(decoder(ids[:, done : done + size], cache=cache))
        done += parts[-1].shape[1]
    return torch.cat(parts, dim=1)


def chunked_prefill_and_decode_equal_prefill(name: str) -> None:
    _, decoder, ids, expected = case(name)
    for sizes in ((7,), (64,), (5, 13, 1, 37)):
        assert largest(in_chunks(decoder, ids, sizes), expected) < TOLERANCE, f"chunks of {sizes}"
    some = ids.shape[1] - 11  # enough for a ring to go round and a period to end
    assert largest(in_chunks(decoder, ids[:, :some], (1,)), expected[:, :some]) < TOLERANCE, "token by token"


@torch.no_grad()
def a_left_padded_batch_equals_each_row_alone(name: str) -> None:
    spec, decoder, ids, _ = case(name)
    more = random_ids(spec, 4, 24, seed=5)  # the continuation of each row, on the warm cache
    lengths = (ids.shape[1], 2 * ids.shape[1] // 3, 3, 1)
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


def test_the_covering_set_covers() -> None:
    seen = {frozenset(pair) for name in COVERING for pair in combinations(name.removeprefix("pair:").split("+"), 2)}
    norms, kinds = [label for label, _ in examples(NORMS)], MLPS.names()
    for a, b in (
        *product(norms, kinds),
        *product(norms, RESIDUALS),
        *product(kinds, SIGHTS),
        *product(kinds, RESIDUALS),
    ):
        assert {a, b} in seen, f"{a} never meets {b}"
    for name in POSITIONS.names():
        assert all({name, other} in seen for other in (*norms, *kinds, *RESIDUALS)), name
    alone = {part for name in FIRST for part in name.removeprefix("pair:").split("+")}
    assert alone >= {*POSITIONS.names(), *SIGHTS, *norms, *kinds, *RESIDUALS}
    for name, fields in one_of_each(POSITIONS):
        seen_by = [label for label, _ in sighted(name, lambda s, p=fields: attention(s["window"], p, **extra(s)))]
        assert all({name, label.removeprefix(f"{name}-")} in seen for label in seen_by), name


@pytest.mark.parametrize("name", ["mixed", "heads4:4-7", "nope,log-global", "shipped:miniwin-tiny"])
@pytest.mark.parametrize("size", [1, 7, 64])
@torch.no_grad()
def test_a_left_padded_batch_may_come_in_chunks(name: str, size: int) -> None:
    """The mask is cut like the ids. The first chunks of a short row are then only padding."""
    _, decoder, ids, _ = case(name)
    n = min(ids.shape[1], 75)
    lengths = (n, n // 2, 3)
    batch = torch.stack([torch.cat((ids[0, :1].expand(n - length), ids[0, :length])) for length in lengths])
    mask = torch.stack([(torch.arange(n) >= n - length).long() for length in lengths])
    cache = decoder.new_cache(batch_size=3)
    parts = [
        decoder(batch[:, at : at + size], cache=cache, attention_mask=mask[:, at : at + size])
        for at in range(0, n, size)
    ]
    logits = torch.cat(parts, dim=1)
    cache, at = decoder.new_cache(batch_size=3), n - n % size if n % size else n - size
    kept = decoder(batch[:, :at], cache=cache, attention_mask=mask[:, :at], logits_to_keep=2) if at else logits[:, :0]
    rest = decoder(batch[:, at:], cache=cache, attention_mask=mask[:, at:], logits_to_keep=2)
    for row, length in enumerate(lengths):
        alone = decoder(ids[:, :length])[0]
        assert largest(logits[row, n - length :], alone) < TOLERANCE, f"{length} tokens"
        assert largest(rest[row, -1], alone[-1]) < TOLERANCE, f"{length} tokens, the last logits alone"
        if at > n - length + 1:
            assert largest(kept[row], logits[row, at - len(kept[row]) : at]) < TOLERANCE


@torch.no_grad()
def several_new_tokens_on_a_warm_cache(name: str) -> None:
    _, decoder, ids, expected = case(name)
    n = ids.shape[1]
    for warm in (1, 6, n - 9):
        cache = decoder.new_cache()
        decoder(ids[:, :warm], cache=cache)
        branch = cache.clone()
        assert largest(decoder(ids[:, warm:], cache=cache), expected[:, warm:]) < TOLERANCE, f"after {warm}"
        # The copy is independent: it goes on from the same point. With logits_to_keep=1 it gives the last logits only.
        last = decoder(ids[:, warm:], cache=branch, logits_to_keep=1)
        assert largest(last, expected[:, -1:]) < TOLERANCE


@torch.no_grad()
def what_logits_are_kept_changes_nothing_that_follows(name: str) -> None:
    """The last layer computes only the logits to keep, but caches all tokens."""
    _, decoder, ids, expected = case(name)
    n, cache = ids.shape[1], decoder.new_cache()
    for first, last, keep in ((0, n - 16, 3), (n - 16, n - 4, 1), (n - 4, n, 4)):
        kept = decoder(ids[:, first:last], cache=cache, logits_to_keep=keep)
        assert largest(kept, expected[:, last - keep : last]) < TOLERANCE, f"tokens {first} to {last}"


@torch.no_grad()
def later_tokens_never_change_earlier_logits(name: str) -> None:
    spec, decoder, ids, expected = case(name)
    for t in (1, ids.shape[1] // 2, ids.shape[1] - 1):
        changed = ids.clone()
        changed[:, t:] = (changed[:, t:] + 1) % spec.vocab_size
        logits = decoder(changed)
        # The tokens of an expert are one matrix product, whose rounding may depend on their number.
        rounding = 1e-5 if any(isinstance(m, MixtureOfExperts) for m in decoder.modules()) else 0.0
        assert largest(logits[:, :t], expected[:, :t]) <= rounding, f"tokens from {t} on reach back"
        assert largest(logits[:, t], expected[:, t]) > 0.01, "the change itself should show"


def gradients_reach_every_parameter(name: str) -> None:
    spec, _, ids, _ = case(name)
    decoder = enliven(spec.build())
    logits = decoder(ids)
    torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:]).backward()
    idle = ("q_proj", "k_proj") if name == "window1" else ()  # with one visible key its score has no effect
    for parameter_name, parameter in decoder.named_parameters():
        assert parameter.grad is not None, f"no gradient for {parameter_name}"
        assert parameter.grad.isfinite().all(), f"{parameter_name}: gradient is not finite"
        if not any(word in parameter_name for word in idle):
            assert parameter.grad.abs().max() > 0, f"{parameter_name}: gradient is zero"


@torch.no_grad()
def computed_parameters_and_cache_bytes_are_those_built(name: str) -> None:
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


def builds_on_the_meta_device_without_allocating(name: str) -> None:
    spec = make(name)
    with RealTensors() as made, torch.device("meta"):
        decoder = spec.build()
    assert all(t.is_meta for t in (*decoder.parameters(), *decoder.buffers()))
    assert sum(p.numel() for p in decoder.parameters()) == spec.parameters()
    assert made.elements < 1000 * spec.num_layers  # a few frequencies, slopes or buckets
    assert decoder(torch.zeros(2, 9, dtype=torch.int64, device="meta")).shape == (2, 9, spec.vocab_size)


@torch.no_grad()
def state_dict_round_trip(name: str) -> None:
    spec, decoder, ids, expected = case(name)
    file = io.BytesIO()
    torch.save(decoder.state_dict(), file)
    file.seek(0)
    other = spec.build().eval().to(expected.dtype)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(ids), expected)
    assert sum(t.numel() for t in other.state_dict().values()) == spec.parameters()  # no tables, nothing twice


def spec_round_trip(name: str) -> None:
    spec = make(name)
    again = parse_spec(spec.model_dump(mode="json"), "model")
    assert again == spec and again.hash == spec.hash
    assert again.layer_specs == spec.layer_specs and again.parameters() == spec.parameters()


# Of every model.
CHECKS = (
    chunked_prefill_and_decode_equal_prefill,
    a_left_padded_batch_equals_each_row_alone,
    several_new_tokens_on_a_warm_cache,
    later_tokens_never_change_earlier_logits,
    gradients_reach_every_parameter,
    computed_parameters_and_cache_bytes_are_those_built,
)
# Of every block, in the first of the models that combine it with others.
OF_A_BLOCK = (what_logits_are_kept_changes_nothing_that_follows, state_dict_round_trip)
# test_shipped.py tests how shipped files are read, written, and built without memory.
OF_A_SPEC = (builds_on_the_meta_device_without_allocating, spec_round_trip)


@pytest.mark.parametrize("name", [*SPECS, *COVERING])
def test_the_contract(name: str) -> None:
    """One after another, so that a model is built once."""
    alone = name in SPECS or name in FIRST
    of_a_spec = alone and not name.startswith("shipped:")
    for check in (*CHECKS, *(OF_A_BLOCK if alone else ()), *(OF_A_SPEC if of_a_spec else ())):
        check(name)


@pytest.mark.parametrize("name", ["mixed", "shipped:miniwin-tiny"])
def test_a_seed_decides_the_weights(name: str) -> None:
    spec = make(name)

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


def test_check_does_without_torch_for_every_block(tmp_path: Path) -> None:
    """The console script replaces torch by stand-ins: a spec whose check computes with tensors would fail there."""
    scaled = [
        {"type": kind, "scaling": scaling} for kind in ("rope", "resonance") for _, scaling in one_of_each(SCALINGS)
    ]
    specs = [make() for make in (SPECS | COVERING).values()] + [tiny_spec({"X": attention(None, p)}) for p in scaled]
    files = [tmp_path / f"{i}.yaml" for i in range(len(specs))]
    for file, spec in zip(files, specs, strict=True):
        file.write_text(dump_yaml(spec), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "miniwin", "check", *map(str, files)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("ok: ") == len(specs)


def test_examples_name_registered_blocks_only() -> None:
    known = {
        (r.kind, name)
        for r in (POSITIONS, SCALINGS, LOGIT_SCALES, ATTENTIONS, MLPS, ROUTERS, NORMS)
        for name in r.names()
    }
    assert set(EXAMPLES) <= known
