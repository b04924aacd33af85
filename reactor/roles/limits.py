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
        help=f"connections at a time; beyond them an idle one is closed, or the newest answered 503 ({connections})")  # fmt: skip
    add("--max-requests", type=count, default=DEFAULTS.requests, metavar="N",
        help="requests on one connection; 0 is any number (0)")  # fmt: skip
    add("--max-body", type=size, default=0, metavar="SIZE", help="of a request's body, 413 beyond it; 0 is any size (0)")
    add("--idle-timeout", type=duration, default=DEFAULTS.idle, metavar="SECONDS",
        help=f"a connection unused between requests; then closed ({DEFAULTS.idle:g})")  # fmt: skip
    add("--head-timeout", type=duration, default=DEFAULTS.head, metavar="SECONDS",
        help=f"a request's head, from its first byte to its last; then 408 ({DEFAULTS.head:g})")  # fmt: skip
    add("--body-timeout", type=duration, default=DEFAULTS.body, metavar="SECONDS",
        help=f"waiting for a request's body, beyond what --min-rate allows for the bytes that came; then 408 "
        f"({DEFAULTS.body:g})")  # fmt: skip
    add("--send-timeout", type=duration, default=DEFAULTS.stalled, metavar="SECONDS",
        help=f"the span over which an answer must go out at --min-rate; else reset ({DEFAULTS.stalled:g})")  # fmt: skip
    add("--min-rate", type=size, default=int(DEFAULTS.rate), metavar="SIZE",
        help=f"bytes a second that a client must send and take; 0 is one byte in a timeout ({DEFAULTS.rate:g})")  # fmt: skip


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
