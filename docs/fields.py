"""`python docs/fields.py`: writes docs/fields.md, the fields of train and search specs, from their schemas.

Names, values and defaults come from the schema. What a field is for stands here, in `MEANS`: a field that has no line
there, or a line that no field has, is an error.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from miniwin.files.writing import write_text
from miniwin.specs.schema import json_schema

PAGE = Path(__file__).with_name("fields.md")
KINDS = ("train", "search")

TOP = """\
# Train and search specs, field by field

`python docs/fields.py` writes this page from the schemas. A field without a default has to be given. `null` stands for
nothing. Relative paths start at the folder of the YAML file. Numbers may be written `4e6` or `4_000_000`.
`--set FIELD=VALUE` changes a field from the command line: `--set budget.trials=20`. `miniwin schema train` and
`miniwin schema search` print the same for editors. What a model spec can say is in [specs.md](specs.md).
"""

FREE = ("JsonValue",)  # anything that YAML can say
TITLES = {
    "train": "A train spec",
    "search": "A search spec",
    "PythonStdlibData": "data, source: python-stdlib",
    "TextData": "data, source: text",
    "JsonlData": "data, source: jsonl",
    "TaskData": "data, source: tasks",
    "OptimizerSpec": "optimizer",
    "CosineSchedule": "schedule, type: cosine",
    "WSDSchedule": "schedule, type: wsd",
    "StopSpec": "stop",
    "IntVariable": "variables, int",
    "FloatVariable": "variables, float",
    "ChoiceVariable": "variables, choice",
    "Budget": "budget",
    "TPESampler": "sampler, type: tpe",
    "RandomSampler": "sampler, type: random",
    "MedianPruner": "pruner, type: median",
    "AshaPruner": "pruner, type: asha",
}
SAMPLE = "the share of the text that is kept back for validation"
MEANS = {
    "train.kind": "what kind of file this is",
    "train.format": "how the file is written",
    "train.name": "of the run; it does not change what is trained",
    "train.data": "where the text comes from",
    "train.tokenizer": "`byte`, or the path of a Hugging Face `tokenizer.json`",
    "train.seq_len": "tokens in one sequence: the length that a model is trained at",
    "train.packing": "`stream`: a sequence is a stretch of text, whatever it holds. `documents`: no token sees across "
    "the end of its document",
    "train.batch_size": "sequences in one forward and backward pass, of all processes together",
    "train.gradient_accumulation": "passes in one optimizer step",
    "train.tokens": "the whole budget, in tokens",
    "train.optimizer": "how weights are changed",
    "train.schedule": "the learning rate, step by step",
    "train.clip_grad_norm": "the largest norm of the gradient; `null` does not clip",
    "train.dtype": "`bfloat16` is autocast: weights stay float32. `auto` is bfloat16 where the device has units for "
    "its products, else float32",
    "train.compile": "compile the layers with torch.compile: costs seconds at the start, so not for short runs",
    "train.seed": "of the weights and of the order of the text",
    "train.log_every": "optimizer steps between lines of `metrics.jsonl`",
    "train.checkpoint_seconds": "seconds between checkpoints; 0 writes one after every step",
    "train.stop": "when a run is hopeless",
    "PythonStdlibData.source": "the standard library of the Python that runs this",
    "PythonStdlibData.valid_fraction": SAMPLE,
    "TextData.source": "text files; each file is a document",
    "TextData.paths": "files, folders (all that is in them) and patterns such as `books/*.txt`",
    "TextData.valid_fraction": f"{SAMPLE}; `null` is 0.1, unless there are `valid_paths`",
    "TextData.valid_paths": "all of this is for validation, and nothing of `paths`",
    "TextData.split": "`file` keeps back whole files, `tail` the end of each; `null` is `file` where there are enough "
    "files for the fraction, else `tail`",
    "JsonlData.source": "JSON lines; each line is a document",
    "JsonlData.paths": "files, folders and patterns",
    "JsonlData.valid_fraction": f"{SAMPLE}; `null` is 0.1, unless there are `valid_paths`",
    "JsonlData.valid_paths": "all of this is for validation, and nothing of `paths`",
    "JsonlData.field": "the field of a line that holds its text",
    "TaskData.source": "examples that are generated",
    "TaskData.task": "what is generated: keys with values, and later a key whose value is asked for",
    "TaskData.length": "bytes of one example",
    "TaskData.num_pairs": "keys with values in one example",
    "TaskData.tokens": "bytes of examples to train on",
    "TaskData.valid_fraction": "so much more, for validation",
    "TaskData.seed": "of the examples",
    "OptimizerSpec.type": "`muon` is Muon for the matrices of the layers and AdamW for the rest",
    "OptimizerSpec.lr": "the largest learning rate of the schedule",
    "OptimizerSpec.beta1": "of AdamW",
    "OptimizerSpec.beta2": "of AdamW",
    "OptimizerSpec.eps": "of AdamW",
    "OptimizerSpec.weight_decay": "of matrices only: not of embeddings, gains or scales",
    "OptimizerSpec.momentum": "of Muon, and refused without it; `null` is 0.95",
    "CosineSchedule.type": "linear warm-up, then half a cosine",
    "CosineSchedule.warmup": "fraction of all steps",
    "CosineSchedule.final": "where it ends, as a fraction of `lr`",
    "WSDSchedule.type": "warm-up, then `lr` is held, then it falls linearly",
    "WSDSchedule.warmup": "fraction of all steps",
    "WSDSchedule.decay": "fraction of all steps, the last ones; with `warmup` at most 1",
    "WSDSchedule.final": "where it ends, as a fraction of `lr`",
    "StopSpec.loss_spike": "nats above the median of the losses before; `null` never stops for a spike",
    "StopSpec.patience": "steps in a row so far above, after which the run ends as diverged",
    "search.kind": "what kind of file this is",
    "search.format": "how the file is written",
    "search.name": "of the study and of its folder",
    "search.base": "the model spec that every trial starts from: a path, or the name of a shipped one",
    "search.train": "the train spec of every trial and of the baseline",
    "search.baseline": "a model spec that is trained with the same budget, to compare with",
    "search.variables": "name and range of what is chosen for each trial",
    "search.set": "field of the base model, or `train.` and a field, and what to put there: an "
    "[expression](expressions.md) where it is text, else the value itself",
    "search.objectives": "what is wanted, such as `minimize loss@4096`; see "
    "[expressions.md](expressions.md#objectives-and-constraints)",
    "search.constraints": "what is allowed, known before training, such as `parameters <= 1.2e6`",
    "search.budget": "how much is trained",
    "search.sampler": "how variables are chosen",
    "search.pruner": "how trials that fall behind are stopped; for one objective only",
    "search.rungs": "where a pruner judges, as increasing fractions of a trial's tokens",
    "search.report_lengths": "lengths at which loss is measured; `null` is 1, 2, 4, 8 and 16 times the training length",
    "search.eval_tokens": "tokens that are measured at each length when a trial ends",
    "search.rung_eval_tokens": "tokens that are measured at a rung",
    "search.seed": "of the sampler and of the evaluation; a model's seed is the train spec's",
    "search.workers": "worker processes; `--workers` says otherwise",
    "IntVariable.int": "lowest and highest, both included",
    "IntVariable.step": "between neighbours",
    "IntVariable.log": "drawn by its logarithm; then from 1 on, and without a step",
    "FloatVariable.float": "lowest and highest, both included",
    "FloatVariable.step": "between neighbours; `null` is any number",
    "FloatVariable.log": "drawn by its logarithm; then above 0, and without a step",
    "ChoiceVariable.choice": "numbers, text, `true`, `false`, `null`, or whole fields such as `{type: rope}`; their "
    "order means nothing",
    "Budget.trials": "trained trials of the whole study, pruned ones included; broken constraints and repeated "
    "architectures cost none. It may grow later, and nothing else may change",
    "Budget.tokens_per_trial": "`null` is `tokens` of the train spec",
    "TPESampler.type": "tree-structured Parzen estimator, over all variables together",
    "TPESampler.startup": "random trials at the start",
    "RandomSampler.type": "every trial is random",
    "MedianPruner.type": "stops a trial that is worse than the median of the finished ones at the same rung",
    "MedianPruner.startup": "finished trials before any is stopped",
    "AshaPruner.type": "successive halving: at each rung only the best go on",
    "AshaPruner.reduction": "one of so many goes on",
}


def page() -> str:
    used: set[str] = set()
    parts = [TOP]
    for kind in KINDS:
        schema = json_schema(kind)
        held = schema.get("definitions", {})
        parts += _table(kind, "##", schema, schema["required"], used)
        for name in _in_order(schema):
            if name not in FREE:
                parts += _table(name, "###", held[name], held[name].get("required", []), used)
    if unused := sorted(set(MEANS) - used):
        raise SystemExit(f"docs/fields.py: MEANS has lines that no field has: {', '.join(unused)}")
    return "\n".join(parts)


def _in_order(schema: dict[str, Any]) -> list[str]:
    """The definitions, in the order in which fields name them."""
    found: list[str] = []
    for part in schema["properties"].values():
        found += [name for name in _referred(part) if name not in found]
    if missing := set(schema.get("definitions", {})) - set(found):
        raise SystemExit(f"docs/fields.py: no field of {schema['title']} itself holds {', '.join(sorted(missing))}")
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
            raise SystemExit(f"docs/fields.py: {key} has no line in MEANS: say there what the field is for")
        used.add(key)
        given = field in required or "default" not in part or "const" in part  # a tag has to be said
        default = "" if given else f"`{_yaml(part['default'])}`"
        lines.append(f"| `{field}` | {_values(part)} | {default} | {MEANS[key]} |")
    return [*lines, ""]


def _values(part: dict[str, Any]) -> str:
    """What may stand there, in words."""
    for several in ("anyOf", "oneOf", "allOf"):
        if several in part:
            return ", or ".join(dict.fromkeys(_values(item) for item in part[several]))
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
        inner = part.get("additionalProperties") or next(iter(part.get("patternProperties", {}).values()))
        return f"names, and for each {_values(inner)}"
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
    if low is not None:
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


if __name__ == "__main__":
    write_text(PAGE, page())
