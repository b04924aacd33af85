"""Files beneath a root: the server's Static handler.

Once a second at most the path is walked; a file that is still the same one keeps what is remembered of it.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Final

from handlers.beneath import Opened, Root, Walk
from handlers.listing import respond_listing
from handlers.media_types import media_type
from handlers.pages import method_refused, respond_error, respond_options, respond_redirect
from handlers.remembered import File, Remembered, Resource
from reactor.errors import ProtocolError
from reactor.exchange import Body, Exchange, Head
from reactor.http.conditional import evaluate, if_range
from reactor.http.fields import Fields
from reactor.http.paths import encode_segment, file_segments
from reactor.http.ranges import UNSATISFIABLE, Ranges, content_range, multipart, parse_range, unsatisfied_range
from reactor.sources import ChainSource

CODINGS: Final = ((b".br", b"br"), (b".zst", b"zstd"), (b".gz", b"gzip"))  # neighbours: ending, content coding
_ALLOWED = (b"GET", b"HEAD", b"OPTIONS")

INDEX = ("index.html",)  # names tried for a directory

# What a failed open means to the client. Anything else (EIO and its like) is raised: 500.
_STATUS = {
    errno.ENOENT: 404, errno.ENOTDIR: 404, errno.ENAMETOOLONG: 404, errno.ELOOP: 404, errno.EINVAL: 404, errno.ENXIO: 404,
    errno.EACCES: 403, errno.EPERM: 403, errno.EMFILE: 503, errno.ENFILE: 503,
}  # fmt: skip


class Static:
    """Answers GET and HEAD with the files beneath `root`.

    `mount` is the path that the root stands for; `index` the names tried for a directory; `max_age` seconds for
    Cache-Control, as (glob, seconds) pairs of which the first that matches counts (a glob with a slash is for the whole
    path, one without for the name, an empty one for everything). Raises ConfigError where `root` is no directory.
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
        max_age: Sequence[tuple[str, int]] = (),
    ) -> None:
        self._root = Root(root, follow_symlinks)
        self._mount = mount.rstrip(b"/")
        self._index = [os.fsencode(name) for name in index]
        self._listing = listing
        self._dot_files = dot_files
        self._max_age = max_age
        self._known = Remembered()

    def close(self) -> None:
        """Forget everything and give up the root; responses under way keep their files."""
        self._known.forget_all()
        self._root.close()

    def handle(self, exchange: Exchange) -> None:
        request = exchange.request
        method = request.method
        if method != b"GET" and method != b"HEAD":
            if method == b"OPTIONS":
                respond_options(exchange, _ALLOWED)
            else:
                respond_error(exchange, *method_refused(method, b", ".join(_ALLOWED)))
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

    def _respond_conditionally(self, exchange: Exchange, file: File, head: Head) -> None:
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

    def _respond_partially(self, exchange: Exchange, file: File, ranges: Ranges) -> None:
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

    def _look_up(self, exchange: Exchange, anew: bool = False) -> Resource | None:
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
                self._known.forget_all()
                return self._walk(exchange, path, names, as_directory)
        except ProtocolError as error:
            self._known.forget(path)
            respond_error(exchange, error.status, f"{error.reason[0].upper()}{error.reason[1:]}.")
        except OSError as error:
            self._known.forget(path)
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

    def _walk(self, exchange: Exchange, path: bytes, names: list[bytes], as_directory: bool) -> Resource | None:
        wall = exchange.reactor.wall
        with self._root.walk() as walk:
            found = walk.open(names)
            if found is not None:
                if as_directory:
                    os.close(found.fd)
                    raise NotADirectoryError(errno.ENOTDIR, "not a directory")
                return self._remember(path, names, found, walk, wall)
            self._known.forget(path)
            if not as_directory:
                respond_redirect(exchange, 301, self._location(exchange, names))
            elif (index := self._index_in(walk)) is not None and (found := walk.open([index])) is not None:
                return self._remember(path, [*names, index], found, walk, wall)
            elif self._listing:
                respond_listing(exchange, self._root, walk, self._mount, names, self._dot_files)
            else:
                respond_error(exchange, 403, "This directory has no index page, and its listing is off.")
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

    def _remember(self, path: bytes, names: list[bytes], found: Opened, walk: Walk, wall: float) -> Resource:
        old = self._known.get(path)
        before = old.files() if old is not None else []
        plain = File.of(found, None, before, wall)
        coded = self._neighbours(walk, found, before, wall)
        shared = self._shared_fields(names, bool(coded))
        kind = media_type(names[-1])
        for file in (plain, *coded):
            file.describe(kind, shared)
        resource = Resource(plain, coded, wall)
        self._known.put(path, resource)
        return resource

    def _neighbours(self, walk: Walk, found: Opened, before: list[File], wall: float) -> list[File]:
        """The precompressed files beside it. One that is older than what it was made from is out of date."""
        coded = []
        for ending, coding in CODINGS:
            try:
                beside = walk.sibling(found.name + ending)
            except OSError:
                continue  # none, or none that may be read
            if int(beside.status.st_mtime) < int(found.status.st_mtime):
                os.close(beside.fd)
            else:
                coded.append(File.of(beside, coding, before, wall))
        return coded

    def _shared_fields(self, names: list[bytes], varies: bool) -> list[tuple[bytes, bytes]]:
        fields = [(b"Vary", b"Accept-Encoding")] if varies else []
        seconds = self._seconds_fresh(names)
        if seconds is not None:
            fields.append((b"Cache-Control", b"max-age=%d" % seconds))
        return fields

    def _seconds_fresh(self, names: list[bytes]) -> int | None:
        path = b"/".join([self._mount[1:], *names] if self._mount else names).decode("utf-8", "surrogateescape")
        for pattern, seconds in self._max_age:
            if not pattern or fnmatchcase(path if "/" in pattern else path.rpartition("/")[2], pattern.removeprefix("/")):
                return seconds
        return None


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
