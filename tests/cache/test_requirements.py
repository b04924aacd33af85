"""Each MUST and MUST NOT that RFC 9111, sections 3 to 5, lays on a cache, with a test of its own.

What the rules cannot see is kept elsewhere: no-transform (5.2.2.6) by the store, which changes no byte; the Age field (4) by
the handler, from `Entry.age`; that request and response of a no-store exchange leave volatile storage (5.2.1.5, 5.2.2.5) by
their never being given to the store. A cache without a clock (4) there is none.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest

from cache.answering import answer
from cache.directives import DELTA_MAX, delta_seconds
from cache.entry import Entry
from cache.invalidation import invalidates
from cache.key import primary_key
from cache.partial import combine
from cache.policy import Policy
from cache.rules import Hit, Miss, Pass, Revalidate, Stale, Verdict, failure_status, lookup, may_answer, stale_on_error
from cache.validation import Forward, Freshened, Refetch, Replaced, Validation, after_head, forward_fields, validate
from reactor.http.fields import Fields
from tests.cache.cases import NOW, URI, WALL, at_wall, date, decide, fields, request, stored, word

FRESH = "Cache-Control: max-age=10"
TAGGED = FRESH + ' | ETag: "x"'
PARTIAL = Policy(store_partial=True)
EAGER = Policy(grace=1000, grace_on_failure=1000)
STALE = NOW + 50


def kept(lines: str, status: int = 200, asked: str = "", method: str = "GET", policy: Policy = Policy()) -> bool:
    return decide(lines, status, request(asked, method), policy).store


def found(entries: list[Entry], asked: str = "", at: float = NOW, policy: Policy = Policy(), method: str = "GET") -> Verdict:
    return lookup(request(asked, method), entries, at, policy)


def part() -> Entry:
    return stored(TAGGED + " | Content-Range: bytes 10-19/100", 206, policy=PARTIAL)


def validated(entry: Entry, lines: str, status: int = 304, asked: str = "") -> Validation:
    verdict = found([entry], asked, STALE)
    assert isinstance(verdict, Revalidate)
    return validate(request(asked), verdict, status, fields(lines), STALE, STALE, at_wall(STALE))


# Section 3: storing.


def method_is_understood() -> None:
    assert kept(FRESH) and kept(FRESH, method="HEAD")
    assert not any(kept(FRESH + ", public", method=method) for method in ("PUT", "DELETE", "OPTIONS", "QUERY", "FOO", "get"))


def status_is_final() -> None:
    assert not any(kept(FRESH, status) for status in range(100, 200))


def status_206_304_or_must_understand_is_understood() -> None:
    assert not kept(FRESH, 304) and not kept(FRESH + " | Content-Range: bytes 0-1/2", 206)
    assert not kept("Cache-Control: max-age=10, must-understand", 299)
    assert kept("Cache-Control: max-age=10, must-understand", 200)


def response_no_store() -> None:
    assert not kept("Cache-Control: max-age=10, public, no-store") and not kept(FRESH + " | Cache-Control: No-Store")


def private_in_a_shared_cache() -> None:
    assert not kept("Cache-Control: private, max-age=10, s-maxage=10, public")
    assert kept('Cache-Control: private="x", max-age=10')


def authorization_in_a_shared_cache() -> None:
    assert not kept(FRESH, asked="Authorization: x") and kept("Cache-Control: s-maxage=10", asked="Authorization: x")


def something_that_allows_it() -> None:
    assert not kept('ETag: "x"', 302) and not kept("Last-Modified: {-1000}", 500)
    assert kept("Expires: {+10}", 302) and kept("Cache-Control: max-age=10", 302) and kept("Cache-Control: s-maxage=10", 302)
    assert kept("Cache-Control: public | Last-Modified: {-1000}", 302) and kept("Last-Modified: {-1000}", 200)


def every_field_is_included() -> None:
    lines = FRESH + " | Date: {0} | X-New: 1 | x-new: 2 | Cache-Status: a | Warning: 1 | Pragma: x"
    assert list(stored(lines).fields) == list(fields(lines))


def fields_of_the_proxy_that_was_asked() -> None:
    entry = stored(FRESH + " | Proxy-Authenticate: a | Proxy-Authentication-Info: b | Proxy-Authorization: c")
    assert not any(name.startswith(b"proxy") for name in entry.fields.index)


def trailers_are_not_headers() -> None:
    entry = stored(FRESH + " | Trailer: X-Sum")
    assert b"trailer" not in entry.fields and b"x-sum" not in entry.fields


def an_update_replaces_every_field_it_has() -> None:
    result = validated(stored(TAGGED + " | A: 1 | A: 2 | B: 1"), 'ETag: "x" | a: 3 | C: 4')
    assert isinstance(result, Freshened)
    new = result.entry.fields
    assert (new.get_all(b"a"), new[b"b"], new[b"c"]) == ([b"3"], b"1", b"4")


def an_update_spares_what_is_excepted() -> None:
    result = validated(
        stored(TAGGED + " | Content-Length: 5"), 'ETag: "x" | Content-Length: 6 | Connection: a | A: 1 | Upgrade: x'
    )
    assert isinstance(result, Freshened) and result.entry.length == 5
    assert not {b"content-length", b"connection", b"a", b"upgrade"} & result.entry.fields.index.keys()


def parts_only_with_range_support() -> None:
    assert not kept(TAGGED + " | Content-Range: bytes 0-1/9", 206) and kept(
        TAGGED + " | Content-Range: bytes 0-1/9", 206, policy=PARTIAL
    )
    assert not kept(TAGGED + " | Content-Range: lines 0-1/9", 206, policy=PARTIAL)


def parts_answer_only_ranges_within_them() -> None:
    assert isinstance(found([part()], "Range: bytes=10-19"), Hit)
    for asked in ("", "Range: bytes=9-19", "Range: bytes=10-20", "Range: bytes=-1", "Range: lines=1-2"):
        assert word(found([part()], asked)) == "miss partial"
    assert word(found([part()], "Range: bytes=10-19", method="HEAD")) == "miss partial"


def parts_are_marked_206() -> None:
    assert answer(request("Range: bytes=10-11"), part(), 10, WALL) == (206, ((10, 12),))


def combining_takes_the_new_fields() -> None:
    new = stored(TAGGED + " | A: new | Content-Range: bytes 20-29/100", 206, policy=PARTIAL)
    joined = combine(part(), new, request(), PARTIAL)
    assert joined is not None and joined.fields[b"a"] == b"new" and joined.span == (10, 30, 100)


def an_authorized_response_is_not_reused() -> None:
    result = validated(stored(TAGGED), 'ETag: "x" | X: secret', asked="Authorization: x")
    assert isinstance(result, Freshened) and result.updates == (), "nor is what a 304 to it says"
    assert not kept(FRESH, asked="Authorization: x")


# Section 4: reusing.


def the_method_allows_it() -> None:
    assert isinstance(found([stored(FRESH)], method="HEAD"), Hit)
    assert not isinstance(found([stored(FRESH, asked=request(method="HEAD"))]), Hit)


def the_target_uri_matches() -> None:
    """Entries are looked up by the primary key: it takes together what RFC 9110 section 4.2.3 calls one URI, and no more."""
    keys = [b"/", b"/?", b"/a", b"/A", b"/a?b", b"/a?B", b"/%61", b"/a/", b"//a"]
    assert len({primary_key(b"http", b"example.com", path) for path in keys}) == len(keys)
    assert primary_key(b"http", b"EXAMPLE.com:80", b"/") == URI != primary_key(b"https", b"example.com", b"/")


def vary_matches() -> None:
    entry = stored(FRESH + " | Vary: Foo", asked=request("Foo: 1"))
    assert isinstance(found([entry], "Foo: 1"), Hit)
    for asked in ("", "Foo: 2", "Foo: 1 | Foo: 1", "Bar: 1"):
        for policy in (Policy(), EAGER):
            assert (
                word(found([entry], asked, policy=policy)) == word(found([entry], asked, STALE, policy)) == "miss vary-miss"
            )


def no_cache_is_validated_first() -> None:
    entry = stored('Cache-Control: no-cache, max-age=10, stale-while-revalidate=999, stale-if-error=999 | ETag: "x"')
    for asked in ("", "Cache-Control: max-stale", "Cache-Control: only-if-cached"):
        assert word(found([entry], asked, NOW, EAGER)) in ("revalidate", "504")
    assert stale_on_error(request(), entry, NOW, EAGER) is None


def fresh_or_allowed_stale_or_validated() -> None:
    entry = stored(TAGGED)
    assert isinstance(found([entry], at=NOW + 9.9), Hit) and isinstance(found([entry], at=NOW + 10), Revalidate)
    assert isinstance(found([entry], "Cache-Control: max-stale", NOW + 10), Stale)


def age_is_the_current_age() -> None:
    entry = stored(FRESH + " | Age: 3")
    assert entry.age(NOW + 4) == 7 and b"age" not in entry.fields


def unsafe_methods_are_written_through() -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "FOO"):
        assert isinstance(found([stored(FRESH)], "Cache-Control: only-if-cached", method=method), Pass)


def the_most_recent_is_used() -> None:
    old, new = stored("Cache-Control: max-age=99 | Date: {-9}"), stored("Cache-Control: max-age=20 | Date: {-8}")
    for order in ([old, new], [new, old]):
        verdict = found(order)
        assert isinstance(verdict, Hit) and verdict.entry is new


def vary_star_never_matches() -> None:
    assert not kept(FRESH + " | Vary: *") and not kept(FRESH + " | Vary: Foo, *")
    entry = stored(FRESH)
    entry.vary, entry.plain = None, False
    assert word(found([entry])) == "miss vary-miss"


def time_zones_do_not_count() -> None:
    before = os.environ.get("TZ")
    try:
        lifetimes = set()
        for zone in ("UTC", "America/New_York", "Asia/Tokyo", "XXX-14"):
            os.environ["TZ"] = zone
            time.tzset()
            lines = "Expires: Sunday, 09-Sep-01 02:46:40 GMT | Date: Sun Sep  9 01:46:40 2001"
            lifetimes.add(stored(lines).lifetime)
        assert lifetimes == {3600}
    finally:
        if before is None:
            del os.environ["TZ"]
        else:
            os.environ["TZ"] = before
        time.tzset()


def no_guess_beside_an_explicit_time() -> None:
    for lines in (
        "Expires: 0",
        "Cache-Control: max-age=0",
        "Cache-Control: s-maxage=0",
        "Expires: {-9}",
        "Cache-Control: max-age=x",
    ):
        assert stored(lines + ' | Last-Modified: {-99999} | ETag: "x"').lifetime == 0


def age_counts_from_the_request() -> None:
    assert stored(FRESH + " | Age: 3", delay=4).age(NOW) == 7


def stale_never_where_forbidden() -> None:
    for directives in ("max-age=10, must-revalidate", "max-age=10, proxy-revalidate", "s-maxage=10", "max-age=10, no-cache"):
        entry = stored(f'Cache-Control: {directives}, stale-while-revalidate=999, stale-if-error=999 | ETag: "x"')
        for asked in ("", "Cache-Control: max-stale", "Cache-Control: stale-if-error=999"):
            assert isinstance(found([entry], asked, STALE, EAGER), Revalidate)
            assert stale_on_error(request(asked), entry, STALE, EAGER) is None
            assert stale_on_error(request(asked), entry, STALE, EAGER, 503) is None


def stale_only_where_allowed() -> None:
    entry = stored(TAGGED)
    assert isinstance(found([entry], at=STALE), Revalidate)
    assert stale_on_error(request(), entry, STALE, Policy(), 503) is None, "an origin that answers is connected"
    assert stale_on_error(request(), entry, STALE, Policy()) is not None


def validation_sends_the_entity_tags() -> None:
    verdict = found([stored(TAGGED)], at=STALE)
    assert isinstance(verdict, Revalidate) and (b"If-None-Match", b'"x"') in verdict.fields


def conditions_of_the_origin_are_not_evaluated() -> None:
    entry = stored(TAGGED + " | Last-Modified: {-9}")
    for asked in ('If-Match: "y"', f"If-Unmodified-Since: {date(-99)}"):
        assert isinstance(found([entry], asked), Pass)
        assert answer(request(asked), entry, 10, WALL).status == 200
    assert answer(request('If-None-Match: "x"'), stored(TAGGED, 404), 10, WALL).status == 404
    assert word(found([], 'If-None-Match: "x"')) == "miss uri-miss"


def conditions_on_what_is_not_stored_are_sent_on() -> None:
    asked = request('If-None-Match: "x" | If-Modified-Since: {-9}')
    verdict = lookup(asked, [], NOW)
    assert isinstance(verdict, Miss) and forward_fields(asked, verdict) is asked.fields


def one_for_several_that_may_have_it() -> None:
    for lines, may in [(FRESH, True), ("Cache-Control: max-age=0", False), (FRESH + ", no-cache", False)]:
        assert may_answer(request(), stored(lines + ' | ETag: "x"'), NOW) is may
    assert not may_answer(request("Foo: 2"), stored(FRESH + " | Vary: Foo", asked=request("Foo: 1")), NOW)


def the_tag_of_a_part_goes_only_with_its_range() -> None:
    whole = stored(FRESH + ' | ETag: "w" | Date: {-5}')
    verdict = found([part(), whole], "Range: bytes=0-1", STALE)
    assert isinstance(verdict, Revalidate) and verdict.fields == ((b"If-None-Match", b'"w"'),)


def a_304_for_our_tag_is_answered_with_our_response() -> None:
    result = validated(stored(TAGGED), 'ETag: "x"', asked='If-None-Match: "y"')
    assert isinstance(result, Freshened)
    assert answer(request('If-None-Match: "y"'), result.entry, 10, at_wall(STALE)).status == 200
    assert isinstance(validated(stored(TAGGED), 'ETag: "y"', asked='If-None-Match: "y"'), Forward)


def a_full_response_is_used() -> None:
    assert isinstance(validated(stored(TAGGED), 'ETag: "x"', 200), Replaced)


def a_304_with_another_strong_tag_updates_nothing() -> None:
    assert isinstance(validated(stored(TAGGED), 'ETag: "y"'), Refetch)
    assert isinstance(validated(stored(FRESH + ' | ETag: W/"x"'), 'ETag: "x"'), Refetch)


def a_304_updates_the_fields() -> None:
    result = validated(stored(TAGGED), 'ETag: "x" | X: new | Cache-Control: max-age=20')
    assert isinstance(result, Freshened) and result.entry.fields[b"x"] == b"new" and result.entry.ttl(STALE) == 20


def a_head_updates_the_fields() -> None:
    [(_, new)] = after_head(request(method="HEAD"), [stored(TAGGED)], fields('ETag: "x" | X: new'), STALE, STALE, at_wall(STALE))
    assert new is not None and new.fields[b"x"] == b"new" and new.is_fresh(STALE)


def unsafe_methods_invalidate_their_uri() -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "FOO"):
        for status in (200, 204, 303, 399):
            assert URI in invalidates(request(method=method), URI, status, Fields()).keys
    entry = stored(FRESH + ", stale-while-revalidate=99")
    entry.invalidate()
    assert isinstance(found([entry], "Cache-Control: max-stale", NOW, EAGER), Revalidate)


def other_origins_are_not_invalidated() -> None:
    for reference in ("http://example.com:81/", "https://example.com/", "http://other.example/", "//other.example/"):
        lines = fields(f"Location: {reference} | Content-Location: {reference}")
        assert invalidates(request(method="POST"), URI, 200, lines).keys == (URI,)


# Section 5: the fields.


def large_numbers_are_large() -> None:
    assert delta_seconds(b"9" * 5000) == DELTA_MAX == 2**31
    assert stored("Cache-Control: max-age=99999999999999999999").is_fresh(NOW + 10**9)
    assert not kept("Cache-Control: s-maxage=10 | Age: 99999999999999999999")


def directives_are_passed_on() -> None:
    entry = stored("Cache-Control: max-age=10, foo=bar | Cache-Control: public, no-transform")
    assert entry.fields.get_all(b"cache-control") == [b"max-age=10, foo=bar", b"public, no-transform"]


def request_no_store() -> None:
    assert not kept(FRESH + ", public", asked="Cache-Control: no-store")
    assert isinstance(found([stored(TAGGED)], "Cache-Control: no-store", STALE), Pass)


def must_revalidate_in_all_circumstances() -> None:
    entry = stored("Cache-Control: max-age=10, must-revalidate, stale-if-error=999")
    assert isinstance(found([entry], "Cache-Control: max-stale", STALE, EAGER), Revalidate)
    assert stale_on_error(request(), entry, STALE, EAGER) is None and failure_status(entry) == 504


def private_fields_are_not_stored() -> None:
    entry = stored('Cache-Control: max-age=10, private="a, B" | A: 1 | b: 2 | C: 3')
    assert not {b"a", b"b"} & entry.fields.index.keys() and b"c" in entry.fields


def no_cache_fields_are_not_reused() -> None:
    entry = stored('Cache-Control: max-age=10, no-cache="a, B" | A: 1 | b: 2 | C: 3')
    assert isinstance(found([entry]), Hit) and not {b"a", b"b"} & entry.fields.index.keys() and b"c" in entry.fields


def unknown_directives_are_ignored() -> None:
    for unknown in ("foo", "foo=bar", 'foo="no-store, private"', "no-storex", "x-private", "s-max-age=0"):
        assert isinstance(found([stored(f"Cache-Control: {unknown}, max-age=10")]), Hit)
    assert not kept('Cache-Control: private, community="UCI", max-age=10')


def expires_that_is_no_date_is_past() -> None:
    for value in ("0", "-1", "now", "", "Sun, 99 Sep 2001 01:46:40 GMT"):
        assert stored(f'Expires: {value} | ETag: "x"').lifetime == 0


def expires_is_ignored_beside_max_age_and_s_maxage() -> None:
    assert stored("Expires: 0 | Cache-Control: max-age=10").lifetime == 10
    assert stored("Expires: 0 | Cache-Control: s-maxage=10").lifetime == 10


REQUIREMENTS: list[tuple[str, str, Callable[[], None]]] = [
    ("3", "MUST NOT store unless the request method is understood", method_is_understood),
    ("3", "MUST NOT store unless the status code is final", status_is_final),
    ("3", "MUST NOT store 206, 304 and must-understand unless understood", status_206_304_or_must_understand_is_understood),
    ("3", "MUST NOT store where the response says no-store", response_no_store),
    ("3", "MUST NOT store in a shared cache where the response is private", private_in_a_shared_cache),
    ("3", "MUST NOT store in a shared cache where the request is authorized", authorization_in_a_shared_cache),
    ("3", "MUST NOT store unless one of the listed things allows it", something_that_allows_it),
    ("3.1", "MUST include all received response header fields", every_field_is_included),
    ("3.1", "fields specific to the proxy asked MUST NOT be stored", fields_of_the_proxy_that_was_asked),
    ("3.1", "MUST NOT combine trailer fields with header fields", trailers_are_not_headers),
    ("3.2", "MUST add each field provided, replacing values present", an_update_replaces_every_field_it_has),
    ("3.2", "with the exceptions listed", an_update_spares_what_is_excepted),
    ("3.3", "MUST NOT store partial responses without support of Range and its unit", parts_only_with_range_support),
    ("3.3", "MUST NOT use an incomplete response but for a range wholly within it", parts_answer_only_ranges_within_them),
    ("3.3", "MUST NOT send a partial response without marking it 206", parts_are_marked_206),
    ("3.4", "MUST update the stored fields when combining", combining_takes_the_new_fields),
    ("3.5", "MUST NOT use the response to an authorized request for another", an_authorized_response_is_not_reused),
    ("4", "MUST NOT reuse unless the target URIs match", the_target_uri_matches),
    ("4", "MUST NOT reuse unless the method allows it", the_method_allows_it),
    ("4", "may use one response for several requests only where it may be reused for each", one_for_several_that_may_have_it),
    ("4", "MUST NOT reuse unless nominated request fields match", vary_matches),
    ("4", "MUST NOT reuse with no-cache unless validated", no_cache_is_validated_first),
    ("4", "MUST NOT reuse unless fresh, allowed stale, or validated", fresh_or_allowed_stale_or_validated),
    ("4", "MUST generate an Age equal to current_age", age_is_the_current_age),
    ("4", "MUST write through requests with unsafe methods", unsafe_methods_are_written_through),
    ("4", "MUST use the most recent of several suitable responses", the_most_recent_is_used),
    ("4.1", "MUST NOT use without all nominated fields matching; * always fails", vary_star_never_matches),
    ("4.2", "MUST NOT allow local time zones to influence a calculation", time_zones_do_not_count),
    ("4.2.2", "MUST NOT use heuristics beside an explicit expiration time", no_guess_beside_an_explicit_time),
    ("4.2.3", "MUST interpret age_value relative to the time of the request", age_counts_from_the_request),
    ("4.2.4", "MUST NOT generate a stale response where a directive prohibits it", stale_never_where_forbidden),
    ("4.2.4", "MUST NOT generate a stale response unless disconnected or permitted", stale_only_where_allowed),
    ("4.3.1", "MUST send the relevant entity tags", validation_sends_the_entity_tags),
    ("4.3.2", "MUST NOT evaluate conditions that are not a cache's", conditions_of_the_origin_are_not_evaluated),
    ("4.3.2", "MUST NOT evaluate conditions on what is not stored", conditions_on_what_is_not_stored_are_sent_on),
    (
        "4.3.2",
        "MUST NOT include the tag of a part that does not satisfy the range",
        the_tag_of_a_part_goes_only_with_its_range,
    ),
    (
        "4.3.2",
        "MUST generate a 200 for a 304 whose tag is not in the client's list",
        a_304_for_our_tag_is_answered_with_our_response,
    ),
    ("4.3.3", "MUST use the full response to satisfy the request", a_full_response_is_used),
    (
        "4.3.4",
        "MUST NOT update where no stored response has the strong validator",
        a_304_with_another_strong_tag_updates_nothing,
    ),
    ("4.3.4", "MUST update the fields with those of the 304", a_304_updates_the_fields),
    ("4.3.5", "MUST use the fields of the HEAD response to update", a_head_updates_the_fields),
    ("4.4", "MUST invalidate the target URI on a non-error to an unsafe method", unsafe_methods_invalidate_their_uri),
    ("4.4", "MUST NOT invalidate URIs of another origin", other_origins_are_not_invalidated),
    ("1.2.2", "MUST consider an overflowing delta-seconds to be 2^31", large_numbers_are_large),
    ("5.2", "MUST pass cache directives through", directives_are_passed_on),
    ("5.2.1.5", "MUST NOT store where the request says no-store", request_no_store),
    ("5.2.2.2", "MUST NOT reuse stale with must-revalidate, but generate an error", must_revalidate_in_all_circumstances),
    (
        "5.2.2.3",
        "SHOULD ignore no-store beside must-understand where understood",
        status_206_304_or_must_understand_is_understood,
    ),
    ("5.2.2.4", "no-cache MUST NOT be used without successful validation", no_cache_is_validated_first),
    ("5.2.2.4", "fields that no-cache lists are excluded", no_cache_fields_are_not_reused),
    ("5.2.2.5", "no-store MUST NOT be stored", response_no_store),
    ("5.2.2.7", "private MUST NOT be stored in a shared cache", private_in_a_shared_cache),
    ("5.2.2.7", "fields that private lists MUST NOT be stored in a shared cache", private_fields_are_not_stored),
    ("5.2.2.8", "MUST NOT reuse stale with proxy-revalidate", stale_never_where_forbidden),
    ("5.2.2.10", "MUST NOT reuse stale with s-maxage", stale_never_where_forbidden),
    ("5.2.3", "MUST ignore unrecognized cache directives", unknown_directives_are_ignored),
    ("5.3", "MUST interpret an invalid Expires as in the past", expires_that_is_no_date_is_past),
    (
        "5.3",
        "MUST ignore Expires beside max-age, and beside s-maxage in a shared cache",
        expires_is_ignored_beside_max_age_and_s_maxage,
    ),
]


@pytest.mark.parametrize(
    "section, requirement, check", REQUIREMENTS, ids=[f"{section} {text}" for section, text, _ in REQUIREMENTS]
)
def test_requirement(section: str, requirement: str, check: Callable[[], None]) -> None:
    check()
