"""Whole processes with logs and scripts: rotation, full disks, closed pipes, edits; and what is refused at the start."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reactor.run import main
from tests.test_run import PORT_0, Running, make_folder

SCRIPT = """
def request(exchange):
    if exchange.request.path == "/mine":
        exchange.answer(200, "of the script")

def response(exchange):
    exchange.response.fields["X-Seen"] = "yes"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_folder(tmp_path)
    (tmp_path / "filter.py").write_text(SCRIPT)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@contextlib.contextmanager
def running(folder: Path, *argv: str) -> Iterator[Running]:
    process = Running(folder, *argv)
    try:
        yield process
    finally:
        process.kill()


def ask(sock: socket.socket, target: str = "/hello.txt") -> bytes:
    """Head and body of a small answer."""
    sock.sendall(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(65536)
        assert piece, data
        data += piece
    length = re.search(rb"\r\nContent-Length: ([0-9]+)\r\n", data)
    assert length is not None
    while len(data.partition(b"\r\n\r\n")[2]) < int(length[1]):
        data += sock.recv(65536)
    return data


def hang_up(sock: socket.socket) -> None:
    """Hear the end and leave, which a server that has ended its own side waits for (RFC 9112 section 9.6)."""
    assert sock.recv(1) == b""
    sock.close()


def until(condition: Callable[[], Any]) -> None:
    for _ in range(4000):
        if condition():
            return
        time.sleep(0.005)  # another process's affair: there is nothing here to wait on
    raise AssertionError("it did not come to pass")


# Before anything starts.


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ("--access-log nowhere/log", "access log nowhere/log: No such file or directory"),
        ("--access-log site", "access log site: Is a directory"),
        ("--access-log users_own.py/log", "access log users_own.py/log: Not a directory"),
        ("--access-log fifo", "access log fifo: No such device or address"),
        ("--script nowhere.py", "script nowhere.py: No such file or directory"),
        ("--script broken.py", "script broken.py, line 2: NameError: name 'nothing' is not defined"),
        ("--script", "--role server: argument --script: expected one argument"),
    ],
)
def test_what_is_wrong_is_said_by_a_check_too(
    folder: Path, capsys: pytest.CaptureFixture[str], argv: str, line: str
) -> None:
    (folder / "broken.py").write_text("\nnothing\n")
    os.mkfifo(folder / "fifo")
    for check in ([], ["--check"]):
        assert main([*check, "--role", "server", *PORT_0, "--root", "site", *argv.split()]) == 2
        assert capsys.readouterr().err.splitlines()[-1] == f"reactor: {line}"


def test_a_check_makes_no_log(folder: Path) -> None:
    assert main("--check --access-log log --role server --script filter.py --role proxy --access-log -".split()) == 0
    assert not (folder / "log").exists()


# Logs.


def test_rotation_under_traffic_loses_no_line(folder: Path) -> None:
    with running(folder, "--role", "server", *PORT_0, "--root", "site", "--access-log", "log") as house:
        with house.connect("server") as sock:
            for number in range(60):
                ask(sock, f"/hello.txt?{number}")
                if number % 20 == 10:
                    os.rename(folder / "log", folder / f"log.{number}")
                    house.signal(signal.SIGUSR1)
                    until((folder / "log").exists)
        house.signal(signal.SIGTERM)
        assert house.end() == (0, "", "")
    logs = sorted(path for path in folder.iterdir() if path.name.startswith("log"))
    assert len(logs) == 4
    lines = "".join(path.read_text() for path in logs)
    assert sorted(map(int, re.findall(r"/hello\.txt\?([0-9]+) ", lines))) == list(range(60))


def test_the_signal_hurts_nobody_who_has_no_log(folder: Path) -> None:
    with running(folder, "--role", "server", *PORT_0, "--root", "site") as house, house.connect("server") as sock:
        house.signal(signal.SIGUSR1)
        assert ask(sock).endswith(b"hello\n")
        house.signal(signal.SIGTERM)
        hang_up(sock)
        assert house.end() == (0, "", "")


def test_a_full_disk_costs_no_request(folder: Path) -> None:
    with running(folder, "--role", "server", *PORT_0, "--root", "site", "--access-log", "/dev/full") as house:
        assert house.process.stderr is not None
        with house.connect("server") as sock:
            assert ask(sock).endswith(b"hello\n")
            assert b"access log /dev/full: No space left on device; lines are lost" in house.process.stderr.readline()
            assert ask(sock).endswith(b"hello\n")
        house.signal(signal.SIGTERM)
        status, _, err = house.end()
    assert status == 0 and err.endswith("access log /dev/full: 2 lines were lost\n")


def test_a_closed_pipe_costs_no_request(folder: Path) -> None:
    with running(
        folder, "--role", "server", *PORT_0, "--root", "site", "--access-log", "-", "--log-format", "json"
    ) as house:
        assert house.process.stderr is not None and house.process.stdout is not None
        with house.connect("server") as sock:
            ask(sock)
            assert json.loads(house.process.stdout.readline())["status"] == 200
            house.process.stdout.close()
            for _ in range(3):
                assert ask(sock).endswith(b"hello\n")
            assert b"access log -: Broken pipe; lines are lost" in house.process.stderr.readline()
        house.signal(signal.SIGTERM)
        house.process.wait(20)
        assert (house.process.returncode, house.process.stderr.read().count(b"3 lines were lost")) == (0, 1)


def test_the_json_log_of_a_whole_proxy(folder: Path) -> None:
    with running(
        folder, "--access-log", "log", "--role", "server", *PORT_0, "--root", "site", "--access-log", "off",
        "--role", "proxy", *PORT_0, "--log-format", "json", "--script", "filter.py", "--deny", "host=no.example",
    ) as house:  # fmt: skip
        origin = f"http://127.0.0.1:{house.ports['server']}"
        with house.connect("proxy") as sock:
            for target in (f"{origin}/hello.txt", f"{origin}/hello.txt", "http://u.example/mine", "http://no.example/"):
                assert (b"\r\nX-Seen: yes\r\n" in ask(sock, target)) == target.startswith(origin)
            sock.sendall(b"nonsense\r\n\r\n")
            assert sock.recv(1000).startswith(b"HTTP/1.1 400 ")
        house.signal(signal.SIGTERM)
        assert house.end() == (0, "", "")
    miss, hit, mine, denied, refused = map(json.loads, (folder / "log").read_text().splitlines())
    assert [one["verdict"] for one in (miss, hit, mine, denied, refused)] == ["miss", "hit", "script", "denied", None]
    assert [one["status"] for one in (miss, hit, mine, denied, refused)] == [200, 200, 200, 403, 400]
    assert miss["cache_status"].startswith("reactor; fwd=uri-miss; stored") and hit["cache_status"].startswith(
        "reactor; hit"
    )
    assert denied["reason"] == "refused by the access rule: deny host=no.example"
    timed = {name: value for name, value in miss.items() if name.endswith("_ms")}
    assert all(value >= 0 for value in timed.values())
    assert timed["duration_ms"] >= timed["head_ms"] >= timed["first_byte_ms"]
    assert [name for name, value in mine.items() if name.endswith("_ms") and value is None] == [
        "lookup_ms", "dns_ms", "connect_ms", "first_byte_ms", "upstream_wait_ms"
    ]  # fmt: skip
    assert denied["script_ms"] is None and refused["reason"]


# Scripts.


def test_a_script_before_every_role_that_listens_and_its_edit(folder: Path) -> None:
    with running(
        folder, "--role", "server", *PORT_0, "--root", "site", "--script", "filter.py",
        "--role", "users_own:Hello", *PORT_0, "--script", "filter.py",
    ) as house:  # fmt: skip
        for name in ("server", "users_own:Hello"):
            with house.connect(name) as sock:
                assert ask(sock, "/mine").endswith(b"of the script")
                assert b"\r\nX-Seen: yes\r\n" in ask(sock)
        (folder / "filter.py").write_text("def request(exchange): exchange.answer(200, 'of an edit')")
        with house.connect("server") as sock:
            until(lambda: ask(sock).endswith(b"of an edit"))
            (folder / "filter.py").write_text("def request(exchange) exchange")
            said = house.process.stderr
            assert said is not None
            until(lambda: ask(sock) and select.select([said], [], [], 0)[0])
            assert (
                b"script filter.py, line 1: SyntaxError: expected ':'; the one read before stays in force" in said.readline()
            )
            assert ask(sock).endswith(b"of an edit")
        house.signal(signal.SIGTERM)
        house.process.wait(20)
        assert house.process.returncode == 0
