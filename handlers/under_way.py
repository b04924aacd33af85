"""A request on its way to the handler behind the cache, whose answer may be stored unless something changes meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.entry import Entry
from cache.fill import Fill
from cache.stores.memory import Writer
from reactor.exchange import Body
from reactor.http.parser import Request

if TYPE_CHECKING:
    from handlers.caching import Caching


class UnderWay:
    """What an unsafe request taints (RFC 9111 section 4.4) while it stands in one of the tables of `caching`."""

    __slots__ = ("caching", "key", "request", "_fill", "_tainted", "_gone_groups")

    def __init__(self, caching: Caching, key: bytes, request: Request) -> None:
        self.caching = caching
        self.key = key
        self.request = request
        self._fill: Fill | None = None
        self._tainted = False  # an unsafe method was answered meanwhile: what comes may be old already
        self._gone_groups: frozenset[bytes] = frozenset()  # groups that were invalidated meanwhile (RFC 9875)

    def taint(self) -> None:
        """What is being fetched may have been made before it was changed: nobody else may have it."""
        self._tainted = True
        if self._fill is not None:
            self._fill.entry.invalidate()
        self.caching.over(self)

    def taint_groups(self, groups: frozenset[bytes]) -> None:
        """The same of everything in these groups; what has no head yet may turn out to be in one (RFC 9875 section 3)."""
        if self._fill is None:
            self._gone_groups |= groups
        elif not groups.isdisjoint(self._fill.entry.groups):
            self.taint()

    def _begin(self, entry: Entry | None, body: Body) -> Writer | None:
        """A writer for what may be stored and has not changed meanwhile; it has the body already where that is here."""
        if entry is not None and not self._gone_groups.isdisjoint(entry.groups):
            self.taint()
        if entry is None or self._tainted:
            return None
        length = len(body) if isinstance(body, bytes) else body.length
        writer = self.caching.store.begin(self.key, entry, length)
        if writer is not None and isinstance(body, bytes) and not writer.write(body):
            writer.discard()
            return None
        return writer
