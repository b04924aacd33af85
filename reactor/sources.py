"""Bodies made of other bodies."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from reactor.exchange import Body, Source, as_source


class ChainSource(Source):
    """Several bodies one after the other, as the parts of a multipart body are; owns them all.

    `length` is their sum in bytes, given by whoever knows it.
    """

    __slots__ = ("_now", "_parts", "_callback")

    def __init__(self, length: int | None, parts: Iterable[Body]) -> None:
        self._callback: Callable[[], object] | None = None
        self._now: Source | None = None
        self._parts = iter(parts)
        super().__init__(length)
        self._next()

    @property
    def on_ready(self) -> Callable[[], object] | None:
        """The consumer's, given to each part in turn, so that an exception in it costs the consumer."""
        return self._callback

    @on_ready.setter
    def on_ready(self, callback: Callable[[], object] | None) -> None:
        self._callback = callback
        if self._now is not None:
            self._now.on_ready = callback

    def _next(self) -> None:
        part = next(self._parts, None)
        self._now = None if part is None else as_source(part)
        if self._now is not None:
            self._now.on_ready = self._callback

    def pull(self, limit: int) -> bytes | memoryview | None:
        while self._now is not None:
            data = self._now.pull(limit)
            if data is None or len(data):
                return data
            self._drop_current()
            self._next()
        return b""

    def _drop_current(self) -> None:
        current, self._now = self._now, None
        if current is not None:
            current.on_ready = None
            current.close()

    def close(self) -> None:
        self._drop_current()
        rest, self._parts = self._parts, iter(())
        for part in rest:
            if isinstance(part, Source):
                part.close()
        self.on_ready = None
