"""Which pages of other origins may read what is answered: the CORS protocol of the Fetch standard (section 3.2)."""

from __future__ import annotations

from collections.abc import Iterable

from reactor.exchange import Exchange, Handler, Head
from reactor.http.fields import Fields

PREFLIGHT_SECONDS = 600  # how long a browser may remember what is allowed


class Cors:
    """The origins whose pages may read; `"*"` stands for all, with everything but credentials."""

    def __init__(self, origins: str | Iterable[str]) -> None:
        names = [origins] if isinstance(origins, str) else origins
        self._origins = frozenset(origin.encode("ascii") for origin in names)

    def map_head(self, exchange: Exchange, head: Head) -> Head:
        """The head as pages of these origins need it; an answer to OPTIONS also answers the browser's preflight."""
        head, asked = head.edited(), exchange.request.fields
        if b"*" in self._origins:
            head.fields.set(b"Access-Control-Allow-Origin", b"*")
        else:
            if b"origin" not in head.fields.options(b"vary"):
                head.fields.add(b"Vary", b"Origin")
            origin = asked.get(b"origin")
            if origin in self._origins:
                head.fields.set(b"Access-Control-Allow-Origin", origin)
        if exchange.request.method == b"OPTIONS" and head.status == 204 and b"access-control-request-method" in asked:
            _allow_preflight(head.fields, asked)
        return head


def _allow_preflight(fields: Fields, asked: Fields) -> None:
    fields.set(b"Access-Control-Allow-Methods", fields.get(b"allow", b"") or b"")
    wanted = asked.get(b"access-control-request-headers")
    if wanted is not None:
        fields.set(b"Access-Control-Allow-Headers", wanted)
    fields.set(b"Access-Control-Max-Age", b"%d" % PREFLIGHT_SECONDS)
    fields.add(b"Vary", b"Access-Control-Request-Headers")


class AllowOrigins:
    """A handler whose answers pages of other origins may read."""

    def __init__(self, handler: Handler, cors: Cors) -> None:
        self._handler = handler
        self._cors = cors

    def handle(self, exchange: Exchange) -> None:
        exchange.map_head(self._cors.map_head)
        self._handler.handle(exchange)
