"""The pages of docs/ as a site: it is built without a warning, leads nowhere else by itself, and fits a phone."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from browser import browser, measured_in_browser
from paths import ROOT

WIDTHS = (390, 1280)
SHOWN = ("index", "fields", "tasks", "api")  # the widest tables, the longest lines, what is made of docstrings
LOADED = re.compile(r"<(?:script|img|iframe)[^>]*\ssrc=\"https?:|<link[^>]*rel=\"stylesheet\"[^>]*href=\"https?:")


def test_links_out_of_the_pages_become_names() -> None:
    named = runpy.run_path(str(ROOT / "docs" / "site_links.py"))["on_page_markdown"]
    assert named("see [the claims](../benchmarks/claims/README.md#x), [b](b.md)") == (
        "see the claims (`benchmarks/claims/README.md`), [b](b.md)"
    )
    assert named("[`blocks/native`](../blocks/native)") == "`blocks/native`"


def test_the_site_is_built_and_fits(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="the extra `docs` is not installed")
    pytest.importorskip("mkdocstrings", reason="the extra `docs` is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = sorted((tmp_path / "site").glob("*.html"))
    assert len(pages) > 20
    for page in pages:
        assert not LOADED.search(page.read_text(encoding="utf-8")), page.name
    browser()
    shown = [tmp_path / "site" / f"{name}.html" for name in SHOWN]
    for (name, width), found in measured_in_browser(shown, WIDTHS).items():
        assert found["scroll"] <= found["inner"] <= width, (name, width, found)
