"""Who may pass, from the command line on: files that are wrong, SIGHUP under traffic, and limits of a whole process."""

from __future__ import annotations

import base64
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from handlers.users_file import make_entry
from reactor.roles.process import Process
from reactor.roles.proxy import ProxyGroup
from reactor.run import configure, main
from tests.test_run import MODULE, PORT_0, Running

HELLO = b"GET /%b HTTP/1.1\r\nHost: a\r\n%b\r\n"
Start = Callable[..., Running]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to run in, with rules, users, and a handler that says hello."""
    (tmp_path / "users_own.py").write_text(MODULE)
    (tmp_path / "rules").write_text("# who may pass\ndeny path=/held\nallow all\n")
    (tmp_path / "users").write_text(make_entry("alice", "secret", log2_n=4) + "\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    return tmp_path


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Starts a process with a handler of the user's own under the flags."""
    running: list[Running] = []

    def start(*flags: str) -> Running:
        running.append(Running(folder, "--role", "users_own:Hello", *PORT_0, *flags))
        return running[-1]

    yield start
    for one in running:
        one.kill()


class Client:
    """A kept connection to the handler of the user's own."""

    def __init__(self, running: Running, name: str = "", password: str = "") -> None:
        self.sock = running.connect("users_own:Hello")
        self.reader = self.sock.makefile("rb")
        pair = base64.b64encode(f"{name}:{password}".encode())
        self.field = b"Authorization: Basic %b\r\n" % pair if name else b""

    def ask(self, path: bytes = b"") -> int:
        self.sock.sendall(HELLO % (path, self.field))
        status = int(self.reader.readline().split()[1])
        length = 0
        while (line := self.reader.readline()) not in (b"\r\n", b""):
            if line.lower().startswith(b"content-length:"):
                length = int(line[15:])
        self.reader.read(length)
        return status

    def until(self, status: int, path: bytes = b"") -> list[int]:
        """Ask until that is the answer; all that were given until then."""
        found = []
        for _ in range(5000):
            found.append(self.ask(path))
            if found[-1] == status:
                return found
        raise AssertionError(f"never {status}, but {set(found)}")


def heard(running: Running, text: str) -> str:
    """The process's next line on standard error, which holds the text."""
    assert running.process.stderr is not None
    line = running.process.stderr.readline().decode()
    assert text in line
    return line


# At the start.


@pytest.mark.parametrize("check", [(), ("--check",)])
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--rules nowhere", "--rules nowhere: No such file or directory"),
        ("--rules bad", "--rules bad: line 3, column 6: 'hst=x' is no condition"),
        ("--users nowhere", "--users nowhere: No such file or directory"),
        ("--users rules", "--users rules: line 2, column 1: not of the form name:hash"),
        ("--allow user=alice", "the rule `allow user=alice` can never hold: nobody is asked for a name without --users"),
        ("--client-rate 0", "--role proxy: argument --client-rate: '0' is not a number above 0"),
        ("--client-rate 1e3", "--role proxy: argument --client-rate: '1e3' is not a number above 0"),
        ("--client-connections +1", "--role proxy: argument --client-connections: '+1' is not a number"),
        ("--client-connections 0", "--role proxy: argument --client-connections: 0 is not a number from 1 on"),
        ("--listen 0.0.0.0:0 --rules denials", "a forward proxy on 0.0.0.0 would be open to everybody"),
        ("--listen 0.0.0.0:0 --rules empty", "a forward proxy on 0.0.0.0 would be open to everybody"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_and_nothing_starts(
    folder: Path, capsys: pytest.CaptureFixture[str], check: tuple[str, ...], flags: str, said: str
) -> None:
    (folder / "bad").write_text("allow all\n\ndeny hst=x\n")
    (folder / "denials").write_text("deny port=25\n")
    (folder / "empty").write_text("# nothing\n")
    assert main([*check, "--role", "proxy", *flags.split()]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"reactor: {said}") and err.count("\n") == 1


@pytest.mark.parametrize("flags", ["--rules rules", "--users users", "--users users --rules denials", "--allow all"])
def test_with_rules_or_users_a_proxy_may_be_seen_by_others(folder: Path, flags: str) -> None:
    (folder / "denials").write_text("deny port=25\n")
    assert main(["--check", "--role", "proxy", "--listen", "0.0.0.0:0", *flags.split()]) == 0


# SIGHUP.


def test_rules_are_read_again_under_traffic_and_no_request_is_lost(folder: Path, start: Start) -> None:
    running = start("--rules", "rules")
    client, held = Client(running), Client(running)
    assert (client.ask(), client.ask(b"held")) == (200, 403)
    held.sock.sendall(b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
    assert held.reader.readline() + held.reader.readline() == b"HTTP/1.1 100 Continue\r\n\r\n"
    (folder / "rules").write_text("deny path=/\nallow all\n")
    running.signal(signal.SIGHUP)
    assert set(client.until(403)) <= {200, 403}
    assert client.ask(b"x") == 200
    held.sock.sendall(b"ok")
    assert held.reader.readline() == b"HTTP/1.1 200 OK\r\n", "who was let through goes on"


def test_a_bad_file_leaves_the_old_rules_in_force_and_says_where(folder: Path, start: Start) -> None:
    running = start("--rules", "rules", "--deny", "path=/x")
    client = Client(running)
    for content, said in (
        ("allow all\ndeny  hst=x\n", "--rules rules: line 2, column 7: 'hst=x' is no condition"),
        ("allow user=bob\n", "the rule `allow user=bob` can never hold"),
        (None, "--rules rules: No such file or directory"),
    ):
        if content is None:
            (folder / "rules").unlink()
        else:
            (folder / "rules").write_text(content)
        running.signal(signal.SIGHUP)
        assert heard(running, said).endswith("; the old rules stay in force\n")
        assert (client.ask(), client.ask(b"held")) == (200, 403)
    (folder / "rules").write_text("deny path=/y\n")
    running.signal(signal.SIGHUP)
    client.until(403, b"y")
    assert (client.ask(), client.ask(b"x")) == (200, 403), "what the flags say stays"


def test_users_are_read_again_under_traffic(folder: Path, start: Start) -> None:
    running = start("--users", "users")
    alice, bob = Client(running, "alice", "secret"), Client(running, "bob", "b")
    assert (alice.ask(), bob.ask(), Client(running).ask()) == (200, 401, 401)
    (folder / "users").write_text(make_entry("bob", "b", log2_n=4) + "\n")
    running.signal(signal.SIGHUP)
    alice.until(401)
    assert bob.ask() == 200
    (folder / "users").write_text("bob:b\n")
    running.signal(signal.SIGHUP)
    assert "b\n" not in heard(running, "--users users: line 1, column 5: not a hash of the form").removesuffix("in force\n")
    assert bob.ask() == 200


def test_a_file_that_became_empty_opens_no_proxy_to_everybody(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "rules").write_text("allow client=10.0.0.0/8\n")
    process = configure(["--role", "proxy", "--listen", "0.0.0.0:0", "--rules", "rules"])
    assert isinstance(process, Process)
    (group,) = process.groups
    assert isinstance(group, ProxyGroup)
    group.make_handler()
    (reload,) = process.at_hangup
    (folder / "rules").write_text("")
    reload()
    assert [str(rule) for rule in group.access.rules] == ["allow client=10.0.0.0/8"]
    assert "would be open to everybody" in caplog.text
    process.close()


def test_without_a_file_to_read_sighup_ends_the_process_as_ever(start: Start) -> None:
    running = start("--allow", "all")
    running.signal(signal.SIGHUP)
    assert running.end()[0] == -signal.SIGHUP


# A proxy as a whole.


def test_a_browser_gets_its_script_without_a_password_and_nothing_else(folder: Path) -> None:
    running = Running(folder, "--role", "proxy", *PORT_0, "--users", "users", "--rules", "rules")
    try:
        address = f"127.0.0.1:{running.ports['proxy']}".encode()
        for target, status, holds in (
            (b"/proxy.pac", b"200", b'var proxy = "PROXY %b";' % address),
            (b"http://a.example/", b"407", b"\r\nProxy-Authenticate: Basic realm="),
            (b"a.example:443", b"407", b"\r\nProxy-Authenticate: Basic realm="),
        ):
            with running.connect("proxy") as sock:
                method = b"CONNECT" if target.endswith(b"443") else b"GET"
                sock.sendall(b"%b %b HTTP/1.0\r\nHost: %b\r\n\r\n" % (method, target, address))
                answer = sock.makefile("rb").read()
            assert answer.startswith(b"HTTP/1.1 %b " % status) and holds in answer
    finally:
        running.kill()


# Limits.


def test_connections_and_requests_are_limited_by_client(start: Start) -> None:
    running = start("--client-connections", "2", "--client-rate", "0.001")
    first, second = Client(running), Client(running)
    assert (first.ask(), second.ask()) == (200, 429)
    third = running.connect("users_own:Hello")
    assert third.makefile("rb").readline() == b"HTTP/1.1 503 Service Unavailable\r\n"
    first.sock.shutdown(socket.SHUT_RDWR)


def test_helpers_end_with_the_process(folder: Path, start: Start) -> None:
    running = start("--users", "users")
    assert Client(running, "alice", "secret").ask() == 200
    children = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children").read_text().split()
    assert len(children) == 1
    running.signal(signal.SIGTERM)
    running.signal(signal.SIGTERM)
    assert running.end()[0] == 0
    for pid in children:
        assert not os.path.exists(f"/proc/{pid}")
