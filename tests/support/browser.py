"""Pages as a browser has them, after their scripts have run; and servers for as long as a block runs."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
PATIENCE = 300.0  # seconds; only a hang takes that long, however busy the machine is


def browser() -> str:
    """The path of a browser; the test is skipped where there is none."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("Chromium is not installed here")
    return found


def page_in_browser(url: str, seconds: float = 10.0, console: list[str] | None = None) -> str:
    """The elements of a page as HTML, once its scripts have had so many seconds of their own clock.

    console: takes what pages wrote on the console, errors of theirs and of the browser about them.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # No sandbox: root has none, and the page is our own.
        command = [browser(), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
        command += ["--disable-dev-shm-usage", f"--virtual-time-budget={1000 * seconds:.0f}", "--dump-dom"]
        command += [*(["--enable-logging=stderr"] if console is not None else []), url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr[-2000:]
    if console is not None:
        console += [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    return done.stdout


MEASURE = """<!DOCTYPE html><meta charset="utf-8"><body style="margin: 0"><script>
  const measured = {}, pages = PAGES, widths = WIDTHS;
  const one = ([page, width]) => new Promise(done => {
    const frame = document.createElement("iframe");
    frame.style = `width: ${width}px; height: 800px; border: 0`;
    frame.onload = () => {
      const inside = frame.contentDocument, root = inside.documentElement;
      const scrolls = node => getComputedStyle(node).overflowX !== "visible";
      const boxed = node => node !== inside.body && (scrolls(node) || boxed(node.parentElement));
      const out = [...inside.body.querySelectorAll("*")].filter(node =>
        node.getBoundingClientRect().right > root.clientWidth + 1 && !boxed(node));
      const small = [...inside.querySelectorAll("svg.chart text")].filter(t => t.getBoundingClientRect().height < 9);
      measured[`${page} ${width}`] = {
        inner: root.clientWidth, scroll: root.scrollWidth, height: root.scrollHeight,
        out: out.slice(0, 5).map(node => node.outerHTML.slice(0, 120)), small: small.length,
        sections: [...inside.querySelectorAll("h2")].map(h => h.innerText)};
      frame.remove(); done();
    };
    frame.src = page;
    document.body.append(frame);
  });
  (async () => {
    for (const page of pages) for (const width of widths) await one([page, width]);
    const said = document.createElement("pre");
    said.id = "measured"; said.textContent = JSON.stringify(measured);
    document.body.append(said);
  })();
</script></body>"""


def measured_in_browser(
    pages: Sequence[Path], widths: Sequence[int], console: list[str] | None = None
) -> dict[tuple[str, int], dict[str, Any]]:
    """How pages of one folder lie in windows of some widths, by page and width.

    scroll: how wide the page is; inner: how wide the window. out: elements that reach beyond the window and are in no
    box that scrolls. small: texts of charts that are too small to read. sections: their headings. console: as for
    `page_in_browser`.
    """
    folder = pages[0].parent
    names = [page.name for page in pages]
    script = MEASURE.replace("PAGES", json.dumps(names)).replace("WIDTHS", json.dumps(list(widths)))
    (folder / "measure.html").write_text(script, encoding="utf-8")
    with served_folder(folder) as url:
        shown = page_in_browser(f"{url}/measure.html", 20.0, console)
    found = re.search(r'(?s)<pre id="measured">(.*?)</pre>', shown)
    assert found, "the page was not measured"
    measured = json.loads(html.unescape(found[1]))
    return {(name, width): measured[f"{name} {width}"] for name in names for width in widths}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def served_folder(folder: Path) -> Iterator[str]:
    """The URL of a folder that is served until the block ends."""
    port = free_port()
    server = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(folder)]
    with served(server, f"http://127.0.0.1:{port}/", folder):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def served(command: Sequence[str], url: str, folder: Path) -> Iterator[None]:
    """Run a server until the block ends, and begin once it answers at `url`."""
    with open(folder / "server.log", "w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True)
        try:
            deadline = time.monotonic() + PATIENCE
            while True:
                with suppress(OSError), urllib.request.urlopen(url, timeout=PATIENCE) as answer:
                    assert answer.status == 200
                    break
                log.seek(0)
                assert process.poll() is None and time.monotonic() < deadline, log.read()[-2000:]
                time.sleep(0.1)
            yield
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # its workers, too
            process.wait()
