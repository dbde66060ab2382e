"""Processes that pull one model at once."""

from __future__ import annotations

from pathlib import Path

from benchmarks.checks import Check
from benchmarks.zoo_pulls.commands import Home, Running
from benchmarks.zoo_pulls.pulls import contents_of, left_over
from benchmarks.zoo_pulls.server import Server, User
from benchmarks.zoo_pulls.site import REF
from miniwin.zoo import Entry

PACE = 0.1  # seconds for each answer, so that all processes are there before the first is done


def together(folder: Path, entry: Entry, contents: dict[str, bytes], server: Server, processes: int) -> list[Check]:
    user = User(contents, pace=PACE)
    home = Home(folder / "together", server.url("together", user))
    begun = [Running(home, "zoo", "pull", REF, told=f"told-{number}") for number in range(processes)]
    answers = [one.ends() for one in begun]
    failed = [answer.err.strip() for answer in answers if answer.code != 0]
    files = {place: count for place, count in user.asked.items() if place != "index.json"}
    more = [f"{place}: {count} times" for place, count in files.items() if count != 1]
    other = [] if contents_of(home.zoo / "tiny" / "1.0.0") == contents_of(entry.folder) else ["other bytes"]
    return [
        Check(f"{processes} processes pull one model at once, and all succeed", failed),
        Check(f"each of its {len(files)} files was asked for once", more + user.wrong),
        Check("the entry has the right bytes, and nothing is left over", other + list(left_over(home))),
    ]
