"""To an origin through a proxy: CONNECT (RFC 9110 section 9.3.6), then TLS with the origin itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reactor.errors import BodyCutShort, ProtocolError, UpstreamError
from reactor.exchange import Body, Source
from reactor.http.parser import Response
from reactor.http.uri import Origin
from reactor.loop import Timer
from reactor.timing import FetchTimes

TOLD = 200  # characters of what a proxy says for itself; the rest is left away

if TYPE_CHECKING:
    from reactor.client import Call, Pool, Via
    from reactor.tls import SecureAttempt


class Through:
    """A tunnel being made: CONNECT is asked, and what comes of it goes to `attempt`. `cancel` as the attempt's."""

    __slots__ = ("_attempt", "_call", "_timer")

    def __init__(self, pool: Pool, via: Via, origin: Origin, attempt: SecureAttempt) -> None:
        seconds = pool.limits.connect
        self._attempt = attempt
        target = b"%b:%d" % (origin.host, origin.port)
        head = b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n%b" % (target, target, via.fields)
        self._call: Call | None = pool.call(via.proxy, b"CONNECT", head, b"", self)
        self._timer: Timer | None = pool.reactor.call_later(seconds, self._timed_out, seconds)

    def tell(self, times: FetchTimes) -> None:
        self._attempt.tell(times)

    def cancel(self) -> None:
        self._leave()
        self._attempt.cancel()

    def _leave(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.abort()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _timed_out(self, seconds: float) -> None:
        call = self._call
        address = call.address if call is not None else self._attempt.address
        self._leave()
        self._attempt.finish(UpstreamError(f"no tunnel within {seconds:g} s (connect timeout)", "proxy", address, 504))

    def call_informed(self, call: Call, response: Response) -> None:
        """An interim response means nothing here."""

    def call_responded(self, call: Call, response: Response, body: Body) -> None:
        self._call = None
        self._leave()
        if 200 <= response.status < 300:  # and not 101, which nobody asked for
            self._attempt.secure(*call.take_stream())
            return
        error = f"the proxy answered CONNECT with {_refusal(response, body)}"
        if isinstance(body, Source):
            body.close()
        self._attempt.finish(UpstreamError(error, "proxy", call.address))

    def call_failed(self, call: Call, error: UpstreamError) -> None:
        self._call = None
        self._leave()
        self._attempt.finish(error)

    def failed(self, error: Exception) -> None:
        """The timer's callback raised (already logged)."""
        self.cancel()


def _refusal(response: Response, body: Body) -> str:
    """Status and reason phrase, and why: the first line of a text, as far as it is here, or else Proxy-Status."""
    said = f"{response.status} {_printable(response.reason)}".rstrip()
    why = _first_line(response, body) or _proxy_status(response)
    if why.startswith(str(response.status)):
        return why
    return f"{said}: {why}" if why else said


def _first_line(response: Response, body: Body) -> str:
    index = response.fields.index
    if not index.get(b"content-type", b"").lower().startswith(b"text/plain") or b"content-encoding" in index:
        return ""
    try:
        text = body if type(body) is bytes else body.pull(4 * TOLD)  # type: ignore[union-attr]
    except BodyCutShort:
        return ""
    return _printable(bytes(text or b"").lstrip().partition(b"\n")[0])


def _proxy_status(response: Response) -> str:
    """RFC 9209 section 2: what the last member, which is the nearest proxy's, tells of the error."""
    value = response.fields.index.get(b"proxy-status")
    if value is None:
        return ""
    from reactor.http.structured import parse_list  # here, because hardly anybody is told so

    try:
        parameters = parse_list(value)[-1].parameters
    except (ProtocolError, IndexError):
        return ""
    told = [parameters[name] for name in ("error", "details") if name in parameters]
    return _printable(", ".join(text for text in told if isinstance(text, str)).encode())


def _printable(text: bytes) -> str:
    """The beginning, without what a terminal or a log might obey."""
    decoded = text[: 4 * TOLD].decode("utf-8", "replace")
    return "".join(char if char.isprintable() else " " for char in decoded)[:TOLD].strip()
