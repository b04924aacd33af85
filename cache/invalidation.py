"""What the answer to an unsafe request makes invalid: RFC 9111 section 4.4 and RFC 9875."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from cache.entry import cache_groups
from cache.key import primary_key
from reactor.errors import ProtocolError
from reactor.http.fields import Fields
from reactor.http.parser import Request

# RFC 9110 section 9.2.1, and the safe methods of the registry. A method that is not known is unsafe.
SAFE_METHODS: Final = frozenset(b"GET HEAD OPTIONS TRACE PROPFIND REPORT SEARCH QUERY PRI".split())
# RFC 3986 appendix B, without the fragment.
_REFERENCE = re.compile(rb"(?:([A-Za-z][A-Za-z0-9+\-.]*):)?(?://([^/?#]*))?([^?#]*)(\?[^#]*)?(?:#.*)?", re.DOTALL)


class Invalidation(NamedTuple):
    """Primary keys whose stored responses are invalid, and groups of them within `origin` (the start of their keys)."""

    keys: tuple[bytes, ...] = ()
    groups: tuple[bytes, ...] = ()
    origin: bytes = b""


NOTHING: Final = Invalidation()


def invalidates(request: Request, uri: bytes, status: int, fields: Fields) -> Invalidation:
    """What a response invalidates; `uri` is the request's primary key.

    The target URI, and what Location and Content-Location name within the same origin: another origin's URIs are none of
    this one's business (section 4.4).
    """
    if request.method in SAFE_METHODS or not 200 <= status < 400:
        return NOTHING
    keys = [uri]
    own = origin(uri)
    for name in (b"location", b"content-location"):
        value = fields.index.get(name)
        key = None if value is None else resolve(uri, value)
        if key is not None and origin(key) == own:
            keys.append(key)
    return Invalidation(tuple(dict.fromkeys(keys)), cache_groups(fields, b"cache-group-invalidation"), own)


def origin(key: bytes) -> bytes:
    """The `scheme://host[:port]` a primary key starts with."""
    return key[: key.index(b"/", key.index(b"://") + 3)]


def same_resource(uri: bytes, reference: bytes) -> bool:
    """Whether a Content-Location names the URI of the primary key `uri`."""
    return resolve(uri, reference) == uri


def resolve(base: bytes, reference: bytes) -> bytes | None:
    """The primary key that a reference stands for beside `base` (RFC 3986 section 5.2); None where it has none."""
    match = _REFERENCE.fullmatch(reference)
    assert match is not None
    scheme, authority, path, query = match[1], match[2], match[3], match[4] or b""
    if scheme is not None and authority is None:
        return None  # `http:path` and other schemes' opaque forms
    own = origin(base)
    base_scheme, _, base_authority = own.partition(b"://")
    if authority is None:
        authority = base_authority
        base_path, _, base_query = base[len(own) :].partition(b"?")
        if not path:
            path = base_path
            query = query or (b"?" + base_query if b"?" in base else b"")
        elif not path.startswith(b"/"):
            path = base_path[: base_path.rindex(b"/") + 1] + path
    try:
        return primary_key((scheme or base_scheme).lower(), authority, _without_dots(path) + query)
    except ProtocolError:
        return None


def _without_dots(path: bytes) -> bytes:
    """RFC 3986 section 5.2.4; a path that is empty becomes `/`."""
    kept: list[bytes] = []
    segments = path.split(b"/")[1:] or [b""]
    for segment in segments:
        if segment == b"..":
            del kept[-1:]
        elif segment != b".":
            kept.append(segment)
    if segments[-1] in (b".", b".."):
        kept.append(b"")
    return b"/" + b"/".join(kept)
