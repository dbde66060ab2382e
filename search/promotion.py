"""From a trial to a zoo entry: train longer if asked, evaluate, and write down where the entry came from.

A model of text is measured on the study's text. One that was trained on tasks alone is asked these tasks, on their test
split, as `miniwin zoo add` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from miniwin.blocks.messages.listing import some
from miniwin.machine.devices import find_device
from miniwin.search.candidate import Candidate, without_tokenizer
from miniwin.search.confirm import words
from miniwin.search.ladder import words as ladder
from miniwin.search.objectives import eval_tokens, report_lengths
from miniwin.search.records import collect
from miniwin.search.study import Study, find_study
from miniwin.search.study_data import StudyData, TrialRecord
from miniwin.specs import TrainSpec, UserError, load_train_spec, overridden, resolve_spec_path
from miniwin.specs.data import tasks_alone

if TYPE_CHECKING:
    from miniwin.data import Corpus
    from miniwin.evaluation.suite.result import SuiteResult
    from miniwin.language_model import LanguageModel
    from miniwin.zoo import Entry


def promote(
    study: str | Path,
    *,
    name: str,
    trial: int | str = "best",
    version: str | None = None,
    tokens: int | float | str | None = None,
    train: str | Path | None = None,
    set_train: Sequence[str] = (),
    lengths: Sequence[int] | None = None,
    zoo: Path | str | None = None,
    description: str = "",
    licence: str | None = None,
    tracking: str | None = None,
    progress: bool = True,
) -> Entry:
    """Add a trial of a study to the zoo as `name`, with its metrics and its provenance.

    trial: a number, or "best": with several objectives, the trial of the front with the lowest loss. A confirmation
    does not change which one is best, or the test split would have chosen; the card shows it. tokens, train,
    set_train: train the architecture afresh, since a schedule that has ended cannot go on. The run is in promoted/ of
    the study folder, and the same call goes on with it. Without these three the trial's own weights are taken; of
    several seeds the first one's, so that no text has chosen them. Of a trial of 0 tokens they are those that the study
    began with. lengths: the lengths to evaluate at; by default those that the study reports, and of tasks those of
    `miniwin zoo add`. licence: as for `zoo.add`.
    """
    from miniwin.data import prepare
    from miniwin.evaluation.data import refuse_other_data
    from miniwin.loading import load
    from miniwin.zoo import add
    from miniwin.zoo.adding import check_addable

    opened = Study(find_study(study), reading=True)
    data = collect(opened)
    chosen = _chosen(data, trial)
    assert chosen.spec is not None and chosen.train is not None and chosen.run_folder is not None
    opened.place.fetch(chosen.run_folder.parent)
    spec, base = _train_spec(opened, chosen.train, tokens, train, set_train)
    run = chosen.run_folder
    longer = spec != chosen.train
    if longer or opened.space.untrained:  # without training there is no run yet
        run = _train_afresh(opened, chosen, spec, base, tracking, progress)
    check_addable(run, name=name, version=version, zoo=zoo, licence=licence)  # before an evaluation takes its time
    model = load(run, device=find_device(None))
    assert model.tokenizer is not None
    corpus = prepare(spec.data, model.tokenizer, base, chat_format=model.chat_format if opened.weights else None)
    refuse_other_data(run, corpus)
    metrics, suite = _measured(opened, spec, model, corpus, lengths, progress)
    return add(
        run,
        name=name,
        version=version,
        metrics=metrics,
        suite=suite,
        provenance=_provenance(opened, data, chosen, spec, corpus.fingerprint, retrained=longer),
        description=description,
        licence=licence,
        zoo=zoo,
    )


def _measured(
    study: Study, spec: TrainSpec, model: LanguageModel, corpus: Corpus, lengths: Sequence[int] | None, progress: bool
) -> tuple[dict[str, Any] | None, SuiteResult | None]:
    """(the metrics on text, the result of a suite): one of them, by what the model was trained on."""
    from miniwin.evaluation import evaluate
    from miniwin.evaluation.suite.own_tasks import TIMES, ask_own_tasks

    if tasks := tasks_alone(spec.data):
        at = sorted(set(lengths or [times * spec.longest for times in TIMES]))
        return None, ask_own_tasks(model, tasks, at, progress=progress)
    at = sorted(set(lengths)) if lengths else report_lengths(study.spec, spec)
    needed = max(eval_tokens(study.spec, spec), *at)
    tokens = min(needed, max(corpus.available, at[-1]))
    return evaluate(model, corpus, lengths=at, tokens_per_length=tokens, progress=progress).to_dict(), None


def _chosen(data: StudyData, trial: int | str) -> TrialRecord:
    if str(trial) == "best":
        if data.best is None:
            raise UserError(f"{data.folder} has no complete trial yet: miniwin search run goes on with it")
        return _whole(data.best)
    try:
        number = int(trial)
    except ValueError:
        raise UserError(f"trial {trial!r}: expected the number of a trial, or best") from None
    found = data.trial(number)
    if found.state == "duplicate":
        raise UserError(f"trial {number} is a duplicate: promote trial {found.duplicate_of} instead")
    if found.state != "complete":
        complete = some((other.number for other in data.completed), 20) or "none yet"
        raise UserError(f"trial {number} is {found.state}, not complete; complete are: {complete}")
    return _whole(found)


def _whole(trial: TrialRecord) -> TrialRecord:
    """The trial, or UserError if its files are gone or damaged."""
    if trial.problem is not None or trial.spec is None or trial.train is None or trial.run_folder is None:
        problem = trial.problem or "its specs are not known"
        raise UserError(
            f"{trial.label} cannot be promoted: {problem}; put it back from a copy, or choose another --trial"
        )
    return trial


def _train_spec(
    study: Study,
    own: TrainSpec,
    tokens: int | float | str | None,
    train: str | Path | None,
    changes: Sequence[str],
) -> tuple[TrainSpec, Path]:
    """How to train, and the folder where relative paths start.

    own: what the search chose for the trial; it holds unless another train spec is given.
    """
    overrides = [*changes, *([] if tokens is None else [f"tokens={tokens}"])]
    if train is not None:
        path = resolve_spec_path(train, "train")
        return load_train_spec(path, overrides, "--set-train"), path.resolve().parent
    found: TrainSpec = overridden(own, overrides, "--set-train") if overrides else own
    if overrides and "tokenizer" not in own.model_fields_set and not any(o.startswith("tokenizer=") for o in overrides):
        found = without_tokenizer(found)  # that of the weights
    return found, study.train_base


def _train_afresh(
    study: Study, chosen: TrialRecord, spec: TrainSpec, base: Path, tracking: str | None, progress: bool
) -> Path:
    from miniwin.training.launch import train

    assert chosen.spec is not None
    weights = study.weights
    first = () if weights is None else weights.identity
    folder = study.folder / "promoted" / Candidate(chosen.spec, spec, first).hash[:12]
    result = train(
        chosen.spec,
        spec,
        from_=None if weights is None else weights.start(chosen.spec),
        out=folder,
        base=base,
        progress=progress,
        tracking=tracking,
        experiment=f"search/{study.spec.name}",
        run_name=f"promoted-{chosen.number}",
    )
    if result.status == "interrupted":
        raise KeyboardInterrupt
    if result.status != "complete":
        raise UserError(
            f"training {chosen.label} afresh ended as {result.status}: {result.reason}; try other --set-train, "
            "such as a lower optimizer.lr"
        )
    return folder


def _confirmed(data: StudyData, chosen: TrialRecord) -> dict[str, Any]:
    """What a confirmation says of the trial, with other seeds and the tokens of a trial; nothing if there is none."""
    result = None if data.confirmation is None else data.confirmation.result
    pairs = [] if result is None else [one for one in result.comparisons if one.first == chosen.label]
    if result is None or not pairs:
        return {}
    trained = data.train.longest
    about = {"split": result.split, "seeds": result.seeds, "tokens": data.train.tokens, "trials": result.trained}
    about |= {"untrained": True} if result.untrained else {}
    differences = [
        {
            **measured.model_dump(mode="json"),
            "against": pair.other,
            "measure": words.titled(words.objective_of(measured), trained),
            "difference": "" if measured.value is None else words.signed(words.objective_of(measured), measured.value),
            "interval": "exact" if measured.of == "spec" else words.interval(measured),
        }
        for pair in pairs
        for measured in pair.measures
    ]
    return {
        "confirmation": {"sentence": words.sentence(result, pairs[0], trained), **about, "differences": differences}
    }


def _weights(data: StudyData, chosen: TrialRecord) -> dict[str, Any]:
    """Which of several seeds the weights are of: the first, so that none was chosen."""
    if data.spec.seeds == 1:
        return {}
    said = f"seed {chosen.seed}, the first of {data.spec.seeds}; the values of the trial are means over all of them"
    return {"weights_of": said, "trial_spread": chosen.spread}


def _rate(chosen: TrialRecord, spec: TrainSpec) -> dict[str, Any]:
    """The learning rate, if the trial has tuned it, and among which. spec: how the weights were trained."""
    if chosen.learning_rate is None:
        return {}
    tried = [one.learning_rate for one in chosen.trainings if one.sweeps]
    said = f"{chosen.learning_rate:g}, the best of {some((f'{rate:g}' for rate in tried if rate), 20)}"
    said += ", and at their edge" if chosen.rate_at_edge else ""
    if spec.optimizer.lr != chosen.learning_rate:
        said += f"; the weights are of {spec.optimizer.lr:g}"
    return {"tuned_rate": said, "rates_tried": tried}


def _climbed(data: StudyData, chosen: TrialRecord) -> dict[str, Any]:
    """What a ladder says of the trial; nothing if there is none."""
    result = None if data.ladder is None or not data.ladder.current else data.ladder.result
    pair = None if result is None else next((one for one in result.compared if one.first == chosen.label), None)
    if result is None or pair is None:
        return {}
    return {
        "ladder": {
            "sentence": ladder.full(ladder.sentence(result, pair)),
            "sizes": [step.target for step in result.steps],
            "length": result.length,
            **pair.model_dump(mode="json"),
        }
    }


def _provenance(
    study: Study, data: StudyData, chosen: TrialRecord, spec: TrainSpec, fingerprint: str, *, retrained: bool
) -> dict[str, Any]:
    """Facts about the search. The zoo adds those of the run (data, seed, code, machine) from the run folder."""
    search = study.spec.model_dump(mode="json")
    if study.weights is not None and Path(study.weights.ref).is_absolute():
        search["weights"] = Path(study.weights.ref).name  # whose folder is nobody's business
    return {
        "study": study.spec.name,
        "study_id": study.about["id"],
        "trial": chosen.number,
        "params": chosen.params,
        "trial_values": chosen.values,
        "trial_tokens": chosen.tokens,
        "retrained": retrained,
        "seed": spec.seed,
        "data_fingerprint": fingerprint,
        "spec_hash": None if chosen.spec is None else chosen.spec.hash,
        "search": search,
        "trials": {
            state: sum(t.state == state for t in data.trials) for state in sorted({t.state for t in data.trials})
        },
        "front": [trial.number for trial in data.front],
        **({} if retrained else _weights(data, chosen)),
        **_rate(chosen, spec),
        **_confirmed(data, chosen),
        **_climbed(data, chosen),
        "baseline": None
        if data.baseline is None
        else {
            "layout": data.baseline.layout,
            "losses": {str(length): loss for length, loss in data.baseline.losses.items()},
        },
    }
