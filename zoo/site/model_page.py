"""The page of one version of a model: what it is, two lines to use it, and all that is known about it.

Everything comes from the entry's own files, which anybody may have written: all of it is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from miniwin.display.formats import binary_bytes, count_text, decimal_bytes, length_text
from miniwin.evaluation.suite.charts import Shown
from miniwin.evaluation.suite.page import EXPLAINED, facts, figures, finished, folded, header, section
from miniwin.evaluation.suite.page_tables import head, rows_table, table
from miniwin.evaluation.suite.verdicts import caveats, verdicts
from miniwin.explain.layer_strip import STYLE as STRIP_STYLE
from miniwin.explain.layer_strip import strip
from miniwin.explain.layers import layer_rows
from miniwin.specs import ModelSpec, UserError
from miniwin.version import __version__
from miniwin.zoo.catalogue.described import Described
from miniwin.zoo.confirmation import HEADER, climbed, confirmed
from miniwin.zoo.errors import ZooError
from miniwin.zoo.index_query import BUILT_IN
from miniwin.zoo.provenance_chain import links
from miniwin.zoo.site.limits import about_and_limits, limits
from miniwin.zoo.site.measured import metric_figures
from miniwin.zoo.site.using import usage

INDEX = "index.html"
CACHE_LENGTHS = (4096, 131_072, 1_048_576)
MOST_ROWS = 2000  # of a suite; a page with more is of no use to anybody
STYLE = (
    STRIP_STYLE
    + """
.back { margin: 0 0 1.5rem; font-size: 0.9rem; } .about { margin-top: 0.75rem; }
.warning { margin: 1.5rem 0 0; padding: 0.7rem 1rem; border: 1px solid var(--m1); border-left-width: 4px; }
.chain dt { margin-top: 0.6rem; } .chain dd { max-width: 60rem; } .chain { margin: 0.5rem 0 0; }
td.hash { font-family: ui-monospace, Menlo, Consolas, monospace; }
"""
)
KINDS = {"text": "continuing text", "chat": "chats", "tasks": "its tasks, and nothing else"}


def model_page(entry: Described, versions: Mapping[str, str]) -> str:
    """The page as text. versions: file names of the pages of other versions, by `name@version`, the newest first.

    Raises:
        UserError: a file of the entry cannot be read, or does not say what it should.
    """
    about, _ = about_and_limits(entry.description)
    result = entry.suite
    if result is not None and len(result.rows) > MOST_ROWS:
        raise ZooError(f"{entry.ref}: its suite has {len(result.rows):,} rows; a page has at most {MOST_ROWS:,}")
    spec, unknown = _spec(entry)
    charts = "".join(section(title, chart) for title, chart in metric_figures(entry))
    body = [
        f'<p class="back"><a href="{INDEX}">All models</a></p>',
        header("Model of the MiniWin zoo", f"{entry.name} {entry.version}", ""),
        f'<p class="about">{escape(about)}</p>' if about else "",
        _warning(entry),
        section("Two lines of Python", usage(entry)),
        _facts(entry, spec),
        section("Layers", _layers(entry, spec, unknown)),
        *_results(entry),
        f'<div class="figures">{charts}</div>' if charts else "",
        figures([Shown(result, entry.ref)]) if result is not None else "",
        section(f"All rows of the suite {result.suite}", rows_table(result)) if result is not None else "",
        section("Limits", "".join(f"<p>{escape(said)}</p>" for said in limits(entry))),
        *_confirmation(entry),
        section("Where it comes from", _chain(entry)),
        section("Files", _files(entry)),
        section("Other versions", _versions(versions)) if versions else "",
        section("The card", folded("The card as text", entry.card)),
        f"<footer>{EXPLAINED if result is not None else ''} Written by MiniWin {escape(__version__)}.</footer>",
    ]
    return finished(f"{entry.name} {entry.version}", [part for part in body if part], STYLE)


def _spec(entry: Described) -> tuple[ModelSpec | None, str]:
    """The architecture, or why it is not known here."""
    try:
        return entry.spec, ""
    except ZooError:
        raise
    except UserError as error:
        return None, str(error)


def _warning(entry: Described) -> str:
    if entry.status == "active":
        return ""
    said = {"yanked": "This version was yanked", "deprecated": "This version is deprecated"}
    return f'<p class="warning"><strong>{said[entry.status]}</strong>: {escape(str(entry.reason))}</p>'


def _facts(entry: Described, spec: ModelSpec | None) -> str:
    trained, lengths = entry.trained_at, CACHE_LENGTHS if spec is not None else ()
    return facts(
        [
            ("Parameters", count_text(entry.parameters)),
            ("Download", decimal_bytes(entry.size) + (", in the package" if entry.zoo == BUILT_IN else "")),
            ("Licence", entry.licence),
            ("Made for", KINDS[entry.kind]),
            ("Trained at", f"{length_text(trained)} tokens" if trained else "not known"),
            *((f"Cache at {length_text(n)}, float32", binary_bytes(spec.cache_bytes(n))) for n in lengths if spec),
            ("Vocabulary", "" if spec is None else f"{spec.vocab_size:,}"),
            ("Zoo", entry.zoo),
            ("Made on", entry.manifest.created[:10]),
            ("Needs", f"miniwin {entry.requires}"),
        ]
    )


def _layers(entry: Described, spec: ModelSpec | None, unknown: str) -> str:
    if spec is None:
        return f'<p class="note">{escape(f"Layers {entry.layout}. They cannot be drawn here: {unknown}")}</p>'
    rows = layer_rows(spec, CACHE_LENGTHS)
    return strip({"layers": rows, "layout": spec.layout, "cache_bytes": dict.fromkeys(CACHE_LENGTHS, 0)})


def _results(entry: Described) -> list[str]:
    if entry.suite is None:
        return []
    said = [f'<p class="verdict">{escape(one)}</p>' for one in verdicts(entry.suite)]
    return said + [f'<p class="note">{escape(one)}</p>' for one in caveats(entry.suite)]


def _confirmation(entry: Described) -> list[str]:
    parts = []
    if (found := confirmed(entry.provenance)) is not None:
        sentence, rows = found
        shown = plain_table(HEADER, rows, "Differences")
        parts.append(section("Confirmed on unseen text", f"<p>{escape(sentence)}</p>{shown}"))
    if (climb := climbed(entry.provenance)) is not None:
        parts.append(section("At other sizes", f"<p>{escape(climb)}</p>"))
    return parts


def _chain(entry: Described) -> str:
    found = links(entry.manifest, entry.provenance)
    items = "".join(f"<dt>{escape(title)}</dt><dd>{escape(said)}</dd>" for title, said in found)
    return f'<p class="note">Each link was recorded when it happened.</p><dl class="chain">{items}</dl>'


def _files(entry: Described) -> str:
    files = sorted(entry.manifest.files.items())
    return plain_table(
        ("file", "size", "sha256"), [(name, decimal_bytes(one.size), one.sha256) for name, one in files], "Files"
    )


def _versions(versions: Mapping[str, str]) -> str:
    shown = (f'<a href="{escape(file)}">{escape(ref)}</a>' for ref, file in versions.items())
    return f"<p>{', '.join(shown)}</p>"


def plain_table(heads: Sequence[str], rows: Sequence[Sequence[str]], label: str) -> str:
    """A table of texts in a box that scrolls by itself."""
    lines = []
    for first, *rest in rows:
        cells = "".join(f'<td class="text{" hash" if len(one) == 64 else ""}">{escape(one)}</td>' for one in rest)
        lines.append(f'<tr><th scope="row" class="text">{escape(first)}</th>{cells}</tr>')
    return table([head(title, text=True) for title in heads], lines, label)
