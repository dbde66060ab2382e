"""The project's papers: the licence, and every article that the code builds on."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import yaml
from paths import ROOT

# sha256 of the text of Apache-2.0 with single spaces between its words.
APACHE_2 = "0ffddef9e48f8a09aed5caf2d44f7ba1c1be2d9b8e0a6f693b1635b2d5566645"
ARXIV = re.compile(r"arXiv[: ](\d{4}\.\d{4,5})")
PERSON, TEAM = {"given-names", "family-names"}, {"name"}  # of an article signed by a team, the team


def citation() -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    return data


def articles(path: Path) -> list[str]:
    """The arXiv numbers that a file names, "arXiv" and its number on one line or on two."""
    text = re.sub(r"\n *#? *", " ", path.read_text(encoding="utf-8"))
    return ARXIV.findall(text)


def test_licence_is_apache_2_word_for_word() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    words = " ".join(text.split())
    assert words.startswith("Apache License Version 2.0, January 2004 http://www.apache.org/licenses/")
    # Of the text as apache.org publishes it, with the layout taken out.
    assert (
        hashlib.sha256(words.encode()).hexdigest() == "0ffddef9e48f8a09aed5caf2d44f7ba1c1be2d9b8e0a6f693b1635b2d5566645"
    )


def test_citation_is_what_the_format_asks_for() -> None:
    data = citation()
    assert data["cff-version"] == "1.2.0" and data["license"] == "Apache-2.0"
    assert data["message"] and data["title"] == "MiniWin" and data["authors"]
    version = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert version is not None and data["version"] == version[1]
    numbers = []
    for reference in data["references"]:
        assert reference["type"] in ("article", "software") and reference["title"] and reference["year"] > 1990
        assert reference["authors"] and all(set(a) in (PERSON, TEAM) for a in reference["authors"])
        for identifier in reference.get("identifiers", []):
            number = ARXIV.fullmatch(identifier["value"])
            assert number is not None and reference["url"] == f"https://arxiv.org/abs/{number[1]}"
            numbers.append(number[1])
    assert len(numbers) == len(set(numbers))


def test_every_article_named_in_the_code_is_cited() -> None:
    cited = {i["value"].removeprefix("arXiv:") for r in citation()["references"] for i in r.get("identifiers", [])}
    named: dict[str, str] = {}
    for folder in ("blocks", "specs", "miniwin", "zoo", "search"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".yaml", ".txt"):
                named |= dict.fromkeys(articles(path), str(path.relative_to(ROOT)))
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        named |= dict.fromkeys(articles(page), page.name)
    assert {"2104.09864", "2507.11407", "2205.09921"} <= set(named)  # in code, in a spec's comment, on a page
    missing = {number: path for number, path in named.items() if number not in cited}
    assert missing == {}, "add them to CITATION.cff"
