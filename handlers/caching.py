"""Caching: answers from the store what it may, and lets one fetch answer everybody who waits for the same.

It stands before any handler. What an exchange comes to is the verdict of cache/rules.py:

    verdict       what happens
    Hit, Stale    answered from the store; a Stale one may start a validation that nobody waits for
    Miss          joins the fetch that is under way for the key, or begins one
    Revalidate    the same, with the stored response's validators in the request
    Pass          goes to the handler, and the store keeps out of it; by an OtherMethod it may change what is stored
    Unavailable   504

A fetch that several may wait for is a SharedFetch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from cache.entry import Entry
from cache.key import primary_key
from cache.policy import DEFAULT_POLICY, Policy
from cache.rules import Hit, Miss, Pass, Revalidate, Stale, Unavailable, conditional_fields, lookup, matching, may_answer
from cache.status import forward_status, hit_status, stale_status, with_key
from cache.stores.memory import ContentSource, MemoryStore
from cache.storing import displaced
from cache.validation import Updates
from handlers.hit_for_miss import OWN_TERMS, REFUSED, TOO_LARGE, HitForMiss, key_of, remember
from handlers.other_methods import OtherMethod
from handlers.shared_fetch import SharedFetch, answer_each
from handlers.stored import Rendered, answer_conditionally
from handlers.under_way import UnderWay
from reactor.errors import ProtocolError
from reactor.exchange import Exchange, Handler, Head, error_page
from reactor.http.parser import Request
from reactor.loop import Reactor
from reactor.timing import FetchTimes

VALIDATED_KEYS = 4096  # remembered as validated by a client while nothing was stored; the oldest is forgotten
# Shared fetches under way for one key (one per variant), and as many of its ranges; further exchanges go on alone.
FETCHES_PER_KEY = 16

_OWN_CONDITIONS = frozenset((b"if-none-match", b"if-modified-since"))
_PASSED_ON = (REFUSED, TOO_LARGE)
_WAITED = ("collapsed", "alone")  # verdicts of exchanges that have waited for a fetch in vain
_FORWARDED = ("uri-miss", "vary-miss", "bypass", "request", "partial", "stale")  # RFC 9211 section 2.2, but for `method`


class Later(Protocol):
    """A store that answers later: `on_ready` is called with the entries, from the loop."""

    on_ready: Callable[[Sequence[Entry]], object] | None

    def cancel(self) -> None: ...


class Caching:
    """A shared cache before a handler. Cache-Status calls it `name` (RFC 9211), and Via calls the handler `pseudonym`."""

    def __init__(
        self, reactor: Reactor, handler: Handler, store: MemoryStore, policy: Policy = DEFAULT_POLICY,
        name: bytes = b"reactor", pseudonym: bytes | None = None,
    ) -> None:
        self.reactor = reactor
        self.handler = handler
        self.store = store
        self.policy = policy
        self.name = name
        self.pseudonym = pseudonym
        self.fetches: dict[bytes, dict[SharedFetch, None]] = {}  # under way, which others may wait for, by key
        self.apart: dict[bytes, dict[UnderWay, None]] = {}  # under way, which nobody else may
        self.unstorable = HitForMiss(reactor, policy)
        self._validated: dict[bytes, None] = {}  # keys of which the origin told a client lately that it has them already
        self._notes = {fwd: partial(self._note, forward_status(name, fwd)) for fwd in _FORWARDED}
        self._notes_in_vain = {
            fwd: partial(self._note, forward_status(name, fwd, in_vain=True)) for fwd in _FORWARDED
        }

    def handle(self, exchange: Exchange) -> None:
        request = exchange.request
        try:
            key = primary_key(request.scheme or exchange.scheme, request.authority, request.path)
        except ProtocolError:
            self.handler.handle(exchange)  # a target with no origin is nothing to store
            return
        if request.upgrade is not None and request.method == b"GET":  # nothing that is stored is an answer to that
            self.pass_on(exchange, "bypass")
            return
        found = self.store.get(key)
        if type(found) is tuple:
            self.decide(exchange, key, found)
        else:
            _Waiting(self, exchange, key, found)  # type: ignore[arg-type]

    def decide(self, exchange: Exchange, key: bytes, entries: Sequence[Entry]) -> None:
        """Answer, wait or forward, now that the stored responses are known."""
        if not entries and key in self.unstorable:
            alone = self.unstorable.why(exchange.request, key)
            if alone in _PASSED_ON:
                exchange.reason = "what came a moment ago could not be stored"
                self.pass_on(exchange, "uri-miss", watched=alone == REFUSED)
                return
        verdict = lookup(exchange.request, entries, exchange.reactor.now, self.policy)
        kind = type(verdict)
        if exchange.timing is not None:
            exchange.reason = f"{verdict.reason} ({verdict.section})"
        if kind is Hit:
            self._hit(exchange, verdict.entry, verdict.special)  # type: ignore[union-attr]
        elif kind is Stale:
            self._stale(exchange, verdict)  # type: ignore[arg-type]
            if verdict.revalidate:  # type: ignore[union-attr]
                self._validate_behind(exchange, key, entries, verdict.entry)  # type: ignore[union-attr]
        elif kind is Pass:
            if verdict.fwd == "method":
                OtherMethod(self, key, exchange.request).pass_on(exchange)
            else:
                self.pass_on(exchange, verdict.fwd)  # type: ignore[arg-type]
        elif kind is Unavailable:
            exchange.verdict = "unavailable"
            exchange.respond(*error_page(504, verdict.reason))
        else:
            self._fetch(exchange, key, entries, verdict)  # type: ignore[arg-type]

    # From the store.

    def _hit(self, exchange: Exchange, entry: Entry, special: bool) -> None:
        """A stored response answers: its head is serialized once a second, its body is shared."""
        exchange.verdict = "hit"
        entry.store.visited = True
        now = exchange.reactor.now
        rendered = entry.rendered
        if rendered is None or now >= rendered.until:
            status = self.told(hit_status(self.name, entry.ttl(now)), entry.store.key)
            if rendered is None:
                rendered = entry.rendered = Rendered(entry, now, status)
            else:
                rendered.renew(entry, now, status)
        if special:
            answer_conditionally(exchange, entry, rendered.head)
            return
        body = rendered.body
        exchange.respond(rendered.head, ContentSource(entry.body, 0, entry.body.size) if body is None else body)

    def _stale(self, exchange: Exchange, stale: Stale) -> None:
        """A stale one answers, and says what allowed that; rare enough to be written out each time."""
        exchange.verdict = "stale"
        entry, now = stale.entry, exchange.reactor.now
        entry.store.visited = True
        status = self.told(stale_status(self.name, entry.ttl(now), stale.why), entry.store.key)
        answer_conditionally(exchange, entry, Rendered(entry, now, status).head)

    def told(self, status: bytes, key: bytes) -> bytes:
        """A member of Cache-Status, with the key where that is asked for."""
        return with_key(status, key) if self.policy.status_key else status

    # To the handler.

    def pass_on(self, exchange: Exchange, fwd: str, watched: bool = False) -> None:
        if watched:
            exchange.map_head(self.unstorable.watch)
        exchange.map_head((self._notes_in_vain if exchange.verdict in _WAITED else self._notes)[fwd])
        exchange.verdict = "pass"
        if exchange.timing is not None:
            exchange.timing.fetch = FetchTimes()  # it may have waited for another's before
        self.handler.handle(exchange)

    def _note(self, status: bytes, exchange: Exchange, head: Head) -> Head:
        if exchange.error is not None:
            return head  # RFC 9211 section 2: not on what an intermediary made itself
        if self.policy.status_key:
            status = with_key(status, key_of(exchange))
        head = head.edited()
        head.fields.append_valid(b"Cache-Status: " + status, b"cache-status", status)
        return head

    # The store.

    def with_entries(self, key: bytes, use: Callable[[Sequence[Entry]], object]) -> None:
        """Call `use` with what is stored under a key: now, or once a store that answers later does."""
        found = self.store.get(key)
        if type(found) is tuple:
            use(found)
        else:
            found.on_ready = use  # type: ignore[attr-defined]

    def remove(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self.store.remove(entry)

    def displace(self, request: Request, new: Entry, entries: Sequence[Entry]) -> None:
        """The variant that a new response takes the place of goes; not one that came while it was still arriving."""
        for old in displaced(request, [entry for entry in entries if entry is not new], new):
            if old.response_time <= new.response_time:
                self.store.remove(old)

    def apply(self, updates: Updates) -> None:
        """Do with stored responses what a validation decided."""
        for old, new in updates:
            if new is None:
                self.store.remove(old)
            else:
                self.store.update(old, new)

    # Fetching.

    def _fetch(self, exchange: Exchange, key: bytes, entries: Sequence[Entry], verdict: Miss | Revalidate) -> None:
        request = exchange.request
        alone = self.unstorable.why(request, key) if key in self.unstorable else None
        ranged = type(verdict) is Miss and request.method == b"GET" and b"range" in request.fields.index
        ranged = ranged and not self.policy.fetch_whole
        if alone in _PASSED_ON or ranged and not self.policy.store_partial:
            self.pass_on(exchange, verdict.fwd, watched=alone == REFUSED)
            return
        waited = exchange.verdict
        part = (request.fields[b"range"], request.fields.get(b"if-range")) if ranged else None
        shared = alone is None and waited != "alone" and self._is_shared(request, verdict)
        exchange.verdict = "miss"
        under_way = self.fetches.get(key, ())
        if shared:
            for fetch in under_way:
                if fetch.part != part:
                    continue
                if fetch.join(exchange):
                    return
                if fetch.too_large:
                    self.unstorable.add(key, TOO_LARGE)
                    self.pass_on(exchange, verdict.fwd)
                    return
        alike = [fetch for fetch in under_way if (fetch.part is None) is (part is None)]
        shared = shared and len(alike) < FETCHES_PER_KEY and not self._asks_for_itself(request, key, verdict)
        fetch = SharedFetch(self, key, request, entries, verdict, shared, in_vain=waited in _WAITED, part=part)
        fetch.wait_for(exchange)
        fetch.start(exchange)

    def alone(self, exchange: Exchange) -> None:
        """For one that has waited for what may not serve it: look again, and wait for nobody."""
        exchange.verdict = "alone"
        self.handle(exchange)

    def _is_shared(self, request: Request, verdict: Miss | Revalidate) -> bool:
        """Whether others may wait for the answer: not where each must have one of its own (RFC 9111 section 5.2.2.4)."""
        index = request.fields.index
        if request.method == b"HEAD" or not OWN_TERMS.isdisjoint(index):
            return False
        if self.pseudonym is not None and self.pseudonym in index.get(b"via", b""):
            return False  # it has been here before, and what it would wait for waits for it
        if type(verdict) is Miss:
            return True
        entry = verdict.entry  # type: ignore[union-attr]
        return may_answer(request, entry, entry.response_time, self.policy)

    def _asks_for_itself(self, request: Request, key: bytes, verdict: Miss | Revalidate) -> bool:
        """A client's own conditions are the origin's to evaluate where nothing is stored (RFC 9111 section 4.3.2).

        For one client at a time, though, and not twice in a row: what several ask for is fetched whole, and stored.
        """
        if type(verdict) is not Miss or _OWN_CONDITIONS.isdisjoint(request.fields.index):
            return False
        return key not in self.fetches and key not in self.apart and key not in self._validated

    def _validate_behind(self, exchange: Exchange, key: bytes, entries: Sequence[Entry], entry: Entry) -> None:
        """RFC 5861 section 3: the client has its answer; one validation per key runs without it."""
        request = exchange.request
        under_way = [fetch.request for fetch in (*self.fetches.get(key, ()), *self.apart.get(key, ()))]
        whole = [asked for asked in under_way if asked.method == b"GET" and b"range" not in asked.fields.index]
        if request.method != b"GET" or whole:
            return
        candidates = matching(request, entries)
        asked = conditional_fields(request, candidates, entry, for_client=False)
        verdict = Revalidate(entry, tuple(candidates), asked, "stale", "it is stale", "RFC 5861 section 3")
        shared = OWN_TERMS.isdisjoint(request.fields.index)
        SharedFetch(self, key, request, entries, verdict, shared, behind=True).start(exchange)

    def under_way(self, fetch: UnderWay, shared: bool) -> None:
        """It begins; others may wait for it if it is `shared`."""
        table: dict[bytes, dict[Any, None]] = self.fetches if shared else self.apart
        table.setdefault(fetch.key, {})[fetch] = None

    def over(self, fetch: UnderWay) -> None:
        """Nobody can join it any more, and no change concerns it."""
        tables: tuple[dict[bytes, dict[Any, None]], ...] = (self.fetches, self.apart)
        for table in tables:
            if (fetches := table.get(fetch.key)) is not None:
                fetches.pop(fetch, None)
                if not fetches:
                    del table[fetch.key]

    def mark_validated(self, key: bytes) -> None:
        """The next one that asks for this key fetches it whole, whatever it has itself."""
        remember(self._validated, key, None, VALIDATED_KEYS)


class _Waiting:
    """An exchange whose store answers later."""

    __slots__ = ("_caching", "_exchange", "_key", "_later")

    def __init__(self, caching: Caching, exchange: Exchange, key: bytes, later: Later) -> None:
        self._caching = caching
        self._exchange = exchange
        self._key = key
        self._later: Later | None = later
        later.on_ready = self._ready
        exchange.on_end(self._ended)

    def _ready(self, entries: Sequence[Entry]) -> None:
        self._later = None
        if not self._exchange.ended:
            answer_each(partial(self._caching.decide, key=self._key, entries=entries), [self._exchange])

    def _ended(self, exchange: Exchange) -> None:
        if self._later is not None:
            self._later.cancel()
