"""What a script is given: `Traffic`, one exchange with its request and its response, to look at, change, answer or refuse.

    def request(exchange: Traffic) -> None: ...          before the cache
    async def response(exchange: Traffic) -> None: ...   after it, just before the client

A hook that must wait is an `async def`, and may await `exchange.delay(…)` and `body`, `text` and `json` of a message, and
nothing else: there is no asyncio here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from handlers.messages import OF_THE_BODY, BodyError, Content, Message, encoded
from handlers.waits import Delay
from reactor.errors import BodyCutShort, ProtocolError
from reactor.exchange import NO_STORE, NOSNIFF, Body, Exchange, Head, Source, error_page
from reactor.http.fields import Fields
from reactor.http.grammar import TARGET_OCTETS, TOKEN
from reactor.http.parser import Request
from reactor.http.uri import DEFAULT_PORTS, split_absolute, split_authority

__all__ = ["BodyError", "Traffic"]

DELAY_LIMIT = 300.0  # seconds of one delay

# What was said of a response's body, and its validators (RFC 9110 sections 8.8 and 14.3).
_OF_THE_ANSWER = (*OF_THE_BODY, b"etag", b"last-modified", b"accept-ranges")
_WITHOUT_BODY = frozenset((204, 304))
_URL_OCTETS = "/:@!$&'()*+,;=-._~%"  # of a path, as it is written; everything else gets percent-encoded


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
        try:
            host, port = split_authority(authority)
        except ProtocolError:
            host, port = b"", None
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
        self._answer = *error_page(status, reason, NOSNIFF, NO_STORE), "denied", reason

    def delay(self, seconds: float) -> Delay:
        """Hold this exchange up, and no other: where it is awaited, or else once the hook is over."""
        if not 0 <= seconds <= DELAY_LIMIT:
            raise ValueError(f"a delay is 0 to {DELAY_LIMIT:g} s, not {seconds!r}")
        return Delay(self._exchange.reactor, seconds, self._delays)

    def _spoke(self) -> bool:
        """Whether the request hook has asked for anything at all."""
        return self._answer is not None or bool(self._delays) or self.request._changed()

    def __repr__(self) -> str:
        return f"<Traffic {self.request.method} {self.request.url}>"


def _check_status(status: int) -> None:
    if not 200 <= status <= 599:
        raise ValueError(f"{status!r} is no final status: 200 to 599")
