"""--role client: URLs to fetch."""

from __future__ import annotations

import argparse
import getpass
import os
import re
import signal
import sys
from collections.abc import Callable
from typing import Any, BinaryIO
from urllib.parse import quote_from_bytes

from handlers.bodies import stripped
from handlers.fetch import basic
from handlers.fetch_command import MAX_REDIRECTS, REMOTE_NAME, Fetch, FetchOptions, FilePart, InputPart, Part
from handlers.trace import TracingConnector

from reactor.client import ClientLimits, Pool
from reactor.errors import ConfigError
from reactor.roles.process import Group, Process
from reactor.roles.values import field, method, proxy_url, seconds


def add_flags(to: Any) -> None:
    to.add_argument("urls", nargs="+", metavar="URL")
    _request_flags(to)
    _output_flags(to)
    _way_flags(to)


def _request_flags(to: Any) -> None:
    data = {"dest": "data", "action": DataAction, "metavar": "DATA"}
    to.add_argument("-X", "--request", dest="method", type=method, metavar="METHOD", help="the request's method")
    to.add_argument("-H", "--header", dest="fields", action="append", default=[], type=field, metavar="NAME: VALUE", help="a field; `NAME:` takes one away")
    to.add_argument("-d", "--data", **data, help="the request's body, `@FILE` from a file, `@-` from standard input, without line ends; makes it a POST")
    to.add_argument("--data-binary", **data, help="the same, with its line ends")
    to.add_argument("--data-urlencode", **data, help="the same, percent-encoded: CONTENT, NAME=CONTENT, NAME@FILE")
    to.add_argument("--json", **data, help="the same, as JSON")
    to.add_argument("-G", "--get", action="store_true", help="the data goes into the URL's query")
    to.add_argument("-T", "--upload-file", dest="upload", metavar="FILE", help="PUT this file, `-` for standard input")
    to.add_argument("-I", "--head", dest="head", action="store_true", help="a HEAD request; shows the head alone")
    to.add_argument("-u", "--user", metavar="NAME:PASSWORD", help="Basic authentication; without the password it is asked for")
    to.add_argument("-A", "--user-agent", dest="agent", metavar="NAME", help="the field User-Agent")
    to.add_argument("-e", "--referer", metavar="URL", help="the field Referer")
    to.add_argument("-r", "--range", metavar="RANGE", help="a part of the body, such as 0-99 or -500")
    to.add_argument("--compressed", action="store_true", help="ask for gzip or deflate, and undo it")


def _output_flags(to: Any) -> None:
    to.add_argument("-o", "--output", dest="outputs", action="append", default=[], metavar="FILE", help="where the body goes, instead of standard output; one for each URL")
    to.add_argument("-O", "--remote-name", dest="outputs", action="append_const", const=REMOTE_NAME, help="the same, named as in the URL")
    to.add_argument("-R", "--remote-time", action="store_true", help="the file gets the time of Last-Modified")
    to.add_argument("-C", "--continue-at", dest="resume", type=offset, default=False, metavar="OFFSET", help="go on with a download from there; `-` with what is missing")
    to.add_argument("-i", "--include", dest="include", action="store_true", help="the response's head before its body")
    to.add_argument("-v", dest="talk", action="store_true", help="both heads, on standard error")
    to.add_argument("-s", "--silent", action="store_true", help="neither progress nor errors are shown")
    to.add_argument("-S", "--show-error", action="store_true", help="errors are, also with -s")
    to.add_argument("-f", "--fail", action="store_true", help="a status of 400 and above is an error: exit 22, no body")
    to.add_argument("--trace", metavar="FILE", help="every byte both ways, `-` for standard output")


def _way_flags(to: Any) -> None:
    to.add_argument("-x", "--proxy", dest="proxy", type=proxy_url, metavar="URL", help="the proxy to go through")
    to.add_argument("-U", "--proxy-user", metavar="NAME:PASSWORD", help="Basic authentication for it")
    to.add_argument("-L", "--location", dest="location", action="store_true", help="follow redirects")
    to.add_argument("--max-redirs", type=number, default=MAX_REDIRECTS, metavar="N", help=f"at most so many ({MAX_REDIRECTS})")
    to.add_argument("--connect-timeout", type=seconds, metavar="SECONDS", help=f"for resolving and connecting ({ClientLimits().connect:g})")
    to.add_argument("--max-time", type=seconds, metavar="SECONDS", help="for all of one URL")
    to.add_argument("--retry", type=number, default=0, metavar="N", help="repeat what failed in passing, after 1 s, 2 s, 4 s … or Retry-After")


def number(text: str) -> int:
    if re.fullmatch(r"[0-9]{1,6}", text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return int(text)


def offset(text: str) -> int | None:
    """-C: bytes, or None for `-`."""
    if text == "-":
        return None
    if re.fullmatch(r"[0-9]{1,15}", text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of bytes nor -")
    return int(text)


class DataAction(argparse.Action):
    """The kinds of -d share one list, in the order given."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: str | None = None) -> None:
        given = getattr(namespace, self.dest) or []
        setattr(namespace, self.dest, [*given, (option, values)])


def data_parts(given: list[tuple[str, str]]) -> list[Part]:
    """The values of -d and its like, joined by `&` as curl does; raises ConfigError."""
    parts: list[Part] = []
    for option, text in given:
        if parts and option != "--json":
            parts.append(b"&")
        try:
            parts.append(_data_part(option, text))
        except OSError as error:
            raise ConfigError(f"{option} {text}: {error.strerror}") from None
    return parts


def _data_part(option: str, text: str) -> Part:
    """Raises OSError."""
    if option == "--data-urlencode":
        return _urlencoded(text)
    if not text.startswith("@"):
        return os.fsencode(text)
    strip = option in ("-d", "--data")
    if text == "@-":
        return InputPart(strip)
    with open(text[1:], "rb") as file:
        return stripped(file.read()) if strip else FilePart(text[1:])


def _urlencoded(text: str) -> bytes:
    """curl's forms: CONTENT, =CONTENT, NAME=CONTENT, @FILE, NAME@FILE. Raises OSError."""
    match = re.match(r"[^=@]*[=@]", text)
    name, mark, content = (match[0][:-1], match[0][-1], text[match.end() :]) if match is not None else ("", "=", text)
    data = os.fsencode(content)
    if mark == "@":
        with open(content, "rb") as file:
            data = file.read()
    encoded = quote_from_bytes(data, safe="").encode("ascii")
    return os.fsencode(name) + b"=" + encoded if name else encoded


class ClientGroup:
    """URLs to fetch."""

    def __init__(self, process: Process, flags: argparse.Namespace, name: str) -> None:
        self.process = process
        self.flags = flags
        self.options = options_of(flags)
        self.limits = ClientLimits() if flags.connect_timeout is None else ClientLimits(connect=flags.connect_timeout)
        self.fetch: Fetch | None = None
        self.pool: Pool | None = None
        self._trace: BinaryIO | None = None
        self._alone = False

    def start(self) -> None:
        self._alone = self.process.groups == [self]
        connector = self.process.connector
        if self.flags.trace is not None:
            try:
                self._trace = sys.stdout.buffer if self.flags.trace == "-" else open(self.flags.trace, "wb")
            except OSError as error:
                raise ConfigError(f"--trace {self.flags.trace}: {error.strerror}") from None
            connector = TracingConnector(connector, self._write_trace)
        self.pool = Pool(self.process.reactor, connector, self.limits)
        self.fetch = Fetch(self.process.reactor, self.pool, self.options, self._done)
        self.fetch.start()

    def _write_trace(self, text: str) -> None:
        if self._trace is not None:
            self._trace.write(text.encode())
            self._trace.flush()

    def _done(self, code: int) -> None:
        if self.pool is not None:
            self.pool.close()
        self.process.exit_code = self.process.exit_code or code
        self.process.group_done(self)

    def shutdown(self, on_done: Callable[[Group], object]) -> None:
        """A fetch has no listeners to wait for: a signal ends it at once, and alone it ends as shells say, 128 + its number."""
        number = self.process.signalled
        if self.fetch is not None:
            self.fetch.stop("interrupted" if number == signal.SIGINT else "stopped")
        if self._alone:
            self.process.exit_code = 128 + number
        self.close()
        on_done(self)

    def abort(self) -> None:
        if self.fetch is not None:
            self.fetch.stop()
        self.close()

    def close(self) -> None:
        if self.pool is not None:
            self.pool.close()
        if self._trace is not None and self.flags.trace != "-":
            self._trace.close()
        self._trace = None


def options_of(flags: argparse.Namespace) -> FetchOptions:
    """What the flags ask for; raises ConfigError where they contradict each other."""
    query, data = None, data_parts(flags.data) if flags.data is not None else None
    if flags.upload is not None:
        if data is not None:
            raise ConfigError("-T and -d both say what the body is")
        data = [_upload_part(flags.upload)]
    elif flags.get:
        if any(not isinstance(part, bytes) for part in data or ()):
            raise ConfigError("-G: what goes into the query is given on the command line, or with -d @FILE")
        query, data = b"".join(part for part in data or () if isinstance(part, bytes)), None
    if flags.resume is not False and flags.resume is not None and flags.range is not None:
        raise ConfigError("-C and -r both say which part is wanted")
    put = "PUT" if flags.upload is not None else None
    return FetchOptions(
        _urls(flags), flags.method or put, _fields(flags, data is not None), data, query, flags.outputs, flags.resume,
        flags.remote_time, flags.include, flags.head, flags.talk, flags.silent, flags.show_error, flags.proxy,
        b"Proxy-Authorization: %b\r\n" % _user(flags.proxy_user, "-U").encode("ascii") if flags.proxy_user else b"",
        flags.location, flags.max_redirs, flags.fail, flags.compressed, flags.max_time, flags.retry, flags.trace is not None,
    )  # fmt: skip


def _upload_part(path: str) -> Part:
    if path == "-":
        return InputPart(gather=False)
    if not os.path.isfile(path) or not os.access(path, os.R_OK):
        raise ConfigError(f"-T {path}: not a file that can be read")
    return FilePart(path)


def _urls(flags: argparse.Namespace) -> list[str]:
    """A URL that ends in `/` gets the name of the file that is put there, as curl does it."""
    if flags.upload in (None, "-"):
        return list(flags.urls)
    name = quote_from_bytes(os.fsencode(os.path.basename(flags.upload)))
    return [url + name if url.endswith("/") and "?" not in url else url for url in flags.urls]


def _fields(flags: argparse.Namespace, has_data: bool) -> list[tuple[str, str | None]]:
    """The fields that other flags than -H make, unless -H makes them too; then those of -H."""
    made: list[tuple[str, str | None]] = []
    if has_data and flags.upload is None:
        as_json = any(option == "--json" for option, _ in flags.data)
        made.append(("Content-Type", "application/json" if as_json else "application/x-www-form-urlencoded"))
        if as_json:
            made.append(("Accept", "application/json"))
    if flags.user is not None:
        made.append(("Authorization", _user(flags.user, "-u")))
    for name, value in (("User-Agent", flags.agent), ("Referer", flags.referer)):
        if value is not None:
            made.append(_checked(name, value))
    if flags.range is not None:
        made.append(_checked("Range", f"bytes={flags.range}"))
    given = {name.lower() for name, _ in flags.fields}
    return [*(pair for pair in made if pair[0].lower() not in given), *flags.fields]


def _checked(name: str, value: str) -> tuple[str, str | None]:
    try:
        return field(f"{name}: {value}")
    except argparse.ArgumentTypeError as error:
        raise ConfigError(str(error)) from None


def _user(text: str, flag: str) -> str:
    """NAME:PASSWORD as the value of a field; the password is asked for where it is left away."""
    name, colon, password = text.partition(":")
    if not colon:
        password = getpass.getpass(f"{flag}: password of {name}: ")
    return basic(name, password)
