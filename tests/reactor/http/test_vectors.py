"""The vectors of `tests/vectors`, each fed whole, byte by byte, and cut in two at every place."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reactor.http.transcript import every_byte, transcript
from tests.reactor.http.vectors import read_vectors, unescape

FILES = sorted((Path(__file__).parents[2] / "vectors").glob("*.txt"))
VECTORS = [pytest.param(vector, id=f"{path.stem}: {vector.name}") for path in FILES for vector in read_vectors(path)]
LONG = 2000  # bytes; beyond that only some of the places to cut at are tried


@pytest.mark.parametrize("vector", VECTORS)
def test_vector(vector):
    expected = [line.rstrip(" ") for line in vector.expected]
    for _ in range(4):  # a head that was met before is read in another way
        assert transcript(vector.method, [vector.data], vector.eof) == expected
    assert transcript(vector.method, every_byte(vector.data), vector.eof) == expected
    size = len(vector.data)
    for at in range(1, size, 1 if size < LONG else size // 40):
        assert transcript(vector.method, [vector.data[:at], vector.data[at:]], vector.eof) == expected


def test_the_files_are_there():
    assert len(FILES) >= 6 and len(VECTORS) > 150


def test_escapes():
    assert unescape(r"a\r\n\t\\\x00\xff\{3*b\r}") == b"a\r\n\t\\\x00\xffb\rb\rb\r"
    with pytest.raises(ValueError, match="bad escape"):
        unescape(r"\q")
