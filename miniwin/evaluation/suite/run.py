"""Running a suite: plan its parts, measure those that are not done yet, and put all rows together.

    result = run_suite("miniwin-1m", "quick")
    result["recall@2048"].value

A part is written when it is done. The same call after a kill goes on behind the last part. Apart from times, a result
depends on the suite, the model, the data and the machine alone.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from platform import python_version
from typing import TYPE_CHECKING, Any

from miniwin.evaluation.suite.cost import cache_parts, exponent_rows, speed_parts
from miniwin.evaluation.suite.losses import loss_parts
from miniwin.evaluation.suite.page import write_page
from miniwin.evaluation.suite.part import Part, Planned
from miniwin.evaluation.suite.progress import SuiteProgress
from miniwin.evaluation.suite.result import SuiteModel, SuiteResult
from miniwin.evaluation.suite.shift import shift_parts
from miniwin.evaluation.suite.store import PAGE, RESULT, Store, opened, weights_hash
from miniwin.evaluation.suite.tasks import task_parts
from miniwin.evaluation.suite.trained import trained_length as recorded_length
from miniwin.files.writing import Unwritable
from miniwin.language_model import LanguageModel
from miniwin.provenance import code_version, machine
from miniwin.runs import BEST, RUN
from miniwin.specs import SuiteSpec, UserError, load_spec, resolve_spec_path, user_path
from miniwin.specs.loading import at_their_places
from miniwin.specs.validation_errors import Problem, said
from miniwin.version import __version__

if TYPE_CHECKING:
    from miniwin.data import Corpus
    from miniwin.specs import DataSpec

KINDS = (loss_parts, task_parts, shift_parts, speed_parts, cache_parts)  # in the order in which they are measured
LONGEST = 2**31 - 1


def run_suite(
    model: LanguageModel | str | Path,
    suite: SuiteSpec | str | Path,
    data: DataSpec | Corpus | str | Path | None = None,
    *,
    out: Path | str | None = None,
    fresh: bool = False,
    trained_length: int | None = None,
    progress: bool = False,
) -> SuiteResult:
    """Measure a model by a suite, or go on with it.

    suite: a spec, its YAML file, or the name of a shipped one: `quick`, `long-context`. data: as for `evaluate`; the
    suite's own `loss.data` comes first. out: the folder of the parts; by default `place`. fresh: measure everything
    anew. trained_length: what `1x` means; by default what the model's run says.

    Raises:
        UserError: the suite cannot be measured so, with all reasons, before anything is measured; or the folder holds
            another measurement.
    """
    from miniwin.loading import load

    if isinstance(model, str | Path):
        model = load(model)
    file: Path | None = None
    if isinstance(suite, SuiteSpec):
        spec = suite
    else:
        file = resolve_spec_path(suite, "suite")
        spec = load_spec(file, "suite")
    if trained_length is not None and not 1 <= trained_length <= LONGEST:
        raise UserError(f"trained_length: expected a number of tokens from 1 to {LONGEST}, got {trained_length}")
    planned = Planned(spec, model, trained_length or recorded_length(model), _corpus(model, spec, data, file))
    parts = [part for kind in KINDS for part in kind(planned)]
    if planned.problems:
        raise _refused(planned.problems, file)
    folder = place(model, spec) if out is None else user_path(out)
    about = _about(planned)
    with opened(folder, about, fresh) as store:
        return _measured(planned, parts, store, about, progress)


def place(model: LanguageModel, suite: SuiteSpec) -> Path:
    """Where the parts go: into the run folder of the model; else a folder here, named by model and suite.

    The best weights of a run are another model than its last ones, and have a folder of their own.
    """
    if model.folder is not None and (model.folder / RUN).is_file():
        best = Path(model.ref).name == BEST and (model.folder / BEST).is_file()
        return model.folder / ("best-suites" if best else "suites") / suite.name
    return Path(folder_name(model, suite))


def folder_name(model: LanguageModel, suite: SuiteSpec) -> str:
    """A name for the parts of a model, from what it was loaded by."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(model.ref).stem if model.folder is None else model.ref).strip("-.")
    return f"{name or 'model'}-{suite.name}"


def _corpus(model: LanguageModel, suite: SuiteSpec, data: Any, file: Path | None) -> Corpus | None:
    """The corpus of the losses and shifts, if the suite has any."""
    if suite.loss is None and suite.shift is None:
        return None
    from miniwin.data.checking import OF_SUITES, data_problem
    from miniwin.evaluation.data import corpus_for

    own = None if suite.loss is None else suite.loss.data
    if own is None:
        return corpus_for(model, data)
    if data is not None:
        raise UserError("data: the suite names its own text (loss.data); leave out one of them")
    if model.tokenizer is None:
        raise UserError(f"{model.ref} has no tokenizer, so it cannot be evaluated on text")
    try:
        return corpus_for(model, own, None if file is None else file.resolve().parent)
    except Unwritable:  # the cache, not the data
        raise
    except UserError as error:
        raise _refused([data_problem(error, within=OF_SUITES)], file) from None


def _refused(problems: list[Problem], file: Path | None) -> UserError:
    """What is wrong with a suite, at its places in the file if it is from one."""
    return said(problems, None, {}) if file is None else at_their_places(problems, file, "suite")


def _about(planned: Planned) -> dict[str, Any]:
    """Everything that parts have to have in common."""
    model, corpus = planned.model, planned.corpus
    hardware = machine()
    return {
        "suite": planned.suite.model_dump(mode="json"),
        "device": str(model.device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "model": {"hash": model.spec.hash, "weights": weights_hash(model), "trained_length": planned.trained},
        "tokenizer": None if model.tokenizer is None else model.tokenizer.identity,
        "data": None if corpus is None else {"fingerprint": corpus.fingerprint},
        "python": python_version() if any(one.parsed_task.of_this_python for one in planned.suite.tasks) else None,
        "machine": {name: hardware[name] for name in ("cpu", "gpu", "threads")},
        "version": __version__,
    }


def _measured(planned: Planned, parts: list[Part], store: Store, about: dict[str, Any], progress: bool) -> SuiteResult:
    done = {part.key: found for part in parts if (found := store.read(part.key)) is not None}
    waiting = [part for part in parts if part.key not in done]
    with SuiteProgress(waiting, len(done), progress) as bar:
        for part in waiting:
            began = time.monotonic()
            with bar.part(part) as advance:
                rows = part.measure(advance)
            seconds = time.monotonic() - began
            store.write(part.key, rows, seconds)
            done[part.key] = rows, seconds
    rows = [row for part in parts for row in done[part.key][0]]
    first = {row.measure: number for number, row in reversed(list(enumerate(rows)))}
    rows.sort(key=lambda row: first[row.measure])  # lengths of one measure stand together
    result = SuiteResult(
        suite=planned.suite.name,
        spec=about["suite"],
        model=SuiteModel(
            ref=planned.model.ref,
            hash=planned.model.spec.hash,
            weights=about["model"]["weights"],
            parameters=planned.model.spec.parameters(),
            trained_length=planned.trained,
        ),
        device=about["device"],
        dtype=about["dtype"],
        version=code_version(),
        date=store.began,
        machine=machine(),
        data=None if planned.corpus is None else planned.corpus.describe(),
        seconds=sum(seconds for _, seconds in done.values()),
        rows=[*rows, *exponent_rows(rows)],
    )
    result.write(store.folder / RESULT)
    write_page(result, store.folder / PAGE)
    return result
