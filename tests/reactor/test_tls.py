"""Connections to TLS origins: who is trusted, what is resumed, and every way in which one comes to nothing."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reactor.connector import Connector
from reactor.errors import ConfigError, UpstreamError
from reactor.resolver import Resolver
from reactor.stream import Stream
from reactor.tls import SESSIONS, ClientTls
from reactor.tls_stream import TlsStream
from tests.loopback import House, housed, tcp_pair
from tests.reactor.test_tls_stream import TLS12, TLS13, Owner
from tests.secured import AUTHORITY, TlsPeer, server_context


@pytest.fixture
def house() -> Iterator[House]:
    yield from housed()


class Reaching:
    """Somebody who connects with TLS to a listener that the test plays."""

    def __init__(self, house: House, tls: ClientTls | None = None) -> None:
        self.house = house
        self.listener = house.listen()
        self.resolver = Resolver(house.reactor)
        self.connector = Connector(house.reactor, self.resolver)
        self.tls = tls or ClientTls(AUTHORITY)
        self.results: list[tuple[Any, str]] = []
        house.cleanups.append(self.resolver.close)

    def connect(self, host: str = "localhost", seconds: float = 10.0) -> Any:
        if host == "localhost":  # without a look-up, which has a process of its own
            self.resolver._memo[b"localhost"] = (1e9, ((socket.AF_INET, "127.0.0.1", 0),))
        return self.tls.connect(self.connector, host, self.listener.port, lambda *told: self.results.append(told), seconds)

    def accept(self, context: ssl.SSLContext | None = None) -> TlsPeer:
        peer = TlsPeer(self.house, self.listener.accept(), context or server_context())
        self.house.peers.append(peer)
        return peer

    def result(self) -> Any:
        self.house.until(lambda: self.results, "the result")
        ((result, address),) = self.results
        self.results.clear()
        assert address == f"127.0.0.1:{self.listener.port}" or result.phase == "connect"
        return result

    def opened(self, context: ssl.SSLContext | None = None) -> tuple[TlsStream, TlsPeer]:
        self.connect()
        peer = self.accept(context).shake()
        stream = self.result()
        assert isinstance(stream, TlsStream)
        stream.owner = Owner()
        self.house.cleanups.append(stream.abort)
        return stream, peer


def test_a_certificate_that_proves_it(house: House) -> None:
    stream, peer = Reaching(house).opened()
    assert peer.server_name == "localhost"
    assert peer.tls.selected_alpn_protocol() == "http/1.1"
    stream.write(b"hello")
    assert peer.take(5) == b"hello"
    assert house.reactor.pending_timers == 0


def test_an_address_is_verified_and_not_named(house: House) -> None:
    reaching = Reaching(house)
    reaching.connect("127.0.0.1")
    peer = reaching.accept().shake()
    reaching.result().abort()
    assert peer.server_name is None


def test_a_final_dot_is_no_part_of_the_name(house: House) -> None:
    reaching = Reaching(house)
    reaching.resolver._memo[b"localhost."] = (1e9, ((socket.AF_INET, "127.0.0.1", 0),))
    reaching.connect("localhost.")
    peer = reaching.accept().shake()
    reaching.result().abort()
    assert peer.server_name == "localhost"


@pytest.mark.parametrize(
    ("certificate", "reason"),
    [
        ("expired", "certificate has expired"),
        ("self-signed", "self-signed certificate"),
        ("other-name", "Hostname mismatch, certificate is not valid for 'localhost'."),
        ("common-name", "Hostname mismatch, certificate is not valid for 'localhost'."),
    ],
)
def test_a_certificate_that_does_not(certificate: str, reason: str, house: House) -> None:
    reaching = Reaching(house)
    reaching.connect()
    peer = reaching.accept(server_context(certificate))
    with pytest.raises(ssl.SSLError, match="(?i)alert"):  # TLS 1.3's server is done before the client's word comes
        peer.shake()
        peer.until(lambda: peer.over, "the alert")
    error = reaching.result()
    assert (error.phase, error.status) == ("certificate", 502)
    assert error.reason == f"TLS handshake: certificate verify failed: {reason}"
    assert str(error).startswith(f"127.0.0.1:{reaching.listener.port}: ")


def test_the_systems_authorities_do_not_know_ours(house: House) -> None:
    reaching = Reaching(house, ClientTls())
    reaching.connect()
    peer = reaching.accept()
    with pytest.raises(ssl.SSLError, match="(?i)alert"):
        peer.shake()
        peer.until(lambda: peer.over, "the alert")
    assert reaching.result().phase == "certificate"


def test_insecure_takes_any_certificate_and_says_so(house: House, caplog: pytest.LogCaptureFixture) -> None:
    tls = ClientTls(insecure=True)
    assert "NO CERTIFICATE IS VERIFIED" in caplog.text
    reaching = Reaching(house, tls)
    for certificate in ("expired", "self-signed", "other-name"):
        reaching.opened(server_context(certificate))


def test_a_reset_in_the_handshake(house: House) -> None:
    reaching = Reaching(house)
    reaching.connect()
    peer = reaching.accept()
    house.until(peer.read, "the client's hello")
    peer.reset()
    error = reaching.result()
    assert (error.phase, error.status) == ("TLS handshake", 502)
    assert "in the handshake" in error.reason


def test_a_handshake_that_stalls_falls_under_the_deadline(house: House) -> None:
    reaching = Reaching(house)
    reaching.connect(seconds=5)
    peer = reaching.accept()
    house.until(peer.read, "the client's hello")
    house.pass_time(4.9)
    assert not reaching.results
    house.pass_time(0.1)
    error = reaching.result()
    assert (error.phase, error.status) == ("TLS handshake", 504)
    assert error.reason == "TLS handshake: not done within 5 s (connect timeout)"
    peer.until(lambda: peer.over, "the reset")
    assert house.reactor.pending_timers == 0


def test_cancelling_at_every_step(house: House) -> None:
    reaching = Reaching(house)
    reaching.connect().cancel()
    attempt = reaching.connect()
    peer = reaching.accept()
    house.until(peer.read, "the client's hello")
    assert attempt.state == "handshaking"
    attempt.cancel()
    attempt.cancel()
    house.turns()
    assert not reaching.results
    assert (house.reactor.watched, house.reactor.pending_timers) == (0, 0)


def test_a_connection_that_is_refused(house: House) -> None:
    reaching = Reaching(house)
    reaching.listener.sock.close()
    reaching.connect()
    error = reaching.result()
    assert (error.phase, error.status) == ("connect", 502)


def test_a_host_that_no_certificate_could_be_for(house: House) -> None:
    reaching = Reaching(house)
    reaching.resolver._memo[b".localhost"] = (1e9, ((socket.AF_INET, "127.0.0.1", 0),))
    reaching.connect(".localhost")
    error = reaching.result()
    assert isinstance(error, UpstreamError) and error.phase == "TLS handshake"


def test_nor_one_that_is_too_long_for_any_name(house: House) -> None:
    """A proxy may have made a tunnel to it all the same."""
    near, far = tcp_pair()
    peer = house.peer(far)
    errors: list[Any] = []
    attempt = ClientTls(AUTHORITY).attempt(house.reactor, "a" * 300, 443, lambda *told: errors.append(told[0]), 10.0)
    attempt.secure(Stream(house.reactor, None, near), b"")
    assert [error.phase for error in errors] == ["TLS handshake"]
    peer.expect_reset()


@pytest.mark.parametrize("version", [TLS12, TLS13])
def test_a_session_is_resumed(version: ssl.TLSVersion, house: House) -> None:
    reaching = Reaching(house)
    context = server_context(version=version)
    for again in (False, True, True):
        stream, peer = reaching.opened(context)
        assert stream._ssl.session_reused is again
        peer.send(b"hello")
        house.turns()
        stream.close()
        peer.close()
    assert list(reaching.tls._sessions) == [("localhost", reaching.listener.port)]


def test_a_session_that_the_server_has_forgotten_costs_nothing(house: House) -> None:
    reaching = Reaching(house)
    for _ in range(2):
        stream, peer = reaching.opened(server_context())  # with keys of its own each time
        assert stream._ssl.session_reused is False
        peer.send(b"hello")
        house.turns()


def test_sessions_are_bounded(house: House) -> None:
    reaching = Reaching(house)
    stream, peer = reaching.opened()
    peer.send(b"hello")
    house.turns()
    (session,) = reaching.tls._sessions.values()
    for port in range(2 * SESSIONS):
        reaching.tls._keep(("a", port), session)
    assert len(reaching.tls._sessions) == SESSIONS


@pytest.mark.parametrize(("content", "reason"), [(None, "no such file"), (b"", "no certificate"), (b"garbage", "no certificate")])
def test_a_file_of_authorities_that_cannot_be_used(content: bytes | None, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as raised:
        ClientTls(str(path))
    assert reason in str(raised.value) and str(path) in str(raised.value) and "\n" not in str(raised.value)
    assert raised.value.code == 77
