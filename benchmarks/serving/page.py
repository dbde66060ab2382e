"""What was measured, in words, as JSON in results/, and as README.md."""

from __future__ import annotations

import datetime
import json
import re
import statistics
from pathlib import Path
from typing import Any

from benchmarks.machine import described, load
from miniwin.files.writing import write_text

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parent / "README.md"
HEAD = """# `miniwin serve`, measured

`python -m benchmarks.serving MODEL --keep` (and with `--stream`, `--conversation 100000`, `--soak 30`) measured this,
through HTTP with OpenAI's client, with server and client on the same machine. A line names its date and load: how many
processes wanted a core in the minute before. With more of them than cores, the figures are those of a busy machine.
Ratios are of the two ways in the same repeat: the median, and in brackets the least and the most.
"""


def words(kind: str, found: dict[str, Any]) -> str:
    """A line of Markdown."""
    if kind == "soak":
        sessions, wrong = sum(found["sessions"].values()), found["wrong"]
        ends = found["memory"][0][1] / 1e6, found["memory"][-1][1] / 1e6
        said = "bounded" if found["bounded"] else "NOT BOUNDED"
        return (
            f"{found['model']}: {sessions:,} random sessions in {found['minutes']:g} minutes, "
            f"{found['sessions'].get('killed', 0):,} of them killed; {len(wrong)} went wrong"
            f"{': ' + '; '.join(wrong[:3]) if wrong else ''}. {found['tokens']['generated']:,} tokens. "
            f"Memory {ends[0]:.0f} MB at first, {ends[1]:.0f} MB at the end; in the later half a line through it "
            f"changes by {found['growth']:+.1%}: {said}."
        )
    if kind == "conversation":
        each = "; ".join(
            f"{name}: {one['cached']:,} of {one['prompt']:,} tokens kept, {one['read']:,} read, {one['seconds']:.2f} s"
            for name, one in ((name, found[name]) for name in ("first", "again", "after a restart"))
        )
        return f"{found['model']}: {each}. On disk {found['disk'] / 1e6:.1f} MB."
    ratio, busy, rates = found["ratio"], found["processor_ratio"], found["tokens_per_second"]
    many, one = (statistics.median(rates[name]) for name in ("at once", "one by one"))
    return (
        f"{found['model']}, {found['sessions']} sessions of {found['tokens']} tokens, "
        f"{'streamed' if found['stream'] else 'answered whole'}, temperature {found['temperature']:g}: at once "
        f"{ratio['median']:.2f}x [{ratio['least']:.2f}, {ratio['most']:.2f}] the tokens a second of one after another "
        f"({many:,.0f} and {one:,.0f}); one after another takes {busy['median']:.2f}x [{busy['least']:.2f}, "
        f"{busy['most']:.2f}] the server's processor time for a token."
    )


def keep(kind: str, found: dict[str, Any]) -> str:
    """Write a result, and the page of all of them. Returns the file's name."""
    RESULTS.mkdir(exist_ok=True)
    name = re.sub(r"[^a-z0-9]+", "-", f"{found['model']} {kind}".lower()).strip("-")
    about = {"date": datetime.date.today().isoformat(), "kind": kind, "machine": described(), "load": load()}
    write_text(RESULTS / f"{name}.json", json.dumps({**about, **found}, indent=1) + "\n")
    write_page()
    return f"{name}.json"


def write_page() -> None:
    lines = []
    for path in sorted(RESULTS.glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        where = f"{found['date']}, {found['machine']['cpu']}, load {found['load']:.1f}"
        lines.append(f"- {words(found['kind'], found)} ({where}; results/{path.name})\n")
    write_text(PAGE, f"{HEAD}\n{''.join(lines)}")
