"""Static files: what is asked for, and what comes back."""

from __future__ import annotations

import gzip
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from handlers.beneath import Root, Walk
from handlers.remembered import SMALL
from handlers.static import Static
from reactor.errors import BodyCutShort, ConfigError
from reactor.exchange import Source
from reactor.http.dates import format_date
from tests.handlers.asking import NOON, Answer, Clock, ask
from tests.loopback import open_descriptors

LONG = bytes(range(256)) * 400  # larger than SMALL: sent from its descriptor
OLD = int(NOON) - 3600


def put(path: Path, content: bytes = b"", when: float = OLD) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (when, when))
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    site = tmp_path / "site"
    put(site / "hello.txt", b"hello, world\n")
    put(site / "long.bin", LONG)
    put(site / "empty.css")
    put(site / "docs/index.html", b"<h1>docs</h1>")
    put(site / "bare/one.txt", b"1")
    put(site / "a b/caf\u00e9.html", b"odd names")
    put(site / ".hidden", b"secret")
    put(site / ".git/config", b"secret")
    put(site / ".well-known/security.txt", b"contact")
    put(tmp_path / "outside.txt", b"outside")
    return site


Serve = Callable[..., Static]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Makes handlers and closes them at the end."""
    with ExitStack() as stack:

        def make(root: Path, **options: Any) -> Static:
            handler = Static(root, **options)
            stack.callback(handler.close)
            return handler

        yield make


@pytest.fixture
def files(root: Path, serve: Serve) -> Static:
    return serve(root)


# Whole files.


@pytest.mark.parametrize(
    ("path", "kind", "content"),
    [
        ("/hello.txt", "text/plain; charset=utf-8", b"hello, world\n"),
        ("/long.bin", "application/octet-stream", LONG),
        ("/empty.css", "text/css; charset=utf-8", b""),
        ("/docs/", "text/html; charset=utf-8", b"<h1>docs</h1>"),
        ("/docs/index.html", "text/html; charset=utf-8", b"<h1>docs</h1>"),
        ("/a%20b/caf%C3%A9.html", "text/html; charset=utf-8", b"odd names"),
        ("/docs/../hello.txt?x=/../y", "text/plain; charset=utf-8", b"hello, world\n"),
        ("//hello.txt", "text/plain; charset=utf-8", b"hello, world\n"),
        ("/.well-known/security.txt", "text/plain; charset=utf-8", b"contact"),
    ],
)
def test_a_file_is_sent(files: Static, path: str, kind: str, content: bytes) -> None:
    answer = ask(files, f"GET {path}")
    assert answer.status == 200
    assert answer.content == content
    assert answer.field("Content-Type") == kind
    assert answer.field("Accept-Ranges") == "bytes"
    assert answer.field("Last-Modified") == format_date(OLD).decode()
    assert re.fullmatch('"[0-9a-f]+-[0-9a-f]+-[0-9a-f]+"', answer.field("ETag") or "")


def test_a_large_file_is_sent_from_its_descriptor(files: Static) -> None:
    body = ask(files, "GET /long.bin").answer_body
    assert isinstance(body, Source) and body.length == len(LONG)
    found = body.as_file()
    assert found is not None
    fd, offset, count = found
    assert os.pread(fd, count, offset) == LONG
    body.close()


def test_a_small_file_comes_as_bytes_with_a_head_already_written(files: Static) -> None:
    answer = ask(files, "GET /hello.txt")
    assert answer.answer_body == b"hello, world\n"
    assert answer.head is not None and answer.head.wire is not None
    start, *lines = answer.head.wire.split(b"\r\n")
    assert start == b"HTTP/1.1 200 OK"
    assert b"Date: " + format_date(NOON) in lines
    assert b"Content-Length: 13" in lines
    assert lines[-2:] == [b"", b""]
    for name, value in answer.head.fields:
        assert b"%b: %b" % (name, value) in lines


def test_head_is_answered_as_get(files: Static) -> None:
    get, head = ask(files, "GET /hello.txt"), ask(files, "HEAD /hello.txt")
    assert (head.status, head.head and head.head.fields) == (200, get.head and get.head.fields)


# What is not there, or not to be had.


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/missing", 404),
        ("/hello.txt/", 404),
        ("/hello.txt/x", 404),
        ("/docs/missing", 404),
        ("/" + "x" * 300, 404),
        ("/" + "x/" * 2000, 404),
        ("/bare/", 403),
        ("/.hidden", 404),
        ("/.git/config", 404),
        ("/%2ehidden", 404),
        ("/docs/.well-known", 404),
        ("/../outside.txt", 404),
        ("/%2e%2e/outside.txt", 404),
        ("/..%2foutside.txt", 404),
        ("/docs/../../outside.txt", 404),
        ("/docs%2findex.html", 404),
        ("/docs%5cindex.html", 404),
        ("/hello.txt%00", 400),
        ("/%", 400),
        ("/hello.txt%0", 400),
    ],
)
def test_refused(files: Static, path: str, status: int) -> None:
    answer = ask(files, f"GET {path}")
    assert answer.status == status
    assert b"secret" not in answer.content and b"outside" not in answer.content


def test_without_the_right_to_read(serve: Serve, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_open = os.open

    def refusing_open(path: bytes, *args: int, **more: int) -> int:
        if path == b"hello.txt":
            raise PermissionError(13, "Permission denied")
        return real_open(path, *args, **more)

    monkeypatch.setattr(os, "open", refusing_open)
    assert ask(serve(root), "GET /hello.txt").status == 403


def test_an_unexpected_error_is_the_servers(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(fd: int, size: int, offset: int) -> bytes:
        raise OSError(5, "Input/output error")

    before = open_descriptors()
    handler = Static(root)
    monkeypatch.setattr(os, "pread", broken)
    with pytest.raises(OSError, match="Input/output"):
        ask(handler, "GET /hello.txt")
    handler.close()
    assert open_descriptors() == before


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "TRACE"])
def test_other_methods_are_told_which_there_are(files: Static, method: str) -> None:
    answer = ask(files, f"{method} /hello.txt")
    assert (answer.status, answer.field("Allow")) == (405, "GET, HEAD, OPTIONS")


def test_a_method_that_nobody_knows(files: Static) -> None:
    assert ask(files, "BREW /hello.txt").status == 501


def test_options(files: Static) -> None:
    for target in ("/hello.txt", "*"):
        answer = ask(files, f"OPTIONS {target}")
        assert (answer.status, answer.field("Allow"), answer.content) == (204, "GET, HEAD, OPTIONS", b"")


def test_errors_are_lines_pages_or_json(files: Static) -> None:
    for accept in ("", "\nAccept: */*"):
        line = ask(files, f"GET /missing{accept}")
        assert line.field("Content-Type") == "text/plain; charset=utf-8"
        assert line.content == b"404 Not Found: There is no such file.\n"
    page = ask(files, "GET /missing\nAccept: text/html,*/*;q=0.8")
    assert page.field("Content-Type") == "text/html; charset=utf-8"
    assert b"<title>404 Not Found</title>" in page.content
    told = ask(files, "GET /missing\nAccept: application/json")
    assert told.field("Content-Type") == "application/problem+json"
    assert told.json == {"type": "about:blank", "title": "Not Found", "status": 404, "detail": "There is no such file."}
    assert line.field("Vary") == page.field("Vary") == told.field("Vary") == "Accept"


def test_a_root_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere: No such file"):
        Static(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="Not a directory"):
        Static(put(tmp_path / "file"))


# Directories.


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/docs", "/docs/"),
        ("/docs?a=1&b", "/docs/?a=1&b"),
        ("//docs", "/docs/"),
        ("/./a%20b", "/a%20b/"),
        ("/x/../docs", "/docs/"),
    ],
)
def test_a_directory_has_a_slash(files: Static, target: str, location: str) -> None:
    answer = ask(files, f"GET {target}")
    assert (answer.status, answer.field("Location")) == (301, location)


@pytest.mark.parametrize("name", ["evil.example", "https:", "x\nSet-Cookie: a=b", '"><script>', "%2f", "\\evil"])
def test_a_redirect_never_names_another_place(serve: Serve, root: Path, name: str) -> None:
    (root / name).mkdir()
    handler = serve(root)
    encoded = "".join(f"%{octet:02x}" for octet in name.encode())
    for target in (f"/{encoded}", f"//{encoded}", f"///{encoded}", f"/.//{encoded}"):
        answer = ask(handler, f"GET {target}")
        if "\\" in name:
            assert answer.status == 404
            continue
        location = answer.field("Location") or ""
        assert answer.status == 301 and re.fullmatch(r"/[^/\\\n]+/", location)
        assert ask(handler, f"GET {location}").status == 403
        assert b"<script>" not in answer.content


def test_other_index_files(serve: Serve, root: Path) -> None:
    put(root / "bare/start.htm", b"start")
    (root / "bare/index.html").mkdir()
    assert ask(serve(root, index=("index.html", "start.htm")), "GET /bare/").content == b"start"
    assert ask(serve(root, index=()), "GET /docs/").status == 403


def test_an_index_that_is_a_dead_link_is_no_listing(serve: Serve, root: Path) -> None:
    (root / "bare/index.html").symlink_to("../docs/missing")
    assert ask(serve(root, listing=True), "GET /bare/").status == 404


def test_a_mounted_root(serve: Serve, root: Path) -> None:
    handler = serve(root, mount=b"/assets/")
    assert ask(handler, "GET /assets/hello.txt").content == b"hello, world\n"
    assert ask(handler, "GET /assets?x").field("Location") == "/assets/?x"
    assert ask(handler, "GET /assets/docs").field("Location") == "/assets/docs/"
    for path in ("/hello.txt", "/assetsx/hello.txt", "/assets/../hello.txt", "/"):
        assert ask(handler, f"GET {path}").status == 404


def test_a_listing(root: Path) -> None:
    put(root / "<i>&", b"12345")
    put(root / "x:y", b"")
    (root / "out").symlink_to("../outside.txt")
    (root / "dead").symlink_to("nowhere")
    (root / "in").symlink_to("docs")
    os.mkfifo(root / "pipe")
    handler = Static(root, listing=True)
    answer = ask(handler, "GET /")
    assert (answer.status, answer.field("Content-Type")) == (200, "text/html; charset=utf-8")
    page = answer.content.decode()
    for link in ("./hello.txt", "./docs/", "./a%20b/", "./%3Ci%3E&amp;", "./x:y", "./in/"):
        assert f'href="{link}"' in page
    for absent in (".hidden", ".git", "outside", "dead", "pipe", 'href="../"', "<i>"):
        assert absent not in page
    told = ask(handler, "GET /\nAccept: application/json").json
    assert told["path"] == "/" and told["complete"] is True
    by_name = {entry["name"]: entry for entry in told["entries"]}
    assert by_name["hello.txt"] == {
        "name": "hello.txt", "type": "file", "size": 13, "modified": "2023-11-14T21:13:20Z", "href": "./hello.txt",
    }  # fmt: skip
    assert by_name["docs"]["type"] == by_name["in"]["type"] == "directory"
    assert list(by_name)[:4] == ["a b", "bare", "docs", "in"]
    handler.close()


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", ["sub", "A.txt", "b.txt", "c.txt"]),
        ("?sort=name&order=desc", ["sub", "c.txt", "b.txt", "A.txt"]),
        ("?sort=size", ["sub", "c.txt", "A.txt", "b.txt"]),
        ("?sort=size&order=desc", ["sub", "b.txt", "A.txt", "c.txt"]),
        ("?sort=modified", ["sub", "b.txt", "c.txt", "A.txt"]),
        ("?sort=%ff&order=x", ["sub", "A.txt", "b.txt", "c.txt"]),
    ],
)
def test_a_listing_is_sorted(serve: Serve, tmp_path: Path, query: str, names: list[str]) -> None:
    (tmp_path / "sub").mkdir()
    for at, (name, size) in enumerate((("b.txt", 30), ("c.txt", 10), ("A.txt", 20))):
        put(tmp_path / name, b"x" * size, OLD + at)
    told = ask(serve(tmp_path, listing=True), f"GET /{query}\nAccept: application/json").json
    assert [entry["name"] for entry in told["entries"]] == names


def test_a_listing_has_a_bound(serve: Serve, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handlers.listing.LISTED", 2)
    answer = ask(serve(root, listing=True), "GET /\nAccept: application/json").json
    assert answer["complete"] is False and len(answer["entries"]) <= 2


def test_dot_files_on_request(serve: Serve, root: Path) -> None:
    handler = serve(root, dot_files=True, listing=True)
    assert ask(handler, "GET /.hidden").content == b"secret"
    assert ".git" in [entry["name"] for entry in ask(handler, "GET /\nAccept: application/json").json["entries"]]


# Conditions.


def test_a_file_that_the_client_has(files: Static) -> None:
    first = ask(files, "GET /hello.txt")
    again = ask(files, f"GET /hello.txt\nIf-None-Match: {first.field('ETag')}")
    assert (again.status, again.content, again.field("ETag")) == (304, b"", first.field("ETag"))
    assert again.field("Content-Type") is None
    assert ask(files, f"GET /hello.txt\nIf-Modified-Since: {first.field('Last-Modified')}").status == 304
    assert ask(files, 'GET /hello.txt\nIf-None-Match: "other"').content == b"hello, world\n"
    assert ask(files, f"HEAD /long.bin\nIf-Modified-Since: {format_date(OLD).decode()}").status == 304


def test_a_file_that_is_not_as_the_client_wants(files: Static) -> None:
    for path in ("/hello.txt", "/long.bin"):
        assert ask(files, f'GET {path}\nIf-Match: "other"').status == 412
        assert ask(files, f"GET {path}\nIf-Unmodified-Since: {format_date(OLD - 1).decode()}").status == 412


def test_conditions_mean_nothing_where_there_is_nothing(files: Static) -> None:
    assert ask(files, "GET /missing\nIf-None-Match: *").status == 404
    assert ask(files, 'GET /docs\nIf-Match: "x"').status == 301


def test_a_young_file_has_a_weak_tag(serve: Serve, root: Path) -> None:
    clock = Clock()
    put(root / "new.txt", b"new", NOON - 0.5)
    handler = serve(root)
    first = ask(handler, "GET /new.txt", clock)
    assert (first.field("ETag") or "").startswith('W/"')
    clock.pass_(3)
    later = ask(handler, "GET /new.txt", clock)
    assert later.field("ETag") == (first.field("ETag") or "").removeprefix("W/")
    assert ask(handler, f"GET /new.txt\nIf-None-Match: {first.field('ETag')}", clock).status == 304
    assert ask(handler, f"GET /new.txt\nIf-Match: {first.field('ETag')}", clock).status == 412


def test_a_file_from_the_future_was_changed_now(serve: Serve, root: Path) -> None:
    put(root / "new.txt", b"new", NOON + 1000)
    answer = ask(serve(root), "GET /new.txt")
    assert answer.field("Last-Modified") == format_date(NOON).decode()
    assert (answer.field("ETag") or "").startswith("W/")


# Ranges.


@pytest.mark.parametrize("path", ["/hello.txt", "/long.bin"])
@pytest.mark.parametrize(
    ("value", "part"), [("0-4", slice(0, 5)), ("3-", slice(3, None)), ("-4", slice(-4, None)), ("5-5", slice(5, 6))]
)
def test_a_range(files: Static, path: str, value: str, part: slice) -> None:
    whole = ask(files, f"GET {path}").content
    answer = ask(files, f"GET {path}\nRange: bytes={value}")
    assert answer.status == 206
    assert answer.content == whole[part]
    start, stop, _ = part.indices(len(whole))
    assert answer.field("Content-Range") == f"bytes {start}-{stop - 1}/{len(whole)}"
    assert answer.field("ETag") == ask(files, f"GET {path}").field("ETag")


@pytest.mark.parametrize("path", ["/hello.txt", "/long.bin"])
def test_several_ranges(files: Static, path: str) -> None:
    whole = ask(files, f"GET {path}").content
    answer = ask(files, f"GET {path}\nRange: bytes=0-1,4-5,-2")
    kind = re.fullmatch("multipart/byteranges; boundary=([0-9a-f]+)", answer.field("Content-Type") or "")
    assert answer.status == 206 and kind is not None and answer.field("Content-Range") is None
    assert isinstance(answer.answer_body, Source) and answer.answer_body.length == len(answer.content)
    parts = answer.content.split(b"--" + kind[1].encode())
    assert parts[0] == b"" and parts[-1] == b"--\r\n"
    size = len(whole)
    wanted = [(0, 2), (4, 6), (size - 2, size)]
    for (start, stop), part in zip(wanted, parts[1:-1], strict=True):
        head, _, content = part.partition(b"\r\n\r\n")
        assert content == whole[start:stop] + b"\r\n"
        assert b"Content-Range: bytes %d-%d/%d" % (start, stop - 1, size) in head


def test_a_range_that_is_not_there(files: Static) -> None:
    answer = ask(files, "GET /hello.txt\nRange: bytes=13-")
    assert (answer.status, answer.field("Content-Range")) == (416, "bytes */13")
    assert ask(files, "GET /empty.css\nRange: bytes=0-").status == 416
    assert ask(files, "GET /empty.css\nRange: bytes=-1").status == 200


@pytest.mark.parametrize("value", ["bytes=4-1", "lines=0-1", "bytes=x"])
def test_a_range_that_is_ignored(files: Static, value: str) -> None:
    assert ask(files, f"GET /hello.txt\nRange: {value}").status == 200


def test_ranges_are_for_get_alone(files: Static) -> None:
    answer = ask(files, "HEAD /hello.txt\nRange: bytes=0-1")
    assert answer.status == 200 and answer.answer_body == b"hello, world\n"


def test_a_range_of_what_the_client_has(files: Static) -> None:
    first = ask(files, "GET /hello.txt")
    for validator in (first.field("ETag"), first.field("Last-Modified")):
        assert ask(files, f"GET /hello.txt\nRange: bytes=0-1\nIf-Range: {validator}").status == 206
    for validator in ('"other"', f"W/{first.field('ETag')}", format_date(OLD + 1).decode()):
        answer = ask(files, f"GET /hello.txt\nRange: bytes=0-1\nIf-Range: {validator}")
        assert (answer.status, answer.content) == (200, b"hello, world\n")


def test_conditions_go_before_ranges(files: Static) -> None:
    tag = ask(files, "GET /hello.txt").field("ETag")
    assert ask(files, f"GET /hello.txt\nRange: bytes=0-1\nIf-None-Match: {tag}").status == 304
    assert ask(files, 'GET /hello.txt\nRange: bytes=99-\nIf-Match: "x"').status == 412


# Precompressed neighbours.


@pytest.fixture
def coded(serve: Serve, root: Path) -> Static:
    text = b"body { color: red }\n" * 100
    put(root / "style.css", text)
    put(root / "style.css.gz", gzip.compress(text))
    put(root / "style.css.br", b"brotli" * 2)
    put(root / "style.css.zst", b"zstd")
    put(root / "old.css", text)
    put(root / "old.css.gz", b"stale", OLD - 10)
    return serve(root)


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        (None, None),
        ("", None),
        ("gzip", "gzip"),
        ("x-gzip", "gzip"),
        ("br", "br"),
        ("gzip, deflate, br, zstd", "zstd"),  # the smallest of equals
        ("gzip, br;q=0.9", "gzip"),
        ("gzip;q=0", None),
        ("deflate", None),
        ("identity, gzip;q=0.5", None),
        ("identity;q=0.5, gzip", "gzip"),
        ("*", "zstd"),
        ("*;q=0", None),
    ],
)
def test_a_coding_is_chosen(coded: Static, accepted: str | None, coding: str | None) -> None:
    field = "" if accepted is None else f"\nAccept-Encoding: {accepted}"
    answer = ask(coded, f"GET /style.css{field}")
    assert answer.field("Content-Encoding") == coding
    assert answer.field("Vary") == "Accept-Encoding"
    assert answer.field("Content-Type") == "text/css; charset=utf-8"
    endings = {None: "", "gzip": ".gz", "br": ".br", "zstd": ".zst"}
    if coding is not None:
        plain = ask(coded, f"GET /style.css{endings[coding]}")
        assert answer.content == plain.content
        assert plain.field("Content-Encoding") is None


def test_each_coding_has_its_own_tag(coded: Static) -> None:
    tags = {ask(coded, f"GET /style.css\nAccept-Encoding: {coding}").field("ETag") for coding in ("", "gzip", "br", "zstd")}
    assert len(tags) == 4
    gzipped = ask(coded, "GET /style.css\nAccept-Encoding: gzip").field("ETag")
    assert ask(coded, f"GET /style.css\nAccept-Encoding: gzip\nIf-None-Match: {gzipped}").field("Vary") == "Accept-Encoding"
    assert ask(coded, f"GET /style.css\nAccept-Encoding: br\nIf-None-Match: {gzipped}").status == 200


def test_a_range_of_a_coding(coded: Static) -> None:
    answer = ask(coded, "GET /style.css\nAccept-Encoding: br\nRange: bytes=0-2")
    assert (answer.content, answer.field("Content-Encoding"), answer.field("Content-Range")) == (
        b"bro",
        "br",
        "bytes 0-2/12",
    )


def test_a_neighbour_that_is_out_of_date(coded: Static) -> None:
    answer = ask(coded, "GET /old.css\nAccept-Encoding: gzip")
    assert (answer.field("Content-Encoding"), answer.field("Vary")) == (None, None)


# How long it is fresh.


def test_freshness(serve: Serve, root: Path) -> None:
    assert ask(serve(root), "GET /hello.txt").field("Cache-Control") is None
    always = serve(root, max_age=[("", 60)])
    tag = ask(always, "GET /hello.txt").field("ETag")
    assert ask(always, "GET /hello.txt").field("Cache-Control") == "max-age=60"
    assert ask(always, f"GET /hello.txt\nIf-None-Match: {tag}").field("Cache-Control") == "max-age=60"
    by_glob = serve(root, max_age=[("docs/*", 5), ("*.txt", 60), ("*.css", 0)])
    for path, value in (
        ("/docs/", "max-age=5"),
        ("/hello.txt", "max-age=60"),
        ("/bare/one.txt", "max-age=60"),
        ("/empty.css", "max-age=0"),
    ):
        assert ask(by_glob, f"GET {path}").field("Cache-Control") == value
    assert ask(by_glob, "GET /long.bin").field("Cache-Control") is None


# What is remembered.


def test_a_file_is_looked_at_once_a_second(root: Path, files: Static, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    walks: list[Walk] = []

    def walk(root: Root) -> Walk:
        walks.append(Walk(root))
        return walks[-1]

    monkeypatch.setattr(Root, "walk", walk)
    for _ in range(5):
        ask(files, "GET /hello.txt", clock)
        ask(files, "GET /hello.txt?query", clock)
    assert len(walks) == 1
    clock.pass_(1)
    ask(files, "GET /hello.txt", clock)
    assert len(walks) == 2
    clock.wall -= 100  # somebody set the clock
    ask(files, "GET /hello.txt", clock)
    assert len(walks) == 3


def test_the_date_is_this_seconds(files: Static) -> None:
    clock = Clock()
    for _ in range(3):
        head = ask(files, "GET /hello.txt", clock).head
        assert head is not None and head.wire is not None and b"Date: " + format_date(clock.wall) in head.wire
        clock.pass_(1)


def test_a_changed_file_is_noticed(root: Path, files: Static) -> None:
    clock = Clock()
    before = ask(files, "GET /hello.txt", clock)
    put(root / "hello.txt", b"HELLO, WORLD\n")  # of the same size, its time put back
    assert ask(files, "GET /hello.txt", clock).content == b"hello, world\n", "for a second"
    clock.pass_(1)
    after = ask(files, "GET /hello.txt", clock)
    assert after.content == b"HELLO, WORLD\n"
    assert before.content == b"hello, world\n"
    os.unlink(root / "hello.txt")
    clock.pass_(1)
    assert ask(files, "GET /hello.txt", clock).status == 404
    put(root / "hello.txt", b"back")
    assert ask(files, "GET /hello.txt", clock).content == b"back"


def test_a_large_file_that_changed_in_place_is_noticed_at_once(root: Path, files: Static) -> None:
    clock = Clock()
    first = ask(files, "GET /long.bin", clock)
    assert first.content == LONG
    put(root / "long.bin", LONG + b"more", OLD + 10)
    second = ask(files, "GET /long.bin", clock)
    assert second.content == LONG + b"more" and second.field("ETag") != first.field("ETag")


def test_a_file_that_shrinks_while_it_is_sent_is_cut_short(root: Path, files: Static) -> None:
    body = ask(files, "GET /long.bin").answer_body
    assert isinstance(body, Source) and body.length == len(LONG)
    assert body.pull(1000) == LONG[:1000]
    os.truncate(root / "long.bin", 1000)
    with pytest.raises(BodyCutShort):
        body.pull(1000)
    body.close()


def test_a_file_that_is_rewritten_while_it_is_sent_is_cut_short(root: Path, files: Static) -> None:
    body = ask(files, "GET /long.bin").answer_body
    assert isinstance(body, Source)
    body.pull(1000)
    put(root / "long.bin", LONG[::-1], OLD + 1)
    body.pull(1000)
    with pytest.raises(BodyCutShort):
        body.pull(len(LONG))
    body.close()


@pytest.mark.parametrize("changed", [LONG[::-1], b"x" + LONG[1:] + b"more", LONG[:-1] + b"xmore"])
def test_a_file_that_is_rewritten_longer_while_it_is_sent_is_cut_short(root: Path, files: Static, changed: bytes) -> None:
    body = ask(files, "GET /long.bin").answer_body
    assert isinstance(body, Source)
    body.pull(1000)
    put(root / "long.bin", changed)  # its time put back: no stamp but that of the status change tells
    with pytest.raises(BodyCutShort):
        body.pull(len(LONG))
    body.close()


@pytest.mark.parametrize("lose", [lambda path: path.unlink(), lambda path: path.rename(path.with_name("old"))])
def test_a_file_that_is_replaced_while_it_is_sent_is_sent_on(root: Path, files: Static, lose: Callable[[Path], object]) -> None:
    body = ask(files, "GET /long.bin").answer_body
    assert isinstance(body, Source)
    start = bytes(body.pull(1000) or b"")
    lose(root / "long.bin")
    put(root / "long.bin", LONG[::-1])
    assert start + bytes(body.pull(len(LONG)) or b"") == LONG
    body.close()


@pytest.mark.parametrize("ranges", ["0-9,1000-1009", "0-9,20-29,-10"])
def test_a_file_that_is_rewritten_between_two_parts_is_cut_short(root: Path, files: Static, ranges: str) -> None:
    body = ask(files, f"GET /long.bin\nRange: bytes={ranges}").answer_body
    assert isinstance(body, Source)
    while not bytes(body.pull(1000) or b"").startswith(LONG[:10]):
        pass
    put(root / "long.bin", LONG[::-1], OLD + 1)
    with pytest.raises(BodyCutShort):
        while body.pull(1000):
            pass
    body.close()


def test_a_file_that_grows_while_it_is_sent_is_sent_as_far_as_was_promised(root: Path, files: Static) -> None:
    body = ask(files, "GET /long.bin").answer_body
    assert isinstance(body, Source)
    start = bytes(body.pull(1000) or b"")
    with open(root / "long.bin", "ab") as file:
        file.write(b"more")
    assert start + bytes(body.pull(len(LONG)) or b"") == LONG
    assert body.pull(1) == b""
    body.close()


def test_a_replaced_file_is_sent_to_its_end(root: Path, files: Static) -> None:
    clock = Clock()
    body = ask(files, "GET /long.bin", clock).answer_body
    assert isinstance(body, Source)
    put(root / "other.bin", b"x" * 50_000)
    os.replace(root / "other.bin", root / "long.bin")
    clock.pass_(1)
    assert ask(files, "GET /long.bin", clock).content == b"x" * 50_000
    received = b"".join(iter(lambda: bytes(body.pull(30_000) or b""), b""))
    assert received == LONG
    body.close()


def test_descriptors_are_bounded_and_given_back(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handlers.remembered.DESCRIPTORS", 3)
    monkeypatch.setattr("handlers.remembered.REMEMBERED", 6)
    before = open_descriptors()
    handler = Static(root)
    clock = Clock()
    for number in range(10):
        put(root / f"large{number}.bin", bytes([number]) * (SMALL + 1))
        put(root / f"small{number}.bin", bytes([number]))
    for _ in range(2):
        for number in range(10):
            assert ask(handler, f"GET /large{number}.bin", clock).content == bytes([number]) * (SMALL + 1)
            assert ask(handler, f"GET /small{number}.bin", clock).content == bytes([number])
            assert open_descriptors() <= before + 1 + 3
            assert len(handler._known) <= 6
        clock.pass_(1)
    body = ask(handler, "GET /large1.bin", clock).answer_body
    handler.close()
    assert isinstance(body, Source) and body.pull(10) == b"\1" * 10, "a response under way keeps its file"
    body.close()
    assert open_descriptors() == before


def test_no_descriptor_left(serve: Serve, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handler = serve(root)
    clock = Clock()
    ask(handler, "GET /long.bin", clock).content  # noqa: B018
    real_open, full = os.open, [True]

    def open_when_there_is_room(*args: object, **more: object) -> int:
        if handler._known or full[0]:
            raise OSError(24, "Too many open files")
        return real_open(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", open_when_there_is_room)
    answer = ask(handler, "GET /docs/", clock)
    assert (answer.status, answer.field("Retry-After")) == (503, "1")
    full[0] = False
    monkeypatch.setattr(os, "open", real_open)
    ask(handler, "GET /long.bin", clock).content  # noqa: B018
    monkeypatch.setattr(os, "open", open_when_there_is_room)
    assert ask(handler, "GET /docs/", clock).content == b"<h1>docs</h1>", "what was remembered made room"


def test_a_client_that_leaves_gives_the_file_back(root: Path) -> None:
    before = open_descriptors()
    handler = Static(root)
    answer: Answer = ask(handler, "GET /long.bin")
    answer.leave()
    ranged = ask(handler, "GET /long.bin\nRange: bytes=0-1,5-6,9-10")
    ranged.leave()
    handler.close()
    assert open_descriptors() == before


def test_json_of_an_error_is_json(files: Static) -> None:
    assert json.loads(ask(files, "POST /hello.txt\nAccept: application/*").content)["status"] == 405
