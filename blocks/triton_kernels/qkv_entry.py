"""QK-norm, rotation and cache write in one kernel (a GPU, Triton).

    projections -> QK-norm -> rotation -> cache

As torch operators each step is one launch or several, and a pass over memory. `declines` says why a call goes by torch
operators. The kernel rounds once, at the end, to the dtype of the queries or of the cache; torch operators also round
after the norm.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from functools import cache as once
from importlib.util import find_spec
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from miniwin.blocks.cache import LayerCache
from miniwin.blocks.norms.rmsnorm import RMSNorm
from miniwin.blocks.positions.base import PositionEncoding, Positions
from miniwin.blocks.positions.rope import Rope
from miniwin.blocks.positions.rotation import rotate

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # for tests: kernels run on a CPU, slowly


class Entry(Protocol):
    """The attributes of an attention layer that the kernel needs."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    q_proj: nn.Linear
    k_proj: nn.Linear
    v_proj: nn.Linear
    q_norm: nn.Module | None
    k_norm: nn.Module | None
    norms_whole: bool
    norms_after: bool
    position: PositionEncoding
    by_order: bool


def declines(attention: Entry, x: Tensor, cache: LayerCache | None) -> str | None:
    """Why the kernel cannot take x (B, N, hidden_size); None if it can."""
    if cache is None:
        return "it writes into a cache, and there is none"
    if x.device.type != "cuda" and not INTERPRETED:
        return f"it runs on a GPU, not on {x.device.type}"
    if not _has_triton():
        return "triton is not installed"
    if torch.is_grad_enabled():
        return "it has no backward"
    if x.dtype == torch.float64:
        return "it computes in float32"
    encoding = attention.position
    if not isinstance(encoding, Rope) or type(encoding).turn is not Rope.turn:
        return f"{type(encoding).__name__} is not a plain rotation"
    norms = (attention.q_norm, attention.k_norm)
    if attention.norms_whole or attention.norms_after:
        return "it norms each head, before the rotation; this layer does not"
    if norms != (None, None) and not all(isinstance(n, RMSNorm) and n.weight is not None for n in norms):
        return "the only norm it knows is an RMSNorm with a gain"
    if isinstance(norms[0], RMSNorm) and isinstance(norms[1], RMSNorm) and norms[0].eps != norms[1].eps:
        return "queries and keys have different eps"
    if cache.first is not None or attention.by_order:
        return "keys may be wanted in order, or as sink tokens too"
    if cache.int8 or not cache.plain:
        return "it stores a key and a value, as they are, and nothing else"
    if not cache.claims(x.shape[1]):
        return "several tokens at once see keys that a ring overwrites"
    return distrust(x.device)


def enter(attention: Entry, x: Tensor, positions: Positions, cache: LayerCache) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """x (B, N, hidden_size) -> queries (B, N, H, D), and the keys and values that they may see, (B, M, Hkv, D) each.

    The cache then holds the keys and values of x.
    """
    encoding = attention.position
    assert isinstance(encoding, Rope)
    tokens, heads, kv_heads, dim = x.shape[1], attention.num_heads, attention.num_kv_heads, attention.head_dim
    q = attention.q_proj(x).unflatten(-1, (heads, dim))
    k, v = (proj(x).unflatten(-1, (kv_heads, dim)) for proj in (attention.k_proj, attention.v_proj))
    cos, sin = encoding.shared(positions, torch.float32)
    start = cache.length
    k_seen, v_seen = cache.claim(tokens)
    norms = None if attention.q_norm is None else (attention.q_norm, attention.k_norm)
    out = launch(q, k, v, cos, sin, encoding.interleaved, norms, cache.stored, start)
    return out, (k_seen, v_seen)


def launch(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cos: Tensor,
    sin: Tensor,
    interleaved: bool,
    norms: tuple[Any, Any] | None,
    held: Sequence[Tensor],
    start: int,
) -> Tensor:
    """Return q (B, N, H, D), normed and rotated. Write k and v (B, N, Hkv, D) into `held`, k normed and rotated.

    held: keys and values (B, capacity, Hkv, D). Token n goes into slot (start + n) mod capacity.
    """
    from miniwin.blocks.triton_kernels import qkv_entry_kernel

    (batch, tokens, heads, dim), kv_heads = q.shape, k.shape[2]
    q, k, v, cos, sin = (t.contiguous() for t in (q, k, v, cos, sin))
    k_held, v_held = held
    assert k_held.stride(-1) == v_held.stride(-1) == 1
    out = torch.empty_like(q)
    # Triton launches on the current device, which may be another one. Compiled code takes care of this itself.
    with nullcontext() if torch.compiler.is_compiling() else torch.cuda.device_of(q):
        qkv_entry_kernel.enter[(batch * tokens, heads + 2 * kv_heads)](
            q,
            k,
            v,
            cos,
            sin,
            cos if norms is None else norms[0].weight,  # without a norm the kernel never reads it
            cos if norms is None else norms[1].weight,
            out,
            k_held,
            v_held,
            tokens,
            start,
            k_held.shape[1],
            0 if len(cos) == 1 else cos.stride(0),
            *k_held.stride()[:3],
            *v_held.stride()[:3],
            0.0 if norms is None else norms[0].eps,
            0.0 if norms is None else norms[0].offset,
            heads,
            kv_heads,
            dim,
            cos.shape[-1],
            BLOCK=1 << (dim - 1).bit_length(),
            NORMED=norms is not None,
            INTERLEAVED=interleaved,
        )
    return out


@once
def distrust(device: torch.device) -> str | None:
    """Why the kernel is not used on this device, or None. It is tried once, and compared with the torch operators."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 1, heads, 8, generator=generator).to(device) for heads in (4, 2, 2))
    angle = torch.randn(1, 1, 4, generator=generator).to(device)
    held = [torch.zeros(2, 2, 3, 8, device=device).transpose(1, 2) for _ in range(2)]
    norm = RMSNorm(8, 1e-6, "one-plus").to(device)
    try:
        out = launch(q, k, v, angle.cos(), angle.sin(), False, (norm, norm), held, 4)
        with torch.no_grad():
            wanted = rotate(norm(q), angle.cos(), angle.sin()), rotate(norm(k), angle.cos(), angle.sin()), v
        got = out, held[0][:, 1:2], held[1][:, 1:2]
        same = all(bool(torch.allclose(a, b, atol=1e-3)) for a, b in zip(got, wanted, strict=True))
        reason = None if same else "it computes something else here"
    except Exception as error:  # whatever a compiler or a driver raises
        reason = f"it does not run here ({type(error).__name__}: {str(error).strip()[:200]})"
    if reason is not None:
        warnings.warn(f"the fused rotary kernel is not used on {device}: {reason}", stacklevel=2)
    return reason


@once
def _has_triton() -> bool:
    return find_spec("triton") is not None
