"""The body of a transfer's response, decoded, and cut where its time is up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reactor.errors import BodyCutShort
from reactor.exchange import Source, WrappedSource
from reactor.http.codings import Decoder

if TYPE_CHECKING:
    from handlers.client import Transfer


class TransferBody(WrappedSource):
    """Decodes by `decoder`, if there is one. Its end, and its close, are the transfer's."""

    __slots__ = ("_transfer", "_decoder", "_cut", "_waiting")

    def __init__(self, transfer: Transfer, inner: Source, decoder: Decoder | None) -> None:
        super().__init__(inner, inner.length if decoder is None else None)
        self._transfer: Transfer | None = transfer
        self._decoder = decoder
        self._cut: BodyCutShort | None = None
        self._waiting = False

    def pull(self, limit: int) -> bytes | memoryview | None:
        if self._cut is not None:
            raise self._cut
        try:
            data = self._inner.pull(limit) if self._decoder is None else self._decoded(self._decoder, limit)
        except BodyCutShort as error:
            self._cut = error
            self._inner.close()
            self._over()
            raise
        self._waiting = data is None
        if data is not None and not len(data):
            self.trailers = self._inner.trailers
            self._over()
        return data

    def _decoded(self, decoder: Decoder, limit: int) -> bytes | None:
        while not (data := decoder.read(limit)):
            more = self._inner.pull(limit)
            if more is None:
                return None
            if not len(more):
                decoder.finish()
                return b""
            decoder.feed(more)
        return data

    def cut(self, reason: str) -> None:
        """The time is up: whoever reads sees the body break off."""
        self._cut = BodyCutShort(reason, 504)
        on_ready, transfer = self.on_ready, self._transfer
        self._inner.close()
        self._over()
        if self._waiting and on_ready is not None and transfer is not None:
            transfer.client.reactor.call_soon(on_ready)

    def close(self) -> None:
        self._inner.close()
        self._over()

    def _over(self) -> None:
        transfer, self._transfer = self._transfer, None
        if transfer is not None:
            transfer.over()
