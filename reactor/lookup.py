"""The program behind `reactor.resolver`: host names come in on its standard input, a socket, addresses go back on it.

One line in, one line out: `host` is answered by `ok family address scope family address scope …` or by `no reason`.
It ends when the socket does. It runs by its path, outside the package, and so imports nothing of it.
"""

from __future__ import annotations

import socket

ANSWERS = 64  # addresses in one answer; the rest is left out


def answer(host: bytes) -> bytes:
    """The line that answers `host`, without its line end."""
    try:
        # As bytes the name goes to the system as it is, without Python's own IDNA encoding.
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        reason = error.strerror or "unknown error"
        return b"no " + reason.encode("ascii", "replace").replace(b"\n", b" ")
    words = ["ok"]
    for family, _, _, _, address in found[:ANSWERS]:
        if family in (socket.AF_INET, socket.AF_INET6):
            words += [str(int(family)), str(address[0]), str(address[3] if len(address) == 4 else 0)]
    return " ".join(words).encode("ascii") if len(words) > 1 else b"no address of a kind we can use"


def main() -> None:
    """Answer until the other end of standard input is closed."""
    with socket.socket(fileno=0) as sock, sock.makefile("rb") as lines:
        for line in lines:
            sock.sendall(answer(line.rstrip(b"\n")) + b"\n")


if __name__ == "__main__":
    main()
