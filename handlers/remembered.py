"""What is remembered of files that were asked for: small ones with their bytes, larger ones with an open descriptor, both
with the serialized head.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from handlers.beneath import Opened
from reactor.errors import BodyCutShort
from reactor.exchange import Body, FileSource, Head
from reactor.http.dates import format_date
from reactor.http.fields import Fields
from reactor.http.negotiation import MEMO_VALUE_LENGTH, accepted_codings, coding_weight
from reactor.http.writer import status_line

SMALL = 16 * 1024  # bytes: a file up to this size is remembered whole and leaves in one send with its head
REMEMBERED = 512  # paths remembered; beyond it the one checked longest ago is forgotten
DESCRIPTORS = 128  # of larger files, kept open for remembered paths; beyond it likewise
CHOICES = 64  # Accept-Encoding values whose choice is remembered with a path, for that second
SETTLED = 2.0  # seconds since a file's change before its entity tag is strong: until then it may change unseen
EDGE = 4096  # bytes at either end of a larger file by which what was rewritten is told from what only grew
READ_AGAIN = 3  # times that a small file is read anew because it changed meanwhile


class File:
    """One representation: a file as it was when it was opened, and how it is answered.

    `stamp` tells whether it is still the same. A descriptor that is forgotten is closed once no response uses it.
    """

    __slots__ = (
        "fd", "body", "size", "stamp", "coding", "etag", "modified", "fields", "users", "forgotten",
        "_shared", "_young", "_since", "_edges",
    )  # fmt: skip

    def __init__(self, fd: int, status: os.stat_result, coding: bytes | None, wall: float) -> None:
        self.fd = fd
        self.body: bytes | None = None
        if status.st_size <= SMALL:
            status = self._read(status)
        self.size = status.st_size
        self.stamp = _stamp(status)
        self._edges: int | None = None  # as they were when it was first sent
        self.coding = coding
        self.modified = status.st_mtime
        self.users = 0
        self.forgotten = False
        self.fields = Fields()
        self._shared: list[tuple[bytes, bytes]] | None = None
        self._since = wall
        # RFC 9110 section 8.8.1: what may change again within the granularity of its clock has no strong validator.
        self._young = wall - status.st_mtime < SETTLED
        self.etag = b'%b"%x-%x-%x"' % (b"W/" if self._young else b"", status.st_ino, status.st_size, status.st_mtime_ns)

    def _read(self, status: os.stat_result) -> os.stat_result:
        """Take the whole file and close it. Where it will not hold still, it stays open and is sent like a large one."""
        try:
            for _ in range(READ_AGAIN):
                body = os.pread(self.fd, SMALL, 0)
                before, status = status, os.fstat(self.fd)
                if _stamp(before) == _stamp(status) and len(body) == status.st_size:
                    self.body = body
                    break
        except OSError:
            os.close(self.fd)
            raise
        if self.body is not None:
            os.close(self.fd)
            self.fd = -1
        return status

    def _read_edges(self) -> int:
        """The first and the last bytes of what is promised of an open file, as a hash."""
        size = min(EDGE, self.size)
        return hash((os.pread(self.fd, size, 0), os.pread(self.fd, size, self.size - size)))

    @classmethod
    def of(cls, opened: Opened, coding: bytes | None, before: list[File], wall: float) -> File:
        """What was just opened, or what is remembered of it already; takes the descriptor."""
        stamp = _stamp(opened.status)
        for file in before:
            if file.stamp == stamp and file.coding == coding and not file._young and file._since <= wall:
                os.close(opened.fd)
                return file
        return cls(opened.fd, opened.status, coding, wall)

    def describe(self, kind: bytes, shared: list[tuple[bytes, bytes]]) -> None:
        """Make the fields of a 200; `shared` are those of every representation of the path."""
        if shared == self._shared:
            return
        self._shared = shared
        self.fields = fields = Fields([(b"Content-Type", kind), (b"Accept-Ranges", b"bytes")])
        if self.coding is not None:
            fields.add(b"Content-Encoding", self.coding)
        fields.add(b"ETag", self.etag)
        modified = self.last_modified(self._since)
        if modified is not None:
            fields.add(b"Last-Modified", format_date(modified))
        for name, value in shared:
            fields.add(name, value)

    def last_modified(self, wall: float) -> int | None:
        """RFC 9110 section 8.8.2.1: never later than now; none where the date cannot be written."""
        return int(min(self.modified, wall)) if self.modified >= 0 else None

    def head(self, wall: float) -> Head:
        """The 200, serialized with this second's date."""
        lines = (
            status_line(200),
            self.fields.wire(),
            b"Date: %b\r\nContent-Length: %d\r\n\r\n" % (format_date(wall), self.size),
        )
        return Head(200, self.fields, wire=b"".join(lines))

    def content(self, start: int, stop: int, begun: bool = False) -> Body:
        """A part of it; where others were sent before (`begun`), it is looked at again, however short this one is."""
        if self.body is not None:
            return self.body[start:stop]
        if self._edges is None:
            self._edges = self._read_edges()
        return _FileBody(self, start, stop - start, begun)

    def unchanged(self) -> bool:
        """Whether the open file still is what its head says."""
        return self.body is not None or _stamp(os.fstat(self.fd)) == self.stamp

    def intact(self) -> bool:
        """Whether it was not rewritten since.

        What only grew, as a log does, begins with what was promised, and what was renamed or deleted is still there: its
        edges tell, whatever its times do.
        """
        status = os.fstat(self.fd)
        if _stamp(status) == self.stamp:
            return True
        renamed = (status.st_size, status.st_mtime_ns) == self.stamp[2:4]
        return (renamed or status.st_size > self.size) and self._read_edges() == self._edges

    def release(self) -> None:
        """Not remembered any more."""
        self.forgotten = True
        self.close_if_unused()

    def close_if_unused(self) -> None:
        if self.forgotten and not self.users and self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    # The time of the last status change shows a change whose author restored the modification time.
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


class _FileBody(FileSource):
    """A range of a remembered file, which stays open as long as this is."""

    __slots__ = ("_file", "_begun")

    def __init__(self, file: File, start: int, count: int, begun: bool = False) -> None:
        super().__init__(file.fd, start, count, owned=False)
        self._file: File | None = file
        self._begun = begun
        file.users += 1

    def pull(self, limit: int) -> bytes:
        begun, self._begun = self._begun, True
        piece = super().pull(limit)
        if begun and piece and self._pos == self._end and not self.intact():
            raise BodyCutShort("the file changed while it was read")
        return piece

    def intact(self) -> bool:
        return self._file is None or self._file.intact()

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.users -= 1
            file.close_if_unused()


class Resource:
    """What a path leads to, as of the second from `since` to `until` (seconds since the epoch).

    `plain` is the file itself, `head` its 200; `coded` are its precompressed neighbours.
    """

    __slots__ = ("plain", "coded", "head", "since", "until", "_coded_heads", "_chosen")

    def __init__(self, plain: File, coded: list[File], wall: float) -> None:
        self.plain = plain
        self.coded = coded
        self.head = plain.head(wall)
        self._coded_heads = [file.head(wall) for file in coded]
        self._chosen: dict[bytes, tuple[File, Head]] = {}  # by Accept-Encoding
        self.since = wall
        self.until = int(wall) + 1

    def files(self) -> list[File]:
        return [self.plain, *self.coded]

    def choose(self, value: bytes | None) -> tuple[File, Head]:
        """The representation that an Accept-Encoding value likes best; of equals the smallest (RFC 9110 section 12.5.3)."""
        if value is None:
            return self.plain, self.head
        chosen = self._chosen.get(value)
        if chosen is None:
            chosen = self._best(accepted_codings(value))
            if len(self._chosen) < CHOICES and len(value) <= MEMO_VALUE_LENGTH:
                self._chosen[value] = chosen
        return chosen

    def _best(self, accepted: Mapping[bytes, int]) -> tuple[File, Head]:
        best, head = self.plain, self.head
        rank = coding_weight(accepted, b"identity"), -best.size
        for file, its_head in zip(self.coded, self._coded_heads, strict=True):
            assert file.coding is not None
            weight = coding_weight(accepted, file.coding)
            if weight and (weight, -file.size) > rank:
                best, head, rank = file, its_head, (weight, -file.size)
        return best, head


class Remembered(dict[bytes, Resource]):
    """Resources by path, within REMEMBERED and DESCRIPTORS; the one that was put in last stands last."""

    descriptors = 0

    def put(self, path: bytes, resource: Resource) -> None:
        """In the place of what was remembered of the path; files that both have stay open."""
        old = self.pop(path, None)
        self[path] = resource
        self._count(resource, 1)
        if old is not None:
            self._let_go(old, resource.files())
        if len(self) > REMEMBERED:
            self.forget(next(iter(self)))
        while self.descriptors > DESCRIPTORS:
            self.forget(next(path for path, one in self.items() if any(file.body is None for file in one.files())))

    def forget(self, path: bytes) -> None:
        resource = self.pop(path, None)
        if resource is not None:
            self._let_go(resource)

    def forget_all(self) -> None:
        while self:
            self._let_go(self.popitem()[1])

    def _let_go(self, resource: Resource, kept: Sequence[File] = ()) -> None:
        self._count(resource, -1)
        for file in resource.files():
            if file not in kept:
                file.release()

    def _count(self, resource: Resource, change: int) -> None:
        self.descriptors += change * sum(file.body is None for file in resource.files())
