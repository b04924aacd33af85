"""Inputs that once broke a property, one file each: which parser, where the bytes were cut, and the bytes."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tests.reactor.http.transcript import escape
from tests.reactor.http.vectors import unescape


def write_regression(folder: Path, found_by: str, method: bytes | None, data: bytes, places: list[int]) -> Path:
    """Keep an input; its name is made from its bytes, so that the same one is kept once."""
    parser = "requests" if method is None else f"responses to {method.decode('ascii')}"
    lines = [f"# found by {found_by}", f"parser {parser}", "cuts " + " ".join(map(str, places))]
    lines += ["> " + escape(line) for line in data.splitlines(keepends=True)]
    path = folder / f"{found_by}-{hashlib.sha256(data).hexdigest()[:12]}.txt"
    path.write_text("\n".join(lines) + "\n", encoding="ascii")
    return path


def read_regression(path: Path) -> tuple[bytes | None, bytes, list[int]]:
    """(None or the method that the responses answer, the bytes, where they are cut)"""
    method: bytes | None = None
    places: list[int] = []
    data = []
    for line in path.read_text(encoding="ascii").splitlines():
        word, _, rest = line.partition(" ")
        if word == "parser" and rest != "requests":
            method = rest.removeprefix("responses to ").encode("ascii")
        elif word == "cuts":
            places = [int(place) for place in rest.split()]
        elif word == ">":
            data.append(unescape(rest))
    return method, b"".join(data), places
