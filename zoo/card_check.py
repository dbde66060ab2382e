"""What a card may not hold, whoever wrote it: it is shown on terminals, on pages, and on the Hugging Face Hub.

Markdown passes HTML through to a page, and YAML has tags that build objects in a careless reader. A terminal obeys
control characters. None of these has a place in a card; code between backticks may hold any of them but the last.
"""

from __future__ import annotations

import re

from miniwin.blocks.messages.escaping import escaped
from miniwin.specs import UserError
from miniwin.specs.yaml_document import Document

FRONT = re.compile(r"---\r?\n(.*?)^---\s*$", re.M | re.S)
_FENCE = r"^ {0,3}(`{3,}(?=[^`\n]*$)|~{3,})[^\n]*\n.*?^ {0,3}\1[`~]*[ \t]*$"
_SPAN = r"(?<![\\`])(`+)(?!`)[^\n]+?(?<!`)\2(?!`)"  # on one line
_CODE = re.compile(f"(?s:{_FENCE})|{_SPAN}", re.M)
_MARKUP = re.compile(r"<\s*(?!https?://|mailto:)[A-Za-z/!?][^\s>]{0,20}")
_LINK = re.compile(r"(?:\]\s*\(|\]:|<)\s*<?\s*((?:javascript|vbscript|data|file)\s*:)", re.I)
LONGEST = 1 << 18  # characters; some thousands are usual


def card_problems(content: bytes, licence: str) -> list[str]:
    """What is wrong with the text of a card. licence: that of the entry, which the card has to name as well."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        return [f"is not UTF-8 (byte {error.object[error.start]:#04x})"]
    if len(text) > LONGEST:
        return [f"is longer than {LONGEST:,} characters"]
    if escaped(text) != text:
        line = next(number for number, one in enumerate(text.split("\n"), 1) if escaped(one) != one)
        return [
            f"line {line} holds characters that a terminal would obey: {escaped(text.split(chr(10))[line - 1])[:60]}"
        ]
    front = FRONT.match(text)
    start = 0 if front is None else front.end()
    body = _CODE.sub(lambda found: "\n" * found[0].count("\n"), text[start:])
    problems = [] if front is None else _front_problems(front[1], licence)
    return problems + _body_problems(body, text[:start].count("\n"))


def _front_problems(yaml: str, licence: str) -> list[str]:
    try:
        data = Document(yaml, "front matter").data
    except UserError as error:
        return [" ".join(str(error).split())[:300]]
    if not isinstance(data, dict):
        return ["front matter is not a mapping"]
    if data.get("license", licence) != licence:
        return [f"front matter gives the licence {str(data.get('license'))[:60]!r}, entry.json gives {licence[:60]!r}"]
    return []


def _body_problems(body: str, before: int) -> list[str]:
    for pattern, what in ((_MARKUP, "markup"), (_LINK, "a link that runs or shows something else")):
        if found := pattern.search(body):
            line = before + body[: found.start()].count("\n") + 1
            return [f"line {line} holds {what} ({found[0].strip()[:40]}), which a card may have in code only"]
    return []
