"""What README.md says of the house and of its limits is so."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from cache.stores.memory import JOINED_AT_ONCE
from handlers import (
    access,
    access_log,
    api,
    client,
    client_limits,
    config_file,
    fetch,
    fetch_command,
    hit_for_miss,
    script,
    static,
    traffic,
    users,
)
from handlers.users import make_entry
from reactor import relay, resolver, stream, tls
from reactor.client import ClientLimits
from reactor.http.grammar import LIMITS
from reactor.http.ranges import MAX_RANGES
from reactor.roles.process import GRACE
from reactor.run import configure
from reactor.server import ServerLimits
from tests.test_floors import ROOMS, floor_of

README = (Path(__file__).resolve().parent.parent / "README.md").read_text("utf-8")
SERVER, UPSTREAM = ServerLimits(), ClientLimits()
KIB, MIB = 1024, 1024 * 1024


def section(title: str) -> str:
    return README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


ROWS = dict(re.findall(r"^\| (.+?) \| (.+?) \|", section("Limits and defaults"), re.MULTILINE))
PICTURE = section("The house").split("```")[1]
STOREYS = re.findall(r"^(\d)  (.*\n(?:   .*\n)*)", PICTURE, re.MULTILINE)
PICTURED = {int(floor): set(re.findall(r"[a-z_]+", rooms)) for floor, rooms in STOREYS}
BLOCKS = [block.replace("\\\n", "") for block in re.findall(r"^```\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)]
COMMANDS = [command for block in BLOCKS for command in re.findall(r"^(?:tar .* \| )?reactor (.*)", block, re.MULTILINE)]
PROGRAMS = dict(re.findall(r"```python\n# (\w+\.py) [^\n]*\n(.*?)```", README, re.DOTALL))


def test_the_parser_serves_by_itself(capsys: pytest.CaptureFixture[str]) -> None:
    (snippet,) = re.findall(r"```python\n(from reactor\.errors.*?)```", README, re.DOTALL)
    exec(snippet, {})
    assert capsys.readouterr().out == "<Request POST />\n<Data 2 bytes>\n<EndOfMessage>\n"


def kib(number: int) -> str:
    return f"{number // KIB} KiB" if number < MIB else f"{number // MIB} MiB"


@pytest.mark.parametrize(
    ("row", "value"),
    [
        ("request line, one field, whole head", f"{kib(LIMITS.start_line)}, {kib(LIMITS.field_line)}, {kib(LIMITS.head)}"),
        ("fields, trailers", f"{LIMITS.fields}, {kib(LIMITS.trailers)}"),
        ("`--max-connections`", f"{SERVER.connections:,}, or half of the descriptors"),
        ("an API's request body", f"{kib(api.BODY)}, unless the route says otherwise"),
        ("`--head-timeout`", f"{SERVER.head:g} s"),
        ("`--body-timeout`", f"{SERVER.body:g} s"),
        ("`--send-timeout`", f"{SERVER.stalled:g} s"),
        ("`--min-rate`", f"{SERVER.rate:g} bytes a second"),
        ("`--idle-timeout`", f"{SERVER.idle:g} s"),
        ("`--connect-timeout`", f"{UPSTREAM.connect:g} s"),
        ("`--first-byte-timeout`", f"{UPSTREAM.first_byte:g} s"),
        ("`--between-bytes-timeout`", f"{UPSTREAM.between_bytes:g} s"),
        ("`--upstream-idle-timeout`", f"{UPSTREAM.idle:g} s"),
        ("`--tunnel-idle-timeout`", f"{relay.IDLE:g} s"),
        ("an upstream's connection, in all", f"{UPSTREAM.lifetime:g} s"),
        ("a name's addresses", f"{resolver.POSITIVE_SECONDS:g} s"),
        ("TLS sessions remembered", f"{tls.SESSIONS}"),
        ("a client that has shut down its side", f"{SERVER.half_closed:g} s"),
        ("backlog of one connection", kib(stream.HIGH_WATER)),
        ("hit-for-miss", f"{hit_for_miss.HIT_FOR_MISS_SECONDS:g} s"),
        ("parts joined by copying", kib(JOINED_AT_ONCE)),
        ("connections to upstreams", f"{UPSTREAM.connections}, {UPSTREAM.idle_per_origin} idle per origin"),
        ("clients counted", f"{client_limits.CLIENTS}"),
        ("wrong passwords of one client", f"{users.FAILURES}, and one more each {users.FAILURE_SECONDS:g} s"),
        ("passwords being checked", f"{users.HELPERS}, {users.QUEUE_LIMIT}, {users.CHECKS_PER_CLIENT}"),
        ("a password that was good", f"{users.REMEMBERED_SECONDS:g} s"),
        ("a `path=/REGEX/` rule", f"{kib(access.REGEX_BYTES)}, {access.REGEX_SECONDS * 1000:g} ms"),
        ("a file of rules or users", kib(config_file.FILE_BYTES)),
        ("ranges of one request", f"{MAX_RANGES}"),
        ("names in one listing", f"{static.LISTED}"),
        ("client: redirects, interim", f"{fetch_command.MAX_REDIRECTS} (`fetch`: {client.REDIRECTS}), {LIMITS.interim}"),
        ("client: a body held whole", kib(fetch.MAX_BODY)),
        ("client: Retry-After", f"{client.RETRY_MOST:g} s"),
        ("a body that a script reads, one delay", f"{kib(traffic.BODY_LIMIT)}, {traffic.DELAY_LIMIT:g} s"),
        ("a script's file", f"{script.LOOK_SECONDS:g} s"),
        ("log lines", f"{access_log.FLUSH_SECONDS:g} s or {kib(access_log.FLUSH_BYTES)}; {kib(access_log.BACKLOG_BYTES)}"),
        ("`--grace`", f"{GRACE:g} s"),
    ],
)
def test_a_limit_is_what_the_code_has(row: str, value: str) -> None:
    (told,) = (told for what, told in ROWS.items() if what.startswith(row))
    assert told.startswith(value)


@pytest.mark.parametrize("file", ROOMS)
def test_a_file_is_on_its_floor_of_the_picture(file: str) -> None:
    assert Path(file).stem in PICTURED[floor_of(file)]


def test_every_flag_that_the_text_names_is_one() -> None:
    told = configure(["--help"])
    assert isinstance(told, str)
    flags = set(re.findall(r"--[a-z][a-z-]*", told))
    of_others = {"--proxy", "--index-url", "--registry", "--minutes"}
    ours = section("The roles") + section("Limits and defaults")
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", ours)) - of_others <= flags


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_a_good_configuration(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("site", "dist", "docs", "mypackage"):
        (tmp_path / folder).mkdir()
    for name, text in PROGRAMS.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "mypackage" / "module.py").write_text(PROGRAMS["hello.py"].replace("class Hello", "class Factory"))
    (tmp_path / "rules").write_text(section("The roles").partition("```\n# rules\n")[2].partition("```")[0])
    (tmp_path / "users").write_text(make_entry("alice", "secret") + "\n")
    (tmp_path / "notes.txt").write_text("a note\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    monkeypatch.setattr("getpass.getpass", lambda prompt: "secret")
    told = configure(["--check", *shlex.split(command, comments=True)])
    assert told == "the configuration is good\n" or "--help" in command


def test_the_commands_are_all_read() -> None:
    assert len(COMMANDS) == len(re.findall(r"\breactor --role ", "".join(BLOCKS)))
