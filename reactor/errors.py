"""The errors that cross a room's wall: one small tree, each carrying what the next room needs to answer."""

from __future__ import annotations

RAISED = (Exception, SystemExit)  # what a user's program may raise, `exit()` included, without ending the process


class ReactorError(Exception):
    """The root of the tree: everything below it is expected and answered, never a traceback."""


class ProtocolError(ReactorError):
    """The peer sent what the grammar or a limit forbids; `status` is what a server tells that peer."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


class UpstreamError(ReactorError):
    """A fetch failed: `phase` is where (resolve, connect, proxy, TLS handshake, certificate, send, head, internal), `address`
    is whom we talked to.

    `status` is what a gateway answers: 504 where the upstream was silent, 502 otherwise (RFC 9110 sections
    15.6.3 and 15.6.5), 503 where this process itself is at a limit, 403 where no address may be connected to.
    """

    def __init__(self, reason: str, phase: str, address: str, status: int = 502) -> None:
        super().__init__(f"{address}: {reason}")
        self.reason = reason
        self.phase = phase
        self.address = address
        self.status = status


class BodyCutShort(ReactorError):
    """A body ended before its framing said so, or its framing is broken; raised by `Source.pull`.

    `status` is what the sender of a request is told, where it still can be told.
    """

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


class ContentError(BodyCutShort):
    """A body's content coding is broken, unknown here, or expands beyond its limit."""


class FetchFailed(ReactorError):
    """A URL that was asked for did not come.

    `phase` is what failed: url, scheme and request (never sent), resolve, connect, proxy, TLS handshake, certificate, send,
    head, redirect, rewind, body, content or status. `address` is whom we talked to, if anybody; `seconds` is the time from
    the start of the fetch.
    """

    def __init__(self, reason: str, phase: str, url: str, address: str = "", seconds: float = 0.0) -> None:
        where = f"{url}: {address}" if address and address not in url else url
        super().__init__(f"{where}: {reason}" + (f" (after {seconds:.1f} s)" if seconds >= 0.05 else ""))
        self.reason = reason
        self.phase = phase
        self.url = url
        self.address = address
        self.seconds = seconds


class TimedOut(FetchFailed):
    """A deadline passed; `phase` is what was waited for."""


class StatusError(FetchFailed):
    """The server answered, with a status that was not wanted (phase "status")."""

    def __init__(self, status: int, reason: str, url: str, address: str = "", seconds: float = 0.0) -> None:
        super().__init__(f"the server answered {status} {reason}".rstrip(), "status", url, address, seconds)
        self.status = status


class ConfigError(ReactorError):
    """One line for the person at the command line; `code` is the client's exit status, where curl has one of its own."""

    def __init__(self, reason: str, code: int = 2) -> None:
        super().__init__(reason)
        self.code = code
