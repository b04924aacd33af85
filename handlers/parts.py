"""The parts that a command line makes a request's body of: texts, files, standard input."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from handlers.bodies import Gathering, PipeSource, ReadFileSource, StrippedSource, joined, stripped
from reactor.errors import BodyCutShort
from reactor.exchange import Body, FileSource, Source
from reactor.loop import Reactor

GATHER = 1024 * 1024  # bytes of a pipe that are awaited, so that a short body has a length; beyond, it is sent in chunks


@dataclass(frozen=True, slots=True)
class FilePart:
    """A regular file, opened when it is sent."""

    path: str


@dataclass(frozen=True, slots=True)
class InputPart:
    """Standard input; `strip` takes line ends out, `gather` gives it a length if it is short."""

    strip: bool = False
    gather: bool = True


Part = bytes | FilePart | InputPart


class Parts:
    """Makes the body of one request after the other; what was read whole from standard input is there for all of them."""

    def __init__(self, reactor: Reactor, parts: Sequence[Part], stdin: int, traced: bool) -> None:
        self.reactor = reactor
        self.parts = parts
        self._stdin = stdin
        self._file_source = ReadFileSource if traced else FileSource
        self._input: bytes | None = None  # standard input, once it was read whole
        self._gathering: Gathering | None = None

    def make_ready(self, on_ready: Callable[[Body], object], on_failed: Callable[[BodyCutShort], object]) -> None:
        """Call with the body, perhaps at once, or with what kept it from being made."""
        waits = any(isinstance(part, InputPart) and part.gather for part in self.parts)
        if not waits or self._input is not None:
            self._join(None, on_ready, on_failed)
            return

        def gathered(data: bytes, rest: Source | None) -> None:
            self._gathering = None
            self._input = data if rest is None else None
            self._join(None if rest is None else joined([data, rest]), on_ready, on_failed)

        try:
            self._gathering = Gathering(self._standard_input(), GATHER, gathered, on_failed)
        except BodyCutShort as error:
            on_failed(error)
            return
        self._gathering.start()

    def stop(self) -> None:
        """Give up waiting for standard input."""
        gathering, self._gathering = self._gathering, None
        if gathering is not None:
            gathering.stop()

    def _join(self, piped: Body | None, on_ready: Callable[[Body], object], on_failed: Callable[[BodyCutShort], object]) -> None:
        bodies: list[Body] = []
        try:
            for part in self.parts:
                bodies.append(self._body_of(part, piped))
        except BodyCutShort as error:
            for body in bodies:
                if isinstance(body, Source):
                    body.close()
            on_failed(error)
            return
        on_ready(bodies[0] if len(bodies) == 1 else joined(bodies))

    def _body_of(self, part: Part, piped: Body | None) -> Body:
        """`piped` is standard input where it was not whole when it was gathered. Raises BodyCutShort."""
        if isinstance(part, bytes):
            return part
        if isinstance(part, FilePart):
            return self._opened(part.path)
        found = piped or (self._input if part.gather and self._input is not None else self._standard_input())
        if not part.strip:
            return found
        return stripped(found) if isinstance(found, bytes) else StrippedSource(found)

    def _standard_input(self) -> Source:
        """Raises BodyCutShort where there is none."""
        try:
            status = os.fstat(self._stdin)
        except OSError as error:
            raise BodyCutShort(f"standard input: {error.strerror}") from None
        if not stat.S_ISREG(status.st_mode):
            return PipeSource(self.reactor, self._stdin)
        start = os.lseek(self._stdin, 0, os.SEEK_CUR)
        return self._file_source(self._stdin, start, max(0, status.st_size - start), owned=False)

    def _opened(self, path: str) -> Source:
        """Raises BodyCutShort."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise BodyCutShort(f"{path}: {error.strerror}") from None
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(fd)
            raise BodyCutShort(f"{path}: not a regular file")
        return self._file_source(fd, 0, status.st_size)
