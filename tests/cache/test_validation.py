"""Validation: RFC 9111 sections 3.2, 4.3.2 to 4.3.5. A response is stored at NOW and found stale at LATER."""

from __future__ import annotations

import pytest

from cache.entry import Entry
from cache.policy import OperatorRule, Policy
from cache.rules import Hit, Miss, Revalidate, lookup
from cache.validation import (
    Failed,
    Forward,
    Freshened,
    Refetch,
    Replaced,
    Validation,
    after_head,
    forward_fields,
    freshen,
    outdated,
    select_for_update,
    updated_fields,
    validate,
)  # fmt: skip
from reactor.http.parser import Request
from tests.cache.cases import NOW, at_wall, date, fields, request, stored

LATER = NOW + 100
TIMES = (LATER, LATER, at_wall(LATER))  # of a validation's answer: asked, come, and come by the wall clock
FRESH = "Cache-Control: max-age=10"
TAGGED = FRESH + ' | ETag: "x"'


def revalidate(asked: Request, entries: list[Entry], policy: Policy = Policy()) -> Revalidate:
    verdict = lookup(asked, entries, LATER, policy)
    assert isinstance(verdict, Revalidate)
    return verdict


def outcome(response: str, answer: str, status: int = 304, asked: str = "", policy: Policy = Policy()) -> Validation:
    asked_for = request(asked)
    verdict = revalidate(asked_for, [stored(response)], policy)
    return validate(asked_for, verdict, status, fields(answer), LATER - 1, LATER, at_wall(LATER), policy)


# Section 4.3.4: what a 304 updates.


@pytest.mark.parametrize(
    "response, answer, expected",
    [
        # A strong validator in the 304: the same one, or nothing.
        ('ETag: "x"', 'ETag: "x"', Freshened),
        ('ETag: "x"', 'ETag: "y"', Refetch),
        ('ETag: W/"x"', 'ETag: "x"', Refetch),
        ('ETag: "x" | Last-Modified: {-9}', 'ETag: "y" | Last-Modified: {-9}', Refetch),
        ('ETag: "x"', 'ETag: "x" | Last-Modified: {-9}', Freshened),
        ("Last-Modified: {-9}", 'ETag: "x" | Last-Modified: {-9}', Freshened),
        ("Last-Modified: {-9}", 'ETag: "x" | Last-Modified: {-8}', Refetch),
        ("Last-Modified: {-1} | Date: {0}", 'ETag: "x" | Last-Modified: {-1}', Freshened),
        ("Last-Modified: {-9}", 'ETag: "x"', Refetch),
        ("Last-Modified: {0} | Date: {0}", 'ETag: "x" | Last-Modified: {0}', Refetch),  # a weak date
        ("ETag: abc", "ETag: abc", Freshened),
        # A weak one.
        ('ETag: W/"x"', 'ETag: W/"x"', Freshened),
        ('ETag: "x"', 'ETag: W/"x"', Freshened),
        ('ETag: W/"x"', 'ETag: W/"y"', Refetch),
        ("Last-Modified: {-9}", "Last-Modified: {-9}", Freshened),
        ("Last-Modified: {0} | Date: {0}", "Last-Modified: {0}", Freshened),
        ("Last-Modified: {-9}", "Last-Modified: {-8}", Refetch),
        ('ETag: "x" | Last-Modified: {-9}', "Last-Modified: {-9}", Freshened),
        ('ETag: "x"', "Last-Modified: {-9}", Refetch),
        ("Last-Modified: {-9}", 'ETag: W/"x"', Refetch),
        # None: it answers the one condition that was sent.
        ('ETag: "x"', "X: y", Freshened),
        ("Last-Modified: {-9}", "X: y", Freshened),
        ('ETag: "x"', "ETag: , | X: y", Refetch),
        ('ETag: "x"', "ETag:", Refetch),
    ],
)
def test_which_304_freshens(response: str, answer: str, expected: type) -> None:
    found = outcome(f"{FRESH} | {response}", answer)
    assert type(found) is expected


def test_a_304_to_no_condition_of_ours_freshens_only_what_has_no_validator() -> None:
    found = outcome(FRESH, "X: y")
    assert isinstance(found, Freshened), "the third case of section 4.3.4"
    assert isinstance(outcome(FRESH, 'ETag: "x"'), Refetch)
    assert isinstance(outcome(FRESH, "Last-Modified: {-9}"), Refetch)


def variants() -> list[Entry]:
    lines = FRESH + " | Date: {{{}}} | Vary: {} | ETag: {} | Last-Modified: {{-50}}"
    return [
        stored(lines.format(-5, "Foo", '"1"'), asked=request("Foo: 1")),
        stored(lines.format(-3, "Bar", '"2"'), asked=request()),
        stored(lines.format(-4, "Baz", '"1"'), asked=request()),
    ]


@pytest.mark.parametrize(
    "answer, chosen",
    [
        ('ETag: "1"', [0, 2]),  # all with the same strong validator
        ('ETag: "2"', [1]),
        ('ETag: "3"', []),
        ('ETag: W/"1"', [2]),  # the most recent of those with the weak one
        ("Last-Modified: {-50}", [0, 1, 2]),
        ("Last-Modified: {-51}", []),
        ("X: y", []),
    ],
)
def test_selecting_among_several(answer: str, chosen: list[int]) -> None:
    entries = variants()
    assert select_for_update(entries, fields(answer)) == [entries[number] for number in chosen]


def test_all_with_the_same_tag_are_updated_and_the_newest_answers() -> None:
    entries = variants()
    asked = request("Foo: 1")
    verdict = revalidate(asked, entries)
    found = validate(asked, verdict, 304, fields('ETag: "1" | X: new | Date: {100}'), *TIMES)
    assert isinstance(found, Freshened)
    assert [old for old, _ in found.updates] == [entries[0], entries[2]]
    assert all(new is not None and new.fields[b"x"] == b"new" for _, new in found.updates)
    assert found.entry in [new for _, new in found.updates]
    assert isinstance(validate(asked, verdict, 304, fields("X: y"), *TIMES), Refetch), (
        "which of three it means, nobody knows"
    )


# Section 3.2: what a 304 changes.


def test_the_fields_of_a_304_replace_the_stored_ones() -> None:
    response = TAGGED + " | Date: {0} | A: 1 | A: 2 | B: 1 | Content-Type: text/html | Set-Cookie: a=1 | Expires: {10}"
    answer = 'ETag: "x" | Date: {100} | a: 3 | C: 4 | Content-Type: text/plain | Set-Cookie: b=2 | Set-Cookie: c=3'
    found = outcome(response, answer + " | Cache-Control: max-age=60")
    assert isinstance(found, Freshened)
    entry = found.entry
    assert {name: entry.fields.get_all(name) for name in entry.fields.index} == {
        b"a": [b"3"], b"b": [b"1"], b"c": [b"4"], b"date": [date(100).encode()], b"etag": [b'"x"'],
        b"content-type": [b"text/plain"], b"set-cookie": [b"b=2", b"c=3"], b"expires": [date(10).encode()],
        b"cache-control": [b"max-age=60"],
    }  # fmt: skip
    assert entry.ttl(LATER) == 59 and entry.status == 200


@pytest.mark.parametrize(
    "line",
    [
        "Content-Length: 99", "Connection: close", "Keep-Alive: 5", "Transfer-Encoding: chunked", "Upgrade: h2c", "TE: x",
        "Trailer: x", "Proxy-Authenticate: Basic", "Proxy-Authentication-Info: x", "Proxy-Authorization: x",
        "Proxy-Connection: x", "Content-Range: bytes 0-1/2",
    ],
)  # fmt: skip
def test_fields_that_a_304_does_not_change(line: str) -> None:
    found = outcome(TAGGED + " | Content-Length: 5", f'ETag: "x" | {line}')
    assert isinstance(found, Freshened)
    name = line.partition(":")[0].lower().encode()
    assert name not in found.entry.fields and found.entry.length == 5


def test_what_connection_lists_in_a_304_stays_as_it_was() -> None:
    merged = updated_fields(stored(TAGGED + " | Foo: 1"), fields("Connection: foo | Foo: 2 | Bar: 3"))
    assert merged[b"foo"] == b"1" and merged[b"bar"] == b"3" and b"connection" not in merged


def test_a_freshened_response_is_as_old_as_the_304() -> None:
    found = outcome(TAGGED + " | Age: 9 | Date: {-9}", 'ETag: "x" | Date: {98} | Age: 1')
    assert isinstance(found, Freshened)
    assert found.entry.age(LATER) == 2 and found.entry.ttl(LATER) == 8
    assert (found.entry.request_time, found.entry.response_time) == (LATER - 1, LATER)


def test_without_a_date_the_304_is_from_now() -> None:
    found = outcome(TAGGED + " | Date: {-9}", 'ETag: "x"')
    assert isinstance(found, Freshened)
    assert found.entry.date == at_wall(LATER) and found.entry.fields[b"date"].decode() == date(100)
    assert found.entry.age(LATER) == 1, "it took a second to come"


def test_a_freshened_response_keeps_what_the_store_hung_on_it() -> None:
    entry = stored(TAGGED + " | Vary: Foo", asked=request("Foo: 1, 2"))
    entry.body, entry.store = "body", "store"
    new = freshen(entry, request("Foo: 1,2"), fields('ETag: "x"'), *TIMES)
    assert (new.body, new.store, new.method, new.status) == ("body", "store", b"GET", 200)
    assert new.vary == (b"foo",) and new.secondary == (b"1,2",) and new.plain
    assert entry.fresh_until < LATER < new.fresh_until, "the old one is left as it was"


def test_a_304_that_changes_vary_moves_the_response_to_this_requests_key() -> None:
    entry = stored(TAGGED + " | Vary: Foo", asked=request("Foo: 1 | Bar: 1"))
    new = freshen(entry, request("Foo: 1 | Bar: 2"), fields('ETag: "x" | Vary: Foo, Bar'), *TIMES)
    assert new.vary == (b"bar", b"foo") and new.secondary == (b"2", b"1")
    assert freshen(entry, request("Foo: 1"), fields("Vary:"), *TIMES).secondary == ()


@pytest.mark.parametrize("method, status", [("GET", 200), ("GET", 404), ("HEAD", 200), ("POST", 200)])
def test_what_it_answers_stays(method: str, status: int) -> None:
    entry = stored(TAGGED + " | Content-Location: /", status, request(method=method))
    new = freshen(entry, request(), fields('ETag: "x"'), *TIMES)
    assert new.method == method.encode() and new.status == status and new.plain is entry.plain


def test_a_part_stays_a_part() -> None:
    policy = Policy(store_partial=True)
    entry = stored(TAGGED + " | Content-Range: bytes 5-9/100 | Content-Length: 5", 206, policy=policy)
    asked = request("Range: bytes=5-6")
    found = validate(asked, revalidate(asked, [entry]), 304, fields('ETag: "x" | Content-Range: bytes 0-1/2'), *TIMES)
    assert isinstance(found, Freshened) and found.entry.span == (5, 10, 100) and not found.entry.plain
    assert found.entry.length == 5 and b"content-range" not in found.entry.fields


@pytest.mark.parametrize(
    "answer, kept",
    [
        ('ETag: "x" | X: y', True),
        ('ETag: "x" | Cache-Control: no-cache', True),
        ('ETag: "x" | Cache-Control: private="foo"', True),
        ('ETag: "x" | Cache-Control: no-store, must-understand', True),
        ('ETag: "x" | Cache-Control: no-store', False),
        ('ETag: "x" | Cache-Control: private', False),
        ('ETag: "x" | Vary: *', False),
    ],
)
def test_what_a_304_says_of_storing_is_obeyed(answer: str, kept: bool) -> None:
    found = outcome(TAGGED, answer)
    assert isinstance(found, Freshened) and len(found.updates) == 1
    assert (found.updates[0][1] is found.entry) is kept and (found.updates[0][1] is None) is not kept


def test_must_understand_in_a_304_is_obeyed() -> None:
    asked, entry = request(), stored(TAGGED, 299)
    found = validate(
        asked, revalidate(asked, [entry]), 304, fields('ETag: "x" | Cache-Control: must-understand'), *TIMES
    )
    assert isinstance(found, Freshened) and found.updates == ((entry, None),)


def test_the_operators_rule_goes_on_to_apply() -> None:
    rule = OperatorRule(ttl=10, ignore=frozenset(("no-store", "private", "no-cache")))
    policy = Policy(rules=(rule,))
    entry = stored('Cache-Control: no-store | ETag: "x"', policy=policy)
    asked = request()
    found = validate(
        asked, revalidate(asked, [entry], policy), 304, fields("Cache-Control: private, no-store"), *TIMES, policy
    )
    assert isinstance(found, Freshened)
    new = found.updates[0][1]
    assert new is not None and new.rule is rule and new.ttl(LATER) == 10


@pytest.mark.parametrize(
    "directives, ours",
    [("max-age=10", False), ("max-age=10, public", True), ("s-maxage=10", True), ("max-age=10, must-revalidate", True)],
)
def test_what_an_authorized_request_brought_is_that_clients_alone(directives: str, ours: bool) -> None:
    """Section 3.5: the client is answered, the store is left as it was."""
    found = outcome(TAGGED, f'ETag: "x" | Cache-Control: {directives} | X: secret', asked="Authorization: Basic eDp5")
    assert isinstance(found, Freshened) and found.entry.fields[b"x"] == b"secret"
    assert bool(found.updates) is ours


def test_qualified_directives_of_a_304_apply() -> None:
    found = outcome(TAGGED + " | Foo: 1 | Bar: 1", 'ETag: "x" | Cache-Control: max-age=10, private="foo", no-cache="bar"')
    assert isinstance(found, Freshened) and b"foo" not in found.entry.fields and b"bar" not in found.entry.fields


# Section 4.3.2: the client's own conditions went along.


@pytest.mark.parametrize(
    "response, asked, answer, expected",
    [
        ('ETag: "x"', 'If-None-Match: "y"', 'ETag: "x"', Freshened),
        ('ETag: "x"', 'If-None-Match: "x"', 'ETag: "x"', Freshened),
        ('ETag: "x"', 'If-None-Match: "y"', 'ETag: "y"', Forward),
        ('ETag: "x"', 'If-None-Match: W/"y", "z"', 'ETag: "y"', Forward),
        ('ETag: "x"', 'If-None-Match: "y"', 'ETag: "z"', Refetch),
        ('ETag: "x"', 'If-None-Match: "y"', "X: y", Refetch),  # ours or the client's: it does not say
        ('ETag: "x"', 'If-None-Match: "x"', "X: y", Freshened),  # one and the same
        ('ETag: W/"x"', 'If-None-Match: "y"', 'ETag: "x"', Refetch),
        ('ETag: "x"', "If-None-Match: *", 'ETag: "y"', Refetch),
        # Dates of the client's are not sent, nor are its tags where we have none.
        ('ETag: "x"', "If-Modified-Since: Sun, 09 Sep 2001 01:00:00 GMT", "X: y", Freshened),
        ('ETag: "x"', "If-Modified-Since: Sun, 09 Sep 2001 01:00:00 GMT", 'ETag: "y"', Refetch),
        ("Last-Modified: {-9}", 'If-None-Match: "y"', "Last-Modified: {-9}", Freshened),
        ("Last-Modified: {-9}", 'If-None-Match: "y"', 'ETag: "y"', Refetch),
    ],
)
def test_whose_304_it_is(response: str, asked: str, answer: str, expected: type) -> None:
    assert type(outcome(f"{FRESH} | {response}", answer, asked=asked)) is expected


def test_whose_304_it_is_among_many_tags() -> None:
    """Nothing is timed: what were quadratic would need hours for so many."""
    asked = request()
    asked.fields.set("If-None-Match", ",".join(f'"{number}"' for number in range(200_000)))
    verdict = revalidate(asked, [stored(TAGGED)])
    assert isinstance(validate(asked, verdict, 304, fields('ETag: "199999"'), LATER, LATER, LATER), Forward)


# Section 4.3.3: other answers.


@pytest.mark.parametrize("status", [200, 203, 204, 206, 301, 404, 410, 412, 501, 599])
def test_any_other_response_is_used_as_it_is(status: int) -> None:
    assert isinstance(outcome(TAGGED + " | Cache-Control: stale-if-error=999", 'ETag: "x"', status), Replaced)


@pytest.mark.parametrize(
    "status, old",
    [(200, True), (301, True), (404, True), (410, True), (304, False), (400, False), (429, False), (503, False)],
)
def test_a_full_response_shows_what_is_stored_to_be_old(status: int, old: bool) -> None:
    entry = stored(TAGGED)
    assert outdated(revalidate(request(), [entry]), status) == ((entry,) if old else ())
    unnamed = stored(FRESH)
    assert outdated(revalidate(request(), [unnamed]), status) == ((unnamed,) if old else ())


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_an_error_may_be_answered_with_what_is_stale(status: int) -> None:
    found = outcome(FRESH + ", stale-if-error=999", "X: y", status)
    assert isinstance(found, Failed) and found.stale.why == "stale-if-error"
    assert isinstance(outcome(FRESH, "X: y", status), Replaced)
    assert isinstance(outcome(FRESH + ", stale-if-error=999, must-revalidate", "X: y", status), Replaced)
    assert isinstance(outcome(FRESH, "X: y", status, policy=Policy(grace=50, grace_on_failure=999)), Replaced)
    found = outcome(FRESH, "X: y", status, "Cache-Control: stale-if-error=999")
    assert isinstance(found, Failed)


def test_an_error_too_late_is_an_error() -> None:
    assert isinstance(outcome(FRESH + ", stale-if-error=90", "X: y", 503), Replaced), "stale by 90 seconds at LATER"
    assert isinstance(outcome(FRESH + ", stale-if-error=91", "X: y", 503), Failed)


# What goes upstream.


def test_a_validation_goes_with_our_conditions_in_place_of_the_clients() -> None:
    asked = request(
        'If-None-Match: "y" | If-Modified-Since: x | If-Range: "z" | Range: bytes=0-1 | Accept: */*'
        " | Cache-Control: no-cache"
    )
    verdict = revalidate(asked, [stored(TAGGED + " | Last-Modified: {-9}")])
    sent = forward_fields(asked, verdict)
    assert list(sent) == [
        (b"Host", b"example.com"), (b"Accept", b"*/*"), (b"Cache-Control", b"no-cache"),
        (b"If-None-Match", b'"x", "y"'), (b"If-Modified-Since", date(-9).encode()),
    ]  # fmt: skip
    assert b"range" in asked.fields, "the client's request is left as it came"


def test_a_miss_goes_as_it_came() -> None:
    asked = request('If-None-Match: "y" | Range: bytes=0-1')
    verdict = lookup(asked, (), NOW)
    assert isinstance(verdict, Miss) and forward_fields(asked, verdict) is asked.fields


# Section 4.3.5: HEAD.


@pytest.mark.parametrize(
    "response, answer, updated",
    [
        (TAGGED, 'ETag: "x"', True),
        (TAGGED, 'ETag: "y"', False),
        (TAGGED, 'ETag: W/"x"', False),
        (TAGGED, "X: y", True),
        (FRESH, 'ETag: "x"', False),
        (FRESH + " | Last-Modified: {-9}", "Last-Modified: {-9}", True),
        (FRESH + " | Last-Modified: {-9}", "Last-Modified: {-8}", False),
        (TAGGED + " | Last-Modified: {-9}", 'ETag: "x" | Last-Modified: {-8}', False),
        (TAGGED + " | Content-Length: 5", 'ETag: "x" | Content-Length: 5', True),
        (TAGGED + " | Content-Length: 5", 'ETag: "x" | Content-Length: 6', False),
        (TAGGED + " | Content-Length: 5", 'ETag: "x"', True),
        (TAGGED, 'ETag: "x" | Content-Length: 6', True),  # a stored length nobody told
        (TAGGED, 'ETag: "x" | Cache-Control: no-store', False),
    ],
)
def test_what_an_answer_to_head_says_of_get(response: str, answer: str, updated: bool) -> None:
    entry = stored(response)
    [(old, new)] = after_head(request(method="HEAD"), [entry], fields(answer + " | X: new"), *TIMES)
    assert old is entry and (new is not None) is updated
    if new is not None:
        assert new.method == b"GET" and new.fields[b"x"].endswith(b"new") and new.is_fresh(LATER)


def test_head_concerns_only_what_it_could_have_selected() -> None:
    one = stored(TAGGED + " | Vary: Foo", asked=request("Foo: 1"))
    two = stored(TAGGED + " | Vary: Foo", asked=request("Foo: 2"))
    head = stored(TAGGED, asked=request(method="HEAD"))
    updates = after_head(request("Foo: 1", method="HEAD"), [one, two, head], fields('ETag: "x"'), *TIMES)
    assert [old for old, _ in updates] == [one]
    assert after_head(request(method="HEAD"), [], fields("X: y"), *TIMES) == ()


def test_an_authorized_head_changes_nothing_it_may_not() -> None:
    asked = request("Authorization: x", method="HEAD")
    assert after_head(asked, [stored(TAGGED)], fields('ETag: "x"'), *TIMES) == ()
    entry = stored(TAGGED)
    assert after_head(asked, [entry], fields('ETag: "y"'), *TIMES) == ((entry, None),), "that it changed is no secret"


def test_after_validation_it_is_a_hit() -> None:
    found = outcome(TAGGED, 'ETag: "x"')
    assert isinstance(found, Freshened)
    assert isinstance(lookup(request(), [found.entry], LATER + 5), Hit)
