"""What a parser says of some bytes, as lines of text that can be compared, and read in `tests/vectors`."""

from __future__ import annotations

from collections.abc import Iterable

from reactor.errors import ProtocolError
from reactor.http.fields import Fields
from reactor.http.framing import CHUNKED, UNTIL_CLOSE
from reactor.http.grammar import LIMITS, Limits
from reactor.http.parser import NEED_DATA, Data, EndOfMessage, Request, RequestParser, Response, ResponseParser

LENGTHS = {CHUNKED: "chunked", UNTIL_CLOSE: "until-close"}
PLAIN = {code: chr(code) for code in range(0x21, 0x7F) if code not in b"\\"} | {
    0x20: " ",
    0x0D: "\\r",
    0x0A: "\\n",
    0x09: "\\t",
}


def escape(data: bytes) -> str:
    r"""Bytes as visible text: `\r`, `\n`, `\t`, `\\`, `\xHH`."""
    return "".join(PLAIN.get(code) or ("\\\\" if code == 0x5C else f"\\x{code:02x}") for code in data)


def new_parser(
    method: bytes | None,
    limits: Limits = LIMITS,
    kinds: tuple[type[RequestParser], type[ResponseParser]] = (RequestParser, ResponseParser),
) -> RequestParser | ResponseParser:
    """A request parser for None, or one for the responses to requests of that method."""
    return kinds[0](limits) if method is None else kinds[1](method, limits)


class Transcript:
    """Collects a parser's events: `lines`, with the pieces of a body joined."""

    def __init__(self, parser: RequestParser | ResponseParser) -> None:
        self.parser = parser
        self.lines: list[str] = []
        self.refused: ProtocolError | None = None
        self.bodies: list[tuple[Request | Response, int]] = []  # each head, and the bytes of its body so far
        self._body: list[bytes] = []

    def drain(self) -> None:
        """Take every event that is there. Nothing may come but events and ProtocolError."""
        try:
            while (event := self.parser.next_event()) is not NEED_DATA:
                self._note(event)
        except ProtocolError as error:
            if self.refused is None:
                self.refused = error
                self._flush()
                self.lines.append(f"error {error.status} {error.reason}")

    def finish(self) -> list[str]:
        self._flush()
        return self.lines

    def _flush(self) -> None:
        if self._body:
            self.lines.append("data " + escape(b"".join(self._body)))
            self._body.clear()

    def _note(self, event: object) -> None:
        if type(event) is Data:
            assert event.data and type(event.data) is bytes
            self._body.append(event.data)
            head, size = self.bodies[-1]
            self.bodies[-1] = head, size + len(event.data)
            return
        self._flush()
        if type(event) is EndOfMessage:
            self.lines.append("end")
            if event.trailers is not None:
                self._note_fields("trailer", event.trailers)
        elif type(event) is Request:
            self.bodies.append((event, 0))
            self.lines.append(describe_request(event))
            self._note_fields("field", event.fields)
        else:
            assert type(event) is Response
            self.bodies.append((event, 0))
            self.lines.append(describe_response(event))
            self._note_fields("field", event.fields)

    def _note_fields(self, kind: str, fields: Fields) -> None:
        pairs = list(fields)
        assert len(fields) == len(fields.lines) == len(pairs)
        joined: dict[bytes, bytes] = {}
        for name, value in pairs:
            lower = name.lower()
            joined[lower] = joined[lower] + b", " + value if lower in joined else value
            self.lines.append(f"  {kind} {escape(name)}: {escape(value)}".rstrip(" "))
        assert fields.index == joined


def describe_request(request: Request) -> str:
    """One line; what goes without saying is left out (authority as in Host, path as the target, no body, kept alive)."""
    words = ["request", escape(request.method), escape(request.target), f"HTTP/1.{request.version - 10}"]
    if request.scheme is not None:
        words.append("scheme=" + escape(request.scheme))
    if request.authority != request.fields.get(b"host", b""):
        words.append("authority=" + escape(request.authority))
    if request.path != request.target:
        words.append("path=" + escape(request.path))
    if request.length:
        words.append(f"length={LENGTHS.get(request.length, request.length)}")
    if not request.keep_alive:
        words.append("close")
    if request.expects_100:
        words.append("expects-100")
    if request.upgrade is not None:
        words.append("upgrade=" + escape(request.upgrade))
    return " ".join(words)


def describe_response(response: Response) -> str:
    words = ["response", str(response.status), f"HTTP/1.{response.version - 10}"]
    if response.length:
        words.append(f"length={LENGTHS.get(response.length, response.length)}")
    if not response.keep_alive:
        words.append("close")
    if response.reason:
        words.append(f"reason={escape(response.reason)}")
    return " ".join(words)


def transcript(method: bytes | None, pieces: Iterable[bytes], eof: bool = False, limits: Limits = LIMITS) -> list[str]:
    """Feed the pieces one by one, each drained of its events, and say what came out."""
    heard = Transcript(new_parser(method, limits))
    for piece in pieces:
        heard.parser.feed(piece)
        heard.drain()
    if eof:
        heard.parser.feed_eof()
        heard.drain()
    return heard.finish()


def every_byte(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]
