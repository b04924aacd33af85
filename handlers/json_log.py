"""The access log's JSON lines: an exchange as one object, with its phases and waits in milliseconds.

    parse          from the head's first byte until it was understood; what came before its last one is no part of `duration`
    access         the access rules                       dns, connect   null where a kept connection was taken
    script         a script's hooks, their waits too      first_byte     from the request's first byte to the answer's head
    lookup         the cache's decision                   body           from our own head to the last byte in the kernel
    head           from the arrival to our own head       duration       all of it
    client_wait    for the client: its request's body, and room for its answer's
    upstream_wait  for the origin: its head, and its body

`ended` says how: complete, relay ended, client left, client timed out, upstream cut, upstream timed out,
relay timed out, shut down, server failed or aborted; `failure` in whose words. Where this process answered in the origin's
place, `error` and `error_phase` say why.
"""

from __future__ import annotations

import json
import re
import time
from typing import Any

from reactor.errors import UpstreamError
from reactor.exchange import Exchange, Handler, Head
from reactor.timing import Timing

CLIENT_LEFT = 499  # nginx's own status for an exchange that ended before its answer began
STAGES = ("access", "script", "lookup")

_USERINFO = re.compile(rb"(?<=://)[^/?#]*@")
# The words of whoever ended an exchange, the first match counts. What an upstream did begins with its address.
_ENDINGS = tuple(
    (re.compile(pattern), ending)
    for pattern, ending in (
        (r"the client left\Z|the client's connection was lost|every client left\Z", "client left"),
        (r"closed by client\Z|reset by client\Z|client: ", "client left"),
        (r"the client stopped reading\Z", "client timed out"),
        (r"shut down\Z", "shut down"),
        (r"idle\Z", "relay timed out"),
        (r"the server failed\Z|.*an internal error\Z|failed: ", "server failed"),
        (r"reset by upstream\Z|closed by upstream\Z|upstream: ", "upstream cut"),
        (r".*\s(?:sent no byte of the body|took no byte of the request) for ", "upstream timed out"),
        (r".*(?:the connection was lost|broke the body's framing|closed the connection)", "upstream cut"),
        (r"the body is not as long as its head said\Z", "upstream cut"),
    )
)


class Stage:
    """Before a handler whose time is to be known: notes that an exchange has come to it."""

    def __init__(self, name: str, handler: Handler) -> None:
        self.name = name
        self.handler = handler

    def handle(self, exchange: Exchange) -> None:
        if exchange.timing is not None:
            exchange.timing.enter(self.name, exchange.reactor.clock())
        self.handler.handle(exchange)


def note_head(exchange: Exchange, head: Head) -> Head:
    """For Exchange.map_head: the answer is decided."""
    if exchange.timing is not None:
        exchange.timing.head_at = exchange.reactor.clock()
        exchange.timing.leave(exchange.timing.head_at)
        exchange.timing.cache_status = head.fields.get(b"cache-status")
    return head


def json_line(exchange: Exchange) -> bytes:
    """One JSON object, bytes of the bodies each way, null for what is not known."""
    facts = _facts(exchange)
    facts |= _phases(exchange)
    return _encode(facts).encode("ascii") + b"\n"


_encode = json.JSONEncoder(separators=(",", ":")).encode  # escapes all but visible ASCII and space


def _facts(exchange: Exchange) -> dict[str, Any]:
    arrival = exchange.reactor.wall - (exchange.reactor.now - exchange.started)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(arrival))
    facts: dict[str, Any] = {
        "time": f"{stamp}.{int(arrival % 1 * 1000):03}Z",  # RFC 3339
        "client": exchange.peer,
        "user": exchange.user,
    }
    request = exchange.request
    if request is not None:
        facts["method"] = _text(request.method)
        facts["scheme"] = _text(request.scheme or exchange.scheme)
        facts["authority"] = _text(request.authority)
        facts["target"] = _text(without_userinfo(request.target))
        facts["version"] = f"1.{request.version - 10}"
        facts["referer"] = _text(without_userinfo(request.fields.get(b"referer") or b"")) or None
        facts["user_agent"] = _text(request.fields.get(b"user-agent") or b"") or None
    error = exchange.error
    facts |= {
        "status": exchange.status or CLIENT_LEFT,
        "verdict": exchange.verdict,
        "cache_status": None if exchange.timing is None else _text(exchange.timing.cache_status or b"") or None,
        "reason": exchange.reason,
        "upstream": exchange.upstream,
        "error": None if error is None else str(error),
        "error_phase": error.phase if isinstance(error, UpstreamError) else None,
        "ended": how_it_ended(exchange),
        "failure": exchange.failure,
        "bytes_in": exchange.bytes_in,
        "bytes_out": exchange.bytes_out,
    }
    return facts


def _phases(exchange: Exchange) -> dict[str, float | None]:
    started, finished = exchange.started, exchange.reactor.clock()
    timing = exchange.timing or Timing()
    head = timing.head_at or exchange.head_sent
    timing.leave(finished)
    timing.go_on(exchange.finished)
    stages, fetch = timing.stages, timing.fetch
    asked = max(fetch.sent, started)  # the fetch may be an earlier exchange's
    answered = fetch.answered or exchange.finished
    phases = {
        "parse_ms": timing.parse,
        **{f"{stage}_ms": stages.get(stage) for stage in STAGES},
        "dns_ms": (fetch.resolved or fetch.connected) - fetch.began if fetch.connected else None,
        "connect_ms": fetch.connected - fetch.resolved if fetch.resolved else None,
        "first_byte_ms": fetch.answered - fetch.sent if fetch.answered else None,
        "head_ms": head - started if exchange.status else None,
        "body_ms": finished - head if exchange.status else None,
        "duration_ms": finished - started,
        "client_wait_ms": timing.client_wait,
        "upstream_wait_ms": max(0.0, answered - asked) + timing.source_wait if fetch.sent else None,
    }
    return {name: None if span is None else round(span * 1000, 3) for name, span in phases.items()}


def how_it_ended(exchange: Exchange) -> str:
    """One of the few words for it that the head of this file lists."""
    failure, request, status = exchange.failure, exchange.request, exchange.status
    if failure is None:
        tunnel = request is not None and request.method == b"CONNECT" and 200 <= status < 300
        return "relay ended" if tunnel or status == 101 else "complete"
    return next((ending for pattern, ending in _ENDINGS if pattern.match(failure)), "aborted")


def without_userinfo(uri: bytes) -> bytes:
    """A URI, or a path that has one in it, without a password that may stand there (RFC 9110 section 4.2.4)."""
    return _USERINFO.sub(b"", uri) if b"@" in uri else uri


def _text(value: bytes) -> str:
    return value.decode("utf-8", "backslashreplace")
