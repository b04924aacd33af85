"""What access rules compare: hosts and paths, each in one spelling, and the patterns that these are searched with."""

from __future__ import annotations

import ipaddress
import logging
import re
import signal
import socket
from urllib.parse import unquote_to_bytes

log = logging.getLogger("handlers.access")

REGEX_BYTES = 2048  # of a plain path that a regular expression is tried on
REGEX_SECONDS = 0.02  # of processor time that this may take


def canonical_host(host: bytes) -> bytes:
    """A host in lower case (brackets around IPv6) as rules compare it.

    Without final dots; an address in its usual spelling, as IPv4 where it is an IPv4-mapped one, and as loopback where it is
    the unspecified one, which connect(2) takes for that.
    """
    found = _canonical_address(host)
    return _CONNECTED_TO.get(found, found)


_CONNECTED_TO = {b"0.0.0.0": b"127.0.0.1", b"::": b"::1"}


def _canonical_address(host: bytes) -> bytes:
    if host.startswith(b"["):
        return _canonical_ipv6(host[1:-1])
    host = host.rstrip(b".")
    if host.rpartition(b".")[2][:1].isdigit():
        try:
            # getaddrinfo takes 127.1, 0x7f000001 and 2130706433 for addresses, as inet_aton does.
            return socket.inet_ntoa(socket.inet_aton(host.decode("ascii"))).encode("ascii")
        except OSError:
            return host
    return _canonical_ipv6(host) if b":" in host else host


def _canonical_ipv6(host: bytes) -> bytes:
    address = ipv6(host.decode("ascii"))
    return host if address is None else str(address.ipv4_mapped or address).encode("ascii")


def ipv6(text: str) -> ipaddress.IPv6Address | None:
    """The address that `text` is, if it is one."""
    try:
        return ipaddress.IPv6Address(text)
    except ValueError:
        return None


def plain_path(path: bytes) -> bytes:
    """A request's path without its query, decoded once, without empty and dot segments (RFC 3986 section 5.2.4)."""
    path = path.partition(b"?")[0]
    return _resolved(unquote_to_bytes(path) if b"%" in path else path)


def _resolved(path: bytes) -> bytes:
    if not path.startswith(b"/") or (b"//" not in path and b"/." not in path):
        return path
    segments: list[bytes] = []
    for segment in path.split(b"/"):
        if segment == b"..":
            del segments[-1:]
        elif segment and segment != b".":
            segments.append(segment)
    if segments and path.endswith((b"/", b"/.", b"/..")):
        segments.append(b"")
    return b"/" + b"/".join(segments)


def path_readings(path: bytes) -> tuple[bytes, ...]:
    """A request's path as RFC 3986 reads it, and beside that as some origins do; () where it has none."""
    plain = plain_path(path)
    if not plain:
        return ()
    octets = unquote_to_bytes(path.partition(b"?")[0])
    if b";" not in octets and b"\\" not in octets:
        return (plain,)
    return plain, _resolved(_SEGMENT_PARAMETERS.sub(b"", octets.replace(b"\\", b"/")))


_SEGMENT_PARAMETERS = re.compile(rb";[^/]*")  # RFC 3986 section 3.3


def glob(pattern: str) -> re.Pattern[bytes]:
    """`*` and `?` as an anchored pattern for `search`.

    Every run but the last takes the first place where what follows it fits, and gives nothing back: a target cannot
    make the search try every division of itself.
    """
    first, *others = (_literal(part) for part in re.split(r"\*+", pattern))
    if not others:
        return re.compile(rb"\A" + first + rb"\Z", re.DOTALL)
    middle = b"".join(b"(?>.*?%b)" % part for part in others[:-1])
    return re.compile(rb"\A" + first + middle + b".*" + others[-1] + rb"\Z", re.DOTALL)


def _literal(text: str) -> bytes:
    return b".".join(re.escape(part.encode("utf-8")) for part in text.split("?"))


class _TooSlow(Exception):
    """A search was interrupted."""


class Regex:
    """A regular expression of the operator's own, which some path may make run for longer than the world lasts.

    The engine looks for signals now and then, and so a timer can interrupt it: one that counts this process's own
    processor time, so that a machine that is busy with others does not change what a rule says. Beyond that time, and
    REGEX_BYTES, `search` says `otherwise`.
    """

    __slots__ = ("_pattern", "_rule", "_otherwise", "_warned")

    armed = False  # whether the timer's signal is for a search that still runs

    def __init__(self, pattern: re.Pattern[bytes], rule: str, otherwise: bool) -> None:
        self._pattern = pattern
        self._rule = rule
        self._otherwise = otherwise
        self._warned = False
        signal.signal(signal.SIGVTALRM, _interrupt)

    def search(self, path: bytes, /) -> bool:
        if len(path) > REGEX_BYTES:
            return self._otherwise
        Regex.armed = True
        try:
            signal.setitimer(signal.ITIMER_VIRTUAL, REGEX_SECONDS)
            found = self._pattern.search(path) is not None
            Regex.armed = False
            return found
        except _TooSlow:
            self._warn()
            return self._otherwise
        finally:
            Regex.armed = False
            signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)

    def _warn(self) -> None:
        if not self._warned:
            self._warned = True
            log.warning("the access rule %s takes longer than %g s on some paths; such are denied", self._rule, REGEX_SECONDS)


def _interrupt(number: int, frame: object) -> None:
    if Regex.armed:
        raise _TooSlow
