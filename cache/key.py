"""The keys a response is stored under: the primary one from the URI, the secondary one from Vary.

A cache may equate two requests only where the origin surely does: a key that equates more hands one client what was
meant for another. So a URI gets the equivalences of RFC 9110 section 4.2.3 alone, and a selecting field those of
RFC 9111 section 4.1.
"""

from __future__ import annotations

import re

from cache.lists import list_members, quotes_close
from cache.memo import Memo
from reactor.http.fields import Fields
from reactor.http.grammar import OWS, TOKEN
from reactor.http.uri import origin_of

MEMO_ORIGINS = 1024  # remembered `scheme://authority` spellings; at the limit the memo starts anew
MEMO_VARY = 512  # remembered Vary values, likewise
MEMO_SELECTING = 4096  # remembered combinations of selecting values, likewise
MEMO_VALUE_LENGTH = 256  # bytes; longer Vary values and authorities are read each time
MEMO_SELECTING_LENGTH = 512  # bytes; longer combinations of selecting names and values are normalized each time
VARY_NAMES = 32  # a Vary that lists more never matches: each look-up would have to compare them all

SecondaryKey = tuple[bytes | None, ...]


_origins: Memo[tuple[bytes, bytes], bytes] = Memo(
    lambda spelling: bytes(origin_of(*spelling)), MEMO_ORIGINS, MEMO_VALUE_LENGTH, size=lambda spelling: len(spelling[1])
)


def primary_key(scheme: bytes, authority: bytes, path: bytes) -> bytes:
    """`scheme://host[:port]/path?query`, the URI a response is stored under (RFC 9111 section 2).

    `scheme` is in lower case, `authority` a Host value, `path` path and query as sent. Raises ProtocolError for an
    authority or scheme that has no origin.
    """
    return _origins[scheme, authority] + path


def _vary_members(value: bytes) -> tuple[bytes, ...] | None:
    members = {member for raw in value.lower().split(b",") if (member := raw.strip(OWS))}
    # `*` is a token too; what is no field name at all cannot be compared, and so never matches either.
    if b"*" in members or len(members) > VARY_NAMES or not all(map(TOKEN.fullmatch, members)):
        return None
    return tuple(sorted(members))


_vary = Memo(_vary_members, MEMO_VARY, MEMO_VALUE_LENGTH)


def vary_names(fields: Fields) -> tuple[bytes, ...] | None:
    """The field names a response's Vary lists, in lower case, sorted; () without one.

    None where it never matches: `*`, alone or among others (RFC 9110 section 12.5.5), a member that is no name, or more than
    VARY_NAMES of them.
    """
    value = fields.index.get(b"vary")
    return () if value is None else _vary[value]


_Selecting = tuple[tuple[bytes, ...], SecondaryKey]
"""Vary names, and a request's values of those fields as they came."""


def _normalized(selecting: _Selecting) -> SecondaryKey:
    pairs = zip(*selecting, strict=True)
    return tuple([None if value is None else normalize(name, value) for name, value in pairs])


def _selecting_length(selecting: _Selecting) -> int:
    names, values = selecting
    return sum(map(len, names)) + sum([len(value) for value in values if value is not None])


_selecting = Memo(_normalized, MEMO_SELECTING, MEMO_SELECTING_LENGTH, _selecting_length)


def secondary_key(names: tuple[bytes, ...], fields: Fields) -> SecondaryKey:
    """The normalized values of a request's selecting fields, None for each that is absent.

    Two requests match under `names` exactly where these are equal (RFC 9111 section 4.1): a field absent from one must
    be absent from the other.
    """
    return _selecting[names, tuple(map(fields.index.get, names))]


# Fields that are no lists: a comma in them separates nothing, so their white space is left as it came.
_EXACT = frozenset(
    b"user-agent cookie authorization proxy-authorization referer date from host max-forwards"
    b" if-modified-since if-unmodified-since if-range".split()
)
# RFC 9110 sections 12.5.2 to 12.5.4: lists of case-insensitive tokens whose weights, not their order, say what is preferred.
_WEIGHTED_TOKENS = frozenset((b"accept-encoding", b"accept-language", b"accept-charset"))
_WEIGHTED = re.compile(rb"([!#$%&'*+\-.^_`|~0-9a-z]+)(?:[ \t]*;[ \t]*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?")


def normalize(name: bytes, value: bytes) -> bytes:
    """A selecting field's value in the one spelling that stands for all its equivalents.

    Lines are combined already; here go white space around commas and, in lists of weighted tokens, case, order and the
    ways to write a weight.
    """
    if name in _EXACT or not quotes_close(value):
        return value
    if name in _WEIGHTED_TOKENS and (tokens := _weighted_tokens(value)) is not None:
        return tokens
    return b",".join(list_members(value))


def _weighted_tokens(value: bytes) -> bytes | None:
    """The sorted members, or None where one of them is malformed or named twice with two weights."""
    weights: dict[bytes, bytes] = {}
    for raw in value.lower().split(b","):
        member = raw.strip(OWS)
        if not member:
            continue  # RFC 9110 section 5.6.1.2: empty members are ignored
        match = _WEIGHTED.fullmatch(member)
        if match is None:
            return None
        weight = _thousandths(match[2] or b"1")
        if weights.setdefault(match[1], weight) != weight:
            return None
    return b",".join([b"%b;q=%b" % pair for pair in sorted(weights.items())])


def _thousandths(weight: bytes) -> bytes:
    """`1`, `1.` and `1.000` are one weight (section 12.4.2)."""
    whole, _, fraction = weight.partition(b".")
    return whole + fraction.ljust(3, b"0")
