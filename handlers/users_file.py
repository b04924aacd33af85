"""The file of users: names, and salted scrypt hashes of their passwords.

One user a line, as `scripts/user-entry` writes them; `#` begins a comment line:

    name:$scrypt$ln=14,r=8,p=5$salt$digest          (base64 without padding; 2**ln, r and p are scrypt's own)
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import unicodedata
from typing import NamedTuple

from handlers.passwords import MEMORY
from reactor.errors import ConfigError

CREDENTIALS_BYTES = 1024  # in a field's value; longer ones are nobody's
NAME_LENGTH = 64  # characters
COST_LIMIT = 2**24  # n * r * p, some seconds; scrypt's memory is 128 * n * r bytes, at most MEMORY

LOG2_N, R, P = 14, 8, 5  # what new entries cost: 16 MiB and about a quarter of a second

# White space and commas separate the names in a rule, `*` there is anybody, and a colon ends the name (RFC 7617 section 2).
_NAME = re.compile(r"[^\x00-\x20\x7f-\xa0,:*#][^\x00-\x20\x7f-\xa0,:*]{0,%d}" % (NAME_LENGTH - 1))
_HASH = re.compile(r"\$scrypt\$ln=([0-9]{1,2}),r=([0-9]{1,3}),p=([0-9]{1,3})\$([A-Za-z0-9+/]{11,86})\$([A-Za-z0-9+/]{22,86})")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Entry(NamedTuple):
    """One user's hash, and what it was made with."""

    n: int
    r: int
    p: int
    salt: bytes
    digest: bytes


def parse_users_file(text: str) -> dict[str, Entry]:
    """Name → hash. Raises ConfigError, which names line and column, and never what stands behind the colon."""
    users: dict[str, Entry] = {}
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        line = line.removesuffix("\r")
        if not line.strip(" \t") or line.startswith("#"):
            continue
        name, colon, hashed = line.partition(":")
        if _NAME.fullmatch(name) is None or not colon:
            raise ConfigError(f"line {number}, column 1: not of the form name:hash; scripts/user-entry makes entries")
        if unicodedata.normalize("NFC", name) in users:
            raise ConfigError(f"line {number}, column 1: {name!r} is there twice")
        try:
            users[unicodedata.normalize("NFC", name)] = _parse_hash(hashed)
        except ValueError as error:
            raise ConfigError(f"line {number}, column {len(name) + 2}: {error}") from None
    return users


def _parse_hash(text: str) -> Entry:
    match = _HASH.fullmatch(text)
    if match is None:
        raise ValueError("not a hash of the form $scrypt$ln=14,r=8,p=5$salt$digest; scripts/user-entry makes entries")
    log2_n, r, p = int(match[1]), int(match[2]), int(match[3])
    if not 1 <= log2_n <= 24 or not r or not p or 128 * r * ((1 << log2_n) + p + 2) > MEMORY or (r * p << log2_n) > COST_LIMIT:
        raise ValueError("this hash would cost nothing, or too much")
    try:
        return Entry(1 << log2_n, r, p, *(base64.b64decode(part + "=" * (-len(part) % 4)) for part in match.group(4, 5)))
    except binascii.Error:
        raise ValueError("salt or digest is no base64") from None


def make_entry(name: str, password: str, log2_n: int = LOG2_N) -> str:
    """A line for the file. Raises ConfigError where the name, or the password, can never be sent."""
    if _NAME.fullmatch(name) is None:
        raise ConfigError(f"{name!r} is no user's name: {NAME_LENGTH} characters, none of them a space, a colon, a comma or *")
    if not password or CONTROL.search(password):
        raise ConfigError("a password is not empty and has no control characters (RFC 7617 section 2)")
    if len(normal(f"{name}:{password}")) > CREDENTIALS_BYTES // 2:
        raise ConfigError("the password is too long")
    salt = os.urandom(16)
    digest = hashlib.scrypt(normal(password), salt=salt, n=1 << log2_n, r=R, p=P, maxmem=MEMORY, dklen=32)
    parts = (base64.b64encode(part).rstrip(b"=").decode("ascii") for part in (salt, digest))
    return f"{unicodedata.normalize('NFC', name)}:$scrypt$ln={log2_n},r={R},p={P}${'$'.join(parts)}"


def normal(text: str) -> bytes:
    """RFC 7617 section 2.1 by way of RFC 8265: one spelling for what looks the same."""
    return unicodedata.normalize("NFC", text).encode("utf-8")
