"""What has to hold, as benchmarks that disturb something print it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """what: what has to hold. wrong: where it does not."""

    what: str
    wrong: list[str]

    def __str__(self) -> str:
        return "\n         ".join([f"{'BROKEN' if self.wrong else 'ok    '} {self.what}", *self.wrong])
