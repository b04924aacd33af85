"""Whether a JSON value looks as an API expects it to, and where it does not.

A shape is written as the value would be: `{"name": str, "tags?": [str], "price": (int, float, None)}`. A type is met by its
instances (`float` by integers too, `bool` by itself alone, `object` by anything), a list holds members of one shape, a dict
the named members (`?` marks those that may be missing; others are ignored), a tuple offers alternatives, None is null.
"""

from __future__ import annotations

from typing import Any

MAX_MISMATCHES = 20  # told at a time

_NAMES: dict[type, str] = {
    str: "a string", int: "an integer", float: "a number", bool: "true or false", dict: "an object", list: "an array",
}  # fmt: skip


def mismatches(value: Any, shape: Any) -> list[dict[str, str]]:
    """Where `value` differs from `shape`: a JSON pointer (RFC 6901) as a URI fragment, and what was expected there."""
    found: list[dict[str, str]] = []
    _compare(value, shape, "#", found)
    return found[:MAX_MISMATCHES]


def _compare(value: Any, shape: Any, pointer: str, found: list[dict[str, str]]) -> None:
    if len(found) >= MAX_MISMATCHES:
        return
    if isinstance(shape, tuple):
        if not any(_meets(value, one) for one in shape):
            expected = " or ".join(_name(one) for one in shape)
            found.append({"pointer": pointer, "detail": f"expected {expected}"})
    elif isinstance(shape, dict) and isinstance(value, dict):
        _compare_members(value, shape, pointer, found)
    elif isinstance(shape, list) and isinstance(value, list):
        for at, member in enumerate(value):
            _compare(member, shape[0], f"{pointer}/{at}", found)
    elif not _is_a(value, shape):
        found.append({"pointer": pointer, "detail": f"expected {_name(shape)}"})


def _compare_members(value: dict[str, Any], shape: dict[str, Any], pointer: str, found: list[dict[str, str]]) -> None:
    for key, member_shape in shape.items():
        name = key.removesuffix("?")
        place = f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"
        if name in value:
            _compare(value[name], member_shape, place, found)
        elif name == key:
            found.append({"pointer": place, "detail": "missing"})


def _meets(value: Any, shape: Any) -> bool:
    return not mismatches(value, shape)


def _is_a(value: Any, shape: Any) -> bool:
    if shape is None:
        return value is None
    if not isinstance(shape, type):
        return False  # a dict or a list was expected, and `value` is neither
    if shape is object:
        return True
    if isinstance(value, bool):
        return shape is bool
    return isinstance(value, (int, float) if shape is float else shape)


def _name(shape: Any) -> str:
    if shape is None:
        return "null"
    kind = shape if isinstance(shape, type) else type(shape)
    return _NAMES.get(kind, kind.__name__)
