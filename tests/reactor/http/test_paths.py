"""Paths as file names: nothing leads above the root, and no name is more than a name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactor.errors import ProtocolError
from reactor.http.paths import decode_segment, encode_segment, file_segments, normal_path
from tests.strategies import thorough


@pytest.mark.parametrize(
    ("path", "names", "as_directory"),
    [
        (b"/", [], True),
        (b"", [], False),
        (b"/a", [b"a"], False),
        (b"/a/", [b"a"], True),
        (b"/a/b.txt", [b"a", b"b.txt"], False),
        (b"//a///b", [b"a", b"b"], False),
        (b"/a/./b", [b"a", b"b"], False),
        (b"/a/../b", [b"b"], False),
        (b"/a/..", [], True),
        (b"/a/.", [b"a"], True),
        (b"/a/%2e%2e/b", [b"b"], False),
        (b"/%61%20b", [b"a b"], False),
        (b"/a%252fb", [b"a%2fb"], False),  # decoded once
        (b"/caf%C3%A9", "café".encode(), False),
        (b"/%ff", [b"\xff"], False),
        (b"/...", [b"..."], False),
        (b"/a+b", [b"a+b"], False),
        (b"/a;b=c", [b"a;b=c"], False),
    ],
)
def test_names(path: bytes, names: list[bytes] | bytes, as_directory: bool) -> None:
    assert file_segments(path) == (names if isinstance(names, list) else [names], as_directory)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (b"/..", 404),
        (b"/../", 404),
        (b"/a/../../b", 404),
        (b"/%2e%2e/b", 404),
        (b"/.%2e/b", 404),
        (b"/%2E./b", 404),
        (b"//..", 404),
        (b"/a%2fb", 404),
        (b"/a%2Fb", 404),
        (b"/..%2f..%2fetc", 404),
        (b"/a%5cb", 404),
        (b"/a\\b", 404),
        (b"/..%5c", 404),
        (b"/a%00b", 400),
        (b"/%00", 400),
        (b"/a%", 400),
        (b"/a%4", 400),
        (b"/a%zz", 400),
        (b"/%u0041", 400),
        (b"/%+1", 400),
    ],
)
def test_refused(path: bytes, status: int) -> None:
    with pytest.raises(ProtocolError) as caught:
        file_segments(path)
    assert caught.value.status == status


@thorough
@given(
    st.lists(
        st.sampled_from([b".", b"..", b"", b"a", b"%2e", b"%2e%2e", b".%2E", b"%2f", b"%5c", b"%00", b"b%20c", b"..."]),
        max_size=8,
    )
)
def test_any_path_stays_beneath(pieces: list[bytes]) -> None:
    try:
        names, _ = file_segments(b"/" + b"/".join(pieces))
    except ProtocolError:
        return
    for name in names:
        assert name not in (b"", b".", b"..")
        assert not set(name) & set(b"/\\\0")


@thorough
@given(st.binary(min_size=1, max_size=20).filter(lambda name: name not in (b".", b"..") and not set(name) & set(b"/\\\0")))
def test_a_name_written_as_a_segment_reads_back(name: bytes) -> None:
    segment = encode_segment(name)
    assert segment.isascii() and not set(segment) & set(b'/?#\\"<> ')
    assert decode_segment(segment) == name
    assert file_segments(b"/" + segment) == ([name], False)


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        (b"/a", b"/a"),
        (b"/%61", b"/a"),
        (b"/%7euser", b"/~user"),
        (b"/%2f", b"/%2F"),
        (b"/%c3%a9", b"/%C3%A9"),
        (b"/%", b"/%"),
    ],
)
def test_equivalent_spellings(path: bytes, normal: bytes) -> None:
    assert normal_path(path) == normal
