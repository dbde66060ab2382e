"""What `miniwin adapt` is asked for, and what can be said about it before anything is computed."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

from miniwin.chat.format import ChatFormat
from miniwin.specs import UserError
from miniwin.specs.model import NAME

LEAST_WINDOW = 8  # of the search, whose windows are as much shorter as its rows


@dataclass(frozen=True)
class Settings:
    """cache: the share of the cache bytes that may stay, at `length` tokens. window, sinks: of local layers.

    seq_len: tokens of a row of the report. search_len: of a row of the search, whose windows are as much shorter.
    text, test_text: files; none is the source of Python's standard library. search_rows, rows: how many rows the search
    and the report have. questions: judged questions of a row; harder: those that ask for more, in the report alone.
    heal: tokens that the chosen placement is trained on, with the original as its teacher; 0 is none. heal_lr: its
    learning rate.
    heads: units are single key/value heads. widen: layers with a window may become global. known: a folder of `adapt`
    whose scores are not computed again.
    gates: steps of learning which units to keep, a row each; 0 is none. evaluations: placements that the search scores.
    text_weight: of a nat of text against a nat of answers.
    """

    cache: float
    window: int = 512
    sinks: int = 4
    length: int = 8192
    seq_len: int = 4096
    search_len: int = 2048
    text: tuple[str, ...] = ()
    test_text: tuple[str, ...] = ()
    search_rows: int = 4
    rows: int = 20
    questions: int = 12
    harder: int = 4
    gates: int = 60
    evaluations: int = 160
    text_weight: float = 1.0
    text_every: int = 4
    seed: int = 0
    heads: bool = False
    widen: bool = False
    heal: int = 0
    heal_lr: float = 3e-4
    known: str | None = None
    name: str | None = None
    beyond: bool = False

    @property
    def search_window(self) -> int:
        if self.widen:  # the windows that layers have stay as they are
            return self.window
        return max(self.window * self.search_len // self.seq_len, LEAST_WINDOW)

    @property
    def by_original(self) -> bool:
        """Whether answers are judged by how near they are to the original's; else by the nats of the right tokens."""
        return not self.widen

    def record(self) -> dict[str, Any]:
        """Without the names of files, whose contents count."""
        data = asdict(self)
        for name in ("text", "test_text", "known", "name", "beyond"):
            del data[name]
        return data

    def of_scores(self) -> dict[str, Any]:
        """What the scores of a placement depend on: its windows, and the rows."""
        names = ("window", "sinks", "seq_len", "search_len", "search_rows", "rows", "questions", "harder", "text_every")
        found = {name: getattr(self, name) for name in (*names, "seed")}
        return found | ({"by_original": True} if self.by_original else {"widen": True})

    def of_gates(self) -> dict[str, Any]:
        """What learning the gates depends on besides."""
        return {name: getattr(self, name) for name in ("heads", "gates", "text_weight")}

    def check(self, chat_format: ChatFormat | None, ref: str) -> None:
        """
        Raises:
            UserError: settings do not go together.
        """
        for name in ("window", "length", "seq_len", "search_len", "search_rows", "rows", "questions", "evaluations"):
            if getattr(self, name) < 1:
                raise UserError(f"{_option(name)}: got {getattr(self, name)}; expected 1 or more")
        for name in ("sinks", "harder", "heal", "gates"):
            if getattr(self, name) < 0:
                raise UserError(f"{_option(name)}: got {getattr(self, name)}; expected 0 or more")
        if self.heal_lr <= 0:
            raise UserError(f"--heal-lr: got {self.heal_lr}; expected more than 0")
        if not self.text_weight >= 0:
            raise UserError(f"--text-weight: got {self.text_weight}; expected 0 or more")
        for name in ("length", "seq_len", *(["search_len"] if self.widen else [])):
            if self.window >= getattr(self, name):
                raise UserError(
                    f"--window: got {self.window:,}, and {_option(name)} is {getattr(self, name):,}: a window as "
                    "long as the text leaves nothing out; make it shorter"
                )
        if self.search_len > self.seq_len:
            raise UserError(f"--search-len: got {self.search_len:,}; expected at most --seq-len, {self.seq_len:,}")
        if self.name is not None and (not re.match(NAME, self.name) or len(self.name) > 100):
            raise UserError(f"--name: got {self.name!r}; expected lower-case letters, digits, '.', '-' and '_'")
        context = None if chat_format is None else chat_format.context
        longest = max(self.length, self.seq_len)
        if context is not None and longest > context and not self.beyond:
            raise UserError(
                f"--length: got {longest:,}, and {ref} was made for {context:,} tokens: answers beyond may be wrong "
                "whatever the layout; give --beyond-training if that is what you want, or a shorter --length"
            )


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def share_of(text: str) -> float:
    """`25%` or `0.25`.

    Raises:
        UserError: it is no share.
    """
    raw = text.strip()
    try:
        value = float(raw.removesuffix("%")) / (100 if raw.endswith("%") else 1)
    except ValueError:
        value = float("nan")
    if not 0 < value <= 1:
        raise UserError(f"--cache: got {text}; expected a share of the cache, such as 25% or 0.25")
    return value
