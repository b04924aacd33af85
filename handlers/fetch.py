"""Fetching for scripts: a call that returns when the answer is there, on a loop of its own.

    response = fetch("http://example.com/things?id=1")
    response.raise_for_status()
    print(response.status, response.json())

    with Session() as session:                          # several, over kept connections
        for url in urls:
            with session.fetch(url, stream=True) as response:
                for piece in response.iter_bytes():
                    …

What fails raises FetchFailed (reactor/errors.py). For requests on a loop that runs already, see handlers/client.py.
"""

from __future__ import annotations

import base64
import json as json_module
import re
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO
from urllib.parse import unquote

from handlers.bodies import as_body
from handlers.client import REDIRECTS, Client, Hop, Transfer, Watcher
from handlers.upstreams import Upstream
from reactor.client import ClientLimits, Pool
from reactor.connector import Connector
from reactor.errors import BodyCutShort, ContentError, FetchFailed, StatusError, TimedOut
from reactor.exchange import PULL, Source
from reactor.http.fields import Fields, Text
from reactor.http.parameters import split_parameters
from reactor.http.parser import Response as Head
from reactor.http.uri import Origin
from reactor.loop import Reactor
from reactor.resolver import Resolver

MAX_BODY = 256 * 1024 * 1024  # bytes of a body that is held whole, after decoding; a longer one fails: stream it


class Response:
    """An answer: `status`, `reason`, `fields`, the `url` it came from after redirects, and the `history` of those.

    The body is `body`, `text()` or `json()`; with `stream` it is pulled by `iter_bytes()` or `read(size)` instead, and then
    not kept; `close()`, or leaving the `with` block, ends what is not wanted any more.
    """

    def __init__(self, session: Session, transfer: Transfer, head: Head) -> None:
        self.status = head.status
        self.reason = head.reason.decode("latin-1")
        self.fields: Fields = head.fields
        self.url = transfer.url
        self.history: list[Hop] = transfer.history
        self.trailers: Fields | None = None  # there after the body's end
        self._session = session
        self._transfer = transfer
        self._content: bytes | None = None
        self._read = 0  # bytes of it that were read
        if isinstance(transfer.body, bytes):
            self._content = transfer.body
            self._ended()

    @property
    def ok(self) -> bool:
        return self.status < 400

    @property
    def elapsed(self) -> float:
        """Seconds from the start to the body's end, or until now."""
        return self._transfer.elapsed

    @property
    def body(self) -> bytes:
        """All of it; raises FetchFailed where it is cut short, broken, or longer than MAX_BODY."""
        if self._content is None:
            pieces, size = [], 0
            for piece in self.iter_bytes():
                pieces.append(piece)
                size += len(piece)
                if size > MAX_BODY:
                    self.close()
                    raise self._failure(f"the body is longer than {MAX_BODY} bytes: it is to be streamed", "body")
            self._content = b"".join(pieces)
        return self._content

    def text(self) -> str:
        """The body by its charset, UTF-8 where none is said; what does not fit becomes U+FFFD."""
        _, parameters = split_parameters(self.fields.get(b"content-type") or b"")
        charset = parameters.get(b"charset", b"utf-8").decode("latin-1")
        try:
            return self.body.decode(charset, "replace")
        except LookupError:
            return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body as JSON; raises ValueError."""
        return json_module.loads(self.body)

    def read(self, size: int = PULL) -> bytes:
        """At most `size` bytes of a streamed body, none at its end; waits for the first of them. Raises FetchFailed."""
        if self._content is not None:
            piece = self._content[self._read : self._read + size]
            self._read += len(piece)
            return piece
        source = self._transfer.body
        assert isinstance(source, Source)
        try:
            while (data := source.pull(size)) is None:
                self._session.reactor.turn()
        except BodyCutShort as error:
            self._ended()
            kind = TimedOut if error.status == 504 else FetchFailed
            phase = "content" if isinstance(error, ContentError) else "body"
            raise kind(error.reason, phase, self.url, self._transfer.address, self.elapsed) from None
        if not len(data):
            self.trailers = source.trailers
            self._content = b""
            self._ended()
        return bytes(data)

    def iter_bytes(self, size: int = PULL) -> Iterator[bytes]:
        """The body in pieces of at most `size` bytes, as they come."""
        while piece := self.read(size):
            yield piece

    def raise_for_status(self) -> Response:
        """Itself; raises StatusError for a status of 400 and above."""
        if self.status >= 400:
            self.close()
            raise StatusError(self.status, self.reason, self.url, self._transfer.address, self.elapsed)
        return self

    def close(self) -> None:
        """Give up what is not read yet."""
        if isinstance(self._transfer.body, Source):
            self._transfer.body.close()
        self._ended()

    def _ended(self) -> None:
        if self._session._for_one:
            self._session.close()

    def _failure(self, reason: str, phase: str) -> FetchFailed:
        return FetchFailed(reason, phase, self.url, self._transfer.address, self.elapsed)

    def __enter__(self) -> Response:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Response {self.status} {self.url}>"


class Session:
    """Fetches over kept connections, on a loop of its own that turns only while something is waited for.

    `proxy` is a URL `http://host:port`, with `name:password@` where it asks for one. `limits` has the deadlines of each phase
    (reactor/client.py). `ca_file` names the only authorities whose certificates prove an https:// origin, PEM, instead of the
    system's; `insecure` asks for no proof. Raises ConfigError.
    """

    def __init__(
        self,
        proxy: str | None = None,
        limits: ClientLimits = ClientLimits(),
        ca_file: str | None = None,
        insecure: bool = False,
    ) -> None:
        origin, told = proxy_of(proxy) if proxy is not None else (None, b"")
        tls = None
        if ca_file is not None or insecure:
            from reactor.tls import ClientTls  # here, because most runs do without, and it costs time and memory

            tls = ClientTls(ca_file, insecure)
        self.reactor = Reactor()
        self._resolver = Resolver(self.reactor)
        self._pool = Pool(self.reactor, Connector(self.reactor, self._resolver), limits, tls)
        self._client = Client(self._pool, origin, told)
        self._closed = False
        self._for_one = False  # closed with the end of its one answer

    def fetch(
        self,
        url: str,
        method: str | None = None,
        *,
        fields: Iterable[tuple[Text, Text | None]] = (),
        body: Any = b"",
        json: Any = None,
        user: tuple[str, str] | None = None,
        stream: bool = False,
        into: BinaryIO | None = None,
        redirects: int | None = REDIRECTS,
        retries: int = 0,
        timeout: float | None = None,
        decode: bool = True,
        watcher: Watcher | None = None,
    ) -> Response:
        """The answer to one request; raises FetchFailed where there is none, whatever its status.

        The method is GET, with a body POST. `fields` are (name, value) pairs, a value of None takes a default away. `body` is
        bytes, text, an open file, an iterable of bytes or a Source; `json` is sent as JSON; `user` is a name and a password
        (RFC 7617), which may stand in the URL too. `stream` returns with the head, `into` writes the body to a file. The others:
        Client.request.
        """
        pairs = list(fields)
        url, told = without_user(url)
        user = user or told
        if json is not None:
            body = json_module.dumps(json).encode()
            pairs = [("Content-Type", "application/json"), *pairs]
        if user is not None:
            pairs.append(("Authorization", basic(*user)))
        content = as_body(body)
        method = method or ("GET" if content == b"" and json is None else "POST")
        self.reactor.turn(0.0)  # the clock stood still since the last fetch, and kept connections may have been closed
        ended: list[FetchFailed | None] = []
        transfer = self._client.request(
            method, url, lambda _: ended.append(None), lambda _, error: ended.append(error),
            pairs, content, redirects, retries, timeout, decode, None, watcher,
        )  # fmt: skip
        try:
            while not ended:
                self.reactor.turn()
        except BaseException:  # KeyboardInterrupt above all: what nobody waits for must not run on
            transfer.abort()
            raise
        if ended[0] is not None:
            raise ended[0]
        assert transfer.response is not None
        response = Response(self, transfer, transfer.response)
        if into is not None:
            for piece in response.iter_bytes():
                into.write(piece)
        elif not stream:
            response.body  # noqa: B018
        return response

    def close(self) -> None:
        """Close every connection; idempotent."""
        if not self._closed:
            self._closed = True
            self._pool.abort()
            self._resolver.close()
            self.reactor.turn(0.0)
            self.reactor.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def fetch(
    url: str,
    method: str | None = None,
    *,
    proxy: str | None = None,
    limits: ClientLimits = ClientLimits(),
    ca_file: str | None = None,
    insecure: bool = False,
    **options: Any,
) -> Response:
    """One request on a loop of its own; the options are those of Session.fetch. Raises FetchFailed and ConfigError."""
    session = Session(proxy, limits, ca_file, insecure)
    session._for_one = True
    try:
        return session.fetch(url, method, **options)
    except BaseException:  # KeyboardInterrupt too: nobody else knows of the session
        session.close()
        raise


def basic(name: str, password: str) -> str:
    """The value of Authorization or Proxy-Authorization by RFC 7617, in UTF-8."""
    return "Basic " + base64.b64encode(f"{name}:{password}".encode("utf-8", "surrogateescape")).decode("ascii")


def proxy_of(url: str) -> tuple[Origin, bytes]:
    """A proxy's origin, and the field line that the name and password in its URL make; raises ConfigError."""
    url, user = without_user(url)
    return Upstream.parse(url).origin, b"Proxy-Authorization: %b\r\n" % basic(*user).encode("ascii") if user else b""


def without_user(url: str) -> tuple[str, tuple[str, str] | None]:
    """The URL without its userinfo (RFC 3986 section 3.2.1), and the name and the password that stood there."""
    scheme, mark, rest = url.partition("://")
    userinfo, at, _ = re.split("[/?#]", rest, maxsplit=1)[0].rpartition("@")
    if not at:
        return url, None
    name, _, password = userinfo.partition(":")
    return scheme + mark + rest[len(userinfo) + 1 :], (unquote(name), unquote(password))
