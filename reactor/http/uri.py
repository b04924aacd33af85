"""URIs as far as HTTP needs them: authorities, origins, the forms of a request target.

Only the equivalences of RFC 9110 section 4.2.3 are applied (case of scheme and host, default port, empty path);
path and query are never rewritten, since a cache key that equates more than the origin does can be poisoned.
"""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

from reactor.errors import ProtocolError

DEFAULT_PORTS = {b"http": 80, b"https": 443}

# RFC 3986 section 3.2.2, without userinfo, which RFC 9110 section 4.2.4 says to treat as an error.
_AUTHORITY = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})*)(?::([0-9]{0,5}))?")
_ABSOLUTE = re.compile(rb"([A-Za-z][A-Za-z0-9+\-.]*)://([^/?#]*)([^#]*)")

MEMO_AUTHORITIES = 1024  # remembered parses; at the limit the memo starts anew
MEMO_AUTHORITY_LENGTH = 255  # bytes: the longest name that DNS knows


class Origin(NamedTuple):
    """RFC 9110 section 4.3.1: scheme, host in lower case (brackets kept around IPv6), port."""

    scheme: bytes
    host: bytes
    port: int

    @property
    def authority(self) -> bytes:
        """host, with the port where it is not the scheme's own: the value of a Host field."""
        if DEFAULT_PORTS.get(self.scheme) == self.port:
            return self.host
        return b"%b:%d" % (self.host, self.port)

    @property
    def connect_host(self) -> str:
        """The host as getaddrinfo wants it: no brackets."""
        return self.host.strip(b"[]").decode("ascii")

    def __bytes__(self) -> bytes:
        return b"%b://%b" % (self.scheme, self.authority)

    def __str__(self) -> str:
        return bytes(self).decode("ascii")


class _AuthorityMemo(dict[bytes, tuple[bytes, int | None]]):
    def __missing__(self, value: bytes) -> tuple[bytes, int | None]:
        match = _AUTHORITY.fullmatch(value)
        if match is None:
            raise ProtocolError("invalid host")
        host, digits = match.groups()
        port = int(digits) if digits else None
        if (digits is not None and not host) or (port or 0) > 65535 or (host[:1] == b"[" and not _is_ipv6(host[1:-1])):
            raise ProtocolError("invalid host")
        pair = (host.lower(), port)
        if len(value) <= MEMO_AUTHORITY_LENGTH:
            if len(self) >= MEMO_AUTHORITIES:
                self.clear()
            self[value] = pair
        return pair


def _is_ipv6(text: bytes) -> bool:
    try:
        ipaddress.IPv6Address(text.decode("ascii"))
    except ValueError:
        return False
    return True


_authorities = _AuthorityMemo()
split_authority = _authorities.__getitem__
"""`host[:port]` → (host in lower case, port or None); raises ProtocolError. Userinfo is refused."""


def origin_of(scheme: bytes, authority: bytes) -> Origin:
    """The origin that `scheme://authority` names; raises ProtocolError for an unknown scheme or no host."""
    host, port = split_authority(authority)
    if port is None:
        port = DEFAULT_PORTS.get(scheme)
        if port is None:
            raise ProtocolError("no default port for this scheme")
    if not host:
        raise ProtocolError("no host in the URI")
    return Origin(scheme, host, port)


class _SpellingMemo(dict[tuple[bytes, bytes], bytes]):
    def __missing__(self, named: tuple[bytes, bytes]) -> bytes:
        authority = origin_of(*named).authority
        if len(named[1]) <= MEMO_AUTHORITY_LENGTH:
            if len(self) >= MEMO_AUTHORITIES:
                self.clear()
            self[named] = authority
        return authority


spellings = _SpellingMemo()
"""(scheme, authority) → the authority in the one spelling of all that name this origin; raises ProtocolError."""


def split_absolute(target: bytes) -> tuple[bytes, bytes, bytes]:
    """An absolute URI → (scheme in lower case, authority, path and query as spelled).

    An empty path becomes `/` (RFC 9110 section 4.2.3). Raises ProtocolError; a fragment is refused.
    """
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        raise ProtocolError("invalid request target")
    scheme, authority, path = match.groups()
    if not path.startswith(b"/"):
        path = b"/" + path
    return scheme.lower(), authority, path
