"""Bodies that a client sends."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from handlers.bodies import Gathering, IterSource, PipeSource, ReadFileSource, StrippedSource, as_body, joined
from reactor.errors import BodyCutShort
from reactor.exchange import Body, BytesSource, FileSource, Source
from tests.loopback import House, Script, housed


@pytest.fixture
def house() -> Iterator[House]:
    yield from housed()


def whole(body: Body, limit: int = 3) -> bytes:
    if isinstance(body, bytes):
        return body
    pieces = []
    while data := body.pull(limit):
        assert len(data) <= limit
        pieces.append(bytes(data))
    assert not body.pull(limit), "the end stays the end"
    return b"".join(pieces)


@pytest.mark.parametrize(
    ("content", "sent", "length"),
    [
        (b"hello", b"hello", None),
        ("hällo", "hällo".encode(), None),
        (bytearray(b"hello"), b"hello", None),
        (memoryview(b"hello"), b"hello", None),
        ([b"he", b"", b"llo"], b"hello", None),
        (iter([b"hello", b""]), b"hello", None),
        (io.BytesIO(b"hello"), b"hello", None),
        (BytesSource(b"hello"), b"hello", 5),
    ],
)
def test_what_can_be_a_body(content: Any, sent: bytes, length: int | None) -> None:
    body = as_body(content)
    assert isinstance(body, bytes) or body.length == length
    assert whole(body) == sent


def test_what_cannot() -> None:
    for content in (5, None, object()):
        with pytest.raises(TypeError):
            as_body(content)


def test_a_file_from_where_it_stands(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"skip hello")
    with open(tmp_path / "file", "rb") as file:
        file.seek(5)
        body = as_body(file)
        assert isinstance(body, FileSource) and body.length == 5
        assert body.as_file() == (file.fileno(), 5, 5)
        assert whole(body) == b"hello"
        assert body.rewind() and whole(body) == b"hello"
        body.close()
        assert file.read(1) == b"h", "it stays its owner's"
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    read = ReadFileSource(fd, 0, 10)
    assert read.as_file() is None and whole(read) == b"skip hello"  # type: ignore[func-returns-value]
    read.close()


def test_an_iterator_that_raises_cuts_the_body() -> None:
    def pieces() -> Iterator[bytes]:
        yield b"one"
        raise KeyError("two")

    body = IterSource(pieces())
    assert body.pull(10) == b"one"
    with pytest.raises(BodyCutShort, match="KeyError"):
        body.pull(10)
    with pytest.raises(BodyCutShort):
        IterSource(iter(["text"])).pull(10)  # type: ignore[list-item]


def test_a_pipe_is_read_when_there_is_something(house: House) -> None:
    read, write = os.pipe()
    body, ready = PipeSource(house.reactor, read), []
    body.on_ready = lambda: ready.append(True)
    assert body.pull(10) is None and body.pull(10) is None
    house.turns()
    assert not ready
    os.write(write, b"hello there")
    house.until(lambda: ready)
    assert body.pull(5) == b"hello"
    assert body.pull(100) is None
    os.close(write)
    house.until(lambda: len(ready) == 2)
    assert body.pull(100) == b" there"
    assert body.pull(100) is None
    house.until(lambda: len(ready) == 3)
    assert body.pull(100) == body.pull(100) == b""
    os.close(read)


def test_a_pipe_that_nobody_wants_is_not_watched(house: House) -> None:
    read, write = os.pipe()
    body = PipeSource(house.reactor, read)
    assert body.pull(10) is None and house.reactor.watched == 1
    body.close()
    body.close()
    assert house.reactor.watched == 0 and body.pull(1) == b""
    os.close(read)
    os.close(write)


def test_a_device_that_cannot_be_polled(house: House) -> None:
    with open("/dev/null", "rb") as file:
        assert PipeSource(house.reactor, file.fileno()).pull(10) == b""


def test_a_descriptor_that_is_none(house: House) -> None:
    with pytest.raises(BodyCutShort, match="cannot be read"):
        PipeSource(house.reactor, 999_999).pull(10)


@pytest.mark.parametrize(("pieces", "got", "rest"), [([b"ab", None, b"c"], b"abc", False), ([b"ab", None, b"cdef", b"g"], b"abcdef", True)])
def test_gathering_ends_with_the_body_or_the_limit(house: House, pieces: list[Any], got: bytes, rest: bool) -> None:
    body = Script(house.reactor, *pieces)
    done: list[tuple[bytes, Source | None]] = []
    gathering = Gathering(body, 4, lambda data, left: done.append((data, left)), done.append)  # type: ignore[arg-type]
    gathering.start()
    assert not done
    body.go()
    house.turns()
    assert done == [(got, body if rest else None)]


def test_gathering_what_is_cut(house: House) -> None:
    cut: list[BodyCutShort] = []
    Gathering(Script(house.reactor, b"a", BodyCutShort("gone")), 9, lambda *_: None, cut.append).start()
    assert [error.reason for error in cut] == ["gone"]


def test_line_ends_are_taken_out(house: House) -> None:
    body = StrippedSource(Script(house.reactor, b"\r\n", b"a\nb\0", b"\n", b"c"))
    assert [body.pull(10), body.pull(10), body.pull(10)] == [b"ab", b"c", b""]


def test_bodies_joined() -> None:
    assert joined([b"a", b"&", b"b"]) == b"a&b" and joined([]) == b""
    body = joined([b"a", BytesSource(b"bc")])
    assert isinstance(body, Source) and body.length == 3 and whole(body) == b"abc"
    assert joined([b"a", IterSource(iter([b"b"]))]).length is None  # type: ignore[union-attr]
