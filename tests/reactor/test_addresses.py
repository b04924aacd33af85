"""Which addresses are the world's."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactor.addresses import is_loopback, is_public

PUBLIC = ["1.1.1.1", "8.8.8.8", "93.184.216.34", "172.15.0.1", "172.32.0.1", "100.63.255.255", "100.128.0.1", "192.169.0.1"]
PUBLIC6 = ["2606:4700::1111", "2a00::1", "64:ff9b::808:808", "::ffff:8.8.8.8", "2002:808:808::1"]
NOT_PUBLIC = [
    "127.0.0.1", "127.255.255.255", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",
    "169.254.169.254", "100.64.0.1", "100.127.255.255", "224.0.0.1", "224.0.1.1", "239.255.255.250", "255.255.255.255",
    "240.0.0.1", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1",
]  # fmt: skip
NOT_PUBLIC6 = [
    "::", "::1", "fe80::1", "febf::1", "fc00::1", "fdff::1", "fec0::1", "ff02::1", "ff0e::1", "2001:db8::1", "2001::1",
    "64:ff9b:1::1", "100::1", "4000::1",
]  # fmt: skip
CLOTHES = ["::ffff:{}", "::{}", "64:ff9b::{}", "::ffff:0:{}"]


@pytest.mark.parametrize("address", PUBLIC + PUBLIC6)
def test_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", NOT_PUBLIC + NOT_PUBLIC6)
def test_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("clothes", CLOTHES)
@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_not_in_ipv6s_clothes_either(clothes: str, address: str) -> None:
    assert not is_public(clothes.format(address))
    packed = ipaddress.IPv4Address(address).packed.hex()
    assert not is_public(f"2002:{packed[:4]}:{packed[4:]}::1")


@pytest.mark.parametrize("text", ["", "localhost", "127.1", "1.1.1.1.1", "0177.0.0.1", "1.1.1.1%eth0", "1.1.1.1\n", "fe80::1%1"])
def test_what_is_no_address_is_not_public(text: str) -> None:
    assert not is_public(text)


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_the_same_in_any_clothes(address: ipaddress.IPv4Address) -> None:
    for clothes in CLOTHES:
        assert is_public(clothes.format(address)) == is_public(str(address))


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost", "LOCALHOST.", "x.localhost", "::ffff:127.0.0.1"]
)
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["", "0.0.0.0", "::", "[::]", "192.0.2.1", "example.com", "localhost.example.com", "::ffff:192.0.2.1"]
)
def test_not_loopback(host: str) -> None:
    assert not is_loopback(host)
