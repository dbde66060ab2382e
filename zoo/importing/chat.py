"""The chat format of a source: its template and its special tokens become chat_template.jinja and chat.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from miniwin.chat.format import NAMES, ChatFormat, make_chat_format
from miniwin.chat.rendering import TemplateProblem
from miniwin.specs import UserError
from miniwin.specs.yaml_scalars import shown
from miniwin.tokenizer import Tokenizer
from miniwin.tokenizer.special_ids import SpecialIds
from miniwin.zoo.importing.source import Source

DEFAULT = "default"  # of several templates


def chat_format(source: Source, special: SpecialIds, tokenizer: Tokenizer | None) -> ChatFormat | None:
    """The chat format; None where the source has no template. One that cannot be used is noted for the user."""
    if source.chat_template is None or tokenizer is None:
        return None
    ends = [tokenizer.decode([one]) for one in special.ends if one < tokenizer.vocab_size]
    try:
        made = make_chat_format(source.chat_template, source.special_tokens, ends, tokenizer, _context(source.config))
    except TemplateProblem as problem:
        source.notes.append(f"the chat template is left out: {problem.problem}")
        return None
    if not made.end_tokens:
        source.notes.append("the chat template is left out: no token of the tokenizer ends an answer")
        return None
    return made


def _context(config: Mapping[str, Any]) -> int | None:
    """For how many tokens the model was made."""
    nested = config.get("text_config")
    for fields in (nested if isinstance(nested, dict) else {}, config):
        said = fields.get("max_position_embeddings")
        if type(said) is int and said > 0:
            return said
    return None


def template_of(where: str, said: Any) -> str | None:
    """The template in a field: one, or several with names, of which `default` counts."""
    if isinstance(said, list):
        named = {one.get("name"): one.get("template") for one in said if isinstance(one, dict)}
        said = named.get(DEFAULT)
    if said is not None and not isinstance(said, str):
        raise UserError(f"{where}: chat_template: got {shown(said)}; expected a text, a template")
    return said


def special_tokens(where: str, config: Mapping[str, Any]) -> dict[str, str]:
    """bos_token and the like of tokenizer_config.json: texts, or objects with a content."""
    found = {}
    for name in NAMES:
        token = config.get(name)
        token = token.get("content") if isinstance(token, dict) else token
        if token is not None and not isinstance(token, str):
            raise UserError(f"{where}: {name}: got {shown(config[name])}; expected a token")
        if token:
            found[name] = token
    return found
