"""--role server: files beneath roots, and API routes."""

from __future__ import annotations

import argparse
from typing import Any

from handlers.api import Api, builtin_api
from handlers.cors import AllowOrigins, Cors
from handlers.router import Misdirected, Mount, Router
from handlers.static import INDEX, Static
from reactor.errors import ConfigError
from reactor.exchange import Handler
from reactor.roles.access import Access
from reactor.roles.listening import Listening
from reactor.roles.process import Process
from reactor.roles.sites import Site, SiteAction, checked
from reactor.roles.values import cache_rule, file_name, load, max_age, origin, size


def add_flags(to: Any) -> None:
    add = to.add_argument_group("--role server: files, API routes and a cache").add_argument
    add("--root", action=SiteAction, dest="sites", metavar="[/PATH=]DIR",
        help="a folder to serve, at / or at a path; may be repeated (.)")  # fmt: skip
    add("--host", action=SiteAction, dest="sites", metavar="NAME[,NAME]",
        help="the --root behind it are for these hosts alone (*.example.com: for all below); those before the first --host "
        "are for all others, and where there are none, others are answered 421")  # fmt: skip
    add("--api", action="append", default=[], metavar="MODULE:ATTRIBUTE", help="an Api of your own, beside the built-in one")
    add("--index", action="append", type=file_name, metavar="NAME",
        help=f"the file that a folder is answered with; may be repeated ({', '.join(INDEX)})")  # fmt: skip
    add("--listing", action="store_true", help="list folders that have no such file")
    add("--follow-symlinks", action="store_true", help="serve what links lead to outside of the root")
    add("--dot-files", action="store_true", help="serve and list names that begin with a dot")
    add("--max-age", action="append", default=[], type=max_age, metavar="[GLOB=]SECONDS",
        help="Cache-Control of files: by name (*.js=86400), or by path where the glob has a slash; the first that matches "
        "counts, and after them the one without a glob")  # fmt: skip
    add("--cors", action="append", type=origin, metavar="ORIGIN",
        help="pages of this origin may read what is answered, `*` for all; may be repeated")  # fmt: skip
    add("--cache-size", type=size, default=0, metavar="SIZE",
        help="a cache before files and routes: bytes, or 32M, 1G; 0 is none (0)")  # fmt: skip
    add("--cache-rule", action="append", default=[], type=cache_rule, metavar="RULE", help="for that cache, as with --role proxy")


class ServerGroup(Listening):
    """Files beneath roots, and API routes."""

    def __init__(self, process: Process, flags: argparse.Namespace, name: str) -> None:
        super().__init__(process, name, flags, ("127.0.0.1", 8000))
        self.sites = checked(flags.sites)
        self.flags = flags
        self.access = Access(process, flags)
        self.apis = [load(text, "--api", Api) for text in flags.api]
        self.cors = Cors(flags.cors) if flags.cors else None
        if flags.cache_rule and not flags.cache_size:
            raise ConfigError("--cache-rule without --cache-size: there is no cache for it")
        self.statics: list[Static] = []

    def make_handler(self) -> Handler:
        default, *named = self.sites
        hosts = {host: mounts for site in named for mounts in [self._mounts(site)] for host in site.hosts}
        fallback = None if default.roots else Misdirected()
        handler: Handler = Router(fallback, [*self.apis, builtin_api(self.facts)], self._mounts(default), hosts)
        if self.flags.cache_size:
            handler = self._cached(handler)
        if self.cors is not None:
            handler = AllowOrigins(handler, self.cors)
        return self.staged("access", self.access.around(self.scripted(handler)))

    def _cached(self, handler: Handler) -> Handler:
        from cache.policy import Policy  # here, because most servers have no cache
        from cache.stores.memory import MemoryStore
        from handlers.caching import Caching

        self.store = MemoryStore(self.flags.cache_size)
        return Caching(self.process.reactor, handler, self.store, Policy(rules=tuple(self.flags.cache_rule)))

    def _mounts(self, site: Site) -> list[Mount]:
        flags = self.flags
        mounts: list[Mount] = []
        for path, directory in site.roots.items():
            static = Static(
                directory, mount=path, index=flags.index or INDEX, listing=flags.listing, follow_symlinks=flags.follow_symlinks,
                dot_files=flags.dot_files, max_age=sorted(flags.max_age, key=lambda pair: pair[0] == ""),
            )  # fmt: skip
            self.statics.append(static)
            mounts.append((path, static))
        return mounts

    def facts(self) -> dict[str, Any]:
        """What /api/status tells of this group."""
        found: dict[str, Any] = dict(self.server.facts()) if self.server is not None else {}
        if self.store is not None:
            store = self.store
            found["cache"] = {"entries": len(store), "bytes": store.used, "limit": store.limit, "evicted": store.evicted}
        return found

    def close(self) -> None:
        super().close()
        for static in self.statics:
            static.close()
