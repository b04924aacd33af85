"""Answers made from stored responses: whole, in part, or word that the client has it already."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from cache.answering import answer, not_modified_fields
from cache.entry import Entry
from cache.rules import CONDITIONS
from cache.stores.memory import Content, ContentSource
from reactor.exchange import Body, Exchange, Head, Source, error_page
from reactor.http.fields import Fields
from reactor.http.parser import Request
from reactor.http.ranges import Range, content_range, multipart, unsatisfied_range
from reactor.http.writer import status_line
from reactor.sources import ChainSource


class StoredHead(Head):
    """A stored response's head as of one second; its fields are made only for who asks for them."""

    __slots__ = ("_stored", "_age", "_cache_status", "_fields")

    def __init__(self, entry: Entry, age: int, cache_status: bytes, wire: bytes) -> None:
        self.status = entry.status
        self.reason = entry.reason
        self.wire = wire
        self.shared = True
        self._stored = entry.fields  # not the entry, which keeps what is rendered of it
        self._age = age
        self._cache_status = cache_status
        self._fields: Fields | None = None

    @property
    def fields(self) -> Fields:  # type: ignore[override]
        fields = self._fields
        if fields is None:
            fields = self._fields = self._stored.copy()
            fields.add(b"Age", b"%d" % self._age)
            fields.add(b"Cache-Status", self._cache_status)
        return fields


class Rendered:
    """What a stored response looks like for one second: its head, serialized, and its body where that is small."""

    __slots__ = ("until", "head", "body", "_size", "_length")

    def __init__(self, entry: Entry, now: float, cache_status: bytes) -> None:
        content: Content = entry.body
        self.body = content.whole()
        lead = status_line(entry.status, entry.reason) + entry.fields.wire()
        self._size = len(lead)
        # RFC 9110 section 8.6: a 204 has no length to tell; where the answer to a HEAD told one, it is among its fields.
        bodyless = entry.status == 204 or entry.method == b"HEAD"
        self._length = b"" if bodyless else b"Content-Length: %d\r\n" % content.size
        self._write(entry, now, cache_status, lead)

    def renew(self, entry: Entry, now: float, cache_status: bytes) -> None:
        """Another second has begun: all but two lines stay."""
        assert self.head.wire is not None
        self._write(entry, now, cache_status, self.head.wire[: self._size])

    def _write(self, entry: Entry, now: float, cache_status: bytes, lead: bytes) -> None:
        age = entry.age(now)
        self.until = entry.response_time + (age + 1 - entry.initial_age)  # it is true for as long as the age is
        wire = b"%bAge: %d\r\nCache-Status: %b\r\n%b\r\n" % (lead, age, cache_status, self._length)
        self.head = StoredHead(entry, age, cache_status, wire)


def answer_conditionally(exchange: Exchange, entry: Entry, head: Head) -> None:
    """The request has conditions or a range of its own (RFC 9111 section 4.3.2, RFC 9110 section 13.2.2)."""
    content: Content = entry.body
    status, ranges = answer(exchange.request, entry, content.size, exchange.reactor.wall)
    if status == 304:
        answer_not_modified(exchange, entry, head)
    elif status == 206:
        start, _, complete = entry.span or (0, 0, content.size)
        _answer_part(exchange, content, head, ranges, start, complete)
    elif status == 416:
        page, body = error_page(416, "no such range")
        page.fields.add(b"Content-Range", unsatisfied_range(content.size))
        page.fields.add(b"Cache-Status", head.fields[b"cache-status"])
        exchange.respond(page, body)
    else:
        exchange.respond(head, ContentSource(content, 0, content.size))


def answer_not_modified(exchange: Exchange, entry: Entry, head: Head) -> None:
    kept = not_modified_fields(entry)
    for name in (b"Age", b"Cache-Status"):
        if name.lower() in head.fields:
            kept.set(name, head.fields[name.lower()])
    exchange.respond(Head(304, kept))


def part_head(head: Head, part: Range, complete: int | None) -> Head:
    """The head of a single-part 206 made from that of the whole, whose length is `complete` (RFC 9110 section 14.4)."""
    made = Head(206, head.fields.copy())
    value = content_range(*part, complete or 0)
    made.fields.set(b"Content-Range", value if complete is not None else value.rpartition(b"/")[0] + b"/*")
    return made


def _answer_part(
    exchange: Exchange, content: Content, head: Head, ranges: Sequence[Range], offset: int, complete: int | None
) -> None:
    """RFC 9110 section 15.3.7: one range as it is, several as the parts of a multipart body.

    The content begins at `offset` of the representation.
    """
    body: Source
    if len(ranges) == 1:
        start, stop = ranges[0]
        part = part_head(head, ranges[0], complete)
        body = ContentSource(content, start - offset, stop - start)
    else:
        assert complete is not None
        part = Head(206, head.fields.copy())
        laid = multipart(list(ranges), complete, head.fields.get(b"content-type"), secrets.token_hex(16).encode("ascii"))
        part.fields.set(b"Content-Type", laid.content_type)
        bodies: list[Body] = []
        for lead, start, stop in laid.parts:
            bodies += [lead, ContentSource(content, start - offset, stop - start)]
        body = ChainSource(laid.length, [*bodies, laid.end])
    exchange.respond(part, body)


def is_special(request: Request) -> bool:
    return not request.fields.index.keys().isdisjoint(CONDITIONS)


def has_it(exchange: Exchange, entry: Entry) -> bool:
    """Whether the client's own conditions say that it has this response already; its body need not have come for that."""
    return is_special(exchange.request) and answer(exchange.request, entry, 0, exchange.reactor.wall).status == 304
