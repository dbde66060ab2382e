"""YAML file -> spec, spec -> YAML, and where shipped specs are."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from miniwin.blocks.messages.listing import some
from miniwin.blocks.messages.nearest import nearest
from miniwin.specs.base import UserError, user_path
from miniwin.specs.kinds import FORMATS, KINDS, spec_class
from miniwin.specs.model import ModelSpec
from miniwin.specs.schema import models_at
from miniwin.specs.validation_errors import MISSING, Problem, explain, said
from miniwin.specs.yaml_document import Document
from miniwin.specs.yaml_lines import Loc
from miniwin.specs.yaml_scalars import is_number_too_large, plain, shown

SHIPPED = Path(__file__).parent
SET = "--set"

Spec = TypeVar("Spec", bound=BaseModel)


def load_spec(
    path: str | Path,
    kind: str | None = None,
    overrides: Sequence[str] = (),
    raw: bytes | None = None,
    option: str = SET,
) -> Any:
    """Read a spec from a YAML file, or a shipped spec by its name.

    kind: model, train, search or suite; None takes the kind that the file says. overrides: fields to set before
    validation, such as "blocks.S.attention.window=32"; the value is YAML. raw: the bytes of the file, where they were
    read already. option: the command-line option of the overrides, for messages.

    Raises:
        UserError: with file, line, column and field of everything that is wrong.
    """
    document = Document.read(resolve_spec_path(path, kind)) if raw is None else Document.of(raw, Path(path))
    data = document.data
    if not isinstance(data, dict):
        got = "the file is empty" if data is None else f"got {shown(data)}"
        raise UserError(
            f"{document.place(())}: {got}; expected a mapping that begins with `kind: model`, train, search or suite"
        )
    stated = _stated_kind(data, document, kind)
    problems = _format_problems(data, document, stated)
    if "layer" in data and stated == "model":
        if not document.anchors_used("layer"):
            problems.append(
                Problem(
                    ("layer",),
                    "nothing uses it; give it an anchor (layer: &layer) and merge it where it "
                    "is meant (<<: *layer), or remove it",
                    on_key=True,
                )
            )
        data = {key: value for key, value in data.items() if key != "layer"}
    return validated(data, spec_class(stated), overrides, option, document, problems)


def overridden(spec: Spec, overrides: Sequence[str], option: str = SET) -> Spec:
    """The spec with some fields replaced, as `load_spec` replaces them: "optimizer.lr=0.001".

    Raises:
        UserError: naming each override that is wrong, and each field that is wrong because of one.
    """
    return validated(spec.model_dump(mode="json"), type(spec), overrides, option)


def validated(
    data: dict[str, Any],
    cls: type[Spec],
    overrides: Sequence[str],
    option: str,
    document: Document | None = None,
    problems: Sequence[Problem] = (),
) -> Spec:
    """A spec from `data`, in which the overrides are written. problems: what is known to be wrong already."""
    written = dict(_override(data, override, cls, option) for override in overrides)
    try:
        spec = cls.model_validate(data)
    except ValidationError as error:
        raise explain(error, data, cls, document, written, tuple(problems)) from None
    if problems:
        raise said(list(problems), document, written)
    return spec


def at_their_places(
    problems: list[Problem], path: str | Path, kind: str, overrides: Sequence[str] = (), option: str = SET
) -> UserError:
    """Problems that were found after loading, as one UserError with the places that load_spec gives.

    path, kind, overrides, option: those that the spec was loaded with.
    """
    document = Document.read(resolve_spec_path(path, kind))
    written = dict(_override(document.data, override, spec_class(kind), option) for override in overrides)
    return said(problems, document, written)


def load_model_spec(path: str | Path, overrides: Sequence[str] = (), raw: bytes | None = None) -> ModelSpec:
    """`load_spec` for a model spec."""
    return load_spec(path, "model", overrides, raw)  # type: ignore[no-any-return]


def load_train_spec(path: str | Path, overrides: Sequence[str] = (), option: str = SET) -> Any:
    """`load_spec` for a train spec."""
    return load_spec(path, "train", overrides, option=option)


def load_search_spec(path: str | Path, overrides: Sequence[str] = ()) -> Any:
    """`load_spec` for a search spec."""
    return load_spec(path, "search", overrides)


def parse_spec(data: dict[str, Any], kind: str) -> Any:
    """A spec from plain Python data. Raises UserError naming each wrong field."""
    cls = spec_class(kind)
    try:
        return cls.model_validate(data)
    except ValidationError as error:
        raise explain(error, data, cls, None) from None


def dump_yaml(spec: BaseModel, leave_out: Collection[str] = ()) -> str:
    """Canonical YAML: every field written out, in the order of the class. Loads back to an equal spec.

    leave_out: fields that are not written; they have their defaults.
    """
    said = {name: value for name, value in spec.model_dump(mode="json").items() if name not in leave_out}
    return yaml.dump(said, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


class _Dumper(yaml.SafeDumper):
    """Writes no anchors, and quotes text that a reader of YAML 1.2 or 1.1 would take for something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _float(dumper: yaml.SafeDumper, value: float) -> yaml.Node:
    text = repr(value)
    if "e" in text and "." not in text:
        text = text.replace("e", ".0e")  # 1e-06 is text to a reader of YAML 1.1
    return dumper.represent_scalar(_FLOAT, text)


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    # PyYAML quotes text that YAML 1.1 takes for something else. 1e5 and 08 are numbers in 1.2 only: quoted here. Text
    # that is not printable gets double quotes, which have escapes; without them a line break would not come back.
    number = not isinstance(plain(value), str) or is_number_too_large(value)
    style = "'" if number else None if value.isprintable() else '"'
    return dumper.represent_scalar(_STR, value, style=style)


_FLOAT, _STR = "tag:yaml.org,2002:float", "tag:yaml.org,2002:str"
_Dumper.add_representer(float, _float)
_Dumper.add_representer(str, _text)


def resolve_spec_path(ref: str | Path, kind: str | None = None) -> Path:
    """A path as it is, or a shipped spec by its stem: miniwin-1m -> specs/models/miniwin-1m.yaml.

    Raises:
        UserError: `ref` is neither a file nor a shipped spec, or several shipped specs have the name.
    """
    path = user_path(ref)
    if os.path.isfile(path) or path.suffix in (".yaml", ".yml") or len(path.parts) != 1:
        return path
    shipped = {one: _shipped(one) for one in ([kind] if kind else KINDS)}
    found = [paths[str(ref)] for paths in shipped.values() if str(ref) in paths]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(
            f"{ref}: several shipped specs are called so; give the path of the one you mean: "
            + ", ".join(map(str, found))
        )
    if os.path.exists(path):
        return path
    names = sorted({name for paths in shipped.values() for name in paths})
    here = [f"{ref}{suffix}" for suffix in (".yaml", ".yml") if os.path.isfile(f"{path}{suffix}")]
    near = here[0] if here else nearest(str(ref), names)
    hint = f"did you mean '{near}'?" if near else f"shipped: {', '.join(names)}"
    raise UserError(f"{ref}: there is no such file, and no shipped spec is called so; {hint}")


def shipped_specs(kind: str | None = None) -> dict[str, Path]:
    """Name -> path of the shipped specs. Of all kinds, a name that several kinds use gets its folder: `train/demo`."""
    if kind is not None:
        return _shipped(kind)
    every = [(path.stem, path) for one in KINDS for path in _shipped(one).values()]
    names = [name for name, _ in every]
    return {name if names.count(name) == 1 else f"{path.parent.name}/{name}": path for name, path in every}


def _shipped(kind: str) -> dict[str, Path]:
    return {path.stem: path for path in sorted((SHIPPED / KINDS[kind]).glob("*.yaml"))}


def _stated_kind(data: dict[str, Any], document: Document, kind: str | None) -> str:
    stated = data.get("kind")
    place = document.place(("kind",))
    if not isinstance(stated, str) or stated not in KINDS:
        near = nearest(stated, KINDS) if isinstance(stated, str) else None
        hint = f"did you mean '{near}'?" if near else f"expected one of {', '.join(KINDS)}"
        got = f"got {shown(stated)}" if "kind" in data else MISSING
        raise UserError(f"{place}: kind: {got}; {hint}")
    if kind is not None and stated != kind:
        raise UserError(f"{place}: kind: got a {stated} spec; expected a {kind} spec")
    return stated


def _format_problems(data: dict[str, Any], document: Document, kind: str) -> list[Problem]:
    newest = FORMATS[kind]
    if "format" not in data:
        return [Problem(("format",), f"{MISSING}; write `format: {newest}`")]
    stated = data["format"]
    if type(stated) is not int:  # true and 1.0 equal 1, but are no format numbers
        del data["format"]
        return [Problem(("format",), f"got {shown(stated)}; expected the number {newest}")]
    if stated > newest:  # nothing else in the file can be judged
        raise UserError(
            f"{document.place(('format',))}: format: got {stated}; this version of miniwin reads up to {newest}. "
            "Upgrade miniwin."
        )
    return []


def _override(data: dict[str, Any], override: str, cls: type[BaseModel], option: str) -> tuple[Loc, str]:
    """Write "a.b=VALUE" into the data; returns the path a.b and the option, for messages.

    A mapping on the way that the file leaves out is made, where the spec has a field of that name.
    """
    given = f"{option} {override}"
    name, equals, text = override.partition("=")
    parts = [part.strip() for part in name.split(".")]
    if not equals or "" in parts:
        raise UserError(f"{given}: expected field=value, such as blocks.S.attention.window=32")
    if not text.strip():
        raise UserError(f"{given}: there is no value; expected one, such as {name}=32, or {name}=null")
    value = Document(text, given, marked=False).data
    place: Any = data
    path: list[str | int] = []
    for part in parts:
        here = ".".join(map(str, path))
        key: str | int = part
        if isinstance(place, list) and part.isdecimal() and int(part) < len(place):
            key = int(part)
        elif not isinstance(place, dict):
            what = f"a list of {len(place)}" if isinstance(place, list) else shown(place)
            raise UserError(f"{given}: '{here}' is {what}; expected a mapping that has a '{part}'")
        elif len(path) < len(parts) - 1 and part not in place:
            fields = [field for m in models_at(cls, tuple(path)) for field in m.model_fields]
            if part not in fields:
                raise UserError(
                    f"{given}: there is no '{part}' in {here or 'the spec'}; " + _known(part, [*place, *fields])
                )
            place[part] = {}
        path.append(key)
        if len(path) < len(parts):
            place = place[key]
    place[path[-1]] = value
    return tuple(path), given


def _known(part: str, names: list[str]) -> str:
    if part == "layer":
        return "it is already merged into the blocks: set the field in each block"
    near = nearest(part, names)
    return f"did you mean '{near}'?" if near else f"it has: {some(dict.fromkeys(names), 40) or 'no fields'}"
