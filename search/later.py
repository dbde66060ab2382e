"""A field of a dataclass whose value is made when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar, overload

T = TypeVar("T")


class Later(Generic[T]):
    """A field that may be given as a function, which is called when the field is first read.

    To read the specs of thousands of trials takes seconds, and most who look at a study need none of them.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, record: None, owner: type) -> None: ...
    @overload
    def __get__(self, record: object, owner: type) -> T | None: ...
    def __get__(self, record: object | None, owner: type) -> T | None:
        if record is None:
            return None  # a dataclass asks the class for the default of the field
        value = vars(record)[self._name]
        if callable(value):
            value = vars(record)[self._name] = value()
        return value  # type: ignore[no-any-return]

    def __set__(self, record: object, value: T | Callable[[], T] | None) -> None:
        vars(record)[self._name] = value
