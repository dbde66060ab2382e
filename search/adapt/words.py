"""What `adapt` says: what it will do, and what came of it."""

from __future__ import annotations

from typing import Any

from miniwin.display.formats import bytes_text, duration, plural
from miniwin.search.adapt.plan import Named
from miniwin.search.adapt.prepared import Prepared


def intention(prepared: Prepared, seconds: dict[str, float], known: int) -> str:
    """What will be done, and about how long it takes."""
    settings, plan, size = prepared.settings, prepared.plan, prepared.size
    some = plan.units[:size]
    kept, whole = (one.cache_bytes(settings.length, "bfloat16") for one in (plan.spec_of(some), plan.spec))
    unit = "key/value head" if plan.heads else "layer"
    gates = [f"  gates: {plural(settings.gates, 'step')}, a row each; about {duration(seconds['gates'])}"]
    gates = gates if settings.gates else []
    lines = [
        f"adapt {prepared.origin.described()}",
        f"  {plural(size, unit)} of {len(plan.units)} stay global, the others see {settings.window} tokens and the "
        f"first {settings.sinks}: {plan.share(some):.1%} of the cache at {settings.length:,} tokens "
        f"({bytes_text(kept)} of {bytes_text(whole)} in bfloat16)",
        f"  search: {settings.evaluations} placements on {plural(settings.search_rows, 'row')} of "
        f"{settings.search_len:,} tokens with windows of {settings.search_window}, "
        f"{settings.questions * settings.search_rows} questions, text from {prepared.texts[0].name}; "
        f"about {duration(seconds['search'])}",
        *gates,
        f"  report: 6 placements on {plural(settings.rows, 'row')} of {settings.seq_len:,} tokens, "
        f"{(settings.questions + settings.harder) * settings.rows} questions, text from {prepared.texts[1].name}; "
        f"about {duration(seconds['report'])}",
    ]
    if settings.heal:
        lines.append(
            f"  healing: {settings.heal:,} tokens with the original as teacher; about {duration(seconds['healing'])}"
        )
    if known:
        lines.append(f"  {plural(known, 'score')} of an earlier session are known and not computed again")
    return "\n".join(lines)


def outcome(result: dict[str, Any]) -> list[str]:
    """A line for each placement of the report, and what the chosen one loses."""
    heads = ("", "layers", "cache", "bits a byte", "nats an answer token", "exact")
    rows = [heads]
    for name, one in result["placements"].items():
        answers = one["answers"]
        rows.append(
            (
                name,
                layers_text(one["layers"], len(result["whole_layers"])),
                f"{one['cache_share']:.1%}",
                f"{one['bits_per_byte']['value']:.4f}",
                f"{answers['nats']:.3f}",
                f"{answers['exact']}/{answers['questions']}",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    chosen = result["placements"]["chosen"]
    text, answers = chosen["bits_per_byte"], chosen["answers"]
    return [
        *lines,
        f"chosen against the original: text {text['more']:+.2%} "
        f"({interval_text(text['difference'], 4)} bits a byte), answers {interval_text(answers['difference'], 3)} nats "
        f"a token, {answers['questions']} questions; 95 % intervals over {answers['difference']['n']} paired rows",
    ]


def layers_text(layers: list[Named], of: int) -> str:
    if len(layers) == of:
        return f"all {of}"
    return ", ".join(map(str, layers)) or "none"


def interval_text(found: dict[str, Any], digits: int) -> str:
    """`+0.012 [-0.003, +0.027]`."""
    low, high = ("?" if found[end] is None else f"{found[end]:+.{digits}f}" for end in ("low", "high"))
    return f"{found['value']:+.{digits}f} [{low}, {high}]"


def verdicts(result: dict[str, Any]) -> list[str]:
    """What came of it, in sentences."""
    chosen = result["placements"]["chosen"]
    text, answers = chosen["bits_per_byte"], chosen["answers"]
    said = [
        f"{chosen['cache_share']:.1%} of the cache at {result['settings']['length']:,} tokens are left. Text costs "
        f"{text['more']:+.2%} of the bits per byte ({interval_text(text['difference'], 4)}), and answers "
        f"{interval_text(answers['difference'], 3)} nats a token: {answers['exact']} of {answers['questions']} answers "
        f"are exact, {answers['exact_original']} with the original."
    ]
    if chosen["layers"] == result["placements"]["original"]["layers"]:
        said.append("The search found nothing better than the layout that the model has.")
    if "healed" in result["placements"]:
        said.append(_healed(result))
    for name, one in result["placements"].items():
        against = one["chosen_minus_this"]
        if name in ("original", "chosen", "healed") or against["answers"] is None or not one["layers"]:
            continue
        how = against["answers"]
        low, high = how["low"], how["high"]
        clear = low is not None and high is not None and not low <= 0 <= high
        verdict = (
            "cannot be told apart on answers from"
            if not clear
            else "is better on answers than"
            if how["value"] < 0
            else "is worse on answers than"
        )
        share = f"{one['cache_share']:.1%}"
        other = name if share == f"{chosen['cache_share']:.1%}" else f"{name}, with {share} of the cache"
        said.append(f"The chosen placement {verdict} the one that is {other}: {interval_text(how, 3)} nats a token.")
    return said


def _healed(result: dict[str, Any]) -> str:
    healed, chosen = (result["placements"][name] for name in ("healed", "chosen"))
    text, answers = healed["bits_per_byte"], healed["answers"]
    gap = chosen["answers"]["nats"] - chosen["answers"]["original"]
    closed = "" if gap <= 0 else f", {(chosen['answers']['nats'] - answers['nats']) / gap:.0%} of the gap closed"
    return (
        f"Healed on {result['settings']['heal']:,} tokens: text {text['more']:+.2%} "
        f"({interval_text(text['difference'], 4)}), answers {interval_text(answers['difference'], 3)} nats a "
        f"token{closed}."
    )
