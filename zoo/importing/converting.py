"""The whole import: open the source, find the family, make the spec, check every tensor, write a folder.

    source -> config, shapes, tensors
    family.spec(config) -> model spec; family.rules(spec) -> which of their tensors make which of ours
    DIR: model.yaml, model.safetensors, tokenizer.json, chat_template.jinja and chat.json (if the source has them),
         import.json

Names and shapes are compared before the first tensor is read: the inverse of a rule gives the shapes of their tensors
from the shapes of ours. Then tensors are read, checked for NaN, converted and written, one rule at a time: the memory
holds one group of tensors, or a piece of one, never the model. DIR appears when all is well, and otherwise not at all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from miniwin.files.hashing import sha256_file
from miniwin.files.writing import write_flushed
from miniwin.provenance import code_version
from miniwin.runs import IMPORT, MODEL, TOKENIZER, WEIGHTS
from miniwin.specs import ModelSpec, UserError, dump_yaml, parse_spec, user_path
from miniwin.specs.model import NAME
from miniwin.specs.yaml_scalars import shown
from miniwin.tokenizer import Tokenizer
from miniwin.tokenizer.special_ids import KEY
from miniwin.version import __version__
from miniwin.zoo.importing.asked import Asked
from miniwin.zoo.importing.carrying import carried_tokenizer
from miniwin.zoo.importing.chat import chat_format
from miniwin.zoo.importing.family import Family
from miniwin.zoo.importing.initializer import with_init
from miniwin.zoo.importing.licence import licence as licence_of
from miniwin.zoo.importing.opening import open_source
from miniwin.zoo.importing.plan import Plan, Progress
from miniwin.zoo.importing.source import Source, short
from miniwin.zoo.importing.special_ids import special_ids
from miniwin.zoo.importing.writing import appearing, refuse_existing
from miniwin.zoo.json_objects import to_json

FORMAT = 1
KEEP = "keep"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "int8": torch.int8}
# A checkpoint file has no config. These families can be built from settings and shapes.
FROM_SETTINGS = ("miniwin", "minimind")


@dataclass(frozen=True)
class Imported:
    """What an import made. `record` is import.json; `notes` are for the person who asked for it."""

    folder: Path
    spec: ModelSpec
    tokenizer: Tokenizer | None
    record: dict[str, Any]
    notes: list[str]


def families() -> Mapping[str, Family]:
    """The families that can be imported, by model_type."""
    from miniwin.zoo.importing.families import FAMILIES

    return FAMILIES


def import_model(
    src: str | Path,
    to: str | Path,
    *,
    name: str | None = None,
    settings: Mapping[str, Any] | None = None,
    family: str | None = None,
    dtype: str = KEEP,
    tokenizer: str | Path | None = None,
    licence: str | None = None,
    progress: Progress | None = None,
) -> Imported:
    """Import the model at `src` into the new folder `to`.

    name: of the spec; by default the source's. settings: fields that the source does not say. family: the model_type of
    a source that does not say it. dtype: of the weights written; `keep` is the type that most of them have; with
    `int8` matrices are in eight bits with a scale for each row, and all else is float32. tokenizer:
    a tokenizer.json to take instead of the source's, or "none". licence: of the weights, where the source does not say
    it. progress: called as steps are done.

    Raises:
        UserError: the source, the settings or the destination cannot be used. Nothing is written.
    """
    to = user_path(to)
    refuse_existing(to)
    if dtype not in (KEEP, *DTYPES):
        raise UserError(f"--dtype: got {dtype!r}; expected {KEEP} or one of {', '.join(DTYPES)}")
    source = open_source(src)
    model_type = _model_type(source, family)
    asked = Asked(settings, source.config, source.shapes)
    known = families()[model_type]
    spec = _spec(known, source, asked, _name(name, source), settings or {})
    plan = Plan(known, spec, source)
    special = special_ids(source, asked, spec.vocab_size)
    asked.refuse_unused()
    carried = carried_tokenizer(source, tokenizer, spec, special)
    chats = chat_format(source, special, carried.tokenizer if carried else None)
    allowed = licence_of(source, licence)
    target = plan.common_dtype() if dtype == KEEP else DTYPES[dtype]
    tell = progress or (lambda what, done, whole: None)
    with appearing(to) as part:
        plan.write(part / WEIGHTS, target, tell)
        write_flushed(part / MODEL, dump_yaml(spec))
        if carried is not None:
            (part / TOKENIZER).write_bytes(carried.raw)
        if chats is not None:
            chats.write(part)
        record = {
            "format": FORMAT,
            "source": source.path.absolute().name,  # its name only: the rest of the path names a machine
            "kind": source.kind,
            "model_type": model_type,
            "files": _hashes(source, carried.file if carried else None, tell),
            "said": dict(settings or {}),
            "inferred": asked.inferred,
            "notes": source.notes,
            "ignored": plan.ignored,
            "dtype": short(target),
            "converted": plan.converted(target),
            **({"quantization": source.quantization} if source.quantization else {}),
            "spec_hash": spec.hash,
            "parameters": spec.parameters(),
            "tokenizer": carried.tokenizer.name if carried else None,
            "licence": allowed,
            **({"end_tokens": list(chats.end_tokens)} if chats is not None else {}),
            KEY: special.record(),
            "miniwin": __version__,
            "code": code_version(),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_flushed(part / IMPORT, to_json(record, IMPORT))
    return Imported(to, spec, carried.tokenizer if carried else None, record, source.notes)


def _model_type(source: Source, family: str | None) -> str:
    """The model_type of the family: as the config says, or else the user."""
    said = source.config.get("model_type")
    if said is not None and family is not None and said != family:
        raise UserError(f"--as {family}: {source.described} says model_type {shown(said)}; leave --as out")
    if source.kind == "pth":
        choice = " or ".join(f"--as {one}" for one in FROM_SETTINGS)
        if family is None:
            looks = " (its names look like miniwin's)" if any(".shared_attn." in name for name in source.shapes) else ""
            raise UserError(f"{source.path}: a checkpoint file does not say what it is{looks}; say it: {choice}")
        if family not in FROM_SETTINGS:
            raise UserError(f"--as {family}: only {' and '.join(FROM_SETTINGS)} can be read from a file; give {choice}")
    found = said if said is not None else family
    if not isinstance(found, str) or found not in families():
        if found == "miniwin-spec":
            raise UserError(
                f"{source.path}: an export of MiniWin with code of its own, which cannot be imported; use the run, "
                "entry or spec that it was made from"
            )
        what = "no model_type" if found is None else f"model_type {shown(found)}"
        raise UserError(
            f"{source.path}: got {what}; expected one that can be imported: {', '.join(sorted(families()))}"
        )
    return found


def _name(name: str | None, source: Source) -> str:
    if name is not None:
        if not re.match(NAME, name) or len(name) > 100:
            raise UserError(f"--name: got {shown(name)}; expected lower-case letters, digits, '.', '-' and '_'")
        return name
    return re.sub(r"[^a-z0-9._]+", "-", source.stem.lower()).strip("-._")[:100] or "imported"


def _spec(family: Family, source: Source, asked: Asked, name: str, settings: Mapping[str, Any]) -> ModelSpec:
    where = source.described
    config = dict(settings) if source.kind == "pth" else source.config
    _check_depth(config, source, where)
    try:
        data = with_init(family.spec(config, name, asked), config)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        # A config may hold anything. An error in a family's code means a field that is missing or of another kind.
        raise UserError(
            f"{where}: not a config that this family can have: a field is missing or of another kind "
            f"({type(error).__name__}: {error})"
        ) from error
    try:
        spec = parse_spec(data, "model")
    except UserError as error:
        raise UserError(f"{where}: describes a model that cannot be built: {error}") from None
    assert isinstance(spec, ModelSpec)
    # Even an empty model takes time to build, module by module. A config of other weights is refused before.
    if spec.parameters() > 4 * source.elements + 100_000:
        raise UserError(
            f"{where}: describes {spec.parameters():,} parameters; the weights hold {source.elements:,} numbers. They "
            "do not belong together"
        )
    return spec


def _check_depth(config: Mapping[str, Any], source: Source, where: Path) -> None:
    """Refuse more layers than tensors: a family lists the layers one by one, and a config may say a billion."""
    nested = config.get("text_config")
    for fields in (config, nested if isinstance(nested, dict) else {}):
        name = "num_hidden_layers" if "num_hidden_layers" in fields else "n_layer"
        layers = fields.get(name)
        if isinstance(layers, int | float) and layers > len(source.shapes):
            raise UserError(
                f"{where}: {name}: got {shown(layers)}; the weights have {len(source.shapes)} tensors, "
                "which cannot be so many layers"
            )


def _hashes(source: Source, tokenizer: Path | None, tell: Progress) -> dict[str, str]:
    files = dict(source.files) | ({tokenizer.name: tokenizer} if tokenizer is not None else {})
    whole, done = sum(path.stat().st_size for path in files.values()), 0
    found = {}
    for name, path in files.items():
        found[name] = sha256_file(path)
        done += path.stat().st_size
        tell("hashes", done, whole)
    return found
