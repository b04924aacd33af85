"""--role proxy: a forward or a reverse proxy, with its cache."""

from __future__ import annotations

import argparse
from typing import Any

from cache.policy import Policy
from cache.stores.memory import MemoryStore
from handlers.caching import Caching
from handlers.proxy import Forwarding, Upstream
from handlers.tunnel import Tunnel
from reactor.client import Pool
from reactor.exchange import Handler
from reactor.roles.access import Access, access_flags
from reactor.roles.listening import Listening, listen_flags
from reactor.roles.process import Process
from reactor.roles.values import cache_rule, size


def add_flags(to: Any) -> None:
    listen_flags(to, "127.0.0.1:8080")
    access_flags(to)
    to.add_argument("--upstream", metavar="URL", help="be a reverse proxy for this origin; without it, a forward proxy")
    to.add_argument("--cache-size", type=size, default=256 << 20, metavar="SIZE", help="bytes, or 32M, 1G; 0 turns the cache off (256M)")
    to.add_argument(
        "--cache-rule", action="append", default=[], type=cache_rule, metavar="RULE",
        help="'host=GLOB path=GLOB ttl=SECONDS [stale=SECONDS] [ignore=no-cache,no-store,private,set-cookie]': your own decision for "
        "origins that say nothing, or the wrong thing; the first that matches counts",
    )  # fmt: skip


class ProxyGroup(Listening):
    """A forward or a reverse proxy, with its cache."""

    def __init__(self, process: Process, flags: argparse.Namespace, name: str) -> None:
        super().__init__(process, name, flags, ("127.0.0.1", 8080))
        self.upstream = Upstream.parse(flags.upstream) if flags.upstream else None
        self.cache_size = flags.cache_size
        self.policy = Policy(rules=tuple(flags.cache_rule))
        forward_on = [host for host, _ in self.addresses] if self.upstream is None else None
        self.access = Access(process, flags, forward_on)

    def make_handler(self) -> Handler:
        process = self.process
        self.pool = Pool(process.reactor, process.connector)
        handler: Handler = Forwarding(self.pool, self.upstream)
        if self.cache_size:
            self.store = MemoryStore(self.cache_size)
            handler = Caching(process.reactor, handler, self.store, self.policy)
        if self.upstream is None:
            handler = Tunnel(process.connector, handler)
        return self.access.around(handler)
