"""What a script is given: `Traffic`, one exchange with its request and its response, to look at, change, answer or refuse.

    def request(exchange: Traffic) -> None: ...          before the cache
    async def response(exchange: Traffic) -> None: ...   after it, just before the client

A hook that must wait is an `async def`, and may await `exchange.delay(…)` and `body`, `text` and `json` of a message, and
nothing else: there is no asyncio here.
"""

from __future__ import annotations

import codecs
import json
import logging
import re
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from reactor.errors import BodyCutShort, ProtocolError, ReactorError
from reactor.exchange import PULL, Body, Exchange, Head, Source, error_page
from reactor.http.fields import Fields
from reactor.http.grammar import TARGET_OCTETS, TOKEN
from reactor.http.parser import Request
from reactor.http.uri import DEFAULT_PORTS, split_absolute, split_authority
from reactor.loop import Timer
from reactor.sources import ChainSource

log = logging.getLogger("handlers.script")

BODY_LIMIT = 1024 * 1024  # bytes of a body that are read, and that it may decode to, unless a script names another limit
DELAY_LIMIT = 300.0  # seconds of one delay
CODINGS_LIMIT = 4  # content codings over each other
MEMBERS_LIMIT = 64  # members of one gzip body

# What was said of a body that has been replaced: RFC 9110 sections 8.4 and 14.4, RFC 1864, RFC 3230, RFC 9530.
_OF_THE_BODY = (
    b"content-encoding", b"content-length", b"transfer-encoding", b"content-range", b"content-md5", b"digest",
    b"content-digest", b"repr-digest",
)  # fmt: skip
_OF_THE_ANSWER = (*_OF_THE_BODY, b"etag", b"last-modified", b"accept-ranges")  # … and its validators (sections 8.8, 14.3)
_WITHOUT_BODY = frozenset((204, 304))
_CHARSET = re.compile(r';[ \t]*charset[ \t]*=[ \t]*("[^"]*"|[^\s;]*)', re.IGNORECASE)
# Codecs that are no charsets of messages, some of them slow out of proportion.
_NO_CHARSETS = frozenset(("idna", "punycode", "unicode-escape", "raw-unicode-escape", "utf-7", "undefined", "mbcs", "oem"))
_URL_OCTETS = "/:@!$&'()*+,;=-._~%"  # of a path, as it is written; everything else gets percent-encoded
_WBITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}  # RFC 9110 section 8.4.1; for zlib

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


class Wait:
    """What a hook may await. `start` says whether it is over at once; if not, the loop calls `wake` unless it is cancelled."""

    def __await__(self) -> Generator[Wait, None, None]:
        yield self

    def start(self, wake: Callable[[], object]) -> bool:
        raise NotImplementedError

    def cancel(self) -> None:
        raise NotImplementedError


class Delay(Wait):
    """Time to pass. One that is not awaited holds the exchange up after its hook."""

    def __init__(self, traffic: Traffic, seconds: float) -> None:
        self.seconds = seconds
        self._traffic = traffic
        self._timer: Timer | None = None

    def start(self, wake: Callable[[], object]) -> bool:
        if self in self._traffic._delays:
            self._traffic._delays.remove(self)
        self._timer = self._traffic._exchange.reactor.call_later(self.seconds, wake)
        return False

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


class Whole(Wait):
    """A body to be read to its end, within a limit in bytes."""

    def __init__(self, source: Source, limit: int) -> None:
        self.pieces: list[bytes] = []
        self.too_large = False
        self.cut: BodyCutShort | None = None
        self._source = source
        self._limit = limit
        self._size = 0
        self._wake: Callable[[], object] | None = None

    def start(self, wake: Callable[[], object]) -> bool:
        self._wake = wake
        self._source.on_ready = self._ready
        if self._read():
            self.cancel()
            return True
        return False

    def _read(self) -> bool:
        if self._source.length is not None and self._source.length > self._limit:
            self.too_large = True
            return True
        while True:
            try:
                data = self._source.pull(PULL)
            except BodyCutShort as error:
                self.cut = BodyCutShort(error.reason, error.status)  # without the frames, which refer to this
                return True
            except Exception:  # whatever a body raises costs its own exchange alone
                log.exception("exception in %r", self._source)
                self.cut = BodyCutShort("the server failed", 500)
                return True
            if data is None:
                return False
            if not len(data):
                return True
            self.pieces.append(bytes(data))
            self._size += len(data)
            if self._size > self._limit:
                self.too_large = True
                return True

    def _ready(self) -> None:
        wake = self._wake
        if wake is not None and self._read():
            self.cancel()
            wake()

    def cancel(self) -> None:
        self._wake = self._source.on_ready = None


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
            await self._read(limit)
            assert isinstance(self._body, bytes)
            codings = (self.fields.get("content-encoding") or "").lower().split(",")
            self._decoded = self._decode(self._body, [name for coding in codings if (name := coding.strip(" \t"))], limit)
        if len(self._decoded) > limit:
            raise BodyError(f"the body is larger than {limit} bytes", self._too_large)
        return self._decoded

    async def text(self, limit: int = BODY_LIMIT) -> str:
        """The body as text: in its own charset, or else UTF-8, whose faults survive being put back. Raises BodyError."""
        data = await self.body(limit)
        charset = self._charset()
        if charset is None or charset == "utf-8":
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
        elif isinstance(content, str) and self._charset() not in (None, "utf-8"):
            fields.set(b"Content-Type", _CHARSET.sub("; charset=utf-8", given.decode("latin-1")))
        if isinstance(self._body, Source):
            self._drop(self._body)
        self._body = self._decoded = data

    _said: tuple[bytes, ...] = _OF_THE_BODY

    def _drop(self, body: Source) -> None:
        """A body that was not read has been replaced."""

    def _charset(self) -> str | None:
        match = _CHARSET.search(self.fields.get("content-type") or "")
        return match[1].strip('"').lower() if match is not None else None

    async def _read(self, limit: int) -> None:
        source = self._body
        if isinstance(source, bytes):
            if len(source) > limit:
                raise BodyError(f"the body is larger than {limit} bytes", self._too_large)
            return
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

    def _status_of(self, cut: BodyCutShort) -> int:
        return self._failure

    def _decode(self, data: bytes, codings: list[str], limit: int) -> bytes:
        """RFC 9110 section 8.4: the codings in the order they were applied."""
        if len(codings) > CODINGS_LIMIT:
            raise BodyError("too many content codings", self._failure)
        for coding in reversed(codings):
            if coding != "identity" and data:
                data = self._decoded_once(data, coding, limit)
        return data

    def _decoded_once(self, data: bytes, coding: str, limit: int) -> bytes:
        if coding not in _WBITS:
            raise BodyError(f"the body's content coding is not known here: {coding}", self._failure)
        wbits = _WBITS[coding]
        if coding == "deflate" and data[:1] != b"\x78":
            wbits = -15  # RFC 9110 section 8.4.1.2: some send it without the zlib wrapper
        pieces: list[bytes] = []
        size = 0
        try:
            for _ in range(MEMBERS_LIMIT):  # of gzip (RFC 1952 section 2.2); deflate has but one
                decoder = zlib.decompressobj(wbits)
                pieces.append(decoder.decompress(data, limit + 1 - size))
                size += len(pieces[-1])
                if size > limit:
                    raise BodyError(f"the body decodes to more than {limit} bytes", self._too_large)
                if not decoder.eof:
                    raise BodyError(f"the body's {coding} coding breaks off", self._failure)
                data = decoder.unused_data
                if not data:
                    return b"".join(pieces)
        except zlib.error as error:
            raise BodyError(f"the body is no {coding}: {error}", self._failure) from None
        raise BodyError(f"the body has more than {MEMBERS_LIMIT} {coding} members", self._failure)


class ScriptRequest(Message):
    """The request. Its URL's parts are text as on the wire, percent-encoded where they have to be."""

    _failure = 400
    _too_large = 413

    def __init__(self, exchange: Exchange) -> None:
        super().__init__(exchange.body)
        self._exchange = exchange
        self._given: Request = exchange.request
        self._own: Request | None = None  # a copy, once something was changed

    @property
    def _now(self) -> Request:
        """As it is at present."""
        return self._own or self._given

    def _change(self) -> Request:
        own = self._own
        if own is None:
            given = self._given
            own = self._own = Request(
                given.method, given.target, given.version, given.fields.copy(), given.scheme, given.authority, given.path,
                given.length, given.keep_alive, given.expects_100, given.upgrade,
            )  # fmt: skip
        return own

    def _fields(self) -> Fields:
        return self._now.fields

    def _own_fields(self) -> Fields:
        return self._change().fields

    def _status_of(self, cut: BodyCutShort) -> int:
        return cut.status

    @property
    def method(self) -> str:
        """The method. A CONNECT cannot become anything else, nor anything else a CONNECT."""
        return self._now.method.decode("ascii")

    @method.setter
    def method(self, method: str) -> None:
        value = method.encode("ascii")
        if TOKEN.fullmatch(value) is None or (value == b"CONNECT") != (self._given.method == b"CONNECT"):
            raise ValueError(f"{method!r} cannot be the method of this request")
        self._change().method = value

    @property
    def url(self) -> str:
        """Scheme, host, port, path and query; of a CONNECT, host and port."""
        request = self._now
        if request.method == b"CONNECT":
            return request.authority.decode("ascii")
        path = b"" if request.path == b"*" else request.path
        return f"{self.scheme}://{request.authority.decode('ascii')}{path.decode('ascii')}"

    @url.setter
    def url(self, url: str) -> None:
        try:
            scheme, authority, path = split_absolute(quote(url.partition("#")[0], safe=_URL_OCTETS + "?[]").encode("ascii"))
        except ProtocolError:
            raise ValueError(f"{url!r} is no absolute URL") from None
        if b"%" in authority:
            raise ValueError(f"{url!r}: a host is written in ASCII, as DNS knows it")
        self._readdress(scheme, authority, path)

    @property
    def scheme(self) -> str:
        """`http`, unless the URL said otherwise."""
        return (self._now.scheme or self._exchange.scheme).decode("ascii")

    @scheme.setter
    def scheme(self, scheme: str) -> None:
        if re.fullmatch(r"[A-Za-z][A-Za-z0-9+.\-]*", scheme) is None:
            raise ValueError(f"{scheme!r} is no scheme")
        self._readdress(scheme.lower().encode("ascii"), self._now.authority, self._now.path)

    @property
    def host(self) -> str:
        """The host in lower case, without a port, and without the brackets around an IPv6 address."""
        return split_authority(self._now.authority)[0].strip(b"[]").decode("ascii")

    @host.setter
    def host(self, host: str) -> None:
        self._readdress(None, self._authority(host, split_authority(self._now.authority)[1]), self._now.path)

    @property
    def port(self) -> int | None:
        """The port, the scheme's own where none is written."""
        return split_authority(self._now.authority)[1] or DEFAULT_PORTS.get(self.scheme.encode("ascii"))

    @port.setter
    def port(self, port: int) -> None:
        self._readdress(None, self._authority(self.host, port), self._now.path)

    @property
    def path(self) -> str:
        """The path, without the query; `*` of an OPTIONS for the server as such, empty of a CONNECT."""
        return self._now.path.partition(b"?")[0].decode("ascii")

    @path.setter
    def path(self, path: str) -> None:
        _, mark, query = self._now.path.partition(b"?")
        if not path.startswith("/"):
            raise ValueError(f"{path!r} is no path: it begins with /")
        self._readdress(None, self._now.authority, quote(path, safe=_URL_OCTETS).encode("ascii") + mark + query)

    @property
    def query(self) -> str:
        """What is behind the `?`, empty where there is none."""
        return self._now.path.partition(b"?")[2].decode("ascii")

    @query.setter
    def query(self, query: str) -> None:
        path, mark = self._now.path.partition(b"?")[0], b"?" if query else b""
        self._readdress(None, self._now.authority, path + mark + quote(query, safe=_URL_OCTETS + "?").encode("ascii"))

    @staticmethod
    def _authority(host: str, port: int | None) -> bytes:
        if port is not None and not 0 < port < 65536:
            raise ValueError(f"{port!r} is no port")
        name = f"[{host}]" if ":" in host else host
        return (name if port is None else f"{name}:{port}").encode("ascii")

    def _readdress(self, scheme: bytes | None, authority: bytes, path: bytes) -> None:
        connect = self._given.method == b"CONNECT"
        host, port = _split(authority)
        if not host or (connect and port is None) or path.translate(None, TARGET_OCTETS) or (connect and path):
            raise ValueError(f"{(authority + path).decode('latin-1')!r} cannot be asked for by this request")
        own = self._change()
        if scheme is not None and (own.scheme is not None or scheme != self._exchange.scheme):
            own.scheme = scheme
        own.path = path
        if authority != own.authority:
            own.authority = authority
            own.fields.set(b"Host", authority)
        own.target = authority if connect else path if own.scheme is None else b"%b://%b%b" % (own.scheme, authority, path)

    # For the handler that runs the script.

    def _changed(self) -> bool:
        return self._own is not None or self._body is not self._exchange.body

    def _outcome(self) -> tuple[Request, Body]:
        """The request to be passed on, and its body."""
        if self._body is not self._exchange.body:
            own = self._change()
            own.expects_100 = False  # it is here, or at least what it begins with
            if isinstance(self._body, bytes):
                own.length = len(self._body)
                own.fields.remove(b"transfer-encoding", b"content-length")
                if self._body:
                    own.fields.add(b"Content-Length", b"%d" % len(self._body))
        return self._now, self._body


class ScriptResponse(Message):
    """The response, whether it came from an origin, from the cache, or from this process itself."""

    _said = _OF_THE_ANSWER

    def __init__(self, method: bytes, head: Head, body: Body) -> None:
        super().__init__(body)
        self._method = method
        self._head = head

    def _fields(self) -> Fields:
        return self._head.fields

    def _own_fields(self) -> Fields:
        self._head = self._head.edited()
        return self._head.fields

    @property
    def is_json(self) -> bool:
        """Whether there is a body that is JSON, as Content-Type says; a HEAD, a 204 and a 304 have none."""
        return self._method != b"HEAD" and self.status not in _WITHOUT_BODY and super().is_json

    @property
    def status(self) -> int:
        """The status code, 200 to 599."""
        return self._head.status

    @status.setter
    def status(self, status: int) -> None:
        _check_status(status)
        self._head = self._head.edited()
        self._head.status = status
        self._head.reason = None

    def replace(self, content: Content) -> None:
        """See Message. A part (206) becomes a whole of its own (200)."""
        if self.status == 206:
            self.status = 200
        super().replace(content)

    def _drop(self, body: Source) -> None:
        body.close()

    def _outcome(self) -> tuple[Head, Body]:
        return self._head, self._body

    def _close(self) -> None:
        """It is not wanted."""
        if isinstance(self._body, Source):
            self._body.close()
            self._body = b""


class Traffic:
    """One exchange, as the hooks of a script see it: the same one in `request` and in `response`.

    `client` is the address that asks, `user` who it says it is, once that was checked; `notes` are the script's own.
    """

    __slots__ = ("request", "_response", "_notes", "_exchange", "_answer", "_delays")

    def __init__(self, exchange: Exchange) -> None:
        self.request = ScriptRequest(exchange)
        self._exchange = exchange
        self._response: ScriptResponse | None = None
        self._notes: dict[str, Any] | None = None
        self._answer: tuple[Head, bytes, str, str | None] | None = None  # head, body, verdict, reason
        self._delays: list[Delay] = []

    @property
    def response(self) -> ScriptResponse:
        """The response; there is none yet in `request` (RuntimeError)."""
        if self._response is None:
            raise RuntimeError("there is no response yet")
        return self._response

    @property
    def client(self) -> str:
        return self._exchange.peer

    @property
    def user(self) -> str | None:
        return self._exchange.user

    @property
    def notes(self) -> dict[str, Any]:
        """Whatever one hook wants to tell the next."""
        if self._notes is None:
            self._notes = {}
        return self._notes

    def answer(
        self, status: int = 200, body: Content = b"", fields: Mapping[str, str] | Iterable[tuple[str, str]] = ()
    ) -> None:
        """Answer so, once the hook is over: nothing is asked of anybody else. In `response`, in place of the response.

        `body` may be bytes, a str or what json.dumps takes, and Content-Type says so unless `fields` does. The last call
        counts. The `response` hook does not see such an answer.
        """
        _check_status(status)
        data, media = encoded(body)
        head = Head(status, fields.items() if isinstance(fields, Mapping) else fields, shared=False)
        if status not in _WITHOUT_BODY:
            head.fields.setdefault("Content-Type", media)
        self._answer = head, data, "script", None

    def refuse(self, reason: str, status: int = 403) -> None:
        """Answer with a short page that says why."""
        _check_status(status)
        head, page = error_page(status, reason)
        head.fields.add(b"X-Content-Type-Options", b"nosniff")  # nothing of it may be markup
        head.fields.add(b"Cache-Control", b"no-store")
        self._answer = head, page, "denied", reason

    def delay(self, seconds: float) -> Delay:
        """Hold this exchange up, and no other: where it is awaited, or else once the hook is over."""
        if not 0 <= seconds <= DELAY_LIMIT:
            raise ValueError(f"a delay is 0 to {DELAY_LIMIT:g} s, not {seconds!r}")
        delay = Delay(self, seconds)
        self._delays.append(delay)
        return delay

    def _spoke(self) -> bool:
        """Whether the request hook has asked for anything at all."""
        return self._answer is not None or bool(self._delays) or self.request._changed()

    def __repr__(self) -> str:
        return f"<Traffic {self.request.method} {self.request.url}>"


def encoded(content: Content) -> tuple[bytes, str]:
    """The bytes of a body, and the media type that they are of."""
    if isinstance(content, bytes):
        return content, "application/octet-stream"
    if isinstance(content, str):
        return content.encode("utf-8", "surrogateescape"), "text/plain; charset=utf-8"
    return json.dumps(content, ensure_ascii=False).encode("utf-8", "backslashreplace"), "application/json"


def _check_status(status: int) -> None:
    if not 200 <= status <= 599:
        raise ValueError(f"{status!r} is no final status: 200 to 599")


def _split(authority: bytes) -> tuple[bytes, int | None]:
    try:
        return split_authority(authority)
    except ProtocolError:
        return b"", None
