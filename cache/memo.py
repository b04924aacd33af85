"""What was worked out of values from the wire, remembered within bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Memo(dict[Key, Value]):
    """`memo[key]` is what `make(key)` gives, made once while it is remembered.

    At `limit` keys the memo starts anew; one whose `size` is beyond `longest` (bytes) is not remembered.
    """

    def __init__(self, make: Callable[[Key], Value], limit: int, longest: int, size: Callable[[Any], int] = len) -> None:
        super().__init__()
        self._make = make
        self._limit = limit
        self._longest = longest
        self._size = size

    def __missing__(self, key: Key) -> Value:
        value = self._make(key)
        if len(self) >= self._limit:
            self.clear()
        if self._size(key) <= self._longest:
            self[key] = value
        return value
