"""A chart in its figure, with a legend and a note below; and a table in its box."""

from __future__ import annotations

from html import escape


def figure(chart: str, keys: str, note: str) -> str:
    legend = f"<ul>{keys}</ul>" if keys else ""
    return f"<figure>{chart}<figcaption>{legend}{escape(note)}</figcaption></figure>"


def scrolling(label: str, table: str, tall: bool = False) -> str:
    """A table in a box that scrolls on its own, also with the keyboard, so that the page never does sideways.

    tall: the box is not higher than most of a window.
    """
    kind = "scroll tall" if tall else "scroll"
    return f'<div class="{kind}" tabindex="0" role="region" aria-label="{escape(label)}">{table}</div>'


def dot(kind: str, text: str, square: bool) -> str:
    shape = '<rect x="1" y="1" width="10" height="10"' if square else '<circle cx="6" cy="6" r="5"'
    icon = f'<svg class="key dot" viewBox="0 0 12 12" aria-hidden="true">{shape} class="mark {kind}"/></svg>'
    return f"<li>{icon}{escape(text)}</li>"


def stroke(kind: str, text: str) -> str:
    return (
        '<li><svg class="key" viewBox="0 0 24 12" aria-hidden="true">'
        f'<line class="line {kind}" x1="0" y1="6" x2="24" y2="6"/></svg>{escape(text)}</li>'
    )
