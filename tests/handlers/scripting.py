"""Scripts to ask through: a caching proxy or a plain handler behind a file of hooks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cache.stores.memory import MemoryStore
from handlers.script import Script
from handlers.script_file import ScriptFile
from reactor.server import ServerLimits
from tests.loopback import Answer, Handling, House, Peer, Served, says
from tests.origin import Proxy

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
FRESH = "Cache-Control: max-age=60"
SEEN = "\nasync def response(exchange):\n    exchange.response.replace((await exchange.response.text()).upper())"

Make = Callable[..., Script]


def scripts_in(folder: Path) -> Make:
    """What makes a script of a text, around a handler."""

    def make(text: str, handler: Any) -> Script:
        path = folder / "filter.py"
        path.write_text(text)
        return Script(handler, ScriptFile(str(path)))

    return make


class ScriptedProxy(Proxy):
    """A caching proxy for one origin, behind a script."""

    def __init__(self, house: House, make: Make, text: str, store: Any = None, **more: Any) -> None:
        super().__init__(house, store=MemoryStore(64 << 20) if store is None else store, **more)
        self.script = make(text, self.handling)
        self.outer = Handling(self.script.handle)
        self.served = house.serve(self.outer)


def served(
    house: House, make: Make, text: str, answer: Any = None, limits: ServerLimits = ServerLimits()
) -> tuple[Served, Handling]:
    handling = Handling(answer or says(b"from the handler"))
    return house.serve(make(text, handling), limits), handling


def get(peer: Peer, path: str = "/", *lines: str, host: str = "a") -> Answer:
    peer.send("".join(f"{line}\r\n" for line in (f"GET {path} HTTP/1.1", f"Host: {host}", *lines, "")).encode("latin-1"))
    return peer.answer()


def post(peer: Peer, body: bytes, *lines: str) -> Answer:
    head = "".join(f"{line}\r\n" for line in ("POST / HTTP/1.1", "Host: a", f"Content-Length: {len(body)}", *lines, ""))
    peer.send(head.encode("latin-1") + body)
    return peer.answer()
