"""Paths with typed parameters → what is registered for them: `/items/{id:int}`."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from reactor.errors import ProtocolError
from reactor.http.paths import decode_segment, normal_path

_PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(?::([a-z]+))?\}")
_PATH_SAFE = "/!$&'()*+,;=:@-._~"

T = TypeVar("T")


def _text(value: bytes) -> str:
    try:
        return decode_segment(value).decode("utf-8")
    except UnicodeDecodeError:
        raise ProtocolError("the path is not UTF-8") from None


def _uuid(value: bytes) -> uuid.UUID:
    return uuid.UUID(value.decode("ascii"))


# The digits are limited, so that a number from a path is never a costly one.
_KINDS: dict[str, tuple[bytes, Callable[[bytes], Any]]] = {
    "str": (rb"[^/]+", _text),
    "path": (rb".+", _text),
    "int": (rb"-?[0-9]{1,18}", int),
    "float": (rb"-?[0-9]{1,18}(?:\.[0-9]{1,18})?", float),
    "uuid": (rb"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}", _uuid),
}


class Route(Generic[T]):
    """One pattern and what each method means there."""

    __slots__ = ("_converters", "_regex", "methods", "names", "pattern")

    def __init__(self, pattern: str) -> None:
        """Raises ValueError for a pattern that is none."""
        if not pattern.startswith("/"):
            raise ValueError(f"a path begins with a slash: {pattern!r}")
        self.pattern = pattern
        self.methods: dict[bytes, T] = {}
        self.names: list[str] = []
        self._converters: list[Callable[[bytes], Any]] = []
        self._regex = self._compile(_PARAMETER.split(pattern))

    def _compile(self, pieces: list[str | None]) -> re.Pattern[bytes]:
        expression = re.escape(_literal(pieces[0]))
        for name, kind, text in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True):
            assert name is not None
            if kind is not None and kind not in _KINDS:
                raise ValueError(f"unknown type of a parameter: {kind!r} in {self.pattern!r}")
            if name in self.names:
                raise ValueError(f"two parameters named {name!r} in {self.pattern!r}")
            group, converter = _KINDS[kind or "str"]
            self.names.append(name)
            self._converters.append(converter)
            expression += b"(" + group + b")" + re.escape(_literal(text))
        return re.compile(expression)

    def match(self, path: bytes) -> dict[str, Any] | None:
        """The parameters' values where the path fits; raises ProtocolError for a text that is malformed."""
        found = self._regex.fullmatch(path)
        if found is None:
            return None
        values = zip(self.names, self._converters, found.groups(), strict=True)
        return {name: convert(value) for name, convert, value in values}


def _literal(text: str | None) -> bytes:
    """The path as it stands in a request, percent-encoded where that is needed."""
    if text is None:
        return b""
    if "{" in text or "}" in text:
        raise ValueError(f"a brace that begins or ends no parameter: {text!r}")
    return quote(text, safe=_PATH_SAFE).encode("ascii")


def _first_segment(pattern: str) -> bytes:
    segment = pattern[1:].partition("/")[0]
    return b"" if not segment or "{" in segment else b"/" + _literal(segment)


class Routes(Generic[T]):
    """All routes of an Api: those without parameters by one look-up, the others in the order they were made."""

    __slots__ = ("_literal", "_patterns", "_routes")

    def __init__(self) -> None:
        self._routes: dict[str, Route[T]] = {}
        self._literal: dict[bytes, Route[T]] = {}
        self._patterns: list[tuple[bytes, Route[T]]] = []  # with what stands before the first parameter

    def add(self, pattern: str, methods: list[bytes], target: T) -> None:
        """Raises ValueError where one of the methods has a target there already."""
        route = self._routes.get(pattern)
        if route is None:
            route = self._new_route(pattern)
        for method in methods:
            if method in route.methods:
                raise ValueError(f"{method.decode('ascii')} {pattern} is registered twice")
            route.methods[method] = target

    def _new_route(self, pattern: str) -> Route[T]:
        route = self._routes[pattern] = Route[T](pattern)
        start = _literal(_PARAMETER.split(pattern)[0])
        if route.names:
            self._patterns.append((start, route))
        else:
            self._literal[start] = route
        return route

    def find(self, path: bytes) -> Route[T] | None:
        """The route without parameters at this path, spelled as it is."""
        return self._literal.get(path)

    def literal_paths(self) -> Iterable[bytes]:
        """Where `find` finds one."""
        return self._literal.keys()

    def search(self, path: bytes) -> Iterator[tuple[Route[T], dict[str, Any]]]:
        """Every route that fits the path, with its parameters; raises ProtocolError for malformed encoding."""
        path = normal_path(path)
        route = self._literal.get(path)
        if route is not None:
            yield route, {}
        for start, route in self._patterns:
            if path.startswith(start):
                found = route.match(path)
                if found is not None:
                    yield route, found

    def first_segments(self) -> frozenset[bytes]:
        """The first segment of every route, with its slash; empty for one that begins with a parameter, or is `/`."""
        return frozenset(_first_segment(route.pattern) for route in self._routes.values())

    def __iter__(self) -> Iterator[Route[T]]:
        return iter(self._routes.values())
