"""How the tests of the cache's rules write requests, stored responses and times: as one would write them down with the
RFC in the other hand."""

from __future__ import annotations

from cache.entry import Entry
from cache.key import primary_key
from cache.policy import DEFAULT_POLICY, Policy
from cache.rules import Hit, Miss, Pass, Revalidate, Stale, Unavailable, Verdict
from cache.storing import StoreDecision, may_store
from reactor.http.dates import format_date
from reactor.http.fields import Fields
from reactor.http.parser import Request, RequestParser

NOW = 5_000.0  # on the monotonic clock, when every response in these tests arrives
WALL = 1_000_000_000.0  # the same on the wall: Sun, 09 Sep 2001 01:46:40 GMT
URI = b"http://example.com/"


def date(offset: float) -> str:
    """The HTTP date `offset` seconds after NOW."""
    return format_date(WALL + offset).decode("ascii")


def request(
    lines: str = "", method: str = "GET", path: str = "/", host: str = "example.com", content: bytes = b""
) -> Request:
    """A request with these field lines, one a line or divided by ` | `."""
    head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n"
    for line in split(lines):
        head += line + "\r\n"
    if content:
        head += f"Content-Length: {len(content)}\r\n"
    parser = RequestParser()
    parser.feed(head.encode("latin-1") + b"\r\n")
    event = parser.next_event()
    assert isinstance(event, Request)
    return event


def split(lines: str) -> list[str]:
    return [line.strip() for part in lines.split("\n") for line in part.split(" | ") if line.strip()]


def fields(lines: str) -> Fields:
    """Field lines; `{-10}` in them stands for the date ten seconds before NOW."""
    found = Fields()
    for line in split(lines):
        name, _, value = line.partition(":")
        while "{" in value:
            before, _, rest = value.partition("{")
            offset, _, after = rest.partition("}")
            value = before + date(float(offset)) + after
        found.add(name, value.strip())
    return found


def decide(
    lines: str,
    status: int = 200,
    asked: Request | None = None,
    policy: Policy = DEFAULT_POLICY,
    at: float = NOW,
    delay: float = 0.0,
    wall: float | None = None,
) -> StoreDecision:
    """Whether a response with these field lines, received at `at` in answer to `asked`, may be stored.

    `wall` is what the wall clock says by then, where that was set meanwhile.
    """
    asked = request() if asked is None else asked
    uri = primary_key(b"http", asked.authority, asked.path)
    return may_store(asked, uri, status, None, fields(lines), at - delay, at, at_wall(at) if wall is None else wall, policy)


def at_wall(now: float) -> float:
    """What a wall clock that nobody has set says at `now` on the monotonic one."""
    return WALL + now - NOW


def stored(
    lines: str,
    status: int = 200,
    asked: Request | None = None,
    policy: Policy = DEFAULT_POLICY,
    at: float = NOW,
    delay: float = 0.0,
    wall: float | None = None,
) -> Entry:
    """The same, where it must be stored."""
    decision = decide(lines, status, asked, policy, at, delay, wall)
    assert decision.entry is not None, decision.reason
    return decision.entry


_WORDS: dict[type[Verdict], str] = {Hit: "hit", Revalidate: "revalidate", Unavailable: "504"}


def word(verdict: Verdict) -> str:
    """A verdict in a word or two: hit, stale (why), revalidate, miss (fwd), pass (fwd), 504."""
    if isinstance(verdict, Stale):
        return f"stale {verdict.why}"
    if isinstance(verdict, Miss):
        return f"miss {verdict.fwd}"
    if isinstance(verdict, Pass):
        return f"pass {verdict.fwd}"
    return _WORDS[type(verdict)]
