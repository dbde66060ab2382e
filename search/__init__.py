"""Architecture search: a search spec becomes a study folder of trained trials, a report and a zoo entry.

    run_search("specs/searches/demo.yaml", workers=2)      run, or continue, a study
    read_study("runs/searches/demo")                       what is in it: StudyData, with a TrialRecord per trial
    promote("runs/searches/demo", name="my-model")         the best trial becomes a zoo entry

Exported lazily, so that importing one part does not import PyTorch and Optuna.
"""

from __future__ import annotations

if __name__ == "search":
    raise ImportError("this package is imported as miniwin.search: write `from miniwin.search import ...`")

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = [
    "StudyData",
    "TrialRecord",
    "check_search",
    "clean_study",
    "compare_studies",
    "confirm_search",
    "export_study",
    "ladder_search",
    "promote",
    "read_study",
    "resume_search",
    "run_search",
    "stop_search",
    "to_frame",
    "watch_study",
]

_HOME = {
    "StudyData": "miniwin.search.study_data",
    "TrialRecord": "miniwin.search.study_data",
    "check_search": "miniwin.search.space",
    "clean_study": "miniwin.search.cleaning",
    "compare_studies": "miniwin.search.comparing",
    "confirm_search": "miniwin.search.confirm.asking",
    "export_study": "miniwin.search.frames",
    "ladder_search": "miniwin.search.ladder.asking",
    "promote": "miniwin.search.promotion",
    "read_study": "miniwin.search.records",
    "resume_search": "miniwin.search.resuming",
    "run_search": "miniwin.search.runner",
    "stop_search": "miniwin.search.stopping",
    "to_frame": "miniwin.search.frames",
    "watch_study": "miniwin.search.watching",
}

if TYPE_CHECKING:
    from miniwin.search.cleaning import clean_study
    from miniwin.search.comparing import compare_studies
    from miniwin.search.confirm.asking import confirm_search
    from miniwin.search.frames import export_study, to_frame
    from miniwin.search.ladder.asking import ladder_search
    from miniwin.search.promotion import promote
    from miniwin.search.records import read_study
    from miniwin.search.resuming import resume_search
    from miniwin.search.runner import run_search
    from miniwin.search.space import check_search
    from miniwin.search.stopping import stop_search
    from miniwin.search.study_data import StudyData, TrialRecord
    from miniwin.search.watching import watch_study


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value  # so that it is looked up once
    return value
