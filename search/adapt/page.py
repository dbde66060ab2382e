"""The page of the result: one HTML file that needs no other, from what adapt.json holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import Any

from miniwin.blocks.messages.escaping import escaped
from miniwin.display.formats import bytes_text, duration, length_text, plural
from miniwin.display.page.figures import scrolling
from miniwin.display.page.sheet import sheet
from miniwin.evaluation.suite.page import header, section
from miniwin.search.adapt import charts
from miniwin.search.adapt.words import called, interval_text, others_see, verdicts

ORIGINAL, CHOSEN = "original", "chosen"
CELL, HEIGHT = 18, 22  # of a layer, in CSS pixels
METHOD = (
    "All placements were measured on the same texts and questions, which the search has not seen. Text: bits per byte "
    "of the text around the facts. Answers: nats per token of the right answer. An interval holds the true difference "
    "in 95 of 100 measurements: the bootstrap over paired texts, each with its questions."
)


def page(result: dict[str, Any]) -> str:
    base, settings = result["base"], result["settings"]
    trained = f"Healed on {settings['heal']:,} tokens." if settings["heal"] else "Nothing was trained."
    unit = "key/value head" if settings["heads"] else "layer"
    said = (
        f"{plural(result['size'], unit)} of {result['units']} stay global; "
        f"{others_see(settings['window'], settings['sinks'], settings.get('widen', False))}. {trained}"
    )
    figures = [
        section(title, chart)
        for title, chart in (
            ("Quality against cache", charts.front(result)),
            ("What a layer is worth", charts.layers(result)),
            ("Loss by position", charts.by_part(result)),
            ("Answers by depth", charts.by_depth(result)),
            (
                "Single repairs do not add up" if _apart(result) else "What single repairs foretell",
                charts.foretold(result),
            ),
        )
        if chart
    ]
    body = [
        header("MiniWin adapt", f"{base['name']}: local and global layers", said),
        *(f'<p class="verdict">{escape(one)}</p>' for one in verdicts(result)),
        section("Which layers stayed global", _strip(result)),
        section("On unseen texts and questions", _table(result)),
        _gates(result),
        f'<div class="figures">{"".join(figures)}</div>',
        section("By kind of question", _kinds(result)),
        section("Cost", _cost(result)),
        f"<footer>{escape(METHOD)}<br>Written by MiniWin {escape(result['miniwin'])}.</footer>",
    ]
    return escaped(sheet(f"{base['name']}: MiniWin adapt", "\n".join(body)))


def _apart(result: dict[str, Any]) -> bool:
    found = result["search"]["prediction"]["spearman"]
    return found is not None and found < 0.7


def _strip(result: dict[str, Any]) -> str:
    """A box for each layer, filled as far as its heads see the whole context, and what each of these is worth."""
    layout, local = result["placements"][CHOSEN]["layout"], set(result["whole_layers"])
    parts = Counter(int(str(one).partition(".")[0]) for one in result["chosen"])
    whole = {one for one in result["chosen"] if isinstance(one, int)}
    boxes = []
    for place, letter in enumerate(layout):
        kind = "whole" if place in whole else "local"
        seen = "the whole context" if place in whole else "a window" if place in local else "as in the original"
        seen += f", {plural(parts[place], 'head')} the whole context" if place in parts and place not in whole else ""
        x = place * CELL
        boxes.append(
            f'<rect class="layer {kind}" x="{x + 1}" y="1" width="{CELL - 2}" height="{HEIGHT - 2}"><title>'
            f"{escape(f'layer {place}: {seen}')}</title></rect>"
        )
        if place in parts and place not in whole:  # a bar at the foot
            boxes.append(f'<rect class="layer whole" x="{x + 1}" y="{HEIGHT - 6}" width="{CELL - 2}" height="5"/>')
        boxes.append(f'<text class="{kind}" x="{x + CELL / 2:g}" y="14">{escape(letter)}</text>')
    total = CELL * len(layout)
    label = f"{layout}: {', '.join(map(str, result['chosen'])) or 'none'} see the whole context"
    strip = (
        f'<svg class="strip" width="{total}" height="{HEIGHT}" viewBox="0 0 {total} {HEIGHT}" role="img" '
        f'aria-label="{escape(label)}">{"".join(boxes)}</svg>'
    )
    note = (
        "Each layer is a box, the first on the left. A filled box sees the whole context; the others see a window. A "
        "bar at the foot: some of its heads see the whole context."
    )
    return f'<p class="note">{note}</p>{scrolling("Layers", strip)}{_missed(result)}'


def _gates(result: dict[str, Any]) -> str:
    """How long each gate stayed open: a column for each layer, a row for each head."""
    found = result["search"]["gates"]
    if found is None:
        return ""
    boxes, tallest, widest = [], 1, 0
    for one in found["units"]:
        layer, head = (int(part or 0) for part in str(one["unit"]).partition(".")[::2])
        tallest, widest = max(tallest, head + 1), max(widest, layer + 1)
        stays = one["unit"] in result["chosen"] or layer in result["chosen"]
        said = f"{one['unit']}: {one['open']:.0%} open on average, {one['end']:.0%} at the end"
        ring = ' stroke="currentColor" stroke-width="2"' if stays else ""
        boxes.append(
            f'<rect class="layer whole" x="{layer * CELL + 2}" y="{head * CELL + 2}" width="{CELL - 4}" '
            f'height="{CELL - 4}" fill-opacity="{one["open"]:.3f}"{ring}><title>{escape(said)}</title></rect>'
        )
    chart = (
        f'<svg class="strip" width="{widest * CELL}" height="{tallest * CELL}" viewBox="0 0 {widest * CELL} '
        f'{tallest * CELL}" role="img" aria-label="How long each gate stayed open">{"".join(boxes)}</svg>'
    )
    note = (
        "A column is a layer, the first on the left, and a box one of its key/value heads, or the layer. Full colour: "
        "its gate was open to the end. A ring: it was chosen."
    )
    return section("What the gates say", f'<p class="note">{note}</p>{scrolling("Gates", chart)}')


def _missed(result: dict[str, Any]) -> str:
    """What each global unit is worth: the damage without it and with it alone, as the search measured them."""
    rows = [
        (
            f"{'layer' if isinstance(one['unit'], int) else 'head'} {one['unit']}",
            *(
                "–" if one[how] is None else f"{one[how][part]:+.3f}"
                for how in ("without", "alone")
                for part in ("text", "answers")
            ),
        )
        for one in result["search"]["worth"]
    ]
    heads = ("", "without it: text", "answers", "only it: text", "answers")
    note = "Damage in nats a token above the original, on the questions of the search; –: not scored."
    return f'<p class="note">{note}</p>' + scrolling("What each is worth", table(heads, rows)) if rows else ""


def _table(result: dict[str, Any]) -> str:
    heads = ("", "cache", "text, bits a byte", "difference", "answers, nats a token", "difference", "exact")
    rows = []
    for name, one in result["placements"].items():
        text, answers = one["bits_per_byte"], one["answers"]
        first = name == ORIGINAL
        rows.append(
            (
                f"{called(result, name)}: {', '.join(map(str, one['layers'])) or 'none'}" if not first else name,
                f"{one['cache_share']:.1%}",
                f"{text['value']:.4f}",
                "" if first else f"{text['more']:+.2%} {interval_text(text['difference'], 4)}",
                f"{answers['nats']:.3f}",
                "" if first else interval_text(answers["difference"], 3),
                f"{answers['exact']} of {answers['questions']}",
            )
        )
    return scrolling("Placements", table(heads, rows, best=CHOSEN))


def _kinds(result: dict[str, Any]) -> str:
    original, chosen = (result["placements"][name] for name in (ORIGINAL, CHOSEN))
    heads = ("kind", "questions", "original, nats a token", "chosen", "difference", "original exact", "chosen exact")
    rows = []
    for kind, one in chosen["kinds"].items():
        base = original["kinds"][kind]
        rows.append(
            (
                kind,
                str(one["questions"]),
                f"{base['nats']:.3f}",
                f"{one['nats']:.3f}",
                interval_text(one["difference"], 3),
                str(base["exact"]),
                str(one["exact"]),
            )
        )
    return scrolling("Kinds of questions", table(heads, rows))


def _cost(result: dict[str, Any]) -> str:
    original, chosen = (result["placements"][name] for name in (ORIGINAL, CHOSEN))
    settings = result["settings"]
    rows = [
        (
            f"cache at {length_text(settings['length'])} tokens, bfloat16",
            bytes_text(original["cache_bytes"]),
            bytes_text(chosen["cache_bytes"]),
        ),
        *((f"seconds of {name}", "", duration(seconds)) for name, seconds in result["seconds"].items()),
        *((f"placements scored: {stage}", "", str(count)) for stage, count in result["search"]["stages"].items()),
    ]
    return scrolling("Cost", table(("", "original", "chosen"), rows))


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], best: str | None = None) -> str:
    """The first column holds names. best: how the row begins that stands out."""
    head = "".join(
        f'<th scope="col"{" class=text" if place == 0 else ""}>{escape(title)}</th>'
        for place, title in enumerate(heads)
    )
    body = ""
    for row in rows:
        look = ' class="best"' if best is not None and row[0].startswith(best) else ""
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        body += f'<tr{look}><th scope="row" class="text">{escape(row[0])}</th>{cells}</tr>'
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
