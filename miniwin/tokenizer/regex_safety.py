"""Is a regular expression of a tokenizer sure to end soon, whatever the text is?

The matcher (Oniguruma) tries one way to match after the other. On N characters, a repetition within a repetition can
have exponentially many ways, and k repetitions in a row N^k. The usual tokenizers need N^2 on their worst text. So this
module reads an expression in Oniguruma's Ruby syntax. It refuses what could need more, and what it does not know:

    (a+)+b        a repetition of a part without a fixed length, or with alternatives, before something that may fail
    .*.*x         two repetitions before something that may fail
    \\1, \\g<1>     a reference to an earlier match, or a part that calls itself

Every expression of the usual tokenizers passes (tests/miniwin/tokenizer/test_safety.py has them).
"""

from __future__ import annotations

from dataclasses import dataclass, field

LONG = 16  # a repetition that may take so many rounds more than it must counts as endless
WAYS = 256  # ways to match at one place, apart from endless repetitions
ENDLESS = 16  # the same, of those branches only that hold an endless repetition
SIZE = 10_000  # characters and classes, once counted repetitions are written out
DEEPEST = 40  # levels of brackets
MANY = "has too many ways to match"
FLAGS = frozenset("im-")
LETTERS = frozenset("dDwWsShHntrfvaeNO")  # escapes that match one character
ANCHORS = frozenset("bBAZzG")


class Unsafe(ValueError):
    """Why an expression is refused. The message follows "the regular expression"."""


@dataclass
class Atom:
    """One character. text: the letter, if it stands for itself; None for a class or any character."""

    text: str | None = None


@dataclass
class Look:
    """Takes no character: an anchor, or a look ahead or back."""

    branches: list[list[Node]] = field(default_factory=list)


@dataclass
class Group:
    branches: list[list[Node]]


@dataclass
class Repeat:
    inner: Atom | Group
    least: int
    most: int | None


Node = Atom | Look | Group | Repeat


def check_regex(pattern: str) -> int:
    """The least number of characters in a match.

    Raises:
        Unsafe: the expression might not end soon on some text, or is not understood.
    """
    if len(pattern) > SIZE:
        raise Unsafe(f"is {len(pattern)} characters long, and {SIZE} at most are read")
    branches = _Reader(pattern).read()
    while len(branches) == 1 and len(branches[0]) == 1 and isinstance(group := branches[0][0], Group):
        branches = group.branches  # brackets around the whole
    if sum(map(_size, branches)) > SIZE:
        raise Unsafe("repeats too much a counted number of times")
    costs = [_cost(branch, may_fail=False) for branch in branches]
    if any(endless > 1 for _, endless in costs):
        raise Unsafe("has several repetitions before something that may fail")
    if sum(ways for ways, _ in costs) > WAYS or sum(ways for ways, endless in costs if endless) > ENDLESS:
        raise Unsafe(MANY)
    return min(map(_least, branches))


def _cost(branch: list[Node], may_fail: bool) -> tuple[int, int]:
    """(how many ways there are to match, how many endless repetitions are tried at every length).

    may_fail: whether something behind the branch may fail to match. If nothing can, only the first way is tried.
    """
    ways, endless = 1, 0
    for node in reversed(branch):
        if isinstance(node, Look | Group):
            inside = [_cost(inner, may_fail or isinstance(node, Look)) for inner in node.branches]
            ways *= max(1, sum(one for one, _ in inside))
            endless += max((one for _, one in inside), default=0)
        elif isinstance(node, Repeat):
            if isinstance(node.inner, Group) and node.most is not None and node.most <= 1:
                inside = [_cost(inner, may_fail) for inner in node.inner.branches]
                ways *= 1 + sum(one for one, _ in inside) if may_fail else 1
                endless += max(one for _, one in inside)
            elif isinstance(node.inner, Group) and not _fixed(node.inner):
                inside = [_cost(inner, may_fail) for inner in node.inner.branches]
                # At the end of an expression each round is tried by itself: once no more match, all has matched.
                if may_fail or node.least > 1 or _least([node.inner]) == 0 or any(endless for _, endless in inside):
                    raise Unsafe("has a repetition of what can match in several ways")
                ways *= sum(one for one, _ in inside)
            elif node.most is None or node.most - node.least > LONG:
                endless += may_fail
            elif may_fail:
                ways *= node.most - node.least + 1
        if not (isinstance(node, Repeat) and node.least == 0):
            may_fail = True
        if ways > WAYS:
            raise Unsafe(MANY)
    return ways, endless


def _fixed(group: Group) -> bool:
    """Whether a group matches in at most one way."""
    if len(group.branches) != 1:
        return False
    for node in group.branches[0]:
        if isinstance(node, Group) and not _fixed(node):
            return False
        if isinstance(node, Repeat) and (node.least != node.most or not _fixed(Group([[node.inner]]))):
            return False
        if isinstance(node, Look) and node.branches:
            return False
    return True


def _least(branch: list[Node]) -> int:
    """The least number of characters that a branch matches."""
    count = 0
    for node in branch:
        if isinstance(node, Repeat):
            count += node.least * _least([node.inner])
        elif isinstance(node, Group):
            count += min(map(_least, node.branches))
        else:
            count += isinstance(node, Atom)
    return count


def _size(branch: list[Node]) -> int:
    """Characters and classes of a branch, with its repetitions written out."""
    count = 0
    for node in branch:
        if isinstance(node, Repeat):
            count += max(node.least, node.most or 0, 1) * _size([node.inner])
        else:
            count += 1 if isinstance(node, Atom) else 1 + sum(map(_size, node.branches))
    return count


class _Reader:
    def __init__(self, pattern: str) -> None:
        self._pattern, self._at, self._depth = pattern, 0, 0

    def read(self) -> list[list[Node]]:
        branches = self._branches()
        if self._at < len(self._pattern):
            raise Unsafe("has a bracket too many")
        return branches

    def _branches(self) -> list[list[Node]]:
        self._depth += 1
        if self._depth > DEEPEST:
            raise Unsafe("is nested too deeply")
        branches: list[list[Node]] = [[]]
        while self._at < len(self._pattern) and self._pattern[self._at] != ")":
            if self._take("|"):
                branches.append([])
            else:
                node = self._node()
                if node is not None:
                    branches[-1].append(self._repeated(node))
        self._depth -= 1
        return branches

    def _node(self) -> Node | None:
        letter = self._next()
        if letter == "(":
            return self._group()
        if letter == "[":
            return self._class()
        if letter == "\\":
            return self._escape()
        if letter in "^$":
            return Look()
        if letter in "*+?" or (letter == "{" and self._counts() is not None):
            raise Unsafe("repeats nothing")
        return Atom(None if letter == "." else letter)

    def _group(self) -> Node | None:
        if self._take("*"):
            raise Unsafe("has a callout, which is not known here")
        if not self._take("?"):
            return self._closed(look=False)
        for start, look in (("<=", True), ("<!", True), ("=", True), ("!", True), (">", False), (":", False)):
            if self._take(start):
                return self._closed(look)
        if self._take("#"):
            while self._next() != ")":
                pass
            return None
        if self._take("<") or self._take("'"):
            while self._next() not in ">'":
                pass
            return self._closed(look=False)
        while (letter := self._next()) in FLAGS:
            pass
        if letter == ":":
            return self._closed(look=False)
        if letter == ")":  # flags for the rest of this group, which becomes a group of its own
            rest = self._branches()
            return Group(rest)
        raise Unsafe(f"has (?{letter}, which is not known here")

    def _closed(self, look: bool) -> Node:
        branches = self._branches()
        if not self._take(")"):
            raise Unsafe("has a bracket that is not closed")
        if look:
            return Look(branches)
        if len(branches) == 1 and len(branches[0]) == 1 and isinstance(branches[0][0], Atom | Group):
            return branches[0][0]
        letters = [branch[0].text for branch in branches if len(branch) == 1 and isinstance(branch[0], Atom)]
        if len(letters) == len(branches) == len(set(letters)) and None not in letters:
            return Atom()  # (a|b|c) is [abc]
        return Group(branches)

    def _class(self) -> Atom:
        """[...], which may hold other classes."""
        self._take("^")
        self._take("]")  # in the first place it is a letter
        while (letter := self._next()) != "]":
            if letter == "\\":
                self._next()
            elif letter == "[":
                self._depth += 1
                if self._depth > DEEPEST:
                    raise Unsafe("is nested too deeply")
                self._class()
                self._depth -= 1
        return Atom()

    def _escape(self) -> Node:
        letter = self._next()
        if letter in "pPxu":
            if self._take("{"):
                while self._next() != "}":
                    pass
            elif letter in "pP":
                raise Unsafe(f"has \\{letter} without braces, which is not known here")
            else:
                for _ in range(2 if letter == "x" else 4):
                    if self._at < len(self._pattern) and self._pattern[self._at] in "0123456789abcdefABCDEF":
                        self._at += 1
            return Atom()
        if letter in ANCHORS:
            return Look()
        if letter in LETTERS:
            return Atom()
        if letter.isascii() and letter.isalnum() and letter != "0":
            raise Unsafe(f"has \\{letter}, which is not known here")
        return Atom(letter if letter != "0" else None)

    def _repeated(self, node: Node) -> Node:
        """The node with the repetition behind it, if there is one."""
        counts: tuple[int, int | None] | None = None
        for sign, those in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if counts is None and self._take(sign):
                counts = those
                if not self._take("?"):  # lazy
                    self._take("+")  # possessive
        if counts is None and self._take("{"):
            counts = self._counts()
            if counts is None:
                self._at -= 1
                return node
            self._at = self._pattern.index("}", self._at) + 1
            if self._take("?"):
                counts = (0 if counts[0] == counts[1] else counts[0], counts[1])
        if counts is None:
            return node
        if self._at < len(self._pattern) and (
            self._pattern[self._at] in "*+?" or (self._pattern[self._at] == "{" and self._counts(1) is not None)
        ):
            raise Unsafe("has a repetition of a repetition")
        if isinstance(node, Look):
            raise Unsafe("repeats what takes no character")
        assert not isinstance(node, Repeat)
        return Repeat(node, *counts)

    def _counts(self, skip: int = 0) -> tuple[int, int | None] | None:
        """{n}, {n,}, {,m} or {n,m}, where that is what follows the brace; otherwise the brace is a letter."""
        end = self._pattern.find("}", self._at)
        text = self._pattern[self._at + skip : end] if end >= 0 else ""
        low, comma, high = text.partition(",")
        if not (low.isdigit() or (comma and not low)) or not (high.isdigit() or not high) or text in ("", ","):
            return None
        if max(len(low), len(high)) > 6:
            raise Unsafe("repeats too much a counted number of times")
        least = int(low or 0)
        return least, int(high) if high else None if comma else least

    def _take(self, text: str) -> bool:
        found = self._pattern.startswith(text, self._at)
        self._at += len(text) if found else 0
        return found

    def _next(self) -> str:
        if self._at >= len(self._pattern):
            raise Unsafe("ends too early")
        self._at += 1
        return self._pattern[self._at - 1]
