"""The cases of each plan: quick, full, gpu, and tiny (for the tests). The cases that bars need come first.

minutes: no case begins later than that. A busy machine takes several times as long as a quiet one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from benchmarks import attention, decoding, memory, prefill, training
from benchmarks import gpu as gpus
from benchmarks.attention import Shape
from benchmarks.case import Case
from benchmarks.models import AUTHORS, INT8, TITLES, WITH_MKL, small_spec
from benchmarks.timing import STEADY
from miniwin.specs import load_model_spec

FP32, BF16 = torch.float32, torch.bfloat16
MODEL = "miniwin-512"
COHERE = TITLES["cohere2"]
EVERYBODY = (AUTHORS, *TITLES.values())
SMALL_STEPS = (training.COMPILED, training.PLAIN, training.TORCH, training.PLAINEST)
K = 1024
SQUARE = 2048


@dataclass(frozen=True)
class Plan:
    cases: tuple[Case, ...]
    repeats: int
    minutes: float | None = None
    peak_size: int | None = SQUARE  # of the CPU's matrix products; None: they are not measured
    steady: float = STEADY  # seconds of a sample, at least


def quick() -> Plan:
    """About eleven minutes on two cores."""
    spec, small, near = load_model_spec(MODEL), small_spec(), (AUTHORS, COHERE)
    cases = [
        *(attention.case(Shape(4 * K, w, flex=True, package=True, square=SQUARE), 12) for w in (64, 512)),
        *(attention.case(Shape(4 * K, w, backward=True, package=True), 16) for w in (64, 512)),
        prefill.case(spec, 8 * K, (WITH_MKL, *near), 24),
        training.case(spec, 2 * K, 1, FP32, (WITH_MKL, *near), 52),
        training.case(spec, 2 * K, 1, BF16, near, 32),
        training.case(small, 512, 8, BF16, SMALL_STEPS, 30),
        decoding.case(spec, 256 * K, near, tokens=1, budget=15),
        decoding.local_case(spec, K, 256 * K, budget=3),
        memory.decode_case(MODEL, 256 * K, [AUTHORS]),
        *(memory.attention_case(n * K, w) for w in (64, 512) for n in (4, 16, 64)),
        *(attention.case(Shape(n * K, w, full=False, causal=False), 2) for w in (64, 512) for n in (1, 16, 64)),
        *(attention.case(Shape(4 * K, w, BF16, square=SQUARE), 4) for w in (64, 512)),
        *(prefill.case(spec, n * K, EVERYBODY, 5) for n in (1, 2)),
        *(decoding.case(spec, n * K, (*EVERYBODY, INT8), budget=4) for n in (1, 16)),
    ]
    return Plan(tuple(cases), repeats=9, minutes=20)


def full() -> Plan:
    """Every length, dtype and peer, and a million tokens: hours."""
    spec, small = load_model_spec(MODEL), small_spec()
    cases: list[Case] = []
    for w in (64, 512):
        for dtype in (FP32, BF16):
            for n in (1, 2, 4, 8, 16, 32, 64):
                known = n <= 16  # beyond, a mask alone is gigabytes
                shape = Shape(n * K, w, dtype, full=known, flex=dtype == FP32, package=True, square=SQUARE)
                cases.append(attention.case(shape, 60))
                shape = Shape(n * K, w, dtype, backward=True, full=known, package=True)
                cases.append(attention.case(shape, 90))
        cases += [memory.attention_case(n * K, w, [attention.MASKED] if n <= 16 else []) for n in (4, 8, 16, 32, 64)]
    cases += [prefill.case(spec, n * K, (WITH_MKL, *EVERYBODY), 180) for n in (1, 2, 4, 8, 16)]
    cases += [prefill.case(spec, n * K, (), 120) for n in (32, 64)]
    cases += [memory.prefill_case(MODEL, n * K, EVERYBODY) for n in (2, 4, 8)]
    for dtype in (FP32, BF16):
        peers = (WITH_MKL, *EVERYBODY) if dtype == FP32 else EVERYBODY
        cases += [training.case(spec, n * K, 1, dtype, peers, 120) for n in (1, 2, 4)]
        cases.append(training.case(small, 512, 8, dtype, [*SMALL_STEPS, AUTHORS], 30))
    for n in (1, 4, 16, 64, 256):
        tokens = 8 if n <= 16 else 2
        cases.append(decoding.case(spec, n * K, (*EVERYBODY, INT8), tokens, 120))
        cases.append(memory.decode_case(MODEL, n * K, [AUTHORS, COHERE], 300))
    cases.append(decoding.local_case(spec, K, 256 * K, budget=30))
    cases.append(memory.million_case("miniwin-1m", 1_000_000, 4 * 3600))
    return Plan(tuple(cases), repeats=15)


def tiny() -> Plan:
    """Every kind of case at sizes that take no time: what the tests run. FlexAttention takes long to compile."""
    name = "miniwin-512-tiny"
    spec, peers = load_model_spec(name), (AUTHORS, COHERE)
    small = Shape(1, 8, package=True, heads=4, kv_heads=2, head_dim=16)
    cases = [
        *(attention.case(replace(small, length=n, square=64)) for n in (33, 65, 97)),
        attention.case(replace(small, length=70, dtype=BF16, backward=True)),
        prefill.case(spec, 16, EVERYBODY),
        *(prefill.case(spec, n, (WITH_MKL, *peers)) for n in (32, 64)),
        *(training.case(spec, 40, 2, dtype, (*peers, WITH_MKL, *SMALL_STEPS[1:])) for dtype in (FP32, BF16)),
        decoding.case(spec, 48, (*EVERYBODY, INT8), tokens=2, piece=24),
        decoding.case(spec, 96, (AUTHORS,), tokens=2, piece=24),
        decoding.local_case(spec, 24, 96, tokens=2, piece=24),
        memory.attention_case(256, 16, [attention.MASKED]),
        memory.prefill_case(name, 64, peers),
        memory.decode_case(name, 96, peers, piece=24),
        memory.million_case("miniwin-tiny", 200, 60),
    ]
    return Plan(tuple(cases), repeats=2, peak_size=64, steady=0.0)


def gpu(device: str = "cuda", k: int = K) -> Plan:
    """Takes minutes. k: how many tokens count as a thousand."""
    cases = (
        gpus.attention_case(64 * k, k // 2, device),
        gpus.decode_case(load_model_spec(MODEL), 4 * k, 256 * k, device, piece=k),
        gpus.rotary_case(64 * k, device),
    )
    return Plan(cases, repeats=15, peak_size=None)


PLANS = {"quick": quick, "full": full, "tiny": tiny, "gpu": gpu}
