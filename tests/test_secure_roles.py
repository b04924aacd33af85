"""The command line about trust, addresses and waits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from handlers.fetch import CERTIFICATE_REFUSED, NO_HANDSHAKE, TIMED_OUT, _exit_code
from reactor.addresses import is_public
from reactor.errors import CertificateRefused, ConfigError, UpstreamError
from reactor.roles.proxy import ProxyGroup
from reactor.roles.timeouts import Timeouts
from reactor.run import configure, main
from tests.secured import AUTHORITY

ROOT = Path(__file__).resolve().parent.parent


def group(*words: str) -> ProxyGroup:
    process = configure(["--role", "proxy", *words])
    assert not isinstance(process, str)
    process.close()
    (made,) = process.groups
    assert isinstance(made, ProxyGroup)
    return made


def test_each_wait_has_a_flag_and_reaches_who_waits() -> None:
    names = "connect first-byte between-bytes upstream-idle head idle tunnel-idle".split()
    words = [word for number, name in enumerate(names, 1) for word in (f"--{name}-timeout", str(number))]
    made = group(*words)
    assert made.timeouts == Timeouts(1, 2, 3, 4, 5, 6, 7)
    upstream = made.timeouts.client_limits()
    assert (upstream.connect, upstream.first_byte, upstream.between_bytes, upstream.idle) == (1, 2, 3, 4)
    assert (made.limits.head, made.limits.idle) == (5, 6)


def test_the_defaults() -> None:
    assert group().timeouts == Timeouts(10, 60, 60, 30, 30, 75, 300)


@pytest.mark.parametrize("text", ["0", "-1", "inf", "1e3", "x", "", "1000001", "9" * 400])
def test_a_wait_must_be_one(text: str) -> None:
    with pytest.raises(ConfigError, match="--connect-timeout"):
        configure(["--role", "proxy", f"--connect-timeout={text}"])


def test_public_addresses_alone_where_that_is_asked_for() -> None:
    assert group().permit is None
    assert group("--deny-private").permit is is_public


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("--role proxy --ca-file {}", 2),
        ("--role proxy --ca-file {} --check", 2),
        ("--role client --cacert {} https://127.0.0.1:9/", 77),
        ("--role client --cacert {} --check https://127.0.0.1:9/", 77),
    ],
)
def test_a_file_of_authorities_that_is_none(
    words: str, status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "none.pem"
    assert main(words.format(path).split()) == status
    said = capsys.readouterr().err
    assert said == f"reactor: the file of authorities {path}: no such file or directory\n"


def test_who_insists_on_no_proof_is_warned(caplog: pytest.LogCaptureFixture) -> None:
    group("--insecure")
    assert "NO CERTIFICATE IS VERIFIED" in caplog.text


def test_the_clients_exit_status_is_curls() -> None:
    phase = "TLS handshake"
    assert _exit_code(UpstreamError("wrong version number", phase, "a")) == NO_HANDSHAKE == 35
    assert _exit_code(CertificateRefused("expired", phase, "a")) == CERTIFICATE_REFUSED == 60
    assert _exit_code(UpstreamError("late", phase, "a", 504)) == TIMED_OUT


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("--role proxy --role server --role client http://a/", False),
        ("--role proxy --upstream http://127.0.0.1:9 --deny-private", False),
        ("--role proxy --upstream https://127.0.0.1:9", True),
        (f"--role proxy --ca-file {AUTHORITY}", True),
    ],
)
def test_what_is_not_used_is_not_loaded(words: str, wanted: bool) -> None:
    """TLS costs time and memory at the start."""
    program = (
        "import sys; from reactor.run import configure; process = configure(sys.argv[1:]); process.close();"
        "print('ssl' in sys.modules or '_ssl' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program, *words.split()], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == f"{wanted}\n"
