"""What a helper process runs: lines come in on its standard input, a socket, and the answers go back on it.

    python -I -S helper_process.py PROGRAM          `answer(line)` of that file says what goes back, without line ends

It ends when the socket does. Both files run by their paths, outside the package, and so import nothing of it.
"""

from __future__ import annotations

import runpy
import socket
import sys


def main(program: str) -> None:
    """Answer until the other end of standard input is closed."""
    answer = runpy.run_path(program)["answer"]
    with socket.socket(fileno=0) as sock, sock.makefile("rb") as lines:
        for line in lines:
            sock.sendall(answer(line.rstrip(b"\n")) + b"\n")


if __name__ == "__main__":
    main(sys.argv[1])
