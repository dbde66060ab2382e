"""The specs that a search names: finding them, comparing them with those of a study, and writing them into it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from miniwin.files.writing import write_text
from miniwin.search.first_weights import FirstWeights
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
from miniwin.specs.search import WEIGHTS
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
    weights: FirstWeights | None = None

    @classmethod
    def load(cls, spec: SearchSpec, folder: Path) -> NamedSpecs:
        """folder: where relative paths in the search spec start."""
        weights = None if spec.weights is None else FirstWeights.find(spec.weights, folder, spec.map)

        def model(ref: str | None, field: str) -> ModelSpec:
            if weights is not None and ref in (None, WEIGHTS):
                return weights.origin.spec
            assert ref is not None
            return load_model_spec(find_spec(ref, folder, "model", field))

        path = find_spec(spec.train, folder, "train", "train")
        train, train_base = load_train_spec(path), path.resolve().parent
        if weights is not None:
            train = weights.trained(train, train_base)
        baseline = None if spec.baseline is None else model(spec.baseline, "baseline")
        return cls(spec, model(spec.base, "base"), train, baseline, train_base, weights)

    def comparable(self) -> dict[str, Any]:
        """What has to stay the same while a study goes on. Files may move; their contents may not change."""
        search = self.spec.model_dump(mode="json")
        for name in ("base", "train", "baseline", "weights", "workers", "confirm"):
            search.pop(name, None)
        search["budget"] = {"tokens_per_trial": search["budget"]["tokens_per_trial"]}
        baseline = None if self.baseline is None else self.baseline.model_dump(mode="json")
        return {
            "search": search,
            "base": self.base.model_dump(mode="json"),
            "train": self.train.model_dump(mode="json"),
            "baseline": baseline,
            **(
                {}
                if self.weights is None
                else {"weights": {k: self.weights.record[k] for k in ("sha256", "spec_hash")}}
            ),
        }

    def texts(self) -> dict[str, str]:
        """The files that a study keeps, by name."""
        found = {"model.yaml": dump_yaml(self.base), "train.yaml": self._train_text()}
        names = {"base": "model.yaml", "train": "train.yaml"}
        if self.weights is not None:
            names["weights"] = self.weights.ref
        if self.baseline is not None:
            found["baseline.yaml"] = dump_yaml(self.baseline)
            names["baseline"] = "baseline.yaml"
        return {**found, "search.yaml": dump_yaml(self.spec.model_copy(update=names))}

    def _train_text(self) -> str:
        """train.yaml. A tokenizer that is that of the weights is not named."""
        own = self.weights is not None and "tokenizer" not in self.train.model_fields_set
        return dump_yaml(self.train, leave_out=["tokenizer"] if own else ())

    def write(self, folder: Path) -> None:
        for name, text in self.texts().items():
            write_text(folder / name, text)
