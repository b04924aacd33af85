"""--role client: URLs to fetch."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from handlers.fetch import Fetch, FetchOptions, read_data
from reactor.client import Pool
from reactor.errors import ConfigError
from reactor.roles.process import Group, Process
from reactor.roles.trust import client_tls, trust_flags
from reactor.roles.values import field, method, proxy_url


def add_flags(to: Any) -> None:
    to.add_argument("urls", nargs="+", metavar="URL")
    to.add_argument("-X", dest="method", type=method, metavar="METHOD", help="the request's method")
    to.add_argument("-H", dest="fields", action="append", default=[], type=field, metavar="NAME: VALUE", help="a field; `NAME:` takes one away")
    to.add_argument("-d", dest="data", metavar="DATA", help="the request's body, `@FILE` from a file; makes it a POST")
    to.add_argument("-o", dest="output", metavar="FILE", help="where the bodies go, instead of standard output")
    to.add_argument("-i", dest="include", action="store_true", help="the response's head before its body")
    to.add_argument("-I", dest="head", action="store_true", help="a HEAD request; shows the head alone")
    to.add_argument("-v", dest="talk", action="store_true", help="both heads, on standard error")
    to.add_argument("-x", dest="proxy", type=proxy_url, metavar="URL", help="the proxy to go through")
    trust_flags(to, "--cacert", "--insecure", "-k")
    to.add_argument("-L", dest="location", action="store_true", help="follow redirects")
    to.add_argument("--fail", "-f", action="store_true", help="a status of 400 and above is an error: exit 22, no body")


class ClientGroup:
    """URLs to fetch."""

    def __init__(self, process: Process, flags: argparse.Namespace, name: str) -> None:
        self.process = process
        try:
            data = read_data(flags.data) if flags.data is not None else None
        except OSError as error:
            raise ConfigError(f"-d {flags.data}: {error.strerror}") from None
        self.options = FetchOptions(
            flags.urls, flags.method, flags.fields, data, flags.output, flags.include, flags.head, flags.talk, flags.proxy,
            flags.location, flags.fail,
        )  # fmt: skip
        self.tls = client_tls(flags, exits_as_curl=True)
        self.fetch: Fetch | None = None
        self.pool: Pool | None = None

    def start(self) -> None:
        self.pool = Pool(self.process.reactor, self.process.connector, tls=self.tls)
        self.fetch = Fetch(self.process.reactor, self.pool, self.options, self._done)
        self.fetch.start()

    def _done(self, code: int) -> None:
        if self.pool is not None:
            self.pool.close()
        self.process.exit_code = self.process.exit_code or code
        self.process.group_done(self)

    def shutdown(self, on_done: Callable[[Group], object]) -> None:
        self.abort()
        on_done(self)

    def abort(self) -> None:
        if self.fetch is not None:
            self.fetch.stop()
        self.close()

    def close(self) -> None:
        if self.pool is not None:
            self.pool.close()
