"""RequestParser and ResponseParser: how the heads of messages are read (RFC 9112 sections 2 to 5 and 9).

The contract and the states are in `incremental.py`. Heads resemble each other, and what was validated once needs no
second look: a block of field lines met for the third time is known with all that follows from it, but for its Cookie
and Referer, which are cut out and validated each time, as the request line is.
"""

from __future__ import annotations

from typing import Any

from reactor.errors import ProtocolError
from reactor.http.events import END, NEED_DATA, Data, EndOfMessage, Event, Request, Response
from reactor.http.fields import TERMS, Fields, describe_bad_line, known_lines, parse_line, split_tokens
from reactor.http.framing import CHUNKED, UNTIL_CLOSE, body_length
from reactor.http.grammar import FIELD_TABLE, LIMITS, OWS, REQUEST_LINE, STATUS_LINE, TARGET_TABLE, TOKEN, Limits
from reactor.http.incremental import BODY_TOO_LARGE, CRLF, HEAD_END, IncrementalParser
from reactor.http.uri import split_absolute, split_authority

__all__ = [
    "NEED_DATA", "Data", "EndOfMessage", "Event", "Request", "RequestParser", "Response", "ResponseParser",
]  # fmt: skip

_SLASH = 0x2F
_LF = 0x0A

# RFC 9110 section 9.3 and RFC 5789, without CONNECT, whose target has a form of its own.
_METHODS = frozenset(b"GET HEAD POST PUT DELETE OPTIONS TRACE PATCH".split())

# What is remembered of heads: all of a request from its version, which is HTTP/1.1, to its empty line, but without
# Cookie and Referer → that block itself, whether it is without TERMS, the index of the field lines, and what _facts_of says
# of them. Only lines that `known_lines` remembers may be among them, so that what is secret, long, or new each time stays out.
Facts = tuple[bytes, int, bool, bool, bytes | None]
MEMO_BLOCKS = 2048  # at the limit the memo starts anew
MEMO_BLOCK_LENGTH = 2048  # bytes
MEMO_BLOCK_LINES = 32  # so that all of them take some 10 MB at the very most; with Cookie and Referer within LIMITS.fields
MEMO_HEAD_LENGTH = 8192  # bytes; within LIMITS.start_line and .field_line, so that no limit needs another look
SHORT_BLOCK_LENGTH = 100  # bytes; looked up as it is first, since one so short hardly has a Cookie
WHOLE_BUFFER_LENGTH = 2048  # bytes; up to here all that was fed is taken for one head before its end is looked for
Known = tuple[bytes | None, bool, dict[bytes, bytes], bytes, int, bool, bool, bytes | None]
_known_blocks: dict[bytes, Known] = {}
_ODD = (b"", None, None)  # of no block that is known
_NOTHING: Known = (None, False, {}, b"", 0, False, False, None)

_new = object.__new__  # makes a Request or Fields without the call of an __init__


class RequestParser(IncrementalParser):
    """Parses the requests of one connection, in order."""

    __slots__ = ("tells_ends", "_blank", "_last")

    _first = frozenset(octet for octet in range(256) if TOKEN.fullmatch(bytes((octet,)))) | {_LF}
    _blank: int  # empty lines before this request
    _last: Known  # what the last request was known by: the next one most often resembles it

    def __init__(self, limits: Limits = LIMITS, tells_ends: bool = True) -> None:
        """`tells_ends`: that a request without a body ends with its head is told, too, by an EndOfMessage."""
        self.limits = limits
        self.tells_ends = tells_ends
        self._data = b""
        self._pos = self._scan = self._blank = 0
        self._eof = False
        self._last = _NOTHING
        self._state = _REQUEST_HEAD

    def next_event(self) -> Event:
        """The next event, or NEED_DATA; raises ProtocolError.

        Here a head is read by what is remembered of others. Whatever is not as usual, or in doubt, is left to `_head`. It is
        one function though it is long: on the way of every request, calls would cost a good part of what remembering saves.
        """
        state, data = self._state, self._data
        if state is not _REQUEST_HEAD or type(data) is not bytes or not data:
            return state(self)
        pos = self._pos
        if not pos and len(data) <= WHOLE_BUFFER_LENGTH and data[-1] == _LF:
            head = data
        else:
            head = data[pos : data.find(HEAD_END, pos) + 4]
            if len(head) > MEMO_HEAD_LENGTH:
                return self._head()
        try:
            method, target, block = head.split(b" ", 2)
            first = target[0]
        except (ValueError, IndexError):
            return self._head()
        if method not in _METHODS or target.translate(TARGET_TABLE) != target:
            return self._head()
        known: Any = self._last
        cookie = referer = None
        if block != known[0]:
            found = _known_blocks.get(block) if len(block) <= SHORT_BLOCK_LENGTH else None
            if found is None:
                block, cookie, referer = _cut_out(block)
                found = known if block == known[0] else _known_blocks.get(block)
                if found is None:
                    return self._head()
            self._last = known = found
        if not self.limits.remembers:
            return self._head()
        request = _new(Request)
        block, plain, index, request.authority, request.length, request.keep_alive, request.expects_100, request.upgrade = known
        if cookie is not None or referer is not None:
            index = index.copy()
            if cookie is not None:
                index[b"cookie"] = cookie
            if referer is not None:
                index[b"referer"] = referer
        request.scheme = None
        request.path = request.target = target
        if first != _SLASH:
            try:
                request.scheme, request.authority, request.path = _other_target_form(method, target, request.authority)
            except ProtocolError:
                return self._head()
        request.method = method
        request.version = 11
        request.fields = fields = _new(Fields)
        fields.index = index
        fields.cut = block, cookie, referer, plain
        fields._lines = head
        if head is data:
            self._data = b""
        else:
            self._consume(pos + len(head))
        if request.length or request.upgrade is not None:
            self._begin_body(request.length, request.upgrade is not None)
        else:
            self._blank = 0
            if self.tells_ends:
                self._state = _REQUEST_END
        return request

    def _head(self) -> Event:
        """A head read without what is remembered of others."""
        self._skip_blank_lines()
        data, pos = self._data, self._pos
        if not data:
            return NEED_DATA
        end = data.find(HEAD_END, max(pos, self._scan - 3))
        if end < 0:
            return self._await_head(pos)
        data = self._settle()
        try:
            request = self._read(data[pos:end])
        except ProtocolError as error:
            self._refuse_early(pos, pos, end + 3)
            raise self._failed_with(error) from None
        self._consume(end + 4)
        self._begin_body(request.length, request.method == b"CONNECT" or request.upgrade is not None)
        return request

    def _skip_blank_lines(self) -> None:
        # RFC 9112 section 2.2: at least one empty line before a request is to be ignored; a few are, not any number.
        pos = start = self._pos
        while self._data.startswith(CRLF, pos):
            pos += 2
            self._blank += 1
            if self._blank > self.limits.blank_lines:
                raise self._fail("too many empty lines before the request")
        if pos != start:
            self._consume(pos)

    def _read(self, head: bytes) -> Request:
        lines = head.split(CRLF)
        self._check_sizes(len(head), lines)
        start = lines.pop(0)
        match = REQUEST_LINE.fullmatch(start)
        if match is None:
            raise self._bad_start(start)
        method, target, major, minor = match.groups()
        if major != b"1":
            raise ProtocolError("unsupported HTTP version", 505)
        # RFC 9110 section 2.5: a higher minor version is read as the highest one known.
        version = 10 if minor == b"0" else 11
        if len(method) > self.limits.method:
            raise ProtocolError("method too long", 501)
        familiar = _familiar(lines) if minor == b"1" and self.limits.remembers else None
        fields = Fields.from_lines(lines)
        facts = _facts_of(fields, version)
        host, length, keep_alive, expects_100, upgrade = facts
        if target[0] == _SLASH and method != b"CONNECT":  # origin form
            if b"#" in target:
                raise ProtocolError("fragment in the request target")
            scheme, authority, path = None, host, target
        else:
            scheme, authority, path = _other_target_form(method, target, host)
        if length and method == b"CONNECT":
            # RFC 9110 section 9.3.6: it has no content, and to some what follows the head is the tunnel's already.
            raise ProtocolError("CONNECT with a body")
        if familiar is not None and len(fields.index) == len(lines):
            _remember_block(familiar, facts)
        return Request(method, target, version, fields, scheme, authority, path, length, keep_alive, expects_100, upgrade)

    def _bad_start(self, line: bytes) -> ProtocolError:
        if line[:1] in (b" ", b"\t"):
            return ProtocolError("white space before the request line")
        if b"\r" in line:
            return ProtocolError("bare CR in the request line")
        return ProtocolError("invalid request line")

    def _begin_body(self, length: int, pause: bool) -> None:
        if length > self.limits.body:
            raise self._fail(BODY_TOO_LARGE, 413)
        self._after = IncrementalParser._paused if pause else _REQUEST_HEAD
        self._left = self._lead = self._blank = 0
        if length > 0:
            self._left = length
            self._state = IncrementalParser._body
        elif length == 0:
            self._state = IncrementalParser._end if self.tells_ends else self._after
        else:
            self._room = self.limits.body
            self._state = IncrementalParser._chunked

    def _end_without_body(self) -> Event:
        self._state = _REQUEST_HEAD
        return END


_REQUEST_HEAD = RequestParser._head
_REQUEST_END = RequestParser._end_without_body


def _cut_out(block: bytes) -> tuple[bytes, bytes | None, bytes | None]:
    """The block without its Cookie and Referer lines, and their values; _ODD where something is not as usual about them.

    A line is cut out from the CRLF before it to the one behind it, which must not be the last of all: else what is
    behind an empty line, or before half of one, would come to stand in the head.
    """
    cookie = referer = None
    before, found, rest = block.rpartition(b"\r\nCookie: ")
    if found:
        cookie, _, rest = rest.partition(CRLF)
        if not rest or cookie.translate(FIELD_TABLE).strip(OWS) != cookie:
            return _ODD
        block = before + CRLF + rest
    before, found, rest = block.rpartition(b"\r\nReferer: ")
    if found:
        referer, _, rest = rest.partition(CRLF)
        if not rest or referer.translate(FIELD_TABLE).strip(OWS) != referer:
            return _ODD
        block = before + CRLF + rest
    return block, cookie, referer


def _familiar(lines: list[bytes]) -> list[bytes] | None:
    """The lines of a head without Cookie and Referer, if each of them was met before."""
    kept = [line for line in lines if not line.startswith((b"Cookie: ", b"Referer: "))]
    return kept if all(map(known_lines.__contains__, kept)) else None


def _remember_block(lines: list[bytes], facts: Facts) -> None:
    """Remember what follows from these lines of a request."""
    block = CRLF.join([b"HTTP/1.1", *lines]) + HEAD_END
    if len(block) <= MEMO_BLOCK_LENGTH and len(lines) <= MEMO_BLOCK_LINES:
        if len(_known_blocks) >= MEMO_BLOCKS:
            _known_blocks.clear()
        index = dict(map(parse_line, lines))
        _known_blocks[block] = (block, TERMS.isdisjoint(index), index, *facts)


def _facts_of(fields: Fields, version: int) -> Facts:
    """(host, body length, keep alive?, expects 100?, upgrade) of a request with these fields; raises ProtocolError."""
    index = fields.index
    host = index.get(b"host")
    if host is not None:
        split_authority(host)
    elif version == 11:
        raise ProtocolError("no Host field")  # RFC 9112 section 3.2
    length = body_length(fields, version)
    connection = index.get(b"connection")
    keep_alive = version == 11 if connection is None else _kept_alive(connection, version)
    upgrade = index.get(b"upgrade")
    # RFC 9110 section 7.8: ignored in HTTP/1.0, and without its connection option.
    if upgrade is not None and (version == 10 or connection is None or b"upgrade" not in split_tokens(connection)):
        upgrade = None
    if upgrade is not None:
        offers = split_tokens(upgrade)
        if not offers or b"h2c" in offers:
            # RFC 9113 section 3.1: h2c is obsolete; and whoever passes it on lets the requests behind it through unseen.
            upgrade = b", ".join(offer for offer in offers if offer != b"h2c") or None
    expects_100 = False
    if b"expect" in index and version == 11:  # RFC 9110 section 10.1.1: ignored in HTTP/1.0
        if index[b"expect"].lower() != b"100-continue":
            raise ProtocolError("unknown expectation", 417)
        expects_100 = length != 0
    return host or b"", length, keep_alive, expects_100, upgrade


def _kept_alive(connection: bytes, version: int) -> bool:
    """Whether a connection persists by the value of its Connection field (RFC 9112 section 9.3)."""
    if connection == b"keep-alive":
        return True
    options = split_tokens(connection)
    return b"close" not in options and (version == 11 or b"keep-alive" in options)


def _other_target_form(method: bytes, target: bytes, host: bytes) -> tuple[bytes | None, bytes, bytes]:
    """Authority, asterisk and absolute form (RFC 9112 sections 3.2.2 to 3.2.4) → scheme, authority, path."""
    if method == b"CONNECT":
        if not split_authority(target)[1]:  # RFC 9110 section 9.3.6: an empty or invalid port is refused
            raise ProtocolError("CONNECT needs host:port")
        return None, target, b""
    if target == b"*":
        if method != b"OPTIONS":
            raise ProtocolError("asterisk form is for OPTIONS alone")
        return None, host, target
    scheme, authority, path = split_absolute(target)
    if not split_authority(authority)[0]:
        raise ProtocolError("no host in the request target")
    # Section 3.2.4: OPTIONS for a whole server, through a proxy, has an absolute target without path or query.
    if method == b"OPTIONS" and len(target) == len(scheme) + 3 + len(authority):
        path = b"*"
    return scheme, authority, path


StatusLine = tuple[int, int, bytes, bool]  # version, status, reason, and whether it is a final 1.1 response with a body
_UNUSUAL: StatusLine = (0, 0, b"", False)
_BODYLESS_METHODS = frozenset((b"HEAD", b"CONNECT"))  # their responses have none where others have one


class ResponseParser(IncrementalParser):
    """Parses the responses of one connection; `expect` says before each what request it answers."""

    __slots__ = ("method", "_interim")

    _first = frozenset(b"H\n")
    method: bytes
    _interim: int  # 1xx responses since the last final one

    def __init__(self, method: bytes = b"GET", limits: Limits = LIMITS) -> None:
        self.limits = limits
        self.method = method
        self._data = b""
        self._pos = self._scan = self._interim = 0
        self._eof = False
        self._state = _RESPONSE_HEAD

    def expect(self, method: bytes) -> None:
        """The next response answers a request of this method: HEAD and CONNECT change its framing."""
        self.method = method

    def next_event(self) -> Event:
        """The next event, or NEED_DATA; raises ProtocolError.

        Here a head is read that is there as a whole and frames its body in the most usual way; all else is left to `_head`.
        """
        state, data, pos = self._state, self._data, self._pos
        if state is not _RESPONSE_HEAD or type(data) is not bytes:
            return state(self)
        end = data.find(HEAD_END, pos)
        if end < 0 or end - pos > MEMO_HEAD_LENGTH:
            return self._head()
        lines = data[pos:end].split(CRLF)
        version, status, reason, usual = _known_status_lines.get(lines[0], _UNUSUAL)
        if not usual or self.method in _BODYLESS_METHODS or len(lines) > MEMO_BLOCK_LINES or not self.limits.remembers:
            return self._head()
        del lines[0]
        odd = known_lines.oddly_spaced
        try:
            index = dict(map(parse_line, lines))
        except ProtocolError:
            return self._head()
        digits = index.get(b"content-length", b"")
        if (
            b"transfer-encoding" in index or not digits.isdigit() or len(digits) > 15 or known_lines.oddly_spaced != odd
            or len(index) != len(lines) or index.get(b"connection", b"keep-alive") != b"keep-alive"
            or (length := int(digits)) > self.limits.body
        ):  # fmt: skip
            return self._head()
        response = _new(Response)
        response.status = status
        response.reason = reason
        response.version = version
        response.length = length
        response.keep_alive = True
        response.fields = fields = _new(Fields)
        fields.index = index
        fields.cut = None
        fields._lines = lines
        end += 4
        if end < len(data):
            self._pos = end
        else:
            self._release()
        self._interim = self._lead = 0
        self._left = length
        self._after = _RESPONSE_HEAD
        self._state = IncrementalParser._body if length else IncrementalParser._end
        return response

    def _head(self) -> Event:
        data, pos, scan = self._data, self._pos, self._scan
        if not data:
            return NEED_DATA
        end = data.find(HEAD_END, scan - 3 if scan > pos + 3 else pos)
        if end < 0:
            return self._await_head(pos)
        if type(data) is not bytes:
            data = self._settle()
        try:
            response = self._read(data[pos:end])
        except ProtocolError as error:
            self._refuse_early(pos, pos, end + 3)
            raise self._failed_with(error) from None
        self._consume(end + 4)
        self._begin_body(response.status, response.length)
        return response

    def _read(self, head: bytes) -> Response:
        lines = head.split(CRLF)
        if len(head) > MEMO_HEAD_LENGTH or len(lines) > MEMO_BLOCK_LINES or not self.limits.remembers:
            self._check_sizes(len(head), lines)
        start = lines.pop(0)
        version, status, reason, _ = _known_status_lines.get(start) or _read_status_line(start)
        try:
            fields = Fields.from_lines(lines)
        except ProtocolError:
            fields = Fields.from_lines(_unfold(lines, self.limits))
        length = body_length(fields, version, status, self.method)
        connection = fields.index.get(b"connection")
        keep_alive = length != UNTIL_CLOSE and (version == 11 if connection is None else _kept_alive(connection, version))
        if status < 200 and status != 101:
            self._interim += 1
            if self._interim > self.limits.interim:
                raise ProtocolError("too many interim responses")
        return Response(status, reason, version, fields, length, keep_alive)

    def _bad_start(self, line: bytes) -> ProtocolError:
        return ProtocolError(_BAD_STATUS_LINE)

    def _begin_body(self, status: int, length: int) -> None:
        if status < 200 and status != 101:
            return  # interim: the final one is still to come
        if length > self.limits.body:
            raise self._fail(BODY_TOO_LARGE, 413)
        self._interim = 0
        self._after = _RESPONSE_HEAD
        self._left = self._lead = 0
        if length > 0:
            self._left = length
            self._state = IncrementalParser._body
        elif status == 101 or (self.method == b"CONNECT" and status < 300):
            self._after = IncrementalParser._paused
            self._state = IncrementalParser._end
        elif length == 0:
            self._state = IncrementalParser._end
        elif length == CHUNKED:
            self._room = self.limits.body
            self._state = IncrementalParser._chunked
        else:
            assert length == UNTIL_CLOSE
            self._state = IncrementalParser._until_close


_RESPONSE_HEAD = ResponseParser._head
_BAD_STATUS_LINE = "invalid status line"

MEMO_STATUS_LINES = 256  # distinct status lines remembered; at the limit the memo starts anew
MEMO_STATUS_LINE_LENGTH = 64  # bytes
_known_status_lines: dict[bytes, StatusLine] = {}


def _read_status_line(line: bytes) -> StatusLine:
    """Raises ProtocolError."""
    match = STATUS_LINE.fullmatch(line)
    if match is None:
        raise ProtocolError(_BAD_STATUS_LINE)
    minor, digits, reason = match.groups()
    version, status = 10 if minor == b"0" else 11, int(digits)
    found = (version, status, reason or b"", version == 11 and status >= 200 and status not in (204, 304))
    if len(line) <= MEMO_STATUS_LINE_LENGTH:
        if len(_known_status_lines) >= MEMO_STATUS_LINES:
            _known_status_lines.clear()
        _known_status_lines[line] = found
    return found


def _unfold(lines: list[bytes], limits: Limits) -> list[bytes]:
    """RFC 9112 section 5.2: a folded line of a response is replaced by one with a space."""
    unfolded: list[bytes] = []
    for line in lines:
        if line[:1] not in (b" ", b"\t"):
            unfolded.append(line)
        elif not unfolded:
            raise ProtocolError(describe_bad_line(line))
        else:
            unfolded[-1] = unfolded[-1].rstrip(OWS) + b" " + line.strip(OWS)
            if len(unfolded[-1]) > limits.field_line:
                raise ProtocolError("field line too long", 431)
    return unfolded
