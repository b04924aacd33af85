"""Whom a group trusts that speaks TLS to origins."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from reactor.errors import ConfigError

if TYPE_CHECKING:
    from reactor.tls import ClientTls


def trust_flags(to: Any, ca_file: str, *insecure: str) -> None:
    text = "authorities, PEM: an https:// origin must have its certificate from one of them (the system's)"
    to.add_argument(ca_file, dest="ca_file", metavar="FILE", help=text)
    to.add_argument(*insecure, dest="insecure", action="store_true", help="verify NO certificate: anybody may be the origin")


def client_tls(flags: argparse.Namespace, needed: bool = False, exits_as_curl: bool = False) -> ClientTls | None:
    """Made where it is `needed` from the start, or where a flag is wrong: ConfigError. None leaves it until the first use."""
    if flags.ca_file is None and not flags.insecure and not needed:
        return None
    from reactor.tls import ClientTls  # here, because most runs do without, and it costs time and memory

    try:
        return ClientTls(flags.ca_file, flags.insecure)
    except ConfigError as error:
        raise ConfigError(f"the file of authorities {error}", error.code if exits_as_curl else 2) from None
