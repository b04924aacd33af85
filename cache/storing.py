"""Whether a response may be stored by a shared cache: RFC 9111 section 3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cache.directives import ResponseControl, request_control, response_control
from cache.entry import Entry, partial_span
from cache.freshness import HEURISTICALLY_CACHEABLE
from cache.invalidation import same_resource
from cache.key import vary_names
from cache.policy import DEFAULT_POLICY, OperatorRule, Policy
from cache.rules import grace_for, selectable
from reactor.http.fields import Fields
from reactor.http.parser import Request

# The status codes whose caching this cache knows all about, as must-understand asks (section 5.2.2.3).
UNDERSTOOD: Final = HEURISTICALLY_CACHEABLE | {
    201, 202, 205, 302, 303, 307, 400, 401, 402, 403, 406, 408, 409, 411, 413, 415, 421, 422, 426, 428, 429, 431, 500, 502,
    503, 504, 505,
}  # fmt: skip
_NEVER: Final = frozenset((304, 407))  # of no use without the response they speak of, and the challenge that is not stored
# Answers to what the key does not show: fields without which such a response would be like any other.
_ANSWER_TO: Final = {
    412: frozenset((b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since")),
    416: frozenset((b"range",)),
    417: frozenset((b"expect",)),
}  # fmt: skip


class StoreDecision:
    """`entry` is what to store, None where nothing may be; then `reason` and `section` say why."""

    __slots__ = ("entry", "reason", "section")

    def __init__(self, entry: Entry | None, reason: str, section: str) -> None:
        self.entry = entry
        self.reason = reason
        self.section = section

    @property
    def store(self) -> bool:
        return self.entry is not None


def may_store(
    request: Request, uri: bytes, status: int, reason: bytes | None, fields: Fields,
    request_time: float, response_time: float, received: float, policy: Policy = DEFAULT_POLICY,
) -> StoreDecision:
    """Decide on a response's head; that its body came whole is for the caller to see to (section 3.3).

    `uri` is the primary key; `request_time` and `response_time` are when the request was sent and the head received, in
    seconds on the monotonic clock, and `received` is the latter in seconds since the epoch.
    """
    rule = policy.rule_for(request.authority, request.path) if policy.rules else None
    control = response_control(fields, policy.targets)
    refusal = _refused_request(request) or _refused_status(request, status, fields, policy)
    refusal = refusal or forbidden(status, control, rule, policy) or _refused_as_authorized(request, control)
    refusal = refusal or _refused_by_fields(request, uri, status, fields, control, rule)
    if refusal is not None:
        return StoreDecision(None, *refusal)
    entry = Entry(request, status, reason, fields, request_time, response_time, received, policy, control, rule)
    refusal = _refused_as_useless(entry, policy)
    if refusal is not None:
        return StoreDecision(None, *refusal)
    return StoreDecision(entry, "nothing forbids it", "RFC 9111 section 3")


Refusal = tuple[str, str] | None


def _refused_request(request: Request) -> Refusal:
    if request.method not in (b"GET", b"HEAD", b"POST"):
        return "responses to this method are not cacheable", "RFC 9110 section 9.2.3"
    if request.length and request.method != b"POST":
        return "the request has content, which is no part of the key", "RFC 9110 section 9.3.1"
    if request_control(request.fields).no_store:
        return "the request says no-store", "RFC 9111 section 5.2.1.5"
    return None


def _refused_status(request: Request, status: int, fields: Fields, policy: Policy) -> Refusal:
    if status < 200:
        return "the response is not final", "RFC 9111 section 3"
    if status in _NEVER or status in _ANSWER_TO and not _ANSWER_TO[status].isdisjoint(request.fields.index):
        return "the status answers this one request", "RFC 9111 section 3"
    if status == 206:
        if not policy.store_partial:
            return "partial responses are not stored", "RFC 9111 section 3.3"
        if partial_span(fields) is None:
            return "the partial response is not a single range of known place", "RFC 9111 section 3.3"
    return None


def understands(status: int, policy: Policy) -> bool:
    """Whether this cache does all that a status code's definition asks of caches."""
    return status in UNDERSTOOD and (status != 206 or policy.store_partial)


def forbidden(status: int, control: ResponseControl, rule: OperatorRule | None, policy: Policy) -> Refusal:
    """Where the response's own directives, as far as the operator's rule leaves them, forbid that it is stored."""
    ignored = rule.ignore if rule is not None else frozenset()
    if control.must_understand and not understands(status, policy):
        return "must-understand, and the status is not understood", "RFC 9111 section 5.2.2.3"
    # Section 5.2.2.3: where must-understand is understood, no-store beside it is for those who do not know it.
    if control.no_store and not control.must_understand and "no-store" not in ignored:
        return "the response says no-store", "RFC 9111 section 5.2.2.5"
    if control.private and "private" not in ignored:
        return "the response is private", "RFC 9111 section 5.2.2.7"
    return None


def _refused_as_authorized(request: Request, control: ResponseControl) -> Refusal:
    if b"authorization" in request.fields.index and not shared_despite_authorization(control):
        return "the request is authorized, and the response does not say that it may be shared", "RFC 9111 section 3.5"
    return None


def shared_despite_authorization(control: ResponseControl) -> bool:
    """Section 3.5: the directives that let a shared cache keep the answer to an authorized request."""
    return control.public or control.must_revalidate or control.s_maxage is not None


def _refused_by_fields(
    request: Request, uri: bytes, status: int, fields: Fields, control: ResponseControl, rule: OperatorRule | None
) -> Refusal:
    if vary_names(fields) is None:
        return "its Vary matches no request", "RFC 9111 section 4.1"
    explicit = is_explicit(fields, control)
    if status not in HEURISTICALLY_CACHEABLE and not (explicit or control.public):
        return "nothing says that a response of this status may be stored", "RFC 9111 section 3"
    if request.method == b"POST":
        location = fields.index.get(b"content-location")
        if not explicit or location is None or not same_resource(uri, location):
            return "a POST's response needs explicit freshness and its own URI as Content-Location", "RFC 9110 section 9.3.3"
    return refused_as_setting_a_cookie(fields, control, rule)


def refused_as_setting_a_cookie(fields: Fields, control: ResponseControl, rule: OperatorRule | None) -> Refusal:
    if b"set-cookie" in fields.index and not is_explicit(fields, control) and (rule is None or "set-cookie" not in rule.ignore):
        return "it sets a cookie, and does not say how long it is fresh", "RFC 9111 section 7.3"
    return None


def is_explicit(fields: Fields, control: ResponseControl) -> bool:
    """Whether the response states its freshness lifetime (section 4.2.1)."""
    if control.max_age is not None or control.s_maxage is not None:
        return True
    return b"expires" in fields.index and control.source in (b"", b"cache-control")


def _refused_as_useless(entry: Entry, policy: Policy) -> Refusal:
    """What could never answer anything is not worth its bytes."""
    if entry.has_validator or entry.lifetime > entry.initial_age and not entry.no_cache:
        return None
    control = entry.control
    # What was fresh for a while, elsewhere, is what a client's max-stale is for; what never was is made anew for each.
    wanted = entry.lifetime or control.stale_while_revalidate or control.stale_if_error or grace_for(entry, policy)
    if wanted and not entry.no_stale:
        return None
    return "it is stale already and has no validator", "RFC 9111 section 4"


def displaced(request: Request, entries: Sequence[Entry], new: Entry | None = None) -> list[Entry]:
    """The stored responses whose place a new response to `request` takes: those the request could have selected.

    A HEAD's response leaves what is stored for GET alone; a part (`new`) leaves what is from the same representation, unless
    it has all of that itself.
    """
    found = selectable(request, entries, heads=new is None or new.span is None)
    if request.method == b"HEAD":
        found = [entry for entry in found if entry.method == b"HEAD"]
    if new is not None and new.span is not None:
        start, stop, _ = new.span
        same = [entry for entry in found if entry.etag is not None and entry.etag == new.etag]
        stay = [entry for entry in same if entry.span is None or entry.span[0] < start or entry.span[1] > stop]
        found = [entry for entry in found if entry not in stay]
    return found
