"""Hit-for-miss: what could not be stored a moment ago is asked for by each for itself, instead of waiting in vain.

    a key is       on                                                     → it is
    unknown        others could wait, and what came may not be stored     → once       (for one client alone, perhaps)
    once           what comes to one alone may not be stored either       → refused
    refused        what is passed on could be stored                      → once
    any            what comes has no room in the store                    → too large
    any            what comes to one alone is stored                      → unknown
    any            HIT_FOR_MISS_SECONDS after others could wait           → unknown

Once: each has a fetch of its own, and what comes is stored if it may be. Refused and too large: each is passed on.
"""

from __future__ import annotations

from typing import Any

from cache.entry import Entry
from cache.key import primary_key
from cache.policy import Policy
from cache.storing import may_store
from reactor.exchange import Exchange, Head
from reactor.http.parser import Request
from reactor.loop import Reactor

HIT_FOR_MISS_SECONDS = 30.0
HIT_FOR_MISS_KEYS = 4096  # remembered so; the oldest is forgotten
ONCE, REFUSED, TOO_LARGE = "once", "refused", "too large"

# Credentials, and directives for caches: who sends these is neither answered by another's fetch, nor are others by theirs.
OWN_TERMS = frozenset((b"authorization", b"cache-control", b"pragma"))
_TELLING = frozenset((b"cache-control", b"expires", b"etag", b"last-modified"))


class HitForMiss(dict[bytes, tuple[float, str]]):
    """Primary key → until when (seconds on the reactor's clock), and why."""

    def __init__(self, reactor: Reactor, policy: Policy) -> None:
        super().__init__()
        self._reactor = reactor
        self._policy = policy
        self._targets = frozenset(policy.targets)
        self._telling = _TELLING | self._targets

    def why(self, request: Request, key: bytes) -> str | None:
        """Why a plain GET for a key that is known goes alone; None for any other request, and after its time."""
        until, why = self[key]
        if until <= self._reactor.now:
            del self[key]
            return None
        plain = request.method == b"GET" and not request.length and b"cache-control" not in request.fields.index
        return why if plain else None

    def add(self, key: bytes, why: str) -> None:
        remember(self, key, (self._reactor.now + HIT_FOR_MISS_SECONDS, why), HIT_FOR_MISS_KEYS)

    def refused_again(self, key: bytes, request: Request) -> None:
        """Another response after the first could not be stored either: those that come next are passed on."""
        until, why = self.get(key, (0.0, ""))
        if why == ONCE and OWN_TERMS.isdisjoint(request.fields.index):
            self[key] = until, REFUSED

    def watch(self, exchange: Exchange, head: Head) -> Head:
        """What one client brought upon itself keeps a key out of the store no longer than until another asks."""
        index = head.fields.index
        # By no rule, what tells neither a lifetime nor a validator is of no use, and what says no-store is asked no further:
        # that is most of what comes here.
        if exchange.error is not None or not self._policy.rules and (
            self._telling.isdisjoint(index)
            or b"no-store" in index.get(b"cache-control", b"") and self._targets.isdisjoint(index)
        ):
            return head
        key = key_of(exchange)
        until, why = self.get(key, (0.0, ""))
        if why == REFUSED and storable(exchange, exchange.request, key, head, self._policy) is not None:
            self[key] = until, ONCE
        return head


def key_of(exchange: Exchange) -> bytes:
    request = exchange.request
    return primary_key(request.scheme or exchange.scheme, request.authority, request.path)


def storable(exchange: Exchange, request: Request, key: bytes, head: Head, policy: Policy) -> Entry | None:
    """What is to be stored of a head that has just come in answer to `exchange`, which was asked for `request`."""
    reactor = exchange.reactor
    return may_store(
        request, key, head.status, head.reason, head.fields, exchange.started, reactor.now, reactor.wall, policy
    ).entry


def remember(table: dict[bytes, Any], key: bytes, what: object, limit: int) -> None:
    """The newest stands last; at the limit the oldest is forgotten."""
    table.pop(key, None)
    if len(table) >= limit:
        del table[next(iter(table))]
    table[key] = what
