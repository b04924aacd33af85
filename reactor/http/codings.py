"""Content codings undone (RFC 9110 section 8.4): gzip and deflate, in any split, stacked, and never without a bound."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from reactor.errors import ContentError
from reactor.http.fields import split_tokens

ACCEPT_ENCODING = b"gzip, deflate"  # what is undone here, as a request says it
MAX_CODINGS = 4  # stacked on one body; more are refused
EXPANSION = 200  # times what was received, that a body may come to…
EXPANSION_FREE = 16 * 1024 * 1024  # …once it is past these bytes; beyond, it is refused
FEED = 64 * 1024  # bytes handed from one coding to the next at a time

_GZIP = frozenset((b"gzip", b"x-gzip"))  # RFC 9110 section 8.4.1.3
_GZIP_WINDOW, _ZLIB_WINDOW, _RAW_WINDOW = 31, 15, -15


class Decoder:
    """The codings of one body, undone: `feed` what was received, `read` until it gives nothing, `finish` at the end.

    `codings` are the members of Content-Encoding in their order, which is that of their application. Raises ContentError
    for a coding that is not known here, and later for one that is broken or expands too far.
    """

    __slots__ = ("_stages", "_received", "_given")

    def __init__(self, codings: Sequence[bytes]) -> None:
        applied = [coding for coding in codings if coding != b"identity"]
        if len(applied) > MAX_CODINGS:
            raise ContentError(f"{len(applied)} content codings on top of each other")
        self._stages = [_Inflate(coding) for coding in reversed(applied)]
        self._received = 0
        self._given = 0

    def feed(self, data: bytes | memoryview) -> None:
        self._received += len(data)
        self._stages[0].feed(data)

    def read(self, limit: int) -> bytes:
        """At most `limit` bytes; none where more must be fed first, or after the end. Raises ContentError."""
        return self._read(len(self._stages) - 1, limit)

    def _read(self, stage: int, limit: int) -> bytes:
        inflate = self._stages[stage]
        while not (data := inflate.read(limit)):
            if not stage or not (before := self._read(stage - 1, FEED)):
                return b""
            inflate.feed(before)
        # What lies between two codings counts too: it costs as much, and may come to nothing in the end.
        self._given += len(data)
        if self._given > EXPANSION_FREE and self._given > EXPANSION * self._received:
            raise ContentError(f"{self._received} bytes expand to over {EXPANSION} times as many")
        return data

    def finish(self) -> None:
        """The body is at its end, and so must each coding be, unless there was none at all. Raises ContentError."""
        for stage in self._stages:
            if self._received and not stage.at_end:
                raise ContentError(f"its {stage.coding.decode('ascii')} coding ends in the middle")


def decoder_for(content_encoding: bytes) -> Decoder | None:
    """The decoder that a Content-Encoding asks for, or None where nothing is to be undone. Raises ContentError."""
    codings = split_tokens(content_encoding)
    return Decoder(codings) if any(coding != b"identity" for coding in codings) else None


class _Inflate:
    """One coding, undone by zlib a bounded piece at a time."""

    __slots__ = ("coding", "_waiting", "_inflate")

    def __init__(self, coding: bytes) -> None:
        if coding not in _GZIP and coding != b"deflate":
            raise ContentError(f"the content coding {coding.decode('latin-1')!r} is not known here")
        self.coding = coding
        self._waiting = b""  # fed, and not yet taken in
        self._inflate = zlib.decompressobj(_GZIP_WINDOW) if coding in _GZIP else None

    def feed(self, data: bytes | memoryview) -> None:
        self._waiting = self._waiting + bytes(data) if self._waiting else bytes(data)

    def read(self, limit: int) -> bytes:
        while self._begins():
            inflate, waiting = self._inflate, self._waiting
            assert inflate is not None
            # After a full piece zlib may hold more output although it took all of its input: it is asked once more.
            try:
                data = inflate.decompress(waiting, limit)
            except zlib.error as error:
                raise ContentError(f"its {self.coding.decode('ascii')} coding is broken ({error})") from None
            self._waiting = inflate.unused_data if inflate.eof else inflate.unconsumed_tail
            if data or not self._waiting:
                return data
        return b""

    def _begins(self) -> bool:
        """Whether there is something to inflate; a member's end and the spelling of deflate are seen to here."""
        inflate, waiting = self._inflate, self._waiting
        if inflate is None:
            if len(waiting) < 2:
                return False
            self._inflate = zlib.decompressobj(_deflate_window(waiting))
        elif inflate.eof:
            if not waiting:
                return False
            # RFC 1952 section 2.2: a gzip file is a series of members.
            if self.coding == b"deflate" or not b"\x1f\x8b".startswith(waiting[:2]):
                raise ContentError(f"bytes behind the end of its {self.coding.decode('ascii')} coding")
            self._inflate = zlib.decompressobj(_GZIP_WINDOW)
        return True

    @property
    def at_end(self) -> bool:
        return self._inflate is not None and self._inflate.eof and not self._waiting


def _deflate_window(start: bytes) -> int:
    """RFC 9110 section 8.4.1.2: deflate is the zlib format, and some send it bare; the first two bytes tell (RFC 1950)."""
    zlib_header = start[0] & 0x0F == 8 and start[0] >> 4 <= 7 and (start[0] * 256 + start[1]) % 31 == 0
    return _ZLIB_WINDOW if zlib_header else _RAW_WINDOW
