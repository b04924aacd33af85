"""The client role: URLs are fetched one after the other over kept connections, as curl would.

    for each URL: its request's body is made ready → a Transfer → its head is judged → the body goes to its sink, as it comes
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO
from urllib.parse import quote_from_bytes, unquote_to_bytes

from handlers.client import Client, Transfer, Watcher, drop
from handlers.download import CannotResume, Download
from handlers.exit_codes import (
    BROKEN,
    CANNOT_RESUME,
    HTTP_ERROR,
    OK,
    PARTIAL,
    READ_ERROR,
    WRITE_ERROR,
    Failed,
    code_of_cut,
    code_of_failure,
)
from handlers.fetch import basic, without_user
from handlers.notices import Measured, Notices
from handlers.output import Output, why_unwritable
from handlers.parts import Part, Parts
from handlers.request_heads import targets
from handlers.terminal import BinaryRefused, Screen, wants_colour
from reactor.client import Pool
from reactor.errors import BodyCutShort, FetchFailed
from reactor.exchange import PULL, Body, Source
from reactor.http.codings import ACCEPT_ENCODING
from reactor.http.dates import parse_date
from reactor.http.grammar import TARGET_OCTETS
from reactor.http.parser import Response
from reactor.http.uri import Origin
from reactor.http.writer import status_line
from reactor.loop import Reactor

MAX_REDIRECTS = 50  # followed for one URL, as curl does; exit 47 beyond

NO_TEXT = "the body is not text and would disturb the terminal: -o FILE, or -o - all the same"
REMOTE_NAME = ""  # in `outputs`: the file is named as the URL's last segment


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """What the command line asked for; `fields` are (name, value) pairs, a value of None takes the default away.

    `outputs` are file names for the URLs in their order, `-` is standard output; the URLs beyond them go there too, unless the
    only one is REMOTE_NAME. `resume` is an offset in bytes, or None for "what is missing"; False where nothing is resumed.
    """

    urls: Sequence[str]
    method: str | None = None
    fields: Sequence[tuple[str, str | None]] = ()
    data: Sequence[Part] | None = None
    query: bytes | None = None
    outputs: Sequence[str] = ()
    resume: int | bool | None = False
    remote_time: bool = False
    include: bool = False
    head: bool = False
    verbose: bool = False
    silent: bool = False
    show_errors: bool = False
    proxy: Origin | None = None
    proxy_fields: bytes = b""
    location: bool = False
    max_redirects: int = MAX_REDIRECTS
    fail: bool = False
    compressed: bool = False
    max_time: float | None = None
    retries: int = 0
    traced: bool = False
    auto_referer: bool = False


class Fetch(Watcher):
    """Fetches every URL in order; `on_done(exit_code)` is called from the loop, with the first failure's code."""

    def __init__(
        self,
        reactor: Reactor,
        pool: Pool,
        options: FetchOptions,
        on_done: Callable[[int], object],
        out: Any = None,
        err: BinaryIO | None = None,
        stdin: int = 0,
    ) -> None:
        self.reactor = reactor
        self.options = options
        self.on_done = on_done
        self.code = OK
        # Not sys.stdout: what a closed pipe did not take must not lie in a buffer until the interpreter's end.
        self._out = out if out is not None else open(1, "wb", buffering=0, closefd=False)
        self._output = Output(reactor, self._out, self)
        self._notices = Notices(reactor, err if err is not None else open(2, "wb", closefd=False))
        self._parts = Parts(reactor, options.data or (), stdin, options.traced)
        self._client = Client(pool, options.proxy, options.proxy_fields)
        self._urls = iter(enumerate(options.urls))
        self._url = ""
        self._user: tuple[str, str] | None = None  # in that URL
        self._at = 0  # which of the URLs this is
        self._transfer: Transfer | None = None
        self._body: Source | None = None
        self._download: Download | None = None
        self._screen: Screen | None = None
        self._heads: list[bytes] = []  # to be shown before the body
        self._stopped = False

    def start(self) -> None:
        self.reactor.call_soon(self._next_url)

    def stop(self, why: str | None = None) -> None:
        """Give up what is running, and say so where there is a reason; `on_done` is not called any more."""
        if self._stopped:
            return
        self._stopped = True
        kept = self._give_up()
        self._output.drop()
        if why is not None and self._url:
            self._complain(f"{self._url}: {why}" + (f"; {kept}" if kept else ""))

    def failed(self, error: Exception) -> None:
        """A callback raised (logged by the loop)."""
        self._done_with_url(Failed(str(error), BROKEN))

    # Requests.

    def _next_url(self) -> None:
        if self._stopped:
            return
        self._at, url = next(self._urls, (0, None))
        if url is None:
            self._stopped = True
            self.on_done(self.code)
            return
        self._url, self._user = without_user(_complete(url, self.options.query))
        self._heads.clear()
        try:
            targets[self._url]
        except FetchFailed as error:
            self._done_with_url(error)
            return
        self._parts.make_ready(self._send, self._not_ready)

    def _not_ready(self, error: BodyCutShort) -> None:
        self._done_with_url(Failed(error.reason, READ_ERROR))

    def _send(self, body: Body) -> None:
        """The body is ready: ask."""
        options = self.options
        method = "HEAD" if options.head else "GET" if options.data is None else "POST"
        try:
            fields = self._fields()
        except Failed as error:
            drop(body)
            self._done_with_url(error)
            return
        if not options.silent and (self._download is not None or not self._out.isatty()):
            self._notices.begin_progress(self._measure)
        self._transfer = self._client.request(
            options.method or method, self._url, self._responded, self._refused, fields, body,
            options.max_redirects if options.location else None, options.retries, options.max_time,
            options.compressed, None, self,
        )  # fmt: skip

    def _fields(self) -> list[tuple[str, str | None]]:
        """Those that were asked for, and Range where something is gone on with. Raises Failed."""
        options = self.options
        fields: list[tuple[str, str | None]] = list(options.fields)
        resumed: list[tuple[str, str]] = []
        if self._user is not None and all(name.lower() != "authorization" for name, _ in fields):
            fields.append(("Authorization", basic(*self._user)))
        with _sink_failures():
            self._download = self._destination()
            if self._download is None:
                if options.resume:
                    resumed = [("Range", f"bytes={options.resume}-")]
            elif options.resume is None:
                resumed = self._download.resume_fields(self._url)
            elif options.resume:
                resumed = self._download.resume_at(options.resume)
        if options.compressed and not resumed:
            fields.insert(0, ("Accept-Encoding", ACCEPT_ENCODING.decode("ascii")))
        return fields + resumed

    def _destination(self) -> Download | None:
        """The file that this URL's body goes to; None for standard output."""
        outputs = self.options.outputs
        name = outputs[self._at] if self._at < len(outputs) else "-"
        if outputs and all(output == REMOTE_NAME for output in outputs):
            name = REMOTE_NAME  # -O once is enough for all
        if name == "-":
            return None
        return Download(name or _remote_name(self._url))

    # What the transfer tells.

    def asking(self, transfer: Transfer, head: bytes) -> None:
        if self.options.verbose:
            self._notices.head("> ", head + b"\r\n")

    def informed(self, transfer: Transfer, response: Response) -> None:
        if self.options.verbose:
            self._notices.head("< ", _head_text(response))
        if self._shows_heads:
            self._heads.append(_head_text(response))

    def passed_over(self, transfer: Transfer, response: Response) -> None:
        self.informed(transfer, response)
        if self.options.auto_referer and 300 <= response.status < 400 and transfer.fields is not None:
            transfer.fields = transfer.fields.copy()
            transfer.fields.set(b"Referer", transfer.url.partition("#")[0])

    @property
    def _shows_heads(self) -> bool:
        return self.options.include or self.options.head

    def _refused(self, transfer: Transfer, error: FetchFailed) -> None:
        try:
            self._show_heads()
        except Failed as unwritable:
            self._done_with_url(unwritable)
        else:
            self._done_with_url(error)

    def _responded(self, transfer: Transfer) -> None:
        response = transfer.response
        assert response is not None
        self.informed(transfer, response)
        try:
            if self._begin_sink(transfer, response):
                self._take(transfer.body)
                return
            drop(transfer.body)
            self._finish(response)
        except (Failed, FetchFailed) as error:
            drop(transfer.body)
            self._done_with_url(error)

    def _begin_sink(self, transfer: Transfer, response: Response) -> bool:
        """Decide where the body goes; False where nothing of it is wanted. Raises Failed."""
        options, status = self.options, response.status
        if options.fail and status >= 400 and not (self._download is not None and self._download.kept and status == 416):
            self._show_heads()
            raise Failed(f"the server answered {status}", HTTP_ERROR)
        if self._download is None:
            if options.resume and (status != 206 or not _starts_at(response, options.resume)):
                raise Failed(f"the server answered {status}: it does not go on from an offset", CANNOT_RESUME)
            self._begin_output(response)
            return not options.head
        coded = options.compressed and b"content-encoding" in response.fields
        with _sink_failures():
            wanted = self._download.begin(self._url, response, coded)
        if wanted:
            for head in self._heads:
                self._write(head)
        return wanted and not options.head

    def _begin_output(self, response: Response) -> None:
        """Standard output: as it is in a pipe or where `-o -` says so, made readable on a terminal."""
        self._show_heads()
        if self._screen is not None:
            self._screen.begin(response.fields.get(b"content-type") or b"")

    def _show_heads(self) -> None:
        """On standard output, where the body goes there or would have gone. Raises Failed."""
        if self._download is not None:
            return
        if not self.options.outputs and self._out.isatty():
            self._screen = Screen(self._show, wants_colour())
        for head in self._heads:
            if self._screen is None:
                self._write(head)
            else:
                with _sink_failures():
                    self._screen.head(head)
        self._heads.clear()

    # Bodies.

    def _take(self, body: Body) -> None:
        if isinstance(body, Source):
            self._body = body
            body.on_ready = self._pull
            self._pull()
        else:
            self._write(body)
            self._ended()

    def _pull(self) -> None:
        body = self._body
        if body is None:
            return
        try:
            while not self._output.backlog and (data := body.pull(PULL)) is not None:
                if not len(data):
                    self._ended()
                    return
                self._write(data)
        except BodyCutShort as error:
            self._done_with_url(Failed(error.reason, code_of_cut(error)))
        except Failed as error:
            self._done_with_url(error)

    def _ended(self) -> None:
        assert self._transfer is not None and self._transfer.response is not None
        if self._screen is not None:
            with _sink_failures():
                self._screen.finish()
        self._finish(self._transfer.response)

    def _finish(self, response: Response) -> None:
        """The body is whole. Raises Failed."""
        download = self._download
        if download is not None:
            modified = response.fields.get(b"last-modified") if self.options.remote_time else None
            with _sink_failures(cannot_resume=PARTIAL):
                download.finish(parse_date(modified, self.reactor.wall) if modified is not None else None)
            self._download = None
        self._done_with_url(None)

    def _write(self, data: bytes | memoryview) -> None:
        with _sink_failures():
            if self._download is not None:
                self._download.write(data)
            elif self._screen is not None:
                self._screen.write(data)
            else:
                self._output.write(data)

    def _show(self, text: str) -> None:
        """On the terminal that standard output is. Raises OSError."""
        self._output.write(text.encode("utf-8", "backslashreplace"))

    def output_drained(self) -> None:
        """A slow reader has taken what was there for it."""
        if self._transfer is None:
            self.reactor.call_soon(self._next_url)
        else:
            self._pull()

    def output_failed(self, error: OSError) -> None:
        self._done_with_url(Failed(why_unwritable(error), WRITE_ERROR))

    def timed_out(self, transfer: Transfer) -> None:
        """Even where a slow reader keeps the body from being read on."""
        self._output.drop()
        self._pull()

    def _measure(self) -> Measured:
        """For the progress bar."""
        body, download, call = self._body, self._download, self._transfer.call if self._transfer is not None else None
        if body is not None and download is not None:
            return download.size - download.kept, body.length, download.kept
        if call is not None and isinstance(call.body, Source):
            return call.sent, call.body.length, 0
        return None

    # The end of one URL.

    def _done_with_url(self, error: Failed | FetchFailed | None) -> None:
        kept = self._give_up()
        if error is not None:
            code = error.code if isinstance(error, Failed) else code_of_failure(error, self.options.proxy is not None)
            where = "" if isinstance(error, FetchFailed) else f"{self._url}: "
            if str(error):
                self._complain(f"{where}{error}" + (f"; {kept}" if kept else ""))
            self.code = self.code or code
        if not self._output.backlog:
            self.reactor.call_soon(self._next_url)

    def _give_up(self) -> str:
        """Let go of everything that belongs to this URL; what there is to say of a file that is not whole."""
        self._notices.end_progress()
        self._parts.stop()
        self._body = self._screen = None
        transfer, self._transfer = self._transfer, None
        if transfer is not None:
            transfer.abort()
        download, self._download = self._download, None
        try:
            return download.break_off() if download is not None else ""
        except OSError as error:
            return f"what came is lost: {error.strerror}"

    def _complain(self, text: str) -> None:
        if not self.options.silent or self.options.show_errors:
            self._notices.complain(text)


@contextmanager
def _sink_failures(cannot_resume: int = CANNOT_RESUME) -> Iterator[None]:
    """What goes wrong where a body is written to, as Failed."""
    try:
        yield
    except BinaryRefused:
        raise Failed(NO_TEXT, WRITE_ERROR) from None
    except CannotResume as error:
        raise Failed(str(error), cannot_resume) from None
    except OSError as error:
        raise Failed(why_unwritable(error), WRITE_ERROR) from None


def _complete(url: str, query: bytes | None) -> str:
    """The URL with what a person may leave away: the scheme, and the escapes of what is not ASCII behind the host."""
    url = url if "://" in url else "http://" + url
    start = url.find("/", url.index("://") + 3)
    if start > 0:
        url = url[:start] + "".join(letter if letter < "\x80" else quote_from_bytes(os.fsencode(letter)) for letter in url[start:])
    if query:
        url, mark, fragment = url.partition("#")
        url += ("&" if "?" in url else "?") + quote_from_bytes(query, safe=TARGET_OCTETS) + mark + fragment
    return url


def _remote_name(url: str) -> str:
    """-O: the last segment of the URL's path, as it is spelled there. Raises Failed."""
    path = targets[url][1].partition(b"?")[0]
    name = path.rpartition(b"/")[2].decode("ascii")
    if unquote_to_bytes(name) in (b"", b".", b".."):
        raise Failed("the URL names no file: -o FILE gives it a name", WRITE_ERROR)
    return name


def _starts_at(response: Response, offset: int) -> bool:
    return (response.fields.get(b"content-range") or b"").startswith(b"bytes %d-" % offset)


def _head_text(response: Response) -> bytes:
    start = status_line(response.status, response.reason)
    if response.version == 10:
        start = start.replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    return start + response.fields.wire() + b"\r\n"
