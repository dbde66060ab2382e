"""The text that facts stand in: files that the user names, or the source of Python's standard library.

A text is cut into pieces, sentences or paragraphs, each with the white space before it. Put together again they are
the text as it was. The search reads the first half of each file and the report the second, or other files.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from miniwin.evaluation.tasks.words.stdlib import modules
from miniwin.specs import UserError, user_path

LONGEST = 600  # characters of a piece
_BETWEEN = re.compile(r"(?<=[.!?])(?=\s)|(?<=\S)(?=\n[ \t]*\n)")
STANDARD = "the source of Python's standard library"


@dataclass(frozen=True)
class Text:
    """name: where it is from. pieces: one after another they are the text. sha256: of the text."""

    name: str
    pieces: tuple[str, ...]

    @property
    def sha256(self) -> str:
        return sha256("".join(self.pieces).encode()).hexdigest()


def read_texts(search: Sequence[str], report: Sequence[str]) -> tuple[Text, Text]:
    """The text of the search, and that of the report.

    Raises:
        UserError: a file cannot be read, or is in both.
    """
    twice = sorted({str(user_path(one)) for one in search} & {str(user_path(one)) for one in report})
    if twice:
        raise UserError(f"--test-text: {twice[0]} is a --text too; the report needs text that the search has not read")
    if not search and report:
        raise UserError("--test-text: got one without --text; name the text of the search too")
    texts = [_read(one) for one in search] if search else list(modules())
    called = ", ".join(Path(one).name for one in search) if search else STANDARD
    if report:
        others = ", ".join(Path(one).name for one in report)
        return Text(called, _joined(texts)), Text(others, _joined([_read(one) for one in report]))
    if not search:  # whole modules: the halves of one are too much alike
        return Text(f"{called}, every other module", _joined(texts[::2])), Text(
            f"{called}, the other modules", _joined(texts[1::2])
        )
    halves = [(pieces[: len(pieces) // 2], pieces[len(pieces) // 2 :]) for pieces in map(cut, texts)]
    first, second = (tuple(piece for half in halves for piece in half[side]) for side in (0, 1))
    return Text(f"{called}: the first half", first), Text(f"{called}: the second half", second)


def _joined(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(piece for text in texts for piece in cut(text))


def _read(path: str) -> str:
    try:
        text = user_path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--text: cannot read {path}: {error}; expected a text file in UTF-8") from None
    if not text.strip():
        raise UserError(f"--text: {path} is empty; expected a text file")
    return text


def cut(text: str) -> tuple[str, ...]:
    """The pieces of a text."""
    found: list[str] = []
    for piece in _BETWEEN.split(text):
        while len(piece) > LONGEST:
            place = piece.rfind(" ", 1, LONGEST)
            place = LONGEST if place < 1 else place
            found.append(piece[:place])
            piece = piece[place:]
        found.append(piece)
    return tuple(piece for piece in found if piece)
