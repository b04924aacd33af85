"""The grammar of RFC 9110 and RFC 9112 as named, compiled bytes patterns, and the limits on what is accepted.

Every pattern is used with `fullmatch`, has no two ways to read the same bytes, and so runs in time linear in its
input. White space is written out, because `\\s`, `strip()` and `split()` take more than the RFCs do.

The tables are for values that differ each time: `value.translate(TABLE) == value` holds if every octet is allowed, and
takes a quarter of the time of a pattern.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

OWS = b" \t"  # RFC 9110 section 5.6.3: optional white space is space and tab, nothing else

TCHAR = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"  # RFC 9110 section 5.6.2
TOKEN = re.compile(TCHAR + rb"+")
QUOTED_STRING = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'  # section 5.6.4

VISIBLE = bytes(range(0x21, 0x7F))
TARGET_OCTETS = VISIBLE.replace(b"#", b"")  # a fragment is no part of a request target (RFC 9112 section 3.2)
FIELD_OCTETS = b"\t " + VISIBLE + bytes(range(0x80, 0x100))  # RFC 9110 section 5.5: neither CR, LF, NUL nor other controls


def _table(allowed: bytes) -> bytes:
    """A translation that leaves the octets of `allowed` alone, and no other."""
    return bytes(octet if octet in allowed else allowed[0] for octet in range(256))


TARGET_TABLE = _table(TARGET_OCTETS)
FIELD_TABLE = _table(FIELD_OCTETS)

# RFC 9112 section 3: single spaces, and a target of visible ASCII.
REQUEST_LINE = re.compile(rb"(" + TCHAR + rb"+) ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])")
# RFC 9112 section 4: the space before an absent reason phrase may be missing in practice, and carries nothing.
STATUS_LINE = re.compile(rb"HTTP/1\.([0-9]) ([1-9][0-9][0-9])(?: ([\t \x21-\x7e\x80-\xff]*))?")

DIGITS = re.compile(rb"[0-9]+")  # RFC 9110 section 8.6, without int()'s signs, underscores and white space
# RFC 9112 section 7.1.1: extensions may be preceded by bad white space; they are read and dropped.
CHUNK_LINE = re.compile(
    rb"([0-9A-Fa-f]+)"
    rb"(?:[ \t]*;[ \t]*" + TCHAR + rb"+(?:[ \t]*=[ \t]*(?:" + TCHAR + rb"+|" + QUOTED_STRING + rb"))?)*"
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one message may cost, in bytes unless said otherwise, and what is answered beyond it."""

    start_line: int = 8 * 1024  # 414 URI Too Long
    field_line: int = 16 * 1024  # 431 Request Header Fields Too Large
    head: int = 64 * 1024  # 431: start line and all field lines together
    fields: int = 128  # 431: number of field lines
    blank_lines: int = 4  # 400: empty lines before a request line (RFC 9112 section 2.2)
    interim: int = 32  # 502: number of 1xx responses before the final one
    chunk_line: int = 1024  # 400: chunk size with its extensions
    trailers: int = 8 * 1024  # 431
    content_length: int = 2**53 - 1  # 400: beyond this a number is not a length but an attack
    body: int = 2**53 - 1  # 413 Content Too Large: what all chunks carry counts as a Content-Length does
    method: int = 32  # 501: no registered method is near this long
    # Whether heads may be read by what others taught, all of which kept within LIMITS: so only where no limit on a head is
    # lower. `dataclasses.replace(LIMITS, body=…)` keeps it.
    remembers: bool = False


LIMITS = Limits(remembers=True)
