"""Cache-Status (RFC 9211): what this cache did with a request, as one member of the field.

It goes on what came from upstream or from the store, and on what was made from a stored response (304, 206, 416), never on a
response this process made by itself (section 2). Members that other caches wrote stay before it.
"""

from __future__ import annotations

import re

_PRINTABLE = re.compile(rb"[^\x20-\x7e]")


def sf_string(value: bytes) -> bytes:
    """A String of RFC 9651 section 3.3.3; octets outside printable ASCII become `?`."""
    return b'"%b"' % _PRINTABLE.sub(b"?", value).replace(b"\\", b"\\\\").replace(b'"', b'\\"')


def hit_status(name: bytes, ttl: int) -> bytes:
    """Answered from the store; `name` is this cache's, a token; `ttl` in seconds, negative when stale."""
    return b"%b; hit; ttl=%d" % (name, ttl)


def stale_status(name: bytes, ttl: int, why: str) -> bytes:
    """The same of a stale response, with what allowed it as the detail."""
    return b"%b; hit; ttl=%d; detail=%b" % (name, ttl, why.encode("ascii"))


def forward_status(
    name: bytes, fwd: str, fwd_status: int | None = None, stored: bool = False, collapsed: bool = False,
    ttl: int | None = None, detail: str | None = None, in_vain: bool = False,
) -> bytes:
    """Went upstream, for the reason `fwd` (section 2.2). `fwd_status` is what came back, where the client got another.

    `collapsed` says that another request's answer served, `in_vain` that one was waited for and did not; `detail` is a word.
    """
    parts = [b"%b; fwd=%b" % (name, fwd.encode("ascii"))]
    if fwd_status is not None:
        parts.append(b"fwd-status=%d" % fwd_status)
    if stored:
        parts.append(b"stored")
    if collapsed or in_vain:
        parts.append(b"collapsed=?0" if in_vain else b"collapsed")
    if ttl is not None:
        parts.append(b"ttl=%d" % ttl)
    if detail is not None:
        parts.append(b"detail=" + detail.encode("ascii"))
    return b"; ".join(parts)


def with_key(status: bytes, key: bytes) -> bytes:
    """The same member, with the primary key too (section 2.7)."""
    return b"%b; key=%b" % (status, sf_string(key))
