"""What is measured. A case prepares its sides, checks that they agree, and returns one function for each side.

Case  a declaration, made without any work: a name, a budget, and `make`
Work  what `make` returns: the sides, ours first; the absent peers, and why; what the gate compared
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

OURS = "miniwin"

Run = Callable[[], object]
Unit = Literal["seconds", "bytes"]


@dataclass
class Work:
    """sides: one function each. It is timed; in a case whose unit is bytes it returns the bytes.

    absent: peers without a figure, and why. gate: what was compared before any figure. flops: useful floating-point
    operations in one run of a side, where a rate is wanted.
    """

    sides: dict[str, Run]
    gate: str
    absent: dict[str, str] = field(default_factory=dict)
    flops: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def offer(self, name: str, make: Callable[[], Run], check: Callable[[Run], None] | None = None) -> None:
        """Add a peer; one that cannot be built, or that fails the check, is absent with its reason."""
        try:
            run = make()
            if check is not None:
                check(run)
        except Exception as error:
            self.absent[name] = reason(error)
        else:
            self.sides[name] = run


@dataclass(frozen=True)
class Case:
    """name: unique, and the same from one version to the next, so that results can be compared.

    series: cases of one series differ only in `at`, the length or context: growth and plots go along it.
    tokens: tokens that one run processes. budget: seconds for all runs; the first run of each side is not in it.
    repeats: at most so many runs, for cases that need fewer than the caller asks for.
    """

    name: str
    series: str
    at: int
    make: Callable[[], Work]
    unit: Unit = "seconds"
    tokens: int = 0
    budget: float = 10.0
    repeats: int | None = None

    @property
    def family(self) -> str:
        return self.name.partition("/")[0]


def reason(error: BaseException) -> str:
    """An exception in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
