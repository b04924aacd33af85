"""The program that checks passwords, in a process of its own: scrypt takes long by design, and the loop must not.

One line in, one line out: `n r p salt digest password`, the last three in base64, is answered by `yes` or `no`. It ends
when its standard input, a socket, does. It runs by its path, outside the package, and so imports nothing of it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import socket

MEMORY = 64 * 1024 * 1024  # bytes that scrypt may take; a check that needs more is answered by the end of this process


def matches(n: int, r: int, p: int, salt: bytes, digest: bytes, password: bytes) -> bool:
    """Whether `digest` is the password's, compared in constant time."""
    made = hashlib.scrypt(password, salt=salt, n=n, r=r, p=p, maxmem=MEMORY, dklen=len(digest))
    return hmac.compare_digest(made, digest)


def answer(line: bytes) -> bytes:
    """The line that answers `line`, without its line end."""
    *numbers, salt, digest, password = line.split(b" ")
    n, r, p = map(int, numbers)
    return b"yes" if matches(n, r, p, *map(base64.b64decode, (salt, digest, password))) else b"no"


def main() -> None:
    """Answer until the other end of standard input is closed."""
    with socket.socket(fileno=0) as sock, sock.makefile("rb") as lines:
        for line in lines:
            sock.sendall(answer(line.rstrip(b"\n")) + b"\n")


if __name__ == "__main__":
    main()
