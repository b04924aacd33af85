"""The operator's rules: how they are written, and what they match."""

from __future__ import annotations

import pytest

from cache.policy import DEFAULT_POLICY, OperatorRule, Policy
from reactor.errors import ConfigError


def test_a_rule_is_read_and_written_back() -> None:
    rule = OperatorRule.parse("host=*.example.com path=/api/* ttl=60 stale=300 ignore=no-store,private")
    assert (rule.host, rule.path, rule.ttl, rule.stale) == ("*.example.com", "/api/*", 60, 300)
    assert rule.ignore == {"no-store", "private"}
    assert str(rule) == "host=*.example.com path=/api/* ttl=60 stale=300 ignore=no-store,private"
    assert OperatorRule.parse(str(rule)) == rule
    assert str(OperatorRule.parse("ttl=0")) == "host=* path=* ttl=0"


@pytest.mark.parametrize(
    "text, told",
    [
        ("", "changes nothing"),
        ("host=a path=b", "changes nothing"),
        ("ttl", "'ttl' is not one of"),
        ("ttl=", "'ttl=' is not one of"),
        ("tll=5", "'tll=5' is not one of"),
        ("ttl=5 ttl=6", "'ttl=6' is not one of"),
        ("ttl=-5", "ttl=-5 is not a number of seconds"),
        ("ttl=1.5", "ttl=1.5 is not a number"),
        ("ttl=+5", "ttl=+5 is not a number"),
        ("ttl=\u0665", "is not a number"),
        ("ttl=5 stale=x", "stale=x is not a number"),
        ("ttl=9999999999", "is not a number of seconds"),
        ("ttl=5 ignore=nostore", "cannot ignore nostore; only no-cache, no-store, private, reload, set-cookie"),
        ("ttl=5 ignore=no-store,", "cannot ignore"),
    ],
)
def test_a_rule_that_is_not_understood_is_refused_in_one_line(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        OperatorRule.parse(text)
    assert told in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "rule, authority, path, matched",
    [
        ("ttl=1", b"example.com", b"/", True),
        ("host=example.com ttl=1", b"example.com:8080", b"/", True),
        ("host=EXAMPLE.com ttl=1", b"Example.COM", b"/", True),
        ("host=example.com ttl=1", b"www.example.com", b"/", False),
        ("host=*.example.com ttl=1", b"www.example.com", b"/", True),
        ("host=*.example.com ttl=1", b"example.com.evil", b"/", False),
        ("path=/api/* ttl=1", b"a", b"/api/x/y?q", True),
        ("path=/api/* ttl=1", b"a", b"/API/x", False),
        ("path=/api ttl=1", b"a", b"/api?q", False),
        ("path=*.png ttl=1", b"a", b"/x/y.png", True),
        ("path=*.png ttl=1", b"a", b"/x/y.png?q", False),
        # What an origin may take for another path.
        ("path=/pool/* ttl=1", b"a", b"/pool/../account", False),
        ("path=/pool/* ttl=1", b"a", b"/pool/..%2faccount", False),
        ("path=/pool/* ttl=1", b"a", b"/pool/%2e%2E/account", False),
        ("path=/pool/* ttl=1", b"a", b"/pool/..;x/account", False),
        ("path=/pool/* ttl=1", b"a", b"/pool/a%2f.%2e%3Bx", False),
        ("path=/pool/* ttl=1", b"a", b"/pool/a\\..\\..\\account", False),
        ("path=/pool/* ttl=1", b"a", b"/pool/a/..", False),
        ("path=/pool/* ttl=1", b"a", b"/pool/a..b/...", True),
        ("path=/pool/* ttl=1", b"a", b"/pool/.hidden/a.?b=/../c", True),
    ],
)
def test_globs(rule: str, authority: bytes, path: bytes, matched: bool) -> None:
    parsed = OperatorRule.parse(rule)
    assert parsed.matches(authority, path) is matched
    assert Policy(rules=(parsed,)).rule_for(authority, path) == (parsed if matched else None)


def test_without_rules_there_is_none() -> None:
    assert DEFAULT_POLICY.rule_for(b"example.com", b"/") is None
