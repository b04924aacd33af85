"""A message as a script sees it: its field lines as text, and a body that is read whole or replaced."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any

from handlers.waits import Whole
from reactor.errors import BodyCutShort, ContentError, ReactorError
from reactor.exchange import Body, Source
from reactor.http.codings import FEED, decoder_for
from reactor.http.fields import Fields
from reactor.sources import ChainSource

BODY_LIMIT = 1024 * 1024  # bytes of a body that are read, and that it may decode to, unless a script names another limit

# What was said of a body that has been replaced: RFC 9110 sections 8.4 and 14.4, RFC 1864, RFC 3230, RFC 9530.
OF_THE_BODY = (
    b"content-encoding", b"content-length", b"transfer-encoding", b"content-range", b"content-md5", b"digest",
    b"content-digest", b"repr-digest",
)  # fmt: skip
_CHARSET = re.compile(r';[ \t]*charset[ \t]*=[ \t]*("[^"]*"|[^\s;]*)', re.IGNORECASE)
# Codecs that are no charsets of messages, some of them slow out of proportion.
_NO_CHARSETS = frozenset(("idna", "punycode", "unicode-escape", "raw-unicode-escape", "utf-7", "undefined", "mbcs", "oem"))

Content = Any  # bytes; str, sent as UTF-8; or what json.dumps takes


class BodyError(ReactorError):
    """A body that cannot be had: too large, cut short, not to be decoded, no text, no JSON.

    A script may catch it, and go on with the body untouched. What it does not catch is answered with `status`: 4xx for a
    request's body, 502 for a response's.
    """

    def __init__(self, reason: str, status: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


class ScriptFields:
    """The field lines of a message: names in any case, values as text (Latin-1, as on the wire).

    `fields["Name"]` and `get` join the lines of one name by commas; `get_all` does not. Setting replaces them all by one
    line, `add` appends one, `remove` drops them. Iterating gives (name as spelled, value), line by line. What would not be
    a valid line raises ProtocolError. Framing and Connection are the connection's affair: what is set there is not sent.
    """

    __slots__ = ("_message",)

    def __init__(self, message: Message) -> None:
        self._message = message

    def get(self, name: str, default: str | None = None) -> str | None:
        value = self._message._fields().get(name.lower().encode("latin-1"))
        return default if value is None else value.decode("latin-1")

    def get_all(self, name: str) -> list[str]:
        return [value.decode("latin-1") for value in self._message._fields().get_all(name.lower().encode("latin-1"))]

    def set(self, name: str, value: str) -> None:
        self._message._own_fields().set(name, value)

    def add(self, name: str, value: str) -> None:
        self._message._own_fields().add(name, value)

    def remove(self, *names: str) -> None:
        """Drop every line of these names; one that is not there is no error."""
        gone = [name.lower().encode("latin-1") for name in names]
        if any(name in self._message._fields() for name in gone):
            self._message._own_fields().remove(*gone)

    def __getitem__(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __setitem__(self, name: str, value: str) -> None:
        self.set(name, value)

    def __delitem__(self, name: str) -> None:
        self.remove(name)

    def __contains__(self, name: str) -> bool:
        return name.lower().encode("latin-1") in self._message._fields()

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter([(name.decode("latin-1"), value.decode("latin-1")) for name, value in self._message._fields()])

    def __len__(self) -> int:
        return len(self._message._fields())

    def __repr__(self) -> str:
        return f"<ScriptFields {list(self)}>"


class Message:
    """What requests and responses have in common: fields, and a body that is read whole, within a limit, or replaced."""

    _failure = 502  # the status for a body that the sender has got wrong
    _too_large = 502
    _said: tuple[bytes, ...] = OF_THE_BODY

    def __init__(self, body: Body) -> None:
        self._body = body  # bytes once it was read, or replaced
        self._decoded: bytes | None = None

    def _fields(self) -> Fields:
        raise NotImplementedError

    def _own_fields(self) -> Fields:
        """The fields, to be changed."""
        raise NotImplementedError

    @property
    def fields(self) -> ScriptFields:
        """The field lines, to be read and changed."""
        return ScriptFields(self)

    @property
    def is_json(self) -> bool:
        """Whether Content-Type says that the body is JSON (RFC 8259, RFC 6839), and there may be one."""
        media = (self.fields.get("content-type") or "").partition(";")[0].strip(" \t").lower()
        return media == "application/json" or media.endswith("+json")

    async def body(self, limit: int = BODY_LIMIT) -> bytes:
        """The body, without its content coding; at most `limit` bytes, coded and decoded. Raises BodyError."""
        if self._decoded is None:
            self._decoded = self._undone(await self._read(limit), limit)
        if len(self._decoded) > limit:
            raise BodyError(f"the body is larger than {limit} bytes", self._too_large)
        return self._decoded

    async def text(self, limit: int = BODY_LIMIT) -> str:
        """The body as text: in its own charset, or else UTF-8, whose faults survive being put back. Raises BodyError."""
        data = await self.body(limit)
        charset = self._charset()
        if charset == "utf-8":
            return data.decode("utf-8", "surrogateescape")
        try:
            if codecs.lookup(charset).name in _NO_CHARSETS:
                raise LookupError(charset)
            return data.decode(charset)
        except (LookupError, ValueError) as error:
            raise BodyError(f"the body is no text: {error}", self._failure) from None

    async def json(self, limit: int = BODY_LIMIT) -> Any:
        """The body as JSON. Raises BodyError."""
        try:
            return json.loads(await self.body(limit))
        except (ValueError, RecursionError) as error:
            raise BodyError(f"the body is no JSON: {error}", self._failure) from None

    def replace(self, content: Content) -> None:
        """Another body: bytes as they are, a str as UTF-8, anything else as JSON. What was said of the old one goes."""
        data, media = encoded(content)
        fields = self._own_fields()
        fields.remove(*self._said)
        given = fields.get(b"content-type")
        if given is None:
            fields.set(b"Content-Type", media)
        elif isinstance(content, str) and self._charset() != "utf-8":
            fields.set(b"Content-Type", _CHARSET.sub("; charset=utf-8", given.decode("latin-1")))
        if isinstance(self._body, Source):
            self._drop(self._body)
        self._body = self._decoded = data

    def _drop(self, body: Source) -> None:
        """A body that was not read has been replaced."""

    def _charset(self) -> str:
        match = _CHARSET.search(self.fields.get("content-type") or "")
        return "utf-8" if match is None else match[1].strip('"').lower()

    async def _read(self, limit: int) -> bytes:
        source = self._body
        if isinstance(source, bytes):
            if len(source) > limit:
                raise BodyError(f"the body is larger than {limit} bytes", self._too_large)
            return source
        whole = Whole(source, limit)
        await whole
        data = b"".join(whole.pieces)
        if whole.too_large or whole.cut is not None:
            self._body = ChainSource(source.length, [data, source])  # as it was, for who passes it on all the same
            if whole.cut is not None:
                raise BodyError(whole.cut.reason, self._status_of(whole.cut))
            raise BodyError(f"the body is larger than {limit} bytes", self._too_large)
        self._body = data  # without trailers, which whoever forwards may discard (RFC 9110 section 6.5.1)
        source.close()
        return data

    def _status_of(self, cut: BodyCutShort) -> int:
        return self._failure

    def _undone(self, data: bytes, limit: int) -> bytes:
        """Without its content codings."""
        pieces: list[bytes] = []
        size = 0
        try:
            for piece in _decoded(data, self._fields().get(b"content-encoding") or b""):
                pieces.append(piece)
                size += len(piece)
                if size > limit:
                    raise BodyError(f"the body decodes to more than {limit} bytes", self._too_large)
        except ContentError as error:
            raise BodyError(f"the body cannot be decoded: {error.reason}", self._failure) from None
        return b"".join(pieces)


def _decoded(data: bytes, content_encoding: bytes) -> Iterator[bytes]:
    """In pieces. Raises ContentError."""
    decoder = decoder_for(content_encoding)
    if decoder is None:
        yield data
        return
    for start in range(0, len(data), FEED):
        decoder.feed(data[start : start + FEED])
        while piece := decoder.read(FEED):
            yield piece
    decoder.finish()


def encoded(content: Content) -> tuple[bytes, str]:
    """The bytes of a body, and the media type that they are of."""
    if isinstance(content, bytes):
        return content, "application/octet-stream"
    if isinstance(content, str):
        return content.encode("utf-8", "surrogateescape"), "text/plain; charset=utf-8"
    return json.dumps(content, ensure_ascii=False).encode("utf-8", "backslashreplace"), "application/json"
