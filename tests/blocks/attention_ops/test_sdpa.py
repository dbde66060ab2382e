"""The arguments of torch's attention on CUDA, decided for stand-ins of CUDA tensors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from attention_calls import make_call
from pretended_gpu import on_cuda
from torch import Tensor

from miniwin.blocks.attention_ops import attend, block_local, sdpa, use_backend

HALF, SINGLE = torch.bfloat16, torch.float32


def test_on_cuda_keys_are_shared_where_flash_takes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other kernel on CUDA shares keys: torch would compute a matrix of all scores."""

    def shared(dtype: torch.dtype, n: int = 8, **more: Any) -> bool:
        return sdpa._shares_keys(on_cuda(make_call(n, dtype=dtype, **more)))

    assert shared(HALF) and shared(HALF, dim=256) and shared(HALF, n=1, m=8)
    assert not shared(SINGLE)
    assert not shared(HALF, dim=264)
    assert not shared(HALF, window=4) and not shared(HALF, m=12), "with a mask"
    wider = replace(make_call(8, dtype=HALF), v=make_call(8, dim=24, dtype=HALF).v)
    assert not sdpa._shares_keys(on_cuda(wider))
    assert sdpa._shares_keys(make_call(8)) and sdpa._shares_keys(wider), "on a CPU there is a kernel for all"
    for gpu, takes in (((7, 5), False), ((8, 0), True), ((9, 0), True)):
        monkeypatch.setattr(sdpa, "capability", lambda device, gpu=gpu: gpu)
        assert shared(HALF) == takes and not shared(SINGLE)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(("chunk", "window"), [(None, None), (None, 3), (4, None)])
def test_else_torch_is_given_them_repeated(
    monkeypatch: pytest.MonkeyPatch, shared: bool, chunk: int | None, window: int | None
) -> None:
    """The backend for chunks repeats keys too, and the result is the same."""
    torchs, asked = sdpa.scaled_dot_product_attention, []

    def record(q: Tensor, k: Tensor, v: Tensor, enable_gqa: bool = False, **others: Any) -> Tensor:
        asked.append((q.shape[1], k.shape[1], v.shape[1], enable_gqa))
        return torchs(q, k, v, enable_gqa=enable_gqa, **others)

    monkeypatch.setattr(sdpa, "scaled_dot_product_attention", record)
    monkeypatch.setattr(sdpa, "_shares_keys", lambda call: shared)
    call = replace(make_call(13, window), chunk=chunk)
    got = (sdpa if chunk is None else block_local).run(call)
    assert set(asked) == {(4, 2, 2, True) if shared else (4, 4, 4, False)}
    with use_backend("reference"):
        assert torch.allclose(got, attend(call), atol=1e-5)
