"""The access log: one line for every exchange that ended, refused heads and denied requests too.

`combined` is Apache's combined format with the verdict and the duration in milliseconds appended:

    peer - user [day/month/year:time zone] "request line" status bytes "referer" "user-agent" verdict ms

The time is the request's arrival, the bytes are the body's (or a tunnel's, to the client), `-` stands for what is not
known, and status 499 for an exchange that ended before its answer began: the client left. A quote, a backslash and
everything but visible ASCII and space is written as `\\xhh`, so that no value can end its field or its line. `json` is
one object a line with every fact of the exchange (json_log.py). Credentials are in neither: fields that carry them are
not logged, and userinfo is cut out of targets and of a Referer.
"""

from __future__ import annotations

import re
import time

from handlers.json_log import CLIENT_LEFT, json_line, note_head, without_userinfo
from handlers.log_sink import Sink
from reactor.exchange import Exchange, Handler

MEMO_WORDS = 1024  # rendered peers, users, verdicts and user agents; at the limit the memo starts anew
MEMO_WORD_LENGTH = 256  # bytes; longer ones are rendered each time

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_PLAIN = bytes(octet for octet in range(0x20, 0x7F) if octet not in b'"\\@')  # what needs no second look
_SPECIAL = re.compile(rb"[^\x20\x21\x23-\x5b\x5d-\x7e]")
_SPECIAL_IN_WORD = re.compile(rb"[^\x21\x23-\x5b\x5d-\x7e]")


class AccessLog:
    """Writes a line for each exchange that its handler gets, once it has ended, and for those given to `record`."""

    def __init__(self, handler: Handler, sink: Sink, json: bool = False) -> None:
        self.timed = json  # it tells what only the connections of a timed server note
        self._handler = handler
        self._render = json_line if json else Combined().render
        self._write = sink.write

    def handle(self, exchange: Exchange) -> None:
        exchange.on_end(self.record)
        if exchange.timing is not None:
            exchange.map_head(note_head)
        self._handler.handle(exchange)

    def record(self, exchange: Exchange) -> None:
        """Write the line of an exchange that has ended; `request` is None where its head was refused."""
        self._write(self._render(exchange))


def _escape(value: bytes, special: re.Pattern[bytes] = _SPECIAL) -> bytes:
    return special.sub(lambda match: b"\\x%02x" % ord(match[0]), value)


class _Words(dict[str | bytes | None, bytes]):
    """What is written alike on line after line: a peer, a user, a verdict, a user agent → escaped, `-` for nothing."""

    def __missing__(self, value: str | bytes | None) -> bytes:
        if isinstance(value, bytes):
            word = _escape(value)
        else:
            word = _escape((value or "").encode("utf-8", "backslashreplace"), _SPECIAL_IN_WORD)
        if len(value or "") <= MEMO_WORD_LENGTH:
            if len(self) >= MEMO_WORDS:
                self.clear()
            self[value] = word or b"-"
        return word or b"-"


class Combined:
    """Renders lines of the combined format; what repeats itself is rendered once."""

    def __init__(self) -> None:
        self._words = _Words()
        self._since = self._until = 0  # the second whose stamp is kept
        self._stamp = b""

    def render(self, exchange: Exchange) -> bytes:
        request = exchange.request
        if request is None:
            return self._refused(exchange)
        index = request.fields.index
        target, referer = request.target, index.get(b"referer", b"-")
        if (target + referer).translate(None, _PLAIN):
            target, referer = _escape(without_userinfo(target)), _escape(without_userinfo(referer))
        took = exchange.finished - exchange.started
        arrival = exchange.reactor.wall - took
        if not self._since <= arrival < self._until:
            self._new_second(arrival)
        words = self._words
        return b'%b - %b [%b] "%b %b HTTP/1.%d" %d %d "%b" "%b" %b %d\n' % (
            words[exchange.peer], words[exchange.user], self._stamp, request.method, target, request.version - 10,
            exchange.status or CLIENT_LEFT, exchange.bytes_out, referer, words[index.get(b"user-agent")],
            words[exchange.verdict], int(took * 1000),
        )  # fmt: skip

    def _refused(self, exchange: Exchange) -> bytes:
        self._new_second(exchange.reactor.wall)
        words, verdict = self._words, self._words[exchange.verdict]
        return b'%b - - [%b] "-" %d %d "-" "-" %b 0\n' % (
            words[exchange.peer], self._stamp, exchange.status or CLIENT_LEFT, exchange.bytes_out, verdict,
        )  # fmt: skip

    def _new_second(self, at: float) -> None:
        self._since = int(at)
        self._until = self._since + 1
        self._stamp = stamp(self._since)


def stamp(second: int) -> bytes:
    """A second since the epoch as `10/Oct/2000:13:55:36 -0700`, in local time."""
    at = time.localtime(second)
    sign, minutes = "-" if at.tm_gmtoff < 0 else "+", abs(at.tm_gmtoff) // 60
    day = f"{at.tm_mday:02}/{_MONTHS[at.tm_mon - 1]}/{at.tm_year}"
    clock = f"{at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02}"
    return f"{day}:{clock} {sign}{minutes // 60:02}{minutes % 60:02}".encode("ascii")
