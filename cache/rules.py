"""The rules of a shared HTTP cache as pure functions: RFC 9111 with RFC 5861, 8246 and 9213.

`lookup` says of a request what the stored responses are good for (storing.may_store: of a response, whether it may be
stored). It ends in one verdict of a closed set:

    verdict        what the caller does
    Hit            answers with `entry`
    Stale          answers with `entry`, which is stale, for the reason given; validates behind it where `revalidate`
    Revalidate     forwards with `fields` in place of the request's own conditions; the answer goes to validation.validate
    Miss           forwards; others may wait for the same response
    Pass           forwards, and neither stores nor shares the response
    Unavailable    answers 504: the client wanted a stored response or none

Every verdict carries `fwd`, the word of Cache-Status for it (RFC 9211 section 2.2), `reason` and `section`.
Time is an argument everywhere: `now` is seconds on the monotonic clock that the stored responses' times are on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cache.directives import RequestControl, request_control
from cache.entry import NOT_STORED, Entry, is_strong
from cache.key import SecondaryKey, secondary_key
from cache.policy import DEFAULT_POLICY, Policy
from reactor.http.conditional import entity_tags, if_range
from reactor.http.fields import Fields
from reactor.http.parser import Request
from reactor.http.ranges import parse_range

UNKNOWN_LENGTH: Final = 2**62  # stands for a complete length nobody told: beyond any position

FieldPairs = tuple[tuple[bytes, bytes], ...]


_new = object.__new__  # makes a Hit without the call of an __init__


# The verdicts.


class Hit:
    """A fresh response answers. `special`: the request has conditions or a range, for answering.answer to look at."""

    __slots__ = ("entry", "special")
    fwd: Final = None
    reason: Final = "the stored response is fresh"
    section: Final = "RFC 9111 section 4.2"

    def __init__(self, entry: Entry, special: bool = False) -> None:
        self.entry = entry
        self.special = special


class Stale:
    """A stale response answers, as something allows. `why` is that in one word."""

    __slots__ = ("entry", "why", "revalidate", "reason", "section")
    fwd: Final = None

    def __init__(self, entry: Entry, why: str, revalidate: bool, reason: str, section: str) -> None:
        self.entry = entry
        self.why = why
        self.revalidate = revalidate
        self.reason = reason
        self.section = section


class Revalidate:
    """The origin is to be asked whether a stored response is still good.

    `entry` is the selected one, `entries` all that the request could have selected (those whose entity tags were sent);
    `fields` replaces the request's If-None-Match, If-Modified-Since, If-Range and Range; it is empty where the stored
    response has no validator, and then this is a plain request that may yet fail (`stale_on_error`).
    """

    __slots__ = ("entry", "entries", "fields", "fwd", "reason", "section")

    def __init__(
        self, entry: Entry, entries: tuple[Entry, ...], fields: FieldPairs, fwd: str, reason: str, section: str
    ) -> None:
        self.entry = entry
        self.entries = entries
        self.fields = fields
        self.fwd = fwd
        self.reason = reason
        self.section = section


class Miss:
    """Nothing stored answers; `fwd` is uri-miss, vary-miss or partial.

    `part` is the stored beginning of what is asked for whole, where the rest of it can be asked for (section 3.4).
    """

    __slots__ = ("fwd", "reason", "section", "part")

    def __init__(self, fwd: str, reason: str, section: str, part: Entry | None = None) -> None:
        self.fwd = fwd
        self.reason = reason
        self.section = section
        self.part = part


class Pass:
    """The cache keeps out of it; `fwd` is method, bypass or request."""

    __slots__ = ("fwd", "reason", "section")

    def __init__(self, fwd: str, reason: str, section: str) -> None:
        self.fwd = fwd
        self.reason = reason
        self.section = section


class Unavailable:
    """The client takes nothing but a stored response, and there is none to give: 504 (RFC 9111 section 5.2.1.7)."""

    __slots__ = ("reason", "section")
    fwd: Final = None

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.section = "RFC 9111 section 5.2.1.7"


Verdict = Hit | Stale | Revalidate | Miss | Pass | Unavailable


# Looking up.

# What a request asks for itself, to be looked at once a whole response is there.
CONDITIONS: Final = frozenset((b"if-none-match", b"if-modified-since", b"range"))
_NAMES_NOTHING: Final = frozenset((b"close", b"keep-alive", b"Keep-Alive"))  # values of Connection
_OF_ONE_HOP: Final = NOT_STORED | {b"http2-settings"}  # RFC 7540 section 3.2.1
_ORIGIN_CONDITIONS: Final = frozenset((b"if-match", b"if-unmodified-since"))


def lookup(request: Request, entries: Sequence[Entry], now: float, policy: Policy = DEFAULT_POLICY) -> Verdict:
    """What the responses stored under a request's primary key are good for."""
    if entries and request.method == b"GET" and not request.length and not request.fields.states_terms():
        # Nothing in the request asks for more than a fresh response. Nearly every request is of this kind.
        entry = entries[0] if len(entries) == 1 else max(matching(request, entries), key=recency, default=None)
        if entry is not None and entry.plain and now < entry.fresh_until:
            names = entry.vary
            if not names or secondary_key(names, request.fields) == entry.secondary:
                hit = _new(Hit)
                hit.entry, hit.special = entry, False
                return hit
    if request.method not in (b"GET", b"HEAD"):
        return Pass("method", "only GET and HEAD are answered from the store", "RFC 9111 section 4")
    control = request_control(request.fields)
    verdict: Verdict | None = _not_for_a_cache(request)
    if verdict is None:
        candidates = matching(request, entries)
        usable = [entry for entry in candidates if entry.span is None or covers(entry, request)]
        if usable:
            verdict = _judge(request, control, max(usable, key=recency), usable, now, policy)
        else:
            verdict = _miss(request, entries, candidates)
    if type(verdict) is Hit or type(verdict) is Stale:
        return verdict
    return _before_forwarding(control, verdict)


def may_answer(request: Request, entry: Entry, now: float, policy: Policy = DEFAULT_POLICY) -> bool:
    """Whether a response fetched for one request may answer another that waited for it (section 4).

    Only as it could if it were stored already: what needs validation for every use is nobody else's.
    """
    return isinstance(lookup(request, (entry,), now, policy), Hit | Stale)


def _miss(request: Request, entries: Sequence[Entry], candidates: list[Entry]) -> Miss:
    if candidates:
        part = _beginning(candidates) if request.method == b"GET" and b"range" not in request.fields.index else None
        return Miss("partial", "what is stored is not the part asked for", "RFC 9111 section 3.3", part)
    if any(entry.method != b"HEAD" or request.method == b"HEAD" for entry in entries):
        return Miss("vary-miss", "nothing stored was selected by fields like this request's", "RFC 9111 section 4.1")
    return Miss("uri-miss", "nothing is stored for this URI", "RFC 9111 section 4")


def _beginning(candidates: list[Entry]) -> Entry | None:
    """The longest stored part from the first byte on to which the rest can be fetched.

    It need not be fresh: a strong validator shows whether the rest is of the same representation.
    """
    found: Entry | None = None
    for entry in candidates:
        if entry.span is not None and entry.span[0] == 0 and entry.span[2] is not None and is_strong(entry.etag):
            if found is None or found.span is None or entry.span[1] > found.span[1]:
                found = entry
    return found


def _not_for_a_cache(request: Request) -> Pass | None:
    if request.length:
        # Content of a GET is no part of the key, but may change the answer (RFC 9110 section 9.3.1).
        return Pass("bypass", "the request has content", "RFC 9110 section 9.3.1")
    connection = request.fields.index.get(b"connection")
    if connection is not None and connection not in _NAMES_NOTHING and _takes_off(request.fields):
        return Pass("bypass", "its Connection takes off fields that may select the response", "RFC 9110 section 7.6.1")
    if not request.fields.index.keys().isdisjoint(_ORIGIN_CONDITIONS):
        return Pass("request", "the request's precondition is for the origin to evaluate", "RFC 9111 section 4.3.2")
    return None


def _takes_off(fields: Fields) -> bool:
    """Whether Connection names a field that an origin would else see: what it answers without is not for who sends it."""
    return not fields.index.keys().isdisjoint(set(fields.options(b"connection")) - _OF_ONE_HOP)


def _before_forwarding(control: RequestControl, verdict: Verdict) -> Verdict:
    """What the client says of requests that would have to be forwarded."""
    if control.only_if_cached:
        return Unavailable(f"only-if-cached, and {verdict.reason}")
    if control.no_store and isinstance(verdict, Miss | Revalidate):
        return Pass(verdict.fwd, f"the request says no-store, and {verdict.reason}", "RFC 9111 section 5.2.1.5")
    return verdict


def selectable(request: Request, entries: Sequence[Entry], heads: bool = False) -> list[Entry]:
    """The stored responses whose method answers the request and whose Vary, if any, matches it (sections 4 and 4.1).

    With `heads` those to HEAD count whatever the method.
    """
    get = request.method == b"GET" and not heads
    names: tuple[bytes, ...] | None = ()
    key: SecondaryKey = ()
    found: list[Entry] = []
    for entry in entries:
        if get and entry.method == b"HEAD":
            continue
        if entry.vary is not names:
            names = entry.vary
            if names is None:
                continue  # section 4.1: `*` always fails to match
            key = secondary_key(names, request.fields)
        if key == entry.secondary and names is not None:
            found.append(entry)
    return found


def matching(request: Request, entries: Sequence[Entry]) -> list[Entry]:
    """The selectable responses among which the most recent is to be chosen (section 4.1).

    Where some responses of a URI say Vary and others forget it, one without it counts only where none that says it matches,
    and only while it is the newest of all: otherwise it may be the default of another kind of client.
    """
    found = selectable(request, entries)
    if len(entries) == 1 or not any(entry.vary for entry in entries):
        return found
    if any(entry.vary for entry in found):
        return [entry for entry in found if entry.vary]
    newest = max(map(recency, entries))
    return [entry for entry in found if recency(entry) == newest]


def recency(entry: Entry) -> tuple[float, float]:
    """Of several, the one to use is the most recent by its Date (section 4); of the same second, the last received."""
    return entry.date, entry.response_time


def covers(entry: Entry, request: Request) -> bool:
    """Whether a stored part holds all that a range request asks for (section 3.3)."""
    assert entry.span is not None
    index = request.fields.index
    start, stop, complete = entry.span
    if request.method != b"GET" or b"range" not in index:
        return False
    if not if_range(request.fields, entry.etag, entry.last_modified, entry.date):
        return False
    # Where the complete length is unknown, only a range whose both ends are given can be told.
    wanted = parse_range(index[b"range"], UNKNOWN_LENGTH if complete is None else complete)
    if not isinstance(wanted, list) or complete is None and len(wanted) > 1:
        return False
    return all(start <= first and last <= stop for first, last in wanted)


def _judge(
    request: Request, control: RequestControl, entry: Entry, candidates: list[Entry], now: float, policy: Policy
) -> Hit | Stale | Revalidate:
    """The selected response: fresh, allowed to be stale, or to be validated (section 4)."""
    if entry.rule is not None and "reload" in entry.rule.ignore:  # a departure, asked for by the operator
        control = control.without_reload()
    why = _why_validate(control, entry, now)
    if why is None:
        if entry.is_fresh(now):
            return Hit(entry, not request.fields.index.keys().isdisjoint(CONDITIONS))
        if (stale := _allowed_stale(control, entry, now, policy)) is not None:
            return stale
        why = ("stale", *_stale_reason(entry))
    fwd, reason, section = why
    return Revalidate(entry, tuple(candidates), conditional_fields(request, candidates, entry), fwd, reason, section)


def _why_validate(control: RequestControl, entry: Entry, now: float) -> tuple[str, str, str] | None:
    """(fwd, reason, section) where the response may not be used without validation, however fresh it is."""
    if entry.invalid:
        return "stale", "an unsafe request has invalidated it", "RFC 9111 section 4.4"
    if entry.no_cache:
        return "stale", "the response says no-cache", "RFC 9111 section 5.2.2.4"
    fresh = entry.is_fresh(now)
    fwd = "request" if fresh else "stale"
    if control.no_cache:
        return fwd, "the request says no-cache", "RFC 9111 section 5.2.1.4"
    # RFC 8246 section 2: while an immutable response is fresh, only no-cache has it validated.
    if control.max_age is not None and not (fresh and entry.control.immutable) and _is_older(entry, control.max_age, now):
        return fwd, "it is older than the request's max-age", "RFC 9111 section 5.2.1.1"
    if control.min_fresh is not None and -entry.staleness(now) < control.min_fresh:
        return fwd, "it is not fresh for as long as the request's min-fresh", "RFC 9111 section 5.2.1.3"
    return None


def _is_older(entry: Entry, max_age: int, now: float) -> bool:
    # No response is of age 0 by the time it is used, though a coarse clock may say so.
    return not max_age or entry.current_age(now) > max_age


def _allowed_stale(control: RequestControl, entry: Entry, now: float, policy: Policy) -> Stale | None:
    """Section 4.2.4: stale only where client, origin or operator says so, and nothing in the response forbids it."""
    if entry.no_stale:
        return None
    over = entry.staleness(now)
    if not _takes_stale(control, over):
        return None
    why = "stale-while-revalidate"
    if over < (entry.control.stale_while_revalidate or 0):
        return Stale(entry, why, True, f"the response's {why} allows it", "RFC 5861 section 3")
    if over < grace_for(entry, policy):
        return Stale(entry, "grace", True, "the operator's grace allows it", "RFC 9111 section 4.2.4")
    if control.max_stale is not None:
        return Stale(entry, "max-stale", False, "the request's max-stale allows it", "RFC 9111 section 5.2.1.2")
    return None


def _takes_stale(control: RequestControl, over: float) -> bool:
    """Whether the client would have a response that is stale by `over` seconds (sections 5.2.1.1 to 5.2.1.3)."""
    if control.max_stale is not None:
        return over <= control.max_stale
    return control.max_age is None and control.min_fresh is None


def grace_for(entry: Entry, policy: Policy) -> int:
    """For how many seconds the operator lets this response be stale."""
    return max(policy.grace, 0 if entry.rule is None else entry.rule.stale)


def _stale_reason(entry: Entry) -> tuple[str, str]:
    if entry.control.must_revalidate:
        return "it is stale, and says must-revalidate", "RFC 9111 section 5.2.2.2"
    if entry.control.proxy_revalidate:
        return "it is stale, and says proxy-revalidate", "RFC 9111 section 5.2.2.8"
    if entry.control.s_maxage is not None:
        return "it is stale, and s-maxage forbids to use it so", "RFC 9111 section 5.2.2.10"
    return "it is stale", "RFC 9111 section 4.2"


# Asking the origin.


def conditional_fields(
    request: Request, candidates: Sequence[Entry], entry: Entry, for_client: bool = True
) -> FieldPairs:
    """The conditions that validate stored responses (section 4.3.1), with the client's own entity tags (section 4.3.2).

    Not `for_client`: nobody waits for the answer, and only what is stored is asked about. The tags of a stored part are
    sent only where that part is all the request wants, which `lookup` has seen to.
    """
    pairs: list[tuple[bytes, bytes]] = []
    index = request.fields.index
    if entry.span is not None:
        pairs.append((b"Range", index[b"range"]))
        if b"if-range" in index:
            pairs.append((b"If-Range", index[b"if-range"]))
    tags = [one.etag for one in candidates if one.etag is not None]
    if tags:
        tags += client_tags(request) if for_client else []
        pairs.append((b"If-None-Match", b", ".join(dict.fromkeys(tags))))
    if entry.last_modified is not None and entry.span is None and len(candidates) == 1:
        pairs.append((b"If-Modified-Since", entry.fields.index[b"last-modified"]))
    return tuple(pairs)


def client_tags(request: Request) -> list[bytes]:
    """The entity tags of the client's own If-None-Match."""
    return entity_tags(request.fields.index.get(b"if-none-match", b""))


ERRORS: Final = frozenset((500, 502, 503, 504))  # RFC 5861 section 4


def stale_on_error(
    request: Request, entry: Entry, now: float, policy: Policy = DEFAULT_POLICY, status: int | None = None
) -> Stale | None:
    """The stored response that may answer after all, where the origin failed.

    `status` is what the origin (or the next proxy) answered, None where it did not answer at all: only then is the cache
    disconnected (RFC 9111 section 4.2.4). None where nothing allows it.
    """
    if status is not None and status not in ERRORS:
        return None
    control = request_control(request.fields)
    if entry.invalid or entry.no_stale or control.no_cache:
        return None
    over = max(0.0, entry.staleness(now))
    # RFC 5861 section 4: "regardless of other freshness information", so whatever else the client says of it.
    if over < max(entry.control.stale_if_error or 0, control.stale_if_error or 0):
        return Stale(entry, "stale-if-error", False, "stale-if-error allows it", "RFC 5861 section 4")
    # The operator's own decision likewise: pip and apt always ask for max-age=0, and would get nothing at all.
    ruled = entry.rule is not None and over < entry.rule.stale
    if over and not ruled and not _takes_stale(control, over):
        return None
    if ruled or over < grace_for(entry, policy):
        return Stale(entry, "grace", False, "the operator's grace allows it", "RFC 9111 section 4.2.4")
    if status is None and over < policy.grace_on_failure:
        return Stale(entry, "disconnected", False, "the origin cannot be reached", "RFC 9111 section 4.2.4")
    return None


def failure_status(entry: Entry) -> int | None:
    """504 where a stored response exists that may not be served stale, and the origin did not answer (section 5.2.2.2)."""
    return 504 if entry.no_stale else None
