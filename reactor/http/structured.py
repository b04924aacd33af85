"""Structured field values: RFC 9651 (which obsoletes RFC 8941), parsed strictly and written canonically.

An integer is an `int`, a decimal a `decimal.Decimal`, a string a `str`, a byte sequence `bytes`, a boolean a `bool`;
tokens, dates and display strings have types of their own. A field that does not parse is to be ignored as a whole
(section 4.2): every parser here raises ProtocolError for it.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Decimal
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from reactor.errors import ProtocolError

MAX_INTEGER = 999_999_999_999_999  # section 3.3.1: fifteen digits, either sign
MAX_WHOLE_DIGITS = 12  # of a decimal (section 3.3.2)
_THOUSANDTH = Decimal("0.001")


class Token(str):
    """A short word without quotes (section 3.3.4)."""

    __slots__ = ()


class Date(int):
    """Seconds since the epoch (section 3.3.7)."""

    __slots__ = ()


class DisplayString(str):
    """Text beyond ASCII (section 3.3.8)."""

    __slots__ = ()


BareItem = bool | int | Decimal | str | bytes
Parameters = Mapping[str, BareItem]
_NONE: Parameters = MappingProxyType({})


class Item(NamedTuple):
    """A bare item and its parameters (section 3.3)."""

    value: BareItem
    parameters: Parameters = _NONE


class InnerList(NamedTuple):
    """Items in parentheses, with parameters of their own (section 3.1.1)."""

    items: list[Item]
    parameters: Parameters = _NONE


Member = Item | InnerList

_KEY = re.compile(rb"[a-z*][a-z0-9_\-.*]*")
_NUMBER = re.compile(rb"-?([0-9]+)(?:\.([0-9]+))?")
_STRING = re.compile(rb'"((?:[ !\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_ESCAPED = re.compile(rb'\\(["\\])')
_TOKEN = re.compile(rb"[A-Za-z*][!#$%&'*+\-.^_`|~0-9A-Za-z:/]*")
_BYTES = re.compile(rb":([A-Za-z0-9+/]*)={0,2}:")
_BOOLEAN = re.compile(rb"\?([01])")
_DATE = re.compile(rb"@(-?[0-9]{1,15})")
_DISPLAY = re.compile(rb'%"((?:[ !#$\x26-\x7e]|%[0-9a-f]{2})*)"')
_SPACES = re.compile(rb" *")
_COMMA = re.compile(rb"[ \t]*,[ \t]*")
_INNER_GAP = re.compile(rb" +|(?=\))")


def parse_item(value: bytes) -> Item:
    """A field value that is one item."""
    reader = _Reader(value)
    item = reader.item()
    reader.finish()
    return item


def parse_list(value: bytes) -> list[Member]:
    """A field value that is a list (section 4.2.1); an empty value is an empty list."""
    reader = _Reader(value)
    members: list[Member] = []
    if not reader.at_end():
        members.append(reader.member())
        while reader.comma():
            members.append(reader.member())
    reader.finish()
    return members


def parse_dictionary(value: bytes) -> dict[str, Member]:
    """A field value that is a dictionary (section 4.2.2); the last of several members with one key counts."""
    reader = _Reader(value)
    members: dict[str, Member] = {}
    if not reader.at_end():
        reader.dictionary_member(members)
        while reader.comma():
            reader.dictionary_member(members)
    reader.finish()
    return members


class _Reader:
    """A field value and how far it is read. Each pattern is tried at one place once, so time is linear."""

    __slots__ = ("_value", "_pos")

    def __init__(self, value: bytes) -> None:
        self._value = value
        self._pos = 0
        self._take(_SPACES)

    def _take(self, pattern: re.Pattern[bytes]) -> re.Match[bytes] | None:
        match = pattern.match(self._value, self._pos)
        if match is not None:
            self._pos = match.end()
        return match

    def _needed(self, pattern: re.Pattern[bytes], what: str) -> re.Match[bytes]:
        match = self._take(pattern)
        if match is None:
            raise ProtocolError(f"invalid {what} in a structured field")
        return match

    def _takes(self, octet: bytes) -> bool:
        if self._value.startswith(octet, self._pos):
            self._pos += 1
            return True
        return False

    def at_end(self) -> bool:
        return self._pos == len(self._value)

    def finish(self) -> None:
        """Nothing but spaces may follow."""
        self._take(_SPACES)
        if not self.at_end():
            raise ProtocolError("something follows the end of a structured field")

    def comma(self) -> bool:
        """Whether another member follows; one must, after a comma."""
        if self._take(_COMMA) is None:
            return False
        if self.at_end():
            raise ProtocolError("comma at the end of a structured field")
        return True

    def dictionary_member(self, members: dict[str, Member]) -> None:
        key = self._key()
        members[key] = self.member() if self._takes(b"=") else Item(True, self._parameters())

    def member(self) -> Member:
        return self._inner_list() if self._takes(b"(") else self.item()

    def item(self) -> Item:
        return Item(self._bare_item(), self._parameters())

    def _inner_list(self) -> InnerList:
        items: list[Item] = []
        self._take(_SPACES)
        while not self._takes(b")"):
            items.append(self.item())
            self._needed(_INNER_GAP, "inner list")
        return InnerList(items, self._parameters())

    def _parameters(self) -> Parameters:
        parameters: dict[str, BareItem] = {}
        while self._takes(b";"):
            self._take(_SPACES)
            key = self._key()
            parameters[key] = self._bare_item() if self._takes(b"=") else True
        return parameters

    def _key(self) -> str:
        return self._needed(_KEY, "key")[0].decode("ascii")

    def _bare_item(self) -> BareItem:
        """Section 4.2.3.1: the first octet tells the type."""
        match self._value[self._pos : self._pos + 1]:
            case b'"':
                text = self._needed(_STRING, "string")[1]
                return _ESCAPED.sub(rb"\1", text).decode("ascii")
            case b":":
                return _decode_base64(self._needed(_BYTES, "byte sequence")[1])
            case b"?":
                return self._needed(_BOOLEAN, "boolean")[1] == b"1"
            case b"@":
                return Date(self._needed(_DATE, "date")[1])
            case b"%":
                return _decode_display(self._needed(_DISPLAY, "display string")[1])
            case first if first.isdigit() or first == b"-":
                return _number(self._needed(_NUMBER, "number"))
        return Token(self._needed(_TOKEN, "item")[0].decode("ascii"))


def _number(match: re.Match[bytes]) -> int | Decimal:
    whole, fraction = match.groups()
    if fraction is None:
        if len(whole) > 15:
            raise ProtocolError("integer of too many digits in a structured field")
        return int(match[0])
    if len(whole) > MAX_WHOLE_DIGITS or len(fraction) > 3:
        raise ProtocolError("decimal of too many digits in a structured field")
    return Decimal(match[0].decode("ascii"))


def _decode_base64(digits: bytes) -> bytes:
    # Section 4.2.7: padding may be missing, and left-over bits be set.
    if len(digits) % 4 == 1:
        raise ProtocolError("invalid byte sequence in a structured field")
    return binascii.a2b_base64(digits + b"=" * (-len(digits) % 4))


def _decode_display(text: bytes) -> DisplayString:
    try:
        return DisplayString(unquote_to_bytes(text).decode("utf-8"))
    except UnicodeDecodeError:
        raise ProtocolError("invalid display string in a structured field") from None


def serialize_item(item: Item) -> bytes:
    """The canonical form (section 4.1); raises ValueError for what a structured field cannot hold."""
    return _bare_item(item.value) + _parameters(item.parameters)


def serialize_list(members: list[Member]) -> bytes:
    """A list; an empty one is empty, and its field is then not to be sent at all."""
    return b", ".join(map(_member, members))


def serialize_dictionary(members: dict[str, Member]) -> bytes:
    """A dictionary; an empty one is empty, and its field is then not to be sent at all."""
    return b", ".join([_dictionary_member(key, member) for key, member in members.items()])


def _dictionary_member(key: str, member: Member) -> bytes:
    if isinstance(member, Item) and member.value is True:
        return _key(key) + _parameters(member.parameters)
    return _key(key) + b"=" + _member(member)


def _member(member: Member) -> bytes:
    if isinstance(member, InnerList):
        return b"(" + b" ".join(map(serialize_item, member.items)) + b")" + _parameters(member.parameters)
    return serialize_item(member)


def _parameters(parameters: Parameters) -> bytes:
    return b"".join(
        b";" + _key(key) + (b"" if value is True else b"=" + _bare_item(value)) for key, value in parameters.items()
    )


def _key(key: str) -> bytes:
    return _fitting(_KEY, key, "key")


def _fitting(pattern: re.Pattern[bytes], text: str, what: str) -> bytes:
    octets = text.encode("ascii", "replace")
    if not text.isascii() or pattern.fullmatch(octets) is None:
        raise ValueError(f"not a {what} of a structured field: {text!r}")
    return octets


def _bare_item(value: BareItem) -> bytes:
    if isinstance(value, bool):
        return b"?1" if value else b"?0"
    if isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            raise ValueError(f"integer out of range in a structured field: {value}")
        return (b"@%d" if isinstance(value, Date) else b"%d") % value
    if isinstance(value, Decimal):
        return _decimal(value)
    if isinstance(value, Token):
        return _fitting(_TOKEN, value, "token")
    if isinstance(value, DisplayString):
        return b'%"' + b"".join(map(_display_octet, value.encode("utf-8"))) + b'"'
    if isinstance(value, str):
        return _fitting(_STRING, '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"', "string")
    if isinstance(value, bytes):
        return b":" + binascii.b2a_base64(value, newline=False) + b":"
    raise ValueError(f"no type of a structured field: {type(value).__name__}")


def _decimal(value: Decimal) -> bytes:
    """Section 4.1.5: rounded to three digits, at least one behind the point."""
    if not value.is_finite() or abs(value) >= 10**MAX_WHOLE_DIGITS:
        raise ValueError(f"decimal out of range in a structured field: {value}")
    rounded = value.quantize(_THOUSANDTH, ROUND_HALF_EVEN)
    if abs(rounded) >= 10**MAX_WHOLE_DIGITS:
        raise ValueError(f"decimal out of range in a structured field: {value}")
    whole, _, fraction = f"{rounded + 0:f}".partition(".")
    return f"{whole}.{fraction.rstrip('0') or '0'}".encode("ascii")


def _display_octet(octet: int) -> bytes:
    return b"%%%02x" % octet if octet in b'%"' or not 0x20 <= octet <= 0x7E else bytes((octet,))
