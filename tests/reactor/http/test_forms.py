"""Queries and forms: what a browser writes is what is read, in any pieces."""

from __future__ import annotations

from itertools import pairwise
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactor.errors import ProtocolError
from reactor.http.forms import MAX_PAIRS, MAX_PARTS, PART_END, PART_HEAD, MultipartParser, Part, PartEnd, parse_urlencoded
from reactor.http.parameters import split_parameters
from tests.strategies import thorough


@pytest.mark.parametrize(
    ("data", "pairs"),
    [
        (b"", []),
        (b"a=1", [("a", "1")]),
        (b"a=1&b=2&a=3", [("a", "1"), ("b", "2"), ("a", "3")]),
        (b"a", [("a", "")]),
        (b"=1", [("", "1")]),
        (b"&&a=1&", [("a", "1")]),
        (b"a=1=2", [("a", "1=2")]),
        (b"a+b=c%20d%2B", [("a b", "c d+")]),
        (b"a=%C3%A9", [("a", "é")]),
        (b"a=%ff", [("a", "\ufffd")]),
        (b"a=%zz%", [("a", "%zz%")]),
        (b"a;b=1", [("a;b", "1")]),
    ],
)
def test_urlencoded(data: bytes, pairs: list[tuple[str, str]]) -> None:
    assert parse_urlencoded(data).pairs == pairs


def test_the_first_value_of_a_name_is_its_value() -> None:
    values = parse_urlencoded(b"a=1&b=2&a=3")
    assert values == {"a": "1", "b": "2"}
    assert values.get_all("a") == ["1", "3"]
    assert values.get_all("c") == []


def test_too_many_names() -> None:
    assert len(parse_urlencoded(b"a&" * (MAX_PAIRS - 1) + b"a").pairs) == MAX_PAIRS
    with pytest.raises(ProtocolError):
        parse_urlencoded(b"a&" * MAX_PAIRS)


@thorough
@given(st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8)), max_size=8))
def test_urlencoded_reads_back(pairs: list[tuple[str, str]]) -> None:
    assert parse_urlencoded(urlencode(pairs).encode()).pairs == pairs


@thorough
@given(st.binary(max_size=60))
def test_any_bytes_are_a_form(data: bytes) -> None:
    parse_urlencoded(data)


@pytest.mark.parametrize(
    ("value", "first", "parameters"),
    [
        (b"text/html", b"text/html", {}),
        (b"Text/HTML; Charset=UTF-8", b"text/html", {b"charset": b"UTF-8"}),
        (b'form-data; name="a b"; filename="c;d.txt"', b"form-data", {b"name": b"a b", b"filename": b"c;d.txt"}),
        (rb'form-data; name="a\"b\\c"', b"form-data", {b"name": rb'a"b\c'}),
        (rb'form-data; filename="C:\dir\x.txt"', b"form-data", {b"filename": rb"C:\dir\x.txt"}),
        (b"a/b;;x=1;x=2", b"a/b", {b"x": b"1"}),
        (b"a/b; x=1; broken; y=2", b"a/b", {b"x": b"1"}),
        (b"", b"", {}),
    ],
)
def test_parameters(value: bytes, first: bytes, parameters: dict[bytes, bytes]) -> None:
    assert split_parameters(value) == (first, parameters)


FORM = (
    b"a preamble, which means nothing\r\n"
    b'--edge\r\nContent-Disposition: form-data; name="title"\r\n\r\nA day out\r\n'
    b'--edge  \r\nContent-Disposition: form-data; name="photo"; filename="C:\\fakepath\\..\\me.png"\r\n'
    b"Content-Type: image/png\r\n\r\n"
    b"\x89PNG\r\n--edg\r\n\r\n\r\n"
    b'--edge\r\nContent-Disposition: form-data; name="empty"\r\n\r\n\r\n'
    b"--edge--\r\nan epilogue"
)

Told = list[tuple[str, str | None, bytes]]


def read(data: bytes, *cuts: int) -> Told:
    """(name, filename, content) of every part."""
    parser = MultipartParser(b"edge")
    told: Told = []
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, stop in pairwise(edges):
        for event in parser.feed(data[start:stop]):
            if isinstance(event, Part):
                told.append((event.name, event.filename, b""))
            elif isinstance(event, PartEnd):
                assert event is PART_END
            else:
                told[-1] = (*told[-1][:2], told[-1][2] + event)
    parser.finish()
    return told


EXPECTED: Told = [("title", None, b"A day out"), ("photo", "me.png", b"\x89PNG\r\n--edg\r\n\r\n"), ("empty", None, b"")]


def test_multipart() -> None:
    assert read(FORM) == EXPECTED


def test_multipart_from_the_first_byte() -> None:
    assert read(FORM[FORM.index(b"--edge") :]) == EXPECTED


@thorough
@given(st.lists(st.integers(0, len(FORM)), max_size=12))
def test_multipart_in_any_pieces(cuts: list[int]) -> None:
    assert read(FORM, *cuts) == EXPECTED


def test_multipart_byte_by_byte() -> None:
    assert read(FORM, *range(len(FORM))) == EXPECTED


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no delimiter at all",
        b"--edge",
        b"--edge\r\n",
        b'--edge\r\nContent-Disposition: form-data; name="a"\r\n\r\nbreaks off',
        b"--edgeless\r\n",
        b"--edge\r\nContent-Type: text/plain\r\n\r\n\r\n--edge--",
        b"--edge\r\nContent-Disposition: attachment; name=a\r\n\r\n\r\n--edge--",
        b"--edge\r\nno colon here\r\n\r\n\r\n--edge--",
        b"--edge" + b" " * 100 + b"\r\n",
        b"--edge\r\nX: " + b"x" * PART_HEAD + b"\r\n\r\n",
        b'--edge\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n' * (MAX_PARTS + 1) + b"--edge--",
    ],
)
def test_multipart_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        read(data)


@pytest.mark.parametrize(
    "value", [b"", b"multipart/form-data", b"multipart/form-data; boundary=", b'a/b; boundary="' + b"x" * 71 + b'"']
)
def test_no_boundary(value: bytes) -> None:
    with pytest.raises(ProtocolError):
        MultipartParser.for_type(value)


fragments = st.sampled_from(
    [b"--edge", b"\r\n", b"--", b"edge", b"x", b"Content-Disposition: form-data; name=a", b"\r\n\r\n", b":", b"\r", b"\n"]
)


@thorough
@given(st.lists(fragments, max_size=20).map(b"".join), st.lists(st.integers(0, 200), max_size=4))
def test_any_soup_gives_parts_or_an_error(data: bytes, cuts: list[int]) -> None:
    def outcome(*at: int) -> Told | str:
        try:
            return read(data, *at)
        except ProtocolError as error:
            return error.reason

    assert isinstance(outcome(), str) == isinstance(outcome(*cuts), str)
