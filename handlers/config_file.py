"""Files of the operator's own: read whole, as text, with one line for the person where that cannot be."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import TypeVar

from reactor.errors import ConfigError

FILE_BYTES = 16 * 1024 * 1024  # of one file; a longer one is refused

Read = TypeVar("Read")


def read_config(flag: str, path: str, parse: Callable[[str], Read]) -> Read:
    """What `parse` makes of the file's text (UTF-8); raises ConfigError, which names flag and file before the reason."""
    try:
        with open(path, "rb", opener=_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigError("not a regular file")
            data = file.read(FILE_BYTES + 1)
        if len(data) > FILE_BYTES:
            raise ConfigError(f"longer than {FILE_BYTES >> 20} MiB")
        return parse(data.decode("utf-8"))
    except OSError as error:
        raise ConfigError(f"{flag} {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        raise ConfigError(f"{flag} {path}: line {line}, column {column}: not UTF-8") from None
    except ConfigError as error:
        raise ConfigError(f"{flag} {path}: {error}") from None


def _at_once(path: str, flags: int) -> int:
    """A FIFO could be read but once, and opening one that nobody writes to would hang the loop."""
    return os.open(path, flags | os.O_NONBLOCK)
