"""The scripts' own parts: floors that answer, a load generator that counts, verdicts that fail where they must."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import re
import signal
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
COMMANDS = ("bench", "demo", "interop", "soak", "wire-check")


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


@pytest.mark.parametrize("name", ["bench", "interop", "soak", "wire-check"])
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


def test_what_is_more_than_the_plain_hit_is_told_in_microseconds() -> None:
    table = load("bench").summary({"reactor": [{"cost": 4.0}, {"cost": 6.5}], "plain": [{"cost": 3.0}, {"cost": 2.0}]})
    assert (table["reactor"]["more"], table["reactor"]["more_least"], table["plain"]["more"]) == (2.75, 2.0, 0.0)


@pytest.mark.parametrize(
    ("target", "given"),
    [
        ("plain", {"--access-log"}), ("log", {"--access-log"}), ("rules", {"--access-log", "--rules"}),
        ("script", {"--access-log", "--script"}), ("reactor", {"--access-log", "--rules", "--script"}),
    ],
)  # fmt: skip
def test_a_hit_under_control_is_measured_with_all_of_it_and_each_alone(target: str, given: set[str], tmp_path: Path) -> None:
    bench = load("bench")
    world = bench.World(None, None, str(tmp_path), None, 1.0)
    words = list(map(str, bench.SCENARIOS["hit-control"].flags(world, target)))
    assert {word for word in words if word.startswith("--")} == given
    assert ("off" in words) == (target not in ("log", "reactor"))
    assert len((tmp_path / "rules").read_text().splitlines()) == bench.RULES


def test_a_crowd_drips_while_the_fast_client_is_timed() -> None:
    bench, loadgen = load("bench"), load("loadgen.py")
    ours, theirs = socket.socketpair()
    with floor("parse") as server, ours, theirs, socket.create_connection(("127.0.0.1", server.port), 10) as fast:
        hits = bench.Hits(fast, loadgen.plain_request(server.port, "/x"))
        beside, alone = bench.Crowd("").by_turns(hits, bench.Hits(fast, hits.request), [ours] * 1000, 0.2)
        assert set(theirs.recv(1000)) == {ord("x")}
    assert all(latencies == sorted(latencies) and latencies[0] > 0 for latencies in (beside, alone))
    assert bench.percentile(list(range(200)), 99) == 198


# soak: what it finds fault with, and a short one.


def soak(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPTS / "soak"), "--exchanges", "120", "--at-once", "30", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_short_soak_leaves_nothing_behind() -> None:
    done = soak()
    assert (done.returncode, done.stdout.splitlines()[-1]) == (
        0, "nothing was left behind, and every body delivered whole had the right digest"
    ), done.stdout + done.stderr  # fmt: skip
    assert "round 2: 120 of 120 exchanges, 0 open, 0 wrong" in done.stderr


def test_a_soak_finds_timers_that_are_left_behind() -> None:
    done = soak("--leak", "--settle", "0", "--exchanges", "1")
    told = re.search(r"soak: round 1, left behind: timers: (\d+), (\d+) at the start", done.stderr)
    assert done.returncode == 1 and told, done.stdout + done.stderr
    assert int(told[1]) - int(told[2]) >= load("soak_proxy.py").LEAK_TIMERS / 2  # more than a lingering connection's


def test_a_soak_counts_what_is_more_than_at_the_start() -> None:
    leaks = load("soak").leaks
    assert leaks({"timers": 1, "Fill": 0, "watched": 3}, {"timers": 1, "Fill": 2, "watched": 2}) == ["Fill: 2, 0 at the start"]


def test_a_soak_judges_memory_by_a_twentieth() -> None:
    growth_fault = load("soak").growth_fault
    assert growth_fault([100 * 2**20, 105 * 2**20]) is None
    assert growth_fault([100 * 2**20, 106 * 2**20]) == "resident memory grew from 100.0 MiB to 106.0 MiB, by more than 5%"


@pytest.mark.parametrize(("status", "body"), [(200, b"abd"), (200, b"ab"), (206, b"abc")])
def test_a_soak_compares_what_came_with_what_was_due(status: int, body: bytes) -> None:
    module = load("soak")
    module.same(200, 200, b"abc", b"abc")
    with pytest.raises(module.Wrong):
        module.same(status, 200, body, b"abc")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
    ],
)
def test_a_soaks_client_reads_a_whole_answer_and_nothing_less(answer: bytes) -> None:
    module = load("soak")
    for cut in (len(answer), len(answer) - 1):
        ours, theirs = socket.socketpair()
        connection = module.Connection.__new__(module.Connection)
        connection.sock, connection.data = ours, bytearray()
        theirs.sendall(answer[:cut])
        theirs.close()
        with ours:
            if cut == len(answer):
                assert finish(connection.answer()) == (200, b"hello")
            else:
                with pytest.raises(module.Wrong):
                    finish(connection.answer())


def finish(steps):  # type: ignore[no-untyped-def]
    """What the steps return; nothing here has to be waited for."""
    with pytest.raises(StopIteration) as end:
        next(steps)
    return end.value.value


# wire-check: what tshark says, as it says it.

SERVER, PROXY = 1000, 2000
Packets = list[dict[str, list[str]]]


def packet(number: int, stream: int, source: int, target: int, **fields: str | list[str]) -> dict[str, list[str]]:
    made = {"frame.number": str(number), "tcp.stream": str(stream), "tcp.srcport": str(source), "tcp.dstport": str(target)}
    for name, value in fields.items():
        made[name.replace("__", ".")] = value  # type: ignore[assignment]
    return {name: value if isinstance(value, list) else [value] for name, value in made.items()}


def asked(number: int, stream: int, port: int, method: str, uri: str) -> dict[str, list[str]]:
    return packet(number, stream, 5, port, http__request__method=method, http__request__uri=uri)


def answered(number: int, stream: int, port: int, status: str, size: str) -> dict[str, list[str]]:
    return packet(number, stream, port, 5, http__response__code=status, http__file_data=size)


def conversation() -> Packets:
    """A miss, and a tunnel in which 7 bytes and 9 come back."""
    packets = [
        asked(1, 0, PROXY, "GET", "http://a/x"),
        asked(2, 1, SERVER, "GET", "/x"),
        answered(3, 1, SERVER, "200", "44"),
        answered(4, 0, PROXY, "200", "44"),
        asked(5, 2, PROXY, "CONNECT", "b:443"),
        packet(6, 2, PROXY, 5, http__response__code="200"),
        packet(7, 2, 5, PROXY, tcp__len="7", http__request__method="GET", http__request__uri="/y"),
        packet(8, 2, PROXY, 5, tcp__len="9"),
    ]
    for stream, port in ((0, PROXY), (1, SERVER), (2, PROXY)):
        packets += [packet(9, stream, *way, tcp__flags__fin="1") for way in ((5, port), (port, 5))]
    return packets


def line(method: str, target: str, status: int, bytes_in: int, bytes_out: int) -> dict[str, object]:
    return {"method": method, "target": target, "status": status, "bytes_in": bytes_in, "bytes_out": bytes_out}


def wire_faults(packets: Packets, **changes: object) -> list[str]:
    """What wire-check finds in the conversation, where the server's log line is changed as told."""
    wire_check = load("wire-check")
    proxy = [line("GET", "http://a/x", 200, 0, 44), line("CONNECT", "b:443", 200, 7, 9)]
    hops = [
        wire_check.Hop("client", "proxy", PROXY, proxy),
        wire_check.Hop("proxy", "server", SERVER, [{**line("GET", "/x", 200, 0, 44), **changes}]),
    ]
    script = [wire_check.Step("miss", print, 200, 200), wire_check.Step("tunnel", print, 200)]
    found: list[str] = wire_check.faults(packets, hops, script)
    return found


def test_wire_check_finds_no_fault_where_wireshark_and_the_log_agree() -> None:
    assert wire_faults(conversation()) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda packets: packets[2].update({"_ws.malformed": ["x"]}), "frame 3 is malformed"),
        (
            lambda packets: packets[2].update({"_ws.expert.severity": ["6291456"], "_ws.expert.message": ["bad header"]}),
            "frame 3: bad header",
        ),
        (lambda packets: packets.pop(), "TCP stream 2 was not ended by both sides"),
        (lambda packets: packets.pop(7), "proxy, frame 5: Wireshark reads ('CONNECT', 'b:443', 200, 7, 0), the log says"),
        (
            lambda packets: packets[1].update({"http.request.uri": ["/y"]}),
            "server, frame 2: Wireshark reads ('GET', '/y', 200, 0, 44), the log says ('GET', '/x', 200, 0, 44)",
        ),
        (lambda packets: packets[3].update({"http.file_data": ["43"]}), "proxy, frame 1: "),
    ],
)
def test_wire_check_fails_on(change, fault: str) -> None:  # type: ignore[no-untyped-def]
    packets = conversation()
    change(packets)
    found = wire_faults(packets)
    assert len(found) == 1 and found[0].startswith(fault)


@pytest.mark.parametrize("changes", [{"method": "HEAD"}, {"target": "/"}, {"status": 499}, {"bytes_in": 1}, {"bytes_out": 45}])
def test_wire_check_fails_on_a_log_that_says_something_else(changes: dict[str, object]) -> None:
    (found,) = wire_faults(conversation(), **changes)
    assert found.startswith("server, frame 2: Wireshark reads ('GET', '/x', 200, 0, 44), the log says")


def test_wire_check_fails_on_another_answer_than_the_one_that_was_due() -> None:
    packets = conversation()
    packets[2]["http.response.code"] = ["304"]
    assert wire_faults(packets, status=304) == ["upstreams answered [304]; due were [200]"]
    assert "the proxy answered [200]; due were [200, 200]" in wire_faults([one for one in packets if one["tcp.stream"] != ["2"]])


def test_wire_check_lets_a_mere_note_pass() -> None:
    packets = conversation()
    packets[2].update({"_ws.expert.severity": ["4194304", "2097152"], "_ws.expert.message": ["a note", "a chat"]})
    assert wire_faults(packets) == []


def test_wire_check_names_tshark_where_it_is_missing() -> None:
    done = subprocess.run(
        [sys.executable, SCRIPTS / "wire-check"],
        capture_output=True, text=True, check=False, env={**os.environ, "PATH": "/nowhere"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (2, "wire-check: tshark is missing (on Debian: apt-get install tshark)\n")


def test_a_packet_is_read_from_tsharks_own_words() -> None:
    wire_check = load("wire-check")
    element = wire_check.ElementTree.fromstring(
        '<packet><proto name="tcp"><field name="tcp.len" size="0" show="106"/><field name="tcp.seq" show="1"/></proto>'
        '<proto name="http"><field name="http.file_data" size="44" show="Hello"/>'
        '<field name="_ws.expert"><field name="_ws.expert.message" show="x"/></field></proto></packet>'
    )
    assert wire_check.packet_of(element) == {"tcp.len": ["106"], "http.file_data": ["44"], "_ws.expert.message": ["x"]}


def test_the_echo_that_wire_check_upgrades_to_speaks_as_the_rfc_shows() -> None:
    echo = load("wire_echo.py")
    assert echo.accept_for(b"dGhlIHNhbXBsZSBub25jZQ==") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455 section 1.3
    assert echo.frame(1, b"Hello") == b"\x81\x05Hello"  # section 5.7
    assert echo.frame(1, b"Hello", b"\x37\xfa\x21\x3d") == b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"


@pytest.mark.parametrize("words", [["demo"], ["eviction", "--requests", "1000", "--objects", "50"]])
def test_a_reader_that_leaves_early_gets_no_traceback(words: list[str]) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    with open(writes, "wb") as out:
        done = subprocess.run([SCRIPTS / words[0], *words[1:]], stdout=out, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")
