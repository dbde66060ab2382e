"""The model card: README.md with YAML front matter and a `model-index`, as the Hugging Face Hub reads them.

Every number on the card comes from metrics.json, suite.json, provenance.json or the spec; what was not measured is left
out. What a model was trained to answer, if it knows no text, is shown by examples.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Sequence
from typing import Any

import yaml

from miniwin.display.formats import decimal_bytes
from miniwin.evaluation.suite.result import SuiteResult
from miniwin.evaluation.tasks import Example, Task, draw
from miniwin.licences import UNKNOWN
from miniwin.specs import ModelSpec
from miniwin.zoo.card_values import by_length, trained_tasks, training_length, training_lengths
from miniwin.zoo.confirmation import HEADER as HEADINGS
from miniwin.zoo.confirmation import climbed, confirmed
from miniwin.zoo.entry import MODEL
from miniwin.zoo.suite_results import HEADER, card_rows, index_results, left_out

CACHE_LENGTHS = (4096, 131072, 1048576)
EXAMPLE = 96  # bytes of an example of a task


def write_card(
    *,
    name: str,
    version: str,
    description: str,
    licence: str,
    spec: ModelSpec,
    metrics: dict[str, Any],
    provenance: dict[str, Any],
    suite: SuiteResult | None = None,
    stored_as: str = "float32",
) -> str:
    """The text of README.md. stored_as: the type of the weights.

    Raises:
        ZooError: metrics or provenance hold values of a wrong type.
    """
    front = _front_matter(name, licence, metrics, provenance, suite)
    tasks = trained_tasks(provenance)
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---",
        f"# {name} {version}",
        description or f"A MiniWin language model with layout `{spec.layout}`.",
        _usage(f"{name}@{version}", tasks),
        *(["## What it answers", *map(_asked, tasks)] if tasks else []),
        "## Architecture",
        _architecture(spec, stored_as),
        "## Results",
        _results(metrics, suite, training_length(provenance)),
        *_confirmation(provenance),
        *_ladder(provenance),
        "## Provenance",
        _provenance(provenance),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(
    name: str, licence: str, metrics: dict[str, Any], provenance: dict[str, Any], suite: SuiteResult | None
) -> dict[str, Any]:
    front: dict[str, Any] = {
        "license": licence,
        "library_name": "miniwin",
        "pipeline_tag": "text-generation",
        "tags": ["miniwin", "long-context", "sliding-window-attention"],
    }
    results = [
        {"type": kind, "name": f"{title} at {length} tokens", "value": value, "args": {"length": length}}
        for kind, title in (("bits_per_byte", "Bits per byte"), ("recall", "Associative recall accuracy"))
        for length, value in by_length(metrics, kind).items()
    ]
    source = str((metrics.get("data") or {}).get("source") or _source(provenance))
    groups = [(source, source, results)]
    if suite is not None:
        groups.append(("miniwin-suite", suite.suite, index_results(suite)))
    listed = [
        {
            "task": {"type": "text-generation", "name": "Text generation"},
            "dataset": {"type": kind, "name": title},
            "metrics": found,
        }
        for kind, title, found in groups
        if found
    ]
    if listed:
        front["model-index"] = [{"name": name, "results": listed}]
    return front


def _usage(ref: str, tasks: Sequence[Task]) -> str:
    opening = f'```python\nimport miniwin\n\nmodel = miniwin.load("{ref}")\n'
    if tasks:
        example = example_of(tasks[0])
        start, end = example.answers[0]
        prompt = json.dumps(example.text[:start].decode("ascii"))
        options = f"max_new_tokens={end - start}, temperature=0.0"
        return f"{opening}prompt = {prompt}\nprint(model.generate(prompt, {options}))\n```"
    return (
        f'{opening}print(model.generate("def main(", max_new_tokens=64))\n```\n\n'
        f'```\nminiwin generate {ref} --prompt "def main("\n```'
    )


def example_of(task: Task) -> Example:
    """An example that no model was trained on."""
    return draw(task, max(EXAMPLE, task.shortest), seed=0, index=0, split="test")


def _asked(task: Task) -> str:
    """What a task asks, in the words of its file, and an example."""
    said = (inspect.getdoc(sys.modules[type(task).__module__]) or "").partition("\n\n")[0].replace("\n", " ")
    example = example_of(task)
    answers = ", ".join(f"`{example.text[start:end].decode('ascii').strip()}`" for start, end in example.answers)
    text = example.text.decode("ascii").strip("\n")
    fields = ", ".join(f"{key} {value}" for key, value in task.model_dump(mode="json").items() if key != "type")
    return (
        f"**{task.type}** ({fields}). {said} An example, whose answers are {answers}; each stands right behind its "
        f"question:\n\n```text\n{text}\n```"
    )


def _architecture(spec: ModelSpec, stored_as: str) -> str:
    rows = [
        ("Parameters", f"{spec.parameters():,}" + ("" if stored_as == "float32" else f", stored as {stored_as}")),
        ("Layout", f"`{spec.layout}`"),
        ("Hidden size", f"{spec.hidden_size:,}"),
        ("Vocabulary", f"{spec.vocab_size:,}"),
        ("Architecture hash", f"`{spec.hash[:16]}`"),
    ]
    rows += [(f"Cache at {n:,} tokens (float32)", decimal_bytes(spec.cache_bytes(n))) for n in CACHE_LENGTHS]
    return _table(("", ""), rows) + f"\n\nThe whole spec is in `{MODEL}`."


def _results(metrics: dict[str, Any], suite: SuiteResult | None, trained_at: int | None) -> str:
    parts = []
    bits, recall, cache = (by_length(metrics, key) for key in ("bits_per_byte", "recall", "cache_bytes"))
    lengths = sorted({*bits, *recall})
    if lengths:
        rows = []
        for n in lengths:
            times = f" ({n / trained_at:g}x)" if trained_at else ""
            rows.append(
                (
                    f"{n:,}{times}",
                    f"{bits[n]:.4f}" if n in bits else "",
                    f"{recall[n]:.1%}" if n in recall else "",
                    decimal_bytes(cache[n]) if n in cache else "",
                )
            )
        parts.append(_table(("Length", "Bits per byte", "Recall", "Cache"), rows))
    buckets = metrics.get("by_position") or {}
    if buckets:
        spans = [(str(span), f"{value:.4f}") for span, value in buckets.items() if value is not None]
        parts.append("By position in the text:\n\n" + _table(("Positions", "Bits per byte"), spans))
    speeds = [
        f"{title} {metrics[key]:,.0f} tokens/s"
        for key, title in (("prefill_tokens_per_second", "prefill"), ("decode_tokens_per_second", "decode"))
        if metrics.get(key)
    ]
    if speeds:
        parts.append(f"Speed where it was measured: {', '.join(speeds)}.")
    if suite is not None:
        parts.append(
            f"Suite `{suite.suite}`, on examples and documents that the model was not trained on. `suite.json` has "
            "the answers. Chance is a guess; blind is what a part of the task alone would give.\n\n"
            + _table(HEADER, card_rows(suite))
        )
        parts += [f"Left out: {note}" for note in left_out(suite)]
    return "\n\n".join(parts) or "Not measured."


def _confirmation(provenance: dict[str, Any]) -> list[str]:
    """Nothing, if the architecture was not confirmed."""
    found = confirmed(provenance)
    if found is None:
        return []
    sentence, rows = found
    about = (
        "The search trained this architecture and others anew, with new seeds, and measured them on text that neither "
        "training nor the search has seen. Intervals cover both seeds and text."
    )
    if provenance["confirmation"].get("untrained") is True:
        about = (
            "The search measured these weights in this architecture and in others, without training, on text that it "
            "has not seen. Intervals cover the text alone."
        )
    return ["## Confirmation", f"{_cell(sentence)} {about}", _table(HEADINGS, rows)]


def _ladder(provenance: dict[str, Any]) -> list[str]:
    """Nothing, if the architecture was not trained at other sizes."""
    sentence = climbed(provenance)
    if sentence is None:
        return []
    about = (
        "The search trained this architecture and its baseline at several sizes, each with the same parameters and the "
        "same compute. The interval covers seeds and text."
    )
    return ["## At other sizes", f"{_cell(sentence)} {about}"]


def _provenance(provenance: dict[str, Any]) -> str:
    run = provenance.get("run") or {}
    data = run.get("data") or {}
    machine = run.get("machine") or {}
    values = [
        ("Study", provenance.get("study")),
        ("Trial", provenance.get("trial")),
        ("Found with", _pairs(provenance.get("params"), "{key} = {value}")),
        ("Trials of the study", _pairs(provenance.get("trials"), "{value} {key}")),
        ("Began with the weights of", _origin(run.get("from"))),
        ("Data", _trained_on((provenance.get("run") or {}).get("data") or {})),
        ("Data fingerprint", f"`{data['fingerprint']}`" if data.get("fingerprint") else None),
        ("Seed", run.get("seed")),
        ("Weights", provenance.get("weights_of")),
        ("Learning rate", provenance.get("tuned_rate")),
        ("Tokens trained on", f"{run['tokens']:,}" if run.get("tokens") else None),
        ("Training length", ", ".join(map(str, training_lengths(provenance))) or None),
        ("Weights of the best evaluation", _pairs(provenance.get("weights"), "{key} {value}")),
        ("Seconds of training", f"{run['seconds']:,.0f}" if run.get("seconds") else None),
        ("Trained", run.get("started")),
        ("Code version", run.get("code")),
        (
            "Machine",
            ", ".join(f"{key} {value}" for key, value in machine.items() if value is not None) or None,
        ),
    ]
    rows = [(title, str(value)) for title, value in values if value is not None]
    return _table(("", ""), rows) + "\n\nEverything known is in `provenance.json`."


def _origin(origin: Any) -> str | None:
    """`smollm2 (imported model, sha256 1a2b3c4d5e6f, apache-2.0)`; None for a run that began with random weights."""
    if not isinstance(origin, dict):
        return None
    licence = origin.get("licence")
    said = [origin.get("kind"), f"sha256 {str(origin.get('sha256'))[:12]}", None if licence == UNKNOWN else licence]
    return f"{origin.get('ref')} ({', '.join(str(one) for one in said if one)})"


def _pairs(values: Any, form: str) -> str | None:
    """`period = 64, window = 32` of a dictionary; None of anything else."""
    if not isinstance(values, dict):
        return None
    return ", ".join(form.format(key=key, value=value) for key, value in values.items() if value is not None) or None


def _source(provenance: dict[str, Any]) -> str:
    data = (provenance.get("run") or {}).get("data") or {}
    return str(data.get("source") or "unknown")


def _trained_on(data: dict[str, Any]) -> str:
    """`text`, `examples of recall`, or `mixture: text (0.7), recall (0.3)`."""
    source, task, parts = str(data.get("source") or "unknown"), data.get("task"), data.get("parts")
    if isinstance(parts, list):
        named = [f"{part.get('name')} ({part.get('weight')})" for part in parts if isinstance(part, dict)]
        return f"{source}: {', '.join(named)}"
    return f"{source} of {task.get('type')}" if isinstance(task, dict) else source


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
