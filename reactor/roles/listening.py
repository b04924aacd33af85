"""A group that listens: a handler behind a listener or several, and the flags that all such groups share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from handlers.access_log import AccessLog
from handlers.json_log import Stage
from handlers.log_sink import Sink, check_path
from reactor.exchange import Handler
from reactor.listener import Listener
from reactor.roles.access import Access, access_flags
from reactor.roles.limits import limit_flags, limits_of
from reactor.roles.process import Group, Process
from reactor.roles.values import address
from reactor.server import Server

if TYPE_CHECKING:
    from cache.stores.memory import MemoryStore
    from reactor.client import Pool


def listen_flags(to: Any) -> None:
    """The flags that all such roles have."""
    listener = to.add_argument_group("every role that listens: its listeners, log and script")
    listener.add_argument(
        "--listen", action="append", type=address, metavar="HOST:PORT",
        help="may be repeated; port 0 takes a free one (127.0.0.1, port 8000 for a server, 8080 for a proxy, 9000 else)",
    )  # fmt: skip
    listener.add_argument(
        "--access-log", metavar="PATH|-|off",
        help="where requests are logged, `-` for standard output; SIGUSR1 opens it again (`-` on a terminal, else off)",
    )  # fmt: skip
    listener.add_argument(
        "--log-format", choices=("combined", "json"), default="combined",
        help="Apache's, or a JSON line with the time of each phase (combined)",
    )  # fmt: skip
    listener.add_argument(
        "--script", metavar="FILE",
        help="a program that looks at requests and responses, and changes or answers them; read again when it changes",
    )  # fmt: skip
    access_flags(to.add_argument_group("every role that listens: who may use it"))
    limit_flags(to.add_argument_group("every role that listens: limits"))


class Listening:
    """A group that listens: a handler behind a listener or several."""

    access: Access

    def __init__(self, process: Process, name: str, flags: argparse.Namespace, default: tuple[str, int]) -> None:
        self.process = process
        self.name = name
        self.addresses: list[tuple[str, int]] = flags.listen or [default]
        self.log_path = log_path(flags, process.flags)
        self.limits = limits_of(flags)
        self.timed = self.log_path is not None and flags.log_format == "json"
        if self.log_path is not None and process.flags.check:
            check_path(self.log_path)
        self.script = script_of(flags.script) if flags.script else None
        self.sink: Sink | None = None
        self.pool: Pool | None = None
        self.store: MemoryStore | None = None
        self.listeners: list[Listener] = []
        self.server: Server | None = None

    def make_handler(self) -> Handler:
        raise NotImplementedError

    def staged(self, name: str, handler: Handler) -> Handler:
        """The handler, its time noted where the log tells phases."""
        return Stage(name, handler) if self.timed else handler

    def scripted(self, handler: Handler) -> Handler:
        """The handler, with the script before it where there is one."""
        handler = self.staged("handle", handler)
        return handler if self.script is None else self.staged("script", self.script(handler))

    def start(self) -> None:
        """Raises ConfigError where an address cannot be listened on, or the log not written."""
        reactor = self.process.reactor
        handler = self.make_handler()
        access_log = None
        if self.log_path is not None:
            self.sink = Sink(self.log_path, reactor)
            self.process.on_reopen.append(self.sink.reopen)
            handler = access_log = AccessLog(handler, self.sink, self.timed)
        self.server = Server(reactor, handler, self.limits, access_log, door=self.access.door, timed=self.timed)
        for host, port in self.addresses:
            self.listeners.append(Listener(reactor, host, port, self.server.accept))
        for listener in self.listeners:
            announce(f"{self.name} listening on http://{listener.address}")

    def shutdown(self, on_done: Callable[[Group], object]) -> None:
        for listener in self.listeners:
            listener.close()
        if self.server is None:
            on_done(self)
        else:
            self.server.shutdown(lambda: self._over(on_done))

    def _over(self, on_done: Callable[[Group], object]) -> None:
        self.close()
        on_done(self)

    def abort(self) -> None:
        for listener in self.listeners:
            listener.close()
        if self.server is not None:
            self.server.abort()

    def close(self) -> None:
        self.access.close()
        if self.pool is not None:
            self.pool.close()
        if self.store is not None:
            self.store.close()
        if self.sink is not None:
            self.sink.close()


def announce(text: str) -> None:
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        pass  # who started us reads no more: that is no reason not to serve


def script_of(path: str) -> Callable[[Handler], Handler]:
    """What puts the script before a handler; raises ConfigError."""
    from handlers.script import Script  # here, because most runs have no script
    from handlers.script_file import ScriptFile

    return partial(Script, file=ScriptFile(path))


def is_handler(thing: object) -> bool:
    return callable(getattr(thing, "handle", None))


def log_path(flags: argparse.Namespace, process: argparse.Namespace) -> str | None:
    path: str | None = flags.access_log or process.access_log
    if path is None:
        return "-" if sys.stdout.isatty() else None
    return None if path == "off" else path
