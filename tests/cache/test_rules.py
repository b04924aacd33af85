"""What stored responses are good for: RFC 9111 sections 4 and 5.2, RFC 5861, RFC 8246.

A response is stored at NOW, and looked up so many seconds later.
"""

from __future__ import annotations

import pytest

from cache.entry import Entry
from cache.policy import OperatorRule, Policy
from cache.rules import (
    Hit,
    Miss,
    Pass,
    Revalidate,
    Stale,
    Unavailable,
    conditional_fields,
    failure_status,
    lookup,
    matching,
    may_answer,
    selectable,
    stale_on_error,
)  # fmt: skip
from tests.cache.cases import NOW, request, stored, word

TAGGED = ' | ETag: "x"'
PARTIAL = Policy(store_partial=True)


def verdict(response: str, after: float = 1, asked: str = "", policy: Policy = Policy()) -> str:
    entry = stored(response + TAGGED, policy=policy)
    return word(lookup(request(asked), [entry], NOW + after, policy))


# Section 4.2: freshness.


@pytest.mark.parametrize(
    "response, after, expected",
    [
        ("Cache-Control: max-age=10", 0, "hit"),
        ("Cache-Control: max-age=10", 9.9, "hit"),
        ("Cache-Control: max-age=10", 10, "revalidate"),
        ("Cache-Control: max-age=10", 9999, "revalidate"),
        ("Cache-Control: max-age=10 | Age: 5", 4, "hit"),
        ("Cache-Control: max-age=10 | Age: 5", 5, "revalidate"),
        ("Cache-Control: max-age=10 | Age: 10", 0, "revalidate"),
        ("Cache-Control: max-age=10 | Date: {-5}", 4, "hit"),
        ("Cache-Control: max-age=10 | Date: {-5}", 5, "revalidate"),
        ("Cache-Control: max-age=10, s-maxage=5", 5, "revalidate"),
        ("Cache-Control: max-age=5, s-maxage=10", 9, "hit"),
        ("Expires: {+10} | Date: {0}", 9, "hit"),
        ("Expires: {+10} | Date: {0}", 10, "revalidate"),
        ("Expires: 0", 0, "revalidate"),
        ("Last-Modified: {-1000} | Date: {0}", 99, "hit"),
        ("Last-Modified: {-1000} | Date: {0}", 100, "revalidate"),
        ("X: y", 0, "revalidate"),
        ("Cache-Control: max-age=10, foo=bar, baz", 9, "hit"),  # section 5.2.3: what is not known is ignored
    ],
)
def test_fresh_or_not(response: str, after: float, expected: str) -> None:
    assert verdict(response, after) == expected


# Section 5.2.2: what the response says.


@pytest.mark.parametrize(
    "response, after, expected",
    [
        ("Cache-Control: max-age=10, no-cache", 1, "revalidate"),
        ('Cache-Control: max-age=10, no-cache="foo"', 1, "hit"),
        ("Cache-Control: max-age=10, must-revalidate", 9, "hit"),
        ("Cache-Control: max-age=10, must-revalidate", 10, "revalidate"),
        # RFC 5861 section 3.
        ("Cache-Control: max-age=10, stale-while-revalidate=5", 9, "hit"),
        ("Cache-Control: max-age=10, stale-while-revalidate=5", 10, "stale stale-while-revalidate"),
        ("Cache-Control: max-age=10, stale-while-revalidate=5", 14.9, "stale stale-while-revalidate"),
        ("Cache-Control: max-age=10, stale-while-revalidate=5", 15, "revalidate"),
        ("Cache-Control: max-age=10, stale-while-revalidate=0", 10, "revalidate"),
        ("Cache-Control: max-age=10, stale-while-revalidate=x", 10, "revalidate"),
        ("Cache-Control: max-age=0, stale-while-revalidate=5", 1, "stale stale-while-revalidate"),
        # RFC 9111 section 4.2.4: these forbid it.
        ("Cache-Control: max-age=10, stale-while-revalidate=5, must-revalidate", 11, "revalidate"),
        ("Cache-Control: max-age=10, stale-while-revalidate=5, proxy-revalidate", 11, "revalidate"),
        ("Cache-Control: s-maxage=10, stale-while-revalidate=5", 11, "revalidate"),
        ("Cache-Control: max-age=10, stale-while-revalidate=5, no-cache", 11, "revalidate"),
        ("Cache-Control: max-age=10, stale-if-error=5", 11, "revalidate"),
    ],
)
def test_response_directives(response: str, after: float, expected: str) -> None:
    assert verdict(response, after) == expected


def test_a_stale_answer_is_validated_behind_it() -> None:
    entry = stored("Cache-Control: max-age=10, stale-while-revalidate=5")
    found = lookup(request(), [entry], NOW + 11)
    assert isinstance(found, Stale) and found.entry is entry and found.revalidate
    assert found.section == "RFC 5861 section 3"


# Section 5.2.1: what the request says.


@pytest.mark.parametrize(
    "asked, after, expected",
    [
        ("Cache-Control: no-cache", 1, "revalidate"),
        ("Pragma: no-cache", 1, "revalidate"),
        ("Pragma: no-cache | Cache-Control: foo", 1, "hit"),
        ("Cache-Control: max-age=5", 5, "hit"),
        ("Cache-Control: max-age=5", 5.1, "revalidate"),
        ("Cache-Control: max-age=0", 0, "revalidate"),
        ("Cache-Control: max-age=x", 1, "revalidate"),
        ("Cache-Control: max-age=99", 9, "hit"),
        ("Cache-Control: max-age=99", 11, "revalidate"),
        ("Cache-Control: min-fresh=5", 5, "hit"),
        ("Cache-Control: min-fresh=5", 5.1, "revalidate"),
        ("Cache-Control: min-fresh=0", 9, "hit"),
        ("Cache-Control: min-fresh=0", 11, "revalidate"),
        ("Cache-Control: min-fresh=x", 1, "revalidate"),
        ("Cache-Control: max-stale", 9, "hit"),
        ("Cache-Control: max-stale", 9999, "stale max-stale"),
        ("Cache-Control: max-stale=5", 15, "stale max-stale"),
        ("Cache-Control: max-stale=5", 15.1, "revalidate"),
        ("Cache-Control: max-stale=x", 10.1, "revalidate"),
        ("Cache-Control: max-age=12, max-stale=5", 11, "stale max-stale"),
        ("Cache-Control: max-age=12, max-stale=5", 13, "revalidate"),
        ("Cache-Control: max-stale, min-fresh=5", 11, "revalidate"),
        ("Cache-Control: no-cache, max-stale", 11, "revalidate"),
        # Section 5.2.1.5: what is stored already may answer; what would be fetched must not be stored.
        ("Cache-Control: no-store", 1, "hit"),
        ("Cache-Control: no-store", 11, "pass stale"),
        ("Cache-Control: no-store, no-cache", 1, "pass request"),
        ("Cache-Control: only-if-cached", 1, "hit"),
        ("Cache-Control: only-if-cached", 11, "504"),
        ("Cache-Control: only-if-cached, max-stale", 11, "stale max-stale"),
        ("Cache-Control: only-if-cached, no-cache", 1, "504"),
        ("Cache-Control: only-if-cached, max-age=0", 1, "504"),
        ("Cache-Control: foo", 1, "hit"),
        ("Cookie: a=b | Accept: */*", 1, "hit"),
        ("Authorization: Basic eDp5", 1, "hit"),
    ],
)
def test_request_directives(asked: str, after: float, expected: str) -> None:
    assert verdict("Cache-Control: max-age=10", after, asked) == expected


@pytest.mark.parametrize("forbidden", ["must-revalidate", "proxy-revalidate", "s-maxage=10", "no-cache"])
def test_max_stale_does_not_overrule_the_response(forbidden: str) -> None:
    assert verdict(f"Cache-Control: max-age=10, {forbidden}", 11, "Cache-Control: max-stale") == "revalidate"


@pytest.mark.parametrize(
    "asked, expected",
    [
        ("", "stale stale-while-revalidate"),
        ("Cache-Control: max-stale", "stale stale-while-revalidate"),
        ("Cache-Control: max-stale=9", "stale stale-while-revalidate"),
        # Who says how fresh it is to be gets nothing staler than that.
        ("Cache-Control: max-stale=1", "revalidate"),
        ("Cache-Control: max-age=99", "revalidate"),
        ("Cache-Control: min-fresh=0", "revalidate"),
        ("Cache-Control: no-cache", "revalidate"),
    ],
)
def test_whom_stale_while_revalidate_is_for(asked: str, expected: str) -> None:
    assert verdict("Cache-Control: max-age=10, stale-while-revalidate=99", 12, asked) == expected


@pytest.mark.parametrize(
    "asked, after, expected",
    [
        ("Cache-Control: max-age=0", 1, "hit"),
        ("Cache-Control: max-age=3", 5, "hit"),
        ("Cache-Control: max-age=0", 11, "revalidate"),
        ("Cache-Control: no-cache", 1, "revalidate"),
        ("Cache-Control: max-age=0, no-cache", 1, "revalidate"),
        ("Cache-Control: min-fresh=20", 1, "revalidate"),
    ],
)
def test_immutable(asked: str, after: float, expected: str) -> None:
    """RFC 8246 section 2: no validation while it is fresh, unless the client insists."""
    assert verdict("Cache-Control: max-age=10, immutable", after, asked) == expected


@pytest.mark.parametrize(
    "asked, fwd_fresh, fwd_stale",
    [
        ("Cache-Control: no-cache", "request", "stale"),
        ("Cache-Control: max-age=0", "request", "stale"),
        ("Cache-Control: min-fresh=99", "request", "stale"),
        ("", None, "stale"),
    ],
)
def test_why_it_goes_forward(asked: str, fwd_fresh: str | None, fwd_stale: str) -> None:
    """RFC 9211 section 2.2."""
    entry = stored("Cache-Control: max-age=10")
    assert lookup(request(asked), [entry], NOW + 1).fwd == fwd_fresh
    assert lookup(request(asked), [entry], NOW + 10).fwd == fwd_stale


@pytest.mark.parametrize(
    "response, asked, after, section",
    [
        ("Cache-Control: max-age=10", "", 1, "RFC 9111 section 4.2"),
        ("Cache-Control: max-age=10", "", 11, "RFC 9111 section 4.2"),
        ("Cache-Control: max-age=10, must-revalidate", "", 11, "RFC 9111 section 5.2.2.2"),
        ("Cache-Control: max-age=10, proxy-revalidate", "", 11, "RFC 9111 section 5.2.2.8"),
        ("Cache-Control: s-maxage=10", "", 11, "RFC 9111 section 5.2.2.10"),
        ("Cache-Control: no-cache", "", 1, "RFC 9111 section 5.2.2.4"),
        ("Cache-Control: max-age=10", "Cache-Control: no-cache", 1, "RFC 9111 section 5.2.1.4"),
        ("Cache-Control: max-age=10", "Cache-Control: max-age=0", 1, "RFC 9111 section 5.2.1.1"),
        ("Cache-Control: max-age=10", "Cache-Control: min-fresh=99", 1, "RFC 9111 section 5.2.1.3"),
        ("Cache-Control: max-age=10", "Cache-Control: max-stale", 11, "RFC 9111 section 5.2.1.2"),
        ("Cache-Control: max-age=10", "Cache-Control: no-store", 11, "RFC 9111 section 5.2.1.5"),
        ("Cache-Control: max-age=10", "Cache-Control: only-if-cached", 11, "RFC 9111 section 5.2.1.7"),
        ("Cache-Control: max-age=10", 'If-Match: "x"', 1, "RFC 9111 section 4.3.2"),
    ],
)
def test_each_verdict_names_its_section(response: str, asked: str, after: float, section: str) -> None:
    found = lookup(request(asked), [stored(response + TAGGED)], NOW + after)
    assert found.section == section and found.reason


# The operator's grace: section 4.2.4.


@pytest.mark.parametrize(
    "response, after, expected",
    [
        ("Cache-Control: max-age=10", 10, "stale grace"),
        ("Cache-Control: max-age=10", 14.9, "stale grace"),
        ("Cache-Control: max-age=10", 15, "revalidate"),
        ("Cache-Control: max-age=10, must-revalidate", 11, "revalidate"),
        ("Cache-Control: max-age=10, stale-while-revalidate=3", 11, "stale stale-while-revalidate"),
        ("Cache-Control: max-age=10, stale-while-revalidate=3", 13, "stale grace"),
    ],
)
def test_grace(response: str, after: float, expected: str) -> None:
    assert verdict(response, after, policy=Policy(grace=5)) == expected
    assert verdict(response, after, policy=Policy(rules=(OperatorRule(stale=5),))) == expected
    assert verdict(response, after, policy=Policy(grace=1, rules=(OperatorRule(stale=5),))) == expected
    found = lookup(request(), [stored(response)], NOW + after, Policy(grace=5))
    assert not isinstance(found, Stale) or found.revalidate


# Methods, and what is not for a cache.


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "FOO", "get"])
def test_other_methods_are_written_through(method: str) -> None:
    asked = request("Cache-Control: only-if-cached", method=method)
    found = lookup(asked, [stored("Cache-Control: max-age=10")], NOW)
    assert word(found) == "pass method"


def test_head_is_answered_by_a_get_but_not_the_other_way_round() -> None:
    by_get = stored("Cache-Control: max-age=10")
    by_head = stored("Cache-Control: max-age=10", asked=request(method="HEAD"))
    by_post = stored("Cache-Control: max-age=10 | Content-Location: /", asked=request(method="POST"))
    head, get = request(method="HEAD"), request()
    assert word(lookup(head, [by_get], NOW)) == "hit"
    assert word(lookup(head, [by_head], NOW)) == "hit"
    assert word(lookup(get, [by_head], NOW)) == "miss uri-miss"
    assert word(lookup(get, [by_post], NOW)) == "hit"
    assert word(lookup(head, [by_post], NOW)) == "hit"
    found = lookup(get, [by_head, by_get], NOW)
    assert isinstance(found, Hit) and found.entry is by_get


@pytest.mark.parametrize(
    "asked, expected",
    [
        ('If-Match: "x"', "pass request"),
        ("If-Match: *", "pass request"),
        ("If-Unmodified-Since: Sun, 09 Sep 2001 01:46:40 GMT", "pass request"),
        ('If-Match: "x" | Cache-Control: only-if-cached', "504"),
        ("Transfer-Encoding: chunked", "pass bypass"),
    ],
)
def test_what_is_for_the_origin_alone(asked: str, expected: str) -> None:
    entry = stored("Cache-Control: max-age=10" + TAGGED)
    assert word(lookup(request(asked), [entry], NOW)) == expected
    assert word(lookup(request(asked), [], NOW)) == expected


@pytest.mark.parametrize(
    "asked, expected",
    [
        ("Connection: close", "miss uri-miss"),
        ("Connection: Keep-Alive | Keep-Alive: 5", "miss uri-miss"),
        ("Connection: X-A", "miss uri-miss"),
        ("Connection: X-A | X-A: 1", "pass bypass"),
        ("Connection: close, x-a | X-A: 1", "pass bypass"),
        ("Connection: close, cookie | X-A: 1", "miss uri-miss"),
        ("Connection: TE | TE: trailers", "miss uri-miss"),
        ("Connection: Upgrade, HTTP2-Settings | HTTP2-Settings: x | Upgrade: h2c", "miss uri-miss"),
        ("X-A: 1", "miss uri-miss"),
    ],
)
def test_what_is_answered_without_a_field_is_not_for_who_sends_it(asked: str, expected: str) -> None:
    assert word(lookup(request(asked), [], NOW)) == expected


def test_a_get_with_content_passes_by() -> None:
    assert word(lookup(request(content=b"x"), [stored("Cache-Control: max-age=10")], NOW)) == "pass bypass"


@pytest.mark.parametrize(
    "asked, expected",
    [
        ("", "miss uri-miss"),
        ("Cache-Control: no-cache", "miss uri-miss"),
        ("Cache-Control: max-stale", "miss uri-miss"),
        ("Cache-Control: no-store", "pass uri-miss"),
        ("Cache-Control: only-if-cached", "504"),
        ("Cache-Control: only-if-cached, no-store", "504"),
        ('If-None-Match: "x"', "miss uri-miss"),
        ("Range: bytes=0-1", "miss uri-miss"),
    ],
)
def test_nothing_is_stored(asked: str, expected: str) -> None:
    assert word(lookup(request(asked), (), NOW)) == expected


def test_unavailable_is_504() -> None:
    found = lookup(request("Cache-Control: only-if-cached"), (), NOW)
    assert isinstance(found, Unavailable) and found.fwd is None
    assert "nothing is stored" in found.reason


def test_special_requests_are_told_apart() -> None:
    entry = stored("Cache-Control: max-age=10" + TAGGED)
    for asked in (
        'If-None-Match: "x"',
        "If-Modified-Since: {0}",
        "Range: bytes=0-1",
        'If-None-Match: "y" | Range: bytes=0-1',
    ):
        found = lookup(request(asked), [entry], NOW + 1)
        assert isinstance(found, Hit) and found.special
    for asked in ("", 'If-Range: "x"', "Cache-Control: max-age=99, max-stale"):
        found = lookup(request(asked), [entry], NOW + 1)
        assert isinstance(found, Hit) and not found.special


def test_an_invalidated_response_needs_validation() -> None:
    entry = stored("Cache-Control: max-age=10, stale-while-revalidate=9")
    entry.invalidate()
    for asked in ("", "Cache-Control: max-stale"):
        found = lookup(request(asked), [entry], NOW + 1)
        assert isinstance(found, Revalidate) and found.section == "RFC 9111 section 4.4" and found.fwd == "stale"
    assert word(lookup(request("Cache-Control: only-if-cached"), [entry], NOW + 1)) == "504"


# Section 4.1: Vary.

FRESH = "Cache-Control: max-age=10"


def variants(*cases: tuple[str, str, float]) -> list[Entry]:
    """(response, request it answered, Date's offset) of each."""
    return [stored(f"{FRESH} | Date: {{{at}}} | {response}", asked=request(asked)) for response, asked, at in cases]


@pytest.mark.parametrize(
    "vary, first, second, expected",
    [
        ("Foo", "Foo: 1", "Foo: 1", "hit"),
        ("Foo", "Foo: 1", "Foo: 2", "miss vary-miss"),
        ("Foo", "Foo: 1", "", "miss vary-miss"),
        ("Foo", "", "Foo: 1", "miss vary-miss"),
        ("Foo", "", "", "hit"),
        ("Foo", "", "Bar: 1", "hit"),
        ("Foo", "Foo: 1,2", "Foo: 1 | Foo: 2", "hit"),
        ("Foo", "Foo: a", "Foo: A", "miss vary-miss"),
        ("Foo, Bar", "Foo: 1 | Bar: 2", "Bar: 2 | Foo: 1", "hit"),
        ("Foo, Bar", "Foo: 1 | Bar: 2", "Foo: 1", "miss vary-miss"),
        ("Foo, Bar", "Foo: 1 | Bar: 2", "Foo: 1 | Bar: 3", "miss vary-miss"),
        ("Accept-Encoding", "Accept-Encoding: gzip, br", "accept-encoding: BR,gzip", "hit"),
        ("Cookie", "Cookie: a=1", "Cookie: a=2", "miss vary-miss"),
        ("Range", "", "Range: bytes=0-1", "miss vary-miss"),
        ("", "Foo: 1", "Foo: 2", "hit"),
    ],
)
def test_a_response_answers_only_requests_that_match_its_own(vary: str, first: str, second: str, expected: str) -> None:
    [entry] = variants((f"Vary: {vary}", first, 0))
    assert word(lookup(request(second), [entry], NOW)) == expected
    if expected == "hit":
        assert word(lookup(request(second), [entry, *variants(("Vary: Zed", "Zed: 1", 0))], NOW)) == expected


def test_star_never_matches() -> None:
    [entry] = variants(("X: y", "", 0))
    entry.vary = None
    entry.plain = False
    assert word(lookup(request(), [entry], NOW)) == "miss vary-miss"
    assert selectable(request(), [entry, entry]) == []


def test_the_variant_that_matches_is_chosen() -> None:
    one, two, none = variants(("Vary: Foo", "Foo: 1", 0), ("Vary: Foo", "Foo: 2", 0), ("Vary: Foo", "", 0))
    for asked, expected in (("Foo: 1", one), ("Foo: 2", two), ("", none)):
        found = lookup(request(asked), [one, two, none], NOW)
        assert isinstance(found, Hit) and found.entry is expected
    assert word(lookup(request("Foo: 3"), [one, two, none], NOW)) == "miss vary-miss"


def test_of_several_the_most_recent_by_date_is_chosen() -> None:
    """Section 4: MUST use the most recent one."""
    old, new, other = variants(("Vary: Foo", "Foo: 1", -5), ("Vary: Foo, Bar", "Foo: 1", -3), ("Vary: Foo", "Foo: 2", 0))
    for order in ([old, new, other], [other, new, old], [new, old]):
        found = lookup(request("Foo: 1"), order, NOW)
        assert isinstance(found, Hit) and found.entry is new
    stale = lookup(request("Foo: 1"), [old, new], NOW + 7.5)
    assert isinstance(stale, Revalidate) and stale.entry is new and set(stale.entries) == {old, new}


def test_the_most_recent_though_an_older_one_is_fresh() -> None:
    old = stored("Cache-Control: max-age=99 | Date: {-5}")
    new = stored("Cache-Control: max-age=5 | Date: {-3}")
    found = lookup(request(), [old, new], NOW + 4)
    assert isinstance(found, Revalidate) and found.entry is new


def test_received_last_counts_within_one_second() -> None:
    first = stored(FRESH + " | Date: {0}")
    second = stored(FRESH + " | Date: {0}", at=NOW + 0.5)
    found = lookup(request(), [second, first], NOW + 1)
    assert isinstance(found, Hit) and found.entry is second


def test_where_some_forget_vary_those_that_say_it_come_first() -> None:
    """Section 4.1: SHOULD choose the most recent stored response with a valid Vary field value."""
    default, encoded = variants(("X: y", "", -3), ("Vary: Foo", "Foo: 1", -5))
    assert matching(request("Foo: 1"), [default, encoded]) == [encoded]
    assert matching(request("Foo: 2"), [default, encoded]) == [default]
    # A default that is older than the news that the resource varies may be another client's.
    older, newer = variants(("X: y", "", -5), ("Vary: Foo", "Foo: 1", -3))
    assert matching(request("Foo: 2"), [older, newer]) == []
    assert word(lookup(request("Foo: 2"), [older, newer], NOW)) == "miss vary-miss"
    assert matching(request("Foo: 1"), [older, newer]) == [newer]


def test_a_newer_head_does_not_hide_a_get() -> None:
    get = stored(FRESH + " | Date: {-5}")
    head = stored(FRESH + " | Date: {0}", asked=request(method="HEAD"))
    found = lookup(request(), [head, get], NOW)
    assert isinstance(found, Hit) and found.entry is get


# Parts: section 3.3.


def part(content_range: str = "bytes 10-19/100", lines: str = FRESH + TAGGED) -> Entry:
    return stored(f"{lines} | Content-Range: {content_range}", 206, policy=PARTIAL)


@pytest.mark.parametrize(
    "asked, expected",
    [
        ("Range: bytes=10-19", "hit"),
        ("Range: bytes=12-13", "hit"),
        ("Range: bytes=10-11, 18-19", "hit"),
        ("Range: bytes=9-19", "miss partial"),
        ("Range: bytes=10-20", "miss partial"),
        ("Range: bytes=10-", "miss partial"),
        ("Range: bytes=-5", "miss partial"),
        ("Range: bytes=12-13, 30-31", "miss partial"),
        ("Range: bytes=200-", "miss partial"),
        ("Range: items=10-19", "miss partial"),
        ("Range: nonsense", "miss partial"),
        ("", "miss partial"),
        ('Range: bytes=12-13 | If-Range: "x"', "hit"),
        ('Range: bytes=12-13 | If-Range: "y"', "miss partial"),
        ("Range: bytes=12-13 | Cache-Control: no-store", "hit"),
        ("Range: bytes=30-31 | Cache-Control: no-store", "pass partial"),
        ("Range: bytes=30-31 | Cache-Control: only-if-cached", "504"),
    ],
)
def test_a_part_answers_ranges_within_it(asked: str, expected: str) -> None:
    assert word(lookup(request(asked), [part()], NOW)) == expected


@pytest.mark.parametrize(
    "asked, expected",
    [
        ("Range: bytes=10-19", "hit"),
        ("Range: bytes=10-", "miss partial"),
        ("Range: bytes=-5", "miss partial"),
        ("Range: bytes=10-20", "miss partial"),
        ("Range: bytes=10-11,13-14", "miss partial"),  # several parts need a length to be named
        ("Range: bytes=10-11,12-14", "hit"),
    ],
)
def test_a_part_of_a_whole_of_unknown_length(asked: str, expected: str) -> None:
    assert word(lookup(request(asked), [part("bytes 10-19/*")], NOW)) == expected


@pytest.mark.parametrize(
    "asked, expected",
    [
        ("Range: bytes=-5", "hit"),
        ("Range: bytes=95-", "hit"),
        ("Range: bytes=95-999", "hit"),
        ("Range: bytes=-6", "miss partial"),
    ],
)
def test_the_last_part(asked: str, expected: str) -> None:
    assert word(lookup(request(asked), [part("bytes 95-99/100")], NOW)) == expected


@pytest.mark.parametrize(
    "parts, asked, longest",
    [
        (["0-9/100"], "", 0),
        (["0-9/100", "0-19/100", "0-14/100"], "", 1),
        (["0-9/100", "0-9/100"], "", 0),
        (["1-9/100"], "", None),
        (["1-90/100", "0-3/100"], "", 1),
        (["0-9/*"], "", None),
        (["0-9/100"], "Range: bytes=0-90", None),
        (["0-9/100"], "Cache-Control: no-cache", 0),
    ],
)
def test_the_rest_of_a_stored_beginning_can_be_asked_for(parts: list[str], asked: str, longest: int | None) -> None:
    entries = [part(f"bytes {place}") for place in parts]
    found = lookup(request(asked), entries, NOW + 99)  # however stale
    assert isinstance(found, Miss) and found.part is (None if longest is None else entries[longest])


def test_no_rest_is_asked_for_without_a_strong_tag_or_by_head() -> None:
    for lines in (FRESH, FRESH + ' | ETag: W/"x"', FRESH + " | Last-Modified: {-9}"):
        found = lookup(request(), [part("bytes 0-9/100", lines)], NOW)
        assert isinstance(found, Miss) and found.part is None
    found = lookup(request(method="HEAD"), [part("bytes 0-9/100")], NOW)
    assert isinstance(found, Miss) and found.part is None
    assert lookup(request(), [], NOW).part is None  # type: ignore[union-attr]


def test_what_a_head_brought_is_selectable_where_that_is_asked_for() -> None:
    head, whole = stored(FRESH, asked=request(method="HEAD")), stored(FRESH)
    assert selectable(request(), [head, whole]) == [whole]
    assert selectable(request(), [head, whole], heads=True) == [head, whole]
    assert selectable(request(method="HEAD"), [head, whole]) == [head, whole]


def test_a_head_is_not_answered_by_a_part() -> None:
    assert word(lookup(request("Range: bytes=10-19", method="HEAD"), [part()], NOW)) == "miss partial"


def test_the_whole_answers_beside_a_part() -> None:
    whole, piece = stored(FRESH + TAGGED + " | Date: {-5}"), part()
    found = lookup(request(), [piece, whole], NOW)
    assert isinstance(found, Hit) and found.entry is whole
    found = lookup(request("Range: bytes=10-11"), [piece, whole], NOW)
    assert isinstance(found, Hit) and found.entry is piece and found.special


# Section 4.3.1: what is sent to validate.


@pytest.mark.parametrize(
    "response, asked, sent",
    [
        ('ETag: "x"', "", {"If-None-Match": '"x"'}),
        ('ETag: W/"x"', "", {"If-None-Match": 'W/"x"'}),
        ("ETag: abc", "", {"If-None-Match": "abc"}),
        ("Last-Modified: Sun, 09 Sep 2001 01:00:00 GMT", "", {"If-Modified-Since": "Sun, 09 Sep 2001 01:00:00 GMT"}),
        (
            'ETag: "x" | Last-Modified: Sun, 09 Sep 2001 01:00:00 GMT', "",
            {"If-None-Match": '"x"', "If-Modified-Since": "Sun, 09 Sep 2001 01:00:00 GMT"},
        ),
        ("Last-Modified: last week | ETag: \"x\"", "", {"If-None-Match": '"x"'}),
        # Section 4.3.2: together with the client's own tags.
        ('ETag: "x"', 'If-None-Match: "y", W/"z"', {"If-None-Match": '"x", "y", W/"z"'}),
        ('ETag: "x"', 'If-None-Match: "x"', {"If-None-Match": '"x"'}),
        ('ETag: "x"', "If-None-Match: *", {"If-None-Match": '"x"'}),
        ('ETag: "x"', "If-Modified-Since: Sun, 09 Sep 2001 01:00:00 GMT", {"If-None-Match": '"x"'}),
        (
            "Last-Modified: Sun, 09 Sep 2001 01:00:00 GMT", 'If-None-Match: "y"',
            {"If-Modified-Since": "Sun, 09 Sep 2001 01:00:00 GMT"},
        ),
    ],
)  # fmt: skip
def test_validators_are_sent(response: str, asked: str, sent: dict[str, str]) -> None:
    found = lookup(request(asked), [stored(f"Cache-Control: max-age=10 | {response}")], NOW + 9999999)
    assert isinstance(found, Revalidate)
    assert {name.decode(): value.decode() for name, value in found.fields} == sent


def test_without_a_validator_nothing_is_sent_but_the_response_may_yet_serve() -> None:
    entry = stored("Cache-Control: max-age=10")
    found = lookup(request(), [entry], NOW + 11)
    assert isinstance(found, Revalidate) and found.fields == () and found.entry is entry


def test_the_tags_of_all_that_could_be_chosen_are_sent() -> None:
    one, two, other = variants(
        ('Vary: Foo | ETag: "1" | Last-Modified: {-9}', "Foo: 1", -5),
        ('Vary: Bar | ETag: "2"', "", -3),
        ('Vary: Foo | ETag: "3"', "Foo: 3", 0),
    )
    found = lookup(request("Foo: 1"), [one, two, other], NOW + 99)
    assert isinstance(found, Revalidate) and set(found.entries) == {one, two}
    assert found.fields == ((b"If-None-Match", b'"1", "2"'),), "no date where more than one is validated"


def test_a_part_is_validated_with_its_range() -> None:
    found = lookup(request("Range: bytes=12-13"), [part(lines=FRESH + ' | ETag: "x" | Last-Modified: {-9}')], NOW + 99)
    assert isinstance(found, Revalidate)
    assert found.fields == ((b"Range", b"bytes=12-13"), (b"If-None-Match", b'"x"'))
    found = lookup(request('Range: bytes=12-13 | If-Range: "x"'), [part()], NOW + 99)
    assert isinstance(found, Revalidate)
    assert found.fields == ((b"Range", b"bytes=12-13"), (b"If-Range", b'"x"'), (b"If-None-Match", b'"x"'))
    whole = stored(FRESH + ' | ETag: "w" | Date: {-5}')
    # Section 4.3.2: not the tag of a part that does not hold the range.
    found = lookup(request("Range: bytes=50-"), [part(), whole], NOW + 99)
    assert isinstance(found, Revalidate) and found.fields == ((b"If-None-Match", b'"w"'),)


def test_conditions_may_be_made_for_a_validation_of_our_own() -> None:
    entry = stored(FRESH + TAGGED)
    assert conditional_fields(request(), [entry], entry) == ((b"If-None-Match", b'"x"'),)
    asked = request('If-None-Match: "y"')
    assert conditional_fields(asked, [entry], entry, for_client=False) == ((b"If-None-Match", b'"x"'),)


# Section 4.2.4 and RFC 5861 section 4: the origin failed.


@pytest.mark.parametrize(
    "response, asked, status, after, expected",
    [
        ("max-age=10, stale-if-error=5", "", 500, 12, "stale-if-error"),
        ("max-age=10, stale-if-error=5", "", 502, 12, "stale-if-error"),
        ("max-age=10, stale-if-error=5", "", 503, 12, "stale-if-error"),
        ("max-age=10, stale-if-error=5", "", 504, 14.9, "stale-if-error"),
        ("max-age=10, stale-if-error=5", "", None, 12, "stale-if-error"),
        ("max-age=10, stale-if-error=5", "", 503, 15, None),
        ("max-age=10, stale-if-error=5", "", 501, 12, None),
        ("max-age=10, stale-if-error=5", "", 505, 12, None),
        ("max-age=10, stale-if-error=5", "", 404, 12, None),
        ("max-age=10, stale-if-error=5", "", 200, 12, None),
        ("max-age=10", "Cache-Control: stale-if-error=5", 503, 12, "stale-if-error"),
        ("max-age=10", "Cache-Control: stale-if-error=5", 503, 15, None),
        ("max-age=10, stale-if-error=1", "Cache-Control: stale-if-error=5", 503, 12, "stale-if-error"),
        ("max-age=10, stale-if-error=5", "Cache-Control: max-age=99", 503, 12, "stale-if-error"),
        ("max-age=10", "", 503, 12, None),
        ("max-age=10, stale-while-revalidate=5", "", 503, 12, None),
        # Disconnected, and nothing forbids it.
        ("max-age=10", "", None, 12, "disconnected"),
        ("max-age=10", "", None, 109.9, "disconnected"),
        ("max-age=10", "", None, 110, None),
        ("max-age=10", "Cache-Control: max-age=99", None, 12, None),
        ("max-age=10", "Cache-Control: min-fresh=1", None, 12, None),
        ("max-age=10", "Cache-Control: max-stale=1", None, 12, None),
        ("max-age=10", "Cache-Control: max-stale=2", None, 12, "disconnected"),
        # Fresh, though the client would have had it validated.
        ("max-age=10", "Cache-Control: max-age=0", None, 1, "disconnected"),
        ("max-age=10", "Cache-Control: max-age=0", 503, 1, None),
        ("max-age=10, stale-if-error=5", "Cache-Control: max-age=0", 503, 1, "stale-if-error"),
        # Forbidden, whoever would allow it.
        ("max-age=10, must-revalidate, stale-if-error=99", "Cache-Control: stale-if-error=99", 503, 12, None),
        ("max-age=10, must-revalidate, stale-if-error=99", "", None, 12, None),
        ("max-age=10, proxy-revalidate, stale-if-error=99", "", None, 12, None),
        ("s-maxage=10, stale-if-error=99", "", None, 12, None),
        ("max-age=10, no-cache, stale-if-error=99", "", None, 12, None),
        ("max-age=10, stale-if-error=99", "Cache-Control: no-cache", None, 12, None),
    ],
)
def test_stale_where_the_origin_fails(
    response: str, asked: str, status: int | None, after: float, expected: str | None
) -> None:
    entry = stored(f"Cache-Control: {response}" + TAGGED)
    found = stale_on_error(request(asked), entry, NOW + after, Policy(grace_on_failure=100), status)
    assert (None if found is None else found.why) == expected
    if found is not None:
        assert found.entry is entry and not found.revalidate and found.section and found.reason


def test_the_operators_grace_where_the_origin_fails() -> None:
    entry = stored(FRESH)
    for policy, with_rule in (
        (Policy(grace=5, grace_on_failure=0), entry),
        (Policy(grace_on_failure=0), stored(FRESH, policy=Policy(rules=(OperatorRule(stale=5),)))),
    ):
        for status in (None, 503):
            found = stale_on_error(request(), with_rule, NOW + 12, policy, status)
            assert found is not None and found.why == "grace"
            assert stale_on_error(request(), with_rule, NOW + 15, policy, status) is None
    assert stale_on_error(request(), entry, NOW + 12, Policy(grace_on_failure=0)) is None


@pytest.mark.parametrize("status", [None, 503])
def test_a_rules_grace_where_the_origin_fails_is_for_whom_wants_it_validated_too(status: int | None) -> None:
    asked = request("Cache-Control: max-age=0")
    ruled = stored(FRESH, policy=Policy(rules=(OperatorRule(stale=5),)))
    found = stale_on_error(asked, ruled, NOW + 12, Policy(), status)
    assert found is not None and found.why == "grace"
    assert stale_on_error(asked, ruled, NOW + 15, Policy(), status) is None
    assert stale_on_error(request("Cache-Control: no-cache"), ruled, NOW + 12, Policy(), status) is None
    assert stale_on_error(asked, stored(FRESH), NOW + 12, Policy(grace=5), status) is None


def test_an_invalidated_response_is_not_served_though_the_origin_fails() -> None:
    entry = stored(FRESH + ", stale-if-error=99")
    entry.invalidate()
    assert stale_on_error(request(), entry, NOW + 1) is None


def test_must_revalidate_makes_a_failure_504() -> None:
    """Section 5.2.2.2: SHOULD be 504."""
    assert failure_status(stored(FRESH)) is None
    assert failure_status(stored("Cache-Control: max-age=10, must-revalidate")) == 504
    assert failure_status(stored("Cache-Control: no-cache" + TAGGED)) == 504


@pytest.mark.parametrize(
    "response, asked, may",
    [
        ("Cache-Control: max-age=10", "", True),
        ("Cache-Control: max-age=10 | Vary: Foo", "", True),
        ("Cache-Control: max-age=10 | Vary: Foo", "Foo: 1", False),
        ("Cache-Control: max-age=0, stale-while-revalidate=5", "", True),
        ("Cache-Control: max-age=0", "", False),
        ("Cache-Control: no-cache", "", False),
        ("Cache-Control: max-age=10", "Cache-Control: no-cache", False),
    ],
)
def test_who_may_have_what_was_fetched_for_another(response: str, asked: str, may: bool) -> None:
    """Section 4, of collapsed requests: provided that it is allowed to reuse that response for them."""
    assert may_answer(request(asked), stored(response + TAGGED), NOW) is may


def test_verdicts_are_of_a_closed_set() -> None:
    entry = stored(FRESH)
    assert isinstance(lookup(request(), [entry], NOW), Hit)
    assert isinstance(lookup(request(), [entry], NOW + 11), Revalidate)
    assert isinstance(lookup(request(), [], NOW), Miss)
    assert isinstance(lookup(request(method="PUT"), [], NOW), Pass)


@pytest.mark.parametrize(
    "lines, age, left",
    [
        ("Cache-Control: max-age=0", 5, "hit"),
        ("Cache-Control: no-cache", 5, "hit"),
        ("Pragma: no-cache", 5, "hit"),
        ("Cache-Control: min-fresh=100", 5, "hit"),
        ("Cache-Control: max-age=0, max-stale=20", 70, "stale max-stale"),
        ("Cache-Control: max-age=0", 70, "revalidate"),
        ("Cache-Control: only-if-cached, max-age=0", 70, "504"),
        ('Cache-Control: max-age=0 | If-None-Match: "x"', 5, "hit"),
    ],
)
def test_an_operator_may_leave_reloads_out_of_account(lines: str, age: int, left: str) -> None:
    for ignore, expected in (("ignore=reload", left), ("", None)):
        policy = Policy(rules=(OperatorRule.parse(f"ttl=60 {ignore}"),))
        said = word(lookup(request(lines), [stored(TAGGED, policy=policy)], NOW + age, policy))
        assert said == expected if expected else said != "hit"
