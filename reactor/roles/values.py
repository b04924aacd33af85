"""What a flag's text may be: one function for each kind, which says what is wrong with it."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
import textwrap
import traceback
from typing import TYPE_CHECKING, Any, NoReturn

from reactor.errors import RAISED, ConfigError

if TYPE_CHECKING:
    from cache.policy import OperatorRule

LONGEST = 1e6  # seconds, eleven days: more than that is no deadline, and more than a selector takes
_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]"  # an octet of one: RFC 9110 section 5.6.2
DOTTED_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")  # package.module:attribute


class HelpFormatter(argparse.HelpFormatter):
    """Names the value of a flag with several spellings once: `-o, --output FILE`."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=36)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        value = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(action.option_strings)} {value}"

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(text, width, break_on_hyphens=False)


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong in one line, and exits with 2."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(add_help=False, allow_abbrev=False, formatter_class=HelpFormatter, **settings)

    def error(self, message: str) -> NoReturn:
        from difflib import get_close_matches  # here, because it costs time, and most runs have no error

        unknown = message.removeprefix("unrecognized arguments: ").split(" ")[0].partition("=")[0]
        meant = get_close_matches(unknown, self._option_string_actions, 1) if unknown.startswith("--") else []
        raise ConfigError(f"{message}; is {meant[0]} meant?" if meant else message)


def seconds(text: str) -> float:
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return float(text)


def duration(text: str) -> float:
    """Seconds above zero."""
    if not (value := seconds(text)):
        raise argparse.ArgumentTypeError("0 seconds leave no time for anything")
    if value > LONGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is more than {LONGEST:g} seconds")
    return value


def count(text: str) -> int:
    if re.fullmatch(r"[0-9]{1,9}", text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return int(text)


def count_from_1(text: str) -> int:
    if not (value := count(text)):
        raise argparse.ArgumentTypeError("0 is not a number from 1 on")
    return value


def rate(text: str) -> float:
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) is None or not float(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return float(text)


def size(text: str) -> int:
    match = re.fullmatch(r"([0-9]+)([kKmMgG]?)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 1048576, 512K, 32M or 1G")
    return int(match[1]) << {"": 0, "k": 10, "m": 20, "g": 30}[match[2].lower()]


def address(text: str) -> tuple[str, int]:
    match = re.fullmatch(r"(?:(\[[0-9A-Fa-f:.]+\]|[^:\[\]]*):)?([0-9]{1,5})", text)
    if match is None or int(match[2]) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not an address of the form HOST:PORT")
    return (match[1] or "127.0.0.1").strip("[]"), int(match[2])


def method(text: str) -> str:
    if re.fullmatch(_TOKEN + "{1,32}", text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a method")
    return text


def field(text: str) -> tuple[str, str | None]:
    """`NAME: VALUE`; for `NAME:`, which takes the field away, the value is None, for `NAME;` it is empty."""
    if text.endswith(";") and ":" not in text:
        return field(f"{text[:-1]}: x")[0], ""
    name, colon, value = text.partition(":")
    if not colon or re.fullmatch(_TOKEN + "+", name) is None or re.search(r"[\r\n\0]", value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a field of the form NAME: VALUE")
    return name, os.fsencode(value.strip(" \t")).decode("latin-1") or None  # sent with the octets of the command line


def fields(text: str) -> list[tuple[str, str | None]]:
    """One field, or those of `@FILE`, one a line; lines that are empty or begin with `#` are left away."""
    if not text.startswith("@"):
        return [field(text)]
    try:
        with open(text[1:] if text != "@-" else 0, "rb") as file:
            lines = [line.removesuffix(b"\r") for line in file.read().split(b"\n")]
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text}: {error.strerror}") from None
    return [field(os.fsdecode(line)) for line in lines if line and line[:1] != b"#"]


def field_names(text: str) -> tuple[bytes, ...]:
    """Field names divided by commas, in lower case; none where the text is empty."""
    names = [name.strip(" \t") for name in text.split(",")] if text else []
    for name in names:
        if re.fullmatch(_TOKEN + "+", name) is None:
            raise argparse.ArgumentTypeError(f"{name!r} is not a field's name")
    return tuple(name.lower().encode("ascii") for name in names)


def file_name(text: str) -> str:
    if not text or "/" in text or "\0" in text or text in (".", ".."):
        raise argparse.ArgumentTypeError(f"{text!r} is not the name of a file")
    return text


def max_age(text: str) -> tuple[str, int]:
    """`GLOB=SECONDS`, or seconds alone, which stand behind an empty glob."""
    glob, equals, digits = text.rpartition("=")
    if re.fullmatch(r"[0-9]{1,9}", digits) is None or bool(glob) != bool(equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form SECONDS or GLOB=SECONDS")
    return glob, int(digits)


def origin(text: str) -> str:
    if text != "*" and re.fullmatch(r"[a-z][a-z0-9+.-]*://[a-z0-9._\[\]:-]+", text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not an origin such as https://example.com, nor *")
    return text


def cache_rule(text: str) -> OperatorRule:
    from cache.policy import OperatorRule  # here, because most runs have no such rule, or no cache

    try:
        return OperatorRule.parse(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def proxy_url(text: str) -> Any:
    """Its origin and the fields that it alone is told; no origin where the text is empty."""
    from handlers.fetch import proxy_of  # here, because most roles do without

    try:
        return proxy_of(text if "://" in text else "http://" + text) if text else (None, b"")
    except ConfigError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a proxy's URL of the form http://host:port") from None


def load(text: str, flag: str, kind: type | None = None) -> Any:
    """`package.module:attribute`; raises ConfigError."""
    if DOTTED_NAME.fullmatch(text) is None:
        raise ConfigError(f"{flag} {text}: not of the form package.module:Name")
    module, _, attribute = text.partition(":")
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found = importlib.import_module(module)
        for name in attribute.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{flag} {text}: {error}") from None
    except RAISED as error:  # the user's own program
        raise ConfigError(f"{flag} {text}: {raised(error)}") from None
    if kind is not None and not isinstance(found, kind):
        raise ConfigError(f"{flag} {text}: not an instance of {kind.__name__}")
    return found


def raised(error: BaseException) -> str:
    """What a user's program raised, in one line, with the line of that program."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    told = f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError) or place.filename.startswith(os.path.dirname(__file__)):
        return told  # which says where, or it was our own call that failed
    return f"{told} ({os.path.basename(place.filename)}, line {place.lineno})"
