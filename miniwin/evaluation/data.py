"""The corpus that an evaluation runs on, from whatever a person may name it by."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from miniwin.files.json_files import JSONProblem, read_json
from miniwin.files.writing import Unwritable
from miniwin.runs import RUN, TRAIN, read_run
from miniwin.specs import TrainSpec, UserError, load_train_spec, user_path
from miniwin.specs.data import DataSpec, JsonlData, MixtureData, PythonStdlibData, TableData, TextData

if TYPE_CHECKING:
    from miniwin.data import Corpus
    from miniwin.language_model import LanguageModel

PROVENANCE = "provenance.json"
NAME_IT = "name what to measure on with --data (data= in Python)"


def corpus_for(
    model: LanguageModel, data: DataSpec | TrainSpec | Corpus | str | Path | None, base: Path | None = None
) -> Corpus:
    """The corpus that `data` names, in the model's tokens. base: the folder that the paths of a spec start from.

    An evaluation always uses the validation part, also of text that is named directly: a model that was trained on the
    same file with the default split has not seen that part. Without `data` the corpus is what the model was trained
    on. No other data takes its place, since the number would look comparable without being so.

    Raises:
        UserError: the data cannot be found or read, or has changed since training, or does not fit the tokenizer.
    """
    from miniwin.data import Corpus, prepare

    if isinstance(data, Corpus):
        return data
    if model.tokenizer is None:
        raise UserError(f"{model.ref} has no tokenizer, so it cannot be evaluated on text")
    if data is not None:
        spec, own = _data_spec(data)
        return _known(
            model, _with_text(prepare(spec, model.tokenizer, base=own or base, chat_format=model.chat_format), "data")
        )
    spec, base = _own_data(model)
    try:
        corpus = prepare(spec, model.tokenizer, base=base, chat_format=model.chat_format)
    except Unwritable:  # the cache, not the data
        raise
    except UserError as error:
        raise UserError(f"what {model.ref} was trained on cannot be read: {error}; put it back, or {NAME_IT}") from None
    if model.folder is not None and (model.folder / RUN).is_file():
        refuse_other_data(model.folder, corpus, f", or {NAME_IT}")
    return _known(model, _with_text(corpus, f"what {model.ref} was trained on"))


def _with_text(corpus: Corpus, what: str) -> Corpus:
    if not corpus.has_text:
        raise UserError(
            f"{what}: source {corpus.info['source']} has no text to measure bits per byte on; name text with --data "
            "(data= in Python), such as --data python-stdlib"
        )
    return corpus


def _known(model: LanguageModel, corpus: Corpus) -> Corpus:
    """The corpus. UserError if it holds special tokens of an imported tokenizer that its model has no rows for."""
    assert model.tokenizer is not None
    size = model.spec.vocab_size
    if model.tokenizer.vocab_size <= size:
        return corpus
    last = max((int(text.ids.max()) for text in corpus.texts if len(text.ids)), default=0)
    if last >= size:
        raise UserError(
            f"{model.ref}: its text holds {model.tokenizer.decode([last])!r}, whose id {last} the model does not know "
            f"(0 to {size - 1}), so it cannot be evaluated on it"
        )
    return corpus


def refuse_other_data(run: Path, corpus: Corpus, otherwise: str = "") -> None:
    """Raise UserError if `corpus` is not what the run was trained on, by its fingerprint.

    A run that trained on no token names the data to measure on, and has no fingerprint of its own.
    otherwise: what the user can do instead of putting the data back, for the message.
    """
    record = read_run(run)
    if record.get("tokens") == 0:
        return
    recorded = record.get("data")
    before = recorded.get("fingerprint") if isinstance(recorded, Mapping) else None
    if before not in (None, corpus.fingerprint):
        raise UserError(
            f"{run} was trained on other data than what is there now: its fingerprint was {before[:12]}, and is "
            f"{corpus.fingerprint[:12]} now ({corpus.info.get('source')}); put the data back{otherwise}"
        )


def _own_data(model: LanguageModel) -> tuple[Any, Path | None]:
    """(the data spec that the model was trained on, the folder that its relative paths start from).

    For an imported model and for random weights no training data is known. They get the Python standard library, which
    every machine has.
    """
    folder = model.folder
    if folder is None:
        return PythonStdlibData(), None
    if not folder.is_dir():
        raise UserError(f"{model.ref}: {folder} is gone, which said what the model was trained on; {NAME_IT}")
    if (folder / TRAIN).is_file():
        return _of_train_spec(folder / TRAIN)
    if (folder / RUN).is_file():
        return _recorded(read_run(folder), model.ref), folder
    if not (folder / PROVENANCE).is_file():
        return PythonStdlibData(), None
    try:
        provenance = read_json(folder / PROVENANCE)
    except (OSError, JSONProblem) as error:
        raise UserError(f"{folder / PROVENANCE}: {error}; {NAME_IT}") from None
    run = provenance.get("run") if isinstance(provenance, Mapping) else None
    spec = _recorded(run if isinstance(run, Mapping) else {}, model.ref)
    parts = [part.data for part in spec.parts] if isinstance(spec, MixtureData) else [spec]
    for data in parts:
        if paths := getattr(data, "paths", ()):  # an entry keeps the files' names, without their folders
            named = f"{data.source} ({', '.join(paths)})"
            raise UserError(f"{model.ref} was trained on {named}, which an entry does not hold; {NAME_IT}")
    return spec, None


def _recorded(run: Mapping[str, Any], ref: str) -> Any:
    """The data spec in the record of a run."""
    train = run.get("train")
    try:
        return TypeAdapter(DataSpec).validate_python(train.get("data") if isinstance(train, Mapping) else None)
    except ValidationError:
        raise UserError(f"{ref}: its record does not say what it was trained on; {NAME_IT}") from None


def _data_spec(data: Any) -> tuple[Any, Path | None]:
    """(the data spec that a person named, the folder that its relative paths start from)."""
    if isinstance(data, TrainSpec):
        return data.data, None
    if not isinstance(data, str | Path):
        return data, None
    if data == "python-stdlib":
        return PythonStdlibData(), None
    if data == "":
        raise UserError("data: got an empty name; expected python-stdlib, a file or a folder ('.' is the current one)")
    path = user_path(data)
    if (path / TRAIN).is_file():
        return _of_train_spec(path / TRAIN)
    if path.suffix in (".yaml", ".yml"):
        return _of_train_spec(path)
    if not path.exists():
        raise UserError(
            f"data: {data} does not exist; expected python-stdlib, a text file or folder, a .jsonl or .parquet "
            f"file, a folder that datasets saved, a train spec (.yaml) or a run folder"
        )
    from miniwin.data import tables

    kind: type[TextData | JsonlData | TableData] = JsonlData if path.suffix == ".jsonl" else TextData
    if path.suffix in tables.SUFFIXES or (path / tables.STATE).is_file() or (path / tables.SPLITS).is_file():
        kind = TableData
    return kind(paths=(str(path.absolute()),)), None


def _of_train_spec(path: Path) -> tuple[Any, Path]:
    return load_train_spec(path).data, path.parent
