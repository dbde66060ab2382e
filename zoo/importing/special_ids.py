"""The special ids of a source: where texts end and begin, and what pads them.

They are in config.json and in generation_config.json; transformers generates by the second. Both are read, and a text
ends at every id that either names. The ids around a prompt come from the post-processor of tokenizer.json alone: where
there is one, transformers ignores add_bos_token of tokenizer_config.json.
"""

from __future__ import annotations

from typing import Any

from miniwin.blocks.messages.listing import some
from miniwin.specs import UserError
from miniwin.specs.yaml_scalars import shown
from miniwin.tokenizer.special_ids import SpecialIds, is_id
from miniwin.zoo.importing.asked import Asked
from miniwin.zoo.importing.hf_folder import CONFIG, GENERATION
from miniwin.zoo.importing.source import Source

NAMES = ("eos_token_id", "bos_token_id", "pad_token_id")


def special_ids(source: Source, asked: Asked, vocab_size: int) -> SpecialIds:
    """The special ids of both files. An id for which the model has no row is left out, and noted for the user."""
    nested = source.config.get("text_config")
    said: dict[str, list[int]] = {name: [] for name in NAMES}
    for name in NAMES:
        given = asked.get(name)
        if given is None and isinstance(nested, dict):
            given = nested.get(name)
        for where, value in ((CONFIG, given), (GENERATION, source.generation.get(name))):
            said[name] += _ids(source, where, name, value)
    for name, ids in said.items():
        beyond = sorted({one for one in ids if one >= vocab_size})
        if beyond:
            source.notes.append(
                f"{name}: {some(beyond, 8)} left out: the model knows the ids 0 to {vocab_size - 1} only"
            )
        said[name] = [one for one in dict.fromkeys(ids) if one < vocab_size]
    ends, bos, pad = (said[name] for name in NAMES)
    # There can be one of these; that of generation_config.json counts.
    return SpecialIds(tuple(ends), bos[-1] if bos else None, pad[-1] if pad else None)


def _ids(source: Source, where: str, name: str, value: Any) -> list[int]:
    """The ids in a field: one, a list, or none. Some files write -1 for none."""
    many = name == "eos_token_id"
    found: list[Any] = value if many and isinstance(value, list) else [] if value is None else [value]
    for one in found:
        if not is_id(one) and one != -1:
            expected = "expected an id, or a list of ids" if many else "expected an id"
            at = source.path / where if source.kind == "hf" else source.described
            raise UserError(f"{at}: {name}: got {shown(value)}; {expected}")
    return [one for one in found if one != -1]
