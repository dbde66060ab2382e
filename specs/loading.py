"""YAML file -> spec, spec -> YAML, and where shipped specs are."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from miniwin.specs.base import UserError
from miniwin.specs.model import ModelSpec
from miniwin.specs.problems import explain
from miniwin.specs.yaml_text import Document

SHIPPED = Path(__file__).parent
KINDS = {"model": "models", "train": "train", "search": "searches"}
FORMATS = {"model": 1, "train": 1, "search": 1}


def spec_class(kind: str) -> type[BaseModel]:
    if kind == "model":
        return ModelSpec
    if kind == "train":
        from miniwin.specs.train import TrainSpec

        return TrainSpec
    if kind == "search":
        from miniwin.specs.search import SearchSpec

        return SearchSpec
    raise UserError(f"unknown kind of spec '{kind}': expected one of {', '.join(KINDS)}")


def load_spec(path: str | Path, kind: str | None = None, overrides: Sequence[str] = ()) -> Any:
    """Read a spec from a YAML file, or a shipped one by its name.

    kind: model, train or search; None takes what the file says. overrides: "blocks.S.attention.window=32", the value
    read as YAML, applied before validation.

    Raises:
        UserError: with file, line, column and field of everything that is wrong.
    """
    found = resolve_spec_path(path, kind)
    document = Document.read(found)
    data = document.data
    if not isinstance(data, dict):
        raise UserError(f"{document.place(())}: expected a mapping that begins with `kind: model`, train or search")
    stated = data.get("kind")
    if stated not in KINDS:
        near = get_close_matches(str(stated), KINDS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"expected one of {', '.join(KINDS)}"
        said = "kind: this field is required, and missing" if "kind" not in data else f"kind: got '{stated}'"
        raise UserError(f"{document.place(('kind',))}: {said}; {hint}")
    if kind is not None and stated != kind:
        raise UserError(f"{document.place(('kind',))}: kind: got a {stated} spec; expected a {kind} spec")
    _check_format(data, document)
    if "layer" in data and stated == "model":
        if not document.anchors_used("layer"):
            raise UserError(
                f"{document.place(('layer',))}: layer: nothing uses it; give it an anchor (layer: &layer) and merge it "
                "where it is meant (<<: *layer), or remove it"
            )
        data = {key: value for key, value in data.items() if key != "layer"}
    for override in overrides:
        _override(data, override)
    cls = spec_class(stated)
    try:
        return cls.model_validate(data)
    except ValidationError as error:
        raise explain(error, data, cls, document) from None


def load_model_spec(path: str | Path, overrides: Sequence[str] = ()) -> ModelSpec:
    return load_spec(path, "model", overrides)  # type: ignore[no-any-return]


def load_train_spec(path: str | Path, overrides: Sequence[str] = ()) -> Any:
    return load_spec(path, "train", overrides)


def load_search_spec(path: str | Path, overrides: Sequence[str] = ()) -> Any:
    return load_spec(path, "search", overrides)


def parse_spec(data: dict[str, Any], kind: str) -> Any:
    """A spec from plain Python. Raises UserError naming each wrong field."""
    cls = spec_class(kind)
    try:
        return cls.model_validate(data)
    except ValidationError as error:
        raise explain(error, data, cls, None) from None


def dump_yaml(spec: BaseModel) -> str:
    """Canonical YAML: every field written out, in the order of the class. Loads back to an equal spec."""
    return yaml.dump(spec.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


class _Dumper(yaml.SafeDumper):
    """Writes no anchors, and quotes what YAML 1.2 or 1.1 readers would take for something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _float(dumper: yaml.SafeDumper, value: float) -> yaml.Node:
    text = repr(value)
    if "e" in text and "." not in text:
        text = text.replace("e", ".0e")  # 1e-06 is text to a YAML 1.1 reader
    return dumper.represent_scalar("tag:yaml.org,2002:float", text)


_Dumper.add_representer(float, _float)


def resolve_spec_path(ref: str | Path, kind: str | None = None) -> Path:
    """A path as it is, or a shipped spec by its stem: miniwin-1m -> specs/models/miniwin-1m.yaml."""
    path = Path(ref)
    if path.exists() or path.suffix in (".yaml", ".yml") or len(path.parts) != 1:
        return path
    shipped = shipped_specs(kind)
    if str(ref) in shipped:
        return shipped[str(ref)]
    near = get_close_matches(str(ref), shipped, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"shipped: {', '.join(sorted(shipped))}"
    raise UserError(f"{ref}: there is no such file, and no shipped spec is called so; {hint}")


def shipped_specs(kind: str | None = None) -> dict[str, Path]:
    """Name -> path of the specs in the package, of one kind or of all."""
    folders = [KINDS[kind]] if kind else list(KINDS.values())
    return {path.stem: path for folder in folders for path in sorted((SHIPPED / folder).glob("*.yaml"))}


def _check_format(data: dict[str, Any], document: Document) -> None:
    newest = FORMATS[data["kind"]]
    stated = data.get("format")
    if isinstance(stated, int) and not isinstance(stated, bool) and stated > newest:
        raise UserError(
            f"{document.place(('format',))}: format: got {stated}; this version of miniwin reads up to {newest}. "
            "Upgrade miniwin."
        )
    if "format" not in data:
        raise UserError(f"{document.place(())}: format: this field is required, and missing; write `format: {newest}`")


def _override(data: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise UserError(f"--set {override}: expected field=value, such as blocks.S.attention.window=32")
    value = Document(text, f"--set {path}").data
    *parents, last = path.strip().split(".")
    place: Any = data
    for part in parents:
        if not isinstance(place, dict) or part not in place:
            known = list(map(str, place)) if isinstance(place, dict) else []
            near = get_close_matches(part, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"it has: {', '.join(known) or 'no fields'}"
            raise UserError(f"--set {override}: there is no '{part}' in {path}; {hint}")
        place = place[part]
    if not isinstance(place, dict):
        raise UserError(f"--set {override}: '{'.'.join(parents)}' is not a mapping")
    place[last] = value
