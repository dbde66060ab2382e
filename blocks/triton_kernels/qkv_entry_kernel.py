"""The Triton kernel for QK-norm, rotation and cache write in one pass over memory.

    query  x -> rotated(normed(x))   into a tensor of its own
    key    x -> rotated(normed(x))   into its slot of the cache
    value  x -> x                    into its slot of the cache

One program computes one head of one token. Channel c < 2K turns with its partner p(c), which is c + K or c - K (`half`)
or c xor 1 (`interleaved`), by the angle of their pair:

    out_c = x_c cos - x_p sin   for the first of a pair,   x_c cos + x_p sin   for the second

cos and sin belong to the token's position. A periodic encoding has reduced the position before, so the kernel serves it
too. Everything is computed in float32. Import this file only if Triton is installed; TRITON_INTERPRET=1 runs the kernel
on a CPU.

Shapes: B batch, N tokens, H heads, Hkv key/value heads, D head_dim, K rotated pairs.
"""

import triton
import triton.language as tl


@triton.jit
def _entered(
    row, gain, cos, sin, eps, offset, D, K, BLOCK: tl.constexpr, NORMED: tl.constexpr, INTERLEAVED: tl.constexpr
):  # type: ignore[no-untyped-def]
    """One head, normed and rotated: (BLOCK,) float32.

    row: pointer to its D numbers. gain: to the norm's D weights. cos, sin: to the K numbers of its token.
    """
    c = tl.arange(0, BLOCK)
    inside, turns = c < D, c < 2 * K
    if INTERLEAVED:
        pair, partner, first = c // 2, c ^ 1, c % 2 == 0
    else:
        pair, first = tl.where(c < K, c, c - K), c < K
        partner = tl.where(c < K, c + K, c - K)
    partner = tl.where(turns, partner, c)
    x = tl.load(row + c, mask=inside, other=0.0).to(tl.float32)
    y = tl.load(row + partner, mask=inside, other=0.0).to(tl.float32)
    if NORMED:
        r = tl.rsqrt(tl.sum(x * x, axis=0) / D + eps)
        x = x * r * (tl.load(gain + c, mask=inside, other=0.0).to(tl.float32) + offset)
        y = y * r * (tl.load(gain + partner, mask=inside, other=0.0).to(tl.float32) + offset)
    a = tl.load(cos + pair, mask=turns, other=1.0)
    b = tl.load(sin + pair, mask=turns, other=0.0)
    return x * a + tl.where(first, -y, y) * b


@triton.jit
def enter(
    q,
    k,
    v,
    cos,
    sin,
    q_gain,
    k_gain,
    q_out,
    k_held,
    v_held,
    tokens,
    start,
    capacity,
    cos_batch,
    k_batch,
    k_token,
    k_head,
    v_batch,
    v_token,
    v_head,
    eps,
    offset,
    H,
    HKV,
    D,
    K,
    BLOCK: tl.constexpr,
    NORMED: tl.constexpr,
    INTERLEAVED: tl.constexpr,
):  # type: ignore[no-untyped-def]
    """q (B, N, H, D), k and v (B, N, Hkv, D), contiguous; cos, sin (1 or B, N, K), cos_batch numbers from row to row.

    k_held, v_held (B, capacity, Hkv, D) with the given strides, channels contiguous: token n goes into slot
    (start + n) mod capacity. The grid is (B * N, H + 2 Hkv).
    """
    at, head = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)  # offsets in a long cache pass 2^31
    batch, n = at // tokens, at % tokens
    slot = (start + n) % capacity
    c = tl.arange(0, BLOCK)
    inside = c < D
    angle = batch * cos_batch + n * K
    if head < H:
        row = (at * H + head) * D
        out = _entered(q + row, q_gain, cos + angle, sin + angle, eps, offset, D, K, BLOCK, NORMED, INTERLEAVED)
        tl.store(q_out + row + c, out.to(q_out.dtype.element_ty), mask=inside)
    elif head < H + HKV:
        h = head - H
        row = (at * HKV + h) * D
        out = _entered(k + row, k_gain, cos + angle, sin + angle, eps, offset, D, K, BLOCK, NORMED, INTERLEAVED)
        to = k_held + batch * k_batch + slot * k_token + h * k_head
        tl.store(to + c, out.to(k_held.dtype.element_ty), mask=inside)
    else:
        h = head - H - HKV
        value = tl.load(v + (at * HKV + h) * D + c, mask=inside, other=0.0)
        to = v_held + batch * v_batch + slot * v_token + h * v_head
        tl.store(to + c, value.to(v_held.dtype.element_ty), mask=inside)
