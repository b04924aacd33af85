"""Why a stored response may or may not answer, step by step, each with the section it comes from."""

from __future__ import annotations

from collections.abc import Sequence

from cache.entry import Entry
from cache.policy import DEFAULT_POLICY, Policy
from cache.rules import Hit, Miss, Pass, Revalidate, Stale, Unavailable, Verdict, lookup, matching
from reactor.http.parser import Request

Reasons = list[tuple[str, str]]

DEPARTURE = "a departure from the RFC, by the operator"

_NAMES: dict[type[Verdict], str] = {
    Hit: "hit", Stale: "stale", Revalidate: "revalidate", Miss: "miss", Pass: "pass", Unavailable: "504",
}  # fmt: skip
_SOURCES = {
    "operator": ("the operator's rule says", DEPARTURE),
    "heuristic": ("a guess from Last-Modified says", "RFC 9111 section 4.2.2"),
    "none": ("nothing says how long, so that it is", "RFC 9111 section 4.2.2"),
    "expires": ("Expires says", "RFC 9111 section 5.3"),
    "max-age": ("max-age says", "RFC 9111 section 5.2.2.1"),
    "s-maxage": ("s-maxage says", "RFC 9111 section 5.2.2.10"),
}


def explain(request: Request, stored: Sequence[Entry], now: float, policy: Policy = DEFAULT_POLICY) -> Reasons:
    """The chain of reasons behind `lookup`'s verdict: (text, section), the verdict last. `now` is as there."""
    verdict = lookup(request, stored, now, policy)
    chain: Reasons = []
    if stored and not isinstance(verdict, Pass):
        found = matching(request, stored)
        chain.append((f"{len(stored)} stored for the URI, {len(found)} of them for such a request", "RFC 9111 section 4.1"))
    if isinstance(verdict, Hit | Stale | Revalidate):
        chain += _of_entry(verdict.entry, now)
    chain.append((f"{_NAMES[type(verdict)]}: {verdict.reason}", verdict.section))
    return chain


def _of_entry(entry: Entry, now: float) -> Reasons:
    before = f", {int(entry.initial_age)} s of them before it came here" if entry.initial_age >= 1 else ""
    chain = [(f"its age is {entry.age(now)} s{before}", "RFC 9111 section 4.2.3"), _lifetime(entry)]
    if entry.rule is not None:
        chain.append((f"the operator's rule applies: {entry.rule}", DEPARTURE))
    return chain


def _lifetime(entry: Entry) -> tuple[str, str]:
    target, _, source = entry.lifetime_source.rpartition(" ")
    says, section = _SOURCES[source]
    if target:
        says, section = f"{target}, in place of Cache-Control, says", "RFC 9213 section 2.2"
    return f"{says} {entry.lifetime:g} s of freshness", section
