"""--role proxy: a forward or a reverse proxy, with its cache."""

from __future__ import annotations

import argparse
from typing import Any

from cache.policy import Policy
from cache.stores.memory import MemoryStore
from handlers.access import Rule, is_loopback
from handlers.caching import Caching
from handlers.proxy import Forwarding, Upstream
from handlers.tunnel import Tunnel
from reactor.client import Pool
from reactor.errors import ConfigError
from reactor.exchange import Handler
from reactor.roles.listening import Listening, access_flags, controlled, listen_flags
from reactor.roles.process import Process
from reactor.roles.values import cache_rule, field_names, size


def add_flags(to: Any) -> None:
    listen_flags(to, "127.0.0.1:8080")
    access_flags(to)
    to.add_argument("--upstream", metavar="URL", help="be a reverse proxy for this origin; without it, a forward proxy")
    to.add_argument("--cache-size", type=size, default=256 << 20, metavar="SIZE", help="bytes, or 32M, 1G; 0 turns the cache off (256M)")
    to.add_argument(
        "--cache-targets", type=field_names, metavar="NAMES",
        help="fields that say what Cache-Control says, for this cache alone, and count before it, the first of them first "
        "(CDN-Cache-Control for a reverse proxy, none for a forward one; '' for none)",
    )  # fmt: skip
    to.add_argument(
        "--cache-ranges", choices=("parts", "whole", "off"), default="parts",
        help="a range request that nothing stored answers: goes on as it is, and the part that comes is stored (parts); "
        "fetches the whole response, and is answered from that (whole); goes on, and nothing is stored (off)",
    )  # fmt: skip
    to.add_argument(
        "--cache-rule", action="append", default=[], type=cache_rule, metavar="RULE",
        help="'host=GLOB path=GLOB ttl=SECONDS [stale=SECONDS] [ignore=no-cache,no-store,private,set-cookie]': your own decision for "
        "origins that say nothing, or the wrong thing; the first that matches counts",
    )  # fmt: skip


CDN_TARGETS = (b"cdn-cache-control",)  # RFC 9213 section 3: for caches that act on the origin's behalf


class ProxyGroup(Listening):
    """A forward or a reverse proxy, with its cache."""

    def __init__(self, process: Process, flags: argparse.Namespace, name: str) -> None:
        super().__init__(process, name, flags, ("127.0.0.1", 8080))
        self.rules: list[Rule] = flags.rules or []
        self.upstream = Upstream.parse(flags.upstream) if flags.upstream else None
        self.cache_size = flags.cache_size
        targets = flags.cache_targets
        if targets is None:
            targets = () if self.upstream is None else CDN_TARGETS
        ranges = flags.cache_ranges
        self.policy = Policy(
            targets=targets, rules=tuple(flags.cache_rule), store_partial=ranges == "parts", fetch_whole=ranges == "whole"
        )
        exposed = [host for host, _ in self.addresses if not is_loopback(host)]
        if exposed and self.upstream is None and not any(rule.allow for rule in self.rules):
            raise ConfigError(
                f"a forward proxy on {exposed[0]} would be open to everybody: say who may use it, such as --allow client=10.0.0.0/8"
            )

    def make_handler(self) -> Handler:
        process = self.process
        self.pool = Pool(process.reactor, process.connector)
        handler: Handler = Forwarding(self.pool, self.upstream)
        if self.cache_size:
            self.store = MemoryStore(self.cache_size)
            handler = Caching(process.reactor, handler, self.store, self.policy)
        if self.upstream is None:
            handler = Tunnel(process.connector, handler)
        return controlled(handler, self.rules)
