"""The errors that cross a room's wall: one small tree, each carrying what the next room needs to answer."""

from __future__ import annotations


class ReactorError(Exception):
    """The root of the tree: everything below it is expected and answered, never a traceback."""


class ProtocolError(ReactorError):
    """The peer sent what the grammar or a limit forbids; `status` is what a server tells that peer."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


class UpstreamError(ReactorError):
    """A fetch failed: `phase` is where (resolve, connect, proxy, TLS handshake, send, head), `address` is whom we talked to.

    `status` is what a gateway answers: 504 where the upstream was silent, 502 otherwise (RFC 9110 sections
    15.6.3 and 15.6.5), 503 where this process itself is at a limit, 403 where no address may be connected to.
    """

    def __init__(self, reason: str, phase: str, address: str, status: int = 502) -> None:
        super().__init__(f"{address}: {reason}")
        self.reason = reason
        self.phase = phase
        self.address = address
        self.status = status


class CertificateRefused(UpstreamError):
    """The peer could not prove to be whom we asked for."""


class BodyCutShort(ReactorError):
    """A body ended before its framing said so, or its framing is broken; raised by `Source.pull`.

    `status` is what the sender of a request is told, where it still can be told.
    """

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


class ConfigError(ReactorError):
    """One line for the person at the command line; `code` is the client's exit status, where curl has one of its own."""

    def __init__(self, reason: str, code: int = 2) -> None:
        super().__init__(reason)
        self.code = code
