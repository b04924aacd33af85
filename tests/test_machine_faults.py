"""Faults on the machine's side: no descriptors, files that may not grow, signals, helpers killed, clocks set back and forth."""

from __future__ import annotations

import json
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from handlers.access_log import AccessLog
from handlers.log_sink import Sink
from handlers.users_file import make_entry
from reactor.resolver import POSITIVE_SECONDS
from tests.loopback import WALL, House, housed
from tests.origin import Proxy
from tests.test_control import Client
from tests.test_run import PORT_0, Running, make_folder
from tests.test_three_tiers import HELLO, Tiers

ANSWER = b"hello\n"
LARGE = bytes(range(256)) * 1000  # more than the cache keeps in plain memory
Start = Callable[..., Running]


@pytest.fixture
def house() -> Iterator[House]:
    yield from housed()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_folder(tmp_path)
    (tmp_path / "site" / "large").write_bytes(LARGE)
    os.utime(tmp_path / "site" / "large", (1e9, 1e9))
    return tmp_path


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Starts a process in the folder; what it still runs at the end is killed."""
    with ExitStack() as stack:

        def start(*argv: str) -> Running:
            running = Running(folder, *argv)
            stack.callback(running.kill)
            return running

        yield start


@pytest.fixture
def origin(start: Start) -> Running:
    """A server in a process of its own, which no fault of the proxy's touches."""
    return start("--role", "server", *PORT_0, "--root", "site")


class Asking:
    """A kept connection to a proxy."""

    def __init__(self, proxy: Running) -> None:
        self.sock = proxy.connect("proxy")
        self.reader = self.sock.makefile("rb")

    def send(self, url: str) -> None:
        self.sock.sendall(f"GET {url} HTTP/1.1\r\nHost: a\r\n\r\n".encode())

    def receive(self) -> tuple[int, bytes]:
        status, length = int(self.reader.readline().split()[1]), 0
        while (line := self.reader.readline()) not in (b"\r\n", b""):
            if line.lower().startswith(b"content-length:"):
                length = int(line[15:])
        return status, self.reader.read(length)

    def ask(self, url: str) -> tuple[int, bytes]:
        self.send(url)
        return self.receive()

    def hang_up(self) -> None:
        """Hear the end and leave, which a proxy that has ended its own side waits for (RFC 9112 section 9.6)."""
        assert self.reader.read(1) == b""
        self.reader.close()
        self.sock.close()


def heard(running: Running, text: str) -> None:
    """The process says on standard error what holds the text."""
    assert running.process.stderr is not None
    line = running.process.stderr.readline().decode()
    assert text in line, line


def url_of(server: Running, path: str = "/hello.txt") -> str:
    return f"http://127.0.0.1:{server.ports['server']}{path}"


# No descriptors left.


def test_without_descriptors_hits_go_on_and_all_else_recovers(start: Start, origin: Running) -> None:
    proxy, other = start("--role", "proxy", *PORT_0), start("--role", "server", *PORT_0, "--root", "site")
    before = Asking(proxy)
    assert before.ask(url_of(origin)) == (200, ANSWER)
    pid = proxy.process.pid
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (1, limits[1]))
    assert before.ask(url_of(origin)) == (200, ANSWER), "a hit takes none"
    assert before.ask(url_of(origin, "/large")) == (200, LARGE), "nor does a kept connection, and a large body lies elsewhere"
    status, page = before.ask(url_of(other))
    assert status == 503 and b"Too many open files" in page
    waiting = Asking(proxy)
    waiting.send(url_of(origin))
    heard(proxy, "Too many open files")
    assert before.ask(url_of(origin)) == (200, ANSWER), "while accepting pauses"
    resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    assert waiting.receive() == (200, ANSWER)
    assert before.ask(url_of(other)) == (200, ANSWER)


def test_a_tunnel_without_descriptors_is_refused_and_later_made(start: Start, origin: Running) -> None:
    proxy = start("--role", "proxy", *PORT_0, "--connect-ports", "any")
    connect = f"CONNECT 127.0.0.1:{origin.ports['server']} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    clients = Asking(proxy), Asking(proxy)
    for client in clients:
        assert client.ask(url_of(origin)) == (200, ANSWER)
    pid = proxy.process.pid
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE, (1, resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]))
    clients[0].sock.sendall(connect)
    assert clients[0].receive()[0] == 503
    resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    clients[1].sock.sendall(connect)
    assert clients[1].receive() == (200, b"")
    clients[1].sock.sendall(b"GET /hello.txt HTTP/1.1\r\nHost: a\r\n\r\n")
    assert clients[1].receive() == (200, ANSWER)


# Files that may not grow: the log's disk is full, and so is what bodies are spilled to.


def test_no_room_for_files_costs_log_lines_alone_until_there_is_room_again(
    folder: Path, start: Start, origin: Running
) -> None:
    proxy = start("--role", "proxy", *PORT_0, "--access-log", "log", "--log-format", "json")
    client, pid = Asking(proxy), proxy.process.pid
    assert client.ask(url_of(origin)) == (200, ANSWER)
    limits = resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]))
    heard(proxy, "File too large; lines are lost")
    for _ in range(2):
        assert client.ask(url_of(origin)) == (200, ANSWER)
        assert client.ask(url_of(origin, "/large")) == (200, LARGE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)
    assert client.ask(url_of(origin, "/hello.txt?after")) == (200, ANSWER)
    heard(proxy, "written again; ")
    assert client.ask(url_of(origin, "/hello.txt?last")) == (200, ANSWER)
    proxy.signal(signal.SIGTERM)
    client.hang_up()
    proxy.process.wait(20)
    lines = [json.loads(line) for line in (folder / "log").read_text().splitlines()]
    assert lines[-1]["target"].endswith("?last")


# Signals.


def test_rules_users_and_logs_are_opened_again_under_load(folder: Path, start: Start, origin: Running) -> None:
    names = [f"user{number}" for number in range(8)]
    (folder / "users").write_text("".join(make_entry(name, "secret", log2_n=4) + "\n" for name in names))
    server = start("--role", "users_own:Hello", *PORT_0, "--users", "users", "--rules", "rules", "--access-log", "log")
    clients = [Client(server, name, "secret") for name in names]
    for round_ in range(30):
        for client in clients:
            client.sock.sendall(b"GET /%d HTTP/1.1\r\nHost: 127.0.0.1\r\n%b\r\n" % (round_, client.field))
        os.rename(folder / "log", folder / f"log.{round_}")
        server.signal((signal.SIGUSR1, signal.SIGHUP)[round_ % 2])
        server.signal(signal.SIGUSR1)
        (folder / "rules").write_text(f"deny path=/nothing{round_}\nallow host=127.0.0.1\n")
        for client in clients:
            assert b" 200 " in client.reader.readline()
            while client.reader.readline() != b"\r\n":
                pass
            assert client.reader.read(20) == b"hello from a handler"
        until_exists(folder / "log")
    server.signal(signal.SIGTERM)
    for client in clients:  # the server waits for them to hear its end and leave (RFC 9112 section 9.6)
        assert client.reader.read(1) == b""
        client.reader.close()
        client.sock.close()
    assert server.end() == (0, "", "")
    logs = "".join(path.read_text() for path in folder.iterdir() if path.name.startswith("log"))
    assert len(logs.splitlines()) == 30 * len(clients), "every request has its one line"


def until_exists(path: Path) -> None:
    for _ in range(4000):
        if path.exists():
            return
        time.sleep(0.005)  # another process's affair: there is nothing here to wait on
    raise AssertionError(f"{path} is not opened again")


# A helper process killed.


def test_a_proxy_outlives_the_helper_that_looks_names_up(house: House) -> None:
    proxy = Proxy(house)
    for path in ("/before", "/after"):
        client = proxy.connect()
        client.send(f"GET http://localhost:{proxy.origin.port}{path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        asked = proxy.asked()
        assert asked.target == path.encode()
        asked.answer(b"hi", "Connection: close")
        assert client.answer().body == b"hi"
        client.close()
        (helper,) = children(os.getpid())
        os.kill(helper, signal.SIGKILL)
        house.until(lambda helper=helper: not helper_runs(helper), "the helper's end")
        house.pass_time(POSITIVE_SECONDS)  # the name has to be looked up again


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def helper_runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


def test_a_process_outlives_the_helper_that_checks_passwords(folder: Path, start: Start) -> None:
    (folder / "users").write_text("".join(make_entry(name, "secret", log2_n=4) + "\n" for name in ("alice", "bob")))
    server = start("--role", "users_own:Hello", *PORT_0, "--users", "users")
    assert Client(server, "alice", "secret").ask() == 200
    (helper,) = children(server.process.pid)
    os.kill(helper, signal.SIGKILL)
    assert Client(server, "bob", "secret").ask() == 200
    assert Client(server, "bob", "wrong").ask() == 401


# The clock set back and forth.


@pytest.mark.parametrize("format", ["combined", "json"])
def test_the_clock_set_back_and_forth(
    house: House, tmp_path: Path, format: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "hello.txt").write_bytes(HELLO)
    os.utime(tmp_path / "hello.txt", (WALL - 7 * 86400,) * 2)
    tiers = Tiers(house, tmp_path)
    sink = Sink(str(tmp_path / "log"), house.reactor)
    house.cleanups.append(sink.close)
    logged = house.serve(AccessLog(tiers.proxied, sink, format == "json"))
    client = logged.connect()
    day, year, ahead = 86400.0, 365 * 86400.0, 4e9  # beyond what 32 bits can count
    for moved in (0.0, -1.0, -day, -WALL, 0.0, day, 10 * year, -10 * year, ahead, 0.0):
        house.wall.now = WALL + moved
        for _ in range(2):
            client.send(f"GET http://127.0.0.1:{tiers.server.port}/hello.txt HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            answer = client.answer()
            assert (answer.status, answer.body) == (200, HELLO)
            assert 0 <= int(answer.fields.get(b"age", b"0")) < 2**31
    assert tiers.proxied.ended[-1].verdict == "hit", "nothing stays broken"
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    sink.flush()
    assert len((tmp_path / "log").read_bytes().splitlines()) == 20


def test_a_clock_that_jumps_moves_no_deadline(house: House) -> None:
    proxy = Proxy(house)
    waiting, half = proxy.ask("/x"), proxy.connect()
    asked = proxy.asked()
    half.send(b"GET /y HTTP/1.1\r\n")
    for seconds in (1e9, -5e8, 0.0):
        house.wall.now = WALL + seconds
        house.turns()
    asked.answer(b"hi")
    assert waiting.answer().body == b"hi"
    half.expect_silence()
