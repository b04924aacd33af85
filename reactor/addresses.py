"""Numeric addresses: which are the world's, and which lead into somebody's own network or to nobody.

An IPv4-mapped IPv6 address (RFC 4291 section 2.5.5.2) is taken for the IPv4 address that it stands for.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

MEMO_ADDRESSES = 1024  # answers remembered; the least used goes

# IPv6 addresses that stand for an IPv4 address, and how many bits follow it.
_STANDS_FOR_IPV4 = (
    (IPv6Network("::/96"), 0),  # RFC 4291 section 2.5.5.1
    (IPv6Network("::ffff:0:0/96"), 0),  # RFC 4291 section 2.5.5.2
    (IPv6Network("::ffff:0:0:0/96"), 0),  # RFC 2765 section 2.1
    (IPv6Network("64:ff9b::/96"), 0),  # RFC 6052 section 2.1: NAT64
    (IPv6Network("2002::/16"), 80),  # RFC 3056 section 2: 6to4
)
_ALLOCATED = IPv6Network("2000::/3")  # RFC 4291 section 2.4 leaves the rest of unicast to special uses


@lru_cache(MEMO_ADDRESSES)
def is_public(text: str) -> bool:
    """Whether a numeric address is reached over the public Internet and belongs to one host.

    Not so: loopback, private, shared (RFC 6598), link-local, multicast, unspecified, documentation and all other special
    purposes (RFC 6890); and IPv6 addresses that stand for such an IPv4 address. What is no address is not public.
    """
    try:
        address = ip_address(text)
    except ValueError:
        return False
    if isinstance(address, IPv6Address):
        for network, behind in _STANDS_FOR_IPV4:
            if address in network:
                address = IPv4Address(int(address) >> behind & 0xFFFFFFFF)
                break
        else:
            return address.is_global and address in _ALLOCATED
    return address.is_global and not address.is_multicast and not address.is_reserved


def numeric(text: str) -> IPv4Address | IPv6Address:
    """The address that a text is; raises ValueError."""
    address = ip_address(text)
    return (address.ipv4_mapped if isinstance(address, IPv6Address) else None) or address


def network_of(text: str) -> IPv4Network | IPv6Network:
    """`address` or `address/bits`, an IPv6 address in brackets or not; raises ValueError."""
    found = ip_network(text.removeprefix("[").replace("]", "", 1))
    mapped = found.network_address.ipv4_mapped if isinstance(found, IPv6Network) else None
    return found if mapped is None or found.prefixlen < 96 else IPv4Network((mapped, found.prefixlen - 96))


def is_loopback(host: str) -> bool:
    """Whether listening on `host` (a name, or an address with or without brackets) is for this machine alone."""
    name = host.lower().removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):  # RFC 6761 section 6.3
        return True
    try:
        return numeric(name.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False
