"""--role client: URLs to fetch."""

from __future__ import annotations

import argparse
import getpass
import os
import re
import signal
import sys
from collections.abc import Callable
from io import FileIO
from typing import Any
from urllib.parse import quote_from_bytes

from handlers.fetch import basic
from handlers.fetch_command import MAX_REDIRECTS, REMOTE_NAME, Fetch, FetchOptions
from handlers.output import why_unwritable, write_all
from handlers.parts import InputPart, Part
from handlers.trace import TracingConnector, trace_inside
from reactor.client import ClientLimits, Pool
from reactor.errors import ConfigError
from reactor.roles.bodies import NOT_READ, DataAction, data_parts, file_part, form_parts
from reactor.roles.process import Group, Process
from reactor.roles.trust import client_tls, trust_flags
from reactor.roles.values import count, duration, field, fields, method, proxy_url, seconds

AUTO_REFERER = ";auto"  # behind the value of -e


def add_flags(to: Any) -> None:
    _request_flags(to.add_argument_group("--role client: the request, in curl's letters"))
    _output_flags(to.add_argument_group("--role client: where the answer goes"))
    _way_flags(to.add_argument_group("--role client: the way there"))


def _request_flags(to: Any) -> None:
    add = to.add_argument
    data = {"dest": "data", "action": DataAction, "metavar": "DATA"}
    add("urls", nargs="+", metavar="URL", help="what to fetch, http:// where it has no scheme; one after the other")
    add("-X", "--request", dest="method", type=method, metavar="METHOD", help="the request's method")
    add("-H", "--header", dest="fields", action="extend", default=[], type=fields, metavar="NAME: VALUE",
        help="a field; `NAME:` takes one away, `NAME;` sends it without a value, `@FILE` has one a line")  # fmt: skip
    add("-d", "--data", **data,
        help="the body of a POST, `@FILE` from a file, `@-` from standard input, without line ends")  # fmt: skip
    add("--data-binary", **data, help="the same, with its line ends")
    add("--data-urlencode", **data, help="the same, percent-encoded: CONTENT, NAME=CONTENT, NAME@FILE")
    add("--json", **data, help="the same, as JSON, which is asked for too")
    add("-F", "--form", dest="form", action="append", metavar="NAME=CONTENT",
        help="a part of a form: CONTENT, @FILE with `;type=` and `;filename=`, or <FILE")  # fmt: skip
    add("-G", "--get", action="store_true", help="put the data into the URL's query")
    add("-T", "--upload-file", dest="upload", metavar="FILE", help="PUT this file, `-` for standard input")
    add("-I", "--head", dest="head", action="store_true", help="send HEAD, and show the response's head")
    add("-u", "--user", metavar="NAME:PASSWORD", help="Basic authentication; without the password it is asked for")
    add("-A", "--user-agent", dest="agent", metavar="NAME", help="the field User-Agent")
    add("-e", "--referer", metavar="URL", help="the field Referer; with `;auto` behind it, a redirect sets it anew")
    add("-r", "--range", metavar="RANGE", help="a part of the body, such as 0-99 or -500")
    add("--compressed", action="store_true", help="ask for gzip or deflate, and undo it")


def _output_flags(to: Any) -> None:
    add = to.add_argument
    add("-o", "--output", dest="outputs", action="append", default=[], metavar="FILE",
        help="write the body there instead of standard output; one for each URL")  # fmt: skip
    add("-O", "--remote-name", dest="outputs", action="append_const", const=REMOTE_NAME,
        help="write it to a file named as in the URL")  # fmt: skip
    add("-R", "--remote-time", action="store_true", help="give the file the time of Last-Modified")
    add("-C", "--continue-at", dest="resume", type=offset, default=False, metavar="OFFSET",
        help="go on with a download at this byte, `-` where it broke off")  # fmt: skip
    add("-i", "--include", dest="include", action="store_true", help="show the response's head before its body")
    add("-v", dest="talk", action="store_true", help="show both heads, on standard error")
    add("-s", "--silent", action="store_true", help="show neither progress nor errors")
    add("-S", "--show-error", action="store_true", help="show errors, also with -s")
    add("-f", "--fail", action="store_true", help="take a status of 400 and above for an error: exit 22, no body")
    add("--trace", metavar="FILE", help="write every byte both ways, `-` to standard output")


def _way_flags(to: Any) -> None:
    add = to.add_argument
    add("-x", "--proxy", dest="proxy", type=proxy_url, default=(None, b""), metavar="URL", help="the proxy to go through")
    add("-U", "--proxy-user", metavar="NAME:PASSWORD", help="Basic authentication for the proxy")
    trust_flags(to, "--cacert", "-k", "--insecure")
    add("-L", "--location", dest="location", action="store_true", help="follow redirects")
    add("--max-redirs", type=redirects, default=MAX_REDIRECTS, metavar="N",
        help=f"of these at most so many, -1 for any number ({MAX_REDIRECTS})")  # fmt: skip
    add("--connect-timeout", type=duration, metavar="SECONDS",
        help=f"look-up, connection and TLS handshake ({ClientLimits().connect:g})")  # fmt: skip
    add("-m", "--max-time", type=seconds, metavar="SECONDS", help="all of one URL (any time)")
    add("--retry", type=count, default=0, metavar="N",
        help="repeat what failed in passing, after 1 s, 2 s, 4 s … or Retry-After (0)")  # fmt: skip


def redirects(text: str) -> int:
    return sys.maxsize if text == "-1" else count(text)


def offset(text: str) -> int | None:
    """-C: bytes, or None for `-`."""
    if text == "-":
        return None
    if re.fullmatch(r"[0-9]{1,15}", text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of bytes nor -")
    return int(text)


class ClientGroup:
    """URLs to fetch."""

    def __init__(self, process: Process, flags: argparse.Namespace, name: str) -> None:
        self.process = process
        self.flags = flags
        self.options = options_of(flags)
        self.limits = ClientLimits() if flags.connect_timeout is None else ClientLimits(connect=flags.connect_timeout)
        self.tls = client_tls(flags, flags.trace is not None, exits_as_curl=True)
        self.fetch: Fetch | None = None
        self.pool: Pool | None = None
        self._trace: FileIO | None = None
        self._alone = False

    def start(self) -> None:
        self._alone = self.process.groups == [self]
        connector = self.process.connector
        if self.flags.trace is not None:
            try:
                to_output = self.flags.trace == "-"
                self._trace = open(1 if to_output else self.flags.trace, "wb", buffering=0, closefd=not to_output)
            except OSError as error:
                raise ConfigError(f"--trace {self.flags.trace}: {error.strerror}") from None
            connector = TracingConnector(connector, self._write_trace)
            assert self.tls is not None
            trace_inside(self.tls, self._write_trace)
        self.pool = Pool(self.process.reactor, connector, self.limits, self.tls)
        self.fetch = Fetch(self.process.reactor, self.pool, self.options, self._done)
        self.fetch.start()

    def _write_trace(self, text: str) -> None:
        try:
            if self._trace is not None:
                write_all(self._trace, text.encode())
        except OSError as error:
            self._end_trace()
            if why := why_unwritable(error):
                print(f"reactor: --trace {self.flags.trace}: {why}", file=sys.stderr)

    def _end_trace(self) -> None:
        trace, self._trace = self._trace, None
        if trace is not None:
            trace.close()

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
        self._end_trace()


def options_of(flags: argparse.Namespace) -> FetchOptions:
    """What the flags ask for; raises ConfigError where they contradict each other."""
    content_type, data, query = _body(flags)
    if flags.head and data is not None:
        raise ConfigError("-I asks for a head alone, and sends no body: not with -d, -F or -T")
    if flags.resume is not False and flags.resume is not None and flags.range is not None:
        raise ConfigError("-C and -r both say which part is wanted")
    put = "PUT" if flags.upload is not None else None
    proxy, to_proxy = flags.proxy
    if flags.proxy_user:
        to_proxy = b"Proxy-Authorization: %b\r\n" % _user(flags.proxy_user, "-U").encode("ascii")
    return FetchOptions(
        _urls(flags), flags.method or put, _fields(flags, content_type), data, query, flags.outputs, flags.resume,
        flags.remote_time, flags.include, flags.head, flags.talk, flags.silent, flags.show_error, proxy, to_proxy,
        flags.location, flags.max_redirs, flags.fail, flags.compressed, flags.max_time, flags.retry, flags.trace is not None,
        (flags.referer or "").endswith(AUTO_REFERER),
    )  # fmt: skip


def _body(flags: argparse.Namespace) -> tuple[str | None, list[Part] | None, bytes | None]:
    """The Content-Type that goes with the body, the body's parts, and what goes into the query instead. Raises ConfigError."""
    if sum(given is not None for given in (flags.upload, flags.data, flags.form)) > 1:
        raise ConfigError("-d, -F and -T each say what the body is: one of them")
    if flags.upload is not None:
        return None, [_upload_part(flags.upload)], None
    if flags.form is not None:
        return *form_parts(flags.form), None
    if flags.data is None:
        return None, None, None
    data = data_parts(flags.data)
    if not flags.get:
        return "application/json" if _is_json(flags) else "application/x-www-form-urlencoded", data, None
    if any(not isinstance(part, bytes) for part in data):
        raise ConfigError("-G: what goes into the query is given on the command line, or with -d @FILE")
    return None, None, b"".join(part for part in data if isinstance(part, bytes))


def _is_json(flags: argparse.Namespace) -> bool:
    return any(option == "--json" for option, _ in flags.data or ())


def _upload_part(path: str) -> Part:
    if path == "-":
        return InputPart(gather=False)
    try:
        return file_part(path)
    except OSError as error:
        raise ConfigError(f"-T {path}: {error.strerror}", NOT_READ) from None


def _urls(flags: argparse.Namespace) -> list[str]:
    """A URL that ends in `/` gets the name of the file that is put there, as curl does it."""
    if flags.upload in (None, "-"):
        return list(flags.urls)
    name = quote_from_bytes(os.fsencode(os.path.basename(flags.upload)))
    return [url + name if url.endswith("/") and "?" not in url else url for url in flags.urls]


def _fields(flags: argparse.Namespace, content_type: str | None) -> list[tuple[str, str | None]]:
    """The fields that other flags than -H make, unless -H makes them too; then those of -H."""
    made: list[tuple[str, str | None]] = []
    if content_type is not None:
        made.append(("Content-Type", content_type))
    if _is_json(flags):
        made.append(("Accept", "application/json"))
    if flags.user is not None:
        made.append(("Authorization", _user(flags.user, "-u")))
    referer = flags.referer and flags.referer.removesuffix(AUTO_REFERER)
    for name, value in (("User-Agent", flags.agent), ("Referer", referer)):
        if value is not None:
            made.append(_checked(name, value))
    if flags.range is not None:
        end = "-" if re.fullmatch("[0-9]+", flags.range) else ""  # curl's `-r 5`: from there on
        made.append(_checked("Range", f"bytes={flags.range}{end}"))
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
