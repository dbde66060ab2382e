"""Costs computed from a spec, against counts: FLOPs of the operations that run, and keys seen one by one."""

from __future__ import annotations

from itertools import cycle, product
from typing import Any

import pytest
import torch
from helpers import GLOBAL, LOCAL, attention, random_ids, tiny_spec
from torch.utils.flop_counter import FlopCounterMode

from miniwin.blocks import AttentionSpec, use_backend
from miniwin.specs import ModelSpec, UserError, load_model_spec, shipped_specs

OURS = {
    "mixed": lambda: tiny_spec(pattern="SSG", num_layers=7, last="G"),
    "untied": lambda: tiny_spec(tie_word_embeddings=False),
    "wide-heads": lambda: tiny_spec({"X": attention(5, LOCAL, num_heads=6, num_kv_heads=3, head_dim=10)}),
    "qk-norm": lambda: tiny_spec({"X": attention(None, GLOBAL, qk_norm={"type": "rmsnorm"})}),
    "chunked": lambda: tiny_spec({"X": attention(None, LOCAL, chunk=7)}),
    "forgetting": lambda: tiny_spec({"X": attention(9, {"type": "forgetting"})}),
}
SHIPPED = {
    name: (lambda n=name: load_model_spec(n))
    for name in shipped_specs("model")
    if load_model_spec(name).parameters() < 3_000_000
}


def counted(spec: ModelSpec, length: int) -> tuple[float, float]:
    """FLOPs per token of a prefill by the reference backend: of all operations, and of attention's products."""
    decoder = spec.build()
    with torch.no_grad(), use_backend("reference"), FlopCounterMode(display=False) as counter:
        decoder(random_ids(spec, 1, length))
    by_operation: dict[Any, int] = counter.get_flop_counts()["Global"]
    products = sum(count for operation, count in by_operation.items() if "bmm" in str(operation))
    return counter.get_total_flops() / length, products / length


@pytest.mark.parametrize(
    ("name", "length"), [*product(OURS, (1, 6, 37)), *zip(SHIPPED, cycle((37, 6, 1)), strict=False)]
)
def test_forward_flops_are_those_that_run(name: str, length: int) -> None:
    """The reference computes all N keys for each query, and we count the visible keys. So attention's products are
    compared with a formula of their own, and all else must be equal to the last operation.
    """
    spec = (OURS | SHIPPED)[name]()
    total, products = counted(spec, length)
    attentions: list[Any] = [layer.attention for layer in spec.layer_specs]
    # A sink is one more key of value zero.
    assert products == sum((4 * length + 2 * a.sinks) * a.num_heads * a.head_dim for a in attentions)
    seen = sum(4 * visible_mean(a.window, length, a.chunk) * a.num_heads * a.head_dim for a in attentions)
    assert spec.forward_flops(length) - seen == pytest.approx(total - products, rel=1e-12)
    assert spec.training_flops(length) == 3 * spec.forward_flops(length)


def test_a_backward_pass_costs_twice_a_forward_pass() -> None:
    """`training_flops` assumes it; here it is counted. The embedding's gradient needs no product."""
    spec = tiny_spec(tie_word_embeddings=False)
    decoder = spec.build()
    with use_backend("reference"), FlopCounterMode(display=False) as forward:
        logits = decoder(random_ids(spec, 1, 16))
    with FlopCounterMode(display=False) as backward:
        logits.sum().backward()
    assert backward.get_total_flops() == 2 * forward.get_total_flops()


def visible_mean(window: int | None, length: int, chunk: int | None = None, first: int = 0) -> float:
    def seen(i: int, j: int) -> bool:
        near = window is None or i - j < window or j < first
        return i >= j and near and (chunk is None or i // chunk == j // chunk)

    return sum(seen(i, j) for i in range(length) for j in range(length)) / length


@pytest.mark.parametrize("window", [None, 1, 2, 7, 30])
@pytest.mark.parametrize("length", [1, 2, 6, 7, 8, 29, 30, 31, 50])
def test_the_mean_number_of_visible_keys_is_exact(window: int | None, length: int) -> None:
    """With two heads of dimension five, each key costs 4 * 2 * 5 operations."""
    spec = AttentionSpec(num_heads=2, head_dim=5, window=window, position={"type": "nope"})
    linear = 2 * (3 * 10 * 4)  # four projections
    assert (spec.flops(3, length) - linear) / 40 == pytest.approx(visible_mean(window, length), rel=1e-12)


@pytest.mark.parametrize(
    "fields", [{"chunk": 1}, {"chunk": 7}, {"window": 5, "keep_first": 3}, {"window": 2, "keep_first": 9}]
)
@pytest.mark.parametrize("length", [1, 2, 6, 7, 8, 29, 50])
def test_the_mean_is_exact_for_chunks_and_kept_tokens_too(fields: dict[str, int], length: int) -> None:
    spec = AttentionSpec(num_heads=2, head_dim=5, position={"type": "nope"}, **fields)
    expected = visible_mean(fields.get("window"), length, fields.get("chunk"), fields.get("keep_first", 0))
    assert (spec.flops(3, length) - 2 * (3 * 10 * 4)) / 40 == pytest.approx(expected, rel=1e-12)
    index = torch.arange(length)
    assert float(spec.visibility.count_visible(index).double().mean()) == pytest.approx(expected, rel=1e-12)


def test_local_flops_level_off_and_global_ones_do_not() -> None:
    local, all_keys = tiny_spec({"X": attention(7, LOCAL)}), tiny_spec({"X": attention(None, GLOBAL)})
    assert local.forward_flops(1_000_000) == pytest.approx(local.forward_flops(100_000), rel=1e-3)
    assert all_keys.forward_flops(1_000_000) > 9 * all_keys.forward_flops(100_000)
    assert local.forward_flops(5) == pytest.approx(all_keys.forward_flops(5))


def test_cache_bytes_by_hand() -> None:
    """One local and one global layer, two KV heads of dimension eight: keys and values, four bytes each."""
    spec = tiny_spec(num_layers=2)
    per_token = 2 * 2 * 8 * 4
    for length in (1, 6, 7, 8, 1000):
        assert spec.cache_bytes(length) == per_token * (min(length, 7) + length)
    assert spec.cache_bytes(1000, "bfloat16") * 2 == spec.cache_bytes(1000)
    with pytest.raises(UserError, match="dtype: got 'int3'; expected one of float32, bfloat16, float16"):
        spec.cache_bytes(1000, "int3")


def test_costs_need_no_model() -> None:
    """A spec of 10^12 weights answers at once, since nothing is built."""
    spec = tiny_spec({"X": attention(64, LOCAL | {"period": 128})}, hidden_size=1 << 17, num_layers=60, pattern="X")
    assert spec.parameters() > 10**12
    assert spec.cache_bytes(10**9) == spec.cache_bytes(64)
    assert spec.forward_flops(10**9) > 10**12


def test_a_changed_copy_has_its_own_costs_and_hash() -> None:
    """Computed values are cached: a copy with another field must not inherit them."""
    spec = tiny_spec()
    before = (spec.hash, spec.parameters(), len(spec.layer_specs))
    copy = spec.model_copy(update={"num_layers": 8})
    assert (copy.hash, copy.parameters(), len(copy.layer_specs)) == (
        tiny_spec(num_layers=8).hash,
        tiny_spec(num_layers=8).parameters(),
        8,
    )
    assert (spec.hash, spec.parameters(), len(spec.layer_specs)) == before
