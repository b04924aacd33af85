"""What the resolver's helpers run, in processes of their own (`reactor/helper_process.py`): getaddrinfo may block for long.

A line `host` is answered by `ok family address scope family address scope …` or by `no reason`.
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
