"""What comes out of a parser: heads, pieces of bodies, ends of messages."""

from __future__ import annotations

from typing import Final

from reactor.http.fields import Fields


class Request:
    """A request's head.

    `version` is 10 or 11; `target` is as sent. `scheme` is None in origin form (the connection knows it), `authority`
    is the target's or else the Host field's, `path` is path and query (`*` for OPTIONS, empty for CONNECT).
    `length` is what `framing.body_length` says; `upgrade` the protocols offered, or None.
    """

    __slots__ = (
        "method", "target", "version", "fields", "scheme", "authority", "path",
        "length", "keep_alive", "expects_100", "upgrade",
    )  # fmt: skip

    def __init__(
        self, method: bytes, target: bytes, version: int, fields: Fields,
        scheme: bytes | None, authority: bytes, path: bytes,
        length: int = 0, keep_alive: bool = True, expects_100: bool = False, upgrade: bytes | None = None,
    ) -> None:  # fmt: skip
        self.method = method
        self.target = target
        self.version = version
        self.fields = fields
        self.scheme = scheme
        self.authority = authority
        self.path = path
        self.length = length
        self.keep_alive = keep_alive
        self.expects_100 = expects_100
        self.upgrade = upgrade

    def __repr__(self) -> str:
        return f"<Request {self.method.decode('latin-1')} {self.target.decode('latin-1')}>"


class Response:
    """A response's head; `length` and `keep_alive` as in Request. Only the close ends one of length UNTIL_CLOSE."""

    __slots__ = ("status", "reason", "version", "fields", "length", "keep_alive")

    def __init__(self, status: int, reason: bytes, version: int, fields: Fields, length: int, keep_alive: bool) -> None:
        self.status = status
        self.reason = reason
        self.version = version
        self.fields = fields
        self.length = length
        self.keep_alive = keep_alive

    def __repr__(self) -> str:
        return f"<Response {self.status}>"


class Data:
    """A piece of a body, never empty."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __repr__(self) -> str:
        return f"<Data {len(self.data)} bytes>"


class EndOfMessage:
    """The message is whole. `trailers` are kept apart from the head's fields (RFC 9112 section 7.1.2)."""

    __slots__ = ("trailers",)

    def __init__(self, trailers: Fields | None = None) -> None:
        self.trailers = trailers

    def __repr__(self) -> str:
        return "<EndOfMessage>"


class _NeedData:
    __slots__ = ()

    def __repr__(self) -> str:
        return "NEED_DATA"


NEED_DATA: Final = _NeedData()
END: Final = EndOfMessage()  # of every message without trailers

Event = Request | Response | Data | EndOfMessage | _NeedData
