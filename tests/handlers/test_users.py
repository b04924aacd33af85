"""Who the client is: credentials as text, and whole dialogues with helpers that check, hang, die and lie."""

from __future__ import annotations

import base64
import os
import signal
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers import users as users_module
from handlers.access import AccessControl
from handlers.access_log import AccessLog
from handlers.access_rules import parse_rules_file
from handlers.log_sink import Sink
from handlers.users import (
    CHECK_SECONDS,
    CHECKS_PER_CLIENT,
    CREDENTIALS_BYTES,
    FAILURE_SECONDS,
    FAILURES,
    REMEMBERED_SECONDS,
    PasswordChecker,
    Users,
    parse_basic,
)
from handlers.users_file import make_entry, parse_users_file
from reactor.exchange import Exchange
from reactor.helpers import QUEUE_SECONDS
from tests.loopback import Handling, House, Peer, Served, housed, says
from tests.origin import Proxy

ROOT = Path(__file__).resolve().parent.parent.parent
CHEAP = 4  # 2**4: scrypt at its fastest
ENTRY = make_entry("alice", "secret", CHEAP)

# A helper that does what the password says, and writes down what it was asked.
HELPER = textwrap.dedent(
    """
    import base64, os, sys
    log = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    pending = b""
    while data := os.read(0, 65536):
        pending += data
        line, _, pending = pending.partition(b"\\n")
        os.write(log, line + b"\\n")
        password = base64.b64decode(line.split(b" ")[5])
        if password.startswith(b"hang"):
            os.read(0, 1)
            os._exit(0)
        if password == b"die" or password == b"once" and not os.path.exists(sys.argv[1] + ".died"):
            os.close(os.open(sys.argv[1] + ".died", os.O_CREAT))
            os._exit(3)
        answers = {b"lie": b"perhaps", b"secret": b"yes", b"once": b"yes"}
        os.write(0, answers.get(password, b"no") + b"\\n")
    """
)


@pytest.fixture
def house() -> Iterator[House]:
    yield from housed()


def credentials(name: str, password: str) -> bytes:
    return b"Basic " + base64.b64encode(f"{name}:{password}".encode())


class World:
    """A forward proxy, or something in an origin's place, that asks for passwords; its helper is scripted."""

    def __init__(
        self,
        house: House,
        tmp_path: Path,
        proxy: bool = True,
        real: bool = False,
        rules: str = "",
        timeout: float = CHECK_SECONDS,
    ) -> None:
        self.house = house
        self.log = tmp_path / "asked"
        self.handling = Handling(says(b"inside"))
        command = None if real else [sys.executable, "-I", "-S", "-c", HELPER, str(self.log)]
        users = parse_users_file(ENTRY + "\n" + make_entry("bob", "secret", CHEAP))
        self.checker = PasswordChecker(house.reactor, users, command, timeout)
        handler = AccessControl(self.handling, parse_rules_file(rules))
        self.served: Served = house.serve(Users(handler, self.checker, proxy))
        self.field = b"Proxy-Authorization" if proxy else b"Authorization"
        house.cleanups.append(self.checker.close)

    def request(self, name: str = "", password: str = "", target: bytes = b"http://a.example/") -> bytes:
        line = b"%b: %b\r\n" % (self.field, credentials(name, password)) if name else b""
        return b"GET %b HTTP/1.1\r\nHost: a.example\r\n%bAccept: */*\r\n\r\n" % (target, line)

    def ask(self, name: str = "", password: str = "") -> Peer:
        peer = self.served.connect()
        peer.send(self.request(name, password))
        return peer

    def status(self, name: str = "", password: str = "") -> int:
        return self.ask(name, password).answer().status

    def asked(self) -> list[bytes]:
        """The passwords that the helpers were asked about."""
        lines = self.log.read_bytes().splitlines() if self.log.exists() else []
        return [base64.b64decode(line.split(b" ")[5]) for line in lines]


# Dialogues.


def test_a_forward_proxy_asks_by_407_and_takes_proxy_authorization(house: House, tmp_path: Path) -> None:
    world = World(house, tmp_path)
    peer = world.ask()
    answer = peer.answer()
    assert (answer.status, answer.fields[b"proxy-authenticate"]) == (407, b'Basic realm="reactor", charset="UTF-8"')
    assert answer.body == b"407 Proxy Authentication Required: a user's name and password are needed\n"
    assert b"www-authenticate" not in answer.fields
    peer.send(world.request("alice", "secret"))
    assert peer.answer().body == b"inside"
    assert world.handling.last.user == "alice"


def test_in_an_origins_place_it_is_401_and_authorization(house: House, tmp_path: Path) -> None:
    world = World(house, tmp_path, proxy=False)
    peer = world.served.connect()
    peer.send(b"GET / HTTP/1.1\r\nHost: a\r\nProxy-Authorization: %b\r\n\r\n" % credentials("alice", "secret"))
    answer = peer.answer()
    assert (answer.status, answer.fields[b"www-authenticate"]) == (401, b'Basic realm="reactor", charset="UTF-8"')
    assert b"proxy-authenticate" not in answer.fields
    assert world.status("alice", "secret") == 200


def test_a_tunnel_is_asked_for_too(house: House, tmp_path: Path) -> None:
    world = World(house, tmp_path)
    peer = world.served.connect()
    peer.send(b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n")
    assert peer.answer().status == 407
    peer.expect_close()
    assert world.handling.exchanges == []


def test_what_is_behind_sees_the_user_and_no_password(house: House, tmp_path: Path) -> None:
    for proxy in (True, False):
        world = World(house, tmp_path, proxy=proxy)
        assert world.status("alice", "secret") == 200
        exchange = world.handling.last
        assert exchange.user == "alice"
        assert [name for name, _ in exchange.request.fields] == [b"Host", b"Accept"]


@pytest.mark.parametrize("reverse", [False, True])
def test_the_field_never_travels_on(house: House, tmp_path: Path, reverse: bool) -> None:
    proxy = Proxy(house, reverse)
    checker = PasswordChecker(house.reactor, parse_users_file(ENTRY))
    house.cleanups.append(checker.close)
    peer = house.serve(Users(proxy.forwarding, checker, proxy=not reverse)).connect()
    field = "Authorization" if reverse else "Proxy-Authorization"
    peer.send(proxy.get("/", f"{field}: {credentials('alice', 'secret').decode()}", "X: y"))
    upstream = proxy.origin.accept()
    head = upstream.take_until(b"\r\n\r\n")
    assert b"\r\nX: y\r\n" in head and b"uthorization" not in head
    upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert peer.answer().body == b"ok"


def test_rules_may_speak_of_users(house: House, tmp_path: Path) -> None:
    world = World(house, tmp_path, rules="allow user=alice\ndeny all")
    assert world.status("alice", "secret") == 200
    refused = world.ask("bob", "secret").answer()
    assert (refused.status, refused.body) == (403, b"403 Forbidden: refused by the access rule: deny all\n")


def test_the_real_helper_checks_what_the_real_script_made(house: House, tmp_path: Path) -> None:
    world = World(house, tmp_path, real=True)
    assert world.status("alice", "secret") == 200
    assert world.status("alice", "Secret") == 407
    assert world.status("carol", "secret") == 407


def test_who_leaves_before_the_answer_costs_nothing(house: House, tmp_path: Path) -> None:
    world = World(house, tmp_path)
    for number in range(users_module.HELPERS):
        world.ask("alice", f"hang{number}")
    house.until(lambda: len(world.asked()) == users_module.HELPERS)
    waiting = world.ask("alice", "secret")
    assert len(world.checker._checks) == users_module.HELPERS + 1
    waiting.reset()
    house.until(lambda: len(world.checker._checks) == users_module.HELPERS)
    house.pass_time(CHECK_SECONDS)
    house.turns()
    assert b"secret" not in world.asked() and not world.checker._clients


def test_who_leaves_as_the_answer_comes_costs_nothing(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(house, tmp_path)
    settled = world.checker._settled

    def leaving(check: Any, good: bool | None) -> None:
        for waiter in check.waiters:
            house.reactor.call_soon(waiter.exchange.abort, "gone")
            house.reactor.call_soon(waiter.exchange.finish, "gone")
        settled(check, good)

    monkeypatch.setattr(world.checker, "_settled", leaving)
    world.ask("alice", "secret").expect_reset()
    assert caplog.text == "" and not world.handling.exchanges


# What is not checked again, and what is.


def test_credentials_that_were_good_are_not_checked_again_for_a_moment(house: House, tmp_path: Path) -> None:
    world = World(house, tmp_path)
    for _ in range(3):
        assert world.status("alice", "secret") == 200
    assert world.asked() == [b"secret"]
    house.pass_time(REMEMBERED_SECONDS)
    assert world.status("alice", "secret") == 200
    assert world.asked() == [b"secret"] * 2


def test_what_was_wrong_is_checked_each_time(house: House, tmp_path: Path) -> None:
    world = World(house, tmp_path)
    assert [world.status("alice", "wrong") for _ in range(2)] == [407] * 2
    assert world.asked() == [b"wrong"] * 2


def test_the_same_credentials_at_the_same_time_are_one_check(house: House, tmp_path: Path) -> None:
    world = World(house, tmp_path)
    peers = [world.served.connect() for _ in range(6)]
    for peer in peers:
        peer.sock.send(world.request("alice", "secret"))
    assert [peer.answer().status for peer in peers] == [200] * 6
    assert world.asked() == [b"secret"]


def test_the_memo_is_bounded(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users_module, "REMEMBERED_LIMIT", 1)
    world = World(house, tmp_path)
    for name in ("alice", "bob", "alice"):
        assert world.status(name, "secret") == 200
        assert len(world.checker._remembered) == 1
    assert len(world.asked()) == 3


def test_a_name_that_nobody_has_costs_what_the_dearest_entry_does(house: House, tmp_path: Path) -> None:
    world = World(house, tmp_path)
    world.checker.replace(parse_users_file(ENTRY + "\n" + make_entry("bob", "b", CHEAP + 1)))
    assert world.status("carol", "secret") == 407, "the scripted helper says yes, and still it is nobody"
    (line,) = world.log.read_bytes().splitlines()
    assert line.startswith(b"%d 8 5 " % 2 ** (CHEAP + 1))


# The file changes.


def test_a_changed_entry_is_forgotten_and_an_unchanged_one_is_not(house: House, tmp_path: Path) -> None:
    world = World(house, tmp_path)
    for name in ("alice", "bob"):
        assert world.status(name, "secret") == 200
    world.checker.replace(parse_users_file(ENTRY + "\n" + make_entry("bob", "other", CHEAP)))
    assert world.status("alice", "secret") == 200
    assert world.asked() == [b"secret"] * 2
    assert world.status("bob", "secret") == 200
    assert world.asked() == [b"secret"] * 3, "his entry is another one"
    world.checker.replace({})
    assert world.status("alice", "secret") == 407


def test_a_check_that_an_entrys_change_overtook_lets_nobody_in(house: House, tmp_path: Path) -> None:
    world = World(house, tmp_path)
    peer = world.ask("alice", "secret")
    world.checker.replace({})
    assert peer.answer().status == 407


# Helpers that fail.


def test_a_helper_killed_in_the_middle_of_a_check_is_replaced_and_the_check_done(house: House, tmp_path: Path) -> None:
    world = World(house, tmp_path)
    peer = world.ask("alice", "once")
    assert peer.answer().status == 200
    assert world.asked() == [b"once"] * 2


def test_a_helper_killed_from_outside_in_the_middle_of_a_check(house: House, tmp_path: Path) -> None:
    world = World(house, tmp_path)
    peer = world.ask("alice", "hang")
    for number in (1, 2):
        house.until(lambda number=number: len(world.asked()) == number)
        (helper,) = world.checker._pool.helpers
        os.kill(helper.process.pid, signal.SIGKILL)
    refused = peer.answer()
    assert (refused.status, refused.fields[b"retry-after"]) == (503, b"2")
    assert world.status("alice", "secret") == 200


def test_a_helper_that_hangs_is_replaced(house: House, tmp_path: Path) -> None:
    world = World(house, tmp_path)
    peer = world.ask("alice", "hang")
    house.until(lambda: world.asked() == [b"hang"])
    house.pass_time(CHECK_SECONDS)
    assert peer.answer().body == b"503 Service Unavailable: the password could not be checked\n"
    assert world.status("alice", "secret") == 200


@pytest.mark.parametrize("password", ["die", "lie"])
def test_a_password_that_two_helpers_fail_over_is_not_taken(house: House, tmp_path: Path, password: str) -> None:
    world = World(house, tmp_path)
    assert world.status("alice", password) == 503
    assert world.status("alice", "secret") == 200


def test_a_helper_that_cannot_be_started(house: House) -> None:
    checker = PasswordChecker(house.reactor, parse_users_file(ENTRY), ["/nowhere/at/all"])
    peer = house.serve(Users(Handling(), checker, True)).connect()
    peer.send(b"GET http://a/ HTTP/1.1\r\nHost: a\r\nProxy-Authorization: %b\r\n\r\n" % credentials("alice", "secret"))
    assert peer.answer().status == 503


def test_a_handler_that_raises_after_the_check_costs_its_own_exchange(house: House, tmp_path: Path) -> None:
    def broken(exchange: Exchange) -> None:
        raise KeyError("a bug")

    world = World(house, tmp_path)
    world.handling.answer = broken
    assert world.status("alice", "secret") == 500
    world.handling.answer = says(b"inside")
    assert world.status("alice", "secret") == 200


def test_closing_refuses_who_waits(house: House, tmp_path: Path) -> None:
    world = World(house, tmp_path)
    peer = world.ask("alice", "hang")
    world.checker.close()
    assert peer.answer().status == 503


# Too many.


def test_a_queue_that_is_full_is_503(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users_module, "QUEUE_LIMIT", 2)
    world = World(house, tmp_path)
    for number in range(users_module.HELPERS + 2):
        world.ask("alice", f"hang{number}")
    house.until(lambda: world.checker._pool.full)
    refused = world.ask("bob", "secret").answer()
    assert (refused.status, refused.fields[b"retry-after"]) == (503, b"2")


def test_who_waits_too_long_in_the_queue_is_503(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users_module, "HELPERS", 1)
    world = World(house, tmp_path, timeout=2 * QUEUE_SECONDS)
    world.ask("alice", "hang")
    house.until(lambda: world.asked() == [b"hang"])
    waiting = world.ask("bob", "secret")
    house.pass_time(QUEUE_SECONDS)
    assert waiting.answer().status == 503
    assert world.asked() == [b"hang"]


def test_one_client_has_so_many_checks_at_a_time_and_others_have_theirs(house: House, tmp_path: Path) -> None:
    world = World(house, tmp_path)
    for number in range(CHECKS_PER_CLIENT):
        world.ask("alice", f"hang{number}")
    house.until(lambda: len(world.checker._checks) == CHECKS_PER_CLIENT)
    refused = world.ask("alice", "secret").answer()
    assert (refused.status, refused.fields[b"retry-after"]) == (429, b"2")
    assert world.checker.refusal(b"another's", "192.0.2.1") is None


def test_guessing_is_slowed_and_hurts_nobody_else(house: House, tmp_path: Path) -> None:
    world = World(house, tmp_path)
    assert world.status("bob", "secret") == 200
    for number in range(FAILURES):
        assert world.status("alice", f"guess{number}") == 407
    refused = world.ask("alice", "guess").answer()
    assert (refused.status, refused.fields[b"retry-after"]) == (429, b"%d" % FAILURE_SECONDS)
    assert refused.body == b"429 Too Many Requests: too many wrong passwords\n"
    assert world.status("alice", "secret") == 429, "not even the right one: that would tell it"
    assert world.status("bob", "secret") == 200, "who is known goes on, from the same address too"
    assert world.checker.refusal(b"another's", "192.0.2.1") is None
    house.pass_time(FAILURE_SECONDS)
    assert world.status("alice", "secret") == 200
    assert b"guess" not in world.asked()


def test_good_passwords_are_no_failures(house: House, tmp_path: Path) -> None:
    world = World(house, tmp_path)
    for _ in range(FAILURES + 5):
        house.pass_time(REMEMBERED_SECONDS)
        assert world.status("alice", "secret") == 200


# What is written down.


@pytest.mark.parametrize("format", ["combined", "json"])
def test_credentials_never_appear_in_a_log(
    house: House, tmp_path: Path, caplog: pytest.LogCaptureFixture, format: str
) -> None:
    caplog.set_level("DEBUG")
    checker = PasswordChecker(house.reactor, parse_users_file(ENTRY), [sys.executable, "-c", HELPER, str(tmp_path / "asked")])
    sink = Sink(str(tmp_path / "log"), house.reactor)
    log = AccessLog(Users(Handling(says(b"inside")), checker, True), sink, format == "json")
    house.cleanups += [sink.close, checker.close]
    served = house.serve(log)
    for password, status in (("secret", 200), ("wr0ng", 407), ("lie", 503)):
        peer = served.connect()
        peer.send(b"GET http://a/ HTTP/1.1\r\nHost: a\r\nProxy-Authorization: %b\r\n\r\n" % credentials("alice", password))
        assert peer.answer().status == status
        peer.close()
    house.turns()
    sink.flush()
    lines = (tmp_path / "log").read_text().splitlines()
    assert ["alice" in line for line in lines] == [True, False, False]
    said = caplog.text + "\n".join(lines)
    for password in ("secret", "wr0ng", "lie"):
        encoded = [base64.b64encode(password.encode()).decode(), credentials("alice", password).decode()[6:]]
        for secret in (f":{password}", *encoded):
            assert secret not in said


# Credentials as text.


def basic(text: bytes) -> bytes:
    return b"Basic " + base64.b64encode(text)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (basic(b"alice:secret"), ("alice", b"secret")),
        (b"bAsIc   " + base64.b64encode(b"alice:secret"), ("alice", b"secret")),
        (basic(b"alice:a:b:"), ("alice", b"a:b:")),
        (basic(b"alice:"), ("alice", b"")),
        (basic(b":secret"), ("", b"secret")),
        (basic("bücher:pässe".encode()), ("bücher", "pässe".encode())),
        (basic("bu\u0308cher:pa\u0308sse".encode()), ("bücher", "pässe".encode())),
        (basic(b"b\xfccher:x"), None),
        (basic(b"alice"), None),
        (basic(b"alice:a\nb"), None),
        (basic(b"al\0ice:b"), None),
        (b"Basic", None),
        (b"Basic ", None),
        (b"Basic\tYTpi", None),
        (b"Basic YTpi ", None),
        (b"Basic YTpi, Basic YTpi", None),
        (b"Basic YTpi=", None),
        (b"Basic YTp", None),
        (b"Basic Y=Tpi", None),
        (b"Basic _-_-", None),
        (b"Bearer YTpi", None),
        (b"YTpi", None),
        (b"", None),
    ],
)
def test_credentials(value: bytes, found: tuple[str, bytes] | None) -> None:
    assert parse_basic(value) == found


@given(st.one_of(st.binary(max_size=80), st.binary(max_size=60).map(basic)))
def test_any_field_is_credentials_or_nothing(value: bytes) -> None:
    found = parse_basic(value)
    assert found is None or (":" not in found[0] and b"\n" not in found[1])


def test_a_field_too_long_is_nobodys(house: House, tmp_path: Path) -> None:
    world = World(house, tmp_path)
    assert world.status("alice", "x" * CREDENTIALS_BYTES) == 407
    assert world.asked() == []
