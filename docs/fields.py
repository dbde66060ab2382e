"""`python docs/fields.py`: writes the fields of specs, from their schemas, to docs/fields.md and docs/model-fields.md.

Names, values and defaults come from the schema. What a field is for stands in docs/fields.yaml. A field without a line
there, and a line without a field, are errors.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from miniwin.blocks.spec import Strict
from miniwin.files.writing import write_text
from miniwin.specs import ModelSpec, SearchSpec, SuiteSpec, TrainSpec
from miniwin.specs.schema import json_schema

HERE = Path(__file__).parent
PAGES = {"fields.md": ("train", "search", "suite"), "model-fields.md": ("model",)}

TOPS = {
    "fields.md": """\
# Train, search and suite specs, field by field

`python docs/fields.py` writes this page from the schemas. A field without a default has to be given. `null` stands for
nothing. Relative paths start at the folder of the YAML file. Numbers may be written `4e6` or `4_000_000`.
`--set FIELD=VALUE` changes a field from the command line: `--set budget.trials=20`. `miniwin schema train`,
`search` and `suite` print the same for editors. Model specs have [a page of their own](model-fields.md).
""",
    "model-fields.md": """\
# Model specs, field by field

`python docs/fields.py` writes this page from the schemas. A field without a default has to be given. `null` stands for
nothing. The equation and the paper of a block stand in its file in [blocks/](../blocks). [specs.md](specs.md) has the
same at a glance, and whole examples.
""",
}

FREE = ("JsonValue",)  # anything that YAML can say
TITLES = {
    "model": "A model spec",
    "LayerSpec": "A block",
    "InitSpec": "init",
    "LayerNormSpec": "norm, type: layernorm",
    "RMSNormSpec": "norm, type: rmsnorm",
    "ShareSpec": "position, of",
    "train": "A train spec",
    "search": "A search spec",
    "suite": "A suite spec",
    "PythonStdlibData": "data, source: python-stdlib",
    "TextData": "data, source: text",
    "JsonlData": "data, source: jsonl",
    "ChatData": "data, source: chat",
    "TaskData": "data, source: tasks",
    "TableData": "data, source: table",
    "ExamplesData": "data, source: examples",
    "MixtureData": "data, source: mixture",
    "MixturePart": "data, source: mixture, parts",
    "OptimizerSpec": "optimizer",
    "CosineSchedule": "schedule, type: cosine",
    "WSDSchedule": "schedule, type: wsd",
    "StopSpec": "stop",
    "DistillSpec": "distill",
    "LoraSpec": "lora",
    "EvalSpec": "eval",
    "IntVariable": "variables, int",
    "FloatVariable": "variables, float",
    "ChoiceVariable": "variables, choice",
    "SubsetVariable": "variables, subset",
    "Subset": "subset",
    "SequenceVariable": "variables, sequence",
    "LetterSequence": "sequence",
    "SuiteTask": "tasks",
    "SuiteLoss": "loss",
    "SuiteShift": "shift",
    "SuiteSpeed": "speed",
    "SuiteCache": "cache",
    "AddedBlock": "blocks",
    "Match": "match",
    "Speeds": "speeds",
    "TunedRate": "learning_rate",
    "Budget": "budget",
    "ConfirmSpec": "confirm",
    "TPESampler": "sampler, type: tpe",
    "GPSampler": "sampler, type: gp",
    "NSGA2Sampler": "sampler, type: nsga2",
    "NSGA3Sampler": "sampler, type: nsga3",
    "CMASampler": "sampler, type: cmaes",
    "RandomSampler": "sampler, type: random",
    "GridSampler": "sampler, type: grid",
    "QuasiRandomSampler": "sampler, type: quasi-random",
    "EvolutionSampler": "sampler, type: evolution",
    "SwapsSampler": "sampler, type: swaps",
    "GreedyAdditionSampler": "sampler, type: greedy-addition",
    "GreedyRemovalSampler": "sampler, type: greedy-removal",
    "HubSampler": "sampler, type: hub",
    "MedianPruner": "pruner, type: median",
    "AshaPruner": "pruner, type: asha",
    "HalvingPruner": "pruner, type: halving",
    "HyperbandPruner": "pruner, type: hyperband",
}
MEANS: dict[str, str] = {
    f"{name}.{field}": words
    for name, fields in yaml.safe_load((HERE / "fields.yaml").read_text(encoding="utf-8")).items()
    for field, words in fields.items()
}


def pages() -> dict[str, str]:
    """The name and the text of each page."""
    used: set[str] = set()
    made = {name: "\n".join([TOPS[name], *_tables(kinds, used)]) for name, kinds in PAGES.items()}
    if unused := sorted(set(MEANS) - used):
        raise SystemExit(f"docs/fields.yaml has lines that no field has: {', '.join(unused)}")
    return made


def _tables(kinds: tuple[str, ...], used: set[str]) -> Iterator[str]:
    shown: set[str] = set()  # a part that several kinds have is shown once
    for kind in kinds:
        schema = json_schema(kind)
        held = {name: part for name, part in schema.get("definitions", {}).items() if name in SPECS}
        order = _in_order(schema, held)
        yield from _table(kind, "##", schema, schema["required"], used)
        for name in order:
            if name in shown:
                continue
            shown.add(name)
            yield from _table(name, "###", held[name], held[name].get("required", []), used)


def _in_order(schema: dict[str, Any], held: dict[str, Any]) -> list[str]:
    """The definitions in the order in which fields name them. One without a title is called by field and type."""
    found: list[str] = []
    waiting = list(schema["properties"].items())
    while waiting:
        field, part = waiting.pop(0)
        new = [name for name in _referred(part) if name in held and name not in found]
        for name in new:
            if name not in TITLES:
                TITLES[name] = f"{field}, type: {held[name]['properties']['type']['const']}"
        found += new
        waiting = [*(item for name in new for item in held[name]["properties"].items()), *waiting]
    return found


def _referred(part: Any) -> list[str]:
    if isinstance(part, list):
        return [name for item in part for name in _referred(item)]
    if not isinstance(part, dict):
        return []
    own = [part["$ref"].rpartition("/")[2]] if "$ref" in part else []
    return own + [name for inner in part.values() for name in _referred(inner)]


def _table(name: str, level: str, schema: dict[str, Any], required: list[str], used: set[str]) -> list[str]:
    lines = [f"{level} {TITLES[name]}", "", "| field | values | default | |", "|---|---|---|---|"]
    for field, part in schema["properties"].items():
        key = f"{name}.{field}"
        if key not in MEANS:
            raise SystemExit(f"{key} has no line in docs/fields.yaml: say there what the field is for")
        used.add(key)
        given = field in required or "const" in part  # a tag has to be said
        default = "" if given else _default(name, field, part)
        lines.append(f"| `{field}` | {_values(part)} | {default} | {MEANS[key]} |")
    return [*lines, ""]


def _default(name: str, field: str, part: dict[str, Any]) -> str:
    """As the schema has it, or, where the schema has none, as the spec's class makes it."""
    if "default" in part:
        return f"`{_yaml(part['default'])}`"
    made = SPECS[name].model_fields.get(field) if name in SPECS else None
    return "" if made is None else f"`{_yaml(made.get_default(call_default_factory=True).model_dump(mode='json'))}`"


def _foreign(part: dict[str, Any]) -> bool:
    """Whether a plugin has registered this: the pages are about what the package has."""
    name = part.get("$ref", "").rpartition("/")[2]
    return bool(name) and name not in SPECS and name not in FREE


def _specs(of: type[Strict] = Strict) -> Iterator[type[Strict]]:
    for spec in of.__subclasses__():
        if spec.__module__.startswith("miniwin."):
            yield spec
        yield from _specs(spec)


def _values(part: dict[str, Any]) -> str:
    """What may stand there, in words."""
    for several in ("anyOf", "oneOf", "allOf"):
        if several in part:
            return ", or ".join(dict.fromkeys(_values(item) for item in part[several] if not _foreign(item)))
    if "$ref" in part:
        name = part["$ref"].rpartition("/")[2]
        return "anything" if name in FREE else f"[{TITLES[name].rpartition(', ')[2]}](#{_anchor(TITLES[name])})"
    if "const" in part:
        return f"`{part['const']}`"
    if "enum" in part:
        return ", ".join(f"`{value}`" for value in part["enum"])
    if part.get("type") == "array":
        return f"list of {_values(part['items'])}{_bounds(part, 'Items')}"
    if part.get("type") == "object":
        inner = part.get("additionalProperties") or next(iter(part.get("patternProperties", {}).values()), None)
        return f"names, and for each {_values(inner)}" if inner else "fields"
    words = {
        "integer": "whole number",
        "number": "number",
        "string": "text",
        "boolean": "`true`, `false`",
        "null": "`null`",
    }
    return f"{words[part['type']]}{_bounds(part)}"


def _bounds(part: dict[str, Any], of: str = "imum") -> str:
    low, high = part.get(f"min{of}"), part.get(f"max{of}")
    said = []
    if of == "Items":
        return f" ({low})" if low == high and low is not None else f" (at most {high})" if high is not None else ""
    if low is not None and "exclusiveMinimum" not in part:
        said.append(f"≥ {low:g}")
    if "exclusiveMinimum" in part:
        said.append(f"> {part['exclusiveMinimum']:g}")
    if high is not None and high < 1e6:  # beyond, it only keeps slips of the keyboard from overflowing
        said.append(f"≤ {high:g}")
    if "exclusiveMaximum" in part:
        said.append(f"< {part['exclusiveMaximum']:g}")
    return f" {', '.join(said)}" if said else ""


def _anchor(title: str) -> str:
    kept = "".join(c for c in title.lower() if c.isalnum() or c in " -_")
    return kept.replace(" ", "-")


def _yaml(value: Any) -> str:
    """A default as YAML has it."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_yaml(item)}' for key, item in value.items())}}}"
    return str(value) if isinstance(value, str) else json.dumps(value)


SPECS = {spec.__name__: spec for spec in _specs()} | {
    "model": ModelSpec,
    "train": TrainSpec,
    "search": SearchSpec,
    "suite": SuiteSpec,
}


if __name__ == "__main__":
    for name, text in pages().items():
        write_text(HERE / name, text)
