#!/usr/bin/env python3
"""Microseconds per message of one parser: bench_parsers.py PARSER SHAPE

PARSER is reactor, h11, httptools, or findall (one regular expression and a dict, nothing checked: a floor); SHAPE is
get, browser, response or chunked. Each message is one of VARIANTS with its own target, cookie, referer or dates, so
that no remembered head can answer for parsing, and is made new for each call, like one that was received. Parsed means
start line, a mapping of the fields, and the body whole. The best of several repeats is printed.
"""

from __future__ import annotations

import itertools
import random
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

VARIANTS = 20000
REPEATS = 7
REPEAT_SECONDS = 0.12

Parse = Callable[[bytes], tuple[object, int, int]]  # → (target or status, fields, bytes of body)

BROWSER = """\
Host: www.example.com
Connection: keep-alive
Cache-Control: max-age=0
sec-ch-ua: "Chromium";v="126", "Google Chrome";v="126", "Not.A/Brand";v="8"
sec-ch-ua-mobile: ?0
sec-ch-ua-platform: "Linux"
Upgrade-Insecure-Requests: 1
User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8
Sec-Fetch-Site: same-origin
Sec-Fetch-Mode: navigate
Sec-Fetch-User: ?1
Referer: https://www.example.com/products/{small}
Accept-Encoding: gzip, deflate, br, zstd
Accept-Language: en-GB,en;q=0.9,de;q=0.8
Cookie: sid={random:032x}; theme=dark; _ga=GA1.2.123456789.1700000000; consent=yes"""
RESPONSE = """\
Date: Sat, 01 Jun 2024 {clock} GMT
Server: nginx/1.25.3
Content-Type: text/html; charset=utf-8
Content-Length: 512
Connection: keep-alive
Cache-Control: public, max-age=3600
ETag: "{random:032x}"
Last-Modified: Fri, 31 May 2024 {clock} GMT
Vary: Accept-Encoding
X-Content-Type-Options: nosniff
Strict-Transport-Security: max-age=31536000
Accept-Ranges: bytes"""
UPLOAD = """\
Host: www.example.com
User-Agent: bench/1
Content-Type: application/octet-stream
Transfer-Encoding: chunked"""
# start line, fields, what follows the head
SHAPES = {
    "get": ("GET /item/{number} HTTP/1.1", "Host: www.example.com\nUser-Agent: bench/1\nAccept: */*", b""),
    "browser": ("GET /products/list?category=books&page={number} HTTP/1.1", BROWSER, b""),
    "response": ("HTTP/1.1 200 OK", RESPONSE, b"x" * 512),
    "chunked": ("POST /upload/{number} HTTP/1.1", UPLOAD, (b"100\r\n" + b"a" * 256 + b"\r\n") * 16 + b"0\r\n\r\n"),
}
EXPECTED = {"get": (3, 0), "browser": (16, 0), "response": (12, 512), "chunked": (4, 4096)}  # fields, bytes of body


def messages(shape: str) -> tuple[list[bytes], bytes]:
    """Different heads, and what follows each of them."""
    start, fields, body = SHAPES[shape]
    template = f"{start}\n{fields}\n\n".replace("\n", "\r\n")
    generator = random.Random(7)
    heads = []
    for number in range(VARIANTS):
        clock = f"{number // 3600:02}:{number // 60 % 60:02}:{number % 60:02}"
        small, bits = generator.randrange(400), generator.getrandbits(128)
        heads.append(template.format(number=number, clock=clock, small=small, random=bits).encode())
    return heads, body


def reactor(is_response: bool) -> Parse:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from reactor.http.parser import Data, EndOfMessage, Request, RequestParser, ResponseParser

    make = ResponseParser if is_response else RequestParser

    def parse(data: bytes) -> tuple[object, int, int]:
        parser = make()
        parser.feed(data)
        head = parser.next_event()
        size = 0
        while type(event := parser.next_event()) is not EndOfMessage:
            assert type(event) is Data
            size += len(event.data)
        if type(head) is Request:
            return (head.method, head.target)[1], len(head.fields), size
        return head.status, len(head.fields), size  # type: ignore[union-attr]

    return parse


def h11(is_response: bool) -> Parse:
    import h11

    def parse(data: bytes) -> tuple[object, int, int]:
        connection = h11.Connection(h11.CLIENT if is_response else h11.SERVER)
        if is_response:
            connection.send(ASKED)
            connection.send(ENDED)
        connection.receive_data(data)
        head: Any = connection.next_event()
        event: Any
        size = 0
        while type(event := connection.next_event()) is not h11.EndOfMessage:
            size += len(event.data)
        return (head.status_code if is_response else head.target), len(dict(head.headers)), size

    ASKED, ENDED = h11.Request(method="GET", target="/", headers=[("Host", "www.example.com")]), h11.EndOfMessage()
    return parse


def httptools(is_response: bool) -> Parse:
    import httptools

    class Listener:
        def __init__(self) -> None:
            self.target = b""
            self.fields: list[tuple[bytes, bytes]] = []
            self.size = 0
            self.complete = False

        def on_url(self, url: bytes) -> None:
            self.target = url

        def on_header(self, name: bytes, value: bytes) -> None:
            self.fields.append((name.lower(), value))

        def on_body(self, body: bytes) -> None:
            self.size += len(body)

        def on_message_complete(self) -> None:
            self.complete = True

    make: Any = httptools.HttpResponseParser if is_response else httptools.HttpRequestParser

    def parse(data: bytes) -> tuple[object, int, int]:
        listener = Listener()
        parser = make(listener)
        parser.feed_data(data)
        assert listener.complete
        start = parser.get_status_code() if is_response else (parser.get_method(), listener.target)[1]
        return start, len(dict(listener.fields)), listener.size

    return parse


def findall(is_response: bool) -> Parse:
    lines = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\r\n\0]*)\r\n")
    chunk = re.compile(rb"([0-9A-Fa-f]+)\r\n")

    def parse(data: bytes) -> tuple[object, int, int]:
        end = data.find(b"\r\n\r\n")
        at = data.find(b"\r\n")
        _, second, _ = data[:at].split(b" ", 2)
        fields = {name.lower(): value for name, value in lines.findall(data, at + 2, end + 2)}
        pos = end + 4
        size = 0
        if b"transfer-encoding" in fields:
            while (match := chunk.match(data, pos)) and (length := int(match[1], 16)):
                size += len(data[match.end() : match.end() + length])
                pos = match.end() + length + 2
        else:
            size = len(data[pos:])
        return int(second) if is_response else second, len(fields), size

    return parse


PARSERS = {"reactor": reactor, "h11": h11, "httptools": httptools, "findall": findall}


def time_per_message(parse: Parse, heads: list[bytes], body: bytes) -> float:
    """Microseconds, the best of the repeats; each repeat goes on where the one before stopped."""
    source = itertools.cycle(heads)
    count = 500
    best = float("inf")
    for _ in range(REPEATS):
        batch = list(itertools.islice(source, count))
        start = time.perf_counter()
        for head in batch:
            parse(head + body)
        took = time.perf_counter() - start
        if count > 500:
            best = min(best, took / count)
        count = max(501, int(count * REPEAT_SECONDS / took))
    return best * 1e6


def main() -> None:
    if len(sys.argv) != 3 or sys.argv[1] not in PARSERS or sys.argv[2] not in SHAPES:
        sys.exit(__doc__)
    name, shape = sys.argv[1:]
    parse = PARSERS[name](shape == "response")
    heads, body = messages(shape)
    _, fields, size = parse(heads[0] + body)
    assert (fields, size) == EXPECTED[shape], (fields, size)
    print(f"{time_per_message(parse, heads, body):.3f}")


if __name__ == "__main__":
    main()
