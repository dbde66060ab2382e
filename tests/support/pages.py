"""The README and the pages of docs/, and what a test takes out of them: code, commands, tables, links."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from paths import ROOT

README = ROOT / "README.md"
PAGES = (README, *sorted((ROOT / "docs").glob("*.md")))  # in the order in which their commands run
OTHERS = (ROOT / "CONTRIBUTING.md",)  # links from there are checked, too


@dataclass(frozen=True)
class Command:
    """A line that a page shows after `$`, without its comment, and the output shown below."""

    page: str
    line: str
    below: list[str] = field(default_factory=list)


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(path: Path, language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    return [text for tag, text in fenced if tag == language]


def commands() -> list[Command]:
    found: list[Command] = []
    for path in PAGES:
        for block in blocks(path, ""):
            shown: Command | None = None
            for line in block.replace("\\\n    ", "").splitlines():
                if line.startswith("$ "):
                    shown = Command(path.name, re.sub(r"\s{2,}#.*", "", line)[2:].strip())
                    found.append(shown)
                elif shown is not None and line.strip() not in ("", "..."):
                    shown.below.append(line)
    return found


def table(text: str, header: str) -> list[list[str]]:
    """The cells of the rows of the table whose header line begins so."""
    lines = text[text.index(f"\n{header}") + 1 :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def in_backticks(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", text)


def links(text: str) -> list[str]:
    """Where a page's links and pictures lead. Code has no links."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    return re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`(?!\])", "", prose))


def anchors(text: str) -> set[str]:
    """The names that GitHub gives to headings."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
