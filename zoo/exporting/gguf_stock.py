"""Which architecture of llama.cpp, if any, computes exactly what a spec says.

    spec -> config of a family of Hugging Face's -> metadata and names of tensors, as GGUF has them

The metadata is read back as an import would read it, and an architecture is taken only if that gives the same spec.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from miniwin.specs import ModelSpec, UserError, parse_spec
from miniwin.zoo.exporting.stock import Refusal, differences, prove
from miniwin.zoo.importing.asked import Asked
from miniwin.zoo.importing.families import FAMILIES
from miniwin.zoo.importing.family import CannotSay, Family, Rule
from miniwin.zoo.importing.gguf.architecture import Architecture
from miniwin.zoo.importing.gguf.architectures import EVERY, find_architecture
from miniwin.zoo.importing.gguf.header import TensorInfo
from miniwin.zoo.importing.gguf.metadata import Metadata
from miniwin.zoo.importing.gguf.names import Change, split_name, views
from miniwin.zoo.importing.gguf.own_config import KEY, own_config, refined, same_in_float32
from miniwin.zoo.importing.gguf.rope import rope_tables
from miniwin.zoo.importing.initializer import said_init, with_init

NUMBER = re.compile(r"\{\}")


@dataclass
class Written:
    """A tensor of the file: made by one rule, or stacked of what several make. change: what llama.cpp changes in it."""

    made_by: list[tuple[Rule, int]] = field(default_factory=list)
    change: Change | None = None
    stacked: bool = False

    def values(self, ours: Mapping[str, Tensor]) -> Tensor:
        found = []
        for rule, place in self.made_by:
            plain = rule.write([ours[name] for name in rule.ours])[place]
            found.append(plain if self.change is None else self.change.do(plain))
        return torch.stack(found) if self.stacked else found[0]


@dataclass(frozen=True)
class Plan:
    """How a spec becomes a file. fields: metadata by its whole names. tables: tensors that are no weights."""

    architecture: Architecture
    fields: dict[str, Any]
    tensors: dict[str, Written]
    tables: dict[str, Tensor]


def find_gguf(spec: ModelSpec, only: str | None = None) -> tuple[Plan | None, list[Refusal]]:
    """The first architecture that says the spec, and the refusals of those before. only: ask the one of this name."""
    refusals: list[Refusal] = []
    for architecture in EVERY:
        family = FAMILIES.get(architecture.model_type)
        if family is None or (only is not None and architecture.name != only):
            continue
        try:
            return _plan(spec, architecture, family), refusals
        except CannotSay as error:
            refusals.append(Refusal(architecture.model_type, error.field, error.why))
    return None, refusals


def _plan(spec: ModelSpec, architecture: Architecture, family: Family) -> Plan:
    config = {**family.config(spec), **said_init(spec)}
    if config["model_type"] != architecture.model_type:
        raise CannotSay("model_type", f"the family says it as {config['model_type']}")
    prove(spec, family, config)
    if spec.tie_word_embeddings not in architecture.ties:
        wanted = "tied" if True in architecture.ties else "not tied"
        raise CannotSay("tie_word_embeddings", f"llama.cpp's {architecture.name} has head and embedding {wanted}")
    said = {name: value for name, value in architecture.fields(config).items() if value is not None}
    head_dim = config.get("head_dim") or spec.hidden_size // spec.layer_specs[0].attention.num_heads  # type: ignore[union-attr]
    rotary = architecture.rotary(config)
    tables = rope_tables(rotary, head_dim) if rotary else {}
    tensors = _tensors(spec, architecture, family, config)
    fields = {f"{architecture.name}.{name}": value for name, value in said.items()}
    plan = Plan(architecture, {**fields, KEY: own_config(config)}, tensors, tables)
    _prove(spec, plan, family)
    return plan


def _tensors(
    spec: ModelSpec, architecture: Architecture, family: Family, config: Mapping[str, Any]
) -> dict[str, Written]:
    named = {module: name for name, module in architecture.names(spec.num_layers).items()}
    singles = list(_singles(named, architecture.experts))
    found: dict[str, Written] = {}
    for rule in family.rules(spec):
        for place, theirs in enumerate(rule.theirs):
            module, kind = split_name(theirs)
            if kind == ".bias" and not architecture.biased(module):
                raise CannotSay("attention.qkv_bias", f"llama.cpp's {architecture.name} has no bias for {module}")
            stacked = next((name for form, name in singles if form.fullmatch(module)), None)
            name = stacked or named.get(module)
            if name is None:
                raise CannotSay("weights", f"llama.cpp's {architecture.name} has no tensor for {theirs}")
            one = found.setdefault(f"{name}{kind}", Written(change=architecture.change(theirs, config)))
            one.made_by.append((rule, place))
            one.stacked = stacked is not None
    return found


def _singles(named: Mapping[str, str], experts: Mapping[str, str]) -> Iterator[tuple[re.Pattern[str], str]]:
    """How an expert's module is called, and the name of the tensor that all of them are stacked in."""
    for module, name in named.items():
        for end, single in experts.items():
            if module.endswith(f".{end}"):
                form = re.escape(module.removesuffix(end)) + r"\d+".join(map(re.escape, NUMBER.split(single)))
                yield re.compile(form), name


def _prove(spec: ModelSpec, plan: Plan, family: Family) -> None:
    """Read it all back. Raises CannotSay with the first thing that does not come back as it was."""
    with torch.device("meta"):
        ours = spec.build().state_dict()
    shapes = {name: tuple(one.values(ours).shape) for name, one in plan.tensors.items()}
    shapes |= {name: tuple(table.shape) for name, table in plan.tables.items()}
    infos = {name: TensorInfo(name, shape, 0, Path(), 0, 0) for name, shape in shapes.items()}
    values = {name: as_read(value) for name, value in plan.fields.items()}
    architecture = plan.architecture
    metadata = Metadata("the file", architecture.name, values, infos, plan.tables.__getitem__)
    try:
        found = find_architecture(metadata)
        if found is not architecture:
            raise CannotSay("general.architecture", f"a reader would take it for {found.model_type}")
        config = architecture.config(metadata)
        plain = parse_spec(family.spec(config, spec.name, Asked({})), "model")
        exact = refined(config, values[KEY])
        again = parse_spec(with_init(family.spec(exact, spec.name, Asked({})), exact), "model")
    except CannotSay:
        raise
    except UserError as error:
        raise CannotSay("config", f"the metadata that says most of it cannot be read back: {error}") from None
    for path, mine, theirs in differences(spec.canonical(), plain.canonical()):
        if not path.startswith("init") and not same_in_float32(mine, theirs):
            raise CannotSay(path, f"got {mine}; the nearest metadata of llama.cpp's {architecture.name} means {theirs}")
    for path, mine, theirs in differences(spec.canonical(), again.canonical()):
        raise CannotSay(path, f"got {mine}; it would be read back as {theirs}")
    weights = {name: info for name, info in infos.items() if name not in plan.tables}
    names = views(weights, architecture.names(spec.num_layers), architecture.experts, lambda name: None)
    wanted = {theirs for one in plan.tensors.values() for rule, _ in one.made_by for theirs in rule.theirs}
    if set(names) != wanted:
        raise CannotSay("weights", f"{sorted(set(names) ^ wanted)[0]} would not be found again")


def as_read(value: Any) -> Any:
    """A value of metadata as a reader gives it: in float32."""
    return float(str(np.float32(value))) if isinstance(value, float) else value
