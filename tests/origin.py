"""A proxy on the loop, and an origin that the test plays itself, byte by byte.

proxy = Proxy(house)
client = proxy.connect()
client.send(proxy.get("/x"))
asked = proxy.asked()                 # the next request that reached the origin
asked.peer.send(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nhi")
assert client.answer().body == b"hi"
"""

from __future__ import annotations

import contextlib
import gc
import select
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from cache.entry import Entry
from cache.policy import DEFAULT_POLICY, Policy
from cache.stores.memory import Content, MemoryStore, Writer
from handlers.caching import Caching
from handlers.forwarded import Trust, TrustedTarget, network
from handlers.proxy import Forwarding
from handlers.rewrite import media_types
from handlers.tunnel import ANY_PORT, Tunnel
from handlers.upstreams import Upstream
from reactor.client import ClientLimits, Pool
from reactor.connector import Connector, Permit
from reactor.exchange import Exchange, Handler
from reactor.http.dates import format_date
from reactor.loop import Reactor
from reactor.resolver import Resolver
from reactor.server import ServerLimits
from tests.loopback import LIMITS, Handling, House, Peer

CLIENT_LIMITS = ClientLimits()
ONCE = (b"host", b"content-length", b"transfer-encoding")


class Asked:
    """A request as it reached the origin, and the connection to answer it on."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.head = peer.take_until(b"\r\n\r\n")
        start, *lines = self.head[:-4].split(b"\r\n")
        self.method, self.target, version = start.split(b" ")
        assert version == b"HTTP/1.1"
        self.lines = lines
        self.fields: dict[bytes, bytes] = {}
        for line in lines:
            name, colon, value = line.partition(b": ")
            name = name.lower()
            assert colon and not (name in ONCE and name in self.fields)
            self.fields[name] = value

    def body(self) -> bytes:
        """The rest of the request, read by its framing."""
        if b"transfer-encoding" not in self.fields:
            return self.peer.take(int(self.fields.get(b"content-length", b"0")))
        assert self.fields[b"transfer-encoding"] == b"chunked" and b"content-length" not in self.fields
        pieces = []
        while size := int(self.peer.take_until(b"\r\n"), 16):
            pieces.append(self.peer.take(size))
            self.peer.expect(b"\r\n")
        self.trailers = b""
        while (line := self.peer.take_until(b"\r\n")) != b"\r\n":
            self.trailers += line
        return b"".join(pieces)

    def answer(self, body: bytes = b"", *lines: str, status: str = "200 OK") -> None:
        """A whole response of known length."""
        self.peer.send(self._head(status, *lines, f"Content-Length: {len(body)}") + body)

    def begin(self, *lines: str, status: str = "200 OK", first: bytes = b"") -> None:
        """A head, and perhaps some of the body."""
        self.peer.send(self._head(status, *lines) + first)

    def _head(self, status: str, *lines: str) -> bytes:
        date = format_date(self.peer.house.wall.now).decode()
        return "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status}", f"Date: {date}", *lines, "")).encode("latin-1")


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Proxy:
    """A proxy for one origin, which the test plays: forward, or reverse where that is asked for.

    `store` puts a cache before it; `ended` are the exchanges that are over, in the order of their ends.
    """

    def __init__(
        self,
        house: House,
        reverse: bool = False,
        store: Any = None,
        policy: Policy = DEFAULT_POLICY,
        limits: ClientLimits = CLIENT_LIMITS,
        server_limits: ServerLimits = LIMITS,
        prefix: str = "",
        preserve_host: bool = False,
        at: str = "",
        trust: str = "",
        rewrite: str = "",
        tls: Any = None,
        permit: Permit | None = None,
    ) -> None:
        self.house = house
        self.reverse = reverse
        self.origin = house.listen()
        resolver = Resolver(house.reactor)
        connector = Connector(house.reactor, resolver, permit=permit)
        self.pool = Pool(house.reactor, connector, limits, tls)
        self.scheme = "http" if tls is None else "https"
        house.cleanups += [resolver.close, self.pool.close]
        self.authority = f"127.0.0.1:{self.origin.port}"
        upstreams = [Upstream.parse(f"{self.scheme}://{self.authority}{prefix}", at.encode())] if reverse else []
        trusted = Trust([network(trust)] if trust else [])
        types = media_types(rewrite) if rewrite else frozenset()
        self.forwarding = Forwarding(self.pool, upstreams, preserve_host, tunnel_idle=60.0, trust=trusted, rewrite=types)
        handler: Handler = self.forwarding
        if store is not None:
            handler = self.caching = Caching(house.reactor, handler, store, policy, pseudonym=self.forwarding.pseudonym)
            house.cleanups.append(store.close)
        if trust:
            handler = TrustedTarget(handler, trusted)
        if not reverse:
            handler = Tunnel(connector, handler, idle=60.0, ports=ANY_PORT)
        self.handling = Handling(handler.handle)
        self.served = house.serve(self.handling, server_limits)
        self._open: list[Peer] = []  # the origin's connections

    @property
    def ended(self) -> list[Exchange]:
        return self.handling.ended

    def connect(self, small_buffers: bool = False) -> Peer:
        return self.served.connect(small_buffers)

    def url(self, path: str = "/") -> str:
        """With TLS the origin is played by a TlsPeer on what `accept` gives."""
        return path if self.reverse else f"{self.scheme}://{self.authority}{path}"

    def request(self, method: str, path: str, *lines: str, version: str = "1.1") -> bytes:
        text = "".join(
            f"{line}\r\n" for line in (f"{method} {self.url(path)} HTTP/{version}", f"Host: {self.authority}", *lines, "")
        )
        return text.encode("latin-1")

    def get(self, path: str = "/", *lines: str, version: str = "1.1") -> bytes:
        return self.request("GET", path, *lines, version=version)

    def ask(self, path: str = "/", *lines: str) -> Peer:
        """A client of its own, which has asked."""
        client = self.connect()
        client.send(self.get(path, *lines))
        self.house.turns(8)  # for a store that answers later
        return client

    def asked(self) -> Asked:
        """The next request that reaches the origin, on whatever connection."""
        found: list[Peer] = []

        def look() -> bool:
            found.extend(self.heard())
            return bool(found)

        self.house.until(look, "a request at the origin")
        return Asked(found[0])

    def heard(self) -> list[Peer]:
        """The connections to the origin on which a request waits to be read."""
        while select.select([self.origin.sock], [], [], 0)[0]:
            self._open.append(self.origin.accept())
        self._open = [peer for peer in self._open if peer.sock.fileno() >= 0]
        for peer in self._open:
            peer.read()
        return [peer for peer in self._open if b"\r\n\r\n" in peer.received]

    def not_asked(self) -> None:
        """The origin hears nothing."""
        self.house.turns()
        known = len(self._open)
        heard = self.heard()
        assert not heard, f"the origin heard {bytes(heard[0].received[:1000])!r}"
        assert len(self._open) <= known, "another connection to the origin"

    def accept(self) -> Peer:
        """The next connection to the origin."""
        self._open.append(self.origin.accept())
        return self._open[-1]


class LaterStore:
    """A store that always answers later, as one on a disk or behind a network does."""

    def __init__(self, reactor: Reactor, store: MemoryStore) -> None:
        self.reactor = reactor
        self.store = store
        self.cancelled = 0

    def get(self, key: bytes) -> Later:
        return Later(self, key)

    def begin(self, key: bytes, entry: Entry, length: int | None) -> Writer | None:
        return self.store.begin(key, entry, length)

    def update(self, old: Entry, new: Entry) -> None:
        self.store.update(old, new)

    def join(self, lower: Entry, upper: Entry, joined: Entry) -> bool:
        return self.store.join(lower, upper, joined)

    def remove(self, entry: Entry) -> None:
        self.store.remove(entry)

    def purge(self, selector: Callable[[bytes, Entry], bool]) -> int:
        return self.store.purge(selector)

    def close(self) -> None:
        self.store.close()

    def __len__(self) -> int:
        return len(self.store)


class Later:
    """The answer to come, some turns of the loop from now."""

    def __init__(self, store: LaterStore, key: bytes, turns: int = 3) -> None:
        self.store = store
        self.key = key
        self.turns = turns
        self.on_ready: Callable[[Sequence[Entry]], object] | None = None
        self.cancelled = False
        store.reactor.call_soon(self._tick)

    def _tick(self) -> None:
        self.turns -= 1
        if self.turns:
            self.store.reactor.call_soon(self._tick)
        elif not self.cancelled:
            assert self.on_ready is not None, "nobody waits for what the store says"
            self.on_ready(self.store.store.get(self.key))

    def cancel(self) -> None:
        self.cancelled = True
        self.store.cancelled += 1


def contents(store: Any) -> list[Content]:
    """The bodies of what is stored."""
    return [entry.body for entries in getattr(store, "store", store)._entries.values() for entry in entries]


@contextlib.contextmanager
def no_cycles() -> Iterator[None]:
    """What is made within is freed without the collector, once nobody refers to it any more."""
    gc.collect()
    gc.disable()
    gc.freeze()  # for good, as tests/conftest.py does it
    try:
        yield
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        ours = [one for one in gc.garbage if type(one).__module__.startswith(("reactor.", "handlers.", "cache."))]
        assert not ours, f"only the collector could free {ours[:20]!r}"
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
