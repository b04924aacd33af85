"""What -d and its like, and -F, make of their texts: the parts of a request's body."""

from __future__ import annotations

import argparse
import os
import re
import stat
from typing import Any
from urllib.parse import quote_from_bytes

from handlers.bodies import stripped
from handlers.parts import FilePart, InputPart, Part
from reactor.errors import ConfigError

NOT_READ = 26  # curl's exit status for a file that cannot be read

# -F NAME=@FILE;type=TEXT/X;filename=NAME
_FORM_FILE = re.compile(r"(?P<path>[^;]*)(?:;type=(?P<type>[^;\r\n]+))?(?:;filename=(?P<filename>[^;]+))?")


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
            raise ConfigError(f"{option} {text}: {error.strerror}", NOT_READ) from None
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
    if not strip:
        return file_part(text[1:])
    with open(text[1:], "rb") as file:
        return stripped(file.read())


def file_part(path: str) -> Part:
    """A file that is opened when it is sent; what is none (a named pipe, say) is read now. Raises OSError."""
    with open(path, "rb") as file:
        return FilePart(path) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else file.read()


def _urlencoded(text: str) -> bytes:
    """curl's forms: CONTENT, =CONTENT, NAME=CONTENT, @FILE, NAME@FILE. Raises OSError."""
    match = re.match(r"[^=@]*[=@]", text)
    name, mark, content = (match[0][:-1], match[0][-1], text[match.end() :]) if match is not None else ("", "=", text)
    data = os.fsencode(content)
    if mark == "@":
        with open(content, "rb") as file:
            data = file.read()
    encoded = quote_from_bytes(data, safe=" ").replace(" ", "+").encode("ascii")  # as in forms, and by curl
    return os.fsencode(name) + b"=" + encoded if name else encoded


def form_parts(given: list[str]) -> tuple[str, list[Part]]:
    """The values of -F as multipart/form-data (RFC 7578): its Content-Type, and the parts. Raises ConfigError."""
    boundary = os.urandom(16).hex()
    parts: list[Part] = []
    for text in given:
        name, equals, content = text.partition("=")
        if not equals:
            raise ConfigError(f"-F {text}: not of the form NAME=CONTENT, NAME=@FILE or NAME=<FILE")
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{_quoted(name)}"'
        try:
            more, part = _form_part(content)
        except OSError as error:
            raise ConfigError(f"-F {text}: {error.strerror}", NOT_READ) from None
        parts += [os.fsencode(f"{head}{more}\r\n\r\n"), part, b"\r\n"]
    return f"multipart/form-data; boundary={boundary}", [*parts, f"--{boundary}--\r\n".encode()]


def _form_part(content: str) -> tuple[str, Part]:
    """What a part's head says besides its name, and its content. Raises ConfigError and OSError."""
    if content[:1] == "<":
        with open(content[1:], "rb") as file:
            return "", file.read()
    if content[:1] != "@":
        return "", os.fsencode(content)
    match = _FORM_FILE.fullmatch(content[1:])
    if match is None:
        raise ConfigError(f"-F {content}: not of the form @FILE;type=TYPE;filename=NAME")
    path = match["path"]
    part = file_part(path)
    filename = match["filename"] or os.path.basename(path)
    kind = match["type"] or _type_of(filename)
    return f'; filename="{_quoted(filename)}"\r\nContent-Type: {kind}', part


def _type_of(filename: str) -> str:
    from handlers.media_types import media_type  # here, because most runs send no form, and its tables cost time

    return media_type(os.fsencode(filename)).partition(b";")[0].decode("ascii")


def _quoted(name: str) -> str:
    """As browsers escape it (RFC 7578 section 2 leaves it to them: HTML, multipart/form-data encoding)."""
    return name.replace("\r", "%0D").replace("\n", "%0A").replace('"', "%22")
