"""Files beneath a root: the server's Static handler.

A file that was asked for is remembered: small ones with their bytes, larger ones with an open descriptor, both with
the serialized head. Once a second at most the path is walked again; a file that is still the same one keeps what was
remembered of it.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Final
from urllib.parse import parse_qs

from handlers.beneath import Opened, Root, Walk
from handlers.media_types import media_type
from handlers.pages import (
    Entry,
    respond_error,
    respond_listing,
    respond_method_not_allowed,
    respond_options,
    respond_redirect,
)
from reactor.errors import BodyCutShort, ProtocolError
from reactor.exchange import Body, Exchange, FileSource, Head
from reactor.http.conditional import evaluate, if_range
from reactor.http.dates import format_date
from reactor.http.fields import Fields
from reactor.http.negotiation import MEMO_VALUE_LENGTH, accepted_codings, coding_weight
from reactor.http.paths import encode_segment, file_segments
from reactor.http.ranges import UNSATISFIABLE, Ranges, content_range, multipart, parse_range, unsatisfied_range
from reactor.http.writer import status_line
from reactor.sources import ChainSource

SMALL = 16 * 1024  # bytes: a file up to this size is remembered whole and leaves in one send with its head
REMEMBERED = 512  # paths remembered; beyond it the one checked longest ago is forgotten
DESCRIPTORS = 128  # of larger files, kept open for remembered paths; beyond it likewise
CHOICES = 64  # Accept-Encoding values whose choice is remembered with a path, for that second
LISTED = 5000  # entries of a directory that a listing looks at
SETTLED = 2.0  # seconds since a file's change before its entity tag is strong: until then it may change unseen
EDGE = 4096  # bytes at either end of a larger file by which what was rewritten is told from what only grew
READ_AGAIN = 3  # times that a small file is read anew because it changed meanwhile

CODINGS: Final = ((b".br", b"br"), (b".zst", b"zstd"), (b".gz", b"gzip"))  # neighbours: ending, content coding
_ALLOWED = (b"GET", b"HEAD", b"OPTIONS")

INDEX = ("index.html",)  # names tried for a directory

MaxAge = int | Sequence[tuple[str, int]] | None

# What a failed open means to the client. Anything else (EIO and its like) is raised: 500.
_STATUS = {
    errno.ENOENT: 404, errno.ENOTDIR: 404, errno.ENAMETOOLONG: 404, errno.ELOOP: 404, errno.EINVAL: 404, errno.ENXIO: 404,
    errno.EACCES: 403, errno.EPERM: 403, errno.EMFILE: 503, errno.ENFILE: 503,
}  # fmt: skip


class _File:
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
    def of(cls, opened: Opened, coding: bytes | None, before: list[_File], wall: float) -> _File:
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

    def __init__(self, file: _File, start: int, count: int, begun: bool = False) -> None:
        super().__init__(file.fd, start, count, owned=False)
        self._file: _File | None = file
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


class _Resource:
    """What a path leads to, as of the second from `since` to `until` (seconds since the epoch).

    `plain` is the file itself, `head` its 200; `coded` are its precompressed neighbours.
    """

    __slots__ = ("plain", "coded", "head", "since", "until", "_coded_heads", "_chosen")

    def __init__(self, plain: _File, coded: list[_File], wall: float) -> None:
        self.plain = plain
        self.coded = coded
        self.head = plain.head(wall)
        self._coded_heads = [file.head(wall) for file in coded]
        self._chosen: dict[bytes, tuple[_File, Head]] = {}  # by Accept-Encoding
        self.since = wall
        self.until = int(wall) + 1

    def files(self) -> list[_File]:
        return [self.plain, *self.coded]

    def choose(self, value: bytes | None) -> tuple[_File, Head]:
        """The representation that an Accept-Encoding value likes best; of equals the smallest (RFC 9110 section 12.5.3)."""
        if value is None:
            return self.plain, self.head
        chosen = self._chosen.get(value)
        if chosen is None:
            chosen = self._best(accepted_codings(value))
            if len(self._chosen) < CHOICES and len(value) <= MEMO_VALUE_LENGTH:
                self._chosen[value] = chosen
        return chosen

    def _best(self, accepted: Mapping[bytes, int]) -> tuple[_File, Head]:
        best, head = self.plain, self.head
        rank = coding_weight(accepted, b"identity"), -best.size
        for file, its_head in zip(self.coded, self._coded_heads, strict=True):
            assert file.coding is not None
            weight = coding_weight(accepted, file.coding)
            if weight and (weight, -file.size) > rank:
                best, head, rank = file, its_head, (weight, -file.size)
        return best, head


class Static:
    """Answers GET and HEAD with the files beneath `root`.

    `mount` is the path that the root stands for; `index` the names tried for a directory; `max_age` seconds for
    Cache-Control, for everything or as (glob, seconds) pairs of which the first that matches counts (a glob with a slash
    is for the whole path, one without for the name, an empty one for everything). Raises ConfigError where `root` is no
    directory.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        mount: bytes = b"/",
        index: Sequence[str] = INDEX,
        listing: bool = False,
        follow_symlinks: bool = False,
        dot_files: bool = False,
        precompressed: bool = True,
        max_age: MaxAge = None,
    ) -> None:
        self._root = Root(root, follow_symlinks)
        self._mount = mount.rstrip(b"/")
        self._index = [os.fsencode(name) for name in index]
        self._listing = listing
        self._dot_files = dot_files
        self._codings = CODINGS if precompressed else ()
        self._max_age = max_age
        self._known: dict[bytes, _Resource] = {}
        self._descriptors = 0

    def close(self) -> None:
        """Forget everything and give up the root; responses under way keep their files."""
        self._forget_all()
        self._root.close()

    def handle(self, exchange: Exchange) -> None:
        request = exchange.request
        method = request.method
        if method != b"GET" and method != b"HEAD":
            if method == b"OPTIONS":
                respond_options(exchange, _ALLOWED)
            else:
                respond_method_not_allowed(exchange, _ALLOWED)
            return
        resource = self._known.get(request.path)
        if resource is None or not resource.since <= exchange.reactor.wall < resource.until:
            resource = self._look_up(exchange)
            if resource is None:
                return
        index = request.fields.index
        accepted = index.get(b"accept-encoding")
        file, head = resource.choose(accepted) if resource.coded else (resource.plain, resource.head)
        if file.body is None and not file.unchanged():
            resource = self._look_up(exchange, anew=True)
            if resource is None:
                return
            file, head = resource.choose(accepted)
        if (
            b"if-none-match" in index
            or b"if-modified-since" in index
            or b"range" in index
            or b"if-match" in index
            or b"if-unmodified-since" in index
        ):
            self._respond_conditionally(exchange, file, head)
        else:
            exchange.respond(head, file.content(0, file.size) if file.body is None else file.body)

    # Preconditions and ranges.

    def _respond_conditionally(self, exchange: Exchange, file: _File, head: Head) -> None:
        request, wall = exchange.request, exchange.reactor.wall
        modified = file.last_modified(wall)
        status = evaluate(request.method, request.fields, file.etag, modified, wall)
        if status == 304:
            exchange.respond(_not_modified(file.fields))
        elif status == 412:
            respond_error(exchange, 412, "The file is not in the state that the request asks for.")
        elif (
            request.method == b"GET"  # RFC 9110 section 14.2: defined for GET alone
            and b"range" in request.fields
            and if_range(request.fields, file.etag, modified, wall)
            and (ranges := parse_range(request.fields[b"range"], file.size)) is not None
        ):
            self._respond_partially(exchange, file, ranges)
        else:
            exchange.respond(head, file.content(0, file.size))

    def _respond_partially(self, exchange: Exchange, file: _File, ranges: Ranges) -> None:
        if ranges is UNSATISFIABLE:
            fields = [(b"Content-Range", unsatisfied_range(file.size))]
            respond_error(exchange, 416, f"The file has {file.size} bytes.", fields)
            return
        partial = file.fields.copy()
        if len(ranges) == 1:
            start, stop = ranges[0]
            partial.add(b"Content-Range", content_range(start, stop, file.size))
            exchange.respond(Head(206, partial), file.content(start, stop))
            return
        layout = multipart(ranges, file.size, partial[b"content-type"], secrets.token_hex(16).encode("ascii"))
        partial.set(b"Content-Type", layout.content_type)
        parts: list[Body] = []
        for number, (part_head, start, stop) in enumerate(layout.parts, 1):
            parts += (part_head, file.content(start, stop, number == len(layout.parts)))
        exchange.respond(Head(206, partial), ChainSource(layout.length, [*parts, layout.end]))

    # From a path to a resource.

    def _look_up(self, exchange: Exchange, anew: bool = False) -> _Resource | None:
        """Walk to what the path names and remember it; where that is no file, answer at once and return None."""
        target, wall = exchange.request.path, exchange.reactor.wall
        path = target.partition(b"?")[0]
        known = self._known.get(path)
        if known is not None and not anew and known.since <= wall < known.until:
            return known
        try:
            names, as_directory = self._names(path)
            try:
                return self._walk(exchange, path, names, as_directory)
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE):
                    raise
                self._forget_all()
                return self._walk(exchange, path, names, as_directory)
        except ProtocolError as error:
            self._forget(path)
            respond_error(exchange, error.status, f"{error.reason[0].upper()}{error.reason[1:]}.")
        except OSError as error:
            self._forget(path)
            _respond_os_error(exchange, error)
        return None

    def _names(self, path: bytes) -> tuple[list[bytes], bool]:
        """The file names that a path is made of, and whether it ends as a directory's; raises ProtocolError."""
        mount = self._mount
        if not path.startswith(mount) or path[len(mount) : len(mount) + 1] not in (b"", b"/"):
            raise ProtocolError("nothing is served here", 404)
        names, as_directory = file_segments(path[len(mount) :])
        if not self._dot_files:
            # RFC 8615: what lies in /.well-known is there to be read.
            shown = names[1:] if names and names[0] == b".well-known" and not mount else names
            if any(name.startswith(b".") for name in shown):
                raise ProtocolError("there is no such file", 404)
        return names, as_directory

    def _walk(self, exchange: Exchange, path: bytes, names: list[bytes], as_directory: bool) -> _Resource | None:
        with self._root.walk() as walk:
            found = walk.open(names)
            if found is not None:
                if as_directory:
                    os.close(found.fd)
                    raise NotADirectoryError(errno.ENOTDIR, "not a directory")
                return self._remember(path, names, found, walk, exchange.reactor.wall)
            self._forget(path)
            if not as_directory:
                respond_redirect(exchange, 301, self._location(exchange, names))
                return None
            index = self._index_in(walk)
            if index is not None:
                found = walk.open([index])
            if index is not None and found is not None:
                return self._remember(path, [*names, index], found, walk, exchange.reactor.wall)
            if not self._listing:
                respond_error(exchange, 403, "This directory has no index page, and its listing is off.")
                return None
            self._list(exchange, names, walk)
        return None

    def _location(self, exchange: Exchange, names: list[bytes]) -> bytes:
        """A directory's own path, with its slash. It begins with one slash alone, so that it names no other host."""
        query = exchange.request.path.partition(b"?")
        return b"%b/%b%b%b" % (self._mount, b"".join(encode_segment(name) + b"/" for name in names), query[1], query[2])

    def _index_in(self, walk: Walk) -> bytes | None:
        for name in self._index:
            try:
                mode = os.stat(name, dir_fd=walk.here, follow_symlinks=False).st_mode
            except FileNotFoundError:
                continue
            if not stat.S_ISDIR(mode):
                return name
        return None

    # What is remembered.

    def _remember(self, path: bytes, names: list[bytes], found: Opened, walk: Walk, wall: float) -> _Resource:
        old = self._known.get(path)
        before = old.files() if old is not None else []
        plain = _File.of(found, None, before, wall)
        coded = self._neighbours(walk, found, before, wall)
        shared = self._shared_fields(names, bool(coded))
        kind = media_type(names[-1])
        for file in (plain, *coded):
            file.describe(kind, shared)
        self._known.pop(path, None)  # so that what is checked last stands last
        resource = self._known[path] = _Resource(plain, coded, wall)
        after = resource.files()
        self._count(before, -1)
        self._count(after, 1)
        for file in before:
            if file not in after:
                file.release()
        self._keep_bounds()
        return resource

    def _neighbours(self, walk: Walk, found: Opened, before: list[_File], wall: float) -> list[_File]:
        """The precompressed files beside it. One that is older than what it was made from is out of date."""
        coded = []
        for ending, coding in self._codings:
            try:
                beside = walk.sibling(found.name + ending)
            except OSError:
                continue  # none, or none that may be read
            if int(beside.status.st_mtime) < int(found.status.st_mtime):
                os.close(beside.fd)
            else:
                coded.append(_File.of(beside, coding, before, wall))
        return coded

    def _shared_fields(self, names: list[bytes], varies: bool) -> list[tuple[bytes, bytes]]:
        fields = [(b"Vary", b"Accept-Encoding")] if varies else []
        seconds = self._seconds_fresh(names)
        if seconds is not None:
            fields.append((b"Cache-Control", b"max-age=%d" % seconds))
        return fields

    def _seconds_fresh(self, names: list[bytes]) -> int | None:
        if self._max_age is None or isinstance(self._max_age, int):
            return self._max_age
        path = b"/".join([self._mount[1:], *names] if self._mount else names).decode("utf-8", "surrogateescape")
        for pattern, seconds in self._max_age:
            if not pattern or fnmatchcase(path if "/" in pattern else path.rpartition("/")[2], pattern.removeprefix("/")):
                return seconds
        return None

    def _count(self, files: list[_File], change: int) -> None:
        for file in files:
            if file.body is None:
                self._descriptors += change

    def _keep_bounds(self) -> None:
        known = self._known
        if len(known) > REMEMBERED:
            self._forget(next(iter(known)))
        while self._descriptors > DESCRIPTORS:
            self._forget(
                next(path for path, resource in known.items() if any(file.body is None for file in resource.files()))
            )

    def _forget(self, path: bytes) -> None:
        resource = self._known.pop(path, None)
        if resource is not None:
            self._count(resource.files(), -1)
            for file in resource.files():
                file.release()

    def _forget_all(self) -> None:
        for path in list(self._known):
            self._forget(path)

    # Listings.

    def _list(self, exchange: Exchange, names: list[bytes], walk: Walk) -> None:
        entries: list[Entry] = []
        fd = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=walk.here)
        try:
            with os.scandir(fd) as found:
                whole = self._read_directory(found, names, entries)
        finally:
            os.close(fd)
        query = parse_qs(exchange.request.path.partition(b"?")[2].decode("ascii", "replace"))
        column, order = query.get("sort", ["name"])[0], query.get("order", ["asc"])[0]
        respond_listing(exchange, self._mount, names, entries, whole, column, order == "desc")

    def _read_directory(self, found: Iterator[os.DirEntry[str]], names: list[bytes], entries: list[Entry]) -> bool:
        """Whether the end of the directory was reached within LISTED entries."""
        for count, item in enumerate(found):
            if count == LISTED:
                return False
            if item.name.startswith(".") and not self._dot_files:
                continue
            name = os.fsencode(item.name)
            try:
                if item.is_symlink():
                    status = self._status_beneath([*names, name])
                else:
                    status = item.stat(follow_symlinks=False)
            except OSError:
                continue  # gone meanwhile, or a link that leads nowhere or out of the root
            if stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode):
                entries.append(Entry(name, stat.S_ISDIR(status.st_mode), status.st_size, status.st_mtime))
        return True

    def _status_beneath(self, names: list[bytes]) -> os.stat_result:
        with self._root.walk() as walk:
            found = walk.open(names)
            if found is None:
                return os.stat(walk.here)
            os.close(found.fd)
            return found.status


def _not_modified(fields: Fields) -> Head:
    """RFC 9110 section 15.4.5: of the 200's fields, those that a cache would update its own by."""
    return Head(
        304, [(name, fields[name.lower()]) for name in (b"ETag", b"Cache-Control", b"Vary") if name.lower() in fields]
    )


def _respond_os_error(exchange: Exchange, error: OSError) -> None:
    status = _STATUS.get(error.errno or 0)
    if status is None:
        raise error
    if status == 404:
        respond_error(exchange, 404, "There is no such file.")
    elif status == 403:
        respond_error(exchange, 403, "This may not be read.")
    else:
        respond_error(exchange, 503, "The server has no file descriptor left.", [(b"Retry-After", b"1")])
