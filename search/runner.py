"""Running a search: make or open the study, prepare the data, and have workers train its trials."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from miniwin.blocks.messages.passwords import masked
from miniwin.runs import read_run
from miniwin.search.claims import retry_failed
from miniwin.search.confirm.scores import check_test
from miniwin.search.creation import create_study
from miniwin.search.first_weights import prepared
from miniwin.search.launchers.choosing import choose
from miniwin.search.launchers.crew import Crew
from miniwin.search.launchers.launcher import Launcher
from miniwin.search.live_table import SearchDisplay
from miniwin.search.measure import check_corpus, check_same_data
from miniwin.search.records import collect
from miniwin.search.space import Space, check_space
from miniwin.search.spec_errors import placed
from miniwin.search.study import Study
from miniwin.search.study_data import StudyData
from miniwin.search.warming import check_sources, warm_start
from miniwin.specs import SearchSpec, UserError, load_search_spec, resolve_spec_path, user_path

if TYPE_CHECKING:
    from miniwin.data import Corpus
    from miniwin.tracking import Tracker


def run_search(
    search: SearchSpec | str | Path,
    *,
    workers: int | None = None,
    storage: str | None = None,
    place: str | None = None,
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
    tracking: str | None = None,
    progress: bool = True,
    base_folder: str | Path | None = None,
    launcher: str | Path | Launcher = "local",
    launcher_options: Sequence[str] = (),
) -> StudyData:
    """Run a search, or go on with it. The study folder is `out`, or searches/<name> under $MINIWIN_HOME or ./runs.

    search: a spec, a YAML file, or the name of a shipped search. base_folder: where relative paths in a SearchSpec
    start; for a file, its own folder. storage: an Optuna storage URL in place of a journal file in the study folder.
    place: where run folders go then, if not into the study folder: a folder that all machines see.
    tracking: an MLflow tracking URI, or "off". launcher: where workers run: local, ray, slurm, or a YAML file with the
    options of one; launcher_options: changes of them, such as "gpus=0.25". On Ctrl-C (KeyboardInterrupt) the workers
    first write checkpoints; the same call goes on. `miniwin search stop` ends the call in the same way.
    """
    path = None
    if isinstance(search, SearchSpec):
        if overrides:
            raise UserError("overrides go with a YAML file; a SearchSpec is changed with model_copy(update=...)")
        spec = search
    else:
        path = resolve_spec_path(search, "search")
        spec = load_search_spec(path, overrides)
        base_folder = path.resolve().parent if base_folder is None else base_folder
    workers = spec.workers if workers is None else workers
    if workers < 1:
        raise UserError(f"workers: got {workers}; expected at least 1")
    where = choose(launcher, launcher_options)
    with placed(path, overrides):
        study = create_study(
            spec,
            user_path(base_folder or "."),
            out=None if out is None else user_path(out),
            storage=storage,
            place=place,
            check=_check,
        )
    with SearchDisplay(progress) as display, _terminating():
        if not collect(study).finished:
            display.note(f"{spec.name}: {check_space(study.space)}")
            display.note(f"{spec.name}: study in {study.folder}")
            corpus = _prepare(study.space, study.train_base)
            check_same_data(study, corpus)
            for line in warm_start(study, corpus.fingerprint):
                display.note(f"{spec.name}: {line}")
            if again := retry_failed(study):
                display.note(f"{spec.name}: {again} failed trials are tried again")
            tracker = _track(study, tracking)
            status = "failed"
            try:
                Crew(study, workers, display, where, tracker.uri).run()
                status = "complete"
                _say_pruned(collect(study), tracker)
            except KeyboardInterrupt:
                status = "interrupted"
                raise
            finally:
                tracker.set_status(status)
                tracker.close()
        data = collect(study)
        display.update(data)
    return data


def _check(space: Space, train_base: Path) -> None:
    """UserError if the search cannot run. Then no study is made: the mended spec would be one of another search."""
    check_sources(space.spec)
    check_space(space)
    _prepare(space, train_base)


def _prepare(space: Space, train_base: Path) -> Corpus:
    """Tokenise once, before the workers ask for the corpus. UserError if it is too short to measure on."""
    from miniwin.training.distilling.check import find_teacher
    from miniwin.training.validation import check_validation

    tokenizer, corpus = prepared(space.train, train_base, space.weights)
    find_teacher(space.base, space.train.resolved(train_base), tokenizer)
    check_corpus(space.spec, space.train, corpus)
    check_test(space.spec, space.train, corpus)
    check_validation(space.train, tokenizer, corpus.texts)
    return corpus


def _say_pruned(data: StudyData, tracker: Tracker) -> None:
    """Tell MLflow that trials that waited until the study was over are pruned. Their own runs end as paused."""
    for trial in data.trials:
        for folder in trial.run_folders if trial.waited_to_the_end else ():
            with suppress(UserError, KeyError, TypeError):  # a run that is damaged has said so elsewhere
                known = read_run(folder)
                if known.get("status") != "complete" and (run := known["tracking"]["run_id"]):
                    tracker.set_status("pruned", trial.reason, run)


def _track(study: Study, uri: str | None) -> Any:
    """The MLflow run whose children the trials are. A study that goes on keeps its run."""
    from miniwin.tracking import Tracker

    before = study.about["tracking"] or {}
    tracker = Tracker.open(
        uri,
        experiment=f"search/{study.spec.name}",
        run_name=study.spec.name,
        resume=before.get("run"),
        tags={"kind": "search", "study": study.about["id"]},
    )
    tracker.log_params({"search": study.spec.model_dump(mode="json")})
    study.about["tracking"] = {"uri": masked(tracker.uri) if tracker.run_id else "off", "run": tracker.run_id}
    study.write_about()
    return tracker


@contextmanager
def _terminating() -> Iterator[None]:
    """SIGTERM is Ctrl-C while the block runs."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
