"""What a hook may await: time to pass, and a body to be read to its end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator

from reactor.errors import BodyCutShort
from reactor.exchange import PULL, Source
from reactor.loop import Reactor, Timer

log = logging.getLogger("handlers.script")


class Wait:
    """What a hook may await. `start` says whether it is over at once; if not, the loop calls `wake` unless it is cancelled."""

    def __await__(self) -> Generator[Wait, None, None]:
        yield self

    def start(self, wake: Callable[[], object]) -> bool:
        raise NotImplementedError

    def cancel(self) -> None:
        raise NotImplementedError


class Delay(Wait):
    """Time to pass. One that is not awaited, and so stays among the `pending` ones, holds the exchange up after its hook."""

    def __init__(self, reactor: Reactor, seconds: float, pending: list[Delay]) -> None:
        self.seconds = seconds
        self._reactor = reactor
        self._pending = pending
        self._timer: Timer | None = None
        pending.append(self)

    def start(self, wake: Callable[[], object]) -> bool:
        if self in self._pending:
            self._pending.remove(self)
        self._timer = self._reactor.call_later(self.seconds, wake)
        return False

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


class Whole(Wait):
    """A body to be read to its end, within a limit in bytes."""

    def __init__(self, source: Source, limit: int) -> None:
        self.pieces: list[bytes] = []
        self.too_large = False
        self.cut: BodyCutShort | None = None
        self._source = source
        self._limit = limit
        self._size = 0
        self._wake: Callable[[], object] | None = None

    def start(self, wake: Callable[[], object]) -> bool:
        self._wake = wake
        self._source.on_ready = self._ready
        if self._read():
            self.cancel()
            return True
        return False

    def _read(self) -> bool:
        if self._source.length is not None and self._source.length > self._limit:
            self.too_large = True
            return True
        while True:
            try:
                data = self._source.pull(PULL)
            except BodyCutShort as error:
                self.cut = BodyCutShort(error.reason, error.status)  # without the frames, which refer to this
                return True
            except Exception:  # whatever a body raises costs its own exchange alone
                log.exception("exception in %r", self._source)
                self.cut = BodyCutShort("the server failed", 500)
                return True
            if data is None:
                return False
            if not len(data):
                return True
            self.pieces.append(bytes(data))
            self._size += len(data)
            if self._size > self._limit:
                self.too_large = True
                return True

    def _ready(self) -> None:
        wake = self._wake
        if wake is not None and self._read():
            self.cancel()
            wake()

    def cancel(self) -> None:
        self._wake = self._source.on_ready = None
