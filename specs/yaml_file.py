"""The text of a YAML file, and what can be wrong with the file before any YAML is read."""

from __future__ import annotations

from pathlib import Path

from miniwin.blocks.messages.nearest import nearest
from miniwin.specs.base import UserError
from miniwin.specs.text_encodings import wide
from miniwin.specs.yaml_lines import mark_of

MOST_BYTES = 256_000


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        UserError: the file is missing, a folder, too large, not readable, or not UTF-8.
    """
    try:
        if path.is_dir():
            inside = sorted(one for one in path.iterdir() if one.suffix in (".yaml", ".yml"))
            example = f", such as {inside[0]}" if inside else ""
            raise UserError(f"{path}: this is a folder; expected a YAML file{example}")
        if not path.exists():
            raise UserError(f"{path}: there is no such file{_near_file(path)}")
        if not path.is_file():
            raise UserError(f"{path}: this is not a regular file; expected a YAML file")
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise UserError(f"{path}:1:1: got {size} bytes; a spec has at most {MOST_BYTES}. Is this the right file?")
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    return decoded(raw, path)


def decoded(raw: bytes, path: Path) -> str:
    """The text of a file whose bytes were read already. Raises UserError if they are too many or not UTF-8."""
    if len(raw) > MOST_BYTES:
        raise UserError(f"{path}:1:1: got {len(raw)} bytes; a spec has at most {MOST_BYTES}. Is this the right file?")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        text = error.object  # without the byte order mark, unlike raw
        line, column = mark_of(text[: error.start].decode("utf-8", "replace"), None)
        encoding = wide(raw)
        hint = (
            f"the file is {encoding}; save it as UTF-8" if encoding else "save the file as UTF-8, if it is text at all"
        )
        raise UserError(f"{path}:{line}:{column}: byte {text[error.start]:#04x} is not UTF-8 text; {hint}") from None


def _near_file(path: Path) -> str:
    if not path.parent.is_dir():
        return f": {path.parent} is no folder" if path.parent != Path() else ""
    others = [other.name for other in path.parent.iterdir() if other.suffix in (".yaml", ".yml")]
    near = nearest(path.name, others, 0.8)
    return f"; did you mean '{path.parent / near}'?" if near else ""
