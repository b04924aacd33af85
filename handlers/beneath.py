"""Files opened beneath a directory, by names that a stranger chose.

Each name is opened relative to the directory before it, without following links; a link is read and its target
walked in the same way. So what was checked is what was opened, and a directory that is renamed or replaced by a link
meanwhile changes nothing.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import NamedTuple, Self

from reactor.errors import ConfigError

MAX_DEPTH = 64  # names walked for one path, those of links included; beyond it ELOOP. Bounds the open descriptors too.
MAX_LINKS = 16  # links followed for one path; beyond it ELOOP

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
# Without O_NONBLOCK the opening of a FIFO that took the file's place meanwhile would wait for a writer.
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class Opened(NamedTuple):
    """A regular file, open for reading; `name` is the one it has in the directory where the walk stands."""

    fd: int
    status: os.stat_result
    name: bytes


class Root:
    """A directory held open, so that it stays the same one whatever becomes of its path."""

    __slots__ = ("fd", "follow_links", "prefixes")

    def __init__(self, path: str | os.PathLike[str], follow_links: bool = False) -> None:
        """Raises ConfigError where `path` is no directory. With `follow_links`, links may lead anywhere."""
        try:
            self.fd = os.open(path, _DIRECTORY)
        except OSError as error:
            raise ConfigError(f"root {os.fspath(path)}: {error.strerror}") from None
        self.follow_links = follow_links
        # An absolute link stays within the root where its target begins with the root's own path.
        names = {os.fsencode(os.path.abspath(path)), os.fsencode(os.path.realpath(path))}
        self.prefixes = [name.rstrip(b"/") + b"/" for name in names]

    def walk(self) -> Walk:
        return Walk(self)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __repr__(self) -> str:
        return f"<Root {os.fsdecode(min(self.prefixes))}>"


class Walk:
    """One walk from the root; `here` is the directory it stands in. Use as a context manager."""

    __slots__ = ("_root", "_held", "_names_left", "_links_left")

    def __init__(self, root: Root) -> None:
        self._root = root
        self._held: list[int] = []  # directories between the root and here
        self._names_left = MAX_DEPTH
        self._links_left = MAX_LINKS

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._return_to_root()

    @property
    def here(self) -> int:
        """A descriptor of the directory where the walk stands, good for relative opening alone; closed with the walk."""
        return self._held[-1] if self._held else self._root.fd

    def open(self, names: list[bytes]) -> Opened | None:
        """Go on from here: a regular file, or None where the names lead to a directory, in which the walk then stands.

        Raises OSError as open(2) does; EACCES also for a link that leaves the root, and for what is neither file nor
        directory.
        """
        to_go = names[::-1]
        while to_go:
            name = to_go.pop()
            if name == b"" or name == b".":
                continue
            if name == b"..":
                self._up()
                continue
            if self._names_left == 0:
                raise OSError(errno.ELOOP, "too many names")
            self._names_left -= 1
            found = self._enter(name) if to_go else self._last(name)
            if isinstance(found, Opened):
                return found
            to_go += found
        return None

    def _enter(self, name: bytes) -> list[bytes]:
        """Step into a directory; what is to be walked instead, in reverse, where it is a link."""
        flags = _DIRECTORY if self._root.follow_links else _DIRECTORY | os.O_NOFOLLOW
        try:
            self._held.append(os.open(name, flags, dir_fd=self.here))
        except NotADirectoryError:
            if self._root.follow_links:
                raise
            return self._link(name)
        return []

    def _last(self, name: bytes) -> Opened | list[bytes]:
        mode = self._mode(name)
        if stat.S_ISREG(mode):
            return self._file(name)
        if stat.S_ISDIR(mode):
            return self._enter(name)
        if stat.S_ISLNK(mode):
            return self._link(name)
        raise PermissionError(errno.EACCES, "neither a file nor a directory")

    def sibling(self, name: bytes) -> Opened:
        """The regular file of that name in the directory where the walk stands, no link; raises OSError."""
        if not stat.S_ISREG(self._mode(name)):
            raise PermissionError(errno.EACCES, "not a regular file")
        return self._file(name)

    def _mode(self, name: bytes) -> int:
        """What is there, looked at before it is opened, since opening a device can be an act of its own."""
        return os.stat(name, dir_fd=self.here, follow_symlinks=self._root.follow_links).st_mode

    def _file(self, name: bytes) -> Opened:
        flags = _FILE if self._root.follow_links else _FILE | os.O_NOFOLLOW
        fd = os.open(name, flags, dir_fd=self.here)
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):  # it took the file's place meanwhile
            os.close(fd)
            raise PermissionError(errno.EACCES, "not a regular file")
        return Opened(fd, status, name)

    def _link(self, name: bytes) -> list[bytes]:
        """A link's target as the names to walk, in reverse; a relative one goes on from here."""
        try:
            target = os.readlink(name, dir_fd=self.here)
        except OSError as error:
            if error.errno == errno.EINVAL:  # no link at all: a file where a directory was asked for
                raise NotADirectoryError(errno.ENOTDIR, "not a directory") from None
            raise
        if self._links_left == 0:
            raise OSError(errno.ELOOP, "too many links")
        self._links_left -= 1
        if target.startswith(b"/"):
            target = self._beneath(target)
            self._return_to_root()
        return target.split(b"/")[::-1]

    def _beneath(self, target: bytes) -> bytes:
        for prefix in self._root.prefixes:
            if target.startswith(prefix):
                return target[len(prefix) :]
            if target + b"/" == prefix:
                return b""
        raise PermissionError(errno.EACCES, "a link leaves the root")

    def _up(self) -> None:
        if not self._held:
            raise PermissionError(errno.EACCES, "a link leaves the root")
        os.close(self._held.pop())

    def _return_to_root(self) -> None:
        while self._held:
            os.close(self._held.pop())
