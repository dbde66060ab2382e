"""YAML text -> plain Python, with the place of every value.

YAML 1.2 core types only (`no` is a string, `1e-3` a number, `08` no octal), in safe mode: a tag that would build an
object, a key given twice, an alias that contains itself, or aliases that expand to more than `MOST_VALUES` values are
errors with their line and column.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import yaml

from miniwin.specs.base import UserError

MOST_BYTES = 1_000_000
MOST_VALUES = 100_000
DEEPEST = 100

Key = str | int
Loc = tuple[Key, ...]

_INT = re.compile(r"[-+]?[0-9]+\Z")
_OTHER_INT = re.compile(r"0o[0-7]+\Z|0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}
_STANDARD = "tag:yaml.org,2002:"
_IMPLICIT = "!implicit"  # a scalar without a tag of its own
_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (float, int),
    "bool": (bool,),
    "null": (type(None),),
}


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """PyYAML resolves plain words by YAML 1.1; here it leaves them alone, and `plain` reads them by YAML 1.2."""

    yaml_implicit_resolvers: dict[str, Any] = {}
    DEFAULT_SCALAR_TAG = _IMPLICIT


class Document:
    """A parsed file: `data`, and where each part of it stands."""

    def __init__(self, text: str, source: str) -> None:
        self.source = source
        self._root = self._compose(text)
        self._sizes: dict[int, int] = {}
        self._open: list[int] = []
        if self._root is not None:
            self._measure(self._root)
        self.data: Any = None if self._root is None else self._construct(self._root)

    @classmethod
    def read(cls, path: Path) -> Document:
        """Raises UserError on a file that is missing, a folder, too large, not UTF-8, or not YAML."""
        if path.is_dir():
            raise UserError(f"{path}: this is a folder; expected a YAML file, such as {path}/model.yaml")
        if not path.exists():
            raise UserError(f"{path}: there is no such file")
        if not path.is_file():
            raise UserError(f"{path}: this is not a regular file; expected a YAML file")
        try:
            size = path.stat().st_size
            if size > MOST_BYTES:
                raise UserError(f"{path}: {size} bytes; a spec has at most {MOST_BYTES}. Is this the right file?")
            return cls(path.read_bytes().decode("utf-8-sig"), str(path))
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: byte {error.start} is not UTF-8 text; save the file as UTF-8") from None
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from None

    def place(self, loc: Loc) -> str:
        """`file:line:column` of a path into the data, or of the nearest part that exists."""
        return self._at(self._find(loc)[0])

    def known(self, loc: Loc) -> Loc:
        """The path as far as it exists in the file; parts that only the validator knows are left out."""
        return self._find(loc)[1]

    def anchors_used(self, key: str) -> bool:
        """Whether the value of this top-level key, or something in it, is used by an alias elsewhere."""
        assert isinstance(self._root, yaml.MappingNode)
        here: set[int] = set()
        elsewhere: set[int] = set()
        for k, v in self._root.value:
            _collect(v, here if k.value == key else elsewhere)
        return bool(here & elsewhere)

    def _find(self, loc: Loc) -> tuple[yaml.Node | None, Loc]:
        node, keys, found = self._root, None, []
        for part in loc:
            step = _child(node, part)
            if step is None:
                continue  # a union's tag, or a field that is missing
            keys, node = step
            found.append(part)
        # An unknown or misspelt field is pointed at by its key, which stands before the value.
        return (keys if keys is not None and found and found[-1] == loc[-1] else node), tuple(found)

    def _at(self, node: yaml.Node | None) -> str:
        if node is None:
            return self.source
        return f"{self.source}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"

    def _fail(self, node: yaml.Node, message: str) -> NoReturn:
        raise UserError(f"{self._at(node)}: {message}")

    def _compose(self, text: str) -> yaml.Node | None:
        deep = _too_deep(text)
        if deep is not None:
            raise UserError(f"{self.source}:{deep}: nested deeper than {DEEPEST} levels; is this the right file?")
        try:
            return yaml.compose(text, Loader=_Loader)  # type: ignore[no-any-return]
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = f"{self.source}:{mark.line + 1}:{mark.column + 1}" if mark else self.source
            hint = " (indent with spaces, not tabs)" if "\\t" in str(error.problem) else ""
            raise UserError(f"{where}: not valid YAML: {error.problem or error.context}{hint}") from None
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise UserError(f"{self.source}: not valid YAML: {error}") from None

    def _measure(self, node: yaml.Node) -> int:
        """How many values a node stands for with its aliases written out; refuses cycles and bombs."""
        known = self._sizes.get(id(node))
        if known is not None:
            return known
        if id(node) in self._open:
            self._fail(node, "this anchor contains an alias to itself; a spec must be finite")
        self._open.append(id(node))
        size = 1 + sum(self._measure(child) for child in _children(node))
        self._open.pop()
        if size > MOST_VALUES:
            self._fail(node, f"its aliases stand for more than {MOST_VALUES} values; write a smaller spec")
        self._sizes[id(node)] = size
        return size

    def _construct(self, node: yaml.Node) -> Any:
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if isinstance(node, yaml.SequenceNode):
            self._check_tag(node, "seq")
            return [self._construct(child) for child in node.value]
        assert isinstance(node, yaml.MappingNode)
        self._check_tag(node, "map")
        return self._mapping(node)

    def _mapping(self, node: yaml.MappingNode) -> dict[Any, Any]:
        merged: dict[Any, Any] = {}
        own: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            if _is_merge(key_node):
                merged = {**self._merge(value_node), **merged}
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self._fail(key_node, "a key must be a plain word")
            key = self._scalar(key_node)
            if key in own:
                self._fail(key_node, f"'{key}' is given twice in the same mapping; remove one")
            own[key] = self._construct(value_node)
        return {**merged, **own}

    def _merge(self, node: yaml.Node) -> dict[Any, Any]:
        parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[Any, Any] = {}
        for part in parts:
            if not isinstance(part, yaml.MappingNode):
                self._fail(part, "'<<' merges a mapping, such as <<: *layer")
            merged = {**self._mapping(part), **merged}
        return merged

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        text: str = node.value
        if node.tag == _IMPLICIT:
            return plain(text) if _is_plain(node) else text
        kind = node.tag.removeprefix(_STANDARD)
        if not node.tag.startswith(_STANDARD) or kind not in _TYPES:
            self._fail(node, f"the tag {_shown(node.tag)} is not allowed; a spec is made of plain values")
        value = text if kind == "str" else plain(text)
        if type(value) not in _TYPES[kind]:
            self._fail(node, f"'{text}' is not {_shown(node.tag)}")
        return value

    def _check_tag(self, node: yaml.Node, kind: str) -> None:
        if node.tag != _STANDARD + kind:
            self._fail(node, f"the tag {_shown(node.tag)} is not allowed; a spec is made of plain values")


def plain(text: str) -> Any:
    """The value of an unquoted word by the YAML 1.2 core schema."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.match(text):
        return int(text) if len(text) < 400 else float(text)
    if _OTHER_INT.match(text):
        return int(text, 0)
    return float(text) if _FLOAT.match(text) else text


def _too_deep(text: str) -> str | None:
    """`line:column` of the first bracket nested too deep: the parser would recurse until it falls over."""
    depth = 0
    for number, line in enumerate(text.split("\n"), 1):
        for column, char in enumerate(line, 1):
            if char in "[{":
                depth += 1
                if depth > DEEPEST:
                    return f"{number}:{column}"
            elif char in "]}":
                depth = max(depth - 1, 0)
        block = len(line) - len(line.lstrip(" -?"))
        if block > 4 * DEEPEST:
            return f"{number}:{block + 1}"
    return None


def _shown(tag: str) -> str:
    return tag.replace(_STANDARD, "!!")


def _is_merge(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.value == "<<" and _is_plain(node)


def _is_plain(node: yaml.ScalarNode) -> bool:
    """Unquoted. libyaml gives '' for the style, the Python parser None."""
    return not node.style


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key
            yield value
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def _collect(node: yaml.Node, into: set[int]) -> None:
    if id(node) in into:
        return
    if not isinstance(node, yaml.ScalarNode):
        into.add(id(node))
    for child in _children(node):
        _collect(child, into)


def _child(node: yaml.Node | None, part: Key) -> tuple[yaml.Node, yaml.Node] | None:
    """The key node (or item) and the value node that `part` names, looking through merges."""
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part]
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if not _is_merge(key) and isinstance(key, yaml.ScalarNode) and key.value == str(part):
                return key, value
        for key, value in node.value:
            if _is_merge(key):
                for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    found = _child(source, part)
                    if found is not None:
                        return found
    return None
