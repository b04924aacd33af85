"""The access rules' language: what is read from which text, and what is said of a bad one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.access import RuleSet
from handlers.access_rules import parse_rule, parse_rules_file
from reactor.errors import ConfigError

BAD_RULES = [
    ("", 1, "no condition"),
    ("   ", 4, "no condition"),
    ("hst=example.com", 1, "'hst=example.com' is no condition (known: client=, host="),
    ("host", 1, "'host' is no condition"),
    ("all host=a", 1, "'all' is no condition"),
    ("host=a host=b", 8, "host= is given twice; commas separate alternatives"),
    ("port=80 host=a b", 16, "'b' is no condition"),
    ("host=", 6, "an empty value"),
    ("host=a,,b", 8, "an empty value"),
    ("host=a,b,", 10, "an empty value"),
    ("host=exa[mp]le", 6, "globs have * and ? alone"),
    ("host=example.com:80", 6, "a port is its own condition"),
    ("host=a,[::g]", 8, "is no"),
    ("host=[example]", 6, "is no IPv6 address"),
    ("host=a..b", 6, "is no host name"),
    ("host=.", 6, "is no host name"),
    ("host=" + "a." * 130 + "com", 6, "is no host name"),
    ("host=a\x00b", 6, "is no host name"),
    ("client=10.0.0.1/8", 8, "host bits set"),
    ("client=localhost", 8, "not an address or a network"),
    ("client=10.0.0.0/8,10.0.0.0/33", 19, "not an address or a network"),
    ("client=+10.0.0.0/8", 8, "not an address"),
    ("port=http", 6, "is no port"),
    ("port=80,65536", 9, "ports go from 0 to 65535"),
    ("port=90-80", 6, "ranges upward"),
    ("port=+80", 6, "is no port"),
    ("port=8_0", 6, "is no port"),
    ("port=٨٠", 6, "is no port"),
    ("method=GET,get", 12, "methods are case-sensitive: GET"),
    ("method=G(T", 8, "is no method"),
    ("method=GÉT", 8, "is no method"),
    ("scheme=ftp", 8, "schemes are http and https"),
    ("path=admin", 6, "a path begins with / or *"),
    ("path=/(/", 6, "regular expression: "),
    ("path=/a{99999999999999999999}/", 6, "regular expression: "),
    ("user=", 6, "an empty value"),
    ("path=/a\udc80", 8, "not UTF-8"),
]


@pytest.mark.parametrize(("text", "column", "reason"), BAD_RULES, ids=[row[0] for row in BAD_RULES])
def test_a_bad_rule_is_refused_with_its_place(text: str, column: int, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_rule("deny", text)
    message = str(caught.value)
    assert message.startswith(f"deny {text!r}, column {column}: ")
    assert reason in message
    assert "\n" not in message


def test_a_rule_is_shown_as_it_was_written() -> None:
    assert str(parse_rule("deny", "  host=*.Example.com \t port=80 ")) == "deny host=*.Example.com \t port=80"
    assert str(parse_rule("allow", "all")) == "allow all"


def test_a_file_of_rules() -> None:
    rules = parse_rules_file(
        "\ufeff# who may pass\r\n"
        "\r\n"
        "allow client=10.0.0.0/8   # the house\r\n"
        "\tdeny host=.ads.example\n"
        "deny path=/a#b/ #c\n"
        "deny all"
    )
    assert list(map(str, rules)) == ["allow client=10.0.0.0/8", "deny host=.ads.example", "deny path=/a#b/", "deny all"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("allow all\n\ndeny  hst=x", "line 3, column 7: 'hst=x' is no condition"),
        ("# x\n  permit all", "line 2, column 3: a rule begins with allow or deny"),
        ("deny", "line 1, column 5: no condition"),
        ("deny # all", "line 1, column 6: no condition"),
        ("deny host=a,b..c", "line 1, column 13: 'b..c' is no host name"),
    ],
)
def test_an_error_in_a_file_names_line_and_column(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_rules_file(text)
    assert str(caught.value).startswith(message)


@given(st.text(alphabet=st.sampled_from("adhosteyplu=.,*?/[]:#\\ ()10\t\n\x00é"), max_size=60))
def test_any_text_gives_rules_or_a_configuration_error(text: str) -> None:
    for kind in ("allow ", "deny host=", "allow client=", "deny path=", "allow port=", ""):
        try:
            RuleSet(parse_rules_file(kind + text))
        except ConfigError as error:
            assert str(error).startswith("line ")


WORDS = {
    "client": st.sampled_from(["10.0.0.0/8", "::1", "[2001:db8::]/32", "192.0.2.7"]),
    "host": st.sampled_from(["a.b", "*.a.b", ".a.com", "a*.b", "b.*"]),
    "port": st.one_of(st.integers(0, 65535).map(str), st.sampled_from(["80-90", "0-65535"])),
    "method": st.sampled_from(["GET", "POST", "PURGE", "CONNECT"]),
    "scheme": st.sampled_from(["http", "https"]),
    "user": st.text("abcäß-.@", min_size=1, max_size=5),
}
VALID = st.dictionaries(st.sampled_from(sorted(WORDS)), st.none(), max_size=4).flatmap(
    lambda names: st.tuples(*(st.lists(WORDS[name], min_size=1, max_size=3).map(",".join) for name in names)).map(
        lambda values: [f"{name}={value}" for name, value in zip(names, values, strict=True)]
    )
)
GAPS = st.text(" \t", min_size=1, max_size=3)


@given(st.sampled_from(["allow", "deny"]), VALID, st.sampled_from(["", " path=/a*", " path=/a{2}b/"]), GAPS, st.data())
def test_a_rule_written_out_is_the_same_rule_read_again(kind: Any, words: list[str], path: str, gap: str, data: Any) -> None:
    text = gap.join(words) + path or "all"
    rule = parse_rule(kind, text)
    (again,) = parse_rules_file(f"# before\r\n{gap}{rule}{gap}# behind\n\n")
    shuffled = parse_rule(kind, " ".join(data.draw(st.permutations(text.split()))))
    for other in (again, shuffled):
        for slot in ("allow", "clients", "hosts", "ports", "methods", "schemes", "users"):
            assert getattr(other, slot) == getattr(rule, slot)
        assert (other.path is None) is (rule.path is None)
    assert str(again) == str(rule)


@given(st.sampled_from(["allow", "deny"]), st.text(max_size=40))
def test_any_flag_gives_a_rule_or_a_configuration_error_of_one_line(kind: Any, text: str) -> None:
    try:
        RuleSet([parse_rule(kind, text)])
    except ConfigError as error:
        assert "\n" not in str(error) and ", column " in str(error)
