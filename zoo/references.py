"""Names, versions and references: `name@MAJOR.MINOR.PATCH`, and aliases that stand for the newest of several.

Major: the architecture or the tokenizer changed. Minor: trained again. Patch: only the card changed.
`name`, `name@latest`, `name@1` and `name@1.2` are aliases: each stands for the highest version that matches.
`acme/name@1.2.3` is an entry of one of the zoos that the user added.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from miniwin.zoo.errors import ZooError

NAME_PATTERN = r"[a-z0-9][a-z0-9-]{0,63}"
NUMBER_PATTERN = r"(?:0|[1-9][0-9]{0,5})"  # no leading zeros: 1.01 and 1.1 would be one version with two spellings
VERSION_PATTERN = rf"{NUMBER_PATTERN}\.{NUMBER_PATTERN}\.{NUMBER_PATTERN}"

_NAME = re.compile(NAME_PATTERN)
_VERSION = re.compile(VERSION_PATTERN)
_PREFIX = re.compile(rf"{NUMBER_PATTERN}(?:\.{NUMBER_PATTERN}){{0,2}}")

Bump = Literal["major", "minor", "patch"]


@dataclass(frozen=True, order=True)
class Version:
    major: int
    minor: int
    patch: int

    @classmethod
    def parse(cls, text: str) -> Version:
        if not _VERSION.fullmatch(text):
            raise ZooError(f"version {text!r} is not MAJOR.MINOR.PATCH, for example 1.0.0")
        return cls(*map(int, text.split(".")))

    def bump(self, part: Bump) -> Version:
        if part == "major":
            return Version(self.major + 1, 0, 0)
        if part == "minor":
            return Version(self.major, self.minor + 1, 0)
        return Version(self.major, self.minor, self.patch + 1)

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


@dataclass(frozen=True)
class Ref:
    """A parsed reference. `prefix`: the version numbers that were given; () for `latest`. `zoo`: of an added zoo."""

    name: str
    prefix: tuple[int, ...]
    zoo: str | None = None

    @property
    def exact(self) -> bool:
        return len(self.prefix) == 3

    def matches(self, version: Version) -> bool:
        return (version.major, version.minor, version.patch)[: len(self.prefix)] == self.prefix

    def newest(self, versions: Iterable[Version]) -> Version | None:
        return max((version for version in versions if self.matches(version)), default=None)

    def __str__(self) -> str:
        zoo = "" if self.zoo is None else f"{self.zoo}/"
        return f"{zoo}{self.name}@{'.'.join(map(str, self.prefix)) or 'latest'}"


def is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


# Windows keeps these for devices: no folder can be called so there.
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}


def check_new_name(name: str) -> str:
    """The name of a new entry, checked: every system can have a folder of this name. Raises ZooError."""
    if check_name(name) in _DEVICES:
        raise ZooError(f"zoo name {name!r} is a device on Windows, where nobody could pull it; choose another")
    return name


def check_name(name: str) -> str:
    if not is_name(name):
        raise ZooError(
            f"zoo name {name!r} is not valid: use lower-case letters, digits and '-', starting with a letter "
            "or a digit, at most 64 characters, for example miniwin-1m"
        )
    return name


def parse_ref(text: str) -> Ref:
    """Read `name`, `name@latest`, `name@1`, `name@1.2` or `name@1.2.3`; `acme/` before it is the name of an added zoo.

    Raises:
        ZooError: it is anything else.
    """
    before, at, version = text.partition("@")
    zoo, slash, name = before.rpartition("/")
    check_name(name)
    if slash:
        check_name(zoo)
    if not at or version == "latest":
        return Ref(name, (), zoo if slash else None)
    if not _PREFIX.fullmatch(version):
        raise ZooError(
            f"zoo reference {text!r}: {version!r} is not a version; write {name}@1.2.3, {name}@1.2, {name}@1 "
            f"or {name}@latest"
        )
    return Ref(name, tuple(map(int, version.split("."))), zoo if slash else None)


def is_ref(text: str) -> bool:
    """Whether `text` has the form of a zoo reference (the entry need not exist)."""
    try:
        parse_ref(text)
    except ZooError:
        return False
    return True
