"""The bytes of a text file as text: UTF-8, and what happens to bytes that are not.

Any large collection has a few bytes that are not UTF-8. Each becomes U+FFFD, and their number is reported. A file with
many of them is in another encoding, and a model would learn to write U+FFFD. Such a file is refused, and so is UTF-16.
A byte order mark is left out.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from pathlib import Path

from miniwin.specs import UserError
from miniwin.specs.yaml_lines import mark_of

FEW, RARE = 10, 1000  # refused is a file with more than FEW bad places, and more than one in RARE characters
CONVERT = "MiniWin reads UTF-8: convert the file first, such as with iconv -f {encoding} -t UTF-8 FILE > NEW"


@dataclass
class Replaced:
    """What was not UTF-8 in the files read so far: how many places, and `file:line:column` of the first."""

    count: int = 0
    first: str | None = None


class TextReader:
    """One file's bytes to text, in one piece or line by line."""

    def __init__(self, path: Path, replaced: Replaced) -> None:
        self._path, self._replaced = path, replaced
        self._characters = self._bad = 0
        self._first = ""

    def text(self, raw: bytes, line: int = 1) -> str:
        """The text of `raw`, which begins at a line of the file."""
        if line == 1:
            raw = raw.removeprefix(codecs.BOM_UTF8)
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            text = raw.decode("utf-8", "replace")
            if not self._bad:
                row, column = mark_of(raw[: error.start].decode("utf-8"), None)
                self._first = f"{self._path}:{row + line - 1}:{column}: byte {raw[error.start]:#04x}"
            self._bad += text.count("\ufffd") - raw.count("\ufffd".encode())
        self._characters += len(text)
        return text

    def close(self) -> None:
        """Count the bad places of the file, once all of it is read.

        Raises:
            UserError: there are so many that the file is in another encoding.
        """
        if self._bad > FEW and self._bad * RARE > self._characters:
            share = f"{self._bad / self._characters:.0%}" if self._bad * 100 > self._characters else "under 1%"
            raise UserError(
                f"{self._first} is not UTF-8, and so are {self._bad - 1} other places ({share} of the text): the file "
                f"is in another encoding, such as CP1252 or CP1251. {CONVERT.format(encoding='ENCODING')}"
            )
        self._replaced.count += self._bad
        self._replaced.first = self._replaced.first or self._first or None
