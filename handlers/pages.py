"""Pages that people read: errors and redirects, in HTML or, where the client prefers it, in JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from reactor.exchange import Exchange, Head, error_page
from reactor.http.fields import Text
from reactor.http.negotiation import best_type
from reactor.http.writer import REASONS

TEXT = b"text/plain"
HTML = b"text/html"
JSON = b"application/json"
PROBLEM = b"application/problem+json"  # RFC 9457

# Neither scripts nor anything from elsewhere, so that a hostile file name stays a name.
_POLICY = b"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"

_KNOWN_METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH"))

_STYLE = """\
:root{color-scheme:light dark;--ink:#1c2024;--soft:#68717a;--line:#e4e7ea;--back:#fff;--tint:#f5f7f9;--link:#0b62c4;
--folder:#e0a63c}
@media(prefers-color-scheme:dark){
:root{--ink:#e7eaed;--soft:#98a2ad;--line:#2e343a;--back:#15181b;--tint:#1d2125;--link:#74b0ff}}
*{box-sizing:border-box}body{margin:0;background:var(--back);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:60rem;margin:0 auto;padding:3rem 1.25rem}
h1{font-size:1.4rem;font-weight:600;margin:0 0 1rem;overflow-wrap:anywhere}
a{color:var(--link);text-decoration:none}a:hover{text-decoration:underline}p{color:var(--soft);margin:.5rem 0}
.status{font-size:3.5rem;font-weight:700;line-height:1.1;margin:0}
table{width:100%;border-collapse:collapse}th,td{padding:.45rem .75rem;text-align:left;border-bottom:1px solid var(--line)}
th{font-size:.85rem;font-weight:600;white-space:nowrap}th a{color:var(--soft)}tbody tr:hover{background:var(--tint)}
td{overflow-wrap:anywhere}.n{text-align:right;white-space:nowrap;color:var(--soft);font-variant-numeric:tabular-nums}
td.n{font-size:.9rem}th.n a{color:var(--soft)}.d a,.f a{display:flex}
.d a::before,.f a::before{content:"";flex:none;width:1rem;height:.8rem;margin:.4rem .75rem 0 0;border-radius:2px}
.d a::before{background:linear-gradient(90deg,var(--folder) 45%,transparent 45%) 0 0/100% 3px no-repeat,
linear-gradient(var(--folder),var(--folder)) 0 2px no-repeat}
.f a::before{width:.7rem;height:.95rem;margin:.28rem .72rem 0 .1rem;border:1.5px solid var(--soft)}
@media(max-width:36rem){.w{display:none}}
"""


def _page(title: str, content: str) -> bytes:
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body><main>\n{content}\n</main></body></html>\n"
    ).encode("utf-8", "replace")


def respond_page(
    exchange: Exchange, status: int, title: str, content: str, fields: Iterable[tuple[Text, Text]] = ()
) -> None:
    """Answer with a page; `content` is HTML already escaped."""
    head = Head(status, [(b"Content-Type", b"text/html; charset=utf-8"), (b"Content-Security-Policy", _POLICY)])
    for name, value in fields:
        head.fields.add(name, value)
    exchange.respond(head, _page(title, content))


def respond_json(
    exchange: Exchange, status: int, value: Any, fields: Iterable[tuple[Text, Text]] = (), kind: bytes = JSON
) -> None:
    """Answer with a value as JSON (RFC 8259)."""
    head = Head(status, [(b"Content-Type", kind)])
    for name, text in fields:
        head.fields.add(name, text)
    exchange.respond(head, json.dumps(value, ensure_ascii=False, indent=2).encode("utf-8", "replace") + b"\n")


def reason(status: int) -> str:
    """The registered phrase of a status code."""
    return REASONS.get(status, b"Unknown").decode("ascii")


def problem(status: int, detail: str = "", **more: Any) -> dict[str, Any]:
    """A problem details object (RFC 9457 section 3): the status' own meaning, said in `detail` for this case."""
    found: dict[str, Any] = {"type": "about:blank", "title": reason(status), "status": status}
    if detail:
        found["detail"] = detail
    found.update(more)
    return found


def respond_error(exchange: Exchange, status: int, detail: str, fields: Iterable[tuple[Text, Text]] = ()) -> None:
    """Answer an error in a line, as a page or as problem details, whichever the client prefers; `detail` is text for people."""
    fields = [*fields, (b"Vary", b"Accept")]
    kind = _preferred(exchange, (TEXT, HTML, JSON, PROBLEM))
    if kind == TEXT:
        head, line = error_page(status, detail)
        for name, value in fields:
            head.fields.add(name, value)
        exchange.respond(head, line)
    elif kind == HTML:
        content = f'<p class="status">{status}</p>\n<h1>{escape(reason(status))}</h1>\n<p>{escape(detail)}</p>'
        respond_page(exchange, status, f"{status} {reason(status)}", content, fields)
    else:
        respond_json(exchange, status, problem(status, detail), fields, PROBLEM)


def wants_json(exchange: Exchange) -> bool:
    """Whether the client would rather have JSON than a page."""
    return _preferred(exchange, (HTML, JSON, PROBLEM)) != HTML


def _preferred(exchange: Exchange, offered: Sequence[bytes]) -> bytes:
    """RFC 9110 section 12.5.1; the first where the client does not say."""
    return best_type(None if exchange.request is None else exchange.request.fields.get(b"accept"), offered)


def method_refused(method: bytes, allow: bytes) -> tuple[int, str, list[tuple[bytes, bytes]]]:
    """405 with Allow where the method is a known one, 501 where nobody here knows it (RFC 9110 section 9.1)."""
    if method in _KNOWN_METHODS:
        detail = f"{method.decode('ascii')} is not allowed here, only {allow.decode('ascii')}."
        return 405, detail, [(b"Allow", allow)]
    return 501, f"The method {method.decode('ascii')} is not known here.", []


def respond_options(exchange: Exchange, allowed: Sequence[bytes]) -> None:
    """The methods of a resource (RFC 9110 section 9.3.7)."""
    exchange.respond(Head(204, [(b"Allow", b", ".join(allowed))]))


def respond_redirect(exchange: Exchange, status: int, location: bytes) -> None:
    """A redirection with a short page for those whose program does not follow it."""
    where = escape(location.decode("latin-1"), quote=True)
    content = f'<h1>{escape(reason(status))}</h1>\n<p>It is at <a href="{where}">{where}</a>.</p>'
    respond_page(exchange, status, reason(status), content, [(b"Location", location)])
