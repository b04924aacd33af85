"""The proxy as scripts/soak runs it: `reactor.run`'s own process, which tells on SIGUSR2 what it holds.

    soak_proxy.py [--leak] ARGUMENTS OF reactor.run…

Each signal writes one JSON object to standard output: what is watched, what waits, what is open, and which of the
objects that live as long as an exchange are still there. Kept connections to origins are given up before that, so that what
remains is what nobody wants any more. With --leak each signal leaves timers behind, far more than those of connections that
linger: a soak that does not fail is broken.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

from cache.fill import Fill
from handlers.shared_fetch import SharedFetch
from reactor.client import Call
from reactor.client_connection import ClientConnection
from reactor.errors import ConfigError
from reactor.exchange import Exchange
from reactor.relay import Relay
from reactor.roles.process import Process
from reactor.roles.proxy import ProxyGroup
from reactor.run import configure
from reactor.server_connection import ServerConnection
from reactor.stream import Stream

MORTAL = (Exchange, SharedFetch, Fill, Call, Relay, Stream, ServerConnection, ClientConnection)
LEAK_SECONDS = 3600.0
LEAK_TIMERS = 100  # for each time it is asked


def holdings(process: Process) -> dict[str, int]:
    """What the process holds, by name."""
    gc.collect()
    groups = [group for group in process.groups if isinstance(group, ProxyGroup)]
    found = {kind.__name__: 0 for kind in MORTAL}
    for one in gc.get_objects():
        for kind in MORTAL:
            if isinstance(one, kind):
                found[kind.__name__] += 1
    return {
        "watched": process.reactor.watched,
        "timers": process.reactor.pending_timers,
        "connections": sum(len(group.server.connections) for group in groups if group.server is not None),
        "descriptors": sum(not is_memory(entry.path) for entry in os.scandir("/proc/self/fd")),
        **found,
    }


def is_memory(path: str) -> bool:
    """A stored body's: the cache may keep it."""
    try:
        return os.readlink(path).startswith("/memfd:")
    except OSError:
        return True  # the scan's own, closed meanwhile


def tell(process: Process, leak: bool) -> None:
    for group in process.groups:
        if isinstance(group, ProxyGroup) and group.pool is not None:
            while group.pool._give_up_idle():
                pass
    for _ in range(LEAK_TIMERS if leak else 0):
        process.reactor.call_later(LEAK_SECONDS, print)
    process.reactor.call_soon(lambda: print(json.dumps(holdings(process)), flush=True))


def main() -> int:
    arguments = sys.argv[1:]
    leak = "--leak" in arguments
    try:
        process = configure([word for word in arguments if word != "--leak"])
        assert isinstance(process, Process)
        process.reactor.on_signal(signal.SIGUSR2, lambda: tell(process, leak))
        return process.run()
    except ConfigError as error:
        print(f"soak_proxy: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
