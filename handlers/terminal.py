"""What a person sees on a terminal: heads and JSON in colour, a progress bar, and never a control character of the network's."""

from __future__ import annotations

import codecs
import json
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

PRETTY_LIMIT = 1024 * 1024  # bytes of JSON that are held to be made readable; a longer body is shown as it comes
INDENT = "    "
BAR_FIRST = 0.7  # seconds before a bar is shown: what is done sooner needs none
BAR_EVERY = 0.2  # seconds between two looks at it
BAR_SPAN = 5.0  # seconds over which the speed is taken
BAR_COLUMNS = 80  # where the terminal does not tell its width

# C0 but tab and line feed, DEL, C1, and what turns the direction of writing around (Unicode TR 36 section 3).
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_JSON_TOKEN = re.compile(
    r"[ \t\r\n]*(?:(?P<string>\"(?:[^\"\\\x00-\x1f]|\\.)*\")|(?P<number>-?[0-9][0-9.eE+\-]*)|(?P<word>true|false|null)"
    r"|(?P<open>[\[{])|(?P<close>[\]}])|(?P<comma>,)|(?P<colon>:))"
)
_EMPTY_JSON = re.compile(r"[ \t\r\n]*[\]}]")

RESET, BOLD, DIM = "\x1b[0m", "\x1b[1m", "\x1b[2m"
RED, GREEN, YELLOW, BLUE, MAGENTA, CYAN = (f"\x1b[3{number}m" for number in range(1, 7))
_OF_STATUS = {"1": BLUE, "2": GREEN, "3": CYAN, "4": YELLOW, "5": RED}
_OF_JSON = {"string": GREEN, "number": CYAN, "word": MAGENTA, "key": BLUE}


def wants_colour(environment: Mapping[str, str] = os.environ) -> bool:
    """Colour is for terminals that can show it, and for who has not declined it (no-color.org)."""
    return not environment.get("NO_COLOR") and environment.get("TERM", "") not in ("", "dumb")


def visible(text: str, newlines: bool = True) -> str:
    """The text with its control characters written out, so that none of them is obeyed."""
    text = _CONTROL.sub(_written_out, text)
    return text if newlines else text.replace("\n", "\\n")


def _written_out(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def shown_head(head: bytes, mark: str = "", colour: bool = False) -> str:
    """The lines of a head for a terminal, each behind `mark`; bytes beyond ASCII are read as UTF-8, else Latin-1."""
    return "".join(f"{mark}{_shown_line(line, at == 0, colour)}\n" for at, line in enumerate(head.split(b"\r\n")[:-1]))


def _shown_line(line: bytes, first: bool, colour: bool) -> str:
    try:
        text = visible(line.decode(), newlines=False)
    except UnicodeDecodeError:
        text = visible(line.decode("latin-1"), newlines=False)
    if not colour or not text:
        return text
    if first:
        status = text.split(" ")[1][:1] if text.startswith("HTTP/") and " " in text else ""
        return f"{BOLD}{_OF_STATUS.get(status, GREEN)}{text}{RESET}"
    name, colon, value = text.partition(":")
    return f"{CYAN}{name}{RESET}{DIM}{colon}{RESET}{value}"


def pretty_json(text: str, colour: bool = False) -> str | None:
    """JSON indented, and coloured where asked for; None for what is not JSON.

    Tokens stay as they are spelled: no number is rounded, and no name that occurs twice is lost.
    """
    try:
        json.loads(text, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return None
    out: list[str] = []
    depth, at = 0, 0
    end = len(text.rstrip(" \t\r\n"))
    while at < end:
        match = _JSON_TOKEN.match(text, at)
        if match is None:  # NaN and Infinity, which are no JSON
            return None
        kind, token, at = str(match.lastgroup), match[match.lastgroup or 0], match.end()
        if kind == "open":
            empty = _EMPTY_JSON.match(text, at)
            if empty is not None:
                token, at = token + empty[0].strip(), empty.end()
            else:
                depth += 1
                token += "\n" + INDENT * depth
        elif kind == "close":
            depth -= 1
            token = "\n" + INDENT * depth + token
        elif kind == "comma":
            token += "\n" + INDENT * depth
        elif kind == "colon":
            token += " "
        else:
            is_name = kind == "string" and text[at : at + 16].lstrip(" \t\r\n")[:1] == ":"
            token = _painted(visible(token), "key" if is_name else kind, colour)
        out.append(token)
    return "".join(out) + "\n"


def _painted(token: str, kind: str, colour: bool) -> str:
    return f"{_OF_JSON[kind]}{token}{RESET}" if colour else token


class Progress:
    """One line on a terminal: how much, how fast, how long still. `tick` is called now and then, `clear` at the end.

    `write` takes text; `clock` gives seconds.
    """

    def __init__(self, write: Callable[[str], Any], columns: int, clock: Callable[[], float]) -> None:
        self._write = write
        self._columns = columns
        self._clock = clock
        self._began = clock()
        self._marks: list[tuple[float, int]] = [(self._began, 0)]
        self._shown = False

    def tick(self, done: int, total: int | None, already: int = 0) -> None:
        """`done` of `total` bytes have come, None where that is not known; `already` were there before."""
        now = self._clock()
        self._marks = [mark for mark in self._marks if now - mark[0] <= BAR_SPAN][-64:] + [(now, done)]
        if now - self._began < BAR_FIRST:
            return
        (since, before), seconds = self._marks[0], now - self._marks[0][0]
        speed = (done - before) / seconds if seconds > 0 and now > since else 0.0
        self._write("\r" + bar(done + already, None if total is None else total + already, speed, self._columns) + "\x1b[K")
        self._shown = True

    def clear(self) -> None:
        if self._shown:
            self._write("\r\x1b[K")
            self._shown = False


def bar(done: int, total: int | None, speed: float, columns: int) -> str:
    """`[####    ] 45%  12.3 MiB of 27.0 MiB  3.2 MiB/s  0:04 left`, cut to the columns there are."""
    told = f"{size_text(done)}  {size_text(int(speed))}/s"
    if not total:
        return told[: columns - 1]
    left = span_text((total - done) / speed) + " left" if speed > 0 else "stalled"
    told = f"{min(100, done * 100 // total):3d}%  {size_text(done)} of {size_text(total)}  {size_text(int(speed))}/s  {left}"
    room = columns - len(told) - 4
    if room < 8:
        return told[: columns - 1]
    full = min(room, room * done // total)
    return f"[{'#' * full}{' ' * (room - full)}] {told}"


def size_text(size: int) -> str:
    """Bytes as people say them, in units of 1024."""
    if size < 1024:
        return f"{size} B"
    value, unit = float(size), ""
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        value /= 1024
        if value < 1024:
            break
    return f"{value:.1f} {unit}"


def span_text(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    whole = int(max(0.0, min(seconds, 359999.0)) + 0.5)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


def columns_of(terminal: Any) -> int:
    """The width of an open terminal."""
    try:
        return os.get_terminal_size(terminal.fileno()).columns or BAR_COLUMNS
    except OSError:
        return BAR_COLUMNS


class BinaryRefused(Exception):
    """The body is no text, and would disturb the terminal."""


class Screen:
    """A body shown on a terminal: JSON made readable, other text with its control characters written out.

    `write` takes text. Raises BinaryRefused for what is no text.
    """

    def __init__(self, write: Callable[[str], Any], colour: bool) -> None:
        self._write = write
        self._colour = colour
        self._held: list[bytes] | None = None  # JSON, until it is whole
        self._size = 0
        self._last = "\n"
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    def head(self, head: bytes) -> None:
        self._write(shown_head(head, "", self._colour))

    def begin(self, content_type: bytes) -> None:
        kind = content_type.partition(b";")[0].strip(b" \t").lower()
        if kind == b"application/json" or kind.endswith(b"+json"):
            self._held = []

    def write(self, data: bytes | memoryview) -> None:
        piece = bytes(data)
        self._size += len(piece)
        if self._held is not None and self._size <= PRETTY_LIMIT:
            self._held.append(piece)
            return
        self._let_go()
        self._show(piece)

    def _let_go(self) -> None:
        held, self._held = self._held, None
        if held:
            self._show(b"".join(held))

    def _show(self, piece: bytes) -> None:
        if b"\0" in piece:
            raise BinaryRefused
        self._put(visible(self._decoder.decode(piece).replace("\r\n", "\n")))

    def _put(self, text: str) -> None:
        if text:
            self._last = text[-1]
            self._write(text)

    def finish(self) -> None:
        """The body is at its end; the next thing on the terminal begins a line of its own."""
        if self._held:
            whole = b"".join(self._held)
            pretty = pretty_json(whole.decode("utf-8", "backslashreplace"), self._colour)
            if pretty is not None:
                self._held = None
                self._put(pretty)
        self._let_go()
        self._put(visible(self._decoder.decode(b"", True)))
        if self._last != "\n":
            self._put("\n")
