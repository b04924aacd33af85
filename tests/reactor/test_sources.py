"""Bodies made of other bodies."""

from __future__ import annotations

import pytest

from reactor.errors import BodyCutShort
from reactor.exchange import BytesSource, Source
from reactor.sources import ChainSource


class Part(Source):
    """Gives its pieces one by one; None is "later", an exception is raised."""

    def __init__(self, *pieces: bytes | None | Exception) -> None:
        super().__init__()
        self.pieces = list(pieces)
        self.closed = 0

    def pull(self, limit: int) -> bytes | None:
        piece = self.pieces.pop(0) if self.pieces else b""
        if isinstance(piece, Exception):
            raise piece
        return piece

    def close(self) -> None:
        self.closed += 1


def drain(source: Source, limit: int = 4) -> bytes:
    found = b""
    while data := source.pull(limit):
        found += data
    return found


def test_one_after_the_other() -> None:
    chain = ChainSource(11, [b"one", BytesSource(b"two"), b"", BytesSource(b"three")])
    assert chain.length == 11
    assert drain(chain) == b"onetwothree"
    assert chain.pull(10) == b"", "and then there is nothing more"


def test_nothing_at_all() -> None:
    assert ChainSource(0, []).pull(10) == b""


def test_a_part_that_is_not_there_yet() -> None:
    part = Part(b"a", None, b"b")
    chain = ChainSource(None, [b"1", part, b"2"])
    told = []
    chain.on_ready = lambda: told.append("ready")
    assert [chain.pull(9), chain.pull(9), chain.pull(9)] == [b"1", b"a", None]
    assert part.on_ready is not None
    part.on_ready()
    assert told == ["ready"]
    assert drain(chain) == b"b2"
    assert part.closed == 1 and part.on_ready is None


def test_a_part_that_breaks_off() -> None:
    chain = ChainSource(None, [Part(b"a", BodyCutShort("gone")), b"2"])
    assert chain.pull(9) == b"a"
    with pytest.raises(BodyCutShort):
        chain.pull(9)


def test_close_closes_what_is_left() -> None:
    parts = [Part(b"a"), Part(b"b"), Part(b"c")]
    chain = ChainSource(None, list(parts))
    assert chain.pull(9) == b"a"
    assert chain.pull(9) == b"b"
    for _ in range(2):
        chain.close()
    assert [part.closed for part in parts] == [1, 1, 1]
    assert chain.pull(9) == b""
