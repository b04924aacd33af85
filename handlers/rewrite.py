"""Links in bodies: an upstream's absolute URLs become this proxy's own as they stream by.

What is rewritten is another representation than the upstream's, and says so: its entity tag is weak and carries a mark
(what was rewritten, and for whom, is in it), its digests and its length are gone. It is decoded on the way, so
upstreams are asked for nothing but gzip. A part of such a representation would be a part of another one: where a range
comes back, the whole is asked for instead. It stands beneath the cache, which stores what was rewritten.
"""

from __future__ import annotations

import hashlib
import re
import zlib

from cache.directives import response_control
from handlers.upstreams import Upstream, Upstreams
from reactor.errors import BodyCutShort, ConfigError
from reactor.exchange import Body, Exchange, Head, Source, WrappedSource, as_source
from reactor.http.conditional import entity_tags, weak_match
from reactor.http.fields import Fields
from reactor.http.grammar import OWS, TOKEN
from reactor.http.negotiation import accepted_codings, coding_weight

PIECE = 32 * 1024  # bytes pulled, or decoded, at a time
MAX_AUTHORITY = 255  # bytes of the client's Host that go into links; with a longer one nothing is rewritten

_GZIP = frozenset((b"gzip", b"x-gzip"))  # RFC 9110 section 8.4.1.3
# They tell of the bytes that the upstream sent. Ranges of what is rewritten are the cache's to serve.
_OF_THE_BYTES = (
    b"content-length", b"content-encoding", b"content-md5", b"digest", b"repr-digest", b"content-digest", b"accept-ranges",
)  # fmt: skip
_MARK = b";links="
_MARKED = re.compile(rb'W/"(.*)' + _MARK + rb'([sw])([0-9a-f]{8})"')
# What may follow the base of a URL is an end or a path: anything else makes it another host, port or segment.
_GOES_ON = rb"(?![0-9A-Za-z\-_.~%:@+=$!*])"


def media_types(text: str) -> frozenset[bytes]:
    """`text/html,application/json`; raises ConfigError."""
    types = text.lower().encode("utf-8", "backslashreplace").split(b",")
    for one in types:
        kind, slash, subtype = one.partition(b"/")
        if not slash or TOKEN.fullmatch(kind) is None or TOKEN.fullmatch(subtype) is None:
            raise ConfigError(f"--rewrite-links {text!r}: {one.decode('utf-8')!r} is no media type")
    return frozenset(types)


class Rewriting:
    """Which bodies are rewritten (`types`), and what in them: every absolute URL that an upstream stands for.

    A type stands for those with its suffix too (RFC 6839): application/json for application/vnd.npm.install-v1+json.
    """

    def __init__(self, upstreams: Upstreams, types: frozenset[bytes]) -> None:
        self.types = types
        self._suffixes = tuple(b"+" + one.partition(b"/")[2] for one in types)
        # The longest base first: it is the better match.
        self.upstreams = sorted(upstreams.all, key=lambda one: len(bytes(one.origin) + one.prefix), reverse=True)
        bases = [base for upstream in self.upstreams for base in _bases(upstream)]
        # A pattern that begins with one octet is found several times as fast as one that begins with a choice.
        self.pattern = re.compile(b":(?:%b)" % b"|".join(_pattern(number, one) for number, one in enumerate(self.upstreams)))
        self.beginnings = [spelled.lower() for base in bases for spelled in (base, _escaped(base))]
        self.longest = max(map(len, self.beginnings))
        self._config = repr((sorted(types), self.upstreams)).encode()

    # The request.

    def request_fields(self, exchange: Exchange, whole: bool = False) -> Fields:
        """The fields to forward: with codings that can be decoded, and the validators that the upstream knows.

        No range is asked for where a `whole` representation is wanted.
        """
        fields: Fields = exchange.request.fields.copy()
        index = fields.index
        gzip = coding_weight(accepted_codings(index.get(b"accept-encoding", b"")), b"gzip")
        fields.set(b"Accept-Encoding", b"gzip" if gzip else b"identity")
        if _MARK in index.get(b"if-none-match", b""):
            self._unmark(exchange, fields)
        if whole or type(exchange.body) is not bytes:  # such a request could not be sent a second time
            fields.remove(b"range", b"if-range")
        return fields

    def _unmark(self, exchange: Exchange, fields: Fields) -> None:
        mark, tags = self._mark(exchange), []
        for tag in entity_tags(fields.index[b"if-none-match"]):
            match = _MARKED.fullmatch(tag)
            if match is None:
                tags.append(tag)
            elif match[3] == mark:  # another mark is of links that lead elsewhere
                tags.append(b'%b"%b"' % (b"W/" if match[2] == b"w" else b"", match[1]))
        if tags:
            fields.set(b"If-None-Match", b", ".join(tags))
        else:
            # RFC 9110 section 13.1.3: without the first the other would count.
            fields.remove(b"if-none-match", b"if-modified-since")

    # The response.

    def applies(self, exchange: Exchange, head: Head) -> bool:
        """Whether the body that comes, or would come, with this head is to be rewritten."""
        if not self._is_listed(_media_type(head)):
            return False
        coding = head.fields.index.get(b"content-encoding", b"identity").lower()
        if coding != b"identity" and coding not in _GZIP:
            return False  # it was not asked for, and cannot be read
        return self._base(exchange) is not None and not response_control(head.fields).no_transform

    def is_part(self, head: Head) -> bool:
        """Whether the parts that came may be of what is rewritten."""
        kind = _media_type(head)
        return head.status == 206 and (kind == b"multipart/byteranges" or self._is_listed(kind))

    def _is_listed(self, kind: bytes) -> bool:
        return kind in self.types or kind.endswith(self._suffixes)

    def rewrite(self, exchange: Exchange, head: Head, body: Body) -> Body:
        """Put the head right, and give the body to send in the place of `body`."""
        fields = head.fields
        gzip = fields.index.get(b"content-encoding", b"").lower() in _GZIP
        _forget_bytes(fields)
        if b"etag" in fields.index:
            fields.set(b"ETag", self._marked(exchange, fields.index[b"etag"]))
        if exchange.request.method == b"HEAD" or body == b"":
            return body
        base = self._base(exchange)
        assert base is not None
        links = Links(self, base)
        if type(body) is bytes and not gzip:
            return links.feed(body) + links.finish()
        return Rewritten(as_source(body), links, _Gunzip() if gzip else None)

    def not_modified(self, exchange: Exchange, head: Head) -> None:
        """Put a 304 right, which need not say what type it is about: its tag is marked as the one it was asked with."""
        fields = head.fields
        etag = fields.index.get(b"etag")
        if etag is None:
            return
        marked = self._marked(exchange, etag)
        asked = entity_tags(exchange.request.fields.index.get(b"if-none-match", b""))
        if marked in asked:
            _forget_bytes(fields)
            fields.set(b"ETag", marked)
        elif not any(weak_match(etag, tag) for tag in asked):
            fields.remove(b"etag")  # whose it is cannot be told

    def _marked(self, exchange: Exchange, etag: bytes) -> bytes:
        strength = b"w" if etag.startswith(b"W/") else b"s"
        return b'W/"%b%b%b%b"' % (etag.removeprefix(b"W/").strip(b'"'), _MARK, strength, self._mark(exchange))

    def _mark(self, exchange: Exchange) -> bytes:
        """Eight hexadecimal digits for what is rewritten to what."""
        return hashlib.blake2b(self._config + (self._base(exchange) or b""), digest_size=4).hexdigest().encode("ascii")

    def _base(self, exchange: Exchange) -> bytes | None:
        """`scheme://authority` as this proxy was asked."""
        authority: bytes = exchange.request.authority
        return b"%b://%b" % (exchange.scheme, authority) if 0 < len(authority) <= MAX_AUTHORITY else None


class Links:
    """One body's links. What may be the beginning of one is kept for the next piece, never more than the longest."""

    __slots__ = ("_rewriting", "_places", "_tail")

    def __init__(self, rewriting: Rewriting, base: bytes) -> None:
        self._rewriting = rewriting
        self._places = [base + upstream.at for upstream in rewriting.upstreams]
        self._tail = b""

    def feed(self, data: bytes | memoryview) -> bytes:
        """The bytes that are decided."""
        data = self._tail + data
        return self._replaced(data, self._undecided(data))

    def finish(self) -> bytes:
        """The rest."""
        return self._replaced(self._tail, len(self._tail))

    def _replaced(self, data: bytes, end: int) -> bytes:
        pieces, pos = [], 0
        for match in self._rewriting.pattern.finditer(data):
            number = int(match.lastgroup[1:])  # type: ignore[index]
            start = match.start() - len(self._rewriting.upstreams[number].origin.scheme)
            if start >= end:
                break
            place = self._places[number]
            pieces += [data[pos:start], _escaped(place) if match["e%d" % number] else place]
            pos = match.end()
        end = max(end, pos)
        pieces.append(data[pos:end])
        self._tail = data[end:]
        return b"".join(pieces)

    def _undecided(self, data: bytes) -> int:
        """From where on what comes next may make a URL, or another one."""
        rewriting = self._rewriting
        start = max(0, len(data) - rewriting.longest)
        last = data[start:].lower()
        at = last.find(b"h")  # as http and https begin
        while at >= 0:
            rest = last[at:]
            if any(one.startswith(rest) for one in rewriting.beginnings):
                return start + at
            at = last.find(b"h", at + 1)
        return len(data)


class Rewritten(WrappedSource):
    """A body with its links rewritten; owns the one it reads. Its length is not known before its end."""

    __slots__ = ("_links", "_gunzip", "_out", "_ended")

    def __init__(self, inner: Source, links: Links, gunzip: _Gunzip | None) -> None:
        super().__init__(inner)
        self._links = links
        self._gunzip = gunzip
        self._out: bytes | memoryview = b""  # rewritten, but more than the last pull wanted
        self._ended = False

    def pull(self, limit: int) -> bytes | memoryview | None:
        while not len(self._out):
            if self._ended:
                return b""
            more = self._more()
            if more is None:
                return None
            self._out = more
        piece = self._out[:limit]
        self._out = memoryview(self._out)[limit:]
        return piece

    def _more(self) -> bytes | None:
        gunzip = self._gunzip
        if gunzip is not None and (decoded := gunzip.next()):
            return self._links.feed(decoded)
        data = self._inner.pull(PIECE)
        if data is None:
            return None
        if not len(data):
            return self._finish()
        if gunzip is None:
            return self._links.feed(data)
        gunzip.feed(data)
        return b""

    def _finish(self) -> bytes:
        if self._gunzip is not None and not self._gunzip.whole:
            raise BodyCutShort("the upstream's gzip breaks off", 502)
        self._ended = True
        trailers = self._inner.trailers
        if trailers is not None:
            self.trailers = trailers.copy()
            self.trailers.remove(*_OF_THE_BYTES)
        return self._links.finish()

    def close(self) -> None:
        self._out = b""
        self._inner.close()


class _Gunzip:
    """gzip as it arrives, of one member or several (RFC 1952 section 2.2), decoded a bounded piece at a time."""

    __slots__ = ("_member", "_rest", "_fed")

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=31)
        self._rest = b""  # not decoded yet
        self._fed = False

    def feed(self, data: bytes | memoryview) -> None:
        self._rest += data
        self._fed = True

    def next(self) -> bytes:
        """At most PIECE bytes, none where more must be fed. Raises BodyCutShort."""
        while True:
            if self._member.eof:
                self._rest = self._rest.lstrip(b"\0")  # padding
                if self._rest:
                    self._member = zlib.decompressobj(wbits=31)
            if self._member.eof:
                return b""
            try:
                decoded = self._member.decompress(self._rest, PIECE)
            except zlib.error:
                raise BodyCutShort("the upstream's gzip is damaged", 502) from None
            self._rest = self._member.unused_data or self._member.unconsumed_tail
            if decoded or not self._member.eof:
                return decoded

    @property
    def whole(self) -> bool:
        """Nothing more is missing; nothing at all is whole too."""
        return not self._fed or (self._member.eof and not self._rest)


def _forget_bytes(fields: Fields) -> None:
    """Drop what tells of the upstream's bytes. What comes of them is decoded for everybody, whatever coding they accept."""
    fields.remove(*_OF_THE_BYTES)
    varying = fields.options(b"vary")
    if b"accept-encoding" in varying:
        fields.remove(b"vary")
        varying = [name for name in varying if name != b"accept-encoding"]
        if varying:
            fields.add(b"Vary", b", ".join(varying))


def _media_type(head: Head) -> bytes:
    return head.fields.index.get(b"content-type", b"").partition(b";")[0].strip(OWS).lower()


def _bases(upstream: Upstream) -> tuple[bytes, bytes]:
    """The ways to spell an upstream's base URL: with the port told, and without where it is the scheme's own."""
    return b"%b://%b:%d%b" % (*upstream.origin, upstream.prefix), bytes(upstream.origin) + upstream.prefix


def _pattern(number: int, upstream: Upstream) -> bytes:
    """The base URL from the colon on, scheme and host in any case, all of its slashes escaped as JSON allows, or none."""
    scheme, host, port = upstream.origin
    slash = b"(?P=e%d)/" % number
    told = b":%d" % port if upstream.origin.authority != host else b"(?::%d)?" % port
    path = slash.join(map(re.escape, upstream.prefix.split(b"/")))
    return rb"(?P<u%d>(?<=(?i:%b):)(?P<e%d>\\?)/%b(?i:%b)%b%b%b)" % (
        number, scheme, number, slash, re.escape(host), told, path, _GOES_ON,
    )  # fmt: skip


def _escaped(url: bytes) -> bytes:
    """As JSON may spell it."""
    return url.replace(b"/", b"\\/")
