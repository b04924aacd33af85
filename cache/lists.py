"""Comma-separated lists whose members may hold quoted strings (RFC 9110 section 5.6.1), split in linear time."""

from __future__ import annotations

import re

from reactor.http.grammar import OWS, QUOTED_STRING

# Possessive, so that a value that does not match is given up at once.
_CLOSED = re.compile(rb'(?:[^"]++|' + QUOTED_STRING + rb")*+")
_QUOTED = re.compile(QUOTED_STRING)


def quotes_close(value: bytes) -> bool:
    """Whether every quote belongs to a quoted string."""
    return b'"' not in value or _CLOSED.fullmatch(value) is not None


def list_members(value: bytes) -> list[bytes]:
    """The members, white space around them cut off, empty ones kept.

    A comma within a quoted string separates nothing. Where a quote is never closed, none of them quotes: what stands
    behind it is read too, and cannot hide.
    """
    if b'"' not in value or not quotes_close(value):
        return [member.strip(OWS) for member in value.split(b",")]
    members = []
    start = 0
    # The commas that count are those that stand where the quoted strings are blanked out.
    for piece in _QUOTED.sub(lambda match: b"_" * len(match[0]), value).split(b","):
        members.append(value[start : start + len(piece)].strip(OWS))
        start += len(piece) + 1
    return members
