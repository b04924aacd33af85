"""The client role: URLs are fetched one after the other over kept connections, as curl would."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO
from urllib.parse import urljoin

from reactor.client import Call, Pool
from reactor.errors import BodyCutShort, CertificateRefused, ProtocolError, ReactorError, UpstreamError
from reactor.exchange import PULL, Body, Source
from reactor.http.fields import Fields
from reactor.http.parser import Response
from reactor.http.uri import DEFAULT_PORTS, Origin, origin_of, split_absolute
from reactor.http.writer import request_line, status_line
from reactor.loop import Reactor

USER_AGENT = b"reactor"
MAX_REDIRECTS = 50  # followed for one URL, as curl does; exit 47 beyond

# Exit codes, as curl's.
OK = 0
UNSUPPORTED_SCHEME = 1
BAD_URL = 3
NOT_RESOLVED = 6
NOT_CONNECTED = 7
PARTIAL = 18
HTTP_ERROR = 22
WRITE_ERROR = 23
TIMED_OUT = 28
NO_HANDSHAKE = 35
TOO_MANY_REDIRECTS = 47
NO_ANSWER = 52
BROKEN = 56
CERTIFICATE_REFUSED = 60

_CREDENTIALS = (b"authorization", b"cookie")


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """What the command line asked for; `fields` are (name, value) pairs, a value of None takes the default away."""

    urls: Sequence[str]
    method: str | None = None
    fields: Sequence[tuple[str, str | None]] = ()
    data: bytes | None = None
    output: str | None = None
    include: bool = False
    head: bool = False
    verbose: bool = False
    proxy: Origin | None = None
    location: bool = False
    fail: bool = False


class FetchFailed(ReactorError):
    """One URL could not be fetched; `code` is the exit status."""

    def __init__(self, reason: str, code: int) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(slots=True)
class _Target:
    """What is asked for next; a redirect makes another."""

    url: str
    method: bytes
    fields: Fields
    body: bytes


class Fetch:
    """Fetches every URL in order; `on_done(exit_code)` is called from the loop, with the first failure's code."""

    def __init__(
        self,
        reactor: Reactor,
        pool: Pool,
        options: FetchOptions,
        on_done: Callable[[int], object],
        out: BinaryIO | None = None,
        err: BinaryIO | None = None,
    ) -> None:
        self.reactor = reactor
        self.pool = pool
        self.options = options
        self.on_done = on_done
        self.code = OK
        self._out = out if out is not None else sys.stdout.buffer
        self._err = err if err is not None else sys.stderr.buffer
        self._urls = iter(options.urls)
        self._file: BinaryIO | None = None  # where -o sends the bodies
        self._target: _Target | None = None
        self._call: Call | None = None
        self._body: Source | None = None
        self._redirects = 0
        self._stopped = False

    def start(self) -> None:
        self.reactor.call_soon(self._next_url)

    def stop(self) -> None:
        """Give up what is running; `on_done` is not called any more."""
        self._stopped = True
        if self._call is not None:
            self._call.abort()
        if self._body is not None:
            self._body.close()
        if self._file is not None:
            self._file.close()

    def failed(self, error: Exception) -> None:
        """A callback raised (logged by the loop)."""
        self._done_with_url(FetchFailed(str(error), BROKEN))

    # Requests.

    def _next_url(self) -> None:
        if self._stopped:
            return
        url = next(self._urls, None)
        if url is None:
            if self._file is not None:
                self._file.close()
            self.on_done(self.code)
            return
        self._redirects = 0
        try:
            self._send(self._first_target(url))
        except FetchFailed as error:
            self._done_with_url(error)

    def _first_target(self, url: str) -> _Target:
        options = self.options
        method = b"HEAD" if options.head else b"GET" if options.data is None else b"POST"
        if options.method is not None:
            method = options.method.encode("ascii", "replace")
        fields = Fields([(b"User-Agent", USER_AGENT), (b"Accept", b"*/*")])
        if options.data is not None:
            fields.add(b"Content-Type", b"application/x-www-form-urlencoded")
        fields.remove(*[name.lower().encode("latin-1") for name, _ in options.fields])
        for name, value in options.fields:
            if value is not None:
                fields.add(name, value)
        return _Target(url if "://" in url else "http://" + url, method, fields, options.data or b"")

    def _send(self, target: _Target) -> None:
        """Raises FetchFailed where the URL cannot be asked for."""
        self._target = target
        origin, path = _split(target.url)
        fields = target.fields
        host = fields.get(b"host") or origin.authority
        proxy, via = self.options.proxy, None
        if proxy is not None and origin.scheme == b"https":
            proxy, via = None, proxy  # for the origin's eyes alone: through a tunnel
        elif proxy is not None:
            path = bytes(origin) + path
        rest = fields.copy()
        rest.remove(b"host", b"content-length", b"transfer-encoding")  # the connection frames the body it has
        try:
            line = request_line(target.method, path)
        except ProtocolError as error:
            raise FetchFailed(f"{target.url}: {error}", BAD_URL) from None
        head = line + b"Host: %b\r\n" % host + rest.wire()
        self._call = self.pool.call(proxy or origin, target.method, head, target.body, self, via=via)
        if self.options.verbose:
            self._say(b"> ", head + b"\r\n")

    # What the call tells.

    def call_informed(self, call: Call, response: Response) -> None:
        if self.options.verbose:
            self._say(b"< ", _head_text(response))

    def call_failed(self, call: Call, error: UpstreamError) -> None:
        self._call = None
        self._done_with_url(FetchFailed(str(error), _exit_code(error)))

    def call_responded(self, call: Call, response: Response, body: Body) -> None:
        self._call = None
        options = self.options
        if options.verbose:
            self._say(b"< ", _head_text(response))
        if response.status == 101:
            self._done_with_url(FetchFailed("the server switched to a protocol that is not spoken here", BROKEN))
            return
        try:
            follow = self._redirect(response) if options.location else None
            if follow is not None:
                _drop(body)
                self._redirects += 1
                self._send(follow)
                return
            if options.fail and response.status >= 400:
                _drop(body)
                raise FetchFailed(f"the server answered {response.status}", HTTP_ERROR)
            if options.include or options.head:
                self._write(_head_text(response))
            self._take(body)
        except FetchFailed as error:
            _drop(body)
            self._done_with_url(error)

    def _redirect(self, response: Response) -> _Target | None:
        """RFC 9110 section 15.4: what to ask for next, or None."""
        location = response.fields.get(b"location")
        target = self._target
        if location is None or target is None or response.status not in (301, 302, 303, 307, 308):
            return None
        if self._redirects >= MAX_REDIRECTS:
            raise FetchFailed(f"more than {MAX_REDIRECTS} redirects", TOO_MANY_REDIRECTS)
        try:
            url = urljoin(target.url, location.decode("latin-1"))
        except ValueError as error:
            raise FetchFailed(f"redirected to {location!r}: {error}", BAD_URL) from None
        method, body, fields = target.method, target.body, target.fields.copy()
        changes = response.status == 303 and method != b"HEAD" or response.status in (301, 302) and method == b"POST"
        if changes:
            method, body = b"GET", b""
            fields.remove(b"content-type", b"content-length")
        if _split(url)[0] != _split(target.url)[0]:
            fields.remove(b"host", *_CREDENTIALS)
        return _Target(url, method, fields, body)

    # Bodies.

    def _take(self, body: Body) -> None:
        if isinstance(body, Source):
            self._body = body
            body.on_ready = self._pull
            self._pull()
        else:
            self._write(body)
            self._done_with_url(None)

    def _pull(self) -> None:
        body = self._body
        if body is None:
            return
        try:
            while (data := body.pull(PULL)) is not None:
                if not len(data):
                    self._done_with_url(None)
                    return
                self._write(data)
        except BodyCutShort as error:
            self._done_with_url(FetchFailed(str(error), PARTIAL))
        except FetchFailed as error:
            self._done_with_url(error)

    def _write(self, data: bytes | memoryview) -> None:
        try:
            if self.options.output is not None and self._file is None:
                self._file = open(self.options.output, "wb")
            (self._file or self._out).write(data)
            (self._file or self._out).flush()
        except OSError as error:
            raise FetchFailed(f"cannot write: {error.strerror}", WRITE_ERROR) from None

    def _done_with_url(self, error: FetchFailed | None) -> None:
        body, self._body = self._body, None
        if body is not None:
            body.close()
        if error is not None:
            self._err.write(f"reactor: {self._target.url if self._target else ''}: {error}\n".encode())
            self._err.flush()
            self.code = self.code or error.code
        self.reactor.call_soon(self._next_url)

    def _say(self, mark: bytes, head: bytes) -> None:
        lines = head.split(b"\r\n")[:-1]
        self._err.write(b"".join(mark + line + b"\n" for line in lines))
        self._err.flush()


def _split(url: str) -> tuple[Origin, bytes]:
    """The origin and the path with its query; raises FetchFailed."""
    try:
        scheme, authority, path = split_absolute(url.partition("#")[0].encode("ascii"))
        if scheme not in DEFAULT_PORTS:
            raise FetchFailed(f"{url}: only http:// and https:// are spoken", UNSUPPORTED_SCHEME)
        if any(octet <= 32 for octet in path):
            raise ProtocolError("white space in the URL")
        return origin_of(scheme, authority), path
    except (ProtocolError, UnicodeEncodeError) as error:
        raise FetchFailed(f"{url!r}: not a URL: {error}", BAD_URL) from None


def _drop(body: Body) -> None:
    if isinstance(body, Source):
        body.close()


def _head_text(response: Response) -> bytes:
    return status_line(response.status, response.reason) + response.fields.wire() + b"\r\n"


def _exit_code(error: UpstreamError) -> int:
    if error.status == 504:
        return TIMED_OUT
    if isinstance(error, CertificateRefused):
        return CERTIFICATE_REFUSED
    if error.phase == "TLS handshake":
        return NO_HANDSHAKE
    if error.phase == "resolve":
        return NOT_RESOLVED
    if error.phase == "connect":
        return NOT_CONNECTED
    return NO_ANSWER if "without an answer" in error.reason else BROKEN


def read_data(text: str) -> bytes:
    """The argument of -d: itself, or with `@` the bytes of a file (`@-`: standard input), line ends removed as curl does.

    Raises OSError.
    """
    if not text.startswith("@"):
        return os.fsencode(text)
    if text == "@-":
        data = sys.stdin.buffer.read()
    else:
        with open(text[1:], "rb") as file:
            data = file.read()
    return data.replace(b"\r", b"").replace(b"\n", b"")
