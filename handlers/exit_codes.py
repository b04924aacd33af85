"""The client's exit codes, which are curl's, and what ends with which."""

from __future__ import annotations

from reactor.client_connection import BROKE_FRAMING, NO_ANSWER, NO_RESPONSE
from reactor.errors import BodyCutShort, ContentError, FetchFailed, TimedOut
from reactor.http.incremental import CUT_OFF

OK = 0
UNSUPPORTED_SCHEME = 1
BAD_URL = 3
PROXY_NOT_RESOLVED = 5
NOT_RESOLVED = 6
NOT_CONNECTED = 7
WEIRD_REPLY = 8
PARTIAL = 18
HTTP_ERROR = 22
WRITE_ERROR = 23
READ_ERROR = 26
TIMED_OUT = 28
NO_HANDSHAKE = 35
CANNOT_RESUME = 33
TOO_MANY_REDIRECTS = 47
NO_ANSWER_AT_ALL = 52
SEND_ERROR = 55
BROKEN = 56
CERTIFICATE_REFUSED = 60
BAD_CONTENT = 61
NOT_SENT_TWICE = 65

_CODES = {
    "url": BAD_URL, "request": BAD_URL, "scheme": UNSUPPORTED_SCHEME, "resolve": NOT_RESOLVED, "connect": NOT_CONNECTED,
    "TLS handshake": NO_HANDSHAKE, "certificate": CERTIFICATE_REFUSED,
    "send": SEND_ERROR, "read": READ_ERROR, "redirect": TOO_MANY_REDIRECTS, "content": BAD_CONTENT, "rewind": NOT_SENT_TWICE,
}  # fmt: skip


class Failed(Exception):
    """One URL could not be fetched; `code` is the exit status."""

    def __init__(self, reason: str, code: int) -> None:
        super().__init__(reason)
        self.code = code


def code_of_failure(error: FetchFailed, proxied: bool) -> int:
    if isinstance(error, TimedOut):
        return TIMED_OUT
    if error.phase == "resolve" and proxied:
        return PROXY_NOT_RESOLVED
    if error.reason == NO_ANSWER:
        return NO_ANSWER_AT_ALL
    if error.reason.startswith(NO_RESPONSE):
        return WEIRD_REPLY
    return _CODES.get(error.phase, BROKEN)


def code_of_cut(error: BodyCutShort) -> int:
    if isinstance(error, ContentError):
        return BAD_CONTENT
    if error.status == 504:
        return TIMED_OUT
    return BROKEN if BROKE_FRAMING in error.reason and CUT_OFF not in error.reason else PARTIAL
