"""What only a GPU can show, `python -m benchmarks --gpu`; the bars are meant for an H200.

attention  local attention over a long text, and dense causal flash attention: rates of useful operations
decode     a model of local layers only, on a long context and on a short one: the time should be equal
    rotary     QK-norm, rotation and the cache write in one kernel, against a copy of as many bytes

A timed run ends when the device is done. On a CPU the same cases run at tiny sizes, for the tests.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from benchmarks import decoding
from benchmarks.attention import HEAD_DIM, HEADS, KV_HEADS, Shape, check_ends
from benchmarks.case import OURS, Case, Run, Work
from benchmarks.gate import agree
from benchmarks.models import PIECE
from miniwin.blocks import AttentionCall, RMSNorm, attend
from miniwin.blocks.positions.rotation import rotate
from miniwin.blocks.triton_kernels import qkv_entry
from miniwin.specs import ModelSpec

DENSE, COPY = "dense causal flash attention", "a copy of as many bytes"
EPS, BLOCK = 1e-6, 1024


def attention_case(length: int, window: int, device: str, budget: float = 20.0) -> Case:
    shape = Shape(length, window, torch.bfloat16)
    name = f"attention/{device}/{shape.what}/W={window}/bfloat16"
    return Case(f"{name}/N={length}", name, length, lambda: attention_work(shape, device), tokens=length, budget=budget)


def attention_work(shape: Shape, device: str) -> Work:
    torch.manual_seed(0)
    sizes = [HEADS, KV_HEADS, KV_HEADS]
    q, k, v = (torch.randn(1, shape.length, h, HEAD_DIM, dtype=shape.dtype, device=device) for h in sizes)
    call = AttentionCall(q, k, v, scale=HEAD_DIM**-0.5, window=shape.window)
    check_ends(call, shape)
    theirs = [t.transpose(1, 2).contiguous() for t in (q, k, v)]

    def dense() -> object:
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return scaled_dot_product_attention(*theirs, is_causal=True, enable_gqa=True)

    made = Work({OURS: _finished(lambda: attend(call), device)}, gate="head and tail equal to the reference backend")
    made.offer(DENSE, lambda: _finished(dense, device))
    made.flops = {OURS: shape.flops, DENSE: 2.0 * HEAD_DIM * HEADS * shape.length * (shape.length + 1)}
    return made


def decode_case(spec: ModelSpec, short: int, long: int, device: str, piece: int = PIECE, budget: float = 20.0) -> Case:
    name = f"decode/{device}/{spec.name}, local layers only"

    def make() -> Work:
        made = decoding.local_work(spec, short, long, 16, piece, device)
        made.sides = {side: _finished(run, device) for side, run in made.sides.items()}
        return made

    return Case(f"{name}/context={long}", name, long, make, tokens=16, budget=budget)


def rotary_case(length: int, device: str, budget: float = 10.0) -> Case:
    name = f"rotary/{device}"
    return Case(f"{name}/N={length}", name, length, lambda: rotary_work(length, device), tokens=length, budget=budget)


def rotary_work(length: int, device: str) -> Work:
    reason = qkv_entry.distrust(torch.device(device))
    if reason is not None:
        raise LookupError(reason)
    torch.manual_seed(0)
    kind = {"dtype": torch.bfloat16, "device": device}
    q, k, v = (torch.randn(1, length, h, HEAD_DIM, **kind) for h in (HEADS, KV_HEADS, KV_HEADS))  # type: ignore[arg-type]
    held = [torch.zeros(1, length, KV_HEADS, HEAD_DIM, **kind) for _ in range(2)]  # type: ignore[arg-type]
    angles = torch.arange(length, device=device).remainder(BLOCK).view(1, -1, 1) * torch.rand(
        HEAD_DIM // 2, device=device
    )
    cos, sin = angles.cos(), angles.sin()  # (1, N, D / 2)
    norm = RMSNorm(HEAD_DIM, EPS).to(device)

    @torch.no_grad()
    def ours() -> torch.Tensor:
        return qkv_entry.launch(q, k, v, cos, sin, False, (norm, norm), held, 0)

    with torch.no_grad():
        out = ours()
        for what, got, x in (("queries", out, q), ("keys", held[0], k)):
            agree(f"{what} and norm, then rotation", got, rotate(norm(x.float()), cos, sin).to(x.dtype))
        agree("values", held[1], v)
    moved = torch.empty(sum(t.numel() for t in (q, k, v)), **kind)  # type: ignore[arg-type]
    copied = torch.empty_like(moved)
    made = Work({OURS: _finished(ours, device)}, gate="queries and cache equal to norm, then rotation")
    made.sides[COPY] = _finished(lambda: copied.copy_(moved), device)
    return made


def _finished(run: Callable[[], object], device: str) -> Run:
    @torch.no_grad()
    def whole() -> None:
        run()
        if device != "cpu":
            torch.cuda.synchronize(device)

    return whole
