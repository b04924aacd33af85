"""The front door: `python -m reactor.run --role proxy|server|client|package.module:Factory …`.

argv → configuration → handlers on one loop. The groups themselves are in `reactor/roles/`.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from reactor import __version__
from reactor.errors import ConfigError
from reactor.roles.process import GRACE, Group, Process
from reactor.roles.values import DOTTED_NAME, OneLineParser, seconds

EXAMPLES = """\
examples:
  reactor --role server --listen 127.0.0.1:8000 --root ./site
  reactor --role proxy --listen 127.0.0.1:8080             (a forward proxy)
  reactor --role proxy --upstream http://127.0.0.1:8000    (a reverse proxy)
  reactor --role client -x http://127.0.0.1:8080 http://127.0.0.1:8000/hello.txt
  reactor --role mypackage.module:Factory                (a handler of your own)
  reactor --role server --listen 127.0.0.1:8000 --role proxy      (both at once)

Each --role starts a group, and the flags behind it are that group's; all groups
share one process and one loop. Flags before the first --role are the process's.
The default of a flag stands in parentheses at the end of its text.
`reactor` and `python -m reactor.run` are the same.
"""


def _process_flags(to: Any) -> None:
    to.add_argument("-h", "--help", action="store_true", help="show this, for the roles that are named or for all, and exit")
    to.add_argument("--version", action="store_true", help="show the version, and exit")
    to.add_argument("--check", action="store_true", help="read the configuration, say what is wrong with it, and start nothing")
    _anywhere_flags(to)


def _anywhere_flags(to: Any) -> None:
    to.add_argument(
        "--grace", type=seconds, metavar="SECONDS", help=f"how long running exchanges may end after a signal ({GRACE:g})"
    )
    to.add_argument("--verbose", action="store_true", default=None, help="the loop's own log, on standard error")


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


def _listen_flags(to: Any) -> None:
    from reactor.roles.listening import listen_flags  # here, because a client does without a server

    listen_flags(to)


class Role(NamedTuple):
    """What a name behind --role stands for; its module is loaded where it is asked for, since most runs have one role."""

    module: str
    group: str
    listens: bool = True

    @property
    def add_flags(self) -> Callable[[Any], None] | None:
        """Its own flags, besides those of every role that listens."""
        return getattr(importlib.import_module(self.module), "add_flags", None)

    def fill(self, parser: argparse.ArgumentParser) -> None:
        if self.add_flags is not None:
            self.add_flags(parser)
        if self.listens:
            _listen_flags(parser)

    def build(self, process: Process, flags: argparse.Namespace, name: str) -> Group:
        """Raises ConfigError."""
        made: Group = getattr(importlib.import_module(self.module), self.group)(process, flags, name)
        return made


ROLES: dict[str, Role] = {
    "server": Role("reactor.roles.server", "ServerGroup"),
    "proxy": Role("reactor.roles.proxy", "ProxyGroup"),
    "client": Role("reactor.roles.client", "ClientGroup", listens=False),
}
CUSTOM = Role("reactor.roles.custom", "CustomGroup")


def _help(names: Sequence[str]) -> str:
    """One text for these roles, or for all where none is named. Roles share flags, so each is formatted by its own parser."""
    top = OneLineParser(prog="reactor", usage="reactor [flags] --role ROLE [flags] [--role ROLE [flags]] …")
    _process_flags(top.add_argument_group("the process"))
    roles = [ROLES.get(name, CUSTOM) for name in dict.fromkeys(names)] or [*ROLES.values(), CUSTOM]
    fills = [role.add_flags for role in roles if role.add_flags is not None]
    if any(role.listens for role in roles):
        fills.insert(0, _listen_flags)
    parts = [top.format_help()]
    for fill in fills:
        parser = OneLineParser(prog="", usage=argparse.SUPPRESS)
        fill(parser)
        parts.append(parser.format_help())
    return "\n".join([*parts, EXAMPLES])


def _parse_group(name: str, arguments: list[str]) -> argparse.Namespace:
    if name not in ROLES and DOTTED_NAME.fullmatch(name) is None:
        raise ConfigError(f"--role {name}: neither proxy, server, client nor of the form package.module:Factory")
    parser = OneLineParser()
    ROLES.get(name, CUSTOM).fill(parser)
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


def configure(argv: Sequence[str]) -> Process | str:
    """What the command line asks for: a process ready to run, or a text to show. Raises ConfigError."""
    arguments, roles = _split_groups(argv)
    if "--help" in argv or "-h" in argv:
        return _help([name for name, _ in roles])
    parser = OneLineParser()
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
            process.groups.append(ROLES.get(name, CUSTOM).build(process, group, name))
    except ConfigError:
        process.close()
        raise
    if flags.check:
        process.close()
        return "the configuration is good\n"
    return process


def _configure_logging(verbose: bool) -> None:
    logging.basicConfig(
        stream=sys.stderr, level=logging.DEBUG if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )  # fmt: skip


def _hold_standard_descriptors() -> None:
    """What was closed by whoever started us is open on /dev/null, so that no socket comes to bear the number of an output."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one


def _show(text: str) -> int:
    """The exit status; that of SIGPIPE where the reader leaves early (`| head`), which is no fault."""
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the interpreter flushes once more at its end
        return 128 + signal.SIGPIPE
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """The command; the exit status."""
    _hold_standard_descriptors()
    try:
        process = configure(sys.argv[1:] if argv is None else argv)
        if isinstance(process, str):
            return _show(process)
        return process.run()
    except ConfigError as error:
        print(f"reactor: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        return 0  # before the loop had taken over the signal


if __name__ == "__main__":
    sys.exit(main())
