"""One request to the handler behind the cache, and the exchanges that wait for its answer.

    state of a fetch    on                                        → state
    waiting             another exchange for the key              → waiting    (it waits too)
    waiting             a whole answer that may be stored         → over       (each whom it may answer gets it)
    waiting             the head of one whose body is to come     → filling    (each whom it may answer reads one Fill)
    waiting             what may not be stored                    → over       (who asked gets it, the others ask anew)
    waiting             304 to a validation                       → over       (each whom it may answer gets it, freshened)
    waiting             304 to the client's own condition         → over       (who asked gets it, the others ask anew)
    waiting             304, or a rest, that fits nothing stored  → waiting    (asked again, without conditions)
    waiting             an error, to a validation                 → over       (all get what is stale, where it may answer)
    waiting             the handler's own failure                 → over       (all get it, or what is stale)
    waiting             the handler gives up                      → over       (all are aborted)
    waiting             the last one waiting leaves               → over       (it is aborted, unless nobody asked for it)
    filling             another exchange, and the entry suits it  → filling    (it reads too)
    filling             the Fill is over                          → over
    either              an unsafe request taints it               → the same   (nobody can join; to be validated, if stored)
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from cache.answering import answer
from cache.entry import Entry
from cache.fill import Fill, FillReader
from cache.key import secondary_key
from cache.partial import as_received, combine
from cache.rules import Miss, Revalidate, failure_status, may_answer, selectable, stale_on_error
from cache.status import forward_status
from cache.stores.memory import Content, ContentSource
from cache.validation import Failed, Forward, Freshened, Refetch, after_head, forward_fields, outdated, validate
from handlers.hit_for_miss import ONCE, TOO_LARGE, storable
from handlers.stored import Rendered, answer_conditionally, answer_not_modified, has_it, is_special, part_head
from handlers.under_way import UnderWay
from reactor.errors import ReactorError, UpstreamError
from reactor.exchange import Body, DerivedExchange, Exchange, Head, Source, error_page
from reactor.http.fields import Fields
from reactor.http.parser import Request
from reactor.sources import ChainSource
from reactor.timing import FetchTimes

if TYPE_CHECKING:
    from handlers.caching import Caching

log = logging.getLogger("handlers.caching")


class SharedFetch(UnderWay):
    """One request to the handler behind, and the exchanges that wait for its answer.

    `shared`: others may wait for it too; if not, the client's own conditions go along where nothing is stored. `behind`: it
    is a validation that nobody asked for, and goes on for nobody. `in_vain`: who asks has waited for another fetch already.
    `part`: the Range and If-Range that go along too; only who asks for the same may wait for it.
    """

    __slots__ = (
        "verdict", "shared", "behind", "in_vain", "part", "_waiting", "_asker", "_inner", "_came", "_names", "_pinned",
        "_own_conditions", "_beginning",
    )  # fmt: skip

    def __init__(
        self, caching: Caching, key: bytes, request: Request, entries: Sequence[Entry], verdict: Miss | Revalidate,
        shared: bool, behind: bool = False, in_vain: bool = False, part: tuple[bytes, bytes | None] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(caching, key, request)
        self.verdict = verdict
        self.shared = shared
        self.behind = behind
        self.in_vain = in_vain
        self.part = part
        self._own_conditions = not shared or part is not None
        self._waiting: dict[Exchange, None] | None = {}  # in the order they came; None once they are answered
        self._asker: Exchange | None = None  # whose request it is that went to the handler
        self._inner: DerivedExchange | None = None
        self._came = 0  # the status of what came
        self._names = likely_vary(entries, caching.fetches.get(key, ()))
        # What is being validated may be evicted before the answer comes, and is to be served by it all the same.
        self._pinned: list[Content] = []
        if type(verdict) is Revalidate:
            self._pinned = [entry.body.acquire() for entry in verdict.entries]
        self._beginning: Entry | None = None  # what is stored of it already: only the rest is asked for
        if type(verdict) is Miss and verdict.part is not None and not is_special(request):
            self._beginning = verdict.part
            self._pinned = [verdict.part.body.acquire()]
        caching.under_way(self, shared)

    # Waiting.

    def join(self, exchange: Exchange) -> bool:
        """Wait for this fetch, or read along; False where its answer may not suit."""
        if self._waiting is not None:
            if self._names and not self._same_variant(self._names, exchange.request):
                return False
            self.wait_for(exchange)
            return True
        fill = self._fill
        if fill is None or not fill.open or not self._may_have(fill.entry, exchange, exchange.reactor.now):
            return False
        exchange.verdict = "collapsed"
        self._note(exchange)
        head = self._head_for(exchange, fill.entry, None, exchange.reactor.now)
        if has_it(exchange, fill.entry):
            self._give_nothing(exchange, head)
        else:
            self._give_reader(exchange, head, fill.join())
        return True

    @property
    def filling(self) -> Entry | None:
        """The entry whose body is arriving."""
        return None if self._fill is None else self._fill.entry

    @property
    def too_large(self) -> bool:
        """What is arriving cannot be stored, and so not be shared with anybody who comes now."""
        return self._fill is not None and self._fill.state == "window"

    def wait_for(self, exchange: Exchange) -> None:
        assert self._waiting is not None
        if self._waiting:
            exchange.verdict = "collapsed"
        self._waiting[exchange] = None
        self._note(exchange)
        exchange.on_end(self._left)

    def _note(self, exchange: Exchange) -> None:
        """Where an exchange's time is noted: its look-up is over, and it waits for this fetch."""
        timing = exchange.timing
        if timing is not None:
            timing.leave(exchange.reactor.clock())
            inner = self._inner
            timing.fetch = FetchTimes() if inner is None or inner.timing is None else inner.timing.fetch

    def _left(self, exchange: Exchange) -> None:
        waiting = self._waiting
        if waiting is None or exchange not in waiting:
            return
        del waiting[exchange]
        if not waiting and not self.behind and self._inner is not None:
            self._end_waiting()  # the end of what is aborted comes from the loop; until then nobody may join
            self._inner.abort("every client left")

    def _same_variant(self, names: tuple[bytes, ...], request: Request) -> bool:
        return secondary_key(names, request.fields) == secondary_key(names, self.request.fields)

    def _suits(self, entry: Entry, request: Request) -> bool:
        """By its Vary, what was fetched for one request may answer another that came while it was under way."""
        if entry.vary == () or request is self.request:
            return True
        return entry.vary is not None and self._same_variant(entry.vary, request)

    def _may_have(self, entry: Entry, exchange: Exchange, now: float) -> bool:
        """It is for who asked; for others only as if it had been stored before they came (RFC 9111 section 4)."""
        return exchange.request is self.request or may_answer(exchange.request, entry, now, self.caching.policy)

    # Asking.

    def start(self, exchange: Exchange) -> None:
        """Ask the handler behind, on behalf of `exchange` (which may end before this fetch does)."""
        request, verdict = self.request, self.verdict
        fields = forward_fields(request, verdict)
        if fields is request.fields and not self._own_conditions:
            # A whole response serves everybody; each client's own conditions are looked at afterwards.
            fields = fields.copy()
            fields.remove(b"if-none-match", b"if-modified-since", b"if-range", b"range")
        if self._beginning is not None:
            fields = _asking_for_the_rest(fields, self._beginning)
        asked = Request(
            request.method, request.target, request.version, fields, request.scheme, request.authority, request.path
        )
        self._asker = exchange
        self._inner = inner = exchange.derive(asked, b"", self._responded, self._over_without_answer, outlives=True)
        if inner.timing is not None and exchange.timing is not None and not self.behind:
            inner.timing.fetch = exchange.timing.fetch
        try:
            self.caching.handler.handle(inner)
        except Exception as error:  # a handler that raises costs this fetch alone, and is answered with 500
            log.exception("exception while handling %r", asked)
            if not inner.status:
                inner.error = ReactorError("the handler failed")
            inner.failed(error)

    def _over_without_answer(self, inner: Exchange) -> None:
        if inner is self._inner:  # and not the first of two, where the conditions had to be left out
            answer_each(self._give_up, self._end_waiting())
            self._unpin()

    def _give_up(self, exchange: Exchange) -> None:
        failure = None if self._inner is None else self._inner.failure
        exchange.abort(failure or "the fetch was given up")

    def _end_waiting(self) -> list[Exchange]:
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return []
        if self._fill is None:
            self.caching.over(self)
        return list(waiting)

    def _unpin(self) -> None:
        pinned, self._pinned = self._pinned, []
        for content in pinned:
            content.release()

    # Answers.

    def _responded(self, inner: Exchange, head: Head, body: Body) -> None:
        try:
            self._answer(inner, head, body)
        finally:
            self._unpin()

    def _answer(self, inner: Exchange, head: Head, body: Body) -> None:
        verdict, now = self.verdict, inner.reactor.now
        self._came = head.status
        if inner.error is not None:
            self._failed(inner.error, head, body, now)
            return
        if self.request.method == b"HEAD":
            head, body = _without_body(head, body), b""
            if head.status == 200 and not self._tainted:
                self.caching.with_entries(self.key, partial(self._after_head, head.fields.copy(), inner.started, now))
        if isinstance(verdict, Revalidate):
            self._validated(verdict, inner, head, body, now)
        elif self._beginning is not None and head.status in (206, 416):
            self._complete(self._beginning, head, body, now)
        else:
            self._take(head, body, now)

    def _validated(self, verdict: Revalidate, inner: Exchange, head: Head, body: Body, now: float) -> None:
        caching, wall = self.caching, inner.reactor.wall
        outcome = validate(self.request, verdict, head.status, head.fields, inner.started, now, wall, caching.policy)
        if isinstance(outcome, Freshened):
            _close(body)
            caching.apply(outcome.updates)
            self._answer_from(outcome.entry, head.status, now)
        elif isinstance(outcome, Failed):
            _close(body)
            self._answer_from(outcome.stale.entry, head.status, now, outcome.stale.why)
        elif isinstance(outcome, Refetch):
            self._refetch(body)
        elif isinstance(outcome, Forward):
            self._hand_over(head, body, caching.handle)
        else:
            self._take(head, body, now)

    def _after_head(self, fields: Fields, sent: float, now: float, entries: Sequence[Entry]) -> None:
        """RFC 9111 section 4.3.5: an answer to HEAD freshens, or ends, what is stored for GET."""
        caching = self.caching
        caching.apply(after_head(self.request, entries, fields, sent, now, caching.reactor.wall, caching.policy))

    def _refetch(self, body: Body) -> None:
        """Ask again, for the whole, without conditions."""
        _close(body)
        verdict = self.verdict
        self.verdict = Miss(verdict.fwd, verdict.reason, verdict.section)
        self._own_conditions = False
        self._beginning = None
        assert self._asker is not None
        self.start(self._asker)

    def _complete(self, part: Entry, head: Head, body: Body, now: float) -> None:
        """RFC 9111 section 3.4: with what is stored, the rest is the whole, where both are of the same representation."""
        rest = self._storable(head)
        whole = combine(part, rest, self.request, self.caching.policy) if rest is not None else None
        if whole is None or whole.status != 200 or rest is None or _place(rest)[0] != _place(part)[1]:
            self._refetch(body)
            return
        stored = ContentSource(part.body, 0, _place(part)[1])
        head = Head(200, whole.fields.copy())
        head.fields.add(b"Age", b"%d" % whole.age(now))
        self._keep(whole, head, ChainSource(whole.length, [stored, body]), now)

    def _failed(self, error: ReactorError, head: Head, body: Body, now: float) -> None:
        """The handler made this answer itself, since the origin gave none: all who wait get it, or what is stale."""
        verdict = self.verdict
        unreachable = isinstance(error, UpstreamError)
        if type(verdict) is Revalidate:
            failed = None if unreachable else head.status
            stale = stale_on_error(self.request, verdict.entry, now, self.caching.policy, failed)
            if stale is not None:
                _close(body)
                self._answer_from(stale.entry, failed, now, stale.why)
                return
            status = failure_status(verdict.entry) if unreachable else None
            if status is not None and status != head.status:  # RFC 9111 section 5.2.2.2
                _close(body)
                head, body = error_page(status, f"upstream {error}")
        if isinstance(body, Source):  # one cannot be read by many
            body.close()
            head, body = error_page(head.status, str(error))
        answer_each(partial(self._answer_failure, error, head, body), self._end_waiting())

    def _answer_failure(self, error: ReactorError, head: Head, body: bytes, exchange: Exchange) -> None:
        self._tell(exchange)
        exchange.error = error
        exchange.respond(Head(head.status, head.fields.copy(), head.reason), body)

    def _answer_from(self, entry: Entry, fwd_status: int | None, now: float, why_stale: str | None = None) -> None:
        """A stored response, which was found good or may be stale, answers who asked, and whom else it may."""
        if entry.store is not None:
            entry.store.visited = True
        suiting, others = self._divided(entry, now if why_stale is None else None)
        heads = []
        for exchange in suiting:
            if why_stale is not None:
                exchange.verdict = "stale"
            elif exchange is self._asker:
                exchange.verdict = "revalidated"
            heads.append(Rendered(entry, now, self._status(exchange, fwd_status, entry.ttl(now), detail=why_stale)).head)
        answer_each(partial(self._answer_stored, entry), suiting, heads)
        self._send_on(entry, others)

    def _answer_stored(self, entry: Entry, exchange: Exchange, head: Head) -> None:
        self._tell(exchange)
        answer_conditionally(exchange, entry, head)

    def _divided(self, entry: Entry, now: float | None = None) -> tuple[list[Exchange], list[Exchange]]:
        """Those who wait: whom the response may answer, and the others. Without `now` its Vary alone decides."""
        suiting: list[Exchange] = []
        others: list[Exchange] = []
        for exchange in self._end_waiting():
            suits = self._suits(entry, exchange.request) if now is None else self._may_have(entry, exchange, now)
            (suiting if suits else others).append(exchange)
        return suiting, others

    def _send_on(self, entry: Entry, others: list[Exchange]) -> None:
        """Those of another variant wait for each other; where this very response is not for others, no next one will be."""
        for exchange in others:
            again = self.caching.alone if self._suits(entry, exchange.request) else self.caching.handle
            answer_each(again, [exchange])

    def _take(self, head: Head, body: Body, now: float) -> None:
        """A whole answer: stored and given to everybody, or to who asked for it alone."""
        entry = self._storable(head)
        if entry is not None and type(body) is bytes and not as_received(entry, len(body)):
            entry = None
        self._keep(entry, head, body, now)

    def _storable(self, head: Head) -> Entry | None:
        assert self._inner is not None
        return storable(self._inner, self.request, self.key, head, self.caching.policy)

    def _keep(self, entry: Entry | None, head: Head, body: Body, now: float) -> None:
        """Store what may be stored and has not changed meanwhile, and answer with it."""
        caching = self.caching
        writer = self._begin(entry, body)
        if entry is None or writer is None:
            self._not_stored(head, body, entry is None)
            return
        if not self.shared and self.request.method == b"GET":
            caching.unstorable.pop(self.key, None)
        if isinstance(body, bytes):
            self._forget_displaced(entry)
            writer.commit()
            self._answer_whole(entry, head, now)
            if entry.span is not None:
                caching.with_entries(self.key, partial(self._join_parts, entry))
        else:
            parts = caching.policy.store_partial
            self._fill = Fill(caching.reactor, entry, body, writer, self._fill_over, parts)
            self._fill.take_what_is_there()
            self._answer_readers(self._fill, head, now)

    def _not_stored(self, head: Head, body: Body, refused: bool) -> None:
        """What may not be shared goes to who asked for it; the others go on, each for itself."""
        caching, verdict, request = self.caching, self.verdict, self.request
        failed = head.status >= 500
        get = request.method == b"GET"  # what is stored for GET, an answer to HEAD ends in `_after_head` alone
        if type(verdict) is Revalidate and get and b"authorization" not in request.fields:
            caching.remove(outdated(verdict, head.status))
        if head.status == 304 and get and self._own_conditions:
            caching.mark_validated(self.key)
        # What one client brought upon itself, a HEAD, or an origin in trouble, says nothing of the next response.
        telling = get and not failed and self._tells_of_all(head)
        if self.shared and telling and not self._tainted:
            caching.unstorable.add(self.key, ONCE if refused else TOO_LARGE)
        elif refused and telling and head.status != 304:
            caching.unstorable.refused_again(self.key, request)
        alone = failed or self.part is not None
        self._hand_over(head, body, partial(caching.pass_on, fwd=verdict.fwd) if alone else caching.handle)

    def _tells_of_all(self, head: Head) -> bool:
        """Not of those ranges alone that were asked for: there may be none, or several."""
        return self.part is None or head.status == 200 or head.status == 206 and b"content-range" in head.fields

    def _hand_over(self, head: Head, body: Body, others_to: Callable[[Exchange], object]) -> None:
        waiting = self._end_waiting()
        asker = self._asker
        if asker is not None and asker in waiting:
            waiting.remove(asker)
            head = head.edited()
            head.fields.add(b"Cache-Status", self._status(asker))
            self._tell(asker)
            answer_each(Exchange.respond, [asker], [head], [body])
        else:
            _close(body)  # it was made for one who has left, with its cookies: nobody else may have it
        answer_each(others_to, waiting)

    def _answer_whole(self, entry: Entry, head: Head, now: float) -> None:
        suiting, others = self._divided(entry, now)
        content: Content = entry.body.acquire()  # answering may lead to another fetch, and that to evicting this entry
        heads = [self._head_for(exchange, entry, head, now) for exchange in suiting]
        answer_each(partial(self._give_whole, entry), suiting, heads)
        content.release()
        self._send_on(entry, others)

    def _give_whole(self, entry: Entry, exchange: Exchange, head: Head) -> None:
        self._tell(exchange)
        if is_special(exchange.request) and (entry.span is None or exchange.request is not self.request):
            answer_conditionally(exchange, entry, head)
            return
        body = entry.body.whole()
        exchange.respond(head, ContentSource(entry.body, 0, entry.body.size) if body is None else body)

    def _answer_readers(self, fill: Fill, head: Head, now: float) -> None:
        entry = fill.entry
        suiting, others = self._divided(entry, now)
        having: list[Exchange] = []
        reading: list[Exchange] = []
        for exchange in suiting:
            (having if has_it(exchange, entry) else reading).append(exchange)
        # All join before the first one reads: what it has read may be forgotten.
        readers = [fill.join() for _ in reading]
        if not suiting and not self.behind:
            fill.unread()
        elif not reading:
            fill.read_alone()
        heads = [self._head_for(exchange, entry, head, now) for exchange in reading]
        answer_each(self._give_reader, reading, heads, readers)
        answer_each(self._give_nothing, having, [self._head_for(exchange, entry, head, now) for exchange in having])
        self._send_on(entry, others)

    def _give_reader(self, exchange: Exchange, head: Head, reader: FillReader) -> None:
        self._tell(exchange)
        entry = reader.entry
        if b"range" in exchange.request.fields.index and entry.span is None and reader.length is not None:
            status, ranges = answer(exchange.request, entry, reader.length, exchange.reactor.wall)
            if status == 206 and len(ranges) == 1:
                head = part_head(head, ranges[0], reader.length)
                reader.only(*ranges[0])
                reader.want_all()
        exchange.respond(head, reader)

    def _give_nothing(self, exchange: Exchange, head: Head) -> None:
        """RFC 9111 section 4.3.2: what the client has is just what is arriving."""
        assert self._fill is not None
        self._tell(exchange)
        answer_not_modified(exchange, self._fill.entry, head)

    def _head_for(self, exchange: Exchange, entry: Entry, head: Head | None, now: float) -> Head:
        """The head as the origin sent it for who asked, as it is stored for the others; with what the cache did."""
        asked = exchange is self._asker
        if asked and head is not None:
            mine = head.edited()
        else:
            mine = Head(entry.status, entry.fields.copy(), entry.reason)
            if entry.span is not None:
                mine = part_head(mine, entry.span[:2], entry.span[2])
            mine.fields.add(b"Age", b"%d" % entry.age(now))
        # RFC 9211 section 2.3: what the origin said, where the client may get something else: a 206, a 304 or a 416 of a
        # 200, or the whole, of which a part came.
        other = self._came != entry.status or self._came != 206 and is_special(exchange.request)
        mine.fields.add(b"Cache-Status", self._status(exchange, self._came if other else None, entry.ttl(now), stored=True))
        return mine

    def _status(
        self, exchange: Exchange, fwd_status: int | None = None, ttl: int | None = None, stored: bool = False,
        detail: str | None = None,
    ) -> bytes:  # fmt: skip
        asked = exchange is self._asker
        status = forward_status(
            self.caching.name, self.verdict.fwd, fwd_status, stored=stored, collapsed=not asked, ttl=ttl, detail=detail,
            in_vain=self.in_vain and asked,
        )  # fmt: skip
        return self.caching.told(status, self.key)

    def _tell(self, exchange: Exchange) -> None:
        """The facts of the fetch are those of whoever it answers."""
        if self._inner is not None:
            exchange.upstream = self._inner.upstream

    def _fill_over(self, fill: Fill) -> None:
        self.caching.over(self)
        if fill.stored:
            if not self._tainted:
                self._forget_displaced(fill.entry)
                if fill.entry.span is not None:
                    self.caching.with_entries(self.key, partial(self._join_parts, fill.entry))
        elif fill.state == "complete":
            self.caching.unstorable.add(self.key, TOO_LARGE)

    def _forget_displaced(self, new: Entry) -> None:
        self.caching.with_entries(self.key, partial(self.caching.displace, self.request, new))

    def _join_parts(self, new: Entry, entries: Sequence[Entry]) -> None:
        """RFC 9111 section 3.4: parts of one representation become one, where they touch."""
        for old in selectable(self.request, [entry for entry in entries if entry is not new]):
            joined = combine(old, new, self.request, self.caching.policy)
            if joined is not None:
                lower, upper = sorted((old, new), key=_place)
                if self.caching.store.join(lower, upper, joined):
                    new = joined


def likely_vary(entries: Sequence[Entry], under_way: Iterable[SharedFetch]) -> tuple[bytes, ...] | None:
    """What the variants at hand vary on is what the one to come will most likely vary on."""
    for entry in [*reversed(entries), *[fetch.filling for fetch in under_way]]:
        if entry is not None and entry.vary:
            return entry.vary
    return None


def _asking_for_the_rest(fields: Fields, part: Entry) -> Fields:
    """RFC 9110 section 13.1.5: the rest of what is stored, or the whole where that is of another representation by now."""
    assert part.etag is not None
    fields = fields.copy()
    fields.set(b"Range", b"bytes=%d-" % _place(part)[1])
    fields.set(b"If-Range", part.etag)
    return fields


def _place(entry: Entry) -> tuple[int, int]:
    assert entry.span is not None
    return entry.span[:2]


def answer_each(answer: Callable[..., object], exchanges: Sequence[Exchange], *more: Sequence[Any]) -> None:
    """Answer one after the other; what goes wrong with one must not keep the others waiting."""
    for exchange, *rest in zip(exchanges, *more, strict=True):
        try:
            answer(exchange, *rest)
        except Exception as error:
            log.exception("exception while answering %r", exchange)
            for body in rest:
                if isinstance(body, Source):
                    body.close()
            exchange.failed(error)


def _without_body(head: Head, body: Body) -> Head:
    """RFC 9110 section 9.3.2: who answers HEAD as it does GET has a body for its length alone, which the head is to tell."""
    length = len(body) if isinstance(body, bytes) else body.length
    _close(body)
    if length and head.status != 304:
        head = head.edited()
        head.fields.set(b"Content-Length", b"%d" % length)
    return head


def _close(body: Body) -> None:
    if isinstance(body, Source):
        body.close()
