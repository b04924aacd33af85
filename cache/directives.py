"""Cache-Control, read once into a small object (RFC 9111 section 5.2), and the targeted fields (RFC 9213).

Whatever is malformed, doubled or in conflict is read as the more restrictive of its meanings (section 4.2.1): an invalid
lifetime is 0, an invalid allowance is none, an unreadable list of fields means the whole response.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from cache.lists import list_members
from cache.memo import Memo
from reactor.errors import ProtocolError
from reactor.http.fields import Fields
from reactor.http.grammar import DIGITS, OWS, QUOTED_STRING, TCHAR, TOKEN
from reactor.http.structured import Item, Member, parse_dictionary

LISTED_FIELDS = 64  # that one response's no-cache, or its private, may name; with more it is about the whole response
DELTA_MAX = 2**31  # RFC 9111 section 1.2.2: what a larger delta-seconds counts as
MEMO_VALUES = 1024  # remembered Cache-Control values; at the limit the memo starts anew
MEMO_VALUE_LENGTH = 256  # bytes; longer values are read each time

_DIRECTIVE = re.compile(rb"(" + TCHAR + rb"+)(.*)", re.DOTALL)
_QUOTED = re.compile(QUOTED_STRING)
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)


def delta_seconds(text: bytes) -> int | None:
    """Seconds, at most DELTA_MAX, or None where `text` is no non-negative integer (RFC 9111 section 1.2.2)."""
    if DIGITS.fullmatch(text) is None:
        return None
    digits = text.lstrip(b"0")
    return DELTA_MAX if len(digits) > 10 else min(int(digits or b"0"), DELTA_MAX)


def members(value: bytes) -> list[tuple[bytes, bytes | None]]:
    """Cache-Control's directives as (name in lower case, argument or None), quotes undone, malformed ones kept.

    An argument that is neither token nor quoted string comes with its `=` or whatever stands there, so that no number
    and no name can be read out of it.
    """
    found: list[tuple[bytes, bytes | None]] = []
    for member in list_members(value):
        match = _DIRECTIVE.match(member)
        if match is not None:
            found.append((match[1].lower(), _argument(match[2])))
    return found


def _argument(rest: bytes) -> bytes | None:
    if not rest:
        return None
    if rest[:1] == b"=":
        text = rest[1:]
        if TOKEN.fullmatch(text):
            return text
        # Section 5.2: recipients ought to accept both forms, whichever a directive is defined with.
        if _QUOTED.fullmatch(text):
            return _ESCAPE.sub(rb"\1", text[1:-1])
    return b"=" + rest


class ResponseControl:
    """What a response allows a shared cache. Shared between entries: never changed once made.

    `max_age` to `stale_if_error` are seconds or None; `no_cache_fields` and `private_fields` are lower-case names, and
    then `no_cache` and `private` are false. `source` names the field it was read from.
    """

    __slots__ = (
        "source", "no_store", "no_cache", "no_cache_fields", "private", "private_fields", "public", "must_revalidate",
        "proxy_revalidate", "must_understand", "no_transform", "immutable", "max_age", "s_maxage",
        "stale_while_revalidate", "stale_if_error",
    )  # fmt: skip

    def __init__(self, source: bytes, directives: Iterable[tuple[bytes, bytes | None]] = ()) -> None:
        self.source = source
        self.no_store = self.no_cache = self.private = self.public = False
        self.must_revalidate = self.proxy_revalidate = self.must_understand = False
        self.no_transform = self.immutable = False
        self.no_cache_fields: tuple[bytes, ...] = ()
        self.private_fields: tuple[bytes, ...] = ()
        self.max_age: int | None = None
        self.s_maxage: int | None = None
        self.stale_while_revalidate: int | None = None
        self.stale_if_error: int | None = None
        for name, argument in directives:
            self._take(name, argument)

    def _take(self, name: bytes, argument: bytes | None) -> None:
        if name in _FLAGS:
            # Section 5.2: no argument is allowed here. One that is there lifts no restriction, and allows nothing.
            if argument is None or name not in _PERMISSIONS:
                setattr(self, _FLAGS[name], True)
        elif name in _LIFETIMES:
            seconds = delta_seconds(argument or b"") or 0
            known = getattr(self, _LIFETIMES[name])
            setattr(self, _LIFETIMES[name], seconds if known is None else min(known, seconds))
        elif name in _LISTS:
            self._take_list(_LISTS[name], argument)

    def _take_list(self, flag: str, argument: bytes | None) -> None:
        names = [] if argument is None else [raw.strip(OWS).lower() for raw in argument.split(b",")]
        listed = flag + "_fields"
        before = getattr(self, listed)
        if names and len(before) + len(names) <= LISTED_FIELDS and all(map(TOKEN.fullmatch, names)):
            setattr(self, listed, before + tuple(names))
        else:
            setattr(self, flag, True)


_FLAGS = {
    b"no-store": "no_store", b"public": "public", b"must-revalidate": "must_revalidate",
    b"proxy-revalidate": "proxy_revalidate", b"must-understand": "must_understand",
    b"no-transform": "no_transform", b"immutable": "immutable",
}  # fmt: skip
_PERMISSIONS = frozenset((b"public", b"must-understand", b"immutable"))
_LIFETIMES = {
    b"max-age": "max_age", b"s-maxage": "s_maxage",
    b"stale-while-revalidate": "stale_while_revalidate", b"stale-if-error": "stale_if_error",
}  # fmt: skip
_LISTS = {b"no-cache": "no_cache", b"private": "private"}


class RequestControl:
    """What a request asks of caches (RFC 9111 section 5.2.1, RFC 5861 section 4). Shared: never changed once made.

    Times are seconds or None; `max_stale` is DELTA_MAX where any staleness will do.
    """

    __slots__ = ("no_store", "no_cache", "only_if_cached", "max_age", "min_fresh", "max_stale", "stale_if_error")

    def __init__(self, directives: Iterable[tuple[bytes, bytes | None]] = ()) -> None:
        self.no_store = self.no_cache = self.only_if_cached = False
        self.max_age: int | None = None
        self.min_fresh: int | None = None
        self.max_stale: int | None = None
        self.stale_if_error: int | None = None
        for name, argument in directives:
            self._take(name, argument)

    def without_reload(self) -> RequestControl:
        """What is left of it where nobody gets anything newer than is stored for asking."""
        left = RequestControl()
        left.no_store, left.only_if_cached = self.no_store, self.only_if_cached
        left.max_stale, left.stale_if_error = self.max_stale, self.stale_if_error
        return left

    def _take(self, name: bytes, argument: bytes | None) -> None:
        seconds = delta_seconds(argument or b"")
        if name == b"no-store":
            self.no_store = True
        elif name == b"no-cache":
            self.no_cache = True
        elif name == b"only-if-cached":
            self.only_if_cached = True
        elif name == b"max-age":
            self.max_age = min(seconds or 0, DELTA_MAX if self.max_age is None else self.max_age)
        elif name == b"min-fresh":
            self.min_fresh = max(DELTA_MAX if seconds is None else seconds, self.min_fresh or 0)
        elif name == b"max-stale":
            allowed = DELTA_MAX if argument is None else seconds or 0
            self.max_stale = min(allowed, DELTA_MAX if self.max_stale is None else self.max_stale)
        elif name == b"stale-if-error":
            self.stale_if_error = min(seconds or 0, DELTA_MAX if self.stale_if_error is None else self.stale_if_error)


_responses: Memo[bytes, ResponseControl] = Memo(
    lambda value: ResponseControl(b"cache-control", members(value)), MEMO_VALUES, MEMO_VALUE_LENGTH
)
_requests: Memo[bytes, RequestControl] = Memo(lambda value: RequestControl(members(value)), MEMO_VALUES, MEMO_VALUE_LENGTH)

NO_CONTROL = ResponseControl(b"")
NO_REQUEST_CONTROL = RequestControl()
_PRAGMA_NO_CACHE = RequestControl([(b"no-cache", None)])


def response_control(fields: Fields, targets: tuple[bytes, ...] = ()) -> ResponseControl:
    """The directives that rule a response for us: the first valid, non-empty targeted field, or else Cache-Control.

    `targets` are lower-case field names, most applicable first (RFC 9213 section 2.2).
    """
    index = fields.index
    for target in targets:
        if target in index and (control := targeted_control(target, index[target])) is not None:
            return control
    value = index.get(b"cache-control")
    return NO_CONTROL if value is None else _responses[value]


def targeted_control(name: bytes, value: bytes) -> ResponseControl | None:
    """A targeted field (RFC 9213 section 2.1), or None where it is empty or no Dictionary, and so is ignored."""
    try:
        dictionary = parse_dictionary(value)
    except ProtocolError:
        return None
    if not dictionary:
        return None
    return ResponseControl(name, [_as_directive(key, item) for key, item in dictionary.items()])


def _as_directive(key: str, member: Member) -> tuple[bytes, bytes | None]:
    """A Dictionary member as a directive; a value of the wrong type becomes an argument that nothing can be read from."""
    name = key.encode("ascii")
    value = member.value if isinstance(member, Item) else None
    if value is True:
        return name, None
    if type(value) is int and name in _LIFETIMES:
        return name, b"%d" % value
    if type(value) is str and name in _LISTS:
        return name, value.encode("ascii")
    return name, b"="


def request_control(fields: Fields) -> RequestControl:
    """The directives of a request; `Pragma: no-cache` counts where there is no Cache-Control (section 5.4)."""
    value = fields.index.get(b"cache-control")
    if value is not None:
        return _requests[value]
    if b"no-cache" in fields.options(b"pragma"):
        return _PRAGMA_NO_CACHE
    return NO_REQUEST_CONTROL
