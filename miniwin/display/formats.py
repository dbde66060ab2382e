"""Numbers as people read them: bytes, counts, lengths, durations, rates.

The zoo writes bytes in decimal units, as disks and the Hub do. Tables of caches and reports use binary units. `more` is
how many more digits than usual to write: on an axis, numbers that are close together must differ.
"""

from __future__ import annotations

_BINARY = {1: "B", 2**10: "KiB", 2**20: "MiB", 2**30: "GiB", 2**40: "TiB"}


def decimal_bytes(count: float) -> str:
    """`812 B`, `4.1 kB`, `3.9 MB`: decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def binary_bytes(count: int) -> str:
    """`812 B`, `4.2 MiB`, `16.0 GiB`: one decimal, so that a column lines up."""
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def bytes_text(value: float, more: int = 0) -> str:
    """`640 B`, `2.1 MiB`, `1 GiB`: three digits that matter."""
    unit = binary_unit(value)
    return f"{_short(value / unit, more)} {_BINARY[unit]}"


def count_text(value: float, more: int = 0) -> str:
    """`512`, `4,096`, `1.18 M`, `3.2 G`: exact below ten thousand."""
    if abs(value) < 10_000:
        return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.{4 + more}g}"
    for unit, letter in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit * 0.9995:
            return f"{_short(value / unit, more)} {letter}"
    raise AssertionError(value)


def bits_text(value: float, more: int = 0) -> str:
    """`1.234`: bits per byte."""
    return f"{value:.{3 + more}f}"


def percent_text(value: float, more: int = 0) -> str:
    """`12.5%`, of 0.125."""
    return f"{value:.{1 + more}%}"


def digits_text(value: float, more: int = 0) -> str:
    """`0.123`, `1.5e-07`: three digits that matter."""
    return f"{value:.{3 + more}g}"


def length_text(value: float, more: int = 0) -> str:
    """A number of tokens: `512`, `4k`, `128k`, `1M`. A k is 1024, as for context lengths. Always exact."""
    for unit, letter in ((2**20, "M"), (2**10, "k")):
        if value >= unit and value % unit == 0:
            return f"{round(value // unit)}{letter}"
    return str(round(value))


def duration(seconds: float) -> str:
    """`42s`, `3m05s`, `2h07m`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def seconds_text(value: float) -> str:
    """`8.4 s`, `3 min 20 s`, `2 h 05 min`."""
    if value < 59.95:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def rate(tokens_per_second: float) -> str:
    """`830 tokens/s`, `12.3k tokens/s`."""
    if tokens_per_second >= 1000:
        return f"{tokens_per_second / 1000:.1f}k tokens/s"
    return f"{tokens_per_second:.0f} tokens/s"


def plural(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def binary_unit(value: float) -> int:
    """The largest unit in which `value` bytes are at least about 1: 1, 1024, and so on."""
    return max((unit for unit in _BINARY if abs(value) >= unit * 0.9995), default=1)


def _short(value: float, more: int = 0) -> str:
    """Three digits that matter: 1.18, 16.5, 640."""
    decimals = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
    text = f"{value:.{decimals + more}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
