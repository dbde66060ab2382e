"""Watching a study from outside: nothing is written, so any machine that sees the folder can watch."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from miniwin.search.live_table import SearchDisplay
from miniwin.search.records import collect
from miniwin.search.study import Study, find_study
from miniwin.search.study_data import StudyData

LOOK_SECONDS = 1.0


def watch_study(study: str | Path) -> StudyData:
    """Show a study on standard output until it is over: a live table on a terminal, elsewhere a line for each change.

    study: its folder or its name. A search that was stopped is not over: it may go on at any time.
    """
    folder = find_study(study)
    opened = Study(folder, reading=True)
    with SearchDisplay(stream=sys.stdout) as display:
        while True:
            opened.read_again()  # the budget may have grown
            data = collect(opened)
            display.update(data)
            if data.finished:
                return data
            time.sleep(LOOK_SECONDS)
