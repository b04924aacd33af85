"""--role proxy: a forward or a reverse proxy, with its cache."""

from __future__ import annotations

import argparse
from typing import Any

from cache.policy import Policy
from cache.stores.memory import MemoryStore
from handlers.caching import Caching
from handlers.forwarded import Trust, TrustedTarget, network
from handlers.proxy import Forwarding
from handlers.rewrite import media_types
from handlers.tunnel import TLS_PORTS, Tunnel, connect_ports
from handlers.upstreams import Upstream, Upstreams
from reactor.addresses import is_public
from reactor.client import ClientLimits, Pool
from reactor.connector import Connector
from reactor.errors import ConfigError
from reactor.exchange import Handler
from reactor.relay import IDLE
from reactor.roles.access import Access
from reactor.roles.listening import Listening
from reactor.roles.process import Process
from reactor.roles.trust import client_tls, trust_flags
from reactor.roles.values import cache_rule, duration, field_names, size

UPSTREAM = ClientLimits()
CDN_TARGETS = (b"cdn-cache-control",)  # RFC 9213 section 3: for caches that act on the origin's behalf

_TIMEOUTS = {
    "connect": (UPSTREAM.connect, "look-up, connection and TLS handshake of an upstream; then 504"),
    "first-byte": (UPSTREAM.first_byte, "from a request's last byte to its answer's head; then 504"),
    "between-bytes": (UPSTREAM.between_bytes, "without a byte of an answer's body that is waited for; then cut off"),
    "upstream-idle": (UPSTREAM.idle, "a connection to an upstream unused; then closed"),
    "tunnel-idle": (IDLE, "a tunnel or an upgraded connection without a byte either way; then closed"),
}


def add_flags(to: Any) -> None:
    _upstream_flags(to.add_argument_group("--role proxy: where requests go"))
    _cache_flags(to.add_argument_group("--role proxy: the cache"))
    _timeout_flags(to.add_argument_group("--role proxy: waits"))


def _upstream_flags(to: Any) -> None:
    to.add_argument(
        "--upstream", action="append", default=[], metavar="[/PREFIX=]URL",
        help="be a reverse proxy for this origin, or for several, each beneath a prefix; without it, a forward proxy",
    )  # fmt: skip
    to.add_argument("--preserve-host", action="store_true", help="tell upstreams the client's Host instead of their own")
    to.add_argument(
        "--trust", action="append", default=[], metavar="CIDR",
        help="take over what clients there say of theirs in Forwarded and X-Forwarded-*; may be repeated",
    )  # fmt: skip
    to.add_argument(
        "--rewrite-links", metavar="TYPES",
        help="in bodies of these media types, such as text/html,application/json, upstreams' URLs become ours",
    )  # fmt: skip
    to.add_argument("--connect-ports", metavar="PORTS", help="where tunnels may lead, such as 443,9000-9100, or any (443,563)")
    trust_flags(to, "--ca-file", "--insecure")
    to.add_argument(
        "--deny-private", action="store_true",
        help="connect to no loopback, private, link-local or other special address, whatever name it goes by: 403",
    )  # fmt: skip


def _cache_flags(to: Any) -> None:
    to.add_argument(
        "--cache-size", type=size, default=256 << 20, metavar="SIZE", help="bytes, or 32M, 1G; 0 turns the cache off (256M)"
    )
    to.add_argument(
        "--cache-rule", action="append", default=[], type=cache_rule, metavar="RULE",
        help="'host=GLOB path=GLOB ttl=SECONDS [stale=SECONDS] [ignore=no-cache,no-store,private,set-cookie,reload]': your own "
        "decision for origins that say nothing, or the wrong thing; the first that matches counts",
    )  # fmt: skip
    to.add_argument(
        "--cache-ranges", choices=("parts", "whole", "off"), default="parts",
        help="of a range that nothing stored answers: `parts` passes it on and stores the part that comes, `whole` fetches the "
        "whole response and answers from that, `off` passes it on and stores nothing (parts)",
    )  # fmt: skip
    to.add_argument(
        "--cache-targets", type=field_names, metavar="NAMES",
        help="fields that say what Cache-Control says, for this cache alone, and count before it, the first of them first; "
        "'' for none (CDN-Cache-Control for a reverse proxy, none for a forward one)",
    )  # fmt: skip
    to.add_argument("--cache-status-key", action="store_true", help="Cache-Status tells the key of what is stored, too")


def _timeout_flags(to: Any) -> None:
    for name, (default, text) in _TIMEOUTS.items():
        to.add_argument(f"--{name}-timeout", type=duration, default=default, metavar="SECONDS", help=f"{text} ({default:g})")


class ProxyGroup(Listening):
    """A forward or a reverse proxy, with its cache."""

    def __init__(self, process: Process, flags: argparse.Namespace, name: str) -> None:
        super().__init__(process, name, flags, ("127.0.0.1", 8080))
        self._read_forwarding(flags)
        self.upstream_limits = ClientLimits(
            connect=flags.connect_timeout, first_byte=flags.first_byte_timeout, between_bytes=flags.between_bytes_timeout,
            idle=flags.upstream_idle_timeout,
        )  # fmt: skip
        self.tunnel_idle: float = flags.tunnel_idle_timeout
        self.permit = is_public if flags.deny_private else None
        self.tls = client_tls(flags, any(upstream.origin.scheme == b"https" for upstream in self.upstreams))
        self.cache_size = flags.cache_size
        targets = flags.cache_targets
        if targets is None:
            targets = CDN_TARGETS if self.upstreams else ()
        ranges = flags.cache_ranges
        self.policy = Policy(
            targets=targets, rules=tuple(flags.cache_rule), store_partial=ranges == "parts", fetch_whole=ranges == "whole",
            status_key=flags.cache_status_key,
        )
        forward_on = None if self.upstreams else [host for host, _ in self.addresses]
        self.access = Access(process, flags, forward_on)

    def _read_forwarding(self, flags: argparse.Namespace) -> None:
        self.upstreams = [Upstream.parse_mapped(text) for text in flags.upstream]
        Upstreams(self.upstreams)  # raises where two are at one place
        self.preserve_host: bool = flags.preserve_host
        self.trust = Trust([network(text) for text in flags.trust])
        self.rewrite = media_types(flags.rewrite_links) if flags.rewrite_links is not None else frozenset()
        self.connect_ports = TLS_PORTS if flags.connect_ports is None else connect_ports(flags.connect_ports)
        for flag in ("--preserve-host", "--trust", "--rewrite-links"):
            if not self.upstreams and getattr(flags, flag.strip("-").replace("-", "_")):
                raise ConfigError(f"{flag} is for a reverse proxy: it needs an --upstream")
        if self.upstreams and flags.connect_ports is not None:
            raise ConfigError("--connect-ports is for a forward proxy: with --upstream no tunnels are made")

    def make_handler(self) -> Handler:
        process = self.process
        connector = Connector(process.reactor, process.resolver, self.upstream_limits.connect, self.permit)
        self.pool = Pool(process.reactor, connector, self.upstream_limits, self.tls)
        forwarding = Forwarding(self.pool, self.upstreams, self.preserve_host, self.tunnel_idle, self.trust, self.rewrite)
        handler = self.staged("forward", forwarding)
        if self.cache_size:
            self.store = MemoryStore(self.cache_size)
            caching = Caching(process.reactor, handler, self.store, self.policy, pseudonym=forwarding.pseudonym)
            handler = self.staged("lookup", caching)
        if not self.upstreams:
            handler = Tunnel(connector, handler, self.tunnel_idle, self.connect_ports)
        if self.trust.networks:
            handler = TrustedTarget(handler, self.trust)
        return self.staged("access", self.access.around(self.scripted(handler)))
