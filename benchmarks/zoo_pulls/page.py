"""README.md from results.json. No figure is typed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from miniwin.files.writing import write_text

FOLDER = Path(__file__).parent
FILE = FOLDER / "results.json"


def write_page() -> Path:
    write_text(FOLDER / "README.md", page(json.loads(FILE.read_text(encoding="utf-8"))))
    return FOLDER / "README.md"


def page(results: dict[str, Any]) -> str:
    pulls, kills, machine = results["pulls"], results["kills"], results["machine"]
    landed = f" (landed as {results['landed']})" if "landed" in results else ""
    by_command = ", ".join(f"{count} of {name}" for name, count in kills["killed"].items())
    lines = [
        "# Pulls from a hostile server, races and kills",
        "",
        "`python -m benchmarks.zoo_pulls` writes this page. No figure is typed by hand.",
        "",
        f"{pulls['count']} pulls of an entry of {results['bytes']:,} bytes in {results['files']} files, from a server "
        f"that did {sum(pulls['faults'].values()):,} things to them: {pulls['succeeded']} succeeded at once, "
        f"{pulls['refused']} ended with one error, and succeeded when the server behaved. {pulls['resumed']} requests "
        f"asked for the rest of a file.",
        "",
        *_table(pulls["checks"]),
        f"{results['together']['processes']} processes at once:",
        "",
        *_table(results["together"]["checks"]),
        f"{sum(kills['killed'].values())} kills with SIGKILL: {by_command}.",
        "",
        *_table(kills["checks"]),
        "## What the server did",
        "",
        "| fault | times |",
        "|---|---:|",
        *(f"| {fault} | {times} |" for fault, times in sorted(pulls["faults"].items())),
        "",
        "## Where and when",
        "",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}, Python {machine['python']}, miniwin "
        f"{machine['miniwin']}{landed}, {results['date']}, seed {results['seed']}. The pulls took "
        f"{pulls['seconds']:.0f} s, the kills {kills['seconds']:.0f} s.",
        "",
    ]
    return "\n".join(lines)


def _table(checks: list[dict[str, Any]]) -> list[str]:
    rows = [f"| {one['what']} | {'does **not** hold' if one['wrong'] else 'holds'} |" for one in checks]
    return ["| what has to hold | |", "|---|---|", *rows, ""]
