"""The reader of `tests/vectors/*.txt`; their format is explained in the README beside them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

_ESCAPE = re.compile(r"\\(?:([rnt\\])|x([0-9a-f]{2})|\{([0-9]+)\*([^}]+)\})|[^\\]", re.DOTALL)
_LETTERS = {"r": b"\r", "n": b"\n", "t": b"\t", "\\": b"\\"}


@dataclass
class Vector:
    """Bytes in, events out."""

    name: str
    method: bytes | None = None  # None for requests, or the method that the responses answer
    data: bytes = b""
    eof: bool = False
    expected: list[str] = field(default_factory=list)


def unescape(text: str) -> bytes:
    r"""The bytes that a line of a vector spells: `\r`, `\n`, `\t`, `\\`, `\xHH`, and `\{9000*a}` for a run."""
    out, at = [], 0
    while at < len(text):
        match = _ESCAPE.match(text, at)
        if match is None:
            raise ValueError(f"bad escape in {text!r}")
        letter, code, count, run = match.groups()
        if letter:
            out.append(_LETTERS[letter])
        elif code:
            out.append(bytes((int(code, 16),)))
        elif count:
            out.append(int(count) * unescape(run))
        else:
            out.append(match[0].encode("ascii"))
        at = match.end()
    return b"".join(out)


def read_vectors(path: Path) -> list[Vector]:
    """The vectors of one file, in order."""
    vectors: list[Vector] = []
    for number, line in enumerate(path.read_text(encoding="ascii").splitlines(), 1):
        if line.startswith("== "):
            vectors.append(Vector(line[3:]))
        elif line and not line.startswith("#"):
            if not vectors:
                raise ValueError(f"{path.name}:{number}: before the first vector")
            _read_line(vectors[-1], line)
    return vectors


def _read_line(vector: Vector, line: str) -> None:
    word, _, rest = line.partition(" ")
    if word == "answers":
        vector.method = rest.encode("ascii")
    elif word == ">":
        vector.data += unescape(rest)
    elif word == "eof":
        vector.eof = True
    elif word == "data":
        vector.expected.append("data " + rest)
    else:
        vector.expected.append(line)
