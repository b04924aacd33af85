"""`/proxy.pac`: the script by which a browser finds out what to send through this proxy.

    http://proxy.example:8080/proxy.pac     in the browser's "automatic proxy configuration URL"

It is made for the client that asks, from the address by which it reached us and from the rules that may hold for it. Names
without a dot and addresses of the client's own machine are DIRECT, and so is everything but http, https, ws and wss. A host
that a rule names goes through the proxy, a denied one too: that is where it is refused. All others go through it unless
no rule could let them pass; then they are DIRECT, for this proxy is not there for them.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

from handlers.access import AccessControl, RuleSet, refuse
from handlers.access_rules import Rule
from reactor.exchange import Exchange, Handler, Head, error_page
from reactor.http.uri import DEFAULT_PORTS, split_authority

PATH = b"/proxy.pac"
MEMO_CLIENTS = 16  # whose tables are remembered, each of some 1 MiB at the most; at the limit the memo starts anew
PAC_HOSTS = 20_000  # named in a script (browsers take 1 MiB); with more everything goes through the proxy

_FIELDS = (
    (b"Content-Type", b"application/x-ns-proxy-autoconfig"),
    (b"Cache-Control", b"no-cache"),  # it may be another one for another client, and after the next look at the rules
    (b"X-Content-Type-Options", b"nosniff"),
)
# Narrower than what a Host may be: in the script the address stands between quotes.
_HOST = re.compile(rb"[A-Za-z0-9_](?:[A-Za-z0-9\-._]*)|\[[0-9A-Fa-f:.]+\]")

_OPENING = """\
// What goes through the proxy at %(address)s, and what does not.
var proxy = "%(proxy)s";
"""
_TABLES = """\
var names = %(names)s;
var below = %(below)s;
var globs = %(globs)s;
var others = %(others)s;

function has(table, name) {
  return Object.prototype.hasOwnProperty.call(table, name);
}

function FindProxyForURL(url, host) {
  host = host.toLowerCase().replace(/^\\[|\\]$/g, "").replace(/\\.$/, "");
  if (!/^(https?|wss?):/i.test(url)) return "DIRECT";
  if (host.indexOf(":") < 0 && host.indexOf(".") < 0) return "DIRECT";
  if (host === "::1" || /^127\\.\\d+\\.\\d+\\.\\d+$/.test(host) || /\\.localhost$/.test(host)) return "DIRECT";
  if (has(names, host)) return proxy;
  for (var at = host.indexOf("."); at >= 0; at = host.indexOf(".", at + 1)) {
    if (has(below, host.substring(at + 1))) return proxy;
  }
  for (var i = 0; i < globs.length; i++) {
    if (shExpMatch(host, globs[i])) return proxy;
  }
  return others;
}
"""


class Routes(NamedTuple):
    """What goes through the proxy: these hosts, names below those, what these globs match; `others` tells of all else."""

    names: set[str]
    below: set[str]
    globs: list[str]
    others: bool


EVERYTHING = Routes(set(), set(), [], True)


def routes(control: AccessControl, peer: str) -> Routes | Rule | None:
    """For a client: what goes through; or, where nothing may, the rule that says so, None if that is none."""
    found, allowed, last = Routes(set(), set(), [], False), False, None
    for rule in control.rules.for_client(peer):
        allowed, last = allowed or rule.allow, rule
        if rule.hosts is not None:
            found.names.update(name.decode("ascii") for name in rule.hosts.names)
            found.below.update(name.decode("ascii") for name in rule.hosts.parents)
            found.globs.extend(rule.hosts.glob_texts)
        elif rule.allow:
            return EVERYTHING
        elif _is_for_all(rule):
            break
    else:
        if control.default_allow:
            return EVERYTHING
        last = None
    if not allowed:
        return last
    return found if len(found.names) + len(found.below) + len(found.globs) <= PAC_HOSTS else EVERYTHING


def _is_for_all(rule: Rule) -> bool:
    """Whether every request of its clients is meant."""
    return all(one is None for one in (rule.hosts, rule.ports, rule.methods, rule.schemes, rule.users, rule.path))


def _tables(found: Routes) -> bytes:
    tables = (dict.fromkeys(sorted(found.names), 1), dict.fromkeys(sorted(found.below), 1), found.globs)
    names, below, globs = (json.dumps(table) for table in tables)
    others = "proxy" if found.others else '"DIRECT"'
    return (_TABLES % {"names": names, "below": below, "globs": globs, "others": others}).encode("ascii")


class Pac:
    """Answers GET and HEAD of `/proxy.pac` on a forward proxy's own listener, and leaves everything else to `handler`.

    `control` has the rules, None where there are none.
    """

    def __init__(self, handler: Handler, control: AccessControl | None) -> None:
        self.handler = handler
        self._control = control
        self._rules: RuleSet | None = None  # those that what is remembered was made from
        self._known: dict[str, bytes | Rule | None] = {}  # client → its tables, or the rule that refuses it

    def handle(self, exchange: Exchange) -> None:
        request = exchange.request
        # In origin form it is we who are asked (RFC 9112 section 3.2.1); all else is for somebody behind us.
        if request.scheme is None and request.path.startswith(PATH) and request.method in (b"GET", b"HEAD"):
            if request.path.partition(b"?")[0] == PATH:
                self._answer(exchange)
                return
        self.handler.handle(exchange)

    def _answer(self, exchange: Exchange) -> None:
        host, port = split_authority(exchange.request.authority)
        if _HOST.fullmatch(host) is None:
            exchange.respond(*error_page(400, "the Host field does not say by which address this proxy was reached"))
            return
        found = self._for(exchange.peer)
        if isinstance(found, bytes):
            address = f"{host.decode('ascii')}:{DEFAULT_PORTS[exchange.scheme] if port is None else port}"
            proxy = f"{'HTTPS' if exchange.scheme == b'https' else 'PROXY'} {address}"
            exchange.respond(Head(200, _FIELDS), (_OPENING % {"address": address, "proxy": proxy}).encode("ascii") + found)
        else:
            refuse(exchange, found)

    def _for(self, peer: str) -> bytes | Rule | None:
        """What a client gets, whatever it calls us: looked for in all rules once, for anybody may ask for it again and again."""
        control, known = self._control, self._known
        rules = None if control is None else control.rules
        if rules is not self._rules or len(known) >= MEMO_CLIENTS and peer not in known:
            self._rules = rules
            known.clear()
        if peer not in known:
            found = EVERYTHING if control is None else routes(control, peer)
            known[peer] = _tables(found) if isinstance(found, Routes) else found
        return known[peer]
