"""Which validation split an evaluation runs on: from anything a person may name it by."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from miniwin.runs import TRAIN
from miniwin.specs import TrainSpec, UserError, load_train_spec
from miniwin.specs.data import JsonlData, PythonStdlibData, TextData

if TYPE_CHECKING:
    from miniwin.data import Corpus
    from miniwin.language_model import LanguageModel
    from miniwin.specs import DataSpec


def corpus_for(model: LanguageModel, data: DataSpec | TrainSpec | Corpus | str | Path | None) -> Corpus:
    """The corpus that `data` names, in the model's tokens.

    It is always the validation part that is evaluated, also of text that is named directly: a model that was
    trained on the same file with the default split has not seen that part.
    """
    from miniwin.data import Corpus, prepare

    if isinstance(data, Corpus):
        return data
    if model.tokenizer is None:
        raise UserError(f"{model.ref} has no tokenizer, so it cannot be evaluated on text")
    spec, base = _data_spec(model, data)
    return prepare(spec, model.tokenizer, base=base)


def _data_spec(model: LanguageModel, data: Any) -> tuple[Any, Path | None]:
    """(data spec, the folder its relative paths start from)."""
    if data is None:
        trained = Path(model.ref) / TRAIN
        return _of_train_spec(trained) if trained.is_file() else (PythonStdlibData(), None)
    if isinstance(data, TrainSpec):
        return data.data, None
    if not isinstance(data, str | Path):
        return data, None
    if data == "python-stdlib":
        return PythonStdlibData(), None
    if data == "":
        raise UserError("data: got an empty name; expected python-stdlib, a file or a folder ('.' is the current one)")
    path = Path(data).expanduser()
    if (path / TRAIN).is_file():
        return _of_train_spec(path / TRAIN)
    if path.suffix in (".yaml", ".yml"):
        return _of_train_spec(path)
    if not path.exists():
        raise UserError(
            f"data: {data} does not exist; expected python-stdlib, a text file or folder, a .jsonl file, "
            f"a train spec (.yaml) or a run folder"
        )
    kind = JsonlData if path.suffix == ".jsonl" else TextData
    return kind(paths=(str(path.absolute()),)), None


def _of_train_spec(path: Path) -> tuple[Any, Path]:
    return load_train_spec(path).data, path.parent
