"""The front door: `python -m reactor.run --role proxy|server|client|package.module:Factory …`.

argv → configuration → handlers on one loop. The one file that looks up the stairs.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import logging
import os
import re
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Protocol

from cache.policy import OperatorRule, Policy
from cache.stores.memory import MemoryStore
from handlers.access import AccessControl, Rule, default_after, is_loopback, parse_rule
from handlers.access_log import AccessLog, Sink
from handlers.api import Api, builtin_api
from handlers.caching import Caching
from handlers.fetch import Fetch, FetchOptions, read_data
from handlers.proxy import Forwarding, Upstream
from handlers.router import Router
from handlers.static import Static
from handlers.tunnel import Tunnel
from reactor import __version__
from reactor.client import Pool
from reactor.connector import Connector
from reactor.errors import ConfigError
from reactor.exchange import Handler
from reactor.listener import Listener
from reactor.loop import Reactor
from reactor.resolver import Resolver
from reactor.server import Server

log = logging.getLogger("reactor.run")

USAGE_ERROR = 2
GRACE = 10.0  # seconds
# Objects made before the cycle collector looks. Nothing on the hot path makes a cycle (tests hold that), so at the
# interpreter's own 700 it would walk through what is in flight, again and again, and find nothing.
COLLECTOR = (50_000, 20, 100)

EXAMPLES = """\
examples:
  reactor --role server --listen 127.0.0.1:8000 --root ./site
  reactor --role proxy  --listen 127.0.0.1:8080                                   (a forward proxy)
  reactor --role proxy  --listen 127.0.0.1:8080 --upstream http://127.0.0.1:8000  (a reverse proxy)
  reactor --role client -x http://127.0.0.1:8080 http://127.0.0.1:8000/hello.txt
  reactor --role mypackage.module:Factory --listen 127.0.0.1:9000                 (a handler of your own)
  reactor --role server --listen 127.0.0.1:8000 --role proxy --listen 127.0.0.1:8080

--role may be given several times: each starts a group, and the flags behind it are that group's. All groups share one
process and one loop. Flags before the first --role are the process's. `reactor` and `python -m reactor.run` are the same.
"""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and exits with 2."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)


# Flags, by role.


def _process_flags(to: Any) -> None:
    to.add_argument("--help", "-h", action="store_true", help="show this, and exit")
    to.add_argument("--version", action="store_true", help="show the version, and exit")
    to.add_argument("--check", action="store_true", help="read the configuration, say what is wrong with it, and start nothing")
    _anywhere_flags(to)


def _anywhere_flags(to: Any) -> None:
    to.add_argument("--grace", type=_seconds, metavar="SECONDS", help=f"how long running exchanges may end after a signal ({GRACE:g})")
    to.add_argument("--verbose", action="store_true", default=None, help="the loop's own log, on standard error")


def _listen_flags(to: Any, default: str) -> None:
    to.add_argument(
        "--listen", action="append", type=_address, metavar="HOST:PORT", help=f"may be repeated; port 0 takes a free one ({default})"
    )
    to.add_argument(
        "--access-log", metavar="PATH|-|off", help="`-` is standard output (the default when that is a terminal, else off)"
    )
    to.add_argument("--log-format", choices=("combined", "json"), default="combined", help="of the access log (combined)")


def _access_flags(to: Any) -> None:
    rules = to.add_argument
    note = "client=CIDR host=GLOB port=N method=NAME, several joined by spaces; the first rule that matches decides"
    rules("--allow", action=_RuleAction, dest="rules", metavar="RULE", help=note)
    rules("--deny", action=_RuleAction, dest="rules", metavar="RULE", help="the same, refused with 403")


def _server_flags(to: Any) -> None:
    _listen_flags(to, "127.0.0.1:8000")
    to.add_argument("--root", default=".", metavar="DIR", help="what is served (.)")
    to.add_argument("--api", action="append", default=[], metavar="MODULE:ATTRIBUTE", help="an Api of your own, beside the built-in one")


def _proxy_flags(to: Any) -> None:
    _listen_flags(to, "127.0.0.1:8080")
    _access_flags(to)
    to.add_argument("--upstream", metavar="URL", help="be a reverse proxy for this origin; without it, a forward proxy")
    to.add_argument("--cache-size", type=_size, default=256 << 20, metavar="SIZE", help="bytes, or 32M, 1G; 0 turns the cache off (256M)")
    to.add_argument(
        "--cache-rule", action="append", default=[], type=_cache_rule, metavar="RULE",
        help="'host=GLOB path=GLOB ttl=SECONDS [stale=SECONDS] [ignore=no-cache,no-store,private,set-cookie]': your own decision for "
        "origins that say nothing, or the wrong thing; the first that matches counts",
    )  # fmt: skip


def _client_flags(to: Any) -> None:
    to.add_argument("urls", nargs="+", metavar="URL")
    to.add_argument("-X", dest="method", type=_method, metavar="METHOD", help="the request's method")
    to.add_argument("-H", dest="fields", action="append", default=[], type=_field, metavar="NAME: VALUE", help="a field; `NAME:` takes one away")
    to.add_argument("-d", dest="data", metavar="DATA", help="the request's body, `@FILE` from a file; makes it a POST")
    to.add_argument("-o", dest="output", metavar="FILE", help="where the bodies go, instead of standard output")
    to.add_argument("-i", dest="include", action="store_true", help="the response's head before its body")
    to.add_argument("-I", dest="head", action="store_true", help="a HEAD request; shows the head alone")
    to.add_argument("-v", dest="talk", action="store_true", help="both heads, on standard error")
    to.add_argument("-x", dest="proxy", type=_proxy_url, metavar="URL", help="the proxy to go through")
    to.add_argument("-L", dest="location", action="store_true", help="follow redirects")
    to.add_argument("--fail", "-f", action="store_true", help="a status of 400 and above is an error: exit 22, no body")


def _custom_flags(to: Any) -> None:
    _listen_flags(to, "127.0.0.1:9000")
    _access_flags(to)


class _RuleAction(argparse.Action):
    """--allow and --deny share one list, in the order given."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: str | None = None) -> None:
        rules = getattr(namespace, self.dest) or []
        rules.append(parse_rule("allow" if option == "--allow" else "deny", values))
        setattr(namespace, self.dest, rules)


# Values.

_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")  # package.module:attribute


def _seconds(text: str) -> float:
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return float(text)


def _size(text: str) -> int:
    match = re.fullmatch(r"([0-9]+)([kKmMgG]?)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 1048576, 512K, 32M or 1G")
    return int(match[1]) << {"": 0, "k": 10, "m": 20, "g": 30}[match[2].lower()]


def _address(text: str) -> tuple[str, int]:
    match = re.fullmatch(r"(?:(\[[0-9A-Fa-f:.]+\]|[^:\[\]]*):)?([0-9]{1,5})", text)
    if match is None or int(match[2]) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not an address of the form HOST:PORT")
    return (match[1] or "127.0.0.1").strip("[]"), int(match[2])


def _method(text: str) -> str:
    if re.fullmatch(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}", text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a method")
    return text


def _field(text: str) -> tuple[str, str | None]:
    name, colon, value = text.partition(":")
    if not colon or re.fullmatch(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", name) is None or re.search(r"[\r\n\0]", value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a field of the form NAME: VALUE")
    return name, value.strip(" \t") or None


def _cache_rule(text: str) -> OperatorRule:
    try:
        return OperatorRule.parse(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _proxy_url(text: str) -> Any:
    try:
        return Upstream.parse(text if "://" in text else "http://" + text).origin
    except ConfigError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a proxy's URL of the form http://host:port") from None


# Groups: what one --role and its flags come to.


class Group(Protocol):
    """One role, running. `shutdown` lets what runs end; `on_done(group)` is called once nothing does any more."""

    def start(self) -> None: ...
    def shutdown(self, on_done: Callable[[Group], object]) -> None: ...
    def abort(self) -> None: ...


class _Listening:
    """A group that listens: a handler behind a listener or several."""

    def __init__(self, process: Process, name: str, flags: argparse.Namespace, default: tuple[str, int]) -> None:
        self.process = process
        self.name = name
        self.addresses: list[tuple[str, int]] = flags.listen or [default]
        self.log_path = _log_path(flags, process.flags)
        self.log_format = flags.log_format
        self.sink: Sink | None = None
        self.pool: Pool | None = None
        self.store: MemoryStore | None = None
        self.listeners: list[Listener] = []
        self.server: Server | None = None

    def make_handler(self) -> Handler:
        raise NotImplementedError

    def start(self) -> None:
        """Raises ConfigError where an address cannot be listened on, or the log not written."""
        reactor = self.process.reactor
        handler = self.make_handler()
        access_log = None
        if self.log_path is not None:
            self.sink = Sink(self.log_path, reactor)
            handler = access_log = AccessLog(handler, self.sink, self.log_format)
        self.server = Server(reactor, handler, access_log=access_log)
        for host, port in self.addresses:
            self.listeners.append(Listener(reactor, host, port, self.server.accept))
        for listener in self.listeners:
            print(f"{self.name} listening on http://{listener.address}", file=sys.stderr, flush=True)

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
        if self.pool is not None:
            self.pool.close()
        if self.store is not None:
            self.store.close()
        if self.sink is not None:
            self.sink.close()


class ServerGroup(_Listening):
    """Files beneath a root, and API routes."""

    def __init__(self, process: Process, flags: argparse.Namespace) -> None:
        super().__init__(process, "server", flags, ("127.0.0.1", 8000))
        if not os.path.isdir(flags.root):
            raise ConfigError(f"--root {flags.root}: not a directory")
        self.root = flags.root
        self.apis = [_load(text, "--api", Api) for text in flags.api]
        self.static: Static | None = None

    def make_handler(self) -> Handler:
        self.static = Static(self.root)
        return Router(self.static, [*self.apis, builtin_api()])

    def close(self) -> None:
        super().close()
        if self.static is not None:
            self.static.close()


class ProxyGroup(_Listening):
    """A forward or a reverse proxy, with its cache."""

    def __init__(self, process: Process, flags: argparse.Namespace) -> None:
        super().__init__(process, "proxy", flags, ("127.0.0.1", 8080))
        self.rules: list[Rule] = flags.rules or []
        self.upstream = Upstream.parse(flags.upstream) if flags.upstream else None
        self.cache_size = flags.cache_size
        self.policy = Policy(rules=tuple(flags.cache_rule))
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
        return _controlled(handler, self.rules)


class CustomGroup(_Listening):
    """A user's own handler."""

    def __init__(self, process: Process, flags: argparse.Namespace, name: str) -> None:
        super().__init__(process, name, flags, ("127.0.0.1", 9000))
        self.rules: list[Rule] = flags.rules or []
        self.factory = _load(name, "--role")

        if not callable(self.factory) and not _is_handler(self.factory):
            raise ConfigError(f"--role {name}: neither a handler nor what makes one")

    def make_handler(self) -> Handler:
        made = self.factory
        handler = made() if isinstance(made, type) or not _is_handler(made) else made
        if not _is_handler(handler):
            raise ConfigError(f"--role {self.name}: what it makes has no handle(exchange)")
        return _controlled(handler, self.rules)


class ClientGroup:
    """URLs to fetch."""

    def __init__(self, process: Process, flags: argparse.Namespace) -> None:
        self.process = process
        try:
            data = read_data(flags.data) if flags.data is not None else None
        except OSError as error:
            raise ConfigError(f"-d {flags.data}: {error.strerror}") from None
        self.options = FetchOptions(
            flags.urls, flags.method, flags.fields, data, flags.output, flags.include, flags.head, flags.talk, flags.proxy,
            flags.location, flags.fail,
        )  # fmt: skip
        self.fetch: Fetch | None = None
        self.pool: Pool | None = None

    def start(self) -> None:
        self.pool = Pool(self.process.reactor, self.process.connector)
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
        if self.pool is not None:
            self.pool.close()


def _is_handler(thing: object) -> bool:
    return callable(getattr(thing, "handle", None))


def _controlled(handler: Handler, rules: list[Rule]) -> Handler:
    return AccessControl(handler, rules, default_after(rules)) if rules else handler


def _log_path(flags: argparse.Namespace, process: argparse.Namespace) -> str | None:
    path: str | None = flags.access_log or process.access_log
    if path is None:
        return "-" if sys.stdout.isatty() else None
    return None if path == "off" else path


def _load(text: str, flag: str, kind: type | None = None) -> Any:
    """`package.module:attribute`; raises ConfigError."""
    if _NAME.fullmatch(text) is None:
        raise ConfigError(f"{flag} {text}: not of the form package.module:Name")
    module, _, attribute = text.partition(":")
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found = importlib.import_module(module)
        for name in attribute.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{flag} {text}: {error}") from None
    if kind is not None and not isinstance(found, kind):
        raise ConfigError(f"{flag} {text}: not an instance of {kind.__name__}")
    return found


# The process.


class Process:
    """All groups on one loop, from the first listener to the last exchange."""

    def __init__(self, flags: argparse.Namespace) -> None:
        self.flags = flags
        self.grace = GRACE if flags.grace is None else flags.grace
        self.reactor = Reactor()
        self.resolver = Resolver(self.reactor)
        self.connector = Connector(self.reactor, self.resolver)
        self.groups: list[Group] = []
        self.exit_code = 0
        self._stopping = False

    def run(self) -> int:
        """Start every group and turn until all are done; the exit status. Raises ConfigError."""
        _raise_descriptor_limit()
        try:
            # Before anybody is told that a listener is ready: who waits for that may send a signal at once.
            for number in (signal.SIGINT, signal.SIGTERM):
                self.reactor.on_signal(number, self._signalled)
            for group in list(self.groups):
                group.start()
            # What start-up made stays for good: the collector need not look at it again.
            gc.collect()
            gc.freeze()
            gc.set_threshold(*COLLECTOR)
            self.reactor.run()
        finally:
            self.close()
        return self.exit_code

    def close(self) -> None:
        """Reset what still runs, and give up everything."""
        for group in self.groups:
            group.abort()
        self.resolver.close()
        self.reactor.turn(0.0)
        for group in self.groups:
            if isinstance(group, _Listening):
                group.close()
        self.reactor.close()

    def group_done(self, group: Group) -> None:
        """A group has nothing more to do; the process ends with the last of them."""
        if group in self.groups:
            self.groups.remove(group)
        if not self.groups:
            self.reactor.stop()

    def _signalled(self) -> None:
        if self._stopping:
            log.info("stopping at once")
            self.reactor.stop()  # the second signal
            return
        log.info("stopping; what runs may end within %g s", self.grace)
        self._stopping = True
        self.reactor.call_later(self.grace, self.reactor.stop)
        for group in list(self.groups):
            group.shutdown(self.group_done)


def _raise_descriptor_limit() -> None:
    """Every connection is a descriptor: take as many as the system lets us have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError):
            log.debug("the limit on descriptors stays at %d", soft)


def _split_groups(argv: Sequence[str]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """The process's arguments, and for each --role its name and arguments. Raises ConfigError."""
    process: list[str] = []
    groups: list[tuple[str, list[str]]] = []
    words = iter(argv)
    for word in words:
        if word == "--role":
            name = next(words, None)
            if name is None:
                raise ConfigError("--role needs a name: proxy, server, client or package.module:Factory")
            groups.append((name, []))
        elif word.startswith("--role="):
            groups.append((word.removeprefix("--role="), []))
        else:
            (groups[-1][1] if groups else process).append(word)
    return process, groups


_FLAGS: dict[str, tuple[str, Callable[[Any], None]]] = {
    "server": ("--role server: files and API routes", _server_flags),
    "proxy": ("--role proxy: a caching forward or reverse proxy", _proxy_flags),
    "client": ("--role client: fetches URLs, exits 0, or as curl would", _client_flags),
    "custom": ("--role package.module:Factory: a handler of your own", _custom_flags),
}


def _help() -> str:
    """One text for all roles. Roles share flags, so each is formatted by a parser of its own."""
    top = _Parser(prog="reactor", usage="reactor [flags] --role ROLE [flags] [--role ROLE [flags]] …", add_help=False, allow_abbrev=False)
    _process_flags(top.add_argument_group("the process"))
    parts = [top.format_help()]
    for title, add in _FLAGS.values():
        parser = _Parser(prog="", usage=argparse.SUPPRESS, add_help=False)
        add(parser.add_argument_group(title))
        parts.append(parser.format_help())
    return "\n".join([*parts, EXAMPLES])


def _parse_group(name: str, arguments: list[str]) -> argparse.Namespace:
    if name not in _BUILDERS and _NAME.fullmatch(name) is None:
        raise ConfigError(f"--role {name}: neither proxy, server, client nor of the form package.module:Factory")
    parser = _Parser(add_help=False, allow_abbrev=False)
    _FLAGS[name if name in _FLAGS else "custom"][1](parser)
    _process_flags_again(parser)
    try:
        return parser.parse_intermixed_args(arguments) if name == "client" else parser.parse_args(arguments)
    except ConfigError as error:
        raise ConfigError(f"--role {name}: {error}") from None


def _process_flags_again(parser: argparse.ArgumentParser) -> None:
    """--grace and --verbose may stand anywhere; so may what asks for help."""
    _anywhere_flags(parser)
    parser.add_argument("--help", action="store_true")
    parser.add_argument("--check", action="store_true")


_BUILDERS: dict[str, Callable[[Process, argparse.Namespace], Group]] = {
    "server": ServerGroup,
    "proxy": ProxyGroup,
    "client": ClientGroup,
}


def configure(argv: Sequence[str]) -> Process | str:
    """What the command line asks for: a process ready to run, or a text to show. Raises ConfigError."""
    arguments, roles = _split_groups(argv)
    if "--help" in argv or "-h" in argv:
        return _help()
    parser = _Parser(add_help=False, allow_abbrev=False)
    _process_flags(parser)
    parser.add_argument("--access-log")
    flags = parser.parse_args(arguments)
    if flags.version:
        return f"reactor {__version__}\n"
    if not roles:
        raise ConfigError("nothing to do: give --role proxy, server, client or package.module:Factory (--help shows more)")
    groups = [(name, _parse_group(name, group)) for name, group in roles]
    for _, group in groups:
        flags.grace = group.grace if group.grace is not None else flags.grace
        flags.verbose = group.verbose or flags.verbose
        flags.check = group.check or flags.check
    _configure_logging(bool(flags.verbose))
    process = Process(flags)
    try:
        for name, group in groups:
            builder = _BUILDERS.get(name)
            process.groups.append(builder(process, group) if builder is not None else CustomGroup(process, group, name))
    except ConfigError:
        process.close()
        raise
    if flags.check:
        process.close()
        return "the configuration is good\n"
    return process


def _configure_logging(verbose: bool) -> None:
    logging.basicConfig(
        stream=sys.stderr, level=logging.DEBUG if verbose else logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command; the exit status."""
    try:
        process = configure(sys.argv[1:] if argv is None else argv)
        if isinstance(process, str):
            sys.stdout.write(process)
            return 0
        return process.run()
    except ConfigError as error:
        print(f"reactor: {error}", file=sys.stderr)
        return USAGE_ERROR
    except KeyboardInterrupt:
        return 0  # before the loop had taken over the signal


if __name__ == "__main__":
    sys.exit(main())
