"""The tokenizer that an import carries over: the source's, or one that the user names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from miniwin.runs import TOKENIZER
from miniwin.specs import ModelSpec, UserError, user_path
from miniwin.tokenizer import Tokenizer, load_tokenizer
from miniwin.tokenizer.special_ids import SpecialIds
from miniwin.zoo.importing.source import Source

NO_TOKENIZER = "none"


@dataclass(frozen=True)
class Carried:
    """The tokenizer to carry over. file: that it is in, unless a file of the model made it."""

    raw: bytes
    tokenizer: Tokenizer
    file: Path | None


def carried_tokenizer(
    source: Source, chosen: str | Path | None, spec: ModelSpec, special: SpecialIds
) -> Carried | None:
    """The tokenizer to carry over. Raises UserError where the model lacks ids of it."""
    if chosen == NO_TOKENIZER:
        return None
    raw = None
    if chosen is not None:
        path = user_path(chosen)
        path = path / TOKENIZER if path.is_dir() else path
    elif (found := source.tokenizer_json()) is not None:
        path, raw = found
    else:
        return None
    without = f"give --tokenizer {NO_TOKENIZER} to import without it"
    try:
        tokenizer = load_tokenizer(path, raw=raw, special=special)
    except UserError as error:
        raise UserError(f"{error}; {without}") from None
    if tokenizer.rows > spec.vocab_size:
        raise UserError(
            f"{path}: the tokenizer has {tokenizer.rows} ids and the model only {spec.vocab_size}: they do not "
            f"belong together, or it names ids that the model never learned; {without}"
        )
    if any(one >= spec.vocab_size for one in tokenizer.prefix):
        raise UserError(
            f"{path}: every text begins with {tokenizer.decode(tokenizer.prefix)!r}, ids {list(tokenizer.prefix)}, and "
            f"the model knows the ids 0 to {spec.vocab_size - 1} only; {without}"
        )
    if tokenizer.vocab_size > spec.vocab_size:
        source.notes.append(
            f"special tokens of the tokenizer have ids up to {tokenizer.vocab_size - 1}, and the model knows those "
            f"below {spec.vocab_size} only: a prompt that holds one is refused"
        )
    raw = path.read_bytes() if raw is None else raw
    return Carried(raw, tokenizer, None if path in source.files.values() else path)
