"""Caching: answers from the store what it may, and lets one fetch answer everybody who waits for the same.

It stands before any handler. What an exchange comes to is the verdict of cache/rules.py:

    verdict       what happens
    Hit, Stale    answered from the store; a Stale one may start a validation that nobody waits for
    Miss          joins the fetch that is under way for the key, or begins one
    Revalidate    the same, with the stored response's validators in the request
    Pass          goes to the handler, and the store keeps out of it
    Unavailable   504

A fetch that several may wait for is a SharedFetch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from cache.entry import Entry
from cache.fill import Fill
from cache.invalidation import invalidates
from cache.key import primary_key
from cache.policy import DEFAULT_POLICY, Policy
from cache.rules import Hit, Miss, Pass, Revalidate, Stale, Unavailable, conditional_fields, lookup, matching, may_answer
from cache.status import forward_status, hit_status, stale_status, with_key
from cache.stores.memory import ContentSource, MemoryStore
from cache.storing import displaced, may_store
from cache.validation import Updates, after_head
from handlers.shared_fetch import SharedFetch, answer_each
from handlers.stored import Rendered, answer_conditionally
from reactor.errors import ProtocolError
from reactor.exchange import Body, Exchange, Handler, Head, Source, error_page
from reactor.http.fields import Fields
from reactor.http.parser import Request
from reactor.loop import Reactor
from reactor.timing import FetchTimes

log = logging.getLogger("handlers.caching")

HIT_FOR_MISS_SECONDS = 30.0  # how long a key that could not be stored is fetched by each for itself, unless one can be
# Why: the response was too large; or its head was refused, once or twice running. Once may have been for one client alone.
TOO_LARGE, ONCE, REFUSED = "too large", "once", "refused"
HIT_FOR_MISS_KEYS = 4096  # remembered so; the oldest is forgotten
VALIDATED_KEYS = 4096  # remembered as validated by a client while nothing was stored; the oldest is forgotten
# Shared fetches under way for one key (one per variant), and as many of its ranges; further exchanges go on alone.
FETCHES_PER_KEY = 16

# Credentials, and directives for caches: who sends these is neither answered by another's fetch, nor are others by theirs.
_OWN_TERMS = frozenset((b"authorization", b"cache-control", b"pragma"))
_OWN_CONDITIONS = frozenset((b"if-none-match", b"if-modified-since"))
_TELLING = frozenset((b"cache-control", b"expires", b"etag", b"last-modified"))
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
        self.fetches: dict[bytes, list[SharedFetch]] = {}  # under way, which others may wait for
        self._apart: dict[bytes, list[SharedFetch]] = {}  # under way, which nobody else may
        self._unstorable: dict[bytes, tuple[float, str]] = {}  # key → until when (seconds on the reactor's clock), and why
        self._targets = frozenset(policy.targets)
        self._telling = _TELLING | self._targets
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
            self.pass_on(exchange, key, "bypass")
            return
        found = self.store.get(key)
        if type(found) is tuple:
            self.decide(exchange, key, found)
        else:
            _Waiting(self, exchange, key, found)  # type: ignore[arg-type]

    def decide(self, exchange: Exchange, key: bytes, entries: Sequence[Entry]) -> None:
        """Answer, wait or forward, now that the stored responses are known."""
        now = exchange.reactor.now
        if not entries and key in self._unstorable and self._goes_alone(exchange.request, key):
            why = self._unstorable[key][1]
            if why != ONCE:
                exchange.reason = "what came a moment ago could not be stored"
                self.pass_on(exchange, key, "uri-miss", watched=why == REFUSED)
                return
        verdict = lookup(exchange.request, entries, now, self.policy)
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
            self.pass_on(exchange, key, verdict.fwd)  # type: ignore[arg-type]
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
        if rendered is None:
            rendered = entry.rendered = Rendered(entry, now, self._hit_status(entry, now))
        elif now >= rendered.until:
            rendered.renew(entry, now, self._hit_status(entry, now))
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

    def _hit_status(self, entry: Entry, now: float) -> bytes:
        status = hit_status(self.name, entry.ttl(now))
        return with_key(status, entry.store.key) if self.policy.status_key else status

    def told(self, status: bytes, key: bytes) -> bytes:
        """A member of Cache-Status, with the key where that is asked for."""
        return with_key(status, key) if self.policy.status_key else status

    # To the handler.

    def pass_on(self, exchange: Exchange, key: bytes, fwd: str, watched: bool = False) -> None:
        if watched:
            exchange.map_head(self._watch)
        told: list[bytes] = []
        if fwd == "method":
            exchange.map_head(partial(self._note_method, told))
        else:
            exchange.map_head((self._notes_in_vain if exchange.verdict in _WAITED else self._notes)[fwd])
        exchange.verdict = "pass"
        if exchange.timing is not None:
            exchange.timing.fetch = FetchTimes()  # it may have waited for another's before
        if exchange.request.method == b"POST":
            posted = partial(self._posted, exchange, key, told)
            exchange = exchange.derive(exchange.request, exchange.body, posted, self._post_ended)
        self.handler.handle(exchange)

    def _note(self, status: bytes, exchange: Exchange, head: Head) -> Head:
        if exchange.error is not None:
            return head  # RFC 9211 section 2: not on what an intermediary made itself
        if exchange.request.method == b"HEAD":
            status += self._head_answered(exchange, head)
        if self.policy.status_key:
            status = with_key(status, _key_of(exchange))
        head = head.edited()
        head.fields.append_valid(b"Cache-Status: " + status, b"cache-status", status)
        return head

    def _watch(self, exchange: Exchange, head: Head) -> Head:
        """What one client brought upon itself keeps a key out of the store no longer than until another asks."""
        index = head.fields.index
        # By no rule, what tells neither a lifetime nor a validator is of no use, and what says no-store is not asked further;
        # that is most of what comes here.
        if exchange.error is not None or not self.policy.rules and (
            self._telling.isdisjoint(index) or (b"no-store" in index.get(b"cache-control", b"") and self._targets.isdisjoint(index))
        ):
            return head
        request, key = exchange.request, _key_of(exchange)
        until, why = self._unstorable.get(key, (0.0, ""))
        if why == REFUSED and self._may_store(exchange, request, key, head) is not None:
            self._unstorable[key] = until, ONCE
        return head

    def _note_method(self, told: list[bytes], exchange: Exchange, head: Head) -> Head:
        """RFC 9111 section 4.4: what an unsafe method may have changed is not used again unasked.

        `told` is what else Cache-Status says.
        """
        request = exchange.request
        if exchange.error is not None or not request.path.startswith(b"/"):
            return head  # `*` and CONNECT's target are no URIs
        uri = _key_of(exchange)
        gone = invalidates(request, uri, head.status, head.fields)
        for key in gone.keys:
            self._invalidate(key)
        if gone.groups:
            self._invalidate_groups(gone.origin + b"/", frozenset(gone.groups))
        head = head.edited()
        status = b"".join([forward_status(self.name, "method"), *told])
        head.fields.add(b"Cache-Status", self.told(status, uri))
        return head

    def _invalidate(self, key: bytes) -> None:
        self.with_entries(key, self._remove)
        for fetch in [*self.fetches.get(key, ()), *self._apart.get(key, ())]:
            fetch.taint()

    def _invalidate_groups(self, prefix: bytes, groups: frozenset[bytes]) -> None:
        """RFC 9875 section 3: everything in these groups, of the same origin."""
        self.store.purge(lambda key, entry: key.startswith(prefix) and not groups.isdisjoint(entry.groups))
        for table in (self.fetches, self._apart):
            under_way = [fetch for key, fetches in table.items() if key.startswith(prefix) for fetch in fetches]
            for fetch in under_way:
                fetch.taint_groups(groups)

    def _remove(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self.store.remove(entry)

    def _head_answered(self, exchange: Exchange, head: Head) -> bytes:
        """RFC 9111 section 4.3.5: an answer to HEAD freshens, or puts in doubt, what is stored for GET.

        It may be stored itself; what Cache-Status says of that.
        """
        request, reactor, key = exchange.request, exchange.reactor, _key_of(exchange)
        if head.status == 200:
            times = (exchange.started, reactor.now, reactor.wall)
            self.with_entries(key, partial(self._after_head, request, head.fields.copy(), times))
        entry = self._may_store(exchange, request, key, head)
        if entry is None or (writer := self.store.begin(key, entry, 0)) is None:
            return b""
        writer.commit()
        self.with_entries(key, partial(self.displace, request, entry))
        return _stored(entry, reactor.now)

    def _may_store(self, exchange: Exchange, request: Request, key: bytes, head: Head) -> Entry | None:
        """What is to be stored of a head that has just come in answer to `exchange`."""
        reactor = exchange.reactor
        return may_store(
            request, key, head.status, head.reason, head.fields, exchange.started, reactor.now, reactor.wall, self.policy
        ).entry

    def displace(self, request: Request, new: Entry, entries: Sequence[Entry]) -> None:
        """The variant that a new response takes the place of goes; not one that came while it was still arriving."""
        for old in displaced(request, [entry for entry in entries if entry is not new], new):
            if old.response_time <= new.response_time:
                self.store.remove(old)

    def _posted(
        self, exchange: Exchange, key: bytes, told: list[bytes], inner: Exchange, head: Head, body: Body
    ) -> None:
        """RFC 9110 section 9.3.3: a POST's answer may say that it is what a GET would have brought, and for how long."""
        exchange.error, exchange.upstream = inner.error, inner.upstream
        entry = self._may_store(inner, exchange.request, key, head) if inner.error is None else None
        length = len(body) if isinstance(body, bytes) else body.length
        writer = self.store.begin(key, entry, length) if entry is not None else None
        if writer is not None and isinstance(body, bytes) and not writer.write(body):
            writer.discard()
            writer = None
        if entry is None or writer is None:
            exchange.respond(head, body)
            return
        told.append(_stored(entry, self.reactor.now))
        if isinstance(body, Source):
            fill = Fill(self.reactor, entry, body, writer, _nothing_more)
            exchange.respond(head, fill.join())
        else:
            exchange.respond(head, body)  # what it invalidates goes first
            writer.commit()

    def _post_ended(self, inner: Exchange) -> None:
        if not inner.status:  # it was given up before there was an answer
            inner.outer.abort(inner.failure or "the handler gave up")  # type: ignore[attr-defined]

    def _after_head(
        self, request: Request, fields: Fields, times: tuple[float, float, float], entries: Sequence[Entry]
    ) -> None:
        if entries:
            self.apply(after_head(request, entries, fields, *times, self.policy))

    def with_entries(self, key: bytes, use: Callable[[Sequence[Entry]], object]) -> None:
        """Call `use` with what is stored under a key: now, or once a store that answers later does."""
        found = self.store.get(key)
        if type(found) is tuple:
            use(found)
        else:
            found.on_ready = use  # type: ignore[attr-defined]

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
        fields = request.fields.index
        apart = key in self._unstorable and self._goes_alone(request, key)
        if apart and (why := self._unstorable[key][1]) != ONCE:
            self.pass_on(exchange, key, verdict.fwd, watched=why == REFUSED)
            return
        ranged = b"range" in fields and type(verdict) is Miss and not self.policy.fetch_whole
        if request.method != b"GET" or ranged and not self.policy.store_partial:
            self.pass_on(exchange, key, verdict.fwd)
            return
        under_way = self.fetches.get(key, ())
        waited = exchange.verdict
        part = (fields[b"range"], fields.get(b"if-range")) if ranged else None
        shared = not apart and waited != "alone" and self._is_shared(request, verdict)
        exchange.verdict = "miss"
        if shared:
            for fetch in under_way:
                if fetch.part != part:
                    continue
                if fetch.join(exchange):
                    return
                if fetch.too_large:
                    self.mark_unstorable(key)
                    self.pass_on(exchange, key, verdict.fwd)
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
        if not _OWN_TERMS.isdisjoint(index):
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
        return key not in self.fetches and key not in self._apart and key not in self._validated

    def _validate_behind(self, exchange: Exchange, key: bytes, entries: Sequence[Entry], entry: Entry) -> None:
        """RFC 5861 section 3: the client has its answer; one validation per key runs without it."""
        request = exchange.request
        under_way = (*self.fetches.get(key, ()), *self._apart.get(key, ()))
        if request.method != b"GET" or any(b"range" not in fetch.request.fields.index for fetch in under_way):
            return
        candidates = matching(request, entries)
        asked = conditional_fields(request, candidates, entry, for_client=False)
        verdict = Revalidate(entry, tuple(candidates), asked, "stale", "it is stale", "RFC 5861 section 3")
        shared = _OWN_TERMS.isdisjoint(request.fields.index)
        SharedFetch(self, key, request, entries, verdict, shared, behind=True).start(exchange)

    def under_way(self, fetch: SharedFetch, shared: bool) -> None:
        """For SharedFetch: it begins; others may wait for it if it is `shared`."""
        (self.fetches if shared else self._apart).setdefault(fetch.key, []).append(fetch)

    def over(self, fetch: SharedFetch) -> None:
        """For SharedFetch: nobody can join it any more."""
        for table in (self.fetches, self._apart):
            fetches = table.get(fetch.key)
            if fetches is not None and fetch in fetches:
                fetches.remove(fetch)
                if not fetches:
                    del table[fetch.key]

    def _goes_alone(self, request: Request, key: bytes) -> bool:
        """Hit-for-miss: a plain GET for what could not be stored a moment ago."""
        if self._unstorable[key][0] <= self.reactor.now:
            del self._unstorable[key]
            return False
        return request.method == b"GET" and not request.length and b"cache-control" not in request.fields.index

    def mark_unstorable(self, key: bytes, refused: bool = False) -> None:
        """Hit-for-miss: for a while nobody waits for anybody else's fetch of this key."""
        self._unstorable.pop(key, None)
        if len(self._unstorable) >= HIT_FOR_MISS_KEYS:
            del self._unstorable[next(iter(self._unstorable))]
        self._unstorable[key] = self.reactor.now + HIT_FOR_MISS_SECONDS, ONCE if refused else TOO_LARGE

    def refused_again(self, key: bytes, request: Request) -> None:
        """Another response after the first could not be stored either: those that come next are passed on."""
        until, why = self._unstorable.get(key, (0.0, ""))
        if why == ONCE and _OWN_TERMS.isdisjoint(request.fields.index):
            self._unstorable[key] = until, REFUSED

    def mark_storable(self, key: bytes) -> None:
        """One could be stored: those who ask from now on wait for each other again."""
        self._unstorable.pop(key, None)

    def mark_validated(self, key: bytes) -> None:
        """The next one that asks for this key fetches it whole, whatever it has itself."""
        self._validated.pop(key, None)
        if len(self._validated) >= VALIDATED_KEYS:
            del self._validated[next(iter(self._validated))]
        self._validated[key] = None


def _key_of(exchange: Exchange) -> bytes:
    request = exchange.request
    return primary_key(request.scheme or exchange.scheme, request.authority, request.path)


def _stored(entry: Entry, now: float) -> bytes:
    """What Cache-Status adds where the answer to what was passed on is stored after all."""
    return b"; stored; ttl=%d" % entry.ttl(now)


def _nothing_more(fill: Fill) -> None:
    """A fill that nobody can join is nowhere to be taken out of."""


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
