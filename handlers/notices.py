"""What the client tells a person on standard error: complaints, heads, and a bar where there is a terminal for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

from handlers.terminal import BAR_EVERY, Progress, columns_of, shown_head, visible, wants_colour
from reactor.loop import Reactor, Timer

Measured = tuple[int, int | None, int] | None  # as Progress.tick takes it: bytes done, in all, there before


class Notices:
    """Writes to `err`, which may be closed: then nobody listens, and the exit code tells."""

    def __init__(self, reactor: Reactor, err: BinaryIO) -> None:
        self.reactor = reactor
        self._err = err
        self._progress: Progress | None = None
        self._ticker: Timer | None = None

    def complain(self, text: str) -> None:
        self._tell(f"reactor: {visible(text, newlines=False)}\n")

    def head(self, mark: str, head: bytes) -> None:
        """The lines of a head, each behind `mark`."""
        if self._err.isatty():
            self._tell(shown_head(head, mark, wants_colour()))
        else:
            self._tell(b"".join(mark.encode() + line + b"\n" for line in head.split(b"\r\n")[:-1]))

    def _tell(self, text: str | bytes) -> None:
        if self._progress is not None:
            self._progress.clear()
        self._put(text)

    def _put(self, text: str | bytes) -> None:
        try:
            self._err.write(text if isinstance(text, bytes) else text.encode("utf-8", "backslashreplace"))
            self._err.flush()
        except OSError:
            pass  # nobody listens

    def begin_progress(self, measure: Callable[[], Measured]) -> None:
        """A bar, on a terminal, of what `measure` tells now and then, until `end_progress`."""
        if self._err.isatty():
            self._progress = Progress(self._put, columns_of(self._err), lambda: self.reactor.now)
            self._ticker = self.reactor.call_later(BAR_EVERY, self._tick, measure)

    def _tick(self, measure: Callable[[], Measured]) -> None:
        measured = measure()
        if self._progress is not None and measured is not None:
            self._progress.tick(*measured)
        self._ticker = self.reactor.call_later(BAR_EVERY, self._tick, measure)

    def end_progress(self) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None
        if self._progress is not None:
            self._progress.clear()
            self._progress = None
