"""The chain of reasons behind a verdict."""

from __future__ import annotations

import pytest

from cache.explain import DEPARTURE, explain
from cache.policy import OperatorRule, Policy
from cache.rules import lookup
from tests.cache.cases import NOW, request, stored

MATCHED = ("1 stored for the URI, 1 of them for such a request", "RFC 9111 section 4.1")


def test_a_hit() -> None:
    entry = stored("Cache-Control: max-age=10 | Age: 2")
    assert explain(request(), [entry], NOW + 3) == [
        MATCHED,
        ("its age is 5 s, 2 s of them before it came here", "RFC 9111 section 4.2.3"),
        ("max-age says 10 s of freshness", "RFC 9111 section 5.2.2.1"),
        ("hit: the stored response is fresh", "RFC 9111 section 4.2"),
    ]


@pytest.mark.parametrize(
    "response, reason",
    [
        ("Cache-Control: s-maxage=10", ("s-maxage says 10 s of freshness", "RFC 9111 section 5.2.2.10")),
        ("Expires: {+10} | Date: {0}", ("Expires says 10 s of freshness", "RFC 9111 section 5.3")),
        ("Last-Modified: {-100}", ("a guess from Last-Modified says 10 s of freshness", "RFC 9111 section 4.2.2")),
        ('ETag: "x"', ("nothing says how long, so that it is 0 s of freshness", "RFC 9111 section 4.2.2")),
        (
            "CDN-Cache-Control: max-age=10",
            ("cdn-cache-control, in place of Cache-Control, says 10 s of freshness", "RFC 9213 section 2.2"),
        ),
        (
            "CDN-Cache-Control: x | Last-Modified: {-100}",
            ("a guess from Last-Modified says 10 s of freshness", "RFC 9111 section 4.2.2"),
        ),
    ],
)
def test_where_freshness_comes_from(response: str, reason: tuple[str, str]) -> None:
    policy = Policy(targets=(b"cdn-cache-control",))
    chain = explain(request(), [stored(response, policy=policy)], NOW, policy)
    assert chain[1] == ("its age is 0 s", "RFC 9111 section 4.2.3")
    assert chain[2] == reason


def test_the_operators_rule_is_shown_as_what_it_is() -> None:
    policy = Policy(rules=(OperatorRule.parse("host=example.com ttl=60 ignore=no-store"),))
    entry = stored("Cache-Control: no-store", policy=policy)
    chain = explain(request(), [entry], NOW + 1, policy)
    assert chain[2:4] == [
        ("the operator's rule says 60 s of freshness", DEPARTURE),
        ("the operator's rule applies: host=example.com path=* ttl=60 ignore=no-store", DEPARTURE),
    ]


@pytest.mark.parametrize(
    "asked, after, last",
    [
        ("", 11, ("revalidate: it is stale", "RFC 9111 section 4.2")),
        ("Cache-Control: max-stale", 11, ("stale: the request's max-stale allows it", "RFC 9111 section 5.2.1.2")),
        ("Cache-Control: no-store", 11, ("pass: the request says no-store, and it is stale", "RFC 9111 section 5.2.1.5")),
        ("Cache-Control: only-if-cached", 11, ("504: only-if-cached, and it is stale", "RFC 9111 section 5.2.1.7")),
    ],
)
def test_the_verdict_comes_last(asked: str, after: float, last: tuple[str, str]) -> None:
    entry = stored("Cache-Control: max-age=10")
    assert explain(request(asked), [entry], NOW + after)[-1] == last


def test_nothing_stored_and_nothing_to_look_for() -> None:
    assert explain(request(), [], NOW) == [("miss: nothing is stored for this URI", "RFC 9111 section 4")]
    put = request(method="PUT")
    assert explain(put, [stored("Cache-Control: max-age=10")], NOW) == [
        ("pass: only GET and HEAD are answered from the store", "RFC 9111 section 4")
    ]
    vary = stored("Cache-Control: max-age=10 | Vary: Foo", asked=request("Foo: 1"))
    assert explain(request(), [vary], NOW) == [
        ("1 stored for the URI, 0 of them for such a request", "RFC 9111 section 4.1"),
        ("miss: nothing stored was selected by fields like this request's", "RFC 9111 section 4.1"),
    ]


def test_age_from_before_is_told_from_one_second_on() -> None:
    for age, told in ((1, "its age is 1 s, 1 s of them before it came here"), (0, "its age is 0 s")):
        assert explain(request(), [stored(f"Cache-Control: max-age=10 | Age: {age}")], NOW)[1][0] == told


def test_it_says_what_lookup_says() -> None:
    entry = stored("Cache-Control: max-age=10, stale-while-revalidate=5 | Vary: Foo")
    for asked in ("", "Foo: 1", "Cache-Control: no-cache"):
        for after in (1, 11, 99):
            verdict = lookup(request(asked), [entry], NOW + after)
            text, section = explain(request(asked), [entry], NOW + after)[-1]
            assert text.endswith(verdict.reason) and section == verdict.section
