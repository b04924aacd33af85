"""The client on a running loop: requests with redirects, repetitions, deadlines and decoded bodies, told by callbacks.

    client = Client(Pool(reactor, Connector(reactor, Resolver(reactor))))
    client.request("GET", "http://example.com/", on_response, on_error)

`on_response(transfer)` is called once there is a final head: `transfer.response` is that head, `transfer.body` bytes where
the body is whole already and else a Source, to be pulled or closed. Otherwise `on_error(transfer, error)` is called, with a
FetchFailed. Both come from the loop, and never from within `request`.

    state of a transfer   on                                     → state
    asking                a redirect that is to be followed      → asking      (the next URL)
    asking                a passing failure, with `retries` left → waiting     (see `_wait_of`)
    waiting               its time is over                       → asking
    asking                any other final head                   → answered    (on_response)
    asking, waiting       a failure, the deadline                → over        (on_error)
    answered              the body's end, or its close           → over
    answered              the deadline                           → over        (the body's pull raises BodyCutShort, 504)
    any                   abort()                                → over        (nobody is called)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from handlers.request_heads import EXPECT, Heads, Way, default_lines, sent_lines, targets, with_defaults
from handlers.transfer_body import TransferBody
from reactor.client import Call, Pool, Via
from reactor.client_connection import IDEMPOTENT
from reactor.errors import ContentError, FetchFailed, ProtocolError, TimedOut, UpstreamError
from reactor.exchange import Body, BytesSource, Source, as_source
from reactor.http import redirects
from reactor.http.codings import Decoder, decoder_for
from reactor.http.dates import parse_date
from reactor.http.fields import Fields, Text
from reactor.http.grammar import DIGITS
from reactor.http.parser import Response
from reactor.http.uri import Origin
from reactor.loop import Timer

REDIRECTS = 20  # followed for one request, unless it says otherwise; beyond, it fails
EXPECT_ABOVE = 1024 * 1024  # bytes of a request's body from which on 100 (Continue) is waited for, as curl does
RETRY_FIRST = 1.0  # seconds before the first repetition, doubled for each further one
RETRY_MOST = 600.0  # seconds; a Retry-After beyond this is not waited for, and the answer is passed on as it is
TRANSIENT = frozenset((408, 429, 500, 502, 503, 504))  # statuses that another try may better, as curl's --retry has them


class Hop(NamedTuple):
    """A response that was passed over: a redirect that was followed."""

    url: str
    response: Response


class Watcher:
    """What a transfer tells on its way; a subclass overrides what is of interest to it."""

    def asking(self, transfer: Transfer, head: bytes) -> None:
        """A request is sent: its head as far as it is ours, without framing and the empty line."""

    def informed(self, transfer: Transfer, response: Response) -> None:
        """An interim (1xx) response."""

    def passed_over(self, transfer: Transfer, response: Response) -> None:
        """A final response that is followed by another request: a redirect, or one that is tried again."""

    def timed_out(self, transfer: Transfer) -> None:
        """The deadline passed before the end of the response's body, whose next pull says so."""


class Client:
    """Makes requests; `proxy` is the origin of a proxy they go through, `proxy_fields` what it alone is told.

    An https:// URL goes through a tunnel there (CONNECT), so that the proxy learns of it the host and the port alone.
    """

    def __init__(self, pool: Pool, proxy: Origin | None = None, proxy_fields: bytes = b"") -> None:
        self.pool = pool
        self.reactor = pool.reactor
        self.heads = Heads(Via(proxy, proxy_fields) if proxy is not None else None)

    def request(
        self,
        method: str,
        url: str,
        on_response: Callable[[Transfer], object],
        on_error: Callable[[Transfer, FetchFailed], object],
        fields: Iterable[tuple[Text, Text | None]] = (),
        body: Body = b"",
        redirects: int | None = REDIRECTS,
        retries: int = 0,
        timeout: float | None = None,
        decode: bool = True,
        expect: bool | None = None,
        watcher: Watcher | None = None,
    ) -> Transfer:
        """Send a request; see the head of this file for what is told.

        `fields` replace the default ones (User-Agent, Accept, Accept-Encoding) of the same name, None takes one away; Host may
        be given, framing may not. `body` is closed with the transfer. `redirects` are followed up to that number, None follows
        none and gives the redirect itself. `retries` repeat requests of idempotent methods (RFC 9110 section 9.2.2) that met a
        passing failure. `timeout` is in seconds, for all of it, the body included. `decode` undoes content codings and asks for
        those that can be. `expect` waits for 100 (Continue) before the body; None means for large ones.
        """
        return Transfer(
            self, method, url, on_response, on_error, fields, body, redirects, retries, timeout, decode, expect, watcher
        )


class Transfer:
    """One request on its way, with its redirects and repetitions. See the head of this file."""

    __slots__ = (
        "client", "method", "url", "fields", "redirects", "retries", "decode", "watcher", "response", "body", "address",
        "history", "started", "ended", "call", "_on_response", "_on_error", "_request_body", "_expect", "_timer", "_pause",
        "_tries", "_timeout",
    )  # fmt: skip

    def __init__(
        self,
        client: Client,
        method: str,
        url: str,
        on_response: Callable[[Transfer], object],
        on_error: Callable[[Transfer, FetchFailed], object],
        fields: Iterable[tuple[Text, Text | None]],
        body: Body,
        redirects: int | None,
        retries: int,
        timeout: float | None,
        decode: bool,
        expect: bool | None,
        watcher: Watcher | None,
    ) -> None:
        self.client = client
        self.method = method.encode("ascii", "replace")
        self.url = url  # the one that was asked last
        self.fields: Fields | None = None  # None: the default ones
        self.redirects = redirects
        self.retries = retries
        self.decode = decode
        self.watcher = watcher
        self.response: Response | None = None
        self.body: Body = b""  # of the response
        self.address = ""  # `ip:port` that answered
        self.history: list[Hop] = []
        self.started = client.reactor.now
        self.ended: float | None = None
        self.call: Call | None = None
        self._on_response = on_response
        self._on_error = on_error
        self._request_body = body
        self._expect = expect
        self._timer: Timer | None = None
        self._pause: Timer | None = None
        self._tries = 0
        self._timeout = timeout
        if timeout is not None:
            self._timer = client.reactor.call_later(timeout, self._timed_out)
        try:
            if fields:
                self.fields = with_defaults(fields, decode)
            self._ask()
        except ProtocolError as error:
            client.reactor.call_soon(self._fail, self._failure(str(error), "request"))
        except FetchFailed as error:
            client.reactor.call_soon(self._fail, error)

    @property
    def elapsed(self) -> float:
        """Seconds from the start to the end, or until now."""
        return (self.client.reactor.now if self.ended is None else self.ended) - self.started

    def abort(self) -> None:
        """Nobody waits for it any more; neither callback is called after this."""
        if self.call is not None:
            self.call.abort()
            self.call = None
        if isinstance(self.body, Source):
            self.body.close()
        self.over()

    # Asking.

    def _ask(self) -> None:
        """Raises FetchFailed and ProtocolError where this cannot be asked."""
        client, body, waits = self.client, self._request_body, self._expect
        if type(body) is not bytes or len(body) > EXPECT_ABOVE:
            body, waits = self._large_body(body)
        elif waits:
            waits = False  # a body that is there and short goes along with its head
        if self.fields is None and not waits:
            to, via, head = client.heads[self.method, self.url, self.decode]
        else:
            to, via, head = self._head(self.fields, bool(waits))
        if self.watcher is not None:
            self.watcher.asking(self, head)
        self.call = client.pool.call(to, self.method, head, body, self, bool(waits), via=via)

    def _head(self, fields: Fields | None, waits: bool) -> Way:
        """As Heads.make."""
        host = None if fields is None else fields.index.get(b"host")
        lines = default_lines(self.decode) if fields is None else sent_lines(fields)
        return self.client.heads.make(self.method, self.url, host, lines + EXPECT if waits else lines)

    def _large_body(self, body: Body) -> tuple[Source, bool]:
        """A body that 100 (Continue) is waited for, unless the caller has said otherwise (RFC 9110 section 10.1.1)."""
        if isinstance(body, bytes):
            body = self._request_body = BytesSource(body)
        waits = self._expect
        if waits is None:
            waits = body.length is None or body.length > EXPECT_ABOVE
        return body, waits

    def _ask_again(self) -> None:
        """The same or another URL, some time after the first; what cannot be asked fails."""
        self._pause = None
        try:
            self._ask()
        except ProtocolError as error:
            self._fail(self._failure(str(error), "request"))
        except FetchFailed as error:
            self._fail(error)

    def _rewound(self) -> bool:
        """Whether the request's body can be sent again."""
        body = self._request_body
        return isinstance(body, bytes) or body.rewind()

    # What the call tells.

    def call_informed(self, call: Call, response: Response) -> None:
        if self.watcher is not None:
            self.watcher.informed(self, response)

    def call_failed(self, call: Call, error: UpstreamError) -> None:
        self.call = None
        self.address = call.address
        if error.phase == "internal":  # on_response may be what raised: then it is not the last that is heard
            self.over()
            self._on_error(self, self._failure(error.reason, error.phase))
            return
        if error.phase != "certificate" and self._repeats(None):
            return
        kind = TimedOut if error.status == 504 else FetchFailed
        self._fail(kind(error.reason, error.phase, self.url, error.address, self.elapsed))

    def call_responded(self, call: Call, response: Response, body: Body) -> None:
        self.call = None
        self.address = call.address
        status = response.status
        if (status >= 300 or status == 101) and self._taken_up(response, body):
            return
        if type(body) is not bytes or b"content-encoding" in response.fields.index:
            try:
                decoder = self._decoder(response, body)
            except ContentError as error:
                drop(body)
                self._fail(self._failure(error.reason, "content"))
                return
            if decoder is not None or type(body) is not bytes:
                body = TransferBody(self, as_source(body), decoder)
        self.response = response
        self.body = body
        if type(body) is bytes:
            self.over()
        self._on_response(self)

    def _decoder(self, response: Response, body: Body) -> Decoder | None:
        """What undoes the content codings. A part of a coded whole (206) cannot be undone, and is left as it is."""
        coding = response.fields.index.get(b"content-encoding")
        if coding is None or not self.decode or body == b"" or response.status == 206:
            return None
        return decoder_for(coding)

    def _taken_up(self, response: Response, body: Body) -> bool:
        """Whether this response leads to another request, or to a failure."""
        status = response.status
        if status == 101:
            drop(body)
            self._fail(self._failure("the server switched to a protocol that is not spoken here", "head"))
        elif status in redirects.STATUSES and self.redirects is not None and b"location" in response.fields:
            drop(body)
            self._redirected(response)
        elif status == 417 and self._expected(self._request_body) and self._rewound():
            drop(body)
            self._expect = False  # RFC 9110 section 10.1.1: once more without the expectation
            self._pass_over(response)
            self._ask_again()
        elif status in TRANSIENT and self._repeats(response):
            drop(body)
        else:
            return False
        return True

    def _expected(self, body: Body) -> bool:
        return isinstance(body, Source) and self._large_body(body)[1]

    def _pass_over(self, response: Response) -> None:
        if self.watcher is not None:
            self.watcher.passed_over(self, response)

    # Redirects (RFC 9110 section 15.4).

    def _redirected(self, response: Response) -> None:
        self._pass_over(response)
        try:
            step = self._step(response)
        except ProtocolError as error:
            self._fail(self._failure(str(error), "url"))
            return
        except FetchFailed as error:
            where = f"redirected to {error.url!r}: " if error.url != self.url else ""
            self._fail(self._failure(where + error.reason, error.phase))
            return
        if step.with_body and not self._rewound():
            self._fail(self._failure("redirected, and the body cannot be sent a second time", "rewind"))
            return
        if not step.with_body:
            drop(self._request_body)
            self._request_body = b""
        self.history.append(Hop(self.url, response))
        self.method, self.url = step.method, step.url
        if self.fields is not None:
            self.fields = redirects.carry_on(self.fields, step)
        self._ask_again()

    def _step(self, response: Response) -> redirects.Next:
        """Raises ProtocolError and FetchFailed where it leads nowhere."""
        assert self.redirects is not None
        if len(self.history) >= self.redirects:
            raise FetchFailed(f"more than {self.redirects} redirects", "redirect", self.url)
        where = redirects.resolve(self.url, response.fields[b"location"])
        targets[where]  # refused before anything of it is believed
        return redirects.after(response.status, self.url, self.method, where)

    # Repetitions.

    def _repeats(self, response: Response | None) -> bool:
        """Whether the request is made again after a pause: RFC 9110 section 9.2.2, for idempotent methods alone."""
        if self._tries >= self.retries or self.method not in IDEMPOTENT:
            return False
        wait = self._wait_of(response)
        if wait is None or not self._rewound():
            return False
        self._tries += 1
        if response is not None:
            self._pass_over(response)
        self._pause = self.client.reactor.call_later(wait, self._ask_again)
        return True

    def _wait_of(self, response: Response | None) -> float | None:
        """Seconds: what Retry-After says (RFC 9110 section 10.2.3), else a doubling pause; None for longer than RETRY_MOST."""
        told = response.fields.get(b"retry-after") if response is not None else None
        wait = min(RETRY_FIRST * 2**self._tries, RETRY_MOST)
        if told is not None:
            wall = self.client.reactor.wall
            date = parse_date(told, wall)
            if DIGITS.fullmatch(told) is not None:
                wait = float(told[:9])
            elif date is not None:
                wait = max(0.0, date - wall)
        return wait if wait <= RETRY_MOST else None

    # The end.

    def _failure(self, reason: str, phase: str) -> FetchFailed:
        return FetchFailed(reason, phase, self.url, self.address, self.elapsed)

    def _fail(self, error: FetchFailed) -> None:
        if self.ended is None:
            self.over()
            self._on_error(self, error)

    def _timed_out(self) -> None:
        self._timer = None
        reason = f"not done within {self._timeout:g} s"
        if isinstance(self.body, TransferBody):
            self.body.cut(reason)
            if self.watcher is not None:
                self.watcher.timed_out(self)
            return
        call, self.call = self.call, None
        phase = "head"
        if call is not None:
            connection = call.connection
            phase = "connect" if connection is not None and connection.state == "connecting" else "head"
            self.address = call.address
            call.abort()
        self._fail(TimedOut(reason, phase, self.url, self.address, self.elapsed))

    def over(self) -> None:
        """Everything that could still call is given up."""
        if self.ended is not None:
            return
        self.ended = self.client.reactor.now
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        body = self._request_body
        if type(body) is not bytes:
            drop(body)

    def failed(self, error: Exception) -> None:
        """A callback raised (logged by the loop)."""
        self._fail(self._failure("an internal error", "internal"))

    def __repr__(self) -> str:
        state = "over" if self.ended is not None else "answered" if self.response is not None else "asking"
        return f"<Transfer {self.method.decode('ascii')} {self.url} {state}>"


def drop(body: Body) -> None:
    """A body that nobody wants."""
    if isinstance(body, Source):
        body.close()
