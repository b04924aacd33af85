"""Which responses are stored: RFC 9111 section 3 and the directives of section 5.2."""

from __future__ import annotations

import pytest

from cache.policy import OperatorRule, Policy
from cache.storing import UNDERSTOOD, displaced, understands
from reactor.http.parser import Request
from tests.cache.cases import NOW, decide, request, stored

FRESH = "Cache-Control: max-age=60"
TARGETED = Policy(targets=(b"cdn-cache-control",))
PARTIAL = Policy(store_partial=True)

FINAL = [
    200,
    201,
    202,
    203,
    204,
    205,
    299,
    300,
    301,
    302,
    303,
    307,
    308,
    400,
    401,
    403,
    404,
    405,
    410,
    414,
    418,
    421,
    451,
    499,
]
FINAL += [500, 501, 502, 503, 504, 599]


def allowed(lines: str, status: int = 200, asked: Request | None = None, policy: Policy = Policy()) -> bool:
    return decide(lines, status, asked, policy).store


@pytest.mark.parametrize("status", FINAL)
def test_a_final_status_with_explicit_freshness(status: int) -> None:
    for lines in (FRESH, "Cache-Control: s-maxage=60", "Expires: {+60}"):
        assert allowed(lines, status)


@pytest.mark.parametrize("status", FINAL)
def test_a_status_without_explicit_freshness(status: int) -> None:
    heuristically = status in (200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 451, 501)
    assert allowed('ETag: "x"', status) is heuristically
    assert allowed("Last-Modified: {-1000}", status) is heuristically
    assert allowed("Cache-Control: public | Last-Modified: {-1000}", status)


@pytest.mark.parametrize("status", [100, 101, 103, 199])
def test_an_interim_response_is_not_stored(status: int) -> None:
    decision = decide(FRESH, status)
    assert not decision.store and decision.section == "RFC 9111 section 3"


@pytest.mark.parametrize("status", [304, 407])
def test_what_says_nothing_by_itself_is_not_stored(status: int) -> None:
    assert not allowed(FRESH + ", public", status)


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (412, 'If-Match: "a"'), (412, "If-None-Match: *"), (412, "If-Unmodified-Since: {-1}"), (412, "If-Modified-Since: {-1}"),
        (416, "Range: bytes=5-"), (417, "Expect: 100-continue"),
    ],
)  # fmt: skip
def test_answers_to_what_one_request_says_are_not_stored(status: int, line: str) -> None:
    assert not allowed(FRESH + ", public", status, asked=request(line))
    assert allowed(FRESH, status), "without it, they are like any other"
    assert not allowed("", status)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get", "FOO"])
def test_methods_that_are_not_cacheable(method: str) -> None:
    asked = request() if method == "CONNECT" else request(method=method)
    asked.method = method.encode()
    assert not allowed(FRESH + ", public", asked=asked)


def test_get_and_head_are() -> None:
    assert allowed(FRESH) and allowed(FRESH, asked=request(method="HEAD"))
    assert stored(FRESH, asked=request(method="HEAD")).method == b"HEAD"


def test_a_get_with_content_is_not_what_its_key_says() -> None:
    assert not allowed(FRESH, asked=request(content=b"x"))
    assert not allowed(FRESH, asked=request("Transfer-Encoding: chunked"))


@pytest.mark.parametrize(
    "lines, path, ok",
    [
        ("Cache-Control: max-age=60 | Content-Location: /form", "/form", True),
        ("Cache-Control: s-maxage=60 | Content-Location: http://example.com/form", "/form", True),
        ("Cache-Control: max-age=60 | Content-Location: http://EXAMPLE.com:80/form", "/form", True),
        ("Cache-Control: max-age=60 | Content-Location: form", "/form", True),
        ("Expires: {+60} | Content-Location: /form", "/form", True),
        ("Cache-Control: max-age=60 | Content-Location: /form", "/form?q", False),
        ("Cache-Control: max-age=60 | Content-Location: /other", "/form", False),
        ("Cache-Control: max-age=60 | Content-Location: http://other.example/form", "/form", False),
        ("Cache-Control: max-age=60", "/form", False),
        ("Content-Location: /form | Last-Modified: {-1000}", "/form", False),
        ("Cache-Control: public | Content-Location: /form | Last-Modified: {-1000}", "/form", False),
    ],
)
def test_post_with_freshness_and_its_own_location(lines: str, path: str, ok: bool) -> None:
    """RFC 9110 section 9.3.3."""
    asked = request(method="POST", path=path, content=b"a=b")
    assert allowed(lines, asked=asked) is ok
    if not ok:
        assert decide(lines, asked=asked).section == "RFC 9110 section 9.3.3"


@pytest.mark.parametrize(
    "lines, section",
    [
        ("Cache-Control: no-store, max-age=60", "RFC 9111 section 5.2.2.5"),
        ("Cache-Control: max-age=60 | Cache-Control: no-store", "RFC 9111 section 5.2.2.5"),
        ("Cache-Control: NO-STORE, max-age=60", "RFC 9111 section 5.2.2.5"),
        ("Cache-Control: no-store=x, max-age=60", "RFC 9111 section 5.2.2.5"),
        ("Cache-Control: private, max-age=60", "RFC 9111 section 5.2.2.7"),
        ("Cache-Control: private, s-maxage=60, public", "RFC 9111 section 5.2.2.7"),
        ('Cache-Control: private="", max-age=60', "RFC 9111 section 5.2.2.7"),
        ('Cache-Control: private="a b", max-age=60', "RFC 9111 section 5.2.2.7"),
        ('Cache-Control: private="a", private, max-age=60', "RFC 9111 section 5.2.2.7"),
        ('Cache-Control: private, community="UCI", max-age=60', "RFC 9111 section 5.2.2.7"),
        ("Cache-Control: max-age=60 | Vary: *", "RFC 9111 section 4.1"),
        ("Cache-Control: max-age=60 | Vary: Foo, *", "RFC 9111 section 4.1"),
        ("Set-Cookie: a=1 | Last-Modified: {-1000}", "RFC 9111 section 7.3"),
        ('Set-Cookie: a=1 | ETag: "x"', "RFC 9111 section 7.3"),
        ("Set-Cookie: a=1 | Cache-Control: public | Last-Modified: {-1000}", "RFC 9111 section 7.3"),
        # What could never be used again.
        ("X: y", "RFC 9111 section 4"),
        ("Cache-Control: max-age=0", "RFC 9111 section 4"),
        ("Cache-Control: max-age=x", "RFC 9111 section 4"),
        ("Cache-Control: s-maxage=60 | Age: 60", "RFC 9111 section 4"),
        ("Cache-Control: max-age=60, no-cache", "RFC 9111 section 4"),
        ("Cache-Control: s-maxage=0, stale-while-revalidate=60", "RFC 9111 section 4"),
        ("Expires: 0", "RFC 9111 section 4"),
    ],
)
def test_responses_that_are_not_stored(lines: str, section: str) -> None:
    decision = decide(lines)
    assert not decision.store and decision.entry is None
    assert decision.section == section and decision.reason


@pytest.mark.parametrize(
    "lines",
    [
        FRESH,
        "Cache-Control: max-age=60, foo=bar, no-transform",
        'Cache-Control: max-age=60, private="set-cookie"',
        'Cache-Control: max-age=60, no-cache="set-cookie"',
        'Cache-Control: max-age=60, foo="no-store"',
        "Cache-Control: max-age=60, proxy-revalidate",
        "Cache-Control: max-age=60 | Vary: Foo",
        "Cache-Control: max-age=60 | Vary:",
        "Cache-Control: max-age=60 | Pragma: no-cache",
        "Cache-Control: max-age=60 | Set-Cookie: a=1",
        "Expires: {+60} | Set-Cookie: a=1",
        "Cache-Control: max-age=0, stale-while-revalidate=60",
        "Cache-Control: max-age=0, stale-if-error=60",
        'Cache-Control: no-cache | ETag: "x"',
        "Cache-Control: no-cache | Last-Modified: {-1000}",
        'Expires: 0 | ETag: "x"',
        "Last-Modified: {-1000}",
    ],
)
def test_responses_that_are(lines: str) -> None:
    decision = decide(lines)
    assert decision.store and decision.entry is not None and decision.section == "RFC 9111 section 3"


def test_grace_makes_stale_responses_worth_storing() -> None:
    assert allowed("Cache-Control: max-age=0", policy=Policy(grace=10))
    assert not allowed("Cache-Control: max-age=0, must-revalidate", policy=Policy(grace=10))


@pytest.mark.parametrize(
    "directives, status, ok",
    [
        ("must-understand, max-age=60", 200, True),
        ("must-understand, no-store, max-age=60", 200, True),
        ("no-store, must-understand, max-age=60", 404, True),
        ("must-understand, max-age=60", 299, False),
        ("must-understand, no-store, max-age=60", 599, False),
        ("must-understand, public, max-age=60", 418, False),
        ("must-understand, private, max-age=60", 200, False),
    ],
)
def test_must_understand(directives: str, status: int, ok: bool) -> None:
    assert allowed(f"Cache-Control: {directives}", status) is ok


def test_what_is_understood() -> None:
    assert {200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 451, 501, 302, 307, 500, 503} <= UNDERSTOOD
    assert not {299, 304, 418, 499, 599} & UNDERSTOOD
    assert understands(206, PARTIAL) and not understands(206, Policy()) and not understands(299, PARTIAL)
    assert decide("Cache-Control: must-understand, max-age=60", 299).section == "RFC 9111 section 5.2.2.3"


@pytest.mark.parametrize(
    "directives, ok",
    [
        ("max-age=60", False),
        ("max-age=60, public", True),
        ("max-age=60, must-revalidate", True),
        ("s-maxage=60", True),
        ("max-age=60, proxy-revalidate", False),
        ("max-age=60, no-cache", False),
        ("max-age=60, public, private", False),
        ("max-age=60, public, no-store", False),
        ('max-age=60, foo="public"', False),
    ],
)
def test_authorized_requests(directives: str, ok: bool) -> None:
    """Section 3.5."""
    asked = request("Authorization: Basic eDp5")
    lines = f'Cache-Control: {directives} | ETag: "x"'
    assert allowed(lines, asked=asked) is ok
    if not ok and "private" not in directives and "no-store" not in directives:
        assert decide(lines, asked=asked).section == "RFC 9111 section 3.5"


@pytest.mark.parametrize(
    "lines, ok",
    [
        ("Cache-Control: no-store", False),
        ("Cache-Control: NO-STORE, max-age=5", False),
        ("Cache-Control: no-cache", True),
        ("Cache-Control: max-age=0", True),
        ("Pragma: no-cache", True),
        ("Pragma: no-store", True),
        ('Cookie: a=1 | If-None-Match: "x"', True),
    ],
)
def test_what_requests_say_of_storing(lines: str, ok: bool) -> None:
    assert allowed(FRESH, asked=request(lines)) is ok
    if not ok:
        assert decide(FRESH, asked=request(lines)).section == "RFC 9111 section 5.2.1.5"


# Parts: section 3.3.


@pytest.mark.parametrize(
    "content_range, policy, ok",
    [
        ("bytes 0-4/10", PARTIAL, True),
        ("bytes 0-4/*", PARTIAL, True),
        ("bytes 0-4/10", Policy(), False),
        ("items 0-4/10", PARTIAL, False),
        ("bytes */10", PARTIAL, False),
        ("", PARTIAL, False),
    ],
)
def test_partial_responses(content_range: str, policy: Policy, ok: bool) -> None:
    decision = decide(f"{FRESH} | Content-Range: {content_range}", 206, policy=policy)
    assert decision.store is ok
    if not ok:
        assert decision.section == "RFC 9111 section 3.3"


# Targeted fields: RFC 9213.


@pytest.mark.parametrize(
    "lines, ok",
    [
        ("CDN-Cache-Control: max-age=60 | Cache-Control: no-store", True),
        ("CDN-Cache-Control: max-age=60 | Cache-Control: private", True),
        ("CDN-Cache-Control: no-store | Cache-Control: max-age=60", False),
        ("CDN-Cache-Control: private | Cache-Control: max-age=60", False),
        ("CDN-Cache-Control: max-age=0 | Cache-Control: max-age=60 | Expires: {+60}", False),
        ("CDN-Cache-Control: none | Cache-Control: no-store | Last-Modified: {-1000}", True),
        ("CDN-Cache-Control: none | Expires: {+60}", False),
        ("CDN-Cache-Control: max-age=60, &&& | Cache-Control: no-store", False),
        ('CDN-Cache-Control: max-age="60" | Cache-Control: no-store', False),
        ("CDN-Cache-Control: | Cache-Control: max-age=60", True),
    ],
)
def test_targeted_fields_decide(lines: str, ok: bool) -> None:
    assert allowed(lines, policy=TARGETED) is ok


def test_without_a_target_list_they_do_not() -> None:
    assert not allowed("CDN-Cache-Control: max-age=60 | Cache-Control: no-store")
    assert allowed("CDN-Cache-Control: no-store | Cache-Control: max-age=60")


# The operator's own rules.


@pytest.mark.parametrize(
    "lines, rule, ok",
    [
        ("X: y", "ttl=60", True),
        ("Cache-Control: max-age=0", "ttl=60", True),
        ("Cache-Control: no-store", "ttl=60", False),
        ("Cache-Control: no-store", "ttl=60 ignore=no-store", True),
        ("Cache-Control: no-store", "ttl=60 ignore=private", False),
        ("Cache-Control: private", "ttl=60", False),
        ("Cache-Control: private", "ttl=60 ignore=private", True),
        ("Cache-Control: private, no-store", "ttl=60 ignore=private", False),
        ("Cache-Control: private, no-store", "ttl=60 ignore=private,no-store", True),
        ("Cache-Control: no-cache", "ttl=60", False),
        ("Cache-Control: no-cache", "ttl=60 ignore=no-cache", True),
        ("Set-Cookie: a=1", "ttl=60", False),
        ("Set-Cookie: a=1", "ttl=60 ignore=set-cookie", True),
        ("Set-Cookie: a=1 | Cache-Control: max-age=60", "ttl=60", True),
        ("Vary: *", "ttl=60 ignore=no-store,private,no-cache,set-cookie", False),
        ("Cache-Control: max-age=0", "stale=60", True),
        ("Cache-Control: max-age=0, must-revalidate", "stale=60", False),
        ("X: y", "path=/other ttl=60", False),
    ],
)
def test_rules_of_the_operator(lines: str, rule: str, ok: bool) -> None:
    policy = Policy(rules=(OperatorRule.parse(rule),))
    assert allowed(lines, policy=policy) is ok
    if "path" not in rule and "ttl" in rule:
        assert not allowed(lines, 500, policy=policy) or "max-age=60" in lines, "an error is not made to last"
        assert not allowed(lines, asked=request("Authorization: x"), policy=policy)


def test_the_first_rule_that_matches_counts() -> None:
    policy = Policy(rules=(OperatorRule.parse("path=/a* ttl=1"), OperatorRule.parse("ttl=2")))
    assert stored("X: y", asked=request(path="/abc"), policy=policy).lifetime == 1
    assert stored("X: y", asked=request(path="/b"), policy=policy).lifetime == 2


# What a new response takes the place of.


def test_a_new_response_displaces_what_its_request_could_have_selected() -> None:
    one = stored(FRESH + " | Vary: Foo", asked=request("Foo: 1"))
    two = stored(FRESH + " | Vary: Foo", asked=request("Foo: 2"))
    plain = stored(FRESH)
    head = stored(FRESH, asked=request(method="HEAD"))
    every = [one, two, plain, head]
    assert displaced(request("Foo: 1"), every) == [one, plain, head]
    assert displaced(request("Foo: 3"), every) == [plain, head]
    assert displaced(request(method="HEAD"), every) == [head]
    assert displaced(request(), []) == []


def test_a_part_does_not_displace_the_whole_it_is_from() -> None:
    lines = 'Cache-Control: max-age=60 | ETag: "{}"'
    part = stored(lines.format("x") + " | Content-Range: bytes 0-4/10", 206, policy=PARTIAL)
    other = stored(lines.format("x") + " | Content-Range: bytes 5-9/10", 206, policy=PARTIAL)
    same, changed, unnamed = stored(lines.format("x")), stored(lines.format("y")), stored(FRESH)
    within = stored(lines.format("x") + " | Content-Range: bytes 1-3/10", 206, policy=PARTIAL)
    beyond = stored(lines.format("x") + " | Content-Range: bytes 1-5/10", 206, policy=PARTIAL)
    first = stored(lines.format("x") + " | Content-Range: bytes 0-3/10", 206, policy=PARTIAL)
    last = stored(lines.format("x") + " | Content-Range: bytes 1-4/10", 206, policy=PARTIAL)
    assert displaced(request(), [first, last], part) == [first, last]
    head = stored(FRESH, asked=request(method="HEAD"))
    assert displaced(request(), [same, changed, unnamed, other, within, beyond, head], part) == [changed, unnamed, within]
    assert displaced(request(), [same, other], changed) == [same, other]


def test_the_entry_knows_when_it_was_asked_for() -> None:
    entry = stored(FRESH, delay=3)
    assert (entry.request_time, entry.response_time) == (NOW - 3, NOW)
