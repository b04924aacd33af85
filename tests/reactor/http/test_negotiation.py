"""Accept and Accept-Encoding."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactor.http.negotiation import MAX_MEMBERS, accepted_codings, best_type, coding_weight, weights
from tests.strategies import thorough


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (b"", {}),
        (b"gzip", {b"gzip": 1000}),
        (b"gzip;q=0.5, br", {b"gzip": 500, b"br": 1000}),
        (b"GZIP ; Q=0.123", {b"gzip": 123}),
        (b"gzip;q=0", {b"gzip": 0}),
        (b"gzip;q=1.000", {b"gzip": 1000}),
        (b"gzip;q=2, br;q=-1, zstd;q=0.1234, deflate;q=, x;q=1e0", {}),
        (b"text/html;level=1;q=0.4", {b"text/html": 400}),
        (b",, gzip ,", {b"gzip": 1000}),
    ],
)
def test_weights(value: bytes, found: dict[bytes, int]) -> None:
    assert weights(value) == found


def test_a_list_is_read_up_to_its_limit() -> None:
    assert len(weights(b",".join(b"a%d" % number for number in range(500)))) == MAX_MEMBERS


@pytest.mark.parametrize(
    ("value", "gzip", "identity"),
    [
        (b"gzip", 1000, 1),
        (b"x-gzip", 1000, 1),
        (b"", 0, 1),
        (b"*", 1000, 1),
        (b"*;q=0", 0, 0),
        (b"identity;q=0", 0, 0),
        (b"*;q=0, identity", 0, 1000),
        (b"gzip;q=0, *", 0, 1),
        (b"gzip;q=0.2, identity;q=0.7", 200, 700),
    ],
)
def test_codings(value: bytes, gzip: int, identity: int) -> None:
    accepted = accepted_codings(value)
    assert coding_weight(accepted, b"gzip") == gzip
    assert coding_weight(accepted, b"identity") == identity


HTML, JSON = b"text/html", b"application/json"


@pytest.mark.parametrize(
    ("accept", "best"),
    [
        (None, HTML),
        (b"*/*", HTML),
        (b"", HTML),
        (b"application/json", JSON),
        (b"application/*", JSON),
        (b"text/html, application/json;q=0.9", HTML),
        (b"text/html;q=0.8, application/json;q=0.9", JSON),
        (b"application/json, */*;q=0.5", JSON),
        (b"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8", HTML),
        (b"*/*, text/html;q=0", JSON),
        (b"image/png", HTML),
    ],
)
def test_types(accept: bytes | None, best: bytes) -> None:
    assert best_type(accept, (HTML, JSON)) == best


@thorough
@given(st.binary(max_size=60))
def test_any_bytes_give_weights(value: bytes) -> None:
    assert all(0 <= weight <= 1000 for weight in weights(value).values())
    assert best_type(value, (HTML, JSON)) in (HTML, JSON)
