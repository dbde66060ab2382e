"""Numbers of tokens as people write them, on any command."""

from __future__ import annotations


def count(option: str, text: str, least: float = 1) -> int:
    """The number that `2048`, `16k` (times 1024), `1M` (times 1024 * 1024) or `4e6` stands for.

    Raises:
        UserError: the text is not a whole number, or is below `least`. option: named in the message.
    """
    from miniwin.specs import UserError

    plain = text.strip().replace("_", "")
    factor = {"k": 1024, "K": 1024, "m": 1024**2, "M": 1024**2}.get(plain[-1:], 1)
    number = plain if factor == 1 else plain[:-1]
    try:
        value = float(number) * factor
    except ValueError:
        value = float("nan")
    if value != value or value < least or not value.is_integer():
        raise UserError(f"{option}: expected a number of tokens such as 2048, 16k or 1M, got {text!r}")
    return int(value)


def counts(option: str, text: str, least: float = 1) -> list[int]:
    """Several numbers with commas: `512,2048,16k`."""
    return [count(option, part, least) for part in text.split(",")]
