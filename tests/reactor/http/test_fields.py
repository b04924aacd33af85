"""Fields: an ordered multi-map that can be looked up, changed, copied and written, and that nothing can be smuggled into."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactor.errors import ProtocolError
from reactor.http import fields as fields_module
from reactor.http.fields import Fields, parse_line
from reactor.http.parser import Request, RequestParser
from tests.strategies import field_names, field_values, thorough

PAIRS = [(b"Host", b"a"), (b"X-A", b"1"), (b"x-a", b"2"), (b"Accept", b"*/*")]


def received(*lines: bytes) -> Fields:
    """Fields as they come out of a parser that has seen the same head before."""
    parser = RequestParser()
    head = b"GET / HTTP/1.1\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"
    for _ in range(4):
        parser.feed(head)
        request = parser.next_event()
        assert isinstance(request, Request)
        parser.next_event()
    return request.fields


def test_order_and_spelling_are_kept():
    assert list(Fields(PAIRS)) == PAIRS
    assert Fields(PAIRS).lines == [b"Host: a", b"X-A: 1", b"x-a: 2", b"Accept: */*"]


def test_look_up_is_in_lower_case_and_joins_lines():
    fields = Fields(PAIRS)
    assert fields.get(b"x-a") == fields[b"x-a"] == b"1, 2"
    assert fields.get_all(b"x-a") == [b"1", b"2"]
    assert fields.get(b"X-A") is None and fields.get(b"x-b", b"none") == b"none" and fields.get_all(b"x-b") == []
    assert b"x-a" in fields and b"x-b" not in fields
    assert len(fields) == 4


def test_text_is_encoded_as_latin_1():
    assert list(Fields([("Ünicode"[1:], "é")])) == [(b"nicode", b"\xe9")]
    with pytest.raises(ProtocolError, match="beyond Latin-1"):
        Fields([("a", "€")])


def test_set_replaces_every_line_and_setdefault_none():
    fields = Fields(PAIRS)
    fields.set("X-a", "3")
    fields.setdefault("accept", "no")
    fields.setdefault("New", "yes")
    assert list(fields) == [(b"Host", b"a"), (b"Accept", b"*/*"), (b"X-a", b"3"), (b"New", b"yes")]
    assert fields[b"x-a"] == b"3"


def test_remove():
    fields = Fields(PAIRS)
    fields.remove(b"x-a", b"nothing", b"x-a")
    assert list(fields) == [(b"Host", b"a"), (b"Accept", b"*/*")]
    assert b"x-a" not in fields


def test_options():
    fields = Fields([("Connection", "Close,, \tX-A "), ("connection", ","), ("Empty", "")])
    assert fields.options(b"connection") == [b"close", b"x-a"]
    assert fields.options(b"empty") == fields.options(b"missing") == []


def test_wire_normalizes_white_space_alone():
    fields = Fields.from_lines([b"Host:a", b"X-A: \t b  c \t", b"x-b:", b"X-C: d"])
    assert fields.wire() == b"Host: a\r\nX-A: b  c\r\nx-b: \r\nX-C: d\r\n"
    assert Fields([("A", " \tb ")]).wire() == b"A: b\r\n"
    assert Fields().wire() == b""


def test_equality_is_of_names_and_values():
    assert Fields(PAIRS) == Fields(PAIRS) != Fields(PAIRS[:2])
    assert Fields.from_lines([b"a:b"]) == Fields.from_lines([b"a: b "])
    assert Fields() != []


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\n", "a\r", "\0", "\x7f", "a\x0bb"])
def test_no_value_can_smuggle(value):
    fields = Fields()
    for change in (fields.add, fields.set, fields.setdefault):
        with pytest.raises(ProtocolError):
            change("X-A", value)
    assert len(fields) == 0 and fields.wire() == b""


@pytest.mark.parametrize("name", ["", "a b", "a\r\nb", "a: b", "a:", ":a", " a", "a ", "é", "a\0"])
def test_no_name_can_smuggle(name):
    with pytest.raises(ProtocolError):
        Fields([(name, "x")])


def test_a_refused_value_leaves_the_old_one():
    fields = Fields(PAIRS)
    with pytest.raises(ProtocolError):
        fields.set("X-A", "a\nb")
    assert list(fields) == PAIRS


def test_what_is_received_is_not_shared():
    first, second = received(b"Host: shared", b"Accept: x"), received(b"Host: shared", b"Accept: x")
    copy = second.copy()
    first.add("X-A", "1")
    first.remove(b"accept")
    copy.set("Host", "other")
    assert list(second) == [(b"Host", b"shared"), (b"Accept", b"x")] == list(received(b"Host: shared", b"Accept: x"))
    assert list(first) == [(b"Host", b"shared"), (b"X-A", b"1")]
    assert list(copy) == [(b"Accept", b"x"), (b"Host", b"other")]
    assert copy[b"host"] == b"other" and second[b"host"] == b"shared"


def test_a_copy_is_not_shared_either_way():
    for original in (Fields(PAIRS), received(b"Host: c")):
        before = list(original)
        copy = original.copy()
        copy.add("X-New", "1")
        original.add("X-Other", "2")
        assert list(copy) == [*before, (b"X-New", b"1")]
        assert list(original) == [*before, (b"X-Other", b"2")]


@thorough
@given(st.lists(st.tuples(field_names, field_values), max_size=8), st.data())
def test_like_a_list_of_pairs(pairs, data):
    fields = Fields(pairs)
    model = list(pairs)
    for _ in range(data.draw(st.integers(0, 4))):
        name = data.draw(st.one_of(field_names, st.sampled_from([name for name, _ in pairs] or [b"x"])))
        value = data.draw(field_values)
        match data.draw(st.sampled_from(["add", "set", "remove", "setdefault", "copy"])):
            case "add":
                fields.add(name, value)
                model.append((name, value))
            case "set":
                fields.set(name, value)
                model = [pair for pair in model if pair[0].lower() != name.lower()] + [(name, value)]
            case "remove":
                fields.remove(name.lower())
                model = [pair for pair in model if pair[0].lower() != name.lower()]
            case "setdefault":
                fields.setdefault(name, value)
                if all(pair[0].lower() != name.lower() for pair in model):
                    model.append((name, value))
            case "copy":
                fields = fields.copy()
    assert list(fields) == model
    assert fields.wire() == b"".join(b"%b: %b\r\n" % pair for pair in model)
    for name, _ in model:
        assert fields.get_all(name.lower()) == [value for other, value in model if other.lower() == name.lower()]
        assert fields[name.lower()] == b", ".join(fields.get_all(name.lower()))


@thorough
@given(st.binary(max_size=40))
def test_a_line_is_parsed_or_refused(line):
    try:
        name, value = parse_line(line)
    except ProtocolError:
        return
    assert name == name.lower() and value == value.strip(b" \t")
    assert Fields([(name, value)]).lines == [name + b": " + value]


LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\x00-\x08\x0a-\x1f\x7f]*")  # RFC 9110 section 5, by its letter


def read_or_refused(line):
    try:
        return parse_line(line)
    except ProtocolError as error:
        return error.reason


@thorough
@given(
    st.sampled_from([b"Host", b"X-A", b"Content-Length"]),
    st.sampled_from([b"", b":", b": ", b":\t", b" :", b" ", b"::", b":: ", b"\r: ", b" : "]),
    st.one_of(st.sampled_from([b"a", b"", b" a", b"a ", b"b: c", b"a\r", b"a\0"]), field_values),
)
def test_a_name_or_line_that_was_met_before_excuses_nothing(name, colon, value):
    fields_module.known_lines.clear()
    fields_module._lower.clear()
    line = name + colon + value
    first = read_or_refused(line)
    for known in (b"%b: a" % name, b"%b:a" % name, b"%b: " % name):
        parse_line(known)
    assert read_or_refused(line) == read_or_refused(line) == first
    assert isinstance(first, tuple) == (LINE.fullmatch(line) is not None)


def test_memos_are_bounded_and_hold_no_secret():
    for number in range(2 * fields_module.MEMO_LINES):
        parse_line(b"X-A: %d" % number)
    assert len(fields_module.known_lines) <= fields_module.MEMO_LINES
    for number in range(2 * fields_module.MEMO_NAMES):
        parse_line(b"X-%d: %s" % (number, b"a" * fields_module.MEMO_LINE_LENGTH))
    assert len(fields_module._lower) <= fields_module.MEMO_NAMES
    parse_line(b"Authorization: Basic c2VjcmV0")
    parse_line(b"COOKIE: sid=secret")
    parse_line(b"X-Long: " + b"a" * fields_module.MEMO_LINE_LENGTH)
    parse_line(b"a" * 100 + b": b")
    assert not any(b"c2VjcmV0" in line or b"secret" in line or len(line) > 256 for line in fields_module.known_lines)
    assert max(map(len, fields_module._lower)) <= fields_module.MEMO_NAME_LENGTH
