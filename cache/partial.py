"""Parts of a representation, stored and put together (RFC 9111 sections 3.3 and 3.4).

A part is an entry with a `span`: its body is what lies from `span[0]` to `span[1]` of the whole. It answers only range
requests that lie within it (rules.covers).
"""

from __future__ import annotations

from cache.entry import Entry, Span, is_strong
from cache.policy import DEFAULT_POLICY, Policy
from cache.validation import updated_fields
from reactor.http.parser import Request


def as_part(entry: Entry, received: int, complete: int | None) -> bool:
    """Record a 200 to a GET whose body broke off after `received` of `complete` bytes as the part it is.

    False where it is of no use: the complete length must be known, and a strong validator must tell what fits to it.
    """
    if entry.method != b"GET" or entry.status != 200 or entry.span is not None:
        return False
    if complete is None or not 0 < received < complete or not is_strong(entry.etag):
        return False
    entry.span = (0, received, complete)
    entry.settle()
    return True


def as_received(entry: Entry, size: int) -> bool:
    """Record of a 206 the `size` bytes that came, where its Content-Range told of more; False where it told of fewer.

    One that carries everything becomes the 200 it might as well have been (RFC 9110 section 15.3.7.3).
    """
    if entry.span is None:
        return True
    start, stop, complete = entry.span
    if not 0 < size <= stop - start:
        return False
    entry.span = (start, start + size, complete)
    if size == complete:
        entry.status, entry.reason, entry.span = 200, None, None
        entry.settle()
    return True


def joined_span(old: Entry, new: Entry) -> Span | None:
    """The span of two parts of one representation that touch or overlap; None where they cannot be combined.

    RFC 9110 section 15.3.7.3: only with the same strong validator.
    """
    if old.span is None or new.span is None or old.etag != new.etag or not is_strong(new.etag):
        return None
    (old_start, old_stop, old_complete), (new_start, new_stop, new_complete) = old.span, new.span
    if old_complete is not None and new_complete is not None and old_complete != new_complete:
        return None
    if old_start > new_stop or new_start > old_stop:
        return None
    complete = new_complete if old_complete is None else old_complete
    return min(old_start, new_start), max(old_stop, new_stop), complete


def combine(old: Entry, new: Entry, request: Request, policy: Policy = DEFAULT_POLICY) -> Entry | None:
    """One entry for two parts, without its body; a 200 where nothing is missing. None where they cannot be combined.

    The new part's fields replace those of the old one (RFC 9111 section 3.4), and its age counts.
    """
    span = joined_span(old, new)
    if span is None:
        return None
    start, stop, complete = span
    whole = start == 0 and stop == complete
    merged = updated_fields(old, new.fields)
    entry = Entry(
        request, 200 if whole else 206, None, merged, new.request_time, new.response_time, new.received, policy,
        rule=new.rule,
    )  # fmt: skip
    entry.take_age_of(new)
    entry.length = stop - start
    if not whole:
        entry.span = span
        entry.settle()
    return entry
