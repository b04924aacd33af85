"""A body on its way into a file. What is not whole yet is called `NAME.part`, and takes its name only when it is.

Beside a part lies `NAME.part.json` while there is something to tell: the URL, and the validator of the version that it is a
part of. A later fetch goes on from there with Range and If-Range (RFC 9110 sections 13.1.5 and 14.2), so that no two versions
are ever joined: where the validator no longer holds, the origin sends the whole anew. Without a strong validator
(section 8.8.1), or where a content coding was undone, nothing is noted, and a part cannot be gone on with.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import stat
from contextlib import suppress
from typing import BinaryIO

from reactor.http.dates import parse_date
from reactor.http.parser import Response

NOTE_LIMIT = 64 * 1024  # bytes of a note that are read
_CONTENT_RANGE = re.compile(rb"bytes (?:([0-9]{1,16})-([0-9]{1,16})|\*)/([0-9]{1,16}|\*)")


class CannotResume(Exception):
    """The server did not send what was asked for; says what it did."""


class Download:
    """One file to be. Raises OSError wherever the file system says no."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._target = os.path.realpath(path)
        self.part = self._target + ".part"
        self._note = self.part + ".json"
        self._file: BinaryIO | None = None
        self._in_place = False  # a device or a FIFO, or a part of the user's own: written where it is
        self.size = 0  # bytes in the file
        self.kept = 0  # of them, those that were there before
        self._validator: str | None = None  # of the version that they are a part of
        self._whole: int | None = None  # bytes that the whole has, where only what is missing of it was asked for

    # What is there already.

    def resume_fields(self, url: str) -> list[tuple[str, str]]:
        """Range and If-Range for what is missing of an earlier part; none where it cannot be gone on with."""
        try:
            size = os.stat(self.part).st_size
            with open(self._note, "rb") as file:
                note = json.loads(file.read(NOTE_LIMIT))
            validator = note["validator"] if note["url"] == url else None
        except (OSError, ValueError, KeyError, TypeError):
            return []
        if not size or not isinstance(validator, str):
            return []
        self.kept, self._validator = size, validator
        return [("Range", f"bytes={size}-"), ("If-Range", validator)]

    def resume_at(self, offset: int) -> list[tuple[str, str]]:
        """Range for what is missing of a file that the user vouches for. Raises CannotResume."""
        before = self._stat()
        if offset > (before.st_size if before is not None else 0):
            raise CannotResume(f"{self.path} does not have {offset} bytes yet")
        self.kept = offset
        self._in_place = True
        return [("Range", f"bytes={offset}-")]

    # What comes.

    def begin(self, url: str, response: Response, decoded: bool) -> bool:
        """Open for the body of this response; False where there is nothing left to fetch. Raises CannotResume.

        206 goes on where the earlier part ends, 416 may say that it is whole, 200 starts from nothing.
        """
        if self.kept and response.status != 200:
            if response.status == 416 and content_range(response)[2] == self.kept:
                self.size = self.kept
                return False
            self._check_part(response)
        elif self.kept and self._in_place:
            raise CannotResume("the server does not send parts")
        else:
            self.kept = 0
        self._open()
        if not self._in_place:
            self._write_note(url, None if decoded or response.status not in (200, 206) else strong_validator(response))
        return True

    def _check_part(self, response: Response) -> None:
        """What came must be what is missing, and of the same version (RFC 9110 section 15.3.7.3)."""
        if response.status != 206:
            raise CannotResume(f"the server answered {response.status}, and what is there stays as it is")
        start, _, self._whole = content_range(response)
        if start != self.kept:
            raise CannotResume("the server sent another part than the one that was asked for")
        etag = response.fields.get(b"etag")
        if self._validator is not None and self._validator[:1] == '"' and etag not in (None, self._validator.encode("latin-1")):
            self._write_note("", None)
            raise CannotResume("the server sent a part of another version: the next try starts anew")

    def _open(self) -> None:
        before = self._stat()
        if before is not None and stat.S_ISDIR(before.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        special = before is not None and not stat.S_ISREG(before.st_mode)
        self._in_place = self._in_place or special
        path = self._target if self._in_place else self.part
        # Not truncated before it is locked, and never through a link that lies in the part's place.
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (0 if self._in_place else os.O_NOFOLLOW)
        file = open(os.open(path, flags, 0o666), "wb", buffering=0)
        try:
            if not special:
                self._settle(file.fileno(), before)
                file.seek(self.kept)
        except BaseException:  # KeyboardInterrupt too: nobody else knows of the file
            file.close()
            raise
        self._file, self.size = file, self.kept

    def _settle(self, fd: int, before: os.stat_result | None) -> None:
        """The file is ours alone, has the mode of the one that it replaces, and holds what is kept."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # two who wrote one part would make a third thing
        except BlockingIOError:
            raise OSError(errno.EBUSY, "another download is writing it") from None
        if os.fstat(fd).st_size < self.kept:
            raise CannotResume("it has become shorter meanwhile")
        if before is not None:
            os.fchmod(fd, stat.S_IMODE(before.st_mode))
        os.ftruncate(fd, self.kept)

    def _stat(self) -> os.stat_result | None:
        try:
            return os.stat(self._target)
        except FileNotFoundError:
            return None

    def write(self, data: bytes | memoryview) -> None:
        assert self._file is not None
        view = memoryview(data)
        while len(view):
            written = self._file.write(view)
            view = view[written:]
            self.size += written

    def finish(self, modified: float | None = None) -> None:
        """It is whole, and gets its name; `modified` is its time, in seconds since the epoch. Raises CannotResume."""
        if self._whole is not None and self.size != self._whole:
            raise CannotResume(f"the server sent less than what was missing of {self._whole} bytes")
        if self._file is not None:
            self._file.close()
            self._file = None
        if not self._in_place:
            os.replace(self.part, self._target)
            self._write_note("", None)
        if modified is not None:
            os.utime(self._target, (modified, modified))

    def break_off(self) -> str:
        """It is not whole; what there is to say about what came, which is kept."""
        if self._file is None:
            return ""
        self._file.close()
        self._file = None
        if self._in_place:
            return f"{self.path} holds {self.size} bytes of it"
        if not self.size:
            os.unlink(self.part)
            self._write_note("", None)
            return ""
        goes_on = "-C - goes on from there" if os.path.exists(self._note) else "without a validator nothing can go on from there"
        return f"{self.size} bytes of it are in {self.path}.part: {goes_on}"

    def _write_note(self, url: str, validator: str | None) -> None:
        if validator is None:
            with suppress(FileNotFoundError):
                os.unlink(self._note)
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        with open(os.open(self._note, flags, 0o666), "w") as file:
            json.dump({"url": url, "validator": validator}, file)


def strong_validator(response: Response) -> str | None:
    """What If-Range may name (RFC 9110 section 13.1.5): a strong ETag, else a Last-Modified that is strong."""
    fields = response.fields
    etag = fields.get(b"etag")
    if etag is not None:
        return etag.decode("latin-1") if etag[:1] == b'"' else None
    modified, date = fields.get(b"last-modified"), fields.get(b"date")
    if modified is None or date is None:
        return None
    # Section 8.8.2.2: strong where the origin's own clock was past that second when it answered.
    when, said = parse_date(modified, 0.0), parse_date(date, 0.0)
    return modified.decode("latin-1") if when is not None and said is not None and said > when else None


def content_range(response: Response) -> tuple[int | None, int | None, int | None]:
    """First byte, last byte and the whole's length, by Content-Range (RFC 9110 section 14.4); None for what is not told."""
    match = _CONTENT_RANGE.fullmatch(response.fields.get(b"content-range", b""))  # type: ignore[arg-type]
    if match is None:
        return None, None, None
    first, last, whole = match.groups()
    return int(first) if first else None, int(last) if last else None, int(whole) if whole != b"*" else None
