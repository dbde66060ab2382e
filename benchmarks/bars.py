"""The bars that MiniWin set itself, and whether a result meets them. A ratio is the median of the ratios of each round.

A bar says what it compares. If the result lacks the case, or the case failed, or the peer has no figure, then the bar
is "not measured". A missing figure never meets a bar.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks import attention, decoding, gpu, models, training
from benchmarks.case import OURS
from benchmarks.timing import Samples, ratio
from miniwin.blocks.matmul_library import MKL, ONEDNN

Measured = tuple[float, float, float]  # value, and the quartiles within the run
Cases = dict[str, dict[str, Any]]
CLEAR = 1.5


@dataclass(frozen=True)
class Bar:
    """least, most: what it has to reach, or must not pass; neither: told for information. unit: of the figure.

    asked: of a result, whether the bar is asked of that machine; elsewhere the figure is told for information.
    """

    text: str
    measure: Callable[[Cases, dict[str, Any]], Measured | None]
    least: float | None = None
    most: float | None = None
    unit: str = "x"
    asked: Callable[[dict[str, Any]], bool] = lambda result: True


def onednn_is_clear(result: dict[str, Any]) -> bool:
    """Whether oneDNN's product of float32 is at least CLEAR times as fast as MKL's."""
    rates = result.get("products", {}).get("float32", {})
    return len(rates) == 2 and bool(rates[ONEDNN]["median"] >= CLEAR * rates[MKL]["median"])


def times(case: str, over: str, under: str = OURS) -> Callable[[Cases, dict[str, Any]], Measured | None]:
    """How many times the figure of `under` that of `over` is."""

    def measure(cases: Cases, result: dict[str, Any]) -> Measured | None:
        sides = cases.get(case, {}).get("sides", {})
        if over not in sides or under not in sides:
            return None
        return ratio(Samples(tuple(sides[over]["values"])), Samples(tuple(sides[under]["values"])))

    return measure


def share(case: str, of: str = attention.MATMUL) -> Callable[[Cases, dict[str, Any]], Measured | None]:
    """The rate of floating-point operations, in percent of another side's."""

    def measure(cases: Cases, result: dict[str, Any]) -> Measured | None:
        found = times(case, of)(cases, result)
        if found is None:
            return None
        sides = cases[case]["sides"]
        a, b = sides[OURS], sides[of]
        factor = 100 * a["flops_per_second"] * a["median"] / (b["flops_per_second"] * b["median"])
        return found[0] * factor, found[1] * factor, found[2] * factor

    return measure


def grows(series: str, unit: str, side: str = OURS) -> Callable[[Cases, dict[str, Any]], Measured | None]:
    def measure(cases: Cases, result: dict[str, Any]) -> Measured | None:
        for row in result["growth"]:
            if (row["series"], row["unit"], row["side"]) == (series, unit, side):
                return (row["exponent"],) * 3
        return None

    return measure


def gigabytes(case: str) -> Callable[[Cases, dict[str, Any]], Measured | None]:
    def measure(cases: Cases, result: dict[str, Any]) -> Measured | None:
        sides = cases.get(case, {}).get("sides", {})
        return (sides[OURS]["median"] / 1e9,) * 3 if OURS in sides else None

    return measure


def _local(window: int, what: str = "forward") -> str:
    return f"attention/{what}/W={window}/float32/N=4096"


PREFILL = "prefill/miniwin-512/N=8192"
SHORT = "decode/miniwin-512/context=1024"
LONG = "decode/miniwin-512/context=262144"
BOTH = (models.AUTHORS, models.TITLES["cohere2"])
SMALL = "train/miniwin-128/bfloat16/8x512"

BARS: tuple[Bar, ...] = (
    *(
        Bar(
            f"local attention forward, N=4096, W={w}, fp32: {attention.AUTHORS}", times(_local(w), attention.AUTHORS), x
        )
        for w, x in ((64, 35.0), (512, 9.0))
    ),
    *(
        Bar(
            f"the same, forward+backward, W={w}: {attention.AUTHORS}",
            times(_local(w, "forward+backward"), attention.AUTHORS),
            x,
        )
        for w, x in ((64, 12.0), (512, 4.0))
    ),
    *(
        Bar(f"local attention {what}, W={w}: {attention.MASKED}", times(_local(w, what), attention.MASKED))
        for what in ("forward", "forward+backward")
        for w in (64, 512)
    ),
    *(
        Bar(f"local attention forward, W={w}: {attention.FLEX}", times(_local(w), attention.FLEX), 2.0)
        for w in (64, 512)
    ),
    *(
        Bar(f"local attention forward, W={w}: {attention.FLEX_BEST}", times(_local(w), attention.FLEX_BEST))
        for w in (64, 512)
    ),
    *(
        Bar(f"local attention {what}, W={w}: {attention.OPERATORS}", times(_local(w, what), attention.OPERATORS))
        for what in ("forward", "forward+backward")
        for w in (64, 512)
    ),
    Bar("share of the machine's matmul peak, forward, W=512, fp32", share(_local(512)), 45.0, unit="%"),
    *(
        Bar(
            f"memory of local attention, N=4k to 64k, W={w}: exponent",
            grows(f"memory/attention forward+backward/W={w}", "bytes"),
            most=1.05,
            unit="",
        )
        for w in (64, 512)
    ),
    *(
        Bar(f"prefill, 26 M parameters, N=8192: {peer}", times(PREFILL, peer), x)
        for peer, x in zip(BOTH, (4.0, 3.2), strict=True)
    ),
    *(
        Bar(
            f"train step, 26 M parameters, N=2048, {dtype}: {peer}",
            times(f"train/miniwin-512/{dtype}/1x2048", peer),
            2.0,
        )
        for dtype in ("float32", "bfloat16")
        for peer in BOTH
    ),
    *(
        Bar(
            f"{what}, float32, where oneDNN's product is {CLEAR} times MKL's: {models.WITH_MKL}",
            times(case, models.WITH_MKL),
            1.5,
            asked=onednn_is_clear,
        )
        for what, case in (
            ("train step, 26 M parameters, N=2048", "train/miniwin-512/float32/1x2048"),
            ("prefill, 26 M parameters, N=8192", PREFILL),
        )
    ),
    Bar("train step, 1.6 M parameters, 8 x 512, bfloat16: its own plain fp32 step", times(SMALL, training.PLAIN), 2.8),
    Bar("the same, compiled", times(SMALL, training.PLAIN, training.COMPILED)),
    Bar(f"the same, not compiled: {training.TORCH}", times(SMALL, training.TORCH)),
    Bar(f"the same, not compiled: {training.PLAINEST}", times(SMALL, training.PLAINEST)),
    *(Bar(f"decode, 26 M parameters, 1k of context: {peer}", times(SHORT, peer)) for peer in BOTH),
    Bar("the same, int8 weights: its own float32", times(SHORT, OURS, models.INT8)),
    Bar("decode, 26 M parameters, 256k of context: authors' cache", times(LONG, models.AUTHORS), 35.0),
    Bar(
        "the same: memory of the authors' cache at its peak",
        times("memory/decode miniwin-512/context=262144", models.AUTHORS),
        4.0,
    ),
    Bar(
        "decode, local layers only: time at 256k over time at 1k",
        times("decode/miniwin-512, local layers only/context=262144", OURS, decoding.SHORT),
        most=1.10,
    ),
    Bar(
        "bits per byte over 1,000,000 tokens, miniwin-1m, one pass: peak memory",
        gigabytes("memory/bits per byte of miniwin-1m/N=1000000"),
        most=2.0,
        unit=" GB",
    ),
)


GPU_BARS = (
    Bar(
        f"local attention, N=64k, W=512, bfloat16: share of the rate of {gpu.DENSE}, per useful operation",
        share("attention/cuda/forward/W=512/bfloat16/N=65536", gpu.DENSE),
        70.0,
        unit="%",
    ),
    Bar(
        "decode, 26 M parameters, local layers only: time at 256k over time at 4k",
        times("decode/cuda/miniwin-512, local layers only/context=262144", OURS, decoding.SHORT),
        most=1.10,
    ),
    Bar(
        f"rotary kernel with QK-norm and cache write, 64k tokens: {gpu.COPY}",
        times("rotary/cuda/N=65536", gpu.COPY),
        0.8,
    ),
)


def judged(result: dict[str, Any], bars: tuple[Bar, ...] | None = None) -> list[dict[str, Any]]:
    """Each bar with what was measured and the verdict: met, missed, for information, not measured."""
    if bars is None:
        bars = GPU_BARS if result["kind"] == "gpu" else BARS
    cases = {case["name"]: case for case in result["cases"]}
    rows = []
    for bar in bars:
        found = bar.measure(cases, result)
        wanted = (
            ""
            if bar.least is bar.most
            else f">= {bar.least:g}{bar.unit}"
            if bar.least
            else f"<= {bar.most:g}{bar.unit}"
        )
        row: dict[str, Any] = {"bar": bar.text, "wanted": wanted, "unit": bar.unit}
        if found is None:
            row |= {"measured": None, "verdict": "not measured" if bar.asked(result) else "not asked here"}
        else:
            value, low, high = found
            met = (bar.least is None or value >= bar.least) and (bar.most is None or value <= bar.most)
            row |= {"measured": value, "low": low, "high": high}
            told = not wanted or not bar.asked(result)
            row["verdict"] = "for information" if told else "met" if met else "missed"
        rows.append(row)
    return rows
