"""From `byte`, a file or a folder to a tokenizer."""

from __future__ import annotations

from pathlib import Path

from miniwin.files.json_files import JSONProblem, parse_json
from miniwin.specs import UserError, user_path
from miniwin.tokenizer.byte import ByteTokenizer
from miniwin.tokenizer.hugging_face import HFTokenizer
from miniwin.tokenizer.imported import ImportedTokenizer
from miniwin.tokenizer.interface import FILE, Tokenizer
from miniwin.tokenizer.special_ids import SpecialIds


def load_tokenizer(
    ref: str | Path, base: Path | None = None, raw: bytes | None = None, special: SpecialIds | None = None
) -> Tokenizer:
    """The tokenizer that `ref` names: `byte`, a `tokenizer.json`, or a folder that holds one, relative to `base`.

    raw: the bytes of the file, if they have been read already. special: the special ids of an imported model; its
    prompts are then read as transformers reads them.

    Raises:
        UserError: there is no such file, or it is not a tokenizer that can be used.
    """
    if ref == "byte":
        return ByteTokenizer()
    path = (base or Path()) / user_path(ref)
    if path.is_dir():
        path = path / FILE
    try:
        raw = path.read_bytes() if raw is None else raw
    except FileNotFoundError:
        raise UserError(
            f"tokenizer: no such file: {str(ref)!r} (looked for {path.absolute()}); expected `byte`, a "
            "Hugging Face tokenizer.json, or a folder that holds one"
        ) from None
    except OSError as error:
        raise UserError(f"tokenizer: cannot read {path}: {error}; expected a Hugging Face tokenizer.json") from None
    try:
        data = parse_json(raw)
    except JSONProblem as error:
        where = ":".join(map(str, (path, *error.place))) if error.place else f"cannot read {path}"
        raise UserError(f"tokenizer: {where}: {error.problem}; expected a Hugging Face tokenizer.json") from None
    if isinstance(data, dict) and data.get("type") == "byte":
        return ByteTokenizer()
    del data  # of a large vocabulary this is much, and the tokenizer reads the text anew
    text = raw.decode("utf-8-sig")
    if special is not None:
        return ImportedTokenizer(text, str(path), special.ends)
    return HFTokenizer(text, where=str(path))
