"""What a client would rather have: Accept and Accept-Encoding (RFC 9110 section 12.5). Weights are thousandths."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from reactor.http.grammar import OWS

_WEIGHT = re.compile(rb"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")  # section 12.4.2

MAX_MEMBERS = 64  # of one field; what follows is not read
MEMO_VALUES = 256  # Accept-Encoding values remembered, each of at most MEMO_VALUE_LENGTH bytes
MEMO_VALUE_LENGTH = 128

GZIP_ALIAS = b"x-gzip"  # section 8.4.1.3: the same as gzip


def weights(value: bytes) -> dict[bytes, int]:
    """Each member of the list in lower case, without parameters → its weight. A malformed weight drops the member."""
    found: dict[bytes, int] = {}
    for member in value.lower().split(b",", MAX_MEMBERS)[:MAX_MEMBERS]:
        name, *parameters = (part.strip(OWS) for part in member.split(b";"))
        weight = 1000
        for parameter in parameters:
            if parameter.startswith(b"q="):
                text = parameter[2:]
                weight = round(float(text) * 1000) if _WEIGHT.fullmatch(text) else -1
                break
        if name and weight >= 0:
            found[name] = weight
    return found


class _CodingMemo(dict[bytes, Mapping[bytes, int]]):
    def __missing__(self, value: bytes) -> Mapping[bytes, int]:
        found = weights(value)
        if GZIP_ALIAS in found:
            found.setdefault(b"gzip", found.pop(GZIP_ALIAS))
        if len(value) <= MEMO_VALUE_LENGTH:
            if len(self) >= MEMO_VALUES:
                self.clear()
            self[value] = found
        return found


accepted_codings = _CodingMemo().__getitem__
"""An Accept-Encoding value → the weight of each coding it names."""


def coding_weight(accepted: Mapping[bytes, int], coding: bytes) -> int:
    """How welcome a content coding is, 0 where it is not (section 12.5.3).

    `identity` is always acceptable, though less than anything named, unless it or `*` is refused outright.
    """
    weight = accepted.get(coding)
    if weight is not None:
        return weight
    anything = accepted.get(b"*")
    if coding == b"identity":
        return 0 if anything == 0 else 1
    return anything or 0


def best_type(accept: bytes | None, offered: Sequence[bytes]) -> bytes:
    """The most welcome of the media types offered; the first of equals, and the first where none is welcome."""
    if accept is None:
        return offered[0]
    wanted = weights(accept)
    return max(offered, key=lambda kind: _type_weight(wanted, kind))


def _type_weight(wanted: Mapping[bytes, int], kind: bytes) -> int:
    # Section 12.5.1: the most specific range that matches has precedence.
    for name in (kind, kind.partition(b"/")[0] + b"/*", b"*/*"):
        if name in wanted:
            return wanted[name]
    return 0
