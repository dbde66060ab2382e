"""YAML text -> plain Python, with the place of every value.

Words are read by the YAML 1.2 core types: `no` is text, `1e-3` a number, `08` the number 8. Every error has its line
and column. Tags that would build an object, keys given twice and keys that are not text are reported all at once. Three
things end the reading at the first error: what the parser cannot read, an alias that contains itself, and more than
`MOST_VALUES` values with aliases written out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from miniwin.blocks.messages.nearest import nearest
from miniwin.specs.base import UserError
from miniwin.specs.yaml_file import decoded, read_text
from miniwin.specs.yaml_lines import Lines, Loc, Mark, is_empty, is_merge, is_unquoted, mark_of, start_of
from miniwin.specs.yaml_scalars import LARGEST, is_number_too_large, plain, shown

MOST_VALUES = 50_000
MOST_SHOWN = 20  # errors of one file
DEEPEST = 100  # levels, with aliases written out: the code here recurses

_STANDARD = "tag:yaml.org,2002:"
_IMPLICIT = "!implicit"  # a scalar without a tag of its own
_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (float, int),
    "bool": (bool,),
    "null": (type(None),),
}
_BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")
# The characters that YAML allows nowhere, not even in quotes.
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Leaves unquoted words as text. PyYAML would read them by YAML 1.1; `plain` reads them by YAML 1.2."""

    yaml_implicit_resolvers: dict[str, Any] = {}
    DEFAULT_SCALAR_TAG = _IMPLICIT


class _SlowLoader(yaml.SafeLoader):
    """The same in Python, which reads the escape "\\udcff": we write it for a byte of a file name that is no text."""

    yaml_implicit_resolvers: dict[str, Any] = {}
    DEFAULT_SCALAR_TAG = _IMPLICIT  # type: ignore[misc]


_BYTE = re.compile(r"\\u[dD][cC][89a-fA-F]")


def _loader(text: str) -> Any:
    return _SlowLoader if _BYTE.search(text) else _Loader


class Document:
    """A parsed file: `data`, and where each part of it stands.

    marked: whether errors give line and column. A value from the command line has none.

    Raises:
        UserError: on text that is not YAML, or is more than a spec may hold.
    """

    def __init__(self, text: str, source: str, marked: bool = True) -> None:
        self.source = source
        self._marked = marked
        self._problems: list[tuple[Mark, str]] = []
        self._sizes: dict[int, tuple[int, int]] = {}
        self._open: set[int] = set()
        self._root = self._compose(text)
        self._lines = Lines(self._root)
        self.data: Any = None
        if self._root is not None:
            self._measure(self._root)
            self.data = self._construct(self._root)
        self._report()

    @classmethod
    def read(cls, path: Path) -> Document:
        """Parse a file. Raises UserError if it is missing, a folder, too large, not UTF-8, or not YAML."""
        return cls(read_text(path), str(path))

    @classmethod
    def of(cls, raw: bytes, path: Path) -> Document:
        """As `read`, from bytes that were read already. Raises UserError if too large, not UTF-8, or not YAML."""
        return cls(decoded(raw, path), str(path))

    def mark(self, path: Loc, key: bool = False) -> Mark:
        """Line and column of the value at a path into the data, or of its key; see `Lines.mark`."""
        return self._lines.mark(path, key)

    def place(self, path: Loc, key: bool = False) -> str:
        """`file:line:column` of the value at a path into the data, or of its key."""
        return self._at(self.mark(path, key))

    def anchors_used(self, key: str) -> bool:
        """Whether the value of this top-level key, or something in it, is used by an alias elsewhere."""
        assert isinstance(self._root, yaml.MappingNode)
        here: set[int] = set()
        elsewhere: set[int] = set()
        for k, v in self._root.value:
            _collect(v, here if k.value == key else elsewhere)
        return bool(here & elsewhere)

    def _at(self, mark: Mark) -> str:
        return f"{self.source}:{mark[0]}:{mark[1]}" if self._marked else self.source

    def _problem(self, node: yaml.Node, message: str) -> None:
        self._problems.append((start_of(node), message))

    def _report(self) -> None:
        if self._problems:
            lines = [f"{self._at(mark)}: {message}" for mark, message in sorted(set(self._problems))]
            more = len(lines) - MOST_SHOWN
            raise UserError("\n".join(lines[:MOST_SHOWN] + ([f"... and {more} more"] if more > 0 else [])))

    def _refuse(self, mark: Mark, message: str) -> UserError:
        return UserError(f"{self._at(mark)}: {message}")

    # -- text to nodes

    def _compose(self, text: str) -> yaml.Node | None:
        strange = _UNPRINTABLE.search(text)
        if strange is not None:
            raise self._refuse(
                mark_of(text, strange.start()),
                f"not valid YAML: the control character U+{ord(strange.group()):04X}; is this a text file?",
            )
        try:
            self._check_size(text)
            return yaml.compose(text, Loader=_loader(text))  # type: ignore[no-any-return]
        except UserError:
            raise
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = (mark.line + 1, mark.column + 1) if mark else (1, 1)
            raise self._refuse(where, f"not valid YAML: {_complaint(error, text)}") from None
        except (yaml.YAMLError, ValueError) as error:
            raise self._refuse((1, 1), f"not valid YAML: {' '.join(str(error).split())}") from None

    def _check_size(self, text: str) -> None:
        """Refuse deep nesting and too many values before nodes are made: the composer recurses."""
        depth = values = 0
        for event in yaml.parse(text, Loader=_loader(text)):
            values += isinstance(event, yaml.NodeEvent)
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            mark = start_of(event)
            if depth > DEEPEST:
                raise self._refuse(mark, f"nested deeper than {DEEPEST} levels; is this the right file?")
            if values > MOST_VALUES:
                raise self._refuse(mark, f"more than {MOST_VALUES} values; is this the right file?")

    def _measure(self, node: yaml.Node) -> tuple[int, int]:
        """Number of values in a node, and its depth, with aliases written out. Refuses aliases that expand too far."""
        known = self._sizes.get(id(node))
        if known is not None:
            return known
        mark = start_of(node)
        if id(node) in self._open:
            raise self._refuse(mark, "this anchor contains an alias to itself; a spec must be finite")
        self._open.add(id(node))
        size = depth = 1
        for child in _children(node):
            inner, deeper = self._measure(child)
            size, depth = size + inner, max(depth, deeper + 1)
        self._open.remove(id(node))
        if size > MOST_VALUES:
            raise self._refuse(mark, f"its aliases stand for more than {MOST_VALUES} values; write a smaller spec")
        if depth > DEEPEST + 1:
            raise self._refuse(mark, f"its aliases nest deeper than {DEEPEST} levels; write a flatter spec")
        self._sizes[id(node)] = size, depth
        return size, depth

    # -- nodes to values

    def _construct(self, node: yaml.Node) -> Any:
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if isinstance(node, yaml.SequenceNode):
            self._check_tag(node, "seq")
            return [self._construct(child) for child in node.value]
        assert isinstance(node, yaml.MappingNode)
        return self._mapping(node)

    def _mapping(self, node: yaml.MappingNode) -> dict[str, Any]:
        self._check_tag(node, "map")
        merged: dict[str, Any] | None = None
        own: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if is_merge(key_node):
                if merged is not None:
                    self._problem(key_node, "'<<' is given twice in the same mapping; write <<: [*one, *other]")
                merged = self._merge(key_node if is_empty(value_node) else value_node)
                continue
            key = self._scalar(key_node) if isinstance(key_node, yaml.ScalarNode) else None
            value = self._construct(value_node)
            if not isinstance(key_node, yaml.ScalarNode):
                self._problem(key_node, "a key must be a plain word; got a list or mapping")
            elif not isinstance(key, str):
                self._problem(key_node, f"a key must be text; got {key_node.value or 'null'}: put it in quotes")
            elif key in own:
                self._problem(key_node, f"{shown(key)} is given twice in the same mapping; remove one")
            else:
                own[key] = value
        return {**(merged or {}), **own}

    def _merge(self, node: yaml.Node) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for part in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            if isinstance(part, yaml.MappingNode):
                merged = {**self._mapping(part), **merged}
            else:
                self._problem(part, "'<<' merges a mapping, such as <<: *layer")
        return merged

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        text: str = node.value
        implicit = node.tag == _IMPLICIT
        kind = node.tag.removeprefix(_STANDARD)
        if not implicit and (not node.tag.startswith(_STANDARD) or kind not in _TYPES):
            self._check_tag(node, None)
            return text
        if kind == "str" or (implicit and not is_unquoted(node)):
            return text
        if is_number_too_large(text):
            self._problem(node, f"the number {shown(text)[1:-1]} is too large; whole numbers go up to {LARGEST}")
            return 0
        value = plain(text)
        if not implicit and type(value) not in _TYPES[kind]:
            self._problem(node, f"{shown(text)} is not {_tag(node)}")
        return value

    def _check_tag(self, node: yaml.Node, kind: str | None) -> None:
        if kind is None or node.tag != _STANDARD + kind:
            self._problem(node, f"the tag {_tag(node)} is not allowed; a spec is made of plain values")


def _complaint(error: yaml.MarkedYAMLError, text: str) -> str:
    """The parser's message, with what it was reading when it stopped, and the usual cause where one is known."""
    problem, context = str(error.problem or error.context), error.context
    mark, began = error.problem_mark, error.context_mark
    if "another document" in problem:
        return "a second document begins here; a spec is one document"
    lines = _BREAK.split(text)
    line = lines[mark.line] if mark is not None and mark.line < len(lines) else ""
    if mark is not None and "undefined alias" in problem:
        name = re.split(r"[\s,\[\]{}:]", line[mark.column + 1 :], maxsplit=1)[0]
        near = nearest(name, re.findall(r"&([^\s,\[\]{}]+)", text))
        return f"no anchor is called '{name}'" + (f"; did you mean '{near}'?" if near else " before this line")
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return f"{problem}; this line is indented with a tab: use spaces"
    if context and error.problem and began is not None and mark is not None and began.line != mark.line:
        problem = f"{problem} ({context} that begins in line {began.line + 1})"
    return f"{problem}; is its indentation right?" if "expected key" in problem else problem


def _tag(node: yaml.Node) -> str:
    return str(node.tag).replace(_STANDARD, "!!")


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
    into.add(id(node))
    for child in _children(node):
        _collect(child, into)
