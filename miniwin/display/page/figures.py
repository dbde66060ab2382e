"""A chart in its figure, with a legend: the shapes and dashes that the chart has, and a note below."""

from __future__ import annotations

from html import escape


def figure(chart: str, keys: str, note: str) -> str:
    legend = f"<ul>{keys}</ul>" if keys else ""
    return f"<figure>{chart}<figcaption>{legend}{escape(note)}</figcaption></figure>"


def dot(kind: str, text: str, square: bool) -> str:
    shape = '<rect x="1" y="1" width="10" height="10"' if square else '<circle cx="6" cy="6" r="5"'
    icon = f'<svg class="key dot" viewBox="0 0 12 12" aria-hidden="true">{shape} class="mark {kind}"/></svg>'
    return f"<li>{icon}{escape(text)}</li>"


def stroke(kind: str, text: str) -> str:
    return (
        '<li><svg class="key" viewBox="0 0 24 12" aria-hidden="true">'
        f'<line class="line {kind}" x1="0" y1="6" x2="24" y2="6"/></svg>{escape(text)}</li>'
    )
