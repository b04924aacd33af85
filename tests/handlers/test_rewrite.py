"""Links in bodies: whatever the pieces they come in, the same bytes; and heads that tell the truth about them."""

from __future__ import annotations

import gzip
import itertools
import zlib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.stores.memory import MemoryStore
from handlers.proxy import Forwarding
from handlers.rewrite import PIECE, Links, Rewriting, Rewritten, _Gunzip, media_types
from handlers.upstreams import Upstream, Upstreams
from reactor.errors import BodyCutShort, ConfigError
from reactor.exchange import BytesSource
from reactor.loop import Reactor
from tests.loopback import House, Script, housed
from tests.origin import Asked, Proxy, chunk, no_cycles

MAPPED = ["/pypi=http://pypi.example/base", "/files=http://files.example", "/npm=http://npm.example:8080", "http://pypi.example"]
UPSTREAMS = Upstreams([Upstream.parse_mapped(text) for text in MAPPED])
REWRITING = Rewriting(UPSTREAMS, media_types("text/html,application/json"))
HERE = b"http://here.example:81"

CASES = [
    (b"http://files.example/x", HERE + b"/files/x"),
    (b"http://files.example", HERE + b"/files"),
    (b"HTTP://Files.EXAMPLE:80/x", HERE + b"/files/x"),
    (b'"http:\\/\\/files.example\\/x"', b'"' + HERE.replace(b"/", b"\\/") + b'\\/files\\/x"'),
    (b"http:\\/\\/pypi.example\\/base\\/x", HERE.replace(b"/", b"\\/") + b"\\/pypi\\/x"),
    (b"http:\\/\\/pypi.example/base/x", HERE.replace(b"/", b"\\/") + b"/base/x"),  # escaped by halves: the base that fits
    (b"http://pypi.example/base/x", HERE + b"/pypi/x"),
    (b"http://pypi.example/base?x", HERE + b"/pypi?x"),
    (b"http://pypi.example/based", HERE + b"/based"),
    (b"http://pypi.example/Base/x", HERE + b"/Base/x"),
    (b"http://npm.example:8080/x", HERE + b"/npm/x"),
    (b"git+http://files.example/x", b"git+" + HERE + b"/files/x"),
    (b"<a href='http://files.example'>", b"<a href='" + HERE + b"/files'>"),
    (b"(http://files.example), http://files.example;", b"(" + HERE + b"/files), " + HERE + b"/files;"),
    (b"http://files.example#x", HERE + b"/files#x"),
    (b"http://files.example&amp;", HERE + b"/files&amp;"),
    *[
        (same, same)
        for same in (
            b"https://files.example/x", b"http://files.example.evil/x", b"http://files.examples/x",
            b"http://files.example:8080/x", b"http://npm.example/x", b"http://npm.example:80801/x", b"http://files.example@evil/x",
            b"http://files.example%2e/x", b"http://files.example:801/", b"//files.example/x", b"http:/files.example/x",
            b"http:\\//files.example/x", b"http", b"hhttp:/", b"", b"http://files.exampl", b"http://files-example/x", b"http://filesxexample/x",
        )
    ],
]  # fmt: skip


@pytest.mark.parametrize(("body", "wanted"), CASES)
def test_what_is_an_upstreams_url_and_what_is_not(body: bytes, wanted: bytes) -> None:
    for before, behind in itertools.product((b"", b"x ", b"http", b"\xff"), (b"", b'"', b" http://", b"\n")):
        links = Links(REWRITING, HERE)
        assert links.feed(before + body + behind) + links.finish() == before + wanted + behind


WORDS = [
    b"http", b"https", b"://", b":\\/\\/", b"/", b"\\/", b"files.example", b"pypi.example", b"npm.example", b":8080",
    b":80", b"/base", b"\\/base", b"x", b"h", b" ", b'"', b".", b"@", b"HTTP://FILES.example/x", b"http://pypi.example/base/",
]  # fmt: skip


@given(st.lists(st.sampled_from(WORDS), max_size=30).map(b"".join), st.lists(st.integers(0, 200), max_size=12))
def test_pieces_make_no_difference(body: bytes, cuts: list[int]) -> None:
    whole = Links(REWRITING, HERE)
    wanted = whole.feed(body) + whole.finish()
    places = sorted(min(cut, len(body)) for cut in cuts)
    links, out = Links(REWRITING, HERE), b""
    for start, stop in zip([0, *places], [*places, len(body)], strict=True):
        out += links.feed(body[start:stop])
        assert len(links._tail) <= REWRITING.longest
    assert out + links.finish() == wanted


@pytest.mark.parametrize(("body", "wanted"), CASES)
def test_one_byte_at_a_time(body: bytes, wanted: bytes) -> None:
    links = Links(REWRITING, HERE)
    assert b"".join(links.feed(bytes((octet,))) for octet in body) + links.finish() == wanted


def test_what_cannot_be_a_link_is_not_kept_waiting() -> None:
    links = Links(REWRITING, HERE)
    assert links.feed(b"data: http://elsewhere") == b"data: http://elsewhere"
    assert links.feed(b"data: http://files.exa") == b"data: "
    assert links.feed(b"ct") == b"http://files.exact"


# gzip.


def pulled(source: Rewritten, limit: int = 1 << 20) -> bytes:
    pieces = []
    while data := source.pull(limit):
        assert len(data) <= limit
        pieces.append(bytes(data))
    return b"".join(pieces)


LINK = b"<http://files.example/x>"
MUCH = LINK * 20_000
MUCH_REWRITTEN = b"<" + HERE + b"/files/x>"


@pytest.mark.parametrize(
    "wire",
    [
        gzip.compress(MUCH), gzip.compress(MUCH[: len(LINK) * 9]) + gzip.compress(MUCH[len(LINK) * 9 :]),
        gzip.compress(MUCH) + bytes(100), gzip.compress(b"") + gzip.compress(MUCH) + gzip.compress(b""),
    ],
)  # fmt: skip
@pytest.mark.parametrize("size", [1000, 1 << 20])
def test_gzip_is_decoded_a_piece_at_a_time(wire: bytes, size: int) -> None:
    reactor = Reactor()
    script = Script(reactor, *[wire[at : at + size] for at in range(0, len(wire), size)])
    source = Rewritten(script, Links(REWRITING, HERE), _Gunzip())
    assert pulled(source, 5000) == MUCH_REWRITTEN * 20_000
    reactor.close()


def test_what_is_held_of_a_body_that_grows_is_bounded() -> None:
    bomb = gzip.compress(bytes(50 << 20))
    source = Rewritten(BytesSource(bomb), Links(REWRITING, HERE), _Gunzip())
    total = 0
    while data := source.pull(1 << 20):
        total += len(data)
        assert len(data) + len(source._out) <= PIECE
    assert total == 50 << 20


@pytest.mark.parametrize(
    "wire",
    [
        gzip.compress(MUCH)[:-1], gzip.compress(MUCH)[:-8] + bytes(8), b"no gzip", gzip.compress(b"x") + b"y", zlib.compress(MUCH),
    ],
)  # fmt: skip
def test_damaged_gzip_is_seen_cut_short(wire: bytes) -> None:
    with pytest.raises(BodyCutShort):
        pulled(Rewritten(BytesSource(wire), Links(REWRITING, HERE), _Gunzip()))


def test_no_bytes_at_all_are_no_damage() -> None:
    assert pulled(Rewritten(BytesSource(b""), Links(REWRITING, HERE), _Gunzip())) == b""


@pytest.mark.parametrize(
    "text", ["", "html", "text/", "/html", "text/html,", "text/ht ml", "*/*,", "text/html;q=1", "ä/b", "text/h/x"]
)
def test_what_is_no_list_of_types(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        media_types(text)
    assert "\n" not in str(caught.value)


# Over sockets.


@pytest.fixture
def house() -> Iterator[House]:
    yield from housed()


@pytest.fixture
def proxy(house: House) -> Proxy:
    return made(house)


def made(house: House, store: MemoryStore | None = None) -> Proxy:
    return Proxy(house, reverse=True, prefix="/base", at="/p", rewrite="text/html,application/json", store=store)


def page(proxy: Proxy) -> bytes:
    return b"<a href=http://%b/base/x>" % proxy.authority.encode()


def rewritten(proxy: Proxy) -> bytes:
    return b"<a href=http://%b/p/x>" % proxy.authority.encode()  # the Host that the client asks for


HTML = "Content-Type: text/html; charset=utf-8"


def respond(asked: Asked, body: bytes, framing: str, *lines: str) -> None:
    if framing == "length":
        asked.answer(body, *lines)
    elif framing == "late":
        asked.begin(*lines, f"Content-Length: {len(body)}")
        asked.peer.send(*[body[at : at + 1] for at in range(len(body))])
    else:
        asked.begin(*lines, "Transfer-Encoding: chunked")
        asked.peer.send(*[chunk(body[at : at + 3]) for at in range(0, len(body), 3)], b"0\r\n\r\n")


@pytest.mark.parametrize("framing", ["length", "late", "chunks"])
@pytest.mark.parametrize("coding", ["identity", "gzip"])
@pytest.mark.parametrize(
    "kind", ["text/html", "Text/HTML ; charset=utf-8", "application/vnd.pypi.simple.v1+json", "application/x+html"]
)
def test_links_lead_here(proxy: Proxy, framing: str, coding: str, kind: str) -> None:
    client = proxy.ask("/p/")
    body = page(proxy) if coding == "identity" else gzip.compress(page(proxy))
    coded = [] if coding == "identity" else ["Content-Encoding: gzip"]
    respond(
        proxy.asked(), body, framing, f"Content-Type: {kind}", *coded, 'ETag: "v1"', "Content-MD5: x", "Digest: x",
        "Repr-Digest: x", "Content-Digest: x", "Accept-Ranges: bytes", "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT",
    )  # fmt: skip
    answer = client.answer()
    assert answer.body == rewritten(proxy)
    gone = {b"content-md5", b"digest", b"repr-digest", b"content-digest", b"accept-ranges", b"content-encoding"}
    assert answer.fields.keys().isdisjoint(gone)
    assert answer.fields[b"etag"].startswith(b'W/"v1;links=s') and b"last-modified" in answer.fields


@pytest.mark.parametrize(
    "lines",
    [
        ["Content-Type: text/plain"], [], ["Content-Type: text/htmlx"], [HTML, "Content-Encoding: br"],
        [HTML, "Content-Encoding: gzip, gzip"], [HTML, "Cache-Control: max-age=1, no-transform"],
    ],
)  # fmt: skip
def test_everything_else_is_passed_on_as_it_is(proxy: Proxy, lines: list[str]) -> None:
    client = proxy.ask("/p/")
    proxy.asked().answer(page(proxy), *lines, 'ETag: "v1"', "Repr-Digest: x", "Accept-Ranges: bytes")
    answer = client.answer()
    assert (answer.body, answer.fields[b"etag"]) == (page(proxy), b'"v1"')
    assert answer.fields[b"repr-digest"] == b"x" and answer.fields[b"accept-ranges"] == b"bytes"


@pytest.mark.parametrize(
    ("accepted", "sent"),
    [
        (None, b"identity"), ("gzip", b"gzip"), ("br, GZIP;q=0.5, zstd", b"gzip"), ("x-gzip", b"gzip"), ("br", b"identity"),
        ("*", b"gzip"), ("gzip;q=0", b"identity"), ("", b"identity"),
    ],
)  # fmt: skip
def test_only_what_can_be_decoded_is_asked_for(proxy: Proxy, accepted: str | None, sent: bytes) -> None:
    client = proxy.ask("/p/", *([] if accepted is None else [f"Accept-Encoding: {accepted}"]))
    asked = proxy.asked()
    assert asked.fields[b"accept-encoding"] == sent
    asked.answer()
    client.answer()


def test_head_tells_what_get_would(proxy: Proxy) -> None:
    client = proxy.connect()
    client.send(proxy.request("HEAD", "/p/"))
    proxy.asked().begin(HTML, "Content-Length: 500", 'ETag: "v1"', "Content-Encoding: gzip", "Accept-Ranges: bytes")
    told = client.answer(b"HEAD").fields
    client.send(proxy.get("/p/"))
    proxy.asked().answer(gzip.compress(page(proxy)), HTML, 'ETag: "v1"', "Content-Encoding: gzip", "Accept-Ranges: bytes")
    got = client.answer().fields
    for name in (b"content-length", b"transfer-encoding"):
        got.pop(name, None)
    assert told == got


def marked(proxy: Proxy, etag: str) -> bytes:
    client = proxy.ask("/p/")
    proxy.asked().answer(page(proxy), HTML, f"ETag: {etag}")
    return client.answer().fields[b"etag"]


@pytest.mark.parametrize("etag", ['"v1"', 'W/"v1"', '""', '"a,b;links=s00000000"'])
def test_a_validation_asks_with_the_upstreams_own_tag(proxy: Proxy, etag: str) -> None:
    mine = marked(proxy, etag).decode("latin-1")
    assert mine.startswith('W/"')
    client = proxy.ask("/p/", f'If-None-Match: "other", {mine}')
    asked = proxy.asked()
    assert asked.fields[b"if-none-match"] == f'"other", {etag}'.encode()
    asked.begin(f"ETag: {etag}", "Content-Length: 5", status="304 Not Modified")
    answer = client.answer()
    assert (answer.status, answer.fields[b"etag"]) == (304, mine.encode())
    assert b"content-length" not in answer.fields


def test_a_tag_of_other_links_matches_nothing(proxy: Proxy) -> None:
    mine = marked(proxy, '"v1"').decode()
    other = proxy.connect()
    other.send(
        f"GET /p/ HTTP/1.1\r\nHost: other.example\r\nIf-None-Match: {mine}\r\n"
        "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n".encode()
    )
    asked = proxy.asked()
    assert asked.fields.keys().isdisjoint({b"if-none-match", b"if-modified-since"})
    asked.answer(page(proxy), HTML, 'ETag: "v1"')
    answer = other.answer()
    assert answer.body == b"<a href=http://other.example/p/x>"
    assert answer.fields[b"etag"] != mine.encode()


@pytest.mark.parametrize(
    ("asked_with", "told"),
    [(['If-None-Match: "v1"'], b'"v1"'), (["If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT"], None)],
)
def test_a_304_speaks_of_what_the_client_has(proxy: Proxy, asked_with: list[str], told: bytes | None) -> None:
    client = proxy.ask("/p/", *asked_with)
    proxy.asked().begin('ETag: "v1"', status="304 Not Modified")
    assert client.answer().fields.get(b"etag") == told


@pytest.mark.parametrize("kind", ["text/html", "multipart/byteranges; boundary=x"])
def test_a_part_of_what_is_rewritten_is_never_served(proxy: Proxy, kind: str) -> None:
    client = proxy.ask("/p/", "Range: bytes=3-5", 'If-Range: "v1"')
    asked = proxy.asked()
    assert asked.fields[b"range"] == b"bytes=3-5"
    asked.answer(b"hre", f"Content-Type: {kind}", "Content-Range: bytes 3-5/100", status="206 Partial Content")
    again = proxy.asked()
    assert again.fields.keys().isdisjoint({b"range", b"if-range"}) and again.target == asked.target
    again.answer(page(proxy), HTML)
    answer = client.answer()
    assert (answer.status, answer.body) == (200, rewritten(proxy))


def test_a_part_that_streams_is_dropped(proxy: Proxy) -> None:
    client = proxy.ask("/p/", "Range: bytes=3-")
    asked = proxy.asked()
    asked.begin(HTML, "Content-Range: bytes 3-99999/100000", "Content-Length: 99997", status="206 Partial Content")
    proxy.asked().answer(page(proxy), HTML)
    assert client.answer().body == rewritten(proxy)
    asked.peer.expect_reset()


def test_a_client_that_leaves_while_the_whole_is_asked_for(house: House, proxy: Proxy) -> None:
    client = proxy.ask("/p/", "Range: bytes=3-5")
    proxy.asked().answer(b"hre", HTML, "Content-Range: bytes 3-5/100", status="206 Partial Content")
    again = proxy.asked()
    client.reset()
    again.peer.expect_reset()
    house.until(lambda: proxy.ended)


def test_parts_of_everything_else_are_passed_on(proxy: Proxy) -> None:
    client = proxy.ask("/p/", "Range: bytes=3-5")
    proxy.asked().answer(
        b"abc", "Content-Type: application/zip", "Content-Range: bytes 3-5/100", 'ETag: "v1"', status="206 Partial Content"
    )
    answer = client.answer()
    assert (answer.status, answer.body, answer.fields[b"etag"]) == (206, b"abc", b'"v1"')


def test_a_client_without_a_host_gets_what_the_upstream_says(proxy: Proxy) -> None:
    client = proxy.connect()
    client.send(b"GET /p/ HTTP/1.0\r\n\r\n")
    proxy.asked().answer(page(proxy), HTML, 'ETag: "v1"')
    answer = client.answer()
    assert (answer.body, answer.fields[b"etag"]) == (page(proxy), b'"v1"')


def test_a_host_beyond_measure_goes_into_no_link(proxy: Proxy) -> None:
    client = proxy.connect()
    client.send(b"GET /p/ HTTP/1.1\r\nHost: %b\r\n\r\n" % (b"h" * 256))
    proxy.asked().answer(page(proxy), HTML)
    assert client.answer().body == page(proxy)


@pytest.mark.parametrize("how", ["shutdown", "reset", "damage"])
def test_a_body_that_breaks_off_is_seen_so(house: House, proxy: Proxy, how: str) -> None:
    client = proxy.ask("/p/")
    asked = proxy.asked()
    asked.begin(HTML, "Content-Encoding: gzip", "Transfer-Encoding: chunked", first=chunk(gzip.compress(MUCH)[:50]))
    client.head()
    if how == "damage":
        asked.peer.send(chunk(b"damage" * 50))
    else:
        getattr(asked.peer, how)()
    client.until(lambda: client.over, "the end")
    assert not client.received.endswith(b"0\r\n\r\n")
    assert proxy.ended[-1].failure is not None


def test_a_slow_client_slows_a_body_that_is_rewritten(house: House, proxy: Proxy) -> None:
    client = proxy.connect(small_buffers=True)
    client.send(proxy.get("/p/"))
    asked = proxy.asked()
    asked.begin(HTML, "Content-Length: 40000000")
    sent = idle = 0
    while idle < 20:
        took = asked.peer.offer(page(proxy) * 1000)
        sent += took
        idle = 0 if took else idle + 1
    assert sent < 40_000_000
    client.reset()
    asked.peer.until(lambda: asked.peer.over, "the end")


def test_trailers_about_the_upstreams_bytes_are_not_passed_on(proxy: Proxy) -> None:
    client = proxy.ask("/p/", "TE: trailers", "Connection: TE")
    asked = proxy.asked()
    asked.begin(HTML, "Transfer-Encoding: chunked", first=chunk(page(proxy)) + b"0\r\nRepr-Digest: x\r\nX-Sum: 7\r\n\r\n")
    answer = client.answer()
    assert (answer.body, answer.trailers) == (rewritten(proxy), {b"x-sum": b"7"})


# Beneath a cache.


def test_what_is_stored_is_rewritten_once_and_validated_by_the_upstreams_tag(house: House) -> None:
    proxy = made(house, MemoryStore(1 << 20))
    client = proxy.ask("/p/")
    proxy.asked().answer(page(proxy), HTML, 'ETag: "v1"', "Cache-Control: max-age=10")
    first = client.answer()
    client.send(proxy.get("/p/"))
    hit = client.answer()
    assert first.body == hit.body == rewritten(proxy)
    proxy.not_asked()
    client.send(proxy.get("/p/", "Range: bytes=1-5"))  # the whole is there, and so its parts are
    assert client.answer().body == rewritten(proxy)[1:6]
    house.pass_time(11.0)
    client.send(proxy.get("/p/"))
    asked = proxy.asked()
    assert asked.fields[b"if-none-match"] == b'"v1"'
    asked.begin('ETag: "v1"', "Cache-Control: max-age=10", status="304 Not Modified")
    again = client.answer()
    assert (again.body, again.fields[b"etag"]) == (rewritten(proxy), first.fields[b"etag"])
    client.send(proxy.get("/p/", f"If-None-Match: {first.fields[b'etag'].decode()}"))
    assert client.answer().status == 304


def test_one_that_is_stored_serves_every_coding(house: House) -> None:
    proxy = made(house, MemoryStore(1 << 20))
    client = proxy.ask("/p/", "Accept-Encoding: gzip, br", "Accept: text/html")
    lines = (HTML, "Vary: Accept-Encoding, Accept", 'ETag: "v1"', "Cache-Control: max-age=10")
    proxy.asked().answer(gzip.compress(page(proxy)), "Content-Encoding: gzip", *lines)
    answer = client.answer()
    assert (answer.body, answer.fields[b"vary"]) == (rewritten(proxy), b"accept")
    house.pass_time(11.0)
    client.send(proxy.get("/p/", "Accept-Encoding: zstd", "Accept: text/html"))
    asked = proxy.asked()
    assert asked.fields[b"if-none-match"] == b'"v1"'
    asked.begin(*lines[1:], status="304 Not Modified")
    assert client.answer().body == rewritten(proxy)
    client.send(proxy.get("/p/", "Accept: text/html"))
    assert client.answer().body == rewritten(proxy)
    proxy.not_asked()


def test_a_redirect_that_is_stored_leads_here(house: House) -> None:
    proxy = made(house, MemoryStore(1 << 20))
    client = proxy.ask("/p/")
    proxy.asked().answer(b"", f"Location: http://{proxy.authority}/base/y", "Cache-Control: max-age=10", status="301 Moved")
    assert client.answer().fields[b"location"] == b"/p/y"
    client.send(proxy.get("/p/"))
    assert client.answer().fields[b"location"] == b"/p/y"


def test_another_upstreams_urls_are_rewritten_too(house: House) -> None:
    proxy = made(house)
    assert proxy.forwarding.upstreams is not None
    upstreams = [*proxy.forwarding.upstreams.all, Upstream.parse_mapped("/files=http://files.example")]
    proxy.forwarding = Forwarding(proxy.pool, upstreams, rewrite=media_types("application/json"))
    proxy.handling.answer = proxy.forwarding.handle
    client = proxy.ask("/p/")
    json = "Content-Type: application/vnd.npm.install-v1+json"
    proxy.asked().answer(b'{"tarball":"http:\\/\\/files.example\\/x.tgz"}', json)
    assert client.answer().body == b'{"tarball":"http:\\/\\/%b\\/files\\/x.tgz"}' % proxy.authority.encode()


def test_no_cycles_are_left(house: House, proxy: Proxy) -> None:
    client = proxy.connect()
    with no_cycles():
        for framing in ("length", "chunks"):
            client.send(proxy.get("/p/", "Range: bytes=0-1"))
            proxy.asked().answer(b"ab", HTML, "Content-Range: bytes 0-1/9", status="206 Partial Content")
            respond(proxy.asked(), gzip.compress(page(proxy)), framing, HTML, "Content-Encoding: gzip")
            assert client.answer().body == rewritten(proxy)
            house.turns()
        proxy.handling.exchanges.clear()
        proxy.handling.ended.clear()
