"""Upstreams: which part of a reverse proxy's own paths is sent where, and where an upstream's URLs are found here.

    --upstream http://a.example              every path, as it is
    --upstream /pypi=http://b.example/base   /pypi/x?y  →  http://b.example/base/x?y, and back

The longest prefix wins, and a prefix ends where a segment does. Paths and queries are not altered beyond that.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes, urljoin

from reactor.errors import ConfigError, ProtocolError
from reactor.http.grammar import TARGET_OCTETS
from reactor.http.uri import Origin, origin_of, split_absolute

SCHEMES = frozenset((b"http", b"https"))

_PREFIX = re.compile(rb'(?:/[^/?\\%"<>;]+)*')  # of segments, none of them empty or encoded, or cut off where it is quoted
_DOTS = frozenset((b".", b".."))
_SCHEME = re.compile(rb"[A-Za-z][A-Za-z0-9+\-.]*:")  # RFC 3986 section 3.1
_SEGMENT_ENDS = (b"", b"/", b"?")


@dataclass(frozen=True, slots=True)
class Upstream:
    """An origin, the path before every path there (`prefix`), and the path that stands for it here (`at`)."""

    origin: Origin
    prefix: bytes = b""
    at: bytes = b""

    @classmethod
    def parse(cls, url: str, at: bytes = b"") -> Upstream:
        """`http[s]://host[:port][/prefix]`; raises ConfigError."""
        try:
            scheme, authority, path = split_absolute(url.encode("ascii"))
            origin = origin_of(scheme, authority)
        except (ProtocolError, UnicodeEncodeError):
            raise ConfigError(f"--upstream {url!r} is no URL of the form http[s]://host[:port][/path]") from None
        if scheme not in SCHEMES:
            raise ConfigError(f"--upstream {url!r}: only http:// and https:// are spoken to upstreams")
        if b"?" in path:
            raise ConfigError(f"--upstream {url!r}: a query has no place here")
        if path.translate(None, TARGET_OCTETS):
            raise ConfigError(f"--upstream {url!r}: its path has an octet that must be percent-encoded")
        return cls(origin, path.rstrip(b"/"), at)

    @classmethod
    def parse_mapped(cls, text: str) -> Upstream:
        """A URL, or `/prefix=URL`; raises ConfigError."""
        if not text.startswith("/"):
            return cls.parse(text)
        prefix, equals, url = text.partition("=")
        at = prefix.encode("utf-8", "backslashreplace").rstrip(b"/")
        if not equals or _PREFIX.fullmatch(at) is None or at.translate(None, TARGET_OCTETS) or _DOTS & set(at.split(b"/")):
            raise ConfigError(f"--upstream {text!r} is not of the form /prefix=http[s]://host[:port][/path]")
        return cls.parse(url, at)

    def target(self, path: bytes) -> bytes:
        """What is asked of the origin for a path (and query) that this upstream stands for."""
        target = self.prefix + path[len(self.at) :]
        return target if target.startswith(b"/") else b"/" + target

    def local(self, path: bytes) -> bytes | None:
        """The path here that stands for one of the origin's, None where none does."""
        rest = path[len(self.prefix) :]
        if not path.startswith(self.prefix) or rest[:1] not in _SEGMENT_ENDS:
            return None
        if (self.at or self.prefix) and _climbs(rest):
            return None  # here it would lead to another upstream's paths
        return self.at + rest


class Upstreams:
    """All upstreams of one listener; raises ConfigError where two stand at the same place."""

    def __init__(self, upstreams: Sequence[Upstream]) -> None:
        self.all = tuple(sorted(upstreams, key=lambda upstream: len(upstream.at), reverse=True))
        places = [upstream.at for upstream in self.all]
        for at in places:
            if places.count(at) > 1:
                raise ConfigError(f"--upstream: two of them stand at {at.decode('ascii') or '/'}")
        self._mapped = any(upstream.at or upstream.prefix for upstream in self.all)
        # The one there is, where every path is its own as it stands.
        self.plain = self.all[0] if len(self.all) == 1 and not self._mapped else None

    def find(self, path: bytes) -> Upstream:
        """The upstream that a path is for; raises ProtocolError with the status to answer."""
        for upstream in self.all:
            at = upstream.at
            if not at or (path.startswith(at) and path[len(at) : len(at) + 1] in _SEGMENT_ENDS):
                if self._mapped and _climbs(path[len(at) :]):
                    raise ProtocolError("the path climbs out of the part of the upstream that is served here")
                return upstream
        raise ProtocolError("there is no upstream for this path", 404)

    def for_asterisk(self) -> Upstream | None:
        """Who is asked by `OPTIONS *`: the one upstream there is, where it stands for every path."""
        return self.all[0] if len(self.all) == 1 and not self.all[0].at else None

    def locate(self, url: bytes, used: Upstream) -> bytes | None:
        """The path here of an upstream's absolute URL, its query and fragment kept; None where no upstream has it.

        `used` is preferred where two stand for the same.
        """
        url, hash_sign, fragment = url.partition(b"#")
        try:
            scheme, authority, path = split_absolute(url)
            origin = origin_of(scheme, authority)
        except ProtocolError:
            return None
        found, best = None, -1
        for upstream in self.all:
            length = len(upstream.prefix)
            if upstream.origin != origin or length < best or (length == best and upstream is not used):
                continue
            local = upstream.local(path)
            if local is not None:
                found, best = local, length
        if found is None:
            return None
        if not found.startswith(b"/"):
            found = b"/" + found
        elif found.startswith(b"//"):
            found = b"/." + found  # RFC 3986 section 4.2: else it would name a host
        return found + hash_sign + fragment

    def map_back(self, value: bytes, used: Upstream, target: bytes, asked_as: Sequence[bytes] = ()) -> bytes:
        """A URI reference in an upstream's answer (Location, Content-Location) as it is to be read here.

        What an upstream stands for becomes an absolute path, which holds under whatever name and scheme we were asked;
        anything else keeps what it meant. `target` is what the upstream was asked for, and `asked_as` each
        `scheme://authority` that it may take for its own where it was told the client's Host.
        """
        absolute = _SCHEME.match(value) is not None
        relative = not absolute and not value.startswith(b"//")
        if relative and not self._mapped:
            return value
        own = bytes(used.origin)
        if not absolute:
            base = asked_as[0] if asked_as else own
            try:
                value = urljoin((base + target).decode("latin-1"), value.decode("latin-1")).encode("latin-1")
            except ValueError:
                return value
        for base in asked_as:
            if value[: len(base)].lower() == base.lower() and value[len(base) :][:1] in _AUTHORITY_ENDS:
                value = own + value[len(base) :]
                break
        return self.locate(value, used) or value


_AUTHORITY_ENDS = (b"", b"/", b"?", b"#")


def _climbs(path: bytes) -> bool:
    """Whether an origin may take the dot segments of this path to lead above its first segment."""
    if b".." not in path and b"%" not in path:
        return False
    depth = 0
    for segment in unquote_to_bytes(path.partition(b"?")[0]).replace(b"\\", b"/").split(b"/"):
        segment = segment.partition(b";")[0]  # some origins leave out a segment's parameters (RFC 3986 section 3.3)
        if segment == b"..":
            depth -= 1
            if depth < 0:
                return True
        elif segment and segment != b".":  # an empty one may be taken for none
            depth += 1
    return False
