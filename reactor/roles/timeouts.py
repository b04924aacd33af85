"""The flags for how long a proxy waits for upstreams and tunnels; for how long it waits for clients, see limits.py."""

from __future__ import annotations

import argparse
from typing import Any

from reactor.client import ClientLimits
from reactor.relay import IDLE
from reactor.roles.values import duration

DEFAULTS = ClientLimits()

_FLAGS = {
    "connect": (DEFAULTS.connect, "look-up, connection and TLS handshake of an upstream; then 504"),
    "first-byte": (DEFAULTS.first_byte, "from a request's last byte to its answer's head; then 504"),
    "between-bytes": (DEFAULTS.between_bytes, "without a byte of an answer's body that is waited for; then cut off"),
    "upstream-idle": (DEFAULTS.idle, "a connection to an upstream unused; then closed"),
    "tunnel-idle": (IDLE, "a tunnel or an upgraded connection without a byte either way; then closed"),
}


def timeout_flags(to: Any) -> None:
    for name, (default, text) in _FLAGS.items():
        to.add_argument(f"--{name}-timeout", type=duration, default=default, metavar="SECONDS", help=f"{text} ({default:g})")


def upstream_limits(flags: argparse.Namespace) -> ClientLimits:
    return ClientLimits(
        connect=flags.connect_timeout, first_byte=flags.first_byte_timeout, between_bytes=flags.between_bytes_timeout,
        idle=flags.upstream_idle_timeout,
    )  # fmt: skip
