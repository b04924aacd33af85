"""The waits of a group that forwards: one flag each."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields
from typing import Any

from reactor.client import ClientLimits
from reactor.roles.values import seconds
from reactor.server import ServerLimits

LONGEST = 1e6  # seconds, eleven days: more than that is no deadline, and more than a selector takes


_UPSTREAM, _CLIENT = ClientLimits(), ServerLimits()


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds; 502 and 504 name the one that expired."""

    connect: float = _UPSTREAM.connect
    first_byte: float = _UPSTREAM.first_byte
    between_bytes: float = _UPSTREAM.between_bytes
    upstream_idle: float = _UPSTREAM.idle
    head: float = _CLIENT.head
    idle: float = _CLIENT.idle
    tunnel_idle: float = 300.0

    @classmethod
    def of(cls, flags: argparse.Namespace) -> Timeouts:
        """As the command line has them."""
        return cls(**{field.name: getattr(flags, f"{field.name}_timeout") for field in fields(cls)})

    def client_limits(self) -> ClientLimits:
        """For a Pool."""
        return ClientLimits(
            connect=self.connect, first_byte=self.first_byte, between_bytes=self.between_bytes, idle=self.upstream_idle
        )

    def server_limits(self) -> ServerLimits:
        """For a Server."""
        return ServerLimits(head=self.head, idle=self.idle)


_HELP = {
    "connect": "look-up, connection and TLS handshake of an upstream: 504",
    "first_byte": "from a request's last byte to its answer's head: 504",
    "between_bytes": "without a byte of an answer's body that is waited for: cut off",
    "upstream_idle": "that a connection to an upstream is kept unused",
    "head": "from the first to the last byte of a request's head: 408",
    "idle": "that a client's connection is kept between requests",
    "tunnel_idle": "that a tunnel or an upgraded connection stands without a byte either way",
}


def timeout_flags(to: Any) -> None:
    default = Timeouts()
    for name, text in _HELP.items():
        value = getattr(default, name)
        to.add_argument(
            f"--{name.replace('_', '-')}-timeout", type=_timeout, default=value, metavar="SECONDS", help=f"{text} ({value:g})"
        )


def _timeout(text: str) -> float:
    value = seconds(text)
    if not 0 < value <= LONGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is not more than 0 and at most {LONGEST:g} seconds")
    return value
