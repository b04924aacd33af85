"""Forms: queries and urlencoded bodies at once, multipart/form-data (RFC 7578) as it arrives."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple
from urllib.parse import unquote_to_bytes

from reactor.errors import ProtocolError
from reactor.http.fields import Fields
from reactor.http.grammar import OWS
from reactor.http.parameters import split_parameters

MAX_PAIRS = 1000  # names of one query or form: 400
MAX_PARTS = 1000  # parts of one multipart body: 400
PART_HEAD = 8 * 1024  # bytes of one part's head: 400
PADDING = 64  # bytes of white space behind a delimiter: 400
MAX_BOUNDARY = 70  # RFC 2046 section 5.1.1


class Values(dict[str, str]):
    """The first value of each name; `pairs` has all of them in order."""

    __slots__ = ("pairs",)

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self.pairs = list(pairs)
        super().__init__(reversed(self.pairs))

    def get_all(self, name: str) -> list[str]:
        return [value for found, value in self.pairs if found == name]


def parse_urlencoded(data: bytes) -> Values:
    """application/x-www-form-urlencoded, in a query or a body, as UTF-8; what is no UTF-8 is replaced.

    Raises ProtocolError for more than MAX_PAIRS names.
    """
    if not data:
        return Values()
    if data.count(b"&") >= MAX_PAIRS:
        raise ProtocolError("too many names in the form")
    pairs = []
    for pair in data.split(b"&"):
        if pair:
            name, _, value = pair.partition(b"=")
            pairs.append((_decode(name), _decode(value)))
    return Values(pairs)


def _decode(text: bytes) -> str:
    return unquote_to_bytes(text.replace(b"+", b" ")).decode("utf-8", "replace")


class Part(NamedTuple):
    """The head of one part. `filename` is its last component, or None for what is no file: a name, never a path."""

    name: str
    filename: str | None
    content_type: bytes
    fields: Fields


class PartEnd(NamedTuple):
    """The part is whole."""


PART_END = PartEnd()

FormEvent = Part | bytes | PartEnd
_Step = FormEvent | Literal[True] | None

_DIRECTORIES = re.compile(r".*[/\\]", re.DOTALL)


class MultipartParser:
    """multipart/form-data, in any pieces.

    state        on                          → state, event
    preamble     a delimiter                 → delimiter
    delimiter    `--`                        → epilogue
    delimiter    white space, CRLF           → head
    head         an empty line               → body, Part
    body         bytes                       → body, bytes
    body         a delimiter                 → delimiter, PART_END
    epilogue     anything                    → epilogue

    What it keeps is never more than PART_HEAD and one piece.
    """

    __slots__ = ("_buffer", "_delimiter", "_parts", "state")

    def __init__(self, boundary: bytes) -> None:
        """Raises ProtocolError for a boundary that cannot be one."""
        if not 1 <= len(boundary) <= MAX_BOUNDARY or b"\r" in boundary or b"\n" in boundary:
            raise ProtocolError("no usable boundary for a multipart body")
        self._delimiter = b"\r\n--" + boundary
        self._buffer = bytearray(b"\r\n")  # the first delimiter may stand at the very beginning
        self._parts = 0
        self.state = "preamble"

    @classmethod
    def for_type(cls, content_type: bytes) -> MultipartParser:
        """A parser for a body of this Content-Type."""
        return cls(split_parameters(content_type)[1].get(b"boundary", b""))

    def feed(self, data: bytes | memoryview) -> Iterator[FormEvent]:
        """The events that these bytes complete; raises ProtocolError."""
        self._buffer += data
        while (event := _STEPS[self.state](self)) is not None:
            if event is not True:
                yield event

    def finish(self) -> None:
        """There is no more; raises ProtocolError where the last delimiter is missing."""
        if self.state != "epilogue":
            raise ProtocolError("the multipart body breaks off")

    # Each state's step: an event, True where it goes on without one, None where more bytes are needed.

    def _preamble(self) -> _Step:
        at = self._buffer.find(self._delimiter)
        if at < 0:
            del self._buffer[: max(0, len(self._buffer) - len(self._delimiter) + 1)]
            return None
        del self._buffer[: at + len(self._delimiter)]
        self.state = "delimiter"
        return True

    def _after_delimiter(self) -> _Step:
        if self._buffer.startswith(b"--"):
            self.state = "epilogue"
            return True
        end = self._buffer.find(b"\r\n")
        if (len(self._buffer) if end < 0 else end) > PADDING:
            raise ProtocolError("malformed delimiter in a multipart body")
        if end < 0:
            return None
        if self._buffer[:end].strip(OWS):
            raise ProtocolError("malformed delimiter in a multipart body")
        del self._buffer[:end]  # its CRLF stays: a part without fields has its empty line there
        self.state = "head"
        return True

    def _head(self) -> _Step:
        end = self._buffer.find(b"\r\n\r\n")
        if (len(self._buffer) if end < 0 else end) > PART_HEAD:
            raise ProtocolError("head of a part too large")
        if end < 0:
            return None
        lines = bytes(self._buffer[2:end]).split(b"\r\n")
        del self._buffer[: end + 4]
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise ProtocolError("too many parts in a multipart body")
        self.state = "body"
        return _part(Fields.from_lines(lines))

    def _body(self) -> _Step:
        buffer, delimiter = self._buffer, self._delimiter
        at = buffer.find(delimiter)
        if at == 0:
            del buffer[: len(delimiter)]
            self.state = "delimiter"
            return PART_END
        size = at if at > 0 else len(buffer) - len(delimiter) + 1
        if size <= 0:
            return None
        piece = bytes(buffer[:size])
        del buffer[:size]
        return piece

    def _epilogue(self) -> _Step:
        self._buffer.clear()
        return None


_STEPS = {
    "preamble": MultipartParser._preamble,
    "delimiter": MultipartParser._after_delimiter,
    "head": MultipartParser._head,
    "body": MultipartParser._body,
    "epilogue": MultipartParser._epilogue,
}


def _part(fields: Fields) -> Part:
    kind, parameters = split_parameters(fields.get(b"content-disposition", b"") or b"")
    if kind != b"form-data" or b"name" not in parameters:  # RFC 7578 section 4.2
        raise ProtocolError("a part of the form has no name")
    filename = parameters.get(b"filename")
    return Part(
        parameters[b"name"].decode("utf-8", "replace"),
        None if filename is None else _DIRECTORIES.sub("", filename.decode("utf-8", "replace")),
        fields.get(b"content-type", b"text/plain") or b"text/plain",
        fields,
    )
