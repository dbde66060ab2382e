"""The empty page of a report: an HTML file with its style and its script inside, which loads nothing.

The content security policy allows the page's own style and this one script (by its hash), and nothing else: no image,
no font, no request, and no script that a name in somebody's YAML might smuggle in. The script only sorts and filters
the table and copies text. Without the script everything can still be read.
"""

from __future__ import annotations

import base64
import hashlib
from html import escape

from miniwin.display.page.style import STYLE

SCRIPT = """
"use strict";
(() => {
  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
    const value = (row, n) => row.cells[n].dataset.v ?? row.cells[n].textContent;
    heads.forEach((head, n) => {
      const button = document.createElement("button");
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        heads.forEach(h => h.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const numeric = !head.classList.contains("text");
        const rows = [...body.rows].map(row => [row, value(row, n)]);
        rows.sort(([, a], [, b]) => {
          if (a === "" || b === "") return (a === "") - (b === "");  // nothing known: last, whichever way
          const order = numeric ? a - b : a.localeCompare(b);
          return up ? order : -order;
        });
        body.append(...rows.map(([row]) => row));
      });
    });
  }
  const filter = document.getElementById("filter");
  if (filter) {
    filter.hidden = false;
    const rows = filter.parentElement.querySelector("table.sortable").tBodies[0].rows;
    const choices = [...filter.querySelectorAll("button")];
    choices.forEach(choice => choice.addEventListener("click", () => {
      choices.forEach(c => c.setAttribute("aria-pressed", String(c === choice)));
      for (const row of rows) {
        row.hidden = choice.value !== "" && row.id !== "baseline" && row.dataset.state !== choice.value;
      }
    }));
    for (const link of document.querySelectorAll("svg a")) {
      link.addEventListener("click", () => choices[0].click());  // so that the row it leads to is there
    }
  }
  for (const button of document.querySelectorAll(".copy")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const source = button.parentElement.querySelector("code");
      try {
        await navigator.clipboard.writeText(source.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(source);
        button.textContent = "Selected: press Ctrl-C";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
  }
})();
"""


def sheet(title: str, body: str, style: str = "") -> str:
    """The whole page. `title` is plain text; `body` is HTML that has been escaped where it must be.

    style: rules of a page's own, after those of all pages.
    """
    fingerprint = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{fingerprint}'; base-uri 'none'; "
        "form-action 'none'"
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}{style}</style>\n</head>\n<body>\n{body}\n"
        f"<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def copyable(text: str) -> str:
    """A block of text with a button that copies it."""
    return (
        '<div class="box"><button type="button" class="copy" hidden>Copy</button>'
        f"<pre><code>{escape(text)}</code></pre></div>"
    )
