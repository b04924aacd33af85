"""The scripts' own parts: floors that answer, a load generator that counts, verdicts that fail where they must."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from reactor.http.parser import EndOfMessage, Request, RequestParser

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "scripts"
COMMANDS = ("bench", "demo", "interop", "wire-check")


def load(name: str) -> ModuleType:
    """A script as a module; those without a suffix are Python too."""
    path = str(SCRIPTS / name)
    loader = importlib.machinery.SourceFileLoader(Path(name).stem.replace("-", "_"), path)
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[loader.name] = module
    loader.exec_module(module)
    return module


@pytest.fixture(scope="module", autouse=True)
def script_path() -> Iterator[None]:
    """Scripts import the modules beside them, as they do when they are run."""
    sys.path.insert(0, str(SCRIPTS))
    yield
    sys.path.remove(str(SCRIPTS))


def floor(mode: str, *arguments: object):  # type: ignore[no-untyped-def]
    command = [sys.executable, str(SCRIPTS / "bench_floors.py"), mode, *map(str, arguments)]
    return load("launch.py").Launched(command)


@pytest.mark.parametrize("name", [*COMMANDS, "test", "../.ci/run"])
def test_a_command_can_be_run_as_it_is(name: str) -> None:
    path = SCRIPTS / name
    assert os.access(path, os.X_OK)
    assert path.read_bytes().startswith((b"#!/usr/bin/env python3\n", b"#!/usr/bin/env bash\n"))


@pytest.mark.parametrize("name", ["bench", "interop", "wire-check"])
def test_help_says_what_there_is(name: str) -> None:
    done = subprocess.run([SCRIPTS / name, "--help"], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout.startswith("usage:")


def test_bench_names_its_scenarios_when_one_is_unknown() -> None:
    done = subprocess.run([SCRIPTS / "bench", "nonsense"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "hit-mix" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(("mode", "target"), [("canned", "/1k"), ("parse", "/1k"), ("sendfile", "/1k"), ("static", "/1k")])
def test_a_floor_answers_with_the_object(mode: str, target: str, tmp_path: Path) -> None:
    loadgen = load("loadgen.py")
    (tmp_path / "1k").write_bytes(b"x" * 1024)
    with floor(mode, "--root", tmp_path) as server:
        head, body = loadgen.fetch(server.port, *[loadgen.plain_request(server.port, target)] * 2)
    assert body == b"x" * 1024
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")


def test_the_relay_asks_the_origin_each_time() -> None:
    loadgen = load("loadgen.py")
    with floor("origin") as origin, floor("relay", "--origin", origin.port) as relay:
        head, body = loadgen.fetch(relay.port, *[loadgen.plain_request(relay.port, "/once/1k")] * 3)
        _, count = loadgen.fetch(origin.port, loadgen.plain_request(origin.port, "/count"))
    assert (body, count) == (b"x" * 1024, b"3")
    assert b"Via: 1.1 floor\r\n" in head


def test_the_tunnel_carries_bytes_both_ways() -> None:
    bench, loadgen = load("bench"), load("loadgen.py")
    with floor("origin") as origin, floor("tunnel") as tunnel, bench.open_tunnel(tunnel.port, origin.port) as sock:
        sock.sendall(loadgen.plain_request(origin.port, "/10m"))
        _, body = loadgen.read_answer(sock)
    assert body == b"x" * 10 * 2**20


def test_the_source_sends_without_end() -> None:
    with floor("source") as source, socket.create_connection(("127.0.0.1", source.port), 10) as sock:
        got = 0
        while got < 40 * 2**20:
            got += len(sock.recv(2**20))


def test_browser_requests_differ_and_are_valid() -> None:
    loadgen = load("loadgen.py")
    requests = loadgen.browser_requests(80, "/1k")
    assert len(set(requests)) == loadgen.VARIED_HEADS
    targets = set()
    for request in requests[:1000]:
        parser = RequestParser()
        parser.feed(request)
        event = parser.next_event()
        assert isinstance(event, Request)
        targets.add(event.target)
    assert len(targets) > loadgen.VARIED_OBJECTS // 2


def test_the_load_generator_counts_whole_answers() -> None:
    loadgen = load("loadgen.py")
    for size in (1024, 300_000):
        with floor("parse", "--size", size) as server:
            load_ = loadgen.run_epoll(server.port, [loadgen.plain_request(server.port, "/x")], 4, 0.05)
        assert load_.requests > 0
        assert load_.received >= load_.requests * size
        assert 0 < load_.p50 <= load_.p99


def test_the_load_generator_fails_on_another_status() -> None:
    loadgen = load("loadgen.py")
    with floor("api") as server, pytest.raises(loadgen.LoadFailed, match="404"):
        loadgen.run_epoll(server.port, [loadgen.plain_request(server.port, "/none")], 4, 0.05)


def test_a_process_that_does_not_start_says_why() -> None:
    launch = load("launch.py")
    with pytest.raises(launch.NotStarted, match="invalid choice"):
        launch.Launched([sys.executable, str(SCRIPTS / "bench_floors.py"), "nonsense"])


def test_what_a_process_costs_is_counted() -> None:
    launch, loadgen = load("launch.py"), load("loadgen.py")
    with floor("canned") as server:
        before, _ = launch.cpu_seconds(server.pid)
        loadgen.run_epoll(server.port, [loadgen.plain_request(server.port, "/")], 4, 0.05)
        after, _ = launch.cpu_seconds(server.pid)
        assert after > before > 0
        assert launch.resident_bytes(server.pid) > 2**20


def test_ratios_say_how_many_times_the_floor_we_are() -> None:
    summary = load("bench").summary
    table = summary(
        {"reactor": [{"cost": 4.0}, {"cost": 6.0}, {"cost": 5.0}], "canned": [{"cost": 2.0}, {"cost": 2.5}, {"cost": 9.0}]}
    )
    assert (table["canned"]["cost"], table["canned"]["ratio"]) == (2.5, 2.0)
    assert (table["canned"]["least"], table["canned"]["ratio_least"]) == (2.0, 2.0)


@pytest.mark.parametrize("name", ["reactor", "findall"])
@pytest.mark.parametrize("shape", ["get", "browser", "response", "chunked"])
def test_a_parser_under_measurement_reads_the_whole_message(name: str, shape: str) -> None:
    parsers = load("bench_parsers.py")
    heads, body = parsers.messages(shape)
    assert len(set(heads)) == parsers.VARIANTS
    parse = parsers.PARSERS[name](shape == "response")
    for head in heads[::2000]:
        assert parse(head + body)[1:] == parsers.EXPECTED[shape]


def test_browser_shape_is_a_valid_request() -> None:
    heads, _ = load("bench_parsers.py").messages("browser")
    parser = RequestParser()
    parser.feed(heads[0])
    assert isinstance(parser.next_event(), Request)
    assert isinstance(parser.next_event(), EndOfMessage)


def test_interop_names_the_missing_program() -> None:
    interop = load("interop")
    interop.PACKAGES["no-such-program"] = "no-such-package"
    assert interop.missing(("no-such-program",)) == [
        "no-such-program is missing (on Debian: apt-get install no-such-package)"
    ]


# wire-check: what tshark says, as it says it.

SERVER, PROXY = 1000, 2000


def packet(number: int, stream: int, source: int, target: int, **fields: str | list[str]) -> dict[str, list[str]]:
    made = {"frame.number": str(number), "tcp.stream": str(stream), "tcp.srcport": str(source), "tcp.dstport": str(target)}
    for name, value in fields.items():
        made[name.replace("__", ".")] = value  # type: ignore[assignment]
    return {name: value if isinstance(value, list) else [value] for name, value in made.items()}


def answer(number: int, stream: int, source: int, target: int, verdict: str) -> dict[str, list[str]]:
    lines = ["Date: x\\r\\n", f"Cache-Status: reactor; {verdict}\\r\\n"] if verdict else ["Date: x\\r\\n"]
    return packet(number, stream, source, target, http__response__code="200", http__response__line=lines)


def conversation() -> list[dict[str, list[str]]]:
    ends = [(0, 5, PROXY), (1, 6, SERVER), (2, 7, PROXY)]
    packets = [
        packet(1, 0, 5, PROXY, http__request__method="GET"),
        packet(2, 1, 6, SERVER, http__request__method="GET"),
        answer(3, 1, SERVER, 6, ""),
        answer(4, 0, PROXY, 5, "fwd=uri-miss; stored"),
        packet(5, 2, 7, PROXY, http__request__method="GET"),
        answer(6, 2, PROXY, 7, "hit; ttl=10"),
    ]
    for stream, one, other in ends:
        packets += [packet(7, stream, *way, tcp__flags__fin="1") for way in ((one, other), (other, one))]
    return packets


def test_wire_check_finds_no_fault_with_a_miss_and_a_hit() -> None:
    assert load("wire-check").faults(conversation(), (SERVER, PROXY)) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda packets: packets[2].update({"_ws.malformed": ["x"]}), "frame 3 is malformed"),
        (
            lambda packets: packets[2].update({"_ws.expert.severity": ["6291456"], "_ws.expert.message": ["bad header"]}),
            "frame 3: bad header",
        ),
        (lambda packets: packets.pop(), "TCP stream 2 was not ended by both sides"),
        (lambda packets: packets[5].update(answer(6, 2, PROXY, 7, "fwd=stale")), "not a miss and then a hit"),
        (lambda packets: packets[3].update({"http.response.code": ["502"]}), "not every answer is a 200"),
        (lambda packets: packets.pop(1), "2 requests to the proxy and 0 on"),
    ],
)
def test_wire_check_fails_on(change, fault: str) -> None:  # type: ignore[no-untyped-def]
    packets = conversation()
    change(packets)
    found = load("wire-check").faults(packets, (SERVER, PROXY))
    assert len(found) == 1 and found[0].startswith(fault)


def test_wire_check_lets_a_mere_note_pass() -> None:
    packets = conversation()
    packets[2].update({"_ws.expert.severity": ["4194304", "2097152"], "_ws.expert.message": ["a note", "a chat"]})
    assert load("wire-check").faults(packets, (SERVER, PROXY)) == []
