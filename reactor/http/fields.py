"""Field lines: order and spelling kept, looked up in lower case (RFC 9110 section 5)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from reactor.errors import ProtocolError
from reactor.http.grammar import FIELD_TABLE, OWS, TOKEN

Text = bytes | str

MEMO_LINES = 4096  # distinct field lines remembered; at the limit the memo starts anew
MEMO_LINE_LENGTH = 256  # bytes; longer lines are validated each time
MEMO_NAMES = 1024  # distinct spellings of names, each of at most MEMO_NAME_LENGTH bytes; then anew
MEMO_NAME_LENGTH = 64
# Values that are secret, or differ from message to message, are validated each time and never remembered.
ONE_OFF = frozenset(
    b"cookie set-cookie authorization proxy-authorization referer location etag if-none-match if-match if-range"
    b" last-modified content-range range x-request-id x-correlation-id traceparent x-forwarded-for".split()
)

# By these a request asks for other than a stored or a whole response as it is: conditions (RFC 9110 section 13.1), a range
# (section 14.2), directives for caches (RFC 9111 sections 5.2 and 5.4).
TERMS = frozenset(
    b"if-match if-none-match if-modified-since if-unmodified-since if-range range cache-control pragma".split()
)


class _LineMemo(dict[bytes, tuple[bytes, bytes]]):
    """Field line → (lower-case name, value), each distinct line validated once.

    Only lines spelled `Name: value` are remembered; `oddly_spaced` counts the others that were asked for.
    """

    oddly_spaced = 0

    def __missing__(self, line: bytes) -> tuple[bytes, bytes]:
        name, colon, value = line.partition(b": ")
        lower = _lower.get(name) or _read_name(name)
        if not colon or not lower or value.translate(FIELD_TABLE) != value or value.strip(OWS) != value:
            return self._read_oddly_spaced(line)
        pair = (lower, value)
        if lower not in ONE_OFF and len(line) <= MEMO_LINE_LENGTH:
            if len(self) >= MEMO_LINES:
                self.clear()
            self[line] = pair
        return pair

    def _read_oddly_spaced(self, line: bytes) -> tuple[bytes, bytes]:
        name, colon, value = line.partition(b":")
        lower = _lower.get(name) or _read_name(name)
        if not colon or not lower or value.translate(FIELD_TABLE) != value:
            raise ProtocolError(describe_bad_line(line))
        self.oddly_spaced += 1
        return lower, value.strip(OWS)


def _read_name(name: bytes) -> bytes:
    """The name in lower case, each spelling validated once; empty for what is no name."""
    if TOKEN.fullmatch(name) is None:
        return b""
    lower = name.lower()
    if len(name) <= MEMO_NAME_LENGTH:
        if len(_lower) >= MEMO_NAMES:
            _lower.clear()
        _lower[name] = lower
    return lower


_lower: dict[bytes, bytes] = {}
known_lines = _LineMemo()
parse_line = known_lines.__getitem__
"""A field line without its CRLF → (lower-case name, value without surrounding OWS); raises ProtocolError."""


def describe_bad_line(line: bytes) -> str:
    """Why a field line was refused, in words that may be shown to the peer."""
    name, colon, _ = line.partition(b":")
    if line[:1] in (b" ", b"\t"):
        return "obsolete line folding in a field"  # RFC 9112 section 5.2
    if b"\r" in line or b"\n" in line:
        return "bare CR or LF in a field line"  # RFC 9112 section 2.2
    if not colon:
        return "field line without a colon"
    if name[-1:] in (b" ", b"\t"):
        return "white space between field name and colon"  # RFC 9112 section 5.1
    return "invalid octet in a field line"


def _bytes(text: Text) -> bytes:
    if type(text) is bytes:
        return text
    try:
        return text.encode("latin-1")  # type: ignore[union-attr]
    except UnicodeEncodeError:
        raise ProtocolError("a field holds characters beyond Latin-1") from None


class Fields:
    """An ordered multi-map of field lines.

    Names and values are bytes; where a caller passes `str` it is encoded as Latin-1. Whatever is added is
    validated like what is received, so that no value can smuggle a line of its own (ProtocolError).

    `lines` (each without its CRLF) and `index` (lower-case name → value, several lines of one name joined by commas)
    are for reading alone: fields as received share their index with other messages until a method changes them.
    """

    __slots__ = ("index", "cut", "_lines")

    index: dict[bytes, bytes]
    # Of a request whose block of field lines is remembered: that block, the Cookie and Referer values that were cut out of
    # it, and whether it is without TERMS. None for all others, and once something was changed.
    cut: tuple[bytes, bytes | None, bytes | None, bool] | None
    # The lines; or a whole head as received and not yet cut into lines, no two of which then have the same name. In that
    # case `index` may be another message's too.
    _lines: list[bytes] | bytes

    def __init__(self, pairs: Iterable[tuple[Text, Text]] = ()) -> None:
        self.index = {}
        self.cut = None
        self._lines = []
        for name, value in pairs:
            self.add(name, value)

    @classmethod
    def from_lines(cls, lines: list[bytes]) -> Fields:
        """Validate raw lines (without their CRLF) and index them; raises ProtocolError.

        White space around values is made one space before and none behind.
        """
        self = cls.__new__(cls)
        self.cut = None
        self._lines = lines
        odd = known_lines.oddly_spaced
        self.index = index = dict(map(parse_line, lines))
        if known_lines.oddly_spaced != odd:
            self._lines = [_respaced(line) for line in lines]
        if len(index) != len(lines):
            self.index = _combined(lines)
        return self

    @property
    def lines(self) -> list[bytes]:
        """The lines as spelled, in order, without their CRLF."""
        lines = self._lines
        if type(lines) is bytes:
            self._lines = lines = lines[:-4].split(b"\r\n")[1:]
            self.index = dict(map(parse_line, lines))  # this message's own, in the order of its lines
        return lines  # type: ignore[return-value]

    def get(self, name: bytes, default: bytes | None = None) -> bytes | None:
        """The value of the lower-case `name`, several lines joined by commas (see get_all for Set-Cookie)."""
        return self.index.get(name, default)

    def get_all(self, name: bytes) -> list[bytes]:
        """The value of each line named `name` (lower case), in order."""
        if name not in self.index:
            return []
        pairs = map(parse_line, self.lines)
        return [value for found, value in pairs if found == name]

    def add(self, name: Text, value: Text) -> None:
        """Append a line, whether or not the name is there already."""
        line, lower, value = _line(name, value)
        self.append_valid(line, lower, value)

    def append_valid(self, line: bytes, lower: bytes, value: bytes) -> None:
        """Append a line whose parts the caller vouches for: `Name: value`, its name in lower case, its value."""
        lines = self._lines
        (self.lines if type(lines) is bytes else lines).append(line)  # type: ignore[union-attr]
        self.cut = None
        index = self.index
        index[lower] = index[lower] + b", " + value if lower in index else value

    def set(self, name: Text, value: Text) -> None:
        """Replace every line of that name by one at the end."""
        line, lower, value = _line(name, value)
        self.remove(lower)
        self.append_valid(line, lower, value)

    def setdefault(self, name: Text, value: Text) -> None:
        """Add a line unless the name is there already."""
        if _bytes(name).lower() not in self.index:
            self.add(name, value)

    def remove(self, *names: bytes) -> None:
        """Drop every line whose lower-case name is among `names`."""
        self.drop(frozenset(names))

    def drop(self, names: frozenset[bytes]) -> None:
        """The same of a set of names."""
        if names.isdisjoint(self.index):
            return
        lines = self.lines  # before the index, which may become another one here
        index = self.index
        self.cut = None
        if len(index) == len(lines):  # one line for each name, in the same order
            for name in names.intersection(index):
                del lines[list(index).index(name)]
                del index[name]
        else:
            self._lines = [line for line in lines if line[: line.index(b":")].lower() not in names]
            for name in names.intersection(index):
                del index[name]

    def copy(self) -> Fields:
        """A copy whose changes do not show here."""
        other = Fields.__new__(Fields)
        other.cut = self.cut
        lines = self._lines
        if type(lines) is bytes:
            other._lines, other.index = lines, self.index
        else:
            other._lines, other.index = lines.copy(), self.index.copy()  # type: ignore[union-attr]
        return other

    def states_terms(self) -> bool:
        """Whether one of the TERMS is there."""
        cut = self.cut
        return not (TERMS.isdisjoint(self.index) if cut is None else cut[3])

    def options(self, name: bytes) -> list[bytes]:
        """The members of a comma-separated list of tokens, in lower case, empty ones dropped (section 5.6.1)."""
        value = self.index.get(name)
        return [] if value is None else split_tokens(value)

    def wire(self) -> bytes:
        """Each line with its CRLF."""
        lines = self._lines
        if type(lines) is bytes:
            return lines[lines.index(b"\r\n") + 2 : -2]
        return b"\r\n".join(lines) + b"\r\n" if lines else b""  # type: ignore[arg-type]

    def __contains__(self, name: bytes) -> bool:
        return name in self.index

    def __getitem__(self, name: bytes) -> bytes:
        return self.index[name]

    def __len__(self) -> int:
        """The number of lines."""
        lines = self._lines
        return len(self.index) if type(lines) is bytes else len(lines)

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        """(name as spelled, value) of every line, in order."""
        for line in self.lines:
            name, value = parse_line(line)
            yield line[: len(name)], value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fields) and list(self) == list(other)

    def __repr__(self) -> str:
        return f"Fields({list(self)!r})"


def _respaced(line: bytes) -> bytes:
    name, _, value = line.partition(b":")
    return b"%b: %b" % (name, value.strip(OWS))


def split_tokens(value: bytes) -> list[bytes]:
    """The members of a comma-separated list, in lower case, empty ones dropped (RFC 9110 section 5.6.1.2)."""
    return [member for raw in value.lower().split(b",") if (member := raw.strip(OWS))]


def _combined(lines: list[bytes]) -> dict[bytes, bytes]:
    # RFC 9110 section 5.3: lines of one name are one list. Set-Cookie is the known exception: use get_all.
    values: dict[bytes, list[bytes]] = {}
    for line in lines:
        name, value = parse_line(line)
        values.setdefault(name, []).append(value)
    return {name: b", ".join(all_of_it) for name, all_of_it in values.items()}


def _line(name: Text, value: Text) -> tuple[bytes, bytes, bytes]:
    """A validated line, its lower-case name and its value; raises ProtocolError."""
    name = _bytes(name)
    line = b"%b: %b" % (name, _bytes(value).strip(OWS))
    lower, value = parse_line(line)
    if len(lower) != len(name):  # the name held a colon of its own
        raise ProtocolError("invalid field name")
    return line, lower, value
