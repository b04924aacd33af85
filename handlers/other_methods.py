"""Requests by other methods than GET and HEAD: they are passed on, and their answers may change what is stored."""

from __future__ import annotations

from cache.entry import Entry
from cache.fill import Fill
from cache.invalidation import Invalidation, invalidates
from cache.status import forward_status
from handlers.hit_for_miss import storable
from handlers.under_way import UnderWay
from reactor.exchange import Body, DerivedExchange, Exchange, Head


class OtherMethod(UnderWay):
    """One such request. It is `under_way` where its answer may be stored, a POST's alone."""

    __slots__ = ("_stored",)

    def pass_on(self, exchange: Exchange) -> None:
        self._stored: Entry | None = None  # what its answer is stored as
        exchange.verdict = "pass"
        exchange.map_head(self._note)
        if exchange.request.method == b"POST":
            self.caching.under_way(self, shared=False)
            exchange = exchange.derive(exchange.request, exchange.body, self._answered, self._ended)
        self.caching.handler.handle(exchange)

    def _note(self, exchange: Exchange, head: Head) -> Head:
        """What this may have changed is not used again unasked."""
        if exchange.error is not None or not self.request.path.startswith(b"/"):
            return head  # `*` and CONNECT's target are no URIs
        self._invalidate(invalidates(self.request, self.key, head.status, head.fields))
        head = head.edited()
        ttl = None if self._stored is None else self._stored.ttl(exchange.reactor.now)
        status = forward_status(self.caching.name, "method", stored=ttl is not None, ttl=ttl)
        head.fields.add(b"Cache-Status", self.caching.told(status, self.key))
        return head

    def _invalidate(self, gone: Invalidation) -> None:
        """RFC 9111 section 4.4: what is stored goes, what is on its way is tainted; all but this one's own answer."""
        caching = self.caching
        for key in gone.keys:
            caching.with_entries(key, caching.remove)
            for fetch in [*caching.fetches.get(key, ()), *caching.apart.get(key, ())]:
                if fetch is not self:
                    fetch.taint()
        if gone.groups:
            self._invalidate_groups(gone.origin + b"/", frozenset(gone.groups))

    def _invalidate_groups(self, prefix: bytes, groups: frozenset[bytes]) -> None:
        """RFC 9875 section 3: everything in these groups, of the same origin."""
        caching = self.caching
        caching.store.purge(lambda key, entry: key.startswith(prefix) and not groups.isdisjoint(entry.groups))
        for table in (caching.fetches, caching.apart):
            for fetch in [fetch for key, fetches in table.items() if key.startswith(prefix) for fetch in fetches]:
                if fetch is not self:
                    fetch.taint_groups(groups)

    def _answered(self, inner: Exchange, head: Head, body: Body) -> None:
        """RFC 9110 section 9.3.3: a POST's answer may say that it is what a GET would have brought, and for how long."""
        assert isinstance(inner, DerivedExchange)
        caching, exchange = self.caching, inner.outer
        exchange.error, exchange.upstream = inner.error, inner.upstream
        entry = storable(inner, self.request, self.key, head, caching.policy) if inner.error is None else None
        writer = self._begin(entry, body)
        if entry is None or writer is None:
            exchange.respond(head, body)
            return
        self._stored = entry
        if isinstance(body, bytes):
            exchange.respond(head, body)  # what it invalidates goes first
            writer.commit()
        else:
            self._fill = Fill(caching.reactor, entry, body, writer, self._arrived)
            exchange.respond(head, self._fill.join())

    def _arrived(self, fill: Fill) -> None:
        if self._tainted:
            self.caching.store.remove(fill.entry)

    def _ended(self, inner: Exchange) -> None:
        assert isinstance(inner, DerivedExchange)
        self.caching.over(self)
        if not inner.status:  # it was given up before there was an answer
            inner.outer.abort(inner.failure or "the handler gave up")
