"""What a terminal gets to see: readable, in colour where wanted, and nothing of the network's that it would obey."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.terminal import (
    PRETTY_LIMIT,
    BinaryRefused,
    Progress,
    Screen,
    bar,
    pretty_json,
    shown_head,
    size_text,
    span_text,
    visible,
    wants_colour,
)  # fmt: skip

COLOUR = re.compile("\x1b\\[[0-9;]*m")
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(values, st.booleans(), st.sampled_from([None, 0, 3]), st.booleans())
def test_json_says_the_same_when_it_is_pretty(value: Any, ascii_only: bool, indent: int | None, colour: bool) -> None:
    shown = pretty_json(json.dumps(value, ensure_ascii=ascii_only, indent=indent), colour)
    assert shown is not None and shown.endswith("\n")
    plain = COLOUR.sub("", shown)
    assert not OBEYED.search(plain)
    if ascii_only:
        assert json.loads(plain) == value
        assert plain == json.dumps(value, indent=4) + "\n"


def test_numbers_and_names_stay_as_they_are_spelled() -> None:
    text = '{"a":1.10,"a":1e400,"b":123456789012345678901234567890,"c":[],"d":{ }}'
    assert pretty_json(text) == (
        '{\n    "a": 1.10,\n    "a": 1e400,\n    "b": 123456789012345678901234567890,\n    "c": [],\n    "d": {}\n}\n'
    )


@pytest.mark.parametrize("text", ["", "nonsense", "[1 2]", "{", "[1,]", '{"a"}', "NaN", "[Infinity]", "[" * 100_000, "1" + "0" * 5000 + "x"])
def test_what_is_no_json_is_left_alone(text: str) -> None:
    assert pretty_json(text) is None


def test_names_are_told_from_values_by_colour() -> None:
    assert pretty_json('{"a" : "b"}', True) == '{\n    \x1b[34m"a"\x1b[0m: \x1b[32m"b"\x1b[0m\n}\n'


@given(st.text())
def test_nothing_visible_is_obeyed(text: str) -> None:
    assert not OBEYED.search(visible(text))
    assert "\n" not in visible(text, newlines=False)


def test_a_head_is_shown_and_not_obeyed() -> None:
    head = b"HTTP/1.1 404 No\x1b[2J\r\nA: b\x07c\xc2\x9bd\r\nB: \xff\xe2\x80\xae\r\n\r\n"
    assert shown_head(head, "< ") == "< HTTP/1.1 404 No\\x1b[2J\n< A: b\\x07c\\x9bd\n< B: ÿâ\\x80®\n< \n"
    assert shown_head("A: \u202e\r\n\r\n".encode()) == "A: \\u202e\n\n"


@pytest.mark.parametrize(("status", "colour"), [("200", 32), ("301", 36), ("404", 33), ("500", 31), ("103", 34), ("999", 32)])
def test_a_status_has_its_colour(status: str, colour: int) -> None:
    assert shown_head(f"HTTP/1.1 {status} X\r\n\r\n".encode(), "", True).startswith(f"\x1b[1m\x1b[{colour}mHTTP/1.1 {status}")


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ({"TERM": "xterm", "NO_COLOR": ""}, True),
        ({"TERM": "dumb"}, False),
        ({}, False),
    ],
)
def test_who_gets_colour(environment: dict[str, str], wanted: bool) -> None:
    assert wants_colour(environment) == wanted


def screen(content_type: str, *pieces: bytes) -> str:
    out: list[str] = []
    shown = Screen(out.append, False)
    shown.begin(content_type.encode())
    for piece in pieces:
        shown.write(piece)
    shown.finish()
    return "".join(out)


@given(st.binary(max_size=40).filter(lambda data: b"\0" not in data), st.integers(0, 40))
def test_text_in_any_split(data: bytes, cut: int) -> None:
    shown = screen("text/plain", data[:cut], data[cut:])
    assert not OBEYED.search(shown) and (shown == "" or shown.endswith("\n"))


def test_text_ends_its_line() -> None:
    assert screen("text/plain", b"h\xc3", b"\xa4llo\r\n") == "hällo\n"
    assert screen("text/plain", b"hello") == "hello\n"
    assert screen("text/plain", b"") == ""


def test_json_that_is_broken_or_long_is_shown_as_it_came() -> None:
    assert screen("application/json", b'{"a":', b" 1") == '{"a": 1\n'
    long = b"[" + b"1," * PRETTY_LIMIT + b"1]"
    assert screen("Application/X+JSON ; charset=utf-8", long[:100], long[100:]) == long.decode() + "\n"
    assert screen("application/problem+json", b"[", b"1]") == "[\n    1\n]\n"


def test_bytes_are_refused() -> None:
    with pytest.raises(BinaryRefused):
        screen("text/plain", b"hel", b"l\0")


def test_the_bar() -> None:
    assert bar(250, 1000, 50.0, 70) == "[######                    ]  25%  250 B of 1000 B  50 B/s  0:15 left"
    assert bar(2048, None, 1024.0, 70) == "2.0 KiB  1.0 KiB/s"
    assert bar(0, 10, 0.0, 80).endswith("stalled")
    assert len(bar(1, 10, 1.0, 20)) < 20


@given(st.integers(0, 10**15), st.integers(1, 10**15), st.floats(0, 1e12), st.integers(2, 300))
def test_the_bar_fits(done: int, total: int, speed: float, columns: int) -> None:
    assert len(bar(done, total, speed, columns)) < columns


def test_the_bar_waits_and_clears() -> None:
    now = [0.0]
    said: list[str] = []
    progress = Progress(said.append, 80, lambda: now[0])
    progress.tick(10, 100)
    progress.clear()
    assert said == []
    for second in range(1, 9):
        now[0] = float(second)
        progress.tick(second * 10, 100, already=100)
    assert "140 B of 200 B  10 B/s  0:06 left" in said[3]
    progress.clear()
    progress.clear()
    assert said[-1] == "\r\x1b[K" and said.count("\r\x1b[K") == 1


def test_sizes_and_spans() -> None:
    assert [size_text(size) for size in (0, 1023, 1024, 1536, 10**7, 10**10, 10**16)] == [
        "0 B", "1023 B", "1.0 KiB", "1.5 KiB", "9.5 MiB", "9.3 GiB", "9094.9 TiB"
    ]  # fmt: skip
    assert [span_text(seconds) for seconds in (0, 59.6, 61, 3600, 1e12)] == ["0:00", "1:00", "1:01", "1:00:00", "99:59:59"]
