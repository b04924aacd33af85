#!/usr/bin/env python3
"""Our client at work: requests over kept connections until the time is up; prints what one cost, as JSON.

bench_client.py --origin PORT [--connections N] [--seconds S]
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from handlers.client import Client, Transfer  # noqa: E402
from reactor.client import Pool  # noqa: E402
from reactor.connector import Connector  # noqa: E402
from reactor.errors import FetchFailed  # noqa: E402
from reactor.loop import Reactor  # noqa: E402
from reactor.resolver import Resolver  # noqa: E402
from reactor.roles.process import COLLECTOR  # noqa: E402


class Load:
    """Asks again as soon as it is answered."""

    def __init__(self, client: Client, url: str) -> None:
        self.client = client
        self.url = url
        self.answered = 0

    def ask(self) -> None:
        self.client.request("GET", self.url, self.responded, self.refused)

    def responded(self, transfer: Transfer) -> None:
        if len(transfer.body) != 1024:  # type: ignore[arg-type]
            raise SystemExit(f"{transfer.response!r} with {transfer.body!r}")
        self.answered += 1
        self.ask()

    def refused(self, transfer: Transfer, error: FetchFailed) -> None:
        raise SystemExit(str(error))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--origin", type=int, required=True)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    reactor = Reactor()
    resolver = Resolver(reactor)
    load = Load(Client(Pool(reactor, Connector(reactor, resolver))), f"http://127.0.0.1:{options.origin}/1k")
    gc.set_threshold(*COLLECTOR)  # as the client role has it
    for _ in range(options.connections):
        load.ask()
    warm = time.monotonic() + options.seconds / 4
    while time.monotonic() < warm:
        reactor.turn()
    before, cpu, start = load.answered, time.process_time(), time.monotonic()
    while reactor.now < start + options.seconds:
        reactor.turn()
    cpu, seconds = time.process_time() - cpu, time.monotonic() - start
    print(json.dumps({"requests": load.answered - before, "cpu": cpu, "seconds": seconds}))


if __name__ == "__main__":
    main()
