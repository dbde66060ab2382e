"""Write a tokenizer as transformers reads it: tokenizer.json and tokenizer_config.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from miniwin.files.writing import write_flushed
from miniwin.tokenizer import ByteTokenizer, ImportedTokenizer, Tokenizer


def byte_alphabet() -> list[str]:
    """The character that stands for each byte in a byte-level vocabulary (GPT-2).

    A byte that is printable in Latin-1 stands for itself; any other gets the next free character from U+0100 on.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(hidden)) for byte in range(256)]


def write_tokenizer(
    tokenizer: Tokenizer, ids: Mapping[str, Any], folder: Path, names: Mapping[str, str] | None = None
) -> None:
    """Write both files into `folder`.

    ids: eos_token_id, bos_token_id and pad_token_id, as in config.json. names: the tokens that a chat template knows as
    bos_token and the like.
    """
    from tokenizers import Tokenizer as Fast
    from tokenizers import decoders, models, pre_tokenizers

    if isinstance(tokenizer, ByteTokenizer):
        vocabulary = {character: byte for byte, character in enumerate(byte_alphabet())}
        fast = Fast(models.BPE(vocab=vocabulary, merges=[]))
        fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        fast.decoder = decoders.ByteLevel()
        # Not fast.save: it hides errors of the system, and takes only names that are text.
        write_flushed(folder / "tokenizer.json", fast.to_str(pretty=True))
    else:
        tokenizer.save(folder)
        fast = Fast.from_str((folder / "tokenizer.json").read_text(encoding="utf-8"))
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    settings["padding_side"] = "left"  # all our models take padding on the left
    imported = isinstance(tokenizer, ImportedTokenizer)
    special = {number for number, token in fast.get_added_tokens_decoder().items() if token.special}
    for name in ("eos", "pad", *(("bos",) if imported else ())):
        said = ids[f"{name}_token_id"]
        number = said[0] if isinstance(said, list) else said
        # transformers makes every token that is named here a special one. It would split prompts at an ordinary token.
        if number is not None and (number in special or not imported):
            token = fast.id_to_token(number)
            settings |= {} if token is None else {f"{name}_token": token}
    for name, token in (names or {}).items():  # what the template says of them is what the model has learned
        if fast.token_to_id(token) in special:
            settings[name] = token
    write_flushed(folder / "tokenizer_config.json", json.dumps(settings, indent=2) + "\n")
