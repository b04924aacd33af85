"""Access control: what is asked, by whom, under which rules, and what comes back."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers import access, matching
from handlers.access import AccessControl, RuleSet
from handlers.access_rules import Hosts, Rule, parse_rules_file
from handlers.matching import plain_path
from reactor.exchange import Exchange, Head
from tests.handlers.asking import Answer, Clock, parse


class Through:
    """The handler behind the rules: whoever gets here was let through."""

    def handle(self, exchange: Exchange) -> None:
        exchange.respond(Head(204))


def rules_of(text: str) -> list[Rule]:
    return parse_rules_file(text)


def ask(
    rules: str | list[Rule],
    target: str,
    method: str = "GET",
    peer: str = "192.0.2.7",
    user: str | None = None,
    host: str = "example.com",
) -> Answer:
    found = rules_of(rules) if isinstance(rules, str) else rules
    return answered(AccessControl(Through(), found), target, method, peer, user, host)


def answered(
    control: AccessControl,
    target: str,
    method: str = "GET",
    peer: str = "192.0.2.7",
    user: str | None = None,
    host: str = "example.com",
) -> Answer:
    request, _ = parse(f"{method} {target}\nHost: {host}")
    exchange = Answer(Clock(), request, b"")
    exchange.peer, exchange.user = peer, user
    control.handle(exchange)
    return exchange


def passes(*args: object, **more: object) -> bool:
    exchange = ask(*args, **more)  # type: ignore[arg-type]
    assert exchange.status in (204, 403)
    return exchange.status == 204


# The answer.


def test_a_refused_request_gets_a_page_that_names_the_rule() -> None:
    exchange = ask("allow client=127.0.0.0/8\ndeny host=*.example.com", "http://ads.example.com/x")
    assert exchange.status == 403
    assert exchange.verdict == "denied"
    assert exchange.content == b"403 Forbidden: refused by the access rule: deny host=*.example.com\n"
    assert exchange.field("Content-Type") == "text/plain; charset=utf-8"
    assert exchange.field("Cache-Control") == "no-store"


def test_what_no_rule_decides_is_told_so() -> None:
    exchange = ask("allow host=example.org", "http://example.com/")
    assert exchange.content == b"403 Forbidden: no access rule allows this request\n"


def test_a_page_may_name_any_rule() -> None:
    exchange = ask("deny path=/<b>ä*", "/%3cb%3e%C3%A4")
    assert exchange.content.decode() == "403 Forbidden: refused by the access rule: deny path=/<b>ä*\n"


def test_a_tunnel_is_refused_like_anything_else() -> None:
    exchange = ask("deny host=example.com port=443", "example.com:443", method="CONNECT")
    assert exchange.status == 403
    assert b"deny host=example.com port=443" in exchange.content


def test_what_is_allowed_goes_on_untouched() -> None:
    exchange = ask("allow host=example.com", "http://example.com/")
    assert exchange.status == 204
    assert exchange.verdict is None


# Which rule decides.


def test_the_first_rule_that_holds_decides() -> None:
    rules = "allow host=www.example.com\ndeny host=.example.com\nallow all"
    assert passes(rules, "http://www.example.com/")
    assert not passes(rules, "http://example.com/")
    assert not passes(rules, "http://a.b.example.com/")
    assert passes(rules, "http://example.org/")


def test_all_conditions_of_a_rule_must_hold() -> None:
    rule = "allow host=example.com port=8000-8100 method=GET,HEAD client=192.0.2.0/24"
    assert passes(rule, "http://example.com:8042/")
    assert not passes(rule, "http://example.com/")
    assert not passes(rule, "http://example.com:8042/", method="POST")
    assert not passes(rule, "http://example.com:8042/", peer="192.0.3.1")
    assert not passes(rule, "http://example.org:8042/")


def test_what_no_rule_decides_is_the_opposite_of_the_last_one() -> None:
    assert passes("", "http://example.com/")
    assert passes("deny host=example.org", "http://example.com/")
    assert not passes("allow host=example.org", "http://example.com/")
    assert not passes("deny host=example.org\nallow client=10.0.0.0/8", "http://example.com/")
    assert passes("allow client=10.0.0.0/8\ndeny host=example.org", "http://example.com/")


def test_rules_can_be_replaced() -> None:
    control = AccessControl(Through(), rules_of("deny all"))
    assert answered(control, "http://example.com/").status == 403
    control.replace([])
    assert answered(control, "http://example.com/").status == 204
    control.replace(rules_of("allow host=example.org"))
    assert answered(control, "http://example.com/").status == 403


# Hosts.

HOSTS = [
    # pattern, hosts it holds for, hosts it does not hold for
    ("example.com", ["example.com", "EXAMPLE.Com", "example.com."], ["www.example.com", "example.com.org", "xexample.com"]),
    ("*.example.com", ["www.example.com", "a.b.example.com", "www.example.com."], ["example.com", "wwwexample.com"]),
    (".example.com", ["example.com", "www.example.com", "a.b.example.com."], ["anexample.com", "com"]),
    ("Example.COM.", ["example.com"], ["example.org"]),
    ("*", ["example.com", "127.0.0.1", "[::1]"], []),
    ("*.*", ["example.com"], ["localhost"]),
    ("ads*.example.*", ["ads.example.com", "ads2.example.net"], ["www.ads.example.com", "ads.sample.com"]),
    ("ad?.example.com", ["ads.example.com"], ["ad.example.com", "adss.example.com"]),
    ("*track*", ["track.example", "www.backtracker.example"], ["trac.example"]),
    ("*a*b*c", ["abc", "xaxbxc", "aabbcc"], ["acb", "abcd"]),
    ("example.com,example.org", ["example.com", "example.org"], ["example.net"]),
    ("bücher.example", ["xn--bcher-kva.example"], ["bucher.example"]),
    ("*.bücher.example", ["www.xn--bcher-kva.example"], ["xn--bcher-kva.example"]),
    (
        "127.0.0.1",
        ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "0177.0.0.1", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "0", "0.0.0.0",
         "[::ffff:0:0]"],
        ["127.0.0.2"],
    ),
    ("127.*", ["127.0.0.5", "0.0.0.0", "0x0"], ["1.0.0.0"]),
    ("[::1]", ["[::1]", "[0:0:0:0:0:0:0:1]", "[0::0001]", "[::]"], ["[::2]", "localhost"]),
    ("2001:db8::1", ["[2001:DB8::1]", "[2001:db8:0:0::1]"], ["[2001:db8::11]"]),
    ("[2001:db8:*]", ["[2001:db8::5]", "[2001:0db8:1:2:3:4:5:6]"], ["[2001:db9::5]"]),
    ("_service.example", ["_service.example"], []),
]


@pytest.mark.parametrize(("pattern", "inside", "outside"), HOSTS, ids=[row[0] for row in HOSTS])
def test_host_patterns(pattern: str, inside: list[str], outside: list[str]) -> None:
    rule = f"deny host={pattern}"
    for host in inside:
        assert not passes(rule, f"http://{host}/"), host
        assert not passes(rule, f"{host}:443", method="CONNECT"), host
    for host in outside:
        assert passes(rule, f"http://{host}/"), host


def test_the_host_is_that_of_the_target_and_not_of_the_host_field() -> None:
    assert not passes("deny host=bad.example", "http://bad.example/", host="good.example")
    assert passes("deny host=bad.example", "http://good.example/", host="bad.example")


def test_in_origin_form_the_host_is_that_of_the_field() -> None:
    assert not passes("deny host=bad.example", "/", host="BAD.example:8080")


def test_a_request_without_a_host_has_none() -> None:
    request, _ = parse("GET /")
    request.authority = b""
    for rule, status in (("deny host=*", 403), ("deny host=example.com", 204), ("deny host=*.com", 204), ("deny all", 403)):
        exchange = Answer(Clock(), request, b"")
        AccessControl(Through(), rules_of(rule)).handle(exchange)
        assert exchange.status == status, rule


def test_a_name_longer_than_any_rule_is_still_below_its_parents() -> None:
    host = "a." * 2000 + "example.com"
    assert not passes("deny host=*.example.com", f"http://{host}/")
    assert passes("deny host=*.example.org", f"http://{host}/")


def test_a_hostile_host_does_not_make_a_glob_search_forever() -> None:
    rules = "deny host=" + "*a" * 30 + "b"
    assert passes(rules, "http://" + "a" * 4000 + "/")


# Ports, methods, schemes, users, clients.


def test_the_port_is_the_schemes_own_where_none_is_given() -> None:
    assert passes("allow port=80", "http://example.com/")
    assert passes("allow port=80", "/")
    assert passes("allow port=443", "https://example.com/")
    assert not passes("allow port=443", "https://example.com:8443/")
    assert passes("allow port=80,443,8000-8100", "example.com:8100", method="CONNECT")
    assert not passes("allow port=80,443,8000-8100", "example.com:8101", method="CONNECT")


def test_methods_are_compared_exactly() -> None:
    assert passes("allow method=GET,HEAD", "/")
    assert not passes("allow method=GET,HEAD", "/", method="get")
    assert passes("allow method=CONNECT", "example.com:443", method="CONNECT")
    assert passes("allow method=PURGE", "/", method="PURGE")


def test_the_scheme_is_the_targets_or_the_connections() -> None:
    assert passes("allow scheme=http", "/")
    assert passes("allow scheme=HTTPS", "https://example.com/")
    assert not passes("allow scheme=https", "http://example.com/")


def test_a_tunnel_has_neither_scheme_nor_path() -> None:
    assert not passes("allow scheme=http,https", "example.com:443", method="CONNECT")
    assert not passes("allow path=*", "example.com:443", method="CONNECT")


def test_users() -> None:
    assert passes("allow user=alice,bob", "/", user="bob")
    assert not passes("allow user=alice,bob", "/", user="Bob")
    assert not passes("allow user=alice,bob", "/")
    assert passes("allow user=*", "/", user="carol")
    assert not passes("allow user=*", "/")


CLIENTS = [
    ("192.0.2.0/24", ["192.0.2.0", "192.0.2.255", "::ffff:192.0.2.9"], ["192.0.3.0", "::c000:209", "2001:db8::1"]),
    ("192.0.2.0/255.255.255.0", ["192.0.2.200"], ["192.0.3.0"]),
    ("192.0.2.7", ["192.0.2.7", "::ffff:c000:207"], ["192.0.2.8"]),
    ("::ffff:192.0.2.0/120", ["192.0.2.1", "::ffff:192.0.2.1"], ["192.0.3.1"]),
    ("::1,127.0.0.0/8", ["::1", "127.9.9.9"], ["::2", "128.0.0.1"]),
    ("[2001:db8::]/32", ["2001:db8:ffff::1"], ["2001:db9::"]),
    ("fe80::/10", ["fe80::1%eth0"], ["fec0::1"]),
    ("0.0.0.0/0", ["1.2.3.4", "::ffff:1.2.3.4"], ["::1", "", "somewhere"]),
    ("::/0", ["::1"], ["1.2.3.4"]),
]


@pytest.mark.parametrize(("networks", "inside", "outside"), CLIENTS, ids=[row[0] for row in CLIENTS])
def test_clients(networks: str, inside: list[str], outside: list[str]) -> None:
    for peer in inside:
        assert passes(f"allow client={networks}", "/", peer=peer), peer
    for peer in outside:
        assert not passes(f"allow client={networks}", "/", peer=peer), peer


# Paths.

PATHS = [
    ("/admin", ["/admin", "/admin?x=1", "/%61dmin", "/./admin", "//admin", "/x/../admin"], ["/admin/", "/Admin", "/adminx"]),
    (
        "/admin/*",
        ["/admin/", "/admin/x/y", "/public/../admin/x", "/public/%2e%2e/admin/x", "/public/..%2fadmin/x"],
        ["/admin", "/public/admin/x"],
    ),
    ("*.exe", ["/a/b.exe", "/b.exe?x", "/b%2eexe"], ["/a.exe/b", "/x?b.exe"]),
    ("/a?c", ["/abc", "/a%3fc"], ["/a?c", "/ac"]),
    (r"/\.(exe|msi)$/", ["/a.exe", "/b/c.msi?x"], ["/a.exe.txt"]),
    ("/^.a+$/", ["/aaa"], ["/aab", "/b"]),
    ("/ä*", ["/%C3%A4pfel"], ["/apfel"]),
    ("/", ["/", "//", "/.", "/x/.."], ["/x"]),
]


@pytest.mark.parametrize(("pattern", "inside", "outside"), PATHS, ids=[row[0] for row in PATHS])
def test_paths(pattern: str, inside: list[str], outside: list[str]) -> None:
    for path in inside:
        assert not passes(f"deny path={pattern}", path), path
        assert not passes(f"deny path={pattern}", f"http://example.com{path}"), path
    for path in outside:
        assert passes(f"deny path={pattern}", path), path


def test_a_path_that_climbs_out_is_not_inside() -> None:
    for path in ("/public/../secret", "/public/%2e%2e/secret", "/public/..%2fsecret", "/public/./../secret"):
        assert not passes("allow path=/public/*", path), path


# Paths that some origins read otherwise: one takes a backslash for a slash, another leaves out parameters.
READ_OTHERWISE = [
    # path, what it may be
    ("/public/..;/admin", "/admin"), ("/public/..;x=1/admin", "/admin"), ("/;/admin", "/admin"), ("/admin;x=1", "/admin"),
    ("/public%2f..%3b/admin", "/admin"), ("/public\\..\\admin", "/admin"), ("/public/..%5cadmin", "/admin"),
    ("/.;/admin", "/admin"), ("/a/b/..;/..;/admin?;", "/admin"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "other"), READ_OTHERWISE)
def test_a_path_that_may_be_read_otherwise_passes_neither_way(path: str, other: str) -> None:
    plain = plain_path(path.encode()).decode()
    for pattern in (plain, other):
        assert not passes(f"deny path={pattern}", path), pattern
        assert not passes(f"allow path={pattern}", path), pattern
    assert passes("allow path=/*", path)


def test_a_semicolon_in_a_path_may_be_meant() -> None:
    assert passes("allow path=/a*", "/a;v=1/b")
    assert not passes("deny path=/a;v=1/b", "/a;v=1/b")
    assert passes("deny path=/b", "/a?;/../b")
    assert passes("deny path=/b", "/a;b")


def test_the_path_of_options_for_the_server_is_an_asterisk() -> None:
    assert passes("allow path=/x\nallow path=*", "*", method="OPTIONS")
    assert not passes("allow path=/*", "*", method="OPTIONS")


# Regular expressions that a path could make run for ever.

HOSTILE = [
    # expression, a path on which it takes longer than anybody can wait
    ("/^/(a+)+$/", "/" + "a" * 200 + "!"),
    ("/^/(a|a)*$/", "/" + "a" * 200 + "!"),
    ("/^/(a|ab|b)*$/", "/" + "ab" * 200 + "!"),
    ("/.*.*.*.*.*.*!/", "/" + "a" * 2000),
]


@pytest.fixture
def alarms() -> Iterator[None]:
    """The timer's signal is as it was."""
    before = signal.getsignal(signal.SIGVTALRM)
    yield
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0), "the timer still runs"
    signal.signal(signal.SIGVTALRM, before)


@pytest.mark.parametrize(("expression", "path"), HOSTILE, ids=[row[0] for row in HOSTILE])
def test_an_expression_that_takes_too_long_is_interrupted_and_denies(
    alarms: None, caplog: pytest.LogCaptureFixture, expression: str, path: str
) -> None:
    control = AccessControl(Through(), rules_of(f"deny path={expression}"))
    for _ in range(2):
        refused = answered(control, path)
        assert refused.content.decode() == f"403 Forbidden: refused by the access rule: deny path={expression}\n"
    assert answered(control, "/short").status == 204
    assert not passes(f"allow path={expression}", path)
    said = [record.message for record in caplog.records]
    assert len(said) == 2, "once a rule"
    assert said[0].startswith(f"the access rule deny path={expression} takes longer than 0.02 s")


def test_a_path_too_long_for_an_expression_is_denied(alarms: None) -> None:
    longest = "/" + "a" * (matching.REGEX_BYTES - 1)
    for path, status in ((longest, 204), (longest + "a", 403)):
        assert ask("deny path=/x/", path).status == status
    for path, status in ((longest, 204), (longest + "a", 403)):
        assert ask("allow path=/a/", path).status == status


def test_an_alarm_that_comes_late_is_for_nobody(alarms: None) -> None:
    assert passes("deny path=/x/", "/a")
    os.kill(os.getpid(), signal.SIGVTALRM)
    assert passes("deny path=/x/", "/a")


@given(st.binary(max_size=60).filter(lambda path: b"?" not in path))
def test_a_plain_path_is_plain(path: bytes) -> None:
    plain = plain_path(b"/" + path)
    assert plain.startswith(b"/")
    segments = plain.split(b"/")[1:]
    assert b"." not in segments and b".." not in segments and b"" not in segments[:-1]


# Rules of thousands.


def test_first_match_order_is_kept_between_indexed_and_other_rules() -> None:
    rules = "\n".join(
        ["deny host=*7.example", *(f"allow host=h{i}.example" for i in range(3000)), "deny client=192.0.2.7", "allow all"]
    )
    assert not passes(rules, "http://h7.example/")
    assert passes(rules, "http://h8.example/")
    assert not passes(rules, "http://other.example/")
    assert passes(rules, "http://other.example/", peer="192.0.2.8")


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The rules whose conditions were looked at: by host, where that is a glob, and by the others."""
    rules: list[str] = []
    holds, match_glob = access._holds, Hosts.match_glob

    def counted(rule: Rule, *facts: Any) -> bool:
        rules.append(str(rule))
        return holds(rule, *facts)

    def counted_glob(hosts: Hosts, host: bytes) -> bool:
        rules.append(",".join(hosts.glob_texts))
        return match_glob(hosts, host)

    monkeypatch.setattr(access, "_holds", counted)
    monkeypatch.setattr(Hosts, "match_glob", counted_glob)
    return rules


def test_a_question_looks_at_the_rules_of_its_host_alone(looked_at: list[str]) -> None:
    rules = parse_rules_file("\n".join(f"deny host=.h{i}.example" for i in range(5000)))
    control = AccessControl(Through(), rules)
    assert answered(control, "http://www.h4711.example/").status == 403
    assert answered(control, "http://www.example/").status == 204
    assert answered(control, "http://www.h4711.example/other").status == 403
    assert looked_at == ["deny host=.h4711.example"]


def test_in_mixed_orders_it_looks_at_no_rule_behind_the_one_that_decides(looked_at: list[str]) -> None:
    many = [f"deny host=h{i}.example" for i in range(2500)]
    others = [f"allow client=10.{i >> 8}.{i & 255}.0/24 port=8080" for i in range(2500)]
    mixed = [rule for pair in zip(many, others, strict=True) for rule in pair]
    rules = ["deny host=ad*.example", "deny method=TRACE", *mixed, "allow client=192.0.2.0/24", "deny host=*.late", *others]
    control = AccessControl(Through(), parse_rules_file("\n".join(rules)))
    first = ["ad*.example", "deny method=TRACE"]
    for target, peer, status, behind in (
        ("http://ads.example/", "192.0.2.7", 403, None),
        ("http://h2000.example/", "192.0.2.7", 403, ["deny host=h2000.example"]),
        ("http://h2000.example/", "10.1.2.3", 403, ["allow client=10.1.2.0/24 port=8080", "deny host=h2000.example"]),
        ("http://other.example/", "192.0.2.7", 204, ["allow client=192.0.2.0/24"]),
        ("http://other.example/", "192.0.3.7", 403, []),
        ("http://other.example:8080/", "10.0.1.3", 204, ["allow client=10.0.1.0/24 port=8080"]),
    ):
        looked_at.clear()
        assert answered(control, target, peer=peer).status == status
        assert looked_at == (["ad*.example", "deny host=ad*.example"] if behind is None else first + behind), target
        looked_at.clear()
        assert answered(control, target, peer=peer).status == status
        assert looked_at == [], "it was asked before"


def test_a_rule_with_names_and_globs_is_looked_at_once(looked_at: list[str]) -> None:
    rules = "deny host=a.example,a*.example,.a.example method=POST\nallow all"
    assert passes(rules, "http://a.example/")
    assert looked_at == ["deny host=a.example,a*.example,.a.example method=POST", "allow all"]


def test_the_memos_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "MEMO_DECISIONS", 8)
    monkeypatch.setattr(access, "MEMO_ADDRESSES", 8)
    control = AccessControl(Through(), rules_of("deny host=h3 client=10.0.0.0/8"))
    for number in range(50):
        assert answered(control, f"http://h{number}/", peer=f"10.0.0.{number}").status == (403 if number == 3 else 204)
        assert len(control.rules) <= 8
        assert len(control.rules._clients) <= 8


LABELS = st.sampled_from(["a", "b", "com"])
NAMES = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
PATTERNS = st.one_of(
    NAMES, NAMES.map("*.{}".format), NAMES.map(".{}".format), NAMES.map("a*.{}".format), NAMES.map("{}.*".format)
)
CONDITIONS = st.tuples(
    st.one_of(
        st.just(""),
        PATTERNS.map(" host={}".format),
        st.lists(PATTERNS, min_size=2, max_size=3).map(lambda some: " host=" + ",".join(some)),
    ),
    st.sampled_from(["", " port=80", " port=443,8000-8010"]),
    st.sampled_from(["", " method=GET", " method=POST,CONNECT"]),
    st.sampled_from(["", " client=10.0.0.0/8", " client=::1"]),
    st.sampled_from(["", " path=/x*", " path=/y/"]),
).map("".join)
RULES = st.lists(st.tuples(st.sampled_from(["allow", "deny"]), CONDITIONS), max_size=12)


def plainly(rule: Rule, host: str, port: int, method: str, peer: str, path: str) -> bool:
    """The same, said without an index."""
    conditions = dict(word.split("=", 1) for word in str(rule).split(" ")[1:] if "=" in word)

    def named(pattern: str) -> bool:
        if pattern.startswith("*."):
            return host.endswith(pattern[1:])
        if pattern.startswith("."):
            return ("." + host).endswith(pattern)
        if "*" not in pattern:
            return host == pattern
        before, after = pattern.split("*")
        return len(host) >= len(before) + len(after) and host.startswith(before) and host.endswith(after)

    return (
        ("host" not in conditions or any(map(named, conditions["host"].split(","))))
        and ("port" not in conditions or (port == 80 if conditions["port"] == "80" else port == 443 or 8000 <= port <= 8010))
        and ("method" not in conditions or method in conditions["method"].split(","))
        and ("client" not in conditions or (peer == "10.1.2.3") == (conditions["client"] == "10.0.0.0/8"))
        and ("path" not in conditions or (path.startswith("/x") if conditions["path"] == "/x*" else "y" in path))
    )


@given(
    RULES,
    st.lists(
        st.tuples(
            NAMES,
            st.sampled_from([80, 443, 8005]),
            st.sampled_from(["GET", "POST"]),
            st.sampled_from(["10.1.2.3", "::1"]),
            st.sampled_from(["/x1", "/y", "/z"]),
        ),
        min_size=1,
        max_size=8,
    ),
)
def test_the_index_answers_as_a_scan_would(
    texts: list[tuple[str, str]], questions: list[tuple[str, int, str, str, str]]
) -> None:
    rules = [rules_of(f"{kind} {conditions.strip() or 'all'}")[0] for kind, conditions in texts]
    ruleset = RuleSet(rules)
    for host, port, method, peer, path in questions * 2:
        request, _ = parse(f"{method} http://{host}:{port}{path}")
        exchange = Answer(Clock(), request, b"")
        exchange.peer = peer
        expected = next((rule for rule in rules if plainly(rule, host, port, method, peer, path)), None)
        assert ruleset.first(exchange) is expected
