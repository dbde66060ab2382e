"""What a shipped spec is for, in the words of its file: the first sentence of the comment at its top."""

from __future__ import annotations

import re
from pathlib import Path

from miniwin.specs.yaml_file import read_text

SENTENCE = re.compile(r"(?<=[.?!])\s+(?=[A-Z\"'(])")  # where one ends and the next begins; not within "v0.2"


def described(path: Path) -> str:
    """The first sentence of the file's first comment; "" if the file does not begin with one.

    Raises:
        UserError: the file cannot be read.
    """
    comment: list[str] = []
    for line in read_text(path).splitlines():
        if not line.startswith("#"):
            break
        comment.append(line.lstrip("#").strip())
    return SENTENCE.split(" ".join(comment).strip(), maxsplit=1)[0]
