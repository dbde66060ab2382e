"""Where a value stands in a YAML file: line and column, found from its path in the data."""

from __future__ import annotations

import yaml

Mark = tuple[int, int]  # line and column, from 1
Key = str | int
Loc = tuple[Key, ...]  # a path into the data: keys of mappings and indices of lists

Step = tuple[yaml.Node, yaml.Node]  # a field's key and its value; an item of a list is its own key


class Lines:
    """The nodes of one parsed file, searched by path."""

    def __init__(self, root: yaml.Node | None) -> None:
        self._root = root
        self._fields: dict[int, dict[str, Step]] = {}  # of the mappings that were searched, by id(node)

    def mark(self, path: Loc, key: bool = False) -> Mark:
        """Line and column of the value at `path`; key=True gives those of its key.

        Where the path leads nowhere, the mark is that of the deepest part that exists. An empty value, and a block that
        begins on a line below its key, have the mark of the key.
        """
        key_node, node = None, self._root
        for part in path:
            step = self._step(node, part)
            if step is None:
                key = False
                break
            key_node, node = step
        if node is None or key_node is None:
            return (1, 1) if node is None else start_of(node)
        at_key, at_value = start_of(key_node), start_of(node)
        return at_key if key or at_value[0] > at_key[0] or is_empty(node) else at_value

    def _step(self, node: yaml.Node | None, part: Key) -> Step | None:
        """The field or the item `part` of a node; None where the node has none."""
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            return node.value[part], node.value[part]
        if isinstance(node, yaml.MappingNode):
            return self._named(node).get(str(part))
        return None

    def _named(self, node: yaml.MappingNode) -> dict[str, Step]:
        """The fields of a mapping by name, merged ones (<<) included."""
        known = self._fields.get(id(node))
        if known is not None:
            return known
        merged: dict[str, Step] = {}
        own: dict[str, Step] = {}
        for key, value in node.value:
            if is_merge(key):
                for part in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    merged = {**self._named(part), **merged}
            else:
                own[key.value] = key, value
        self._fields[id(node)] = {**merged, **own}
        return self._fields[id(node)]


def start_of(part: yaml.Node | yaml.Event) -> Mark:
    """Line and column at which the parser found a node or an event."""
    mark = part.start_mark
    assert mark is not None
    return mark.line + 1, mark.column + 1


def mark_of(text: str, index: int | None) -> Mark:
    """Line and column of the character at `index`; None stands for the end of the text."""
    before = text[:index]
    return before.count("\n") + 1, len(before) - before.rfind("\n")


def is_merge(node: yaml.Node) -> bool:
    """Whether a key is the merge key, an unquoted `<<`."""
    return isinstance(node, yaml.ScalarNode) and node.value == "<<" and is_unquoted(node)


def is_unquoted(node: yaml.ScalarNode) -> bool:
    return not node.style  # libyaml gives '' for the style, the Python parser None


def is_empty(node: yaml.Node) -> bool:
    """Whether nothing is written for the value, as after `key:`."""
    return isinstance(node, yaml.ScalarNode) and not node.value and is_unquoted(node)
