"""What one client may take: connections at a time, and requests a second.

A client is an IPv4 address, or the /64 that an IPv6 address lies in: whoever has one of those has all of them
(RFC 4291 section 2.5.4), and would otherwise come from a new one each time.
"""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict

from reactor.exchange import NO_STORE, Exchange, Handler, error_page

MEMO_CLIENTS = 4096  # IPv6 addresses whose /64 is remembered; at the limit the memo starts anew
CLIENTS = 16_384  # buckets kept; at the limit the client that was away for longest is forgotten, and so has a full one again


class _ClientMemo(dict[str, str]):
    """A peer's address → what stands for the client: an IPv4 address itself, or the /64 of an IPv6 address."""

    def __missing__(self, peer: str) -> str:
        client = peer
        if ":" in peer:
            address = ipaddress.IPv6Address(peer.partition("%")[0])
            client = str(address.ipv4_mapped or ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))
        if len(self) >= MEMO_CLIENTS:
            self.clear()
        self[peer] = client
        return client


client_of = _ClientMemo().__getitem__
"""A peer's address → the client it is counted as."""


class Buckets:
    """A token bucket for each client: `burst` tokens, filled again at `rate` a second.

    A bucket is kept as the time at which it will be full, and one that is full as nothing. `now` is in seconds, and never
    goes back.
    """

    def __init__(self, rate: float, burst: float, limit: int = CLIENTS) -> None:
        self.rate = rate
        self._refill = burst / rate  # seconds from empty to full
        self._token = 1 / rate  # seconds
        self._limit = limit
        self._full_at: OrderedDict[str, float] = OrderedDict()  # the client that was seen last is at the end

    def wait(self, client: str, now: float) -> float:
        """Seconds until there is a token, 0.0 where there is one."""
        full_at = self._full_at.get(client, now)
        return max(0.0, full_at - now + self._token - self._refill)

    def charge(self, client: str, now: float) -> None:
        """Take a token, on credit where there is none."""
        full_at = self._full_at
        before = full_at.pop(client, now)
        if len(full_at) >= self._limit:
            full_at.popitem(last=False)
        full_at[client] = (before if before > now else now) + self._token

    def take(self, client: str, now: float) -> float:
        """Take a token and give 0.0, or take none and give the seconds until there is one."""
        wait = self.wait(client, now)
        if not wait:
            self.charge(client, now)
        return wait

    def __len__(self) -> int:
        return len(self._full_at)


class ClientRate:
    """Lets through `rate` requests a second from each client, twice that at once, and answers 429 to the rest."""

    def __init__(self, handler: Handler, rate: float) -> None:
        self._handler = handler
        self._buckets = Buckets(rate, max(1.0, 2 * rate))

    def handle(self, exchange: Exchange) -> None:
        wait = self._buckets.take(client_of(exchange.peer), exchange.reactor.now)
        if wait:
            refuse_for_now(exchange, 429, f"more than {self._buckets.rate:g} requests a second", wait)
        else:
            self._handler.handle(exchange)


def refuse_for_now(exchange: Exchange, status: int, reason: str, seconds: float) -> None:
    """429 (RFC 6585 section 4) or 503, with the whole seconds after which to come again."""
    exchange.verdict = "limited"
    retry_after = b"Retry-After", b"%d" % max(1, math.ceil(seconds))
    exchange.respond(*error_page(status, reason, retry_after, NO_STORE))


class ClientConnections:
    """The door of a server: at most `limit` connections of one client at a time. It counts those that are open, no others."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: dict[str, int] = {}

    def enter(self, peer: str) -> bool:
        """Whether another connection may come in; it is counted until it leaves."""
        client = client_of(peer)
        number = self._open.get(client, 0)
        if number >= self._limit:
            return False
        self._open[client] = number + 1
        return True

    def leave(self, peer: str) -> None:
        client = client_of(peer)
        number = self._open[client] - 1
        if number:
            self._open[client] = number
        else:
            del self._open[client]

    def __len__(self) -> int:
        """How many clients have a connection open."""
        return len(self._open)
