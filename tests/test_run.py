"""The command line: what it makes of its words, what it refuses and how, and whole processes from start to signal."""

from __future__ import annotations

import gc
import io
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from handlers.access import AccessControl
from handlers.caching import Caching
from handlers.client_limits import ClientRate
from handlers.forwarded import TrustedTarget
from handlers.pac import Pac
from handlers.tunnel import Tunnel
from handlers.users import Users
from handlers.users_file import make_entry
from reactor import __version__
from reactor.errors import ConfigError
from reactor.roles.client import ClientGroup
from reactor.roles.custom import CustomGroup
from reactor.roles.process import Group, Process
from reactor.roles.proxy import ProxyGroup
from reactor.roles.server import ServerGroup
from reactor.roles.sites import Site
from reactor.run import configure, main
from reactor.server import ServerLimits
from tests.loopback import open_descriptors

ROOT = Path(__file__).resolve().parent.parent
Read = Callable[[str], Any]  # a command line → the process it makes
Client = Callable[..., tuple[int, bytes, bytes]]  # arguments → exit status, standard output, standard error
PORT_0 = ("--listen", "127.0.0.1:0")

MODULE = '''
"""A handler and an API of a user's own."""
from handlers.api import Api
from reactor.exchange import BytesSource, Head
from reactor.errors import BodyCutShort

api = Api()
no_api = 42


@api.get("/api/mine")
def mine():
    return {"mine": True}


class Broken(BytesSource):
    """A body that breaks off."""

    def __init__(self):
        super().__init__(b"the beginning")
        self.length = 100

    def pull(self, limit):
        piece = super().pull(limit)
        if not piece:
            raise BodyCutShort("as it was told")
        return piece


class Hello:
    def handle(self, exchange):
        path = exchange.request.path
        if path == b"/cut":
            exchange.respond(Head(200), Broken())
        elif path == b"/reset":
            exchange.abort("as it was told")
        elif path == b"/raise":
            raise KeyError("as it was told")
        elif path == b"/body":
            Echo(exchange)
        elif path != b"/held":
            exchange.respond(Head(200, [("Content-Type", "text/plain")]), b"hello from a handler")


class Echo:
    def __init__(self, exchange):
        self.exchange, self.body, self.data = exchange, exchange.body, b""
        if isinstance(self.body, bytes):
            exchange.respond(Head(200), self.body)
        else:
            self.body.on_ready = self.ready
            self.ready()

    def ready(self):
        while (data := self.body.pull(1000)) is not None:
            if not data:
                self.exchange.respond(Head(200), self.data)
                return
            self.data += data


def make():
    return Hello()


def make_nothing():
    return None


ready = Hello()


class Nested:
    Handler = Hello
'''


def make_folder(path: Path) -> Path:
    (path / "site" / "sub").mkdir(parents=True)
    (path / "site" / "hello.txt").write_text("hello\n")
    (path / "site" / "sub" / "index.html").write_text("<p>sub</p>\n")
    (path / "users_own.py").write_text(MODULE)
    (path / "rules").write_text("# who may pass\nallow host=127.0.0.1\n")
    (path / "users").write_text(make_entry("alice", "secret", log2_n=4) + "\n")
    os.utime(path / "site" / "hello.txt", (1e9, 1e9))  # old enough to be fresh for long (RFC 9111 section 4.2.2)
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a site and a module of the user's own, to run in."""
    make_folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry] + [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "users_own", raising=False)
    return tmp_path


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """A process takes over the signals, and tells the collector to forget what is there."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    gc.unfreeze()


# One line, exit 2.


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line that `reactor argv …` says before it exits with 2."""
    assert main(argv) == 2
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert lines[-1].startswith("reactor: ")
    assert all(" listening on http://" in line for line in lines[:-1]), "a group that had started before may have said so"
    return lines[-1].removeprefix("reactor: ")


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ("", "nothing to do: give --role proxy, server, client or package.module:Factory"),
        ("--role", "--role needs a name"),
        ("--role server --role", "--role needs a name"),
        ("--role sever", "--role sever: neither proxy, server, client nor of the form package.module:Factory"),
        ("--role sever --root site", "--role sever: neither"),
        ("--role=", "--role : neither"),
        ("--role custom", "--role custom: neither"),
        ("--role .a:B", "--role .a:B: neither"),
        ("--role a:b:c", "--role a:b:c: neither"),
        ("--role a..b:C", "--role a..b:C: neither"),
        ("--role nonsense:Factory", "--role nonsense:Factory: No module named 'nonsense'"),
        ("--role users_own:Missing", "--role users_own:Missing: module 'users_own' has no attribute 'Missing'"),
        ("--role users_own:no_api", "--role users_own:no_api: neither a handler nor what makes one"),
        ("--role users_own:make_nothing --listen 0", "--role users_own:make_nothing: what it makes has no handle(exchange)"),
        ("--role users_own:Hello --root site", "--role users_own:Hello: unrecognized arguments: --root site"),
        ("--bad --role server", "unrecognized arguments: --bad"),
        ("--listen 127.0.0.1:0 --role server", "unrecognized arguments: --listen 127.0.0.1:0; a role's flags stand behind its"),
        ("server --root site", "unrecognized arguments: server --root site; a role's flags stand behind its name: --role NAME"),
        ("--role server --bad", "--role server: unrecognized arguments: --bad"),
        ("--role server stray", "--role server: unrecognized arguments: stray"),
        ("--role server --upstream http://a", "--role server: unrecognized arguments"),
        ("--role server --list 127.0.0.1:0", "--role server: unrecognized arguments"),
        ("--role server --lissten=0", "--role server: unrecognized arguments: --lissten=0; is --listen meant?"),
        ("--role proxy --upsteam http://a", "--role proxy: unrecognized arguments: --upsteam http://a; is --upstream meant?"),
        ("--role server --listen", "--role server: argument --listen: expected one argument"),
        (
            "--role server --listen localhost",
            "--role server: argument --listen: 'localhost' is not an address of the form HOST",
        ),
        ("--role server --listen 127.0.0.1:65536", "--role server: argument --listen: '127.0.0.1:65536' is not an address"),
        ("--role server --listen 127.0.0.1:+80", "--role server: argument --listen: '127.0.0.1:+80' is not an address"),
        ("--role server --listen ::1:80", "--role server: argument --listen: '::1:80' is not an address"),
        ("--role server --listen 192.0.2.1:0", "cannot listen on 192.0.2.1:0: "),
        ("--role server --root nowhere", "--root nowhere: not a directory"),
        ("--role server --root site/hello.txt", "--root site/hello.txt: not a directory"),
        ("--role server --root /x=nowhere", "--root nowhere: not a directory"),
        ("--role server --root /x/../y=site", "--role server: --root /x/../y=site: '/x/../y' is no path such as /assets"),
        ("--role server --root /x//y=site", "--role server: --root /x//y=site: '/x//y' is no path"),
        ("--role server --root /%41=site", "--role server: --root /%41=site: '/%41' is no path"),
        ("--role server --root site --root /=site", "--role server: --root /=site: there is one for / already"),
        ("--role server --root /a=site --root /a/=site", "--role server: --root /a/=site: there is one for /a already"),
        ("--role server --host a", "--host a: no --root behind it"),
        ("--role server --host a --host b --root site", "--host a: no --root behind it"),
        ("--role server --host a,b,a --root site", "--role server: --host a,b,a: a is named twice"),
        ("--role server --host a --root site --host A --root site", "--role server: --host A: A is named twice"),
        ("--role server --host a:80 --root site", "--role server: --host a:80: 'a:80' is no host such as example.com"),
        ("--role server --host a..*.b --root site", "--role server: --host a..*.b: 'a..*.b' is no host"),
        ("--role server --host a, --root site", "--role server: --host a,: '' is no host"),
        ("--role server --host http://a --root site", "--role server: --host http://a: 'http://a' is no host"),
        ("--role server --index a/b", "--role server: argument --index: 'a/b' is not the name of a file"),
        ("--role server --max-age soon", "--role server: argument --max-age: 'soon' is not of the form SECONDS or GLOB=SECONDS"),
        ("--role server --max-age =5", "--role server: argument --max-age: '=5' is not of the form"),
        ("--role server --max-age *.js=-1", "--role server: argument --max-age: '*.js=-1' is not of the form"),
        ("--role server --cors example.com", "--role server: argument --cors: 'example.com' is not an origin such as https://"),
        ("--role server --cors https://a/", "--role server: argument --cors: 'https://a/' is not an origin"),
        ("--role server --cache-size much", "--role server: argument --cache-size: 'much' is not a size"),
        ("--role server --cache-rule ttl=60", "--cache-rule without --cache-size: there is no cache for it"),
        ("--role server --max-connections -1", "--role server: argument --max-connections: "),
        ("--role server --idle-timeout 0", "--role server: argument --idle-timeout: 0 seconds leave no time for anything"),
        ("--role proxy --min-rate slow", "--role proxy: argument --min-rate: 'slow' is not a size"),
        ("--role server --api users_own", "--api users_own: not of the form package.module:Name"),
        ("--role server --api users_own:no_api", "--api users_own:no_api: not an instance of Api"),
        ("--role server --api nonsense:api", "--api nonsense:api: No module named 'nonsense'"),
        ("--role server --access-log nowhere/log --listen 127.0.0.1:0", "access log nowhere/log: No such file or directory"),
        ("--role server --log-format xml", "--role server: argument --log-format: invalid choice"),
        ("--role server --grace soon", "--role server: argument --grace: 'soon' is not a number of seconds"),
        ("--grace -1 --role server", "argument --grace: "),
        ("--grace 1_0 --role server", "argument --grace: '1_0' is not a number of seconds"),
        ("--role proxy --upstream localhost", "--upstream 'localhost' is no URL of the form http[s]://host[:port][/path]"),
        ("--role proxy --upstream ftp://a:1", "--upstream 'ftp://a:1': only http:// and https:// are spoken to upstreams"),
        ("--role proxy --upstream http://a:99999", "--upstream 'http://a:99999' is no URL"),
        ("--role proxy --upstream http://a/?x", "--upstream 'http://a/?x': a query has no place here"),
        ("--role proxy --upstream /a=b", "--upstream 'b' is no URL of the form http[s]://host[:port][/path]"),
        ("--role proxy --upstream /a=http://a --upstream /a/=http://b", "--upstream: two of them stand at /a"),
        ("--role proxy --preserve-host", "--preserve-host is for a reverse proxy: it needs an --upstream"),
        ("--role proxy --trust 10.0.0.0/8", "--trust is for a reverse proxy: it needs an --upstream"),
        ("--role proxy --upstream http://a --trust 10.0.0.1/8", "--trust '10.0.0.1/8': 10.0.0.1/8 has host bits set"),
        ("--role proxy --rewrite-links text/html", "--rewrite-links is for a reverse proxy: it needs an --upstream"),
        ("--role proxy --upstream http://a --rewrite-links html", "--rewrite-links 'html': 'html' is no media type"),
        ("--role proxy --connect-ports 0", "--connect-ports '0': '0' is neither a port"),
        ("--role proxy --upstream http://a --connect-ports 443", "--connect-ports is for a forward proxy"),
        ("--role proxy --cache-size much", "--role proxy: argument --cache-size: 'much' is not a size"),
        ("--role proxy --cache-size -1", "--role proxy: argument --cache-size: "),
        ("--role proxy --cache-rule ttl=x", "--role proxy: argument --cache-rule: "),
        ("--role proxy --cache-ranges some", "--role proxy: argument --cache-ranges: invalid choice: 'some'"),
        ("--role proxy --cache-targets a,,b", "--role proxy: argument --cache-targets: '' is not a field's name"),
        ("--role proxy --cache-targets a:b", "--role proxy: argument --cache-targets: 'a:b' is not a field's name"),
        ("--role proxy --allow nonsense", "--role proxy: allow 'nonsense', column 1: "),
        ("--role proxy --deny client=10.0.0.0/33", "--role proxy: deny 'client=10.0.0.0/33', column 8: "),
        ("--role proxy --listen 0.0.0.0:0", "a forward proxy on 0.0.0.0 would be open to everybody"),
        ("--role proxy --listen [::]:0", "a forward proxy on :: would be open to everybody"),
        ("--role proxy --listen 127.0.0.1:0 --listen 192.0.2.1:0", "a forward proxy on 192.0.2.1 would be open"),
        ("--role proxy --listen 0.0.0.0:0 --deny port=25", "a forward proxy on 0.0.0.0 would be open to everybody"),
        ("--role client", "--role client: the following arguments are required: URL"),
        ("--role client -H nonsense http://a", "--role client: argument -H/--header: 'nonsense' is not a field of the form NAME"),
        ("--role client -X A(B http://a", "--role client: argument -X/--request: 'A(B' is not a method"),
        ("--role client -x ftp://a:1 http://a", "--role client: argument -x/--proxy: 'ftp://a:1' is not a proxy's URL"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(folder: Path, capsys: pytest.CaptureFixture[str], argv: str, line: str) -> None:
    assert refused(capsys, *argv.split()).startswith(line)


@pytest.mark.parametrize(
    ("argv", "targets", "parts", "whole"),
    [
        ([], (), True, False),
        (["--upstream", "http://a"], (b"cdn-cache-control",), True, False),
        (["--upstream", "http://a", "--cache-targets", ""], (), True, False),
        (["--cache-targets", "My-Cache-Control, CDN-Cache-Control"], (b"my-cache-control", b"cdn-cache-control"), True, False),
        (["--cache-ranges", "whole"], (), False, True),
        (["--cache-ranges", "off"], (), False, False),
    ],
)
def test_what_the_cache_is_told(argv: list[str], targets: tuple[bytes, ...], parts: bool, whole: bool) -> None:
    process = configure(["--role", "proxy", *PORT_0, *argv])
    group = process.groups[0]
    assert isinstance(group, ProxyGroup)
    assert (group.policy.targets, group.policy.store_partial, group.policy.fetch_whole) == (targets, parts, whole)



def test_a_root_that_may_not_be_entered(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: path != "site")
    assert refused(capsys, "--role", "server", "--root", "site", *PORT_0) == "--root site: Permission denied"


def test_a_port_in_use(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        said = f"cannot listen on {address}: Address already in use"
        assert refused(capsys, "--role", "server", "--listen", address) == said
        assert refused(capsys, "--role", "server", *PORT_0, "--role", "proxy", "--listen", address) == said
        assert refused(capsys, "--role", "server", *PORT_0, "--listen", address) == said
        assert main(["--check", "--role", "server", "--listen", address]) == 0, "a check starts nothing"


# Nothing is left behind by what was refused, or only checked.


@pytest.mark.parametrize(
    "argv", ["--role server --root nowhere", "--check --role proxy --role server", "--role server --listen 192.0.2.1:0"]
)
def test_no_descriptor_stays_open(folder: Path, argv: str) -> None:
    main(argv.split())
    before = open_descriptors()
    main(argv.split())
    assert open_descriptors() <= before


# What the words come to.


@pytest.fixture
def read(folder: Path) -> Iterator[Read]:
    """Reads a command line, and closes what came of it."""
    made: list[Process] = []

    def read(argv: str) -> Any:
        process = configure(argv.split())
        assert isinstance(process, Process)
        made.append(process)
        return process

    yield read
    for process in made:
        process.close()


def listening(group: Group) -> list[tuple[str, int]]:
    assert isinstance(group, (ServerGroup, ProxyGroup, CustomGroup))
    return group.addresses


def test_each_role_starts_a_group_with_the_flags_behind_it(read: Read) -> None:
    process = read(
        "--role server --listen 127.0.0.1:1 --listen [::1]:2 --root site --role proxy --role=users_own:Hello --listen 3"
        " --role client http://a"
    )
    server, proxy, custom, client = process.groups
    assert isinstance(server, ServerGroup) and isinstance(proxy, ProxyGroup)
    assert isinstance(custom, CustomGroup) and isinstance(client, ClientGroup)
    assert listening(server) == [("127.0.0.1", 1), ("::1", 2)]
    assert listening(custom) == [("127.0.0.1", 3)]
    assert (server.name, proxy.name, custom.name) == ("server", "proxy", "users_own:Hello")


def test_the_defaults(read: Read) -> None:
    process = read("--role server --role proxy --role users_own:Hello")
    server, proxy, _ = process.groups
    assert [listening(group) for group in process.groups] == [[("127.0.0.1", port)] for port in (8000, 8080, 9000)]
    assert server.sites == [Site((), {b"/": "."})]
    assert replace(server.limits, connections=1) == replace(ServerLimits(), connections=1) == replace(proxy.limits, connections=1)
    assert (server.cors, server.flags.cache_size) == (None, 0)
    assert (proxy.cache_size, proxy.upstreams, proxy.access.rules) == (256 << 20, [], [])
    assert process.grace == 10
    assert [group.log_path for group in process.groups] == [None] * 3, "standard output is no terminal here"


@pytest.mark.parametrize(
    "argv",
    [
        "--grace 2.5 --verbose --role server",
        "--role server --grace 2.5 --verbose",
        "--verbose --role proxy --role server --grace 2.5",
    ],
)
def test_grace_and_verbose_may_stand_anywhere(read: Read, argv: str) -> None:
    process = read(argv)
    assert (process.grace, process.flags.verbose) == (2.5, True)


def test_roots_by_path_and_by_host(read: Read) -> None:
    argv = "--role server --root site --root /sub/=site/sub --host A.example,*.b.example --root ./site --host [::1] --root /x=."
    assert read(argv).groups[0].sites == [
        Site((), {b"/": "site", b"/sub": "site/sub"}),
        Site((b"a.example", b"*.b.example"), {b"/": "./site"}),
        Site((b"[::1]",), {b"/x": "."}),
    ]


def test_a_folder_with_an_equals_sign(read: Read, folder: Path) -> None:
    (folder / "a=b").mkdir()
    assert read("--role server --root a=b").groups[0].sites == [Site((), {b"/": "a=b"})]
    assert read(f"--role server --root /={folder}/a=b").groups[0].sites == [Site((), {b"/": f"{folder}/a=b"})]


@pytest.mark.parametrize(("descriptors", "connections"), [(-1, 16_384), (2**20, 16_384), (4096, 2048)])
def test_half_of_the_descriptors_are_for_clients(
    read: Read, monkeypatch: pytest.MonkeyPatch, descriptors: int, connections: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1024, descriptors))
    assert read("--role proxy").groups[0].limits.connections == connections
    assert read("--role proxy --max-connections 9000").groups[0].limits.connections == 9000


@pytest.mark.parametrize("role", ["server", "proxy", "users_own:Hello"])
def test_limits_are_every_listeners(read: Read, role: str) -> None:
    flags = "--max-connections 5 --max-requests 6 --max-body 1k --min-rate 0"
    timeouts = "--idle-timeout 1.5 --head-timeout 2 --body-timeout 3 --send-timeout 4"
    limits = ServerLimits(
        connections=5, requests=6, max_body=1024, rate=0, idle=1.5, head=2, body=3, stalled=4,
    )  # fmt: skip
    assert read(f"--role {role} {flags} {timeouts}").groups[0].limits == limits


def test_a_server_may_be_told_the_access_log_once_for_all(read: Read) -> None:
    process = read("--access-log log --role server --role proxy --access-log off --role users_own:Hello --access-log -")
    assert [group.log_path for group in process.groups] == ["log", None, "-"]


def test_on_a_terminal_the_access_log_is_on(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert read("--role server").groups[0].log_path == "-"


@pytest.mark.parametrize(("text", "size"), [("0", 0), ("1000", 1000), ("2k", 2048), ("32M", 32 << 20), ("1G", 1 << 30)])
def test_sizes(read: Read, text: str, size: int) -> None:
    assert read(f"--role proxy --cache-size {text}").groups[0].cache_size == size


@pytest.mark.parametrize(
    ("argv", "handlers"),
    [
        ("", [Pac, Tunnel, Caching]),
        ("--cache-size 0", [Pac, Tunnel]),
        ("--upstream http://127.0.0.1:1/prefix/", [Caching]),
        ("--upstream http://127.0.0.1:1 --trust ::1 --deny host=a", [AccessControl, TrustedTarget, Caching]),
        ("--allow client=127.0.0.1 --deny all", [Pac, AccessControl, Tunnel, Caching]),
        ("--listen 0.0.0.0:0 --allow client=10.0.0.0/8", [Pac, AccessControl, Tunnel, Caching]),
        ("--listen 0.0.0.0:0 --users users --client-rate 5", [ClientRate, Pac, Users, Tunnel, Caching]),
        ("--rules rules --users users --upstream http://127.0.0.1:1", [Users, AccessControl, Caching]),
        ("--listen 0.0.0.0:0 --upstream http://127.0.0.1:1", [Caching]),
    ],
)
def test_a_proxy_is_its_handlers_around_each_other(read: Read, argv: str, handlers: list[type]) -> None:
    handler = read("--role proxy " + argv).groups[0].make_handler()
    found = []
    while isinstance(handler, (ClientRate, Pac, Users, AccessControl, TrustedTarget, Tunnel, Caching)):
        found.append(type(handler))
        handler = handler.handler if hasattr(handler, "handler") else handler._handler
    assert found == handlers


def test_rules_keep_their_order(read: Read) -> None:
    (group,) = read("--role proxy --deny host=a,b --allow all --deny method=GET").groups
    assert [str(rule) for rule in group.access.rules] == ["deny host=a,b", "allow all", "deny method=GET"]


@pytest.mark.parametrize("name", ["Hello", "make", "ready", "Nested.Handler"])
def test_a_handler_of_ones_own_may_be_a_class_a_function_or_the_thing_itself(read: Read, name: str) -> None:
    assert type(read(f"--role users_own:{name}").groups[0].make_handler()).__name__ == "Hello"


# Texts.


def sections_of(text: str) -> dict[str, str]:
    """The help's groups, by who has them: the process, every role that listens, a role."""
    told: dict[str, str] = {}
    for section in re.split(r"\n(?=the process:|every role that listens:|--role [a-z]+:|examples:)", text)[1:]:
        who, _, _ = section.removeprefix("--role ").partition(":")
        told[who] = told.get(who, "") + section
    return told


def test_help_tells_every_flag_by_role_with_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-h"]) == 0
    out, err = capsys.readouterr()
    assert (out.startswith("usage: reactor"), err) == (True, "")
    told = sections_of(out)
    assert list(told) == ["the process", "every role that listens", "server", "proxy", "client", "examples"]
    for section, flags in {
        "the process": "--help --version --check --grace --verbose",
        "every role that listens": "--listen --access-log --log-format --script --allow --deny --rules --users"
        " --client-connections --client-rate --max-connections --max-requests --max-body --idle-timeout --head-timeout"
        " --body-timeout --send-timeout --min-rate",
        "server": "--root --host --api --index --listing --follow-symlinks --dot-files --max-age --cors --cache-size --cache-rule",
        "proxy": "--upstream --preserve-host --trust --rewrite-links --connect-ports --ca-file --insecure --deny-private"
        " --cache-size --cache-ranges --cache-targets --cache-rule --connect-timeout --first-byte-timeout"
        " --between-bytes-timeout --upstream-idle-timeout --tunnel-idle-timeout",
        "client": "URL -X -H -d -T -u -A -e -o -O -C -r -i -I -v -s -S -x -L --max-redirs --max-time --retry --compressed --trace"
        " --fail -k --cacert",
    }.items():
        for flag in flags.split():
            assert flag in told[section], (section, flag)
    for role in ("server", "proxy", "client", "mypackage.module:Factory"):
        assert f"reactor --role {role} " in told["examples"]


def test_help_for_a_role_that_is_named_tells_of_that_role_alone(capsys: pytest.CaptureFixture[str]) -> None:
    for role, sections in {
        "proxy": ["every role that listens", "proxy"],
        "client": ["client"],
        "mypackage.module:Factory": ["every role that listens"],
    }.items():
        assert main(["--role", role, "--help"]) == 0
        assert list(sections_of(capsys.readouterr().out)) == ["the process", *sections, "examples"]


@pytest.mark.parametrize("role", ["server", "proxy", "client"])
def test_help_fits_a_terminal_and_names_a_value_once(
    role: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    main(["--role", role, "--help"])
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert "FILE, --" not in text


def test_what_a_users_module_raises_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "half_written.py").write_text("class Hello(:\n")
    (folder / "in_a_rage.py").write_text("import os\n\nraise RuntimeError('not today')\n")
    (folder / "choosy.py").write_text("class Hello:\n    def __init__(self, name): ...\n    def handle(self, exchange): ...\n")
    for argv, line in {
        "--role half_written:Hello": "--role half_written:Hello: SyntaxError: invalid syntax (half_written.py, line 1)",
        "--role server --api in_a_rage:api": "--api in_a_rage:api: RuntimeError: not today (in_a_rage.py, line 3)",
        "--role choosy:Hello": "--role choosy:Hello: TypeError: Hello.__init__() missing 1 required positional argument: 'name'",
    }.items():
        assert main(["--check", *argv.split()]) == 2
        assert capsys.readouterr().err == f"reactor: {line}\n"


def test_version_and_check(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert main(["--check", "--role", "server", "--root", "site", "--role", "proxy"]) == 0
    assert main(["--role", "users_own:Hello", "--check"]) == 0
    assert capsys.readouterr().out == f"reactor {__version__}\n" + "the configuration is good\n" * 2
    assert main(["--check", "--role", "server", "--root", "nowhere"]) == 2


def test_configure_raises_what_main_says() -> None:
    with pytest.raises(ConfigError, match="nothing to do"):
        configure([])


# Whole processes.


class Running:
    """`python -m reactor.run` with its groups ready."""

    def __init__(self, folder: Path, *argv: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, "-m", "reactor.run", *argv]
        self.process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self.process.stderr is not None
        self.ports: dict[str, int] = {}
        self.lines: list[str] = []
        for _ in range(sum(word == "--listen" for word in argv)):
            line = self.process.stderr.readline().decode()
            self.lines.append(line)
            match = re.fullmatch(r"(\S+) listening on http://127\.0\.0\.1:([0-9]+)\n", line)
            assert match is not None, line + self.process.stderr.read().decode()
            self.ports[match[1]] = int(match[2])

    def connect(self, name: str) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.ports[name]), timeout=20)
        return sock

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def until_refused(self, name: str) -> None:
        """Until the listener is closed: the process has seen its signal."""
        for _ in range(2000):
            try:
                self.connect(name).close()
            except ConnectionRefusedError:
                return
            except ConnectionResetError:
                pass  # it was closed in between
            time.sleep(0.005)  # another process's affair: there is nothing here to wait on
        raise AssertionError("it goes on listening")

    def end(self) -> tuple[int, str, str]:
        """Exit status, standard output, and standard error after the lines that were read."""
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, out.decode(), err.decode()

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Every role but the client in one process, which ends well after all of it."""
    folder = make_folder(tmp_path_factory.mktemp("house"))
    running = Running(
        folder, "--access-log", "log", "--grace", "1",
        "--role", "server", *PORT_0, "--root", "site", "--api", "users_own:api",
        "--role", "proxy", *PORT_0,
        "--role", "users_own:Hello", *PORT_0,
    )  # fmt: skip
    try:
        yield running
        running.signal(signal.SIGTERM)
        status, out, err = running.end()
        assert (status, out) == (0, "")
        assert "KeyError: 'as it was told'" in err
        log = (folder / "log").read_text().splitlines()
        assert any(" hit " in line for line in log) and any('"GET /cut HTTP/1.1" 200' in line for line in log)
    finally:
        running.kill()


@pytest.fixture
def fetch(
    house: Running, capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Client:
    """`reactor --role client …` → (exit status, standard output, standard error); `{server}` is the server's address."""
    monkeypatch.chdir(tmp_path)
    addresses = {name.partition(":")[0]: f"http://127.0.0.1:{port}" for name, port in house.ports.items()}

    def fetch(*argv: str) -> tuple[int, bytes, bytes]:
        status = main(["--role", "client", *(word.format(**addresses) for word in argv)])
        return (status, *capfdbinary.readouterr())

    return fetch


def test_a_file_a_route_and_a_handler_of_ones_own(fetch: Client) -> None:
    assert fetch("{server}/hello.txt") == (0, b"hello\n", b"")
    assert fetch("{users_own}/") == (0, b"hello from a handler", b"")
    assert json.loads(fetch("{server}/api/mine")[1]) == {"mine": True}
    assert json.loads(fetch("{server}/api/status")[1])["status"] == "ok"
    assert b"a=1" in fetch("-d", "a=1", "{server}/api/echo")[1]


def test_through_the_proxy_a_miss_and_then_a_hit(fetch: Client) -> None:
    first, second = (fetch("-i", "-x", "{proxy}", "{server}/hello.txt") for _ in range(2))
    for status, out, err in (first, second):
        assert (status, err) == (0, b"") and out.endswith(b"\r\n\r\nhello\n")
    assert b"fwd=uri-miss" in first[1] and b"stored" in first[1]
    assert re.search(rb"\r\nCache-Status: [^\r]*; ?hit", second[1])


def test_several_urls_in_order(fetch: Client) -> None:
    urls = ("{server}/hello.txt", "{users_own}/", "{server}/hello.txt")
    assert fetch(*urls) == (0, b"hello\nhello from a handlerhello\n", b"")


def test_what_the_client_can_be_asked_for(fetch: Client, tmp_path: Path) -> None:
    status, out, err = fetch("-I", "{server}/hello.txt")
    assert (status, err) == (0, b"") and out.startswith(b"HTTP/1.1 200 OK\r\n") and out.endswith(b"\r\n\r\n")
    status, out, err = fetch("-v", "-H", "X-Mine: 1", "-X", "OPTIONS", "{server}/api/mine")
    assert (status, out) == (0, b"")
    assert b"> OPTIONS /api/mine HTTP/1.1\n" in err and b"> X-Mine: 1\n" in err and b"< HTTP/1.1 204" in err
    assert fetch("-o", "out", "{server}/hello.txt") == (0, b"", b"")
    assert (tmp_path / "out").read_bytes() == b"hello\n"
    assert fetch("-L", "{server}/sub") == (0, b"<p>sub</p>\n", b"")


@pytest.mark.parametrize(
    ("argv", "status"),
    [
        ("--fail {server}/missing", 22),
        ("{server}/missing", 0),
        ("--fail {users_own}/raise", 22),
        ("{users_own}/cut", 18),
        ("{users_own}/reset", 56),
        ("ftp://127.0.0.1/", 1),
        ("http://", 3),
        ("http://127.0.0.1:{closed}/", 7),
        ("-x http://127.0.0.1:{closed} http://a/", 7),
        ("-o nowhere/out {server}/hello.txt", 23),
        ("-T nowhere {server}/", 26),
        ("-d @nowhere {server}/", 26),
        ("-F a=@nowhere {server}/", 26),
        ("-m 0.1 {server}/api/delay/5", 28),
        ("http://127.0.0.1:{closed}/ {server}/hello.txt --fail {server}/missing", 7),
    ],
)
def test_exit_codes_are_those_of_curl(fetch: Client, argv: str, status: int) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # held, and nobody listens
        got, out, err = fetch(*argv.replace("{closed}", str(closed.getsockname()[1])).split())
    assert got == status
    assert err.count(b"\n") == err.count(b"reactor: ") and bool(err) == bool(status)
    if "hello.txt" in argv and "-o" not in argv:
        assert out == b"hello\n", "one URL that fails does not keep the others back"


def test_a_client_beside_a_server_leaves_it_running(folder: Path) -> None:
    """A client's end is the process's only where no other group runs."""
    client = ("--role", "client", "-o", "out", "http://127.0.0.1:1/")
    running = Running(folder, "--role", "server", *PORT_0, "--root", "site", *client)
    try:
        assert running.process.stderr is not None
        assert running.process.stderr.readline().startswith(b"reactor: http://127.0.0.1:1/: ")
        with running.connect("server") as sock:
            sock.sendall(b"GET /hello.txt HTTP/1.0\r\n\r\n")
            assert sock.makefile("rb").read().endswith(b"hello\n")
        running.signal(signal.SIGINT)
        assert running.end() == (7, "", "")
    finally:
        running.kill()


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_what_the_shell_has_closed_is_not_written_into_something_else(house: Running, tmp_path: Path, closed: str) -> None:
    url = f"http://127.0.0.1:{house.ports['server']}/api/echo"
    command = f"exec '{sys.executable}' -m reactor.run --role client -v --data-binary @- {url} {closed}"
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, input=b"hello", capture_output=True, timeout=20)
    assert done.returncode == 0
    assert (b'"body":"hello"' in done.stdout) == (closed == "2>&-") and (b'"body":""' in done.stdout) == (closed == "<&-")
    assert (b"< HTTP/1.1 200" in done.stderr) == ("2" not in closed)


@pytest.mark.parametrize(("number", "why", "status"), [(signal.SIGINT, "interrupted", 130), (signal.SIGTERM, "stopped", 143)])
def test_a_signal_ends_a_fetch_and_keeps_what_came(
    house: Running, tmp_path: Path, number: int, why: str, status: int
) -> None:
    url = f"http://127.0.0.1:{house.ports['server']}/api/drip?duration=30&numbytes=3000"
    fetching = Running(tmp_path, "--role", "client", "-o", "out", url)
    try:
        part = tmp_path / "out.part"
        for _ in range(2000):
            if part.exists() and part.stat().st_size:
                break
            time.sleep(0.005)  # another process's affair: there is nothing here to wait on
        fetching.signal(number)
        got, out, err = fetching.end()
        assert (got, out, err.count("\n")) == (status, "", 1)
        assert err.startswith(f"reactor: {url}: {why}; {part.stat().st_size} bytes of it are in out.part")
        assert not (tmp_path / "out").exists()
    finally:
        fetching.kill()


def test_a_signal_to_a_fetch_beside_a_server_is_no_failure(house: Running, folder: Path) -> None:
    url = f"http://127.0.0.1:{house.ports['server']}/api/delay/30"
    running = Running(folder, "--role", "server", *PORT_0, "--root", "site", "--role", "client", url)
    try:
        running.signal(signal.SIGINT)
        status, out, err = running.end()
        assert (status, out) == (0, "") and err in ("", f"reactor: {url}: interrupted\n")
    finally:
        running.kill()


def started(folder: Path, *argv: str) -> Running:
    return Running(folder, *argv, "--role", "users_own:Hello", *PORT_0)


HELD = b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_what_runs_end(folder: Path, number: int) -> None:
    running = started(folder, "--grace", "60", "--verbose")
    try:
        idle, busy = running.connect("users_own:Hello"), running.connect("users_own:Hello")
        idle.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert idle.recv(1000).endswith(b"hello from a handler")
        busy.sendall(b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n")
        assert busy.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        running.signal(number)
        running.until_refused("users_own:Hello")
        assert idle.recv(1000) == b"", "an idle connection is closed"
        busy.sendall(b"0123456789")
        answer = busy.makefile("rb").read()
        assert b"\r\nConnection: close\r\n" in answer and answer.endswith(b"\r\n\r\n0123456789")
        idle.close()
        busy.close()
        status, _, err = running.end()
        assert status == 0
        assert "stopping" in err and "127.0.0.1 connected to" in err and "127.0.0.1 is gone" in err
    finally:
        running.kill()


def test_a_signal_as_soon_as_the_listener_is_said_to_be_ready(folder: Path) -> None:
    running = started(folder)
    try:
        running.signal(signal.SIGTERM)
        assert running.end() == (0, "", "")
    finally:
        running.kill()


def test_what_does_not_end_is_reset_after_the_grace(folder: Path) -> None:
    running = started(folder, "--grace", "0.1", "--access-log", "-")
    try:
        with running.connect("users_own:Hello") as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" + HELD)  # answered once both are read
            assert sock.recv(1000).endswith(b"hello from a handler")
            running.signal(signal.SIGTERM)
            assert running.end()[::2] == (0, "")
            with pytest.raises(ConnectionResetError):
                sock.recv(1000)
    finally:
        running.kill()


def test_a_second_signal_ends_at_once(folder: Path) -> None:
    running = started(folder, "--grace", "3600", "--access-log", "-")
    try:
        with running.connect("users_own:Hello") as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" + HELD)
            assert sock.recv(1000).endswith(b"hello from a handler")
            running.signal(signal.SIGTERM)
            running.until_refused("users_own:Hello")
            running.signal(signal.SIGTERM)
            status, out, err = running.end()
            assert (status, err) == (0, "")
            with pytest.raises(ConnectionResetError):
                sock.recv(1000)
        assert [re.search(r'" ([0-9]+) ', line)[1] for line in out.splitlines()] == ["200", "499"]  # type: ignore[index]
    finally:
        running.kill()


def test_from_the_shell_too_it_is_one_line_and_no_traceback(folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command: Sequence[str] = [sys.executable, "-m", "reactor.run", "--role", "server", "--root", "nowhere"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "reactor: --root nowhere: not a directory\n")


LOADED = """
import sys
from reactor.run import configure
configure(sys.argv[1:])
print(*sorted(sys.modules), sep="\\n")
"""


@pytest.mark.parametrize(
    ("words", "needless"),
    [
        ("--role client http://a/", r"cache(\..*)?|reactor\.(server|listener|tls)|handlers\.(script|static|access.*)|ssl|_?hashlib"),
        ("--role server", r"cache(\..*)?|handlers\.(caching|proxy|script|fetch.*)|reactor\.(client_connection|tls)|ssl"),
        ("--role proxy", r"handlers\.(script|static|api|fetch.*)|reactor\.tls|ssl"),
    ],
)
def test_a_role_loads_what_it_was_asked_for(folder: Path, words: str, needless: str) -> None:
    """A command line is waited for: each module costs time."""
    command = [sys.executable, "-c", LOADED, *words.split(), "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert [name for name in done.stdout.split() if re.fullmatch(needless, name)] == []


@pytest.mark.parametrize("words", [["--help"], ["--role", "client", "--help"], ["--version"], ["--role", "server", "--check"]])
def test_a_reader_that_leaves_early_gets_no_traceback(words: list[str]) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    command = [sys.executable, "-m", "reactor.run", *words]
    with open(writes, "wb") as out:
        done = subprocess.run(command, cwd=ROOT, stdout=out, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


class Unheard(io.StringIO):
    """A standard error whose reader has left."""

    def flush(self) -> None:
        raise BrokenPipeError


def test_a_listener_that_nobody_hears_of_listens(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    process = read(f"--role server {' '.join(PORT_0)}")
    monkeypatch.setattr(sys, "stderr", Unheard())
    process.groups[0].start()
    with socket.create_connection(("127.0.0.1", process.groups[0].listeners[0].port), timeout=20):
        pass


def test_whoever_closed_the_standard_outputs_gets_the_exit_status_all_the_same(folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for flags, status in (("--role server --root nowhere", 2), ("--role server --root site --check", 0), ("--help", 0)):
        command = ["sh", "-c", f'exec "$0" -m reactor.run {flags} <&- >&- 2>&-', sys.executable]
        assert subprocess.run(command, cwd=folder, env=environment, check=False).returncode == status
