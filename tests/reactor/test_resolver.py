"""Names in, addresses out, with helper processes that answer, hang, die, lie and never start."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactor import lookup
from reactor import resolver as resolver_module
from reactor.errors import UpstreamError
from reactor.helpers import IDLE_SECONDS, QUEUE_SECONDS, helper_command
from reactor.loop import Reactor
from reactor.resolver import LOOKUP_SECONDS, NEGATIVE_SECONDS, POSITIVE_SECONDS, Resolver

# A helper that does what the name it is asked for says. What it was asked goes to the file named by its argument.
HELPER = textwrap.dedent(
    """
    import os, signal, sys
    signal.signal(signal.SIGUSR1, lambda number, frame: os.write(0, b"ok 2 192.0.2.66 0\\n"))
    log = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    pending = b""
    while data := os.read(0, 65536):
        pending += data
        while b"\\n" in pending:
            name, _, pending = pending.partition(b"\\n")
            os.write(log, name + b"\\n")
            if name == b"endless":
                os.write(0, b"x" * 40000)
            if name in (b"endless", b"hang"):
                os.read(0, 1)
                os._exit(0)
            if name.startswith(b"die"):
                os._exit(3)
            if name.startswith(b"once"):
                if not os.path.exists(sys.argv[1] + ".died"):
                    os.close(os.open(sys.argv[1] + ".died", os.O_CREAT))
                    os._exit(3)
            answers = {
                b"two": b"ok 10 2001:db8::2 0 2 192.0.2.2 0",
                b"mapped": b"ok 10 ::ffff:10.0.0.1 0 2 10.0.0.1 0",
                b"scoped": b"ok 10 fe80::1 7",
                b"none": b"no Name or service not known",
                b"lie-address": b"ok 2 nonsense 0",
                b"lie-family": b"ok 1 /tmp/socket 0",
                b"lie-scope": b"ok 10 ::1 -1",
                b"lie-words": b"ok 2 127.0.0.1",
                b"lie-kind": b"perhaps",
                b"lie-bytes": b"ok 2 \\xff\\xfe 0",
                b"lie-nul": b"ok 2 127.0.0.1\\0 0",
            }
            os.write(0, answers.get(name, b"ok 2 192.0.2.1 0") + b"\\n")
    """
)


def running(resolver: Resolver) -> int:
    """How many helper processes there are."""
    return len(resolver._pool.helpers)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class House:
    """A reactor with a clock of its own, a resolver with a scripted helper, and what the callbacks were told."""

    def __init__(self, tmp_path: Path) -> None:
        self.clock = Clock()
        self.reactor = Reactor(clock=self.clock)
        self.log = tmp_path / "asked"
        self.command = [sys.executable, "-I", "-S", "-c", HELPER, str(self.log)]
        self.resolvers: list[Resolver] = []

    def resolver(self, helpers: int = 4, command: list[str] | None = None, timeout: float = LOOKUP_SECONDS) -> Resolver:
        made = Resolver(self.reactor, helpers, self.command if command is None else command, timeout)
        self.resolvers.append(made)
        return made

    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds
        self.reactor.turn(0)

    def asked(self) -> list[str]:
        return self.log.read_text().split() if self.log.exists() else []

    def until(self, condition: Callable[[], object]) -> None:
        for _ in range(400):
            if condition():
                return
            self.reactor.turn(0.05)
        raise AssertionError("it did not come to pass")

    def ask(self, resolver: Resolver, *names: str, port: int = 80) -> list[object]:
        """What the look-ups were answered, in the order of the names."""
        answers: dict[int, object] = {}
        for index, name in enumerate(names):
            resolver.resolve(name, port, lambda answer, index=index: answers.setdefault(index, answer))
        self.until(lambda: len(answers) == len(names))
        return [answers[index] for index in range(len(names))]

    def close(self) -> None:
        for resolver in self.resolvers:
            resolver.close()
            assert running(resolver) == 0
        assert self.reactor.watched == 0
        assert self.reactor.pending_timers == 0
        self.reactor.close()


@pytest.fixture
def house(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[House]:
    """Nothing in it raised but what the test meant to ("no")."""
    made = House(tmp_path)
    yield made
    made.close()
    assert [record for record in caplog.get_records("call") if record.exc_info and str(record.exc_info[1]) != "no"] == []


def refusal(answer: object) -> tuple[int, str, str]:
    assert isinstance(answer, UpstreamError), answer
    assert answer.phase == "resolve"
    return answer.status, answer.address, answer.reason


# Answers.


def test_the_real_helper_reads_the_hosts_file_and_ends_with_its_resolver(house: House) -> None:
    resolver = Resolver(house.reactor)
    house.resolvers.append(resolver)
    assert running(resolver) == 0
    (found,) = house.ask(resolver, "LocalHost", port=8080)
    assert {sockaddr[:2] for _, sockaddr in found} & {("127.0.0.1", 8080), ("::1", 8080)}  # type: ignore[attr-defined]
    assert running(resolver) == 1


def test_the_real_helper_says_no_to_what_is_no_name(house: House) -> None:
    resolver = Resolver(house.reactor)
    house.resolvers.append(resolver)
    status, address, _ = refusal(house.ask(resolver, "a..b")[0])
    assert (status, address) == (502, "a..b")


def test_the_real_helper_ends_when_its_socket_does() -> None:
    ours, theirs = socket.socketpair()
    process = subprocess.Popen(helper_command(lookup), stdin=theirs.fileno())
    theirs.close()
    ours.sendall(b"127.0.0.1\n")
    assert ours.recv(100) == b"ok 2 127.0.0.1 0\n"
    ours.close()
    assert process.wait() == 0


def test_addresses_come_in_the_helpers_order_with_the_callers_port(house: House) -> None:
    (found,) = house.ask(house.resolver(), "two", port=8443)
    assert found == [(socket.AF_INET6, ("2001:db8::2", 8443, 0, 0)), (socket.AF_INET, ("192.0.2.2", 8443))]


def test_a_scope_is_kept(house: House) -> None:
    (found,) = house.ask(house.resolver(), "scoped")
    assert found == [(socket.AF_INET6, ("fe80::1", 80, 0, 7))]


def test_an_ipv4_address_in_ipv6_clothes_is_an_ipv4_address_and_comes_once(house: House) -> None:
    (found,) = house.ask(house.resolver(), "mapped")
    assert found == [(socket.AF_INET, ("10.0.0.1", 80))]


def test_a_name_without_address_is_refused_with_502(house: House) -> None:
    assert refusal(house.ask(house.resolver(), "none")[0]) == (502, "none", "Name or service not known")


# Without a helper.

LITERALS = {
    "127.0.0.1": (socket.AF_INET, ("127.0.0.1", 80)),
    "::1": (socket.AF_INET6, ("::1", 80, 0, 0)),
    "2001:DB8:0:0:0:0:0:1": (socket.AF_INET6, ("2001:db8::1", 80, 0, 0)),
    "::ffff:127.0.0.1": (socket.AF_INET, ("127.0.0.1", 80)),
    "::FFFF:7f00:1": (socket.AF_INET, ("127.0.0.1", 80)),
    "fe80::1%1": (socket.AF_INET6, ("fe80::1", 80, 0, 1)),
    "fe80::1%lo": (socket.AF_INET6, ("fe80::1", 80, 0, socket.if_nametoindex("lo"))),
}


@pytest.mark.parametrize("host", LITERALS)
def test_a_numeric_address_needs_no_helper(house: House, host: str) -> None:
    resolver = house.resolver()
    assert house.ask(resolver, host) == [[LITERALS[host]]]
    assert running(resolver) == 0


NO_NAMES = ["", "a b", "a\nb", "a\0b", "a\r\nhang", "münchen.example", "\udcff", "x" * 254, "x" * 254 + "."]
NO_ADDRESSES = ["::1::", ":", "fe80::1%none"]


@pytest.mark.parametrize("host", NO_NAMES + NO_ADDRESSES)
def test_what_cannot_be_a_name_never_reaches_a_helper(house: House, host: str) -> None:
    resolver = house.resolver()
    status, address, _ = refusal(house.ask(resolver, host)[0])
    assert (status, address) == (502, host)
    assert running(resolver) == 0


@pytest.mark.parametrize("host", ["x" * 253, "x" * 253 + ".", "-rf", "%s", "a/b;c"])
def test_odd_names_go_to_the_helper_as_they_are(house: House, host: str) -> None:
    house.ask(house.resolver(), host)
    assert house.asked() == [host]


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_what_is_no_port_is_refused(house: House, port: int) -> None:
    assert refusal(house.ask(house.resolver(), "name", port=port)[0])[0] == 502


def test_nobody_is_called_from_within_resolve(house: House) -> None:
    resolver = house.resolver()
    house.ask(resolver, "name")
    answers: list[object] = []
    for host in ("127.0.0.1", "name", "a b"):  # a literal, a kept answer, a refusal
        resolver.resolve(host, 80, answers.append)
    assert answers == []
    house.reactor.turn(0)
    assert len(answers) == 3


# Memo and sharing.


def test_an_answer_is_kept_for_a_while_whatever_its_port_and_spelling(house: House) -> None:
    resolver = house.resolver()
    house.ask(resolver, "name", port=80)
    house.pass_time(POSITIVE_SECONDS - 1)
    assert house.ask(resolver, "NAME", port=81) == [[(socket.AF_INET, ("192.0.2.1", 81))]]
    assert house.asked() == ["name"]
    house.pass_time(1)
    house.ask(resolver, "name")
    assert house.asked() == ["name", "name"]


def test_a_failure_is_kept_for_a_shorter_while(house: House) -> None:
    resolver = house.resolver()
    house.ask(resolver, "none")
    house.pass_time(NEGATIVE_SECONDS - 0.5)
    assert refusal(house.ask(resolver, "none")[0])[0] == 502
    assert house.asked() == ["none"]
    house.pass_time(0.5)
    house.ask(resolver, "none")
    assert house.asked() == ["none", "none"]


def test_the_memo_is_bounded_and_the_oldest_goes_first(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver_module, "MEMO_LIMIT", 2)
    resolver = house.resolver()
    for name in ("a", "b", "c", "b", "c", "a"):
        house.ask(resolver, name)
    assert house.asked() == ["a", "b", "c", "a"]


def test_what_was_looked_up_again_is_not_the_oldest_any_more(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver_module, "MEMO_LIMIT", 3)
    resolver = house.resolver()
    house.ask(resolver, "a")
    house.pass_time(POSITIVE_SECONDS - 1)
    house.ask(resolver, "b")
    house.pass_time(1)
    for name in ("a", "c", "d", "a"):
        house.ask(resolver, name)
    assert house.asked() == ["a", "b", "a", "c", "d"]


def test_the_same_name_asked_at_once_is_looked_up_once(house: House) -> None:
    answers = house.ask(house.resolver(), "two", "Two", "two")
    assert answers[0] == answers[1] == answers[2]
    assert house.asked() == ["two"]


def test_several_names_are_looked_up_at_once_and_no_more_helpers_run_than_allowed(house: House) -> None:
    resolver = house.resolver(helpers=3)
    answers = house.ask(resolver, *[f"name{n}" for n in range(20)])
    assert all(answer == [(socket.AF_INET, ("192.0.2.1", 80))] for answer in answers)
    assert running(resolver) == 3
    assert sorted(house.asked()) == sorted(f"name{n}" for n in range(20))


def test_a_name_that_hangs_does_not_hold_up_the_others(house: House) -> None:
    resolver = house.resolver(helpers=2)
    resolver.resolve("hang", 80, lambda answer: None)
    assert house.ask(resolver, "a", "b", "c") == [[(socket.AF_INET, ("192.0.2.1", 80))]] * 3


# Cancelling and limits.


def test_a_cancelled_lookup_is_not_answered_and_its_place_in_the_queue_is_free(house: House) -> None:
    resolver = house.resolver(helpers=1)
    answers: list[object] = []
    kept = resolver.resolve("a", 80, answers.append)
    queued = resolver.resolve("b", 80, answers.append)
    cached = resolver.resolve("127.0.0.1", 80, answers.append)
    for lookup_ in (queued, cached, queued):
        lookup_.cancel()
    house.until(lambda: answers)
    assert house.ask(resolver, "c") and house.asked() == ["a", "c"]
    assert len(answers) == 1
    kept.cancel()


def test_cancelling_one_of_two_leaves_the_other_its_answer(house: House) -> None:
    resolver = house.resolver()
    answers: list[object] = []
    resolver.resolve("a", 80, answers.append).cancel()
    resolver.resolve("a", 80, answers.append)
    house.until(lambda: answers)
    house.reactor.turn(0)
    assert len(answers) == 1


def test_a_lookup_that_nobody_waits_for_any_more_is_finished_for_the_memo(house: House) -> None:
    resolver = house.resolver(helpers=1)
    resolver.resolve("a", 80, lambda answer: None).cancel()
    house.ask(resolver, "b")
    house.ask(resolver, "a")
    assert house.asked() == ["a", "b"]


def test_a_lookup_that_nobody_waits_for_any_more_is_not_asked_again_when_its_helper_dies(house: House) -> None:
    resolver = house.resolver(helpers=1)
    resolver.resolve("die", 80, lambda answer: None).cancel()
    house.ask(resolver, "a")
    assert house.asked() == ["die", "a"]


def test_the_queue_is_bounded_and_who_comes_too_late_is_told_503(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver_module, "QUEUE_LIMIT", 2)
    resolver = house.resolver(helpers=1)
    for name in ("hang", "a", "b"):
        resolver.resolve(name, 80, lambda answer: None)
    assert refusal(house.ask(resolver, "c")[0]) == (503, "c", "more than 2 look-ups wait")


def test_who_finds_no_free_helper_in_time_is_told_503(house: House) -> None:
    resolver = house.resolver(helpers=1, timeout=2 * QUEUE_SECONDS)
    answers: list[object] = []
    resolver.resolve("hang", 80, lambda answer: None)
    resolver.resolve("a", 80, answers.append)
    house.pass_time(QUEUE_SECONDS)
    house.reactor.turn(0)
    assert refusal(answers[0])[0] == 503
    assert house.asked() in ([], ["hang"])


# Helpers that fail.


def test_a_helper_that_hangs_is_killed_and_replaced_and_the_lookup_ends_in_504(house: House) -> None:
    resolver = house.resolver(helpers=1)
    answers: list[object] = []
    resolver.resolve("hang", 80, answers.append)
    resolver.resolve("a", 80, answers.append)
    house.until(lambda: house.asked() == ["hang"])
    (hanging,) = resolver._pool.helpers
    house.pass_time(LOOKUP_SECONDS)
    house.until(lambda: len(answers) == 2)
    assert refusal(answers[0]) == (504, "hang", "no answer to the look-up within 5 s")
    assert answers[1] == [(socket.AF_INET, ("192.0.2.1", 80))]
    assert hanging.process.wait() == -signal.SIGKILL
    assert refusal(house.ask(resolver, "hang")[0])[0] == 504  # kept: the next does not wait again
    assert house.asked() == ["hang", "a"]


def test_a_helper_that_dies_is_replaced_and_its_lookup_asked_once_more(house: House) -> None:
    resolver = house.resolver(helpers=1)
    assert house.ask(resolver, "once", "a") == [[(socket.AF_INET, ("192.0.2.1", 80))]] * 2
    assert house.asked() == ["once", "once", "a"]
    assert running(resolver) == 1


def test_a_name_that_kills_two_helpers_is_given_up(house: House) -> None:
    resolver = house.resolver(helpers=1)
    answers = house.ask(resolver, "die", "a")
    assert refusal(answers[0]) == (502, "die", "the look-up helper failed twice")
    assert answers[1] == [(socket.AF_INET, ("192.0.2.1", 80))]
    assert house.asked() == ["die", "die", "a"]


@pytest.mark.parametrize(
    "name", ["lie-address", "lie-family", "lie-scope", "lie-words", "lie-kind", "lie-bytes", "lie-nul", "endless"]
)
def test_a_helper_that_babbles_is_replaced(house: House, name: str) -> None:
    resolver = house.resolver(helpers=1)
    answers = house.ask(resolver, name, "a")
    assert refusal(answers[0])[0] == 502
    assert answers[1] == [(socket.AF_INET, ("192.0.2.1", 80))]


def test_a_helper_that_speaks_unasked_is_ended(house: House) -> None:
    resolver = house.resolver()
    house.ask(resolver, "a")
    (helper,) = resolver._pool.helpers
    os.kill(helper.process.pid, signal.SIGUSR1)
    house.until(lambda: running(resolver) == 0)


def test_an_interrupt_from_the_terminal_is_not_for_the_helpers(house: House) -> None:
    resolver = house.resolver()
    house.ask(resolver, "a")
    (helper,) = resolver._pool.helpers
    assert os.getpgid(helper.process.pid) != os.getpgid(0)


def test_a_helper_killed_while_it_is_idle_is_replaced_when_it_is_needed(house: House) -> None:
    resolver = house.resolver()
    house.ask(resolver, "a")
    (helper,) = resolver._pool.helpers
    os.kill(helper.process.pid, signal.SIGKILL)
    assert house.ask(resolver, "b") == [[(socket.AF_INET, ("192.0.2.1", 80))]]
    assert helper.process.wait() == -signal.SIGKILL
    house.until(lambda: running(resolver) == 1)


def test_a_helper_that_cannot_be_started_fails_the_lookup_with_503(house: House) -> None:
    resolver = house.resolver(command=["/nowhere/at/all"])
    assert refusal(house.ask(resolver, "a")[0]) == (503, "a", "no look-up helper could be started")
    assert house.ask(resolver, "127.0.0.1") == [[(socket.AF_INET, ("127.0.0.1", 80))]]


def test_idle_helpers_are_ended_after_a_while(house: House) -> None:
    resolver = house.resolver(helpers=2)
    house.ask(resolver, "a", "b")
    assert running(resolver) == 2
    house.pass_time(IDLE_SECONDS - 2)
    house.ask(resolver, "c")
    house.pass_time(1)
    house.ask(resolver, "d")  # by the same one as "c", so that the other one has its rest
    house.pass_time(1)
    house.until(lambda: running(resolver) == 1)
    house.pass_time(IDLE_SECONDS)
    house.until(lambda: running(resolver) == 0)
    assert house.ask(resolver, "e") == [[(socket.AF_INET, ("192.0.2.1", 80))]]


def test_closing_tells_whoever_waits_and_refuses_what_comes_later(house: House) -> None:
    resolver = house.resolver(helpers=1)
    answers: list[object] = []
    resolver.resolve("hang", 80, answers.append)
    resolver.resolve("a", 80, answers.append)
    resolver.close()
    resolver.resolve("b", 80, answers.append)
    house.reactor.turn(0)
    assert [refusal(answer) for answer in answers] == [(503, name, "the resolver is closed") for name in ("hang", "a", "b")]


def test_a_callback_that_raises_costs_its_owner_and_nobody_else(house: House) -> None:
    class Caller:
        error: Exception | None = None

        def answered(self, answer: object) -> None:
            raise RuntimeError("no")

        def failed(self, error: Exception) -> None:
            self.error = error

    caller = Caller()
    resolver = house.resolver()
    resolver.resolve("a", 80, caller.answered)
    assert house.ask(resolver, "a") == [[(socket.AF_INET, ("192.0.2.1", 80))]]
    assert isinstance(caller.error, RuntimeError)


# The helper's own two functions.


def test_the_helper_writes_one_line_for_each_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(host: bytes, port: None, type: int) -> list[object]:
        assert (host, port, type) == (b"name", None, socket.SOCK_STREAM)
        return [
            (socket.AF_INET6, type, 6, "", ("fe80::1", 0, 0, 3)),
            (socket.AF_UNIX, type, 0, "", ("/tmp/x",)),
            (socket.AF_INET, type, 6, "", ("192.0.2.1", 0)),
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert lookup.answer(b"name") == b"ok 10 fe80::1 3 2 192.0.2.1 0"
    assert resolver_module._parse_answer(lookup.answer(b"name").decode()) == (
        (socket.AF_INET6, "fe80::1", 3),
        (socket.AF_INET, "192.0.2.1", 0),
    )
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: [])
    assert lookup.answer(b"name").startswith(b"no ")


def test_the_helpers_refusal_stays_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(host: bytes, port: None, type: int) -> list[object]:
        raise socket.gaierror(-2, "Name\nnicht gefünden")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert lookup.answer(b"name") == b"no Name nicht gef?nden"


WORDS = ["ok", "no", "", "2", "10", "1", "::1", "127.0.0.1", "-1", "0", "+0", "\0", "1" * 30]


@given(st.lists(st.sampled_from(WORDS), max_size=8))
def test_any_answer_is_understood_or_refused(words: list[str]) -> None:
    try:
        outcome = resolver_module._parse_answer(" ".join(words))
    except (ValueError, OSError):
        return
    assert outcome


@given(st.text(max_size=40))
def test_any_host_is_an_address_a_refusal_or_a_name(host: str) -> None:
    reactor = Reactor()
    resolver = Resolver(reactor, command=["/nowhere/at/all"])
    answers: list[object] = []
    resolver.resolve(host, 80, answers.append)
    reactor.turn(0)
    assert len(answers) == 1
    resolver.close()
    reactor.close()
