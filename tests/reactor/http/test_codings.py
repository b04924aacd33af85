"""Content codings undone: whatever the split and the stack, the same bytes; whatever is broken, one error."""

from __future__ import annotations

import gzip
import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactor.errors import ContentError
from reactor.http.codings import EXPANSION_FREE, MAX_CODINGS, Decoder, decoder_for


def raw_deflate(data: bytes) -> bytes:
    coder = zlib.compressobj(wbits=-15)
    return coder.compress(data) + coder.flush()


ENCODE = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "raw": raw_deflate,
    "identity": lambda data: data,
}


def decode(codings: str, pieces: list[bytes], limit: int = 1 << 20) -> bytes:
    """What comes out, piece by piece in and at most `limit` bytes at a time out."""
    decoder = decoder_for(codings.encode())
    if decoder is None:
        return b"".join(pieces)
    out = []
    for piece in pieces:
        decoder.feed(piece)
        while data := decoder.read(limit):
            assert len(data) <= limit
            out.append(data)
    decoder.finish()
    return b"".join(out)


@given(
    data=st.binary(max_size=3000) | st.binary(max_size=20).map(lambda unit: unit * 500),
    stack=st.lists(st.sampled_from(sorted(ENCODE)), max_size=MAX_CODINGS),
    cuts=st.lists(st.integers(0, 4000)),
    limit=st.integers(1, 5000),
)
def test_any_stack_in_any_split(data: bytes, stack: list[str], cuts: list[int], limit: int) -> None:
    coded = data
    for coding in stack:
        coded = ENCODE[coding](coded)
    marks = sorted({0, len(coded), *(cut for cut in cuts if cut < len(coded))})
    pieces = [coded[start:stop] for start, stop in pairwise(marks)]
    assert decode(", ".join("deflate" if coding == "raw" else coding for coding in stack), pieces, limit) == data


@given(data=st.binary(min_size=1, max_size=500), stack=st.lists(st.sampled_from(["gzip", "deflate", "raw"]), min_size=1, max_size=3), cut=st.data())
def test_what_is_cut_short_is_seen(data: bytes, stack: list[str], cut: st.DataObject) -> None:
    coded = data
    for coding in stack:
        coded = ENCODE[coding](coded)
    keep = cut.draw(st.integers(1, len(coded) - 1))
    with pytest.raises(ContentError):
        decode(",".join("deflate" if coding == "raw" else coding for coding in stack), [coded[:keep]])


@given(st.binary(min_size=1, max_size=300), st.sampled_from(["gzip", "deflate", "gzip, deflate"]))
def test_anything_gives_bytes_or_an_error(data: bytes, codings: str) -> None:
    try:
        decode(codings, [data])
    except ContentError:
        pass


def test_members_of_gzip_follow_each_other() -> None:
    assert decode("gzip", [gzip.compress(b"one ") + gzip.compress(b"") + gzip.compress(b"two")]) == b"one two"


@pytest.mark.parametrize("codings", ["gzip", "deflate"])
@pytest.mark.parametrize("behind", [b"x", b"\0\0\0\0", b"\x1f?"])
def test_bytes_behind_the_end(codings: str, behind: bytes) -> None:
    with pytest.raises(ContentError, match="behind the end"):
        decode(codings, [ENCODE[codings](b"hello") + behind])


@pytest.mark.parametrize("codings", ["gzip", "deflate", "gzip, gzip"])
def test_an_empty_body_needs_no_coding(codings: str) -> None:
    assert decode(codings, []) == decode(codings, [b""]) == b""


@pytest.mark.parametrize("codings", ["br", "gzip, br", "GZIP2", "gzip;q=1"])
def test_a_coding_that_is_not_known(codings: str) -> None:
    with pytest.raises(ContentError, match="not known"):
        decoder_for(codings.encode())


def test_spellings_and_what_asks_for_nothing() -> None:
    assert decode(" GZip ,, ", [gzip.compress(b"a")]) == b"a"
    assert decoder_for(b"") is decoder_for(b"identity") is decoder_for(b"identity, Identity") is None


def test_too_many_on_top_of_each_other() -> None:
    Decoder([b"gzip"] * MAX_CODINGS)
    with pytest.raises(ContentError, match="on top of each other"):
        Decoder([b"gzip"] * (MAX_CODINGS + 1))


@pytest.mark.parametrize("stack", [1, 2])
def test_a_bomb_is_given_up_early(stack: int) -> None:
    coder = zlib.compressobj(9, wbits=31)
    bomb = b"".join(coder.compress(bytes(1 << 20)) for _ in range(64)) + coder.flush()
    if stack == 2:
        bomb = gzip.compress(bomb)
    decoder = Decoder([b"gzip"] * stack)
    decoder.feed(bomb)
    came = 0
    with pytest.raises(ContentError, match="expand"):
        while data := decoder.read(1 << 16):
            came += len(data)
    assert came <= EXPANSION_FREE


def test_a_bomb_that_comes_to_nothing_is_one_too() -> None:
    """Members without content, millions of them, hidden in another coding."""
    coder = zlib.compressobj(9, wbits=31)
    empty = gzip.compress(b"")
    bomb = coder.compress(empty * (2 * EXPANSION_FREE // len(empty))) + coder.flush()
    decoder = Decoder([b"gzip", b"gzip"])
    decoder.feed(bomb)
    with pytest.raises(ContentError, match="expand"):
        while decoder.read(1 << 16):
            pass


def test_what_is_large_and_compresses_well_is_no_bomb() -> None:
    line = b"%08d some line of a log that says much the same as the others\n"
    text = b"".join(line % at for at in range(400_000))
    assert len(text) > EXPANSION_FREE
    assert decode("gzip", [gzip.compress(text)]) == text
