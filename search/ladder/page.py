"""The page of a ladder: ladder.md and ladder.html in the folder of the study, with the same sentences and tables."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from miniwin.blocks.messages.escaping import escaped
from miniwin.display.page.sheet import sheet
from miniwin.files.writing import write_text
from miniwin.search.ladder import tables, words
from miniwin.search.ladder.result import LadderResult
from miniwin.search.report.ladder_section import ladder_body


def write_pages(study: Path, result: LadderResult) -> None:
    write_text(study / "ladder.md", markdown(result))
    write_text(study / "ladder.html", html(result))


def markdown(result: LadderResult) -> str:
    """The page as Markdown. The HTML page has a chart besides."""
    parts = [f"# Ladder of {result.study}", *map(words.full, words.sentences(result)), words.method(result)]
    for title, table in tables.of(result):
        parts += [f"## {title}", *([words.foretold(result)] if title == tables.PREDICTION else []), _table(*table)]
    return escaped("\n\n".join(parts)) + "\n"


def html(result: LadderResult) -> str:
    """The page as one HTML file that needs no other."""
    said = "".join(f'<p class="verdict">{escape(words.full(one))}</p>' for one in words.sentences(result))
    head = f'<header><p class="kind">MiniWin ladder</p><h1>{escape(result.study)}</h1></header>'
    return escaped(sheet(f"{result.study}: MiniWin ladder", f"{head}{said}<section>{ladder_body(result)}</section>"))


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
