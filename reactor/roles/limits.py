"""The flags for what clients may do: how many, how often, how slowly, how much."""

from __future__ import annotations

import argparse
import math
import resource
from typing import Any

from reactor.roles.values import count, duration, size
from reactor.server import ServerLimits

DEFAULTS = ServerLimits()


def limit_flags(to: Any) -> None:
    add = to.add_argument
    connections = default_connections()
    add("--max-connections", type=count, default=connections, metavar="N",
        help=f"open at a time; the newest beyond it is answered 503 ({connections})")  # fmt: skip
    add("--max-requests", type=count, default=DEFAULTS.requests, metavar="N", help="on one connection; 0: any number (0)")
    add("--max-body", type=size, default=0, metavar="SIZE", help="of a request: 413 beyond it; 0: any size (0)")
    add("--idle-timeout", type=duration, default=DEFAULTS.idle, metavar="SECONDS",
        help=f"for which a connection is kept between requests ({DEFAULTS.idle:g})")  # fmt: skip
    add("--head-timeout", type=duration, default=DEFAULTS.head, metavar="SECONDS",
        help=f"from the first byte of a request's head to its last: 408 ({DEFAULTS.head:g})")  # fmt: skip
    add("--body-timeout", type=duration, default=DEFAULTS.body, metavar="SECONDS",
        help=f"waited for a request's body, less what --min-rate allows for what came: 408 ({DEFAULTS.body:g})")  # fmt: skip
    add("--send-timeout", type=duration, default=DEFAULTS.stalled, metavar="SECONDS",
        help=f"over which --min-rate is measured while an answer waits for its client: reset ({DEFAULTS.stalled:g})")  # fmt: skip
    add("--min-rate", type=size, default=int(DEFAULTS.rate), metavar="SIZE",
        help=f"bytes a second that a client sends and takes at the least; 0: one byte in a timeout ({DEFAULTS.rate:g})")  # fmt: skip


def default_connections() -> int:
    """Half of the descriptors there can be, at the most: files and connections to upstreams need some too."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return DEFAULTS.connections if hard == resource.RLIM_INFINITY else min(DEFAULTS.connections, hard // 2)


def limits_of(flags: argparse.Namespace) -> ServerLimits:
    return ServerLimits(
        connections=flags.max_connections, requests=flags.max_requests, max_body=flags.max_body or math.inf,
        idle=flags.idle_timeout, head=flags.head_timeout, body=flags.body_timeout, stalled=flags.send_timeout,
        rate=flags.min_rate,
    )  # fmt: skip
