"""The specs that a search names: finding them, comparing them with those of a study, and writing them into it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from miniwin.files.writing import write_text
from miniwin.search.spec_errors import SpaceError
from miniwin.specs import (
    ModelSpec,
    SearchSpec,
    TrainSpec,
    UserError,
    dump_yaml,
    load_model_spec,
    load_train_spec,
    resolve_spec_path,
    user_path,
)
from miniwin.specs.validation_errors import Problem
from miniwin.specs.yaml_file import read_text


def find_spec(ref: str, folder: Path, kind: str, field: str) -> Path:
    """The file of a spec that a search names: relative to the search's own folder, or shipped with MiniWin.

    field: the field of the search spec that names it.
    """
    near = folder / user_path(ref)
    if near.is_file():
        return near
    try:
        found = resolve_spec_path(ref, kind)
        read_text(found if found.is_file() else near)
    except UserError as error:
        raise SpaceError([Problem((field,), str(error))]) from None
    return found


@dataclass(frozen=True)
class NamedSpecs:
    """A search spec and the specs that it names."""

    spec: SearchSpec
    base: ModelSpec
    train: TrainSpec
    baseline: ModelSpec | None
    train_base: Path  # what relative paths in the train spec start from

    @classmethod
    def load(cls, spec: SearchSpec, folder: Path) -> NamedSpecs:
        train = find_spec(spec.train, folder, "train", "train")
        return cls(
            spec,
            load_model_spec(find_spec(spec.base, folder, "model", "base")),
            load_train_spec(train),
            None if spec.baseline is None else load_model_spec(find_spec(spec.baseline, folder, "model", "baseline")),
            train.resolve().parent,
        )

    def comparable(self) -> dict[str, Any]:
        """What has to stay the same while a study goes on. Files may move; their contents may not change."""
        search = self.spec.model_dump(mode="json")
        for name in ("base", "train", "baseline", "workers", "confirm"):
            search.pop(name)
        search["budget"] = {"tokens_per_trial": search["budget"]["tokens_per_trial"]}
        baseline = None if self.baseline is None else self.baseline.model_dump(mode="json")
        return {
            "search": search,
            "base": self.base.model_dump(mode="json"),
            "train": self.train.model_dump(mode="json"),
            "baseline": baseline,
        }

    def texts(self) -> dict[str, str]:
        """The files that a study keeps, by name."""
        found = {"model.yaml": dump_yaml(self.base), "train.yaml": dump_yaml(self.train)}
        names = {"base": "model.yaml", "train": "train.yaml"}
        if self.baseline is not None:
            found["baseline.yaml"] = dump_yaml(self.baseline)
            names["baseline"] = "baseline.yaml"
        return {**found, "search.yaml": dump_yaml(self.spec.model_copy(update=names))}

    def write(self, folder: Path) -> None:
        for name, text in self.texts().items():
            write_text(folder / name, text)
