"""Values with parameters: `type/subtype; name=value` and its like (RFC 9110 section 5.6.6)."""

from __future__ import annotations

import re

from reactor.http.grammar import OWS, QUOTED_STRING, TCHAR

_PARAMETER = re.compile(rb"[ \t]*(?:(" + TCHAR + rb"+)=(" + TCHAR + rb"+|" + QUOTED_STRING + rb")[ \t]*)?(?:;|\Z)")
_QUOTED_PAIR = re.compile(rb'\\(["\\])')


def split_parameters(value: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """What stands before the first semicolon, in lower case, and the parameters by lower-case name, unquoted.

    The first of several with one name counts; what follows a malformed parameter is not read. A backslash before anything
    but a quote or another one stands for itself, as in the file names that browsers send.
    """
    first, _, rest = value.partition(b";")
    parameters: dict[bytes, bytes] = {}
    pos = 0
    while pos < len(rest) and (match := _PARAMETER.match(rest, pos)) is not None:
        name, text = match.groups()
        if name is not None:
            if text.startswith(b'"'):
                text = _QUOTED_PAIR.sub(rb"\1", text[1:-1])
            parameters.setdefault(name.lower(), text)
        pos = match.end()
    return first.strip(OWS).lower(), parameters
