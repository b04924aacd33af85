"""Validation: what is asked of the origin, and what its answer does to stored responses (RFC 9111 sections 4.3 and 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cache.directives import response_control
from cache.entry import NOT_STORED, Entry, content_length, entity_tag
from cache.freshness import date_of
from cache.policy import DEFAULT_POLICY, Policy
from cache.rules import ERRORS, Revalidate, Stale, Verdict, client_tags, recency, selectable, stale_on_error
from cache.storing import forbidden, refused_as_setting_a_cookie, shared_despite_authorization
from reactor.http.conditional import entity_tags, strong_match, weak_match
from reactor.http.fields import Fields
from reactor.http.parser import Request

# What a validator's answer never replaces (section 3.2): what is not stored at all, and what the stored body depends on.
_KEPT: Final = NOT_STORED - {b"age"} | {b"content-range"}
_REPLACED_CONDITIONS: Final = (b"if-none-match", b"if-modified-since", b"if-range", b"range")

Updates = tuple[tuple[Entry, "Entry | None"], ...]
"""Stored responses and what takes their place; None where they are to be dropped."""


class Freshened:
    """The stored response is good: answer with `entry`, as updated. `updates` is what the store is to do."""

    __slots__ = ("entry", "updates")

    def __init__(self, entry: Entry, updates: Updates) -> None:
        self.entry = entry
        self.updates = updates


class Replaced:
    """A response of its own, for the client and storing.may_store."""

    __slots__ = ()


class Failed:
    """The origin failed, and a stale response may answer instead."""

    __slots__ = ("stale",)

    def __init__(self, stale: Stale) -> None:
        self.stale = stale


class Forward:
    """The 304 answers the client's own condition: it goes to the client, and changes nothing here."""

    __slots__ = ()


class Refetch:
    """A 304 for nothing that is stored, and the client did not ask for one: ask again without conditions."""

    __slots__ = ()


Validation = Freshened | Replaced | Failed | Forward | Refetch
REPLACED: Final = Replaced()
FORWARD: Final = Forward()
REFETCH: Final = Refetch()


def forward_fields(request: Request, verdict: Verdict) -> Fields:
    """The request's fields as they go upstream: with the verdict's conditions instead of the client's."""
    if type(verdict) is not Revalidate:
        return request.fields
    fields = request.fields.copy()
    fields.remove(*_REPLACED_CONDITIONS)
    for name, value in verdict.fields:
        fields.add(name, value)
    return fields


def validate(
    request: Request, verdict: Revalidate, status: int, fields: Fields, request_time: float, response_time: float,
    received: float, policy: Policy = DEFAULT_POLICY,
) -> Validation:
    """What the answer to a Revalidate means (section 4.3.3). The times are those of storing.may_store."""
    if status in ERRORS:
        stale = stale_on_error(request, verdict.entry, response_time, policy, status)
        return REPLACED if stale is None else Failed(stale)
    if status != 304:
        return REPLACED
    selected = select_for_update(verdict.entries, fields)
    if not selected and not _validators(fields) and _asks_of_one(verdict):
        selected = [verdict.entry]
    if not selected:
        return FORWARD if _is_for_the_client(request, verdict, fields) else REFETCH
    return _freshened(request, selected, fields, request_time, response_time, received, policy)


def outdated(verdict: Revalidate, status: int) -> tuple[Entry, ...]:
    """The stored responses that a full answer shows to be old, whether or not it is stored itself (section 4.3.3).

    Only where the answer speaks of the resource, not of this client. A stored response without a validator was not asked
    about, but whoever reloaded it is not to see it again.
    """
    return verdict.entries if (200 <= status < 400 or status in (404, 410)) and status != 304 else ()


def _validators(fields: Fields) -> bool:
    return b"etag" in fields.index or b"last-modified" in fields.index


def _asks_of_one(verdict: Revalidate) -> bool:
    """Only one stored response's validators were sent, and no client's, so that a 304 without any can mean no other."""
    tags = dict(verdict.fields).get(b"If-None-Match")
    return bool(verdict.fields) and len(verdict.entries) == 1 and tags in (None, verdict.entry.etag)


def _is_for_the_client(request: Request, verdict: Revalidate, fields: Fields) -> bool:
    """The 304 names one of the client's own entity tags, which went along with ours (section 4.3.2)."""
    etag = entity_tag(fields)
    sent = frozenset(entity_tags(dict(verdict.fields).get(b"If-None-Match", b"")))
    return etag is not None and any(weak_match(tag, etag) for tag in client_tags(request) if tag in sent)


def select_for_update(entries: Sequence[Entry], fields: Fields) -> list[Entry]:
    """The stored responses that a 304 updates (section 4.3.4).

    `entries` are those the request could have selected.
    """
    etag = entity_tag(fields)
    if etag is not None and not etag.startswith(b"W/"):
        return [entry for entry in entries if _has_strong(entry, etag, fields)]
    if etag is not None:
        found = [entry for entry in entries if entry.etag is not None and weak_match(entry.etag, etag)]
    elif b"last-modified" in fields.index:
        found = [entry for entry in entries if _same_date(entry, fields)]
        if all(map(_date_is_strong, found)):
            return found
    else:
        found = [entry for entry in entries if len(entries) == 1 and not entry.has_validator]
    return [max(found, key=recency)] if found else []


def _has_strong(entry: Entry, etag: bytes, fields: Fields) -> bool:
    """Whether a stored response shares a strong validator with a 304 whose entity tag is strong."""
    if entry.etag is not None:
        return strong_match(entry.etag, etag)
    return _same_date(entry, fields) and _date_is_strong(entry)


def _same_date(entry: Entry, fields: Fields) -> bool:
    modified = entry.last_modified
    return modified is not None and modified == date_of(fields, b"last-modified", entry.received)


def _date_is_strong(entry: Entry) -> bool:
    """RFC 9110 section 8.8.2.2: where the stored Date is a second or more later, nothing can have changed in between."""
    return entry.last_modified is not None and entry.date - entry.last_modified >= 1


def _freshened(
    request: Request, selected: list[Entry], fields: Fields, request_time: float, response_time: float, received: float,
    policy: Policy,
) -> Freshened:  # fmt: skip
    pairs = [(old, freshen(old, request, fields, request_time, response_time, received, policy)) for old in selected]
    answer = max((new for _, new in pairs), key=recency)
    if not _may_stay(answer, policy):
        answer.invalidate()  # with what the 304 said it is for who asked alone, and not for those who waited too
    return Freshened(answer, _updates(request, pairs, policy))


def _updates(request: Request, pairs: list[tuple[Entry, Entry]], policy: Policy) -> Updates:
    # Section 3.5: what an authorized request brought is that client's alone, unless it says otherwise.
    authorized = b"authorization" in request.fields.index
    ours = [(old, new) for old, new in pairs if not authorized or shared_despite_authorization(new.control)]
    return tuple([(old, new if _may_stay(new, policy) else None) for old, new in ours])


def _may_stay(entry: Entry, policy: Policy) -> bool:
    """Whether a response may be stored as it is now, updated."""
    if refused_as_setting_a_cookie(entry.fields, entry.control, entry.rule) is not None:
        return False
    return entry.vary is not None and forbidden(entry.status, entry.control, entry.rule, policy) is None


def freshen(
    entry: Entry, request: Request, fields: Fields, request_time: float, response_time: float, received: float,
    policy: Policy = DEFAULT_POLICY,
) -> Entry:
    """The stored response with the fields of a 304 or HEAD response in place of its own (section 3.2).

    `request` is the one that was answered. The body and what the store hangs on it are carried over.
    """
    merged = updated_fields(entry, fields)
    control = response_control(merged, policy.targets)
    new = Entry(
        request, entry.status, entry.reason, merged, request_time, response_time, received, policy, control, entry.rule
    )
    new.method = entry.method
    new.length = entry.length
    new.span = entry.span
    new.settle()
    if new.vary == entry.vary:
        new.secondary = entry.secondary
    new.body = entry.body
    new.store = entry.store
    return new


def updated_fields(entry: Entry, fields: Fields) -> Fields:
    """Each field of the new response replaces the stored one of its name."""
    gone = {*_KEPT, *fields.options(b"connection")}
    merged = entry.fields.copy()
    # A Date belongs to the response that brought it (RFC 9110 section 6.6.1): without one, the time of receipt counts.
    merged.remove(b"date", *[name for name in fields.index if name not in gone])
    for name, value in fields:
        if name.lower() not in gone:
            merged.add(name, value)
    return merged


def after_head(
    request: Request, entries: Sequence[Entry], fields: Fields, request_time: float, response_time: float,
    received: float, policy: Policy = DEFAULT_POLICY,
) -> Updates:
    """What a 200 to a HEAD that was forwarded tells of stored GET responses (section 4.3.5): an update, or their end."""
    found = [entry for entry in selectable(request, entries) if entry.method != b"HEAD"]
    same = [entry for entry in found if _same_representation(entry, fields)]
    pairs = [(entry, freshen(entry, request, fields, request_time, response_time, received, policy)) for entry in same]
    return _updates(request, pairs, policy) + tuple([(entry, None) for entry in found if entry not in same])


def _same_representation(entry: Entry, fields: Fields) -> bool:
    """Matching values for any validator received, and for Content-Length."""
    index = fields.index
    for name in (b"etag", b"last-modified"):
        if name in index and index[name] != entry.fields.index.get(name):
            return False
    length = content_length(fields)
    whole = entry.length if entry.span is None else entry.span[2]
    return length is None or whole is None or length == whole
