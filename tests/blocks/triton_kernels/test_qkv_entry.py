"""The qkv_entry kernel: what it declines; and, in Triton's interpreter, that a layer is the same with and without it.

The second part needs the package triton (it comes with torch for CUDA), but no GPU. TRITON_INTERPRET must be set before
triton is first imported, so these tests run in a process of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import pytest
import torch
from helpers import attention, enliven, largest, random_ids, tiny_spec
from torch import Tensor

from miniwin import blocks
from miniwin.blocks import Decoder
from miniwin.blocks.triton_kernels import qkv_entry

P_ROPE = {"type": "p-rope", "period": 14}
PUBLISHED = {"type": "p-rope", "period": 7, "harmonic": False, "rope_theta": 10000}
PARTIAL = {"type": "rope", "partial_rotary_factor": 0.5, "pairing": "interleaved"}
SCALED = {"type": "rope", "scaling": {"type": "yarn", "factor": 4, "original_max_position_embeddings": 64}}
RMS: dict[str, Any] = {"qk_norm": {"type": "rmsnorm"}}
ONE_PLUS: dict[str, Any] = {"qk_norm": {"type": "rmsnorm", "gain": "one-plus", "eps": 1e-3}}


def test_in_the_interpreter() -> None:
    if find_spec("triton") is None:
        pytest.skip("triton is not installed")
    if qkv_entry.INTERPRETED:
        return  # this is that process
    command = [sys.executable, "-m", "pytest", __file__, "-m", "not gpu", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0 and "skipped" not in done.stdout, done.stdout[-3000:]


def built(position: dict[str, Any], **fields: Any) -> Decoder:
    """A local and a global layer, each with this position encoding."""
    blocks = {"S": attention(7, position, **fields)}
    if position["type"] == "rope":
        blocks["G"] = attention(None, position, **fields)
    return enliven(tiny_spec(blocks, num_layers=len(blocks)).build())


@torch.no_grad()
def logits(decoder: Decoder, ids: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """In chunks of 5, then one by one, past the window and the period, then two at once."""
    cache = decoder.new_cache(len(ids), dtype=dtype)
    sizes = [5, 5, *[1] * 5, 2, 1]
    return torch.cat([decoder(part, cache=cache) for part in ids.split(sizes, 1)], 1)


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Kernels run on the CPU; the calls that took the kernel are noted, by their number of tokens."""
    if not qkv_entry.INTERPRETED:
        pytest.skip("run by test_in_the_interpreter")
    monkeypatch.setattr(qkv_entry, "INTERPRETED", True)  # its present value, which monkeypatch restores at the end
    calls: list[int] = []
    plain = qkv_entry.enter

    def counted(*args: Any) -> Any:
        calls.append(args[1].shape[1])
        return plain(*args)

    monkeypatch.setattr(qkv_entry, "enter", counted)
    return calls


@pytest.mark.parametrize(
    ("position", "fields"),
    [(P_ROPE, {}), (P_ROPE, RMS), (PUBLISHED, ONE_PLUS), (PARTIAL, {}), (PARTIAL, RMS), (SCALED, RMS)],
    ids=["p-rope", "p-rope-norm", "published-one-plus", "partial-interleaved", "partial-norm", "yarn-norm"],
)
def test_the_kernel_is_the_layer(position: dict[str, Any], fields: dict[str, Any], interpreted: list[int]) -> None:
    decoder = built(position, **fields)
    ids = random_ids(tiny_spec(), 2, 18)
    got = logits(decoder, ids)
    assert interpreted.count(1) == 6 * len(decoder.layers)  # every token that comes by itself
    assert len(interpreted) == 6 * len(decoder.layers) + (3 if position["type"] == "rope" else 0)  # chunks: not rings
    qkv_entry.INTERPRETED = False
    assert largest(got, logits(decoder, ids)) < 1e-4
    assert largest(got, decoder(ids)) < 1e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_it_stores_in_the_dtype_of_the_cache(dtype: torch.dtype, interpreted: list[int]) -> None:
    decoder, ids = built(PARTIAL, **RMS), random_ids(tiny_spec(), 2, 18)
    got = logits(decoder, ids, dtype)
    assert interpreted
    qkv_entry.INTERPRETED = False
    want = logits(decoder, ids, dtype)
    assert largest(want, decoder(ids)) > 0 and largest(got, want) < 0.05 * float(want.abs().max())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("position", [P_ROPE, PARTIAL], ids=["p-rope", "partial"])
def test_on_a_gpu_it_is_the_layer_too(position: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, ids = built(position, **RMS).cuda(), random_ids(tiny_spec(), 2, 18).cuda()
    got = logits(decoder, ids)
    monkeypatch.setattr(qkv_entry, "declines", lambda *_: "not now")
    assert largest(got, logits(decoder, ids)) < 1e-3


def reason(decoder: Decoder, x: Tensor, cache: Any = None) -> str | None:
    return qkv_entry.declines(decoder.attentions[0], x, cache)


@torch.no_grad()
def test_what_it_declines(monkeypatch: pytest.MonkeyPatch) -> None:
    x, rope = torch.zeros(1, 1, 32), {"type": "rope"}
    decoder = built(rope)
    layer = decoder.new_cache().layers[0]
    monkeypatch.setattr(qkv_entry, "INTERPRETED", False)
    assert "there is none" in str(reason(decoder, x))
    assert "not on cpu" in str(reason(decoder, x, layer))
    monkeypatch.setattr(qkv_entry, "INTERPRETED", True)
    monkeypatch.setattr(qkv_entry, "_has_triton", lambda: False)
    assert "triton is not installed" in str(reason(decoder, x, layer))
    monkeypatch.setattr(qkv_entry, "_has_triton", lambda: True)
    monkeypatch.setattr(qkv_entry, "distrust", lambda device: None)
    assert reason(decoder, x, layer) is None
    assert "several tokens" in str(reason(decoder, torch.zeros(1, 2, 32), layer))
    assert "float32" in str(reason(decoder, x.double(), layer))
    with torch.enable_grad():
        assert "no backward" in str(reason(decoder, x, layer))
    whole = decoder.new_cache(dtype=torch.int8).layers[1]
    assert "as they are" in str(qkv_entry.declines(decoder.attentions[1], x, whole))
    for position, fields, why in (
        ({"type": "nope"}, {}, "not a plain rotation"),
        ({**PUBLISHED, "partial_rotary_factor": 0.5, "pairing": "half-mismatched"}, {}, "not a plain rotation"),
        (rope, {"qk_norm": {"type": "layernorm"}}, "RMSNorm with a gain"),
        (rope, {"qk_norm": {"type": "rmsnorm", "gain": "none"}}, "RMSNorm with a gain"),
        (rope, {**RMS, "qk_norm_order": "after"}, "before the rotation"),
        (P_ROPE, {"keep_first": 2}, "in order"),
    ):
        other = built(position, **fields) if position["type"] == "rope" else built_local(position, **fields)
        assert why in str(reason(other, x, other.new_cache().layers[0])), (position, fields)


@torch.no_grad()
def test_it_is_launched_on_the_device_of_its_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton launches on the current device, which may be another GPU."""
    seen: list[Any] = []

    class Guard:
        def __init__(self, tensor: Tensor) -> None:
            self.tensor = tensor

        def __enter__(self) -> None:
            seen.append(tuple(self.tensor.shape))

        def __exit__(self, *error: Any) -> None:
            seen.append("off")

    class Kernel:
        def __getitem__(self, grid: tuple[int, int]) -> Any:
            return lambda *given, **named: seen.append("launched")

    kernel = ModuleType("rotary_kernel")
    kernel.enter = Kernel()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "miniwin.blocks.triton_kernels.qkv_entry_kernel", kernel)
    monkeypatch.setattr(blocks, "rotary_kernel", kernel, raising=False)
    monkeypatch.setattr(torch.cuda, "device_of", Guard)
    q, k, angle = torch.zeros(2, 1, 4, 8), torch.zeros(2, 1, 2, 8), torch.zeros(1, 1, 4)
    held = [torch.zeros(2, 3, 2, 8) for _ in range(2)]
    qkv_entry.launch(q, k, k, angle, angle, False, None, held, 0)
    assert seen == [(2, 1, 4, 8), "launched", "off"]


@torch.no_grad()
@pytest.mark.parametrize("fault", ["wrong", "raises"])
def test_a_kernel_that_fails_its_trial_is_not_used(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def launch(q: Tensor, *others: Any) -> Tensor:
        if fault == "raises":
            raise RuntimeError("no such instruction")
        return q

    monkeypatch.setattr(qkv_entry, "INTERPRETED", True)
    monkeypatch.setattr(qkv_entry, "_has_triton", lambda: True)
    monkeypatch.setattr(qkv_entry, "launch", launch)
    qkv_entry.distrust.cache_clear()
    decoder = built({"type": "rope"})
    ids = random_ids(tiny_spec(), 1, 18)
    with pytest.warns(UserWarning, match="not used on cpu: it (computes something else|does not run) here"):
        got = logits(decoder, ids)
    assert largest(got, decoder(ids)) < 1e-4
    qkv_entry.distrust.cache_clear()


def built_local(position: dict[str, Any], **fields: Any) -> Decoder:
    return tiny_spec({"S": attention(7, position, **fields)}, num_layers=1).build()
