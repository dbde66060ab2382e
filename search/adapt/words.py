"""What `adapt` says: what it will do, and what came of it."""

from __future__ import annotations

from typing import Any

from miniwin.display.formats import bytes_text, duration, plural
from miniwin.search.adapt.plan import Named
from miniwin.search.adapt.prepared import Prepared


def intention(prepared: Prepared, seconds: dict[str, float], known: int) -> str:
    """What will be done, and about how long it takes."""
    settings, plan, size = prepared.settings, prepared.plan, prepared.size
    some = plan.dearest(size)
    others = others_see(settings.window, settings.sinks, settings.widen)
    at_most = "at most " if len(set(plan.costs.values())) > 1 else ""
    kept, whole = (one.cache_bytes(settings.length, "bfloat16") for one in (plan.spec_of(some), plan.spec))
    unit = "key/value head" if plan.heads else "layer"
    gates = [f"  gates: {plural(settings.gates, 'step')}, a row each; about {duration(seconds['gates'])}"]
    gates = gates if settings.gates else []
    lines = [
        f"adapt {prepared.origin.described()}",
        f"  {plural(size, unit)} of {len(plan.units)} stay global, {others}: {at_most}{plan.share(some):.1%} of the "
        f"cache at {settings.length:,} tokens "
        f"({bytes_text(kept)} of {bytes_text(whole)} in bfloat16)",
        *_own_layout(prepared),
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


def others_see(window: int, sinks: int, widen: bool) -> str:
    """What units see that do not stay global."""
    seen = f"{window} tokens and the first {sinks}" if sinks or not widen else f"{window} tokens"
    if widen:
        return f"the others keep the window that they have, or see {seen} where they have none (--widen)"
    return f"the others see {seen}"


def _own_layout(prepared: Prepared) -> list[str]:
    """A line where the model's own layout is no candidate of the search, though its cache may be kept whole."""
    plan, settings = prepared.plan, prepared.settings
    own = len(plan.original)
    if not settings.widen or settings.cache < 1 or prepared.size >= own:
        return []
    windows = {getattr(layer.attention, "window", None) for layer in plan.layers} - {None}
    said = f", as --window {windows.pop()} --sinks 0 allows" if len(windows) == 1 else ""
    return [
        f"  the model's own layout has {own} global and is no candidate: others of {own} need more cache than it has. "
        f"To search among them, local layers have to be like those of the model{said}"
    ]


def called(result: dict[str, Any], name: str) -> str:
    """What a placement is called. A layout that is the original's own is no other one."""
    return f"{name} (as in the original)" if is_original(result, name) else name


def is_original(result: dict[str, Any], name: str) -> bool:
    """Whether another name stands for the original: the same layers are global, and the same weights are used."""
    placements = result["placements"]
    same = bool(placements[name]["layers"] == placements["original"]["layers"])
    return same and name not in ("original", "healed")


def outcome(result: dict[str, Any]) -> list[str]:
    """A line for each placement of the report, and what the chosen one loses."""
    heads = ("", "layers", "cache", "bits a byte", "nats an answer token", "exact")
    rows = [heads]
    for name, one in result["placements"].items():
        answers = one["answers"]
        rows.append(
            (
                called(result, name),
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
    if is_original(result, "chosen"):
        said.append("The search found nothing better than the layout that the model has.")
    elif result["settings"].get("widen"):
        original = result["placements"]["original"]
        said += _against(
            result, "original", f"the original's own layout, with {original['cache_share']:.1%} of the cache"
        )
    if "healed" in result["placements"]:
        said.append(_healed(result))
    for name, one in result["placements"].items():
        if name in ("original", "chosen", "healed") or is_original(result, name) or not one["layers"]:
            continue
        same = f"{one['cache_share']:.1%}" == f"{chosen['cache_share']:.1%}"
        other = name if same else f"{name}, with {one['cache_share']:.1%} of the cache"
        said += _against(result, name, f"the one that is {other}")
    return said


def _against(result: dict[str, Any], name: str, other: str) -> list[str]:
    """Whether the chosen placement answers better than another one; nothing if there were no answers."""
    how = result["placements"][name]["chosen_minus_this"]["answers"]
    if how is None:
        return []
    low, high = how["low"], how["high"]
    clear = low is not None and high is not None and not low <= 0 <= high
    verdict = (
        "cannot be told apart on answers from"
        if not clear
        else "is better on answers than"
        if how["value"] < 0
        else "is worse on answers than"
    )
    share = result["placements"]["chosen"]["cache_share"]
    mine = f", with {share:.1%} of the cache," if name == "original" else ""
    return [f"The chosen placement{mine} {verdict} {other}: {interval_text(how, 3)} nats a token."]


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
