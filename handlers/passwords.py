"""What checks passwords, in processes of its own (`reactor/helper_process.py`): scrypt takes long by design.

A line `n r p salt digest password`, the last three in base64, is answered by `yes` or `no`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

MEMORY = 64 * 1024 * 1024  # bytes that scrypt may take; a check that needs more is answered by the end of this process


def answer(line: bytes) -> bytes:
    """The line that answers `line`, without its line end."""
    n, r, p, *texts = line.split(b" ")
    salt, digest, password = map(base64.b64decode, texts)
    made = hashlib.scrypt(password, salt=salt, n=int(n), r=int(r), p=int(p), maxmem=MEMORY, dklen=len(digest))
    return b"yes" if hmac.compare_digest(made, digest) else b"no"
