"""The command line about trust, addresses and waits."""

from __future__ import annotations

import http.server
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from handlers.exit_codes import CERTIFICATE_REFUSED, NO_HANDSHAKE
from reactor.addresses import is_public
from reactor.client import ClientLimits
from reactor.errors import ConfigError
from reactor.roles.proxy import ProxyGroup
from reactor.run import configure, main
from tests.secured import AUTHORITY, server_context, serving

ROOT = Path(__file__).resolve().parent.parent


def group(*words: str) -> ProxyGroup:
    process = configure(["--role", "proxy", *words])
    assert not isinstance(process, str)
    process.close()
    (made,) = process.groups
    assert isinstance(made, ProxyGroup)
    return made


def test_each_wait_has_a_flag_and_reaches_who_waits() -> None:
    names = "connect first-byte between-bytes upstream-idle tunnel-idle head idle".split()
    made = group(*(word for number, name in enumerate(names, 1) for word in (f"--{name}-timeout", str(number))))
    upstream = made.upstream_limits
    assert (upstream.connect, upstream.first_byte, upstream.between_bytes, upstream.idle, made.tunnel_idle) == (1, 2, 3, 4, 5)
    assert (made.limits.head, made.limits.idle) == (6, 7)


def test_the_defaults() -> None:
    made = group()
    assert (made.upstream_limits, made.tunnel_idle, made.limits.head, made.limits.idle) == (ClientLimits(), 300, 30, 75)


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


class Answers(http.server.BaseHTTPRequestHandler):
    """Says `hello`."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@pytest.fixture(scope="module", params=[True, False], ids=["tls", "plain"])
def origin(request: pytest.FixtureRequest) -> Iterator[tuple[bool, str]]:
    """Whether it speaks TLS, and its authority."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        if request.param:
            server.socket = server_context().wrap_socket(server.socket, server_side=True)
        with serving(server):
            yield request.param, f"127.0.0.1:{server.server_port}"


@pytest.mark.parametrize(
    ("words", "status"), [(["--cacert", AUTHORITY], 0), ([], 60), (["-k"], 0), (["--insecure"], 0)]
)
def test_the_client_proves_whom_it_talks_to(
    words: list[str], status: int, origin: tuple[bool, str], capfd: pytest.CaptureFixture[str]
) -> None:
    secure, authority = origin
    if not secure:
        status = NO_HANDSHAKE
    assert main(["--role", "client", *words, f"https://{authority}/"]) == status
    out, err = capfd.readouterr()
    assert out == ("hello" if status == 0 else "")
    assert ("TLS handshake: " in err) == (status != 0)
    assert status != CERTIFICATE_REFUSED or "certificate verify failed: unable to get local issuer certificate" in err


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
