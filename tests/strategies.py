"""Hypothesis strategies that write HTTP messages from the grammar, and break them. Shared by all tests.

A `Message` knows what it says (its parts) and how it is spelled (`wire`). `mutated` takes bytes and does to them what
attackers and broken peers do; `soup` joins fragments that mean something to a parser in no order at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st

thorough = settings(max_examples=200, deadline=None)

TCHARS = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
VCHARS = "".join(map(chr, range(0x21, 0x7F)))
OBS_TEXT = "".join(map(chr, range(0x80, 0x100)))
PATH_CHARS = "ABCXYZabcxyz0189-._~!$&'()*+,;=:@%/?[]|"

METHODS = [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE", b"PROPFIND", b"get", b"X-!#"]
HOSTS = [b"example.com", b"www.example.com:8080", b"127.0.0.1", b"[::1]:80", b"a", b"EXAMPLE.org", b"xn--bcher-kva.example"]
# What messages are full of, in pairs: spelled with and without white space, known by heart by every parser's memo.
USUAL_FIELDS = [
    (b"Accept", b"text/html,application/xml;q=0.9,*/*;q=0.8"),
    (b"User-Agent", b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"),
    (b"Accept-Encoding", b"gzip, deflate, br"),
    (b"accept-language", b"en-GB,en;q=0.9"),
    (b"Cookie", b"sid=5f2b1c0d; theme=dark"),
    (b"cookie", b"a=b"),
    (b"Referer", b"http://www.example.com/page/7"),
    (b"If-None-Match", b'"abc"'),
    (b"Cache-Control", b"max-age=0"),
    (b"X-Empty", b""),
    (b"Via", b"1.1 a, 1.0 b (c)"),
    (b"Date", b"Sun, 06 Nov 1994 08:49:37 GMT"),
    (b"Content-Type", b"text/plain; charset=utf-8"),
    (b"Set-Cookie", b"a=b; Expires=Sun, 06 Nov 1994 08:49:37 GMT"),
    (b"ETag", b'W/"x"'),
]
# Fields that decide framing, routing or the connection; a message gets them on purpose only.
RESERVED = {
    b"host", b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"expect", b"keep-alive",
}  # fmt: skip


def _encoded(alphabet: str, least: int, most: int) -> st.SearchStrategy[bytes]:
    return st.text(alphabet, min_size=least, max_size=most).map(lambda text: text.encode("latin-1"))


tokens = _encoded(TCHARS, 1, 12)
field_values = _encoded(VCHARS + OBS_TEXT + " \t", 0, 30).map(lambda value: value.strip(b" \t"))
field_names = tokens.filter(lambda name: name.lower() not in RESERVED)
fields = st.one_of(st.sampled_from(USUAL_FIELDS), st.sampled_from(USUAL_FIELDS), st.tuples(field_names, field_values))
white_space = st.sampled_from([b"", b" ", b" ", b" ", b"\t", b" \t "])
paths = _encoded(PATH_CHARS, 0, 20).map(lambda rest: b"/" + rest)
bodies = st.one_of(
    st.binary(max_size=40), st.sampled_from([b"\r\n", b"0\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"x" * 3000])
)
trailers = st.lists(st.tuples(st.sampled_from([b"X-Sum", b"Server-Timing", b"x-b"]), field_values), max_size=2)

_quoted = st.text(VCHARS.replace('"', "").replace("\\", "") + " \t", max_size=8).map(lambda text: b'"%b"' % text.encode())
chunk_extensions = st.one_of(
    st.just(b""),
    st.builds(lambda name: b";" + name, tokens),
    st.builds(lambda name, value: b" ; %b=%b" % (name, value), tokens, st.one_of(tokens, _quoted, st.just(b'"a\\"b"'))),
)


@dataclass
class Message:
    """A message's parts, and the bytes that spell it."""

    start: tuple[bytes, ...]  # method, target, version; or version, status, reason
    fields: list[tuple[bytes, bytes]]  # framing fields included
    body: bytes = b""
    chunks: list[bytes] | None = None  # what the body's chunks carry, where it is chunked
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    wire: bytes = b""
    request_method: bytes = b"GET"  # of the request that a response answers
    ends_with_close: bool = False


def _spell_fields(draw: st.DrawFn, pairs: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join(name + b":" + draw(white_space) + value + draw(white_space) + b"\r\n" for name, value in pairs)


def _spell_chunks(draw: st.DrawFn, chunks: list[bytes], trailing: list[tuple[bytes, bytes]]) -> bytes:
    size = draw(st.sampled_from([b"%x", b"%X", b"00%x"]))
    spelled = [(size % len(data)) + draw(chunk_extensions) + b"\r\n" + data + b"\r\n" for data in chunks]
    last = draw(st.sampled_from([b"0", b"00", b"0;done"]))
    return b"".join(spelled) + last + b"\r\n" + _spell_fields(draw, trailing) + b"\r\n"


@st.composite
def requests(draw: st.DrawFn) -> Message:
    """A request that RFC 9112 allows: every form of the target, both versions, every framing."""
    version = draw(st.sampled_from([b"HTTP/1.1"] * 5 + [b"HTTP/1.0", b"HTTP/1.9"]))
    form = draw(st.sampled_from(["origin"] * 6 + ["absolute", "absolute", "asterisk", "authority"]))
    host = draw(st.sampled_from(HOSTS))
    method = draw(st.sampled_from(METHODS))
    if form == "asterisk":
        method, target = b"OPTIONS", b"*"
    elif form == "authority":
        method, target = b"CONNECT", draw(st.sampled_from([b"example.com:443", b"[::1]:1", b"A:65535"]))
    elif form == "absolute":
        target = draw(st.sampled_from([b"http", b"HTTP", b"https"])) + b"://" + host + draw(st.one_of(st.just(b""), paths))
    else:
        target = draw(paths)
    pairs = [(draw(st.sampled_from([b"Host", b"host"])), host)]
    pairs += draw(st.lists(fields, max_size=6))
    if draw(st.integers(0, 3)) == 0:
        pairs.append(
            (b"Connection", draw(st.sampled_from([b"close", b"keep-alive", b"Keep-Alive, X-A", b"close, TE", b"x"])))
        )
    elif draw(st.integers(0, 9)) == 0:
        pairs += [(b"Connection", b"Upgrade"), (b"Upgrade", draw(st.sampled_from([b"websocket", b"a/1, h2c", b"h2c", b""])))]
    message = Message((method, target, version), pairs)
    framing = draw(st.sampled_from(["none", "none", "length", "chunked" if version != b"HTTP/1.0" else "length"]))
    payload = _frame(draw, message, "none" if form == "authority" else framing)
    pairs[:] = draw(st.permutations(pairs))
    message.wire = b" ".join(message.start) + b"\r\n" + _spell_fields(draw, pairs) + b"\r\n" + payload
    return message


@st.composite
def responses(draw: st.DrawFn) -> Message:
    """A response that RFC 9112 allows, with the method of the request it answers."""
    version = draw(st.sampled_from([b"HTTP/1.1"] * 5 + [b"HTTP/1.0"]))
    status = draw(st.sampled_from([200] * 5 + [100, 103, 204, 206, 301, 304, 404, 500, 599, 799]))
    reason = draw(st.sampled_from([b"OK", b"", b"Not quite what was asked for", b"\xe9"]))
    method = draw(st.sampled_from([b"GET"] * 4 + [b"HEAD", b"POST"]))
    pairs = draw(st.lists(fields, max_size=6))
    if draw(st.integers(0, 3)) == 0:
        pairs.append((b"Connection", draw(st.sampled_from([b"close", b"keep-alive"]))))
    message = Message((version, b"%d" % status, reason), pairs, request_method=method)
    if method == b"HEAD" or status < 200 or status in (204, 304):
        payload = b""
        if draw(st.booleans()) and status >= 200:
            pairs.append((b"Content-Length", b"17"))
    else:
        choices = ["length", "close", "chunked" if version != b"HTTP/1.0" else "length"]
        payload = _frame(draw, message, draw(st.sampled_from(choices)))
    pairs[:] = draw(st.permutations(pairs))
    message.wire = b" ".join(message.start) + b"\r\n" + _spell_fields(draw, pairs) + b"\r\n" + payload
    return message


def _frame(draw: st.DrawFn, message: Message, framing: str) -> bytes:
    """Give the message a body framed this way; returns the body as spelled."""
    if framing == "none":
        return b""
    if framing == "chunked":
        message.fields.append((b"Transfer-Encoding", draw(st.sampled_from([b"chunked", b"Chunked"]))))
        message.chunks = [data for data in draw(st.lists(bodies, max_size=4)) if data]
        message.trailers = draw(trailers)
        message.body = b"".join(message.chunks)
        return _spell_chunks(draw, message.chunks, message.trailers)
    message.body = draw(bodies)
    if framing == "close":
        message.ends_with_close = True
    else:
        message.fields.append((b"Content-Length", b"%d" % len(message.body)))
    return message.body


pipelines = st.lists(requests(), min_size=1, max_size=4).map(lambda messages: b"".join(m.wire for m in messages))

# What stands where it should not: line ends in pieces, controls, white space that is none, digits that are none.
INTRUDERS = [
    b"\r", b"\n", b"\r\n", b"\n\r", b"\0", b"\t", b" ", b"\x0b", b"\x0c", b"\x85", b"\xa0", b"\x7f", b":", b",", b";",
    b'"', b"\\", b"+",
    b"-", b"_", b"0", b"0x", b"\xb2", b"\r\n\r\n", b"\r\n ", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Host: b\r\n",
]  # fmt: skip
FRAGMENTS = INTRUDERS + [
    b"GET ", b"POST ", b"CONNECT ", b"/", b"*", b"http://a/", b"a:1", b" HTTP/1.1", b" HTTP/1.0", b"HTTP/1.1 200 OK",
    b"HTTP/1.1 100 ",
    b"GET / HTTP/1.1\r\nHost: a\r\n", b"Host: a\r\n", b"Content-Length: 0", b"Content-Length: 1", b"Transfer-Encoding: ",
    b"chunked",
    b"gzip, ", b"Expect: 100-continue\r\n", b"Connection: upgrade\r\nUpgrade: x\r\n", b"Connection: close\r\n",
    b"1\r\nx\r\n",
    b"0\r\n\r\n", b"5;a=b\r\nhello\r\n", b"ffffffffffffffff", b"18446744073709551616", b"A: b\r\n",
]  # fmt: skip

soup = st.lists(st.sampled_from(FRAGMENTS), max_size=20).map(b"".join)


@st.composite
def mutated(draw: st.DrawFn, messages: st.SearchStrategy[bytes]) -> bytes:
    """Bytes of `messages` after one to three changes."""
    data = draw(messages)
    for _ in range(draw(st.integers(1, 3))):
        data = _mutate(draw, data)
    return data


def _mutate(draw: st.DrawFn, data: bytes) -> bytes:
    if not data:
        return draw(st.sampled_from(FRAGMENTS))
    at = draw(st.integers(0, len(data) - 1))
    length = draw(st.integers(1, 8))
    match draw(st.sampled_from(["flip", "drop", "double", "insert", "insert", "line end", "number", "line"])):
        case "flip":
            return data[:at] + bytes((data[at] ^ (1 << draw(st.integers(0, 7))),)) + data[at + 1 :]
        case "drop":
            return data[:at] + data[at + length :]
        case "double":
            return data[: at + length] + data[at:]
        case "insert":
            return data[:at] + draw(st.sampled_from(INTRUDERS)) + data[at:]
        case "line end":
            return _break_line_end(data, draw(st.integers(0, data.count(b"\r\n"))), draw(st.integers(0, 4)))
        case "number":
            return _falsify_number(draw, data, at)
        case _:
            return _double_line(data, at)


def _break_line_end(data: bytes, which: int, how: int) -> bytes:
    """Replace one CRLF: its LF lost, its CR lost, turned round, doubled, or moved one octet on."""
    parts = data.split(b"\r\n")
    head, rest = b"\r\n".join(parts[:which]), b"\r\n".join(parts[which:])
    middle = [b"\r", b"\n", b"\n\r", b"\r\n\r\n", rest[:1] + b"\r\n"][how]
    return head + middle + (rest[1:] if how == 4 else rest)


def _falsify_number(draw: st.DrawFn, data: bytes, start: int) -> bytes:
    """Change the next number behind `start`: another size, or another spelling of it."""
    at = next((i for i in range(start, len(data)) if 0x30 <= data[i] <= 0x39), None)
    if at is None:
        return data
    end = at
    while end < len(data) and 0x30 <= data[end] <= 0x39:
        end += 1
    number = data[at:end]
    forms = [b"+%b", b"-%b", b" %b", b"0%b", b"%b_0", b"%b0", b"0x%b", b"%b, %b", b"%b,7", b"%b\t", b"\xd9\xa1%b"]
    form = draw(st.sampled_from(forms))
    spelled = form.replace(b"%b", number)
    if draw(st.booleans()):
        spelled = b"%d" % max(0, int(number[:9]) + draw(st.sampled_from([-1, 1, 2, 16])))
    return data[:at] + spelled + data[end:]


def _double_line(data: bytes, at: int) -> bytes:
    start = data.rfind(b"\r\n", 0, at) + 2 if b"\r\n" in data[:at] else 0
    end = data.find(b"\r\n", at)
    end = len(data) if end < 0 else end + 2
    return data[:end] + data[start:end] + data[end:]


# Heads that parsers have met before, when what follows comes: all are accepted.
FAMILIAR = [
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /a HTTP/1.1\r\nHost: a\r\nAccept: x\r\nCookie: a=b\r\n\r\n",
    b"GET /b HTTP/1.1\r\nHost: a\r\nReferer: http://a/\r\nAccept: x\r\nCookie: a=b; c=d\r\nConnection: keep-alive\r\n\r\n",
    b"POST http://a/ HTTP/1.1\r\nCookie: a\r\nTransfer-Encoding: chunked\r\nHost: a\r\nReferer: /\r\n\r\n"
    b"1\r\nx\r\n0\r\n\r\n",
]
CUT_OUT = [
    b"\r\nCookie: a",
    b"\r\nReferer: b",
    b"Cookie: a\r\n",
    b"\r\r\nCookie: a\n",
    b"\r\nReferer: b\n",
    b"\r\n\r\nCookie: a\r\n",
]


@st.composite
def almost_familiar(draw: st.DrawFn) -> bytes:
    """A head that was met before, with lines that are cut out of it put where they do not belong, or mutated."""
    data = draw(st.sampled_from(FAMILIAR))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.one_of(st.integers(0, len(data)), st.sampled_from([len(data), len(data) - 2, len(data) - 4])))
        data = data[:at] + draw(st.sampled_from(CUT_OUT)) + data[at + draw(st.sampled_from([0, 0, 1, 2])) :]
    return _mutate(draw, data) if draw(st.booleans()) else data


# Lines of heads that differ from each other by little: what a short way may take them for is soon found out.
REQUEST_BLOCKS = [
    [b"Host: a"],
    [b"Host: a", b"Accept: x"],
    [b"Host: a", b"Connection: keep-alive", b"X-A: b"],
    [b"Host: a", b"Connection: close"],
    [b"Host: a", b"Content-Length: 5"],
    [b"Host: a", b"Transfer-Encoding: chunked", b"Expect: 100-continue"],
    [b"Host: a", b"Connection: upgrade", b"Upgrade: x"],
]
RESPONSE_BLOCKS = [
    [b"Content-Length: 5"],
    [b"Content-Length: 0", b"X-A: b"],
    [b"Server: a", b"Content-Length: 5", b"Connection: keep-alive", b"Set-Cookie: a=b"],
    [b"Transfer-Encoding: chunked"],
    [b"Server: a"],
]
REQUEST_STARTS = [
    b"GET / HTTP/1.1", b"GET / HTTP/1.1", b"POST /a HTTP/1.1", b"GET http://b/c HTTP/1.1", b"OPTIONS * HTTP/1.1",
    b"HEAD / HTTP/1.0", b"CONNECT a:1 HTTP/1.1", b"get / HTTP/1.1", b"GET  HTTP/1.1", b"GET /  HTTP/1.1",
    b"GET /#a HTTP/1.1", b"GET * HTTP/1.1", b"Cookie: / HTTP/1.1",
]  # fmt: skip
RESPONSE_STARTS = [
    b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK", b"HTTP/1.1 404 Not Found", b"HTTP/1.1 200", b"HTTP/1.0 200 OK",
    b"HTTP/1.1 100 Continue", b"HTTP/1.1 101 a", b"HTTP/1.1 204 No Content", b"HTTP/1.1 304 Not Modified",
    b"HTTP/1.1 199 a", b"HTTP/1.1 999 a", b"HTTP/1.2 200 OK", b"HTTP/2.0 200 OK",
]  # fmt: skip
SPLICED_LINES = [
    b"Cookie: a=b", b"Cookie: ", b"Cookie:", b"Cookie:a", b"Cookie:  a", b"Cookie: a ", b"Cookie: a\t", b"cookie: a",
    b"Cookie : a", b"Cookie: a\r", b"Cookie: a\nb", b"Cookie: \0", b"Cookie: \xe9", b"Cookie: Referer: a",
    b"X-A: b\rCookie: a", b" Cookie: a", b"Referer: http://a/", b"Referer: ", b"Referer:a", b"Referer:\ta",
    b"referer: a", b"Referer: a\n", b"Referer: Cookie: a", b"", b"Content-Length: 5", b"content-length: 5",
    b"Content-Length: 05", b"Content-Length: 5, 5", b"Content-Length: 6", b"Content-Length:",
    b"Content-Length: 000000000000005", b"Content-Length: 0000000000000005", b"Content-Length: 00000000000000005",
    b"Content-Length: 99999999999999999", b"Content-Length: +5", b"Transfer-Encoding: chunked", b"transfer-encoding: x",
    b"Transfer-Encoding:", b"Connection: close", b"Connection: keep-alive", b"Connection: Keep-Alive",
    b"connection: keep-alive, x", b"Connection:keep-alive", b"Connection: upgrade", b"Upgrade: x", b"X-A: b", b"X-A:b",
    b" folded", b"\tContent-Length: 6", b"Host: b", b"Expect: 100-continue", b"Expect: x", b"Set-Cookie: a=b",
    b"no colon",
]  # fmt: skip
BEHIND = [
    b"", b"", b"", b"\n", b"\r\n", b"hello", b"hello", b"hell\n", b"5\r\nhello\r\n0\r\n\r\n", b"Cookie: a\r\n",
    b"Cookie: a\r\n\r\n", b"Referer: a\r\n", b"\r\nCookie: a\r\n", b"\nCookie: a\r\n\r\n",
    b"X-A: b\r\nCookie: a\r\n\r\n",
]  # fmt: skip
LINE_ENDS = [b"\r\n"] * 10 + [b"\n", b"\r", b"\r\r\n", b"\n\r\n", b"\r\n\r\n"]
CRLFS = LINE_ENDS[:1]


@st.composite
def spliced(draw: st.DrawFn, starts: list[bytes], blocks: list[list[bytes]]) -> bytes:
    """One to three of the heads above, each with lines set in anywhere, with an octet or a body behind it."""
    out = []
    for _ in range(draw(st.sampled_from([1, 1, 2, 3]))):
        lines = [draw(st.sampled_from(starts)), *draw(st.sampled_from(blocks)), b""]
        for _ in range(draw(st.sampled_from([0, 1, 1, 2]))):
            lines.insert(draw(st.integers(1, len(lines))), draw(st.sampled_from(SPLICED_LINES)))
        ends = LINE_ENDS if draw(st.integers(0, 4)) == 0 else CRLFS
        out += [line + draw(st.sampled_from(ends)) for line in lines]
        out.append(draw(st.sampled_from(BEHIND)))
    return b"".join(out)


spliced_requests = spliced(REQUEST_STARTS, REQUEST_BLOCKS)
spliced_responses = spliced(RESPONSE_STARTS, RESPONSE_BLOCKS)

# What a request side may be sent, from faultless to senseless.
request_bytes = st.one_of(
    pipelines, almost_familiar(), spliced_requests, mutated(spliced_requests), mutated(pipelines),
    mutated(requests().map(lambda m: m.wire)), soup, st.binary(max_size=60),
)  # fmt: skip
response_streams = st.lists(responses(), min_size=1, max_size=3).map(lambda messages: b"".join(m.wire for m in messages))
response_bytes = st.one_of(
    response_streams, spliced_responses, mutated(spliced_responses), mutated(responses().map(lambda m: m.wire)),
    mutated(response_streams), soup,
)  # fmt: skip

cuts = st.lists(st.integers(0, 400), max_size=6)


def split_at(data: bytes, places: list[int]) -> list[bytes]:
    """The pieces of `data` between these offsets; empty ones are left out, as no socket ever gives them."""
    marks = [0, *sorted({place for place in places if 0 < place < len(data)}), len(data)]
    return [data[start:end] for start, end in zip(marks, marks[1:], strict=False) if start < end]
