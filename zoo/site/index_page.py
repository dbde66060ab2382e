"""The front page: a table of all models, sorted by name, and by any column where scripts run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from miniwin.display.formats import binary_bytes, bits_text, count_text, decimal_bytes, length_text, plural
from miniwin.evaluation.suite.page import finished, header, section
from miniwin.evaluation.suite.page_tables import cell, head, table
from miniwin.specs import UserError
from miniwin.version import __version__
from miniwin.zoo.catalogue.described import Described, Kind
from miniwin.zoo.errors import ZooError
from miniwin.zoo.index_query import BUILT_IN
from miniwin.zoo.site.limits import about_and_limits
from miniwin.zoo.site.measured import Losses, losses

MOST_LENGTHS = 4  # columns of losses
CACHE = 131_072  # tokens
ABOUT = 240  # characters of a description
STYLE = """
thead th { white-space: normal; min-width: 4.5rem; } tbody th.name { min-width: 10rem; overflow-wrap: anywhere; }
tbody th.name { white-space: normal; max-width: 12rem; }
.models { margin: 0.5rem 0 0; }
.models dt { margin-top: 1rem; font-size: 1rem; font-weight: 600; overflow-wrap: anywhere; }
.models dd { max-width: 46rem; }
"""
NOTE = (
    "Bits per byte is the cross-entropy on text divided by the bytes of the text: lower is better, and it does not "
    "depend on the tokenizer. Every model was measured on its own text: compare those that read the same. An empty "
    "cell: not measured at this length. Cache: float32, for one text of 131,072 tokens."
)


@dataclass(frozen=True)
class Row:
    """What the table shows of an entry. cache: bytes at CACHE tokens, None where the architecture is not known here."""

    entry: Described
    file: str
    kind: Kind
    trained: int | None
    losses: Losses
    cache: int | None


def row_of(entry: Described, file: str) -> Row:
    """Raises ZooError where a file of the entry cannot be read."""
    try:
        cache = entry.spec.cache_bytes(CACHE)
    except ZooError:
        raise
    except UserError:
        cache = None
    return Row(entry, file, entry.kind, entry.trained_at, losses(entry), cache)


def index_page(rows: Sequence[Row], older: Sequence[tuple[str, str]]) -> str:
    """The page as text. older: name and file of the versions that the table does not show."""
    links = ", ".join(_link(file, name) for name, file in older)
    body = [
        header("MiniWin zoo", "Models", _said(rows)),
        _table(rows) if rows else "",
        f'<p class="note">{escape(NOTE)}</p>' if rows else "",
        section("What they are", _descriptions(rows)) if rows else "",
        section("Other versions", f"<p>{links}</p>") if older else "",
        f"<footer>The page of a model has the two lines that load it. Written by MiniWin {__version__}.</footer>",
    ]
    return finished("Models", [part for part in body if part], STYLE)


def _said(rows: Sequence[Row]) -> str:
    zoos = sorted({row.entry.zoo for row in rows})
    if not rows:
        return "There is no model in this zoo yet."
    if zoos == [BUILT_IN]:
        return f"{plural(len(rows), 'model')}, which come with MiniWin."
    return f"{plural(len(rows), 'model')} of the zoo{'' if len(zoos) == 1 else 's'} {', '.join(zoos)}."


def lengths_shown(rows: Sequence[Row]) -> list[int]:
    """At most MOST_LENGTHS lengths: first those at which most models have a loss, evenly apart."""
    counts = Counter(length for row in rows for length in row.losses.values)
    shown: list[int] = []
    for times in sorted(set(counts.values()), reverse=True):
        alike = sorted(length for length in counts if counts[length] == times)
        room = MOST_LENGTHS - len(shown)
        shown += alike if len(alike) <= room else [alike[n * (len(alike) - 1) // max(room - 1, 1)] for n in range(room)]
    return sorted(shown)


def _table(rows: Sequence[Row]) -> str:
    lengths = lengths_shown(rows)
    heads = [head("model", text=True), head("version", text=True)]
    heads += [head("parameters"), head("download"), head("trained at")]
    heads += [head(f"bits/byte at {length_text(n)}") for n in lengths]
    heads += [head("cache at 128k")]
    heads += [head(title, text=True) for title in ("of the text", "made for", "licence", "zoo")]
    return table(heads, [_row(row, lengths) for row in rows], "Table of all models")


def _row(row: Row, lengths: Sequence[int]) -> str:
    entry = row.entry
    version = entry.version + ("" if entry.status == "active" else f", {entry.status}")
    bits = [row.losses.values.get(n) for n in lengths]
    return (
        f'<tr><th scope="row" class="text name">{_link(row.file, entry.name)}</th>{cell(version, kind="text")}'
        f"{cell(count_text(entry.parameters), entry.parameters)}{cell(decimal_bytes(entry.size), entry.size)}"
        f"{cell('') if row.trained is None else cell(length_text(row.trained), row.trained)}"
        f"{''.join(cell('') if value is None else cell(bits_text(value), value) for value in bits)}"
        f"{cell('') if row.cache is None else cell(binary_bytes(row.cache), row.cache)}"
        f"{''.join(cell(text, kind='text') for text in (row.losses.text, row.kind, entry.licence, entry.zoo))}</tr>"
    )


def _descriptions(rows: Sequence[Row]) -> str:
    items = "".join(
        f"<dt>{_link(row.file, row.entry.to_load)}</dt><dd>{escape(_short(row.entry.description))}</dd>" for row in rows
    )
    return f'<dl class="models">{items}</dl>'


def _link(file: str, text: str) -> str:
    return f'<a href="{escape(file)}">{escape(text)}</a>'


def _short(description: str) -> str:
    """The first sentences of a description, as far as there is room."""
    about = " ".join(about_and_limits(description)[0].split())
    if len(about) <= ABOUT:
        return about
    sentence = about[: ABOUT + 1].rpartition(". ")[0]
    return f"{sentence}." if sentence else about[:ABOUT].rpartition(" ")[0] + " ..."
