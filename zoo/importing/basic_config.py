"""For exports: the fields that the configs of all families share. Sizes, heads, one norm, one activation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from miniwin.zoo.importing.family import CannotSay, Fields
from miniwin.zoo.importing.rope import longest_context
from miniwin.zoo.importing.words import Words, in_words


def basic_config(words: Words, model_type: str, architecture: str) -> dict[str, Any]:
    """The fields for sizes and heads. Raises CannotSay where layers differ."""
    spec = words.spec
    return {
        "model_type": model_type,
        "architectures": [architecture],
        "vocab_size": spec.vocab_size,
        "hidden_size": spec.hidden_size,
        "num_hidden_layers": spec.num_layers,
        "num_attention_heads": words.same("attention.num_heads"),
        "num_key_value_heads": words.same("attention.num_kv_heads"),
        "head_dim": words.same("attention.head_dim"),
        "max_position_embeddings": longest_context(spec),
        "tie_word_embeddings": spec.tie_word_embeddings,
        # The tokenizer says these. Left out, they would default to ids of the family's own vocabulary.
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }


def one_eps(words: Words, kind: Mapping[str, Any], more: Iterable[tuple[str, Any]] = ()) -> float:
    """The epsilon that all norms share. Raises CannotSay where they differ, or a norm is not of this kind.

    kind: the fields of a norm but eps. more: further norms, with their paths.
    """
    norms: list[tuple[str, Any]] = [("norm", words.spec.norm), *(("norm", norm) for norm in words.each("norm")), *more]
    eps = None
    for path, norm in norms:
        found = {} if norm is None else norm.model_dump(mode="json")
        mine = found.pop("eps", None)
        if found != dict(kind):
            got = "none" if norm is None else ", ".join(f"{key} {value}" for key, value in found.items())
            wanted = ", ".join(f"{key} {value}" for key, value in kind.items())
            raise CannotSay(path, f"got {got}; a {words.family} model has {wanted}")
        if eps is not None and mine != eps:
            raise CannotSay(f"{path}.eps", f"norms differ; a {words.family} config has one eps for all")
        eps = mine
    assert eps is not None
    return float(eps)


def one_activation(words: Words, mlps: Iterable[Any], known: Mapping[str, Mapping[str, Any]]) -> str:
    """The name of the activation that all these MLPs have. Raises CannotSay where they differ."""
    kinds = {(mlp.type, getattr(mlp, "approximate", "none")) for mlp in mlps}
    for name, data in known.items():
        if kinds == {(data["type"], data.get("approximate", "none"))}:
            return name
    got = " and ".join(sorted(kind if how == "none" else f"{kind} {how}" for kind, how in kinds))
    raise CannotSay("mlp.type", f"got {got}; a {words.family} config has one activation for all, and none for that")


def one_of(words: Words, path: str, values: Iterable[Any], default: Any = None) -> Any:
    """The one value of all `values`; `default` if there are none. Raises CannotSay where they differ."""
    found = list(values)
    for value in found:
        if value != found[0]:
            both = f"{in_words(found[0])} and {in_words(value)}"
            raise CannotSay(path, f"layers have {both}; a {words.family} config has one for all of these")
    return found[0] if found else default


def one_bias(words: Words) -> bool:
    """attention_bias: whether q, k, v and o have biases. Raises CannotSay where only some of them do."""
    bias = words.same("attention.qkv_bias")
    if words.same("attention.o_bias") != bias:
        raise CannotSay("attention.o_bias", f"a {words.family} config has one bias setting for q, k, v and o")
    return bool(bias)


def bound(fields: Fields, name: str) -> float | None:
    """A soft cap: a positive number, or null for none."""
    value = fields.raw(name)
    return None if value is None else positive(fields, name)


def positive(fields: Fields, name: str) -> float:
    value = fields.real(name)
    if not value > 0:
        raise fields.refuse(name, "expected a positive number")
    return value
