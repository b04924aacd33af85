"""The access rules' language, and how it is read.

A rule is `allow` or `deny` and conditions separated by spaces; all of them must hold. Commas separate alternatives of
one condition. `all` stands for no condition.

    client=10.0.0.0/8,::1         the client's address is in one of these networks
    host=example.com              the target's host is this one (in any case, with or without a final dot)
    host=*.example.com            … is a name below this one
    host=.example.com             … is this one or a name below it
    host=ads*.example.*           … matches: `*` is any run of characters, `?` any one character
    host=127.0.0.1,[::1]          … is this address, however it is spelled
    port=80,443,8000-8100         the target's port, the scheme's own where none is given
    method=GET,HEAD               the method
    scheme=http,https             the target's scheme; a tunnel (CONNECT) has none
    user=alice,bob                who the client has proved to be; `*` is anybody who has
    path=/download/*              the target's path matches this; a tunnel has none
    path=/\\.(exe|msi)$/           … or this regular expression, which stands between slashes, is found in it

A path is compared without its query, decoded, with dot segments and empty segments resolved: what an origin may take
for `/admin` cannot be spelled past a rule about `/admin`. Some origins take a backslash for a slash, and leave out of each
segment what follows a semicolon: a path that they would read otherwise is compared in both readings, and a deny rule
holds for either, an allow rule for both. (`path=/admin/` is a regular expression; a directory and
what lies in it is `path=/admin/*`.) A regular expression is never tried on more than REGEX_BYTES, nor for longer than
REGEX_SECONDS of processor time, whatever a path makes of it: beyond either, a deny rule holds, and an allow rule does not.
Hosts are compared as what would be connected to: `127.1`, `[::ffff:127.0.0.1]` and `0` are 127.0.0.1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from handlers.matching import Regex, canonical_host, glob, ipv6
from reactor.addresses import network_of
from reactor.errors import ConfigError
from reactor.http.grammar import TOKEN
from reactor.http.uri import DEFAULT_PORTS

NAME_LENGTH = 253  # RFC 1035 section 2.3.4: a host name in a rule is at most this long

_WORD = re.compile(r"[^ \t]+")
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_HOST_GLOB = re.compile(r"[A-Za-z0-9\-._~*?:]+")
_COMMENT = re.compile(r"(?:^|(?<=[ \t]))#.*")
_STANDARD_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"))


class Network(NamedTuple):
    """Addresses of one version whose number & mask is `number`."""

    version: int
    number: int
    mask: int


class Hosts(NamedTuple):
    """The three kinds of host patterns: exact names, names below a name, and globs."""

    names: frozenset[bytes]
    parents: frozenset[bytes]
    globs: tuple[re.Pattern[bytes], ...]
    glob_texts: tuple[str, ...]  # the same, in lower case

    def match_glob(self, host: bytes) -> bool:
        """Whether a glob matches the canonical `host`; names and parents are looked up in an index instead."""
        return any(pattern.search(host) for pattern in self.globs)


@dataclass(slots=True, eq=False)
class Rule:
    """One rule; a condition that is None holds always. `str()` is the rule as it was written."""

    allow: bool
    text: str
    clients: tuple[Network, ...] | None = None
    hosts: Hosts | None = None
    ports: tuple[range, ...] | None = None
    methods: frozenset[bytes] | None = None
    schemes: frozenset[bytes] | None = None
    users: frozenset[str] | None = None
    path: re.Pattern[bytes] | Regex | None = None

    def __str__(self) -> str:
        return self.text


class _BadRule(Exception):
    def __init__(self, reason: str, at: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.at = at  # characters before the place


def parse_rule(kind: str, text: str) -> Rule:
    """The rule, `allow` or `deny`, whose conditions are `text`; raises ConfigError, which names the column."""
    try:
        return _parse(kind, text, 0)
    except _BadRule as error:
        raise ConfigError(f"{kind} {text!r}, column {error.at + 1}: {error.reason}") from None


def parse_rules_file(text: str) -> list[Rule]:
    """One rule a line, `allow …` or `deny …`; a word that starts with `#` begins a comment.

    Raises ConfigError, which names line and column.
    """
    rules = []
    for number, raw in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        line = _COMMENT.sub("", raw.removesuffix("\r"))
        word = _WORD.search(line)
        if word is None:
            continue
        try:
            if word[0] not in ("allow", "deny"):
                raise _BadRule("a rule begins with allow or deny", word.start())
            rules.append(_parse(word[0], line, word.end()))
        except _BadRule as error:
            raise ConfigError(f"line {number}, column {error.at + 1}: {error.reason}") from None
    return rules


def _parse(kind: str, text: str, start: int) -> Rule:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _BadRule("not UTF-8", error.start) from None
    conditions = text[start:].strip(" \t")
    rule = Rule(kind == "allow", f"{kind} {conditions}")
    words = list(_WORD.finditer(text, start))
    if not words:
        raise _BadRule("no condition; `all` is the rule for everything", len(text))
    if len(words) == 1 and words[0][0] == "all":
        return rule
    seen = set()
    for word in words:
        name, equals, value = word[0].partition("=")
        read = _CONDITIONS.get(name)
        if read is None or not equals:
            known = ", ".join(f"{one}=" for one in _CONDITIONS)
            raise _BadRule(f"{word[0]!r} is no condition (known: {known})", word.start())
        if name in seen:
            raise _BadRule(f"{name}= is given twice; commas separate alternatives", word.start())
        seen.add(name)
        read(rule, value, word.start() + len(name) + 1)
    return rule


def _members(value: str, at: int) -> Iterator[tuple[str, int]]:
    """The alternatives of a condition, each with its place."""
    for member in value.split(","):
        if not member:
            raise _BadRule("an empty value", at)
        yield member, at
        at += len(member) + 1


def _read_client(rule: Rule, value: str, start: int) -> None:
    rule.clients = tuple(_network(member, at) for member, at in _members(value, start))


def _network(text: str, at: int) -> Network:
    try:
        network = network_of(text)
    except ValueError as error:
        reason = "host bits set" if "host bits" in str(error) else "not an address or a network (address/bits)"
        raise _BadRule(f"{text!r}: {reason}", at) from None
    return Network(network.version, int(network.network_address), int(network.netmask))


def _read_host(rule: Rule, value: str, start: int) -> None:
    names, parents = set(), set()
    globs: list[str] = []
    for member, at in _members(value, start):
        pattern = _host_pattern(member, at)
        below = pattern.removeprefix("*.")
        if below != pattern and "*" not in below and "?" not in below:
            parents.add(below.encode("ascii"))
        elif "*" in pattern or "?" in pattern:
            globs.append(pattern)
        elif pattern.startswith("."):
            parents.add(pattern[1:].encode("ascii"))
            names.add(pattern[1:].encode("ascii"))
        else:
            names.add(canonical_host(pattern.encode("ascii")))
    rule.hosts = Hosts(frozenset(names), frozenset(parents), tuple(map(glob, globs)), tuple(globs))


def _host_pattern(text: str, at: int) -> str:
    """In lower case, as A-labels (RFC 5890 section 2.3.2.1), without brackets and final dot."""
    bracketed = text.startswith("[") and text.endswith("]")
    pattern = text[1:-1] if bracketed else text
    if not pattern.isascii():
        try:
            pattern = ".".join(
                label if label.isascii() else label.encode("idna").decode("ascii") for label in pattern.split(".")
            )
        except UnicodeError:
            raise _BadRule(f"{text!r} is no host name", at) from None
    if _HOST_GLOB.fullmatch(pattern) is None:
        raise _BadRule(f"{text!r} is no host name; globs have * and ? alone", at)
    if ":" in pattern and not bracketed and ipv6(pattern) is None:
        raise _BadRule(f"{text!r}: a port is its own condition, port=", at)
    if bracketed and ipv6(pattern) is None and "*" not in pattern and "?" not in pattern:
        raise _BadRule(f"{text!r} is no IPv6 address", at)
    pattern = pattern.lower().removesuffix(".")
    if not pattern.strip(".") or ".." in pattern or len(pattern) > NAME_LENGTH:
        raise _BadRule(f"{text!r} is no host name", at)
    return pattern


def _read_port(rule: Rule, value: str, start: int) -> None:
    ports = []
    for member, at in _members(value, start):
        match = _PORTS.fullmatch(member)
        if match is None:
            raise _BadRule(f"{member!r} is no port or range of ports", at)
        first, last = int(match[1]), int(match[2] or match[1])
        if not first <= last <= 65535:
            raise _BadRule(f"{member!r}: ports go from 0 to 65535, ranges upward", at)
        ports.append(range(first, last + 1))
    rule.ports = tuple(ports)


def _read_method(rule: Rule, value: str, start: int) -> None:
    methods = set()
    for member, at in _members(value, start):
        if not member.isascii() or TOKEN.fullmatch(member.encode("ascii")) is None:
            raise _BadRule(f"{member!r} is no method", at)
        if member not in _STANDARD_METHODS and member.upper() in _STANDARD_METHODS:
            # RFC 9110 section 9.1: this rule would wait for a method that nobody uses.
            raise _BadRule(f"methods are case-sensitive: {member.upper()}", at)
        methods.add(member.encode("ascii"))
    rule.methods = frozenset(methods)


def _read_scheme(rule: Rule, value: str, start: int) -> None:
    schemes = set()
    for member, at in _members(value, start):
        scheme = member.lower().encode("utf-8")
        if scheme not in DEFAULT_PORTS:
            raise _BadRule(f"{member!r}: schemes are http and https", at)
        schemes.add(scheme)
    rule.schemes = frozenset(schemes)


def _read_user(rule: Rule, value: str, at: int) -> None:
    rule.users = frozenset(member for member, _ in _members(value, at))


def _read_path(rule: Rule, value: str, at: int) -> None:
    if value.startswith("/") and value.endswith("/") and len(value) > 2:
        try:
            rule.path = Regex(re.compile(value[1:-1].encode("utf-8"), re.DOTALL), rule.text, not rule.allow)
        except (re.error, OverflowError, RecursionError) as error:
            raise _BadRule(f"regular expression: {error}", at) from None
    elif value.startswith(("/", "*")):
        rule.path = glob(value)
    else:
        raise _BadRule("a path begins with / or *, a regular expression stands between slashes", at)


_CONDITIONS: dict[str, Callable[[Rule, str, int], None]] = {
    "client": _read_client,
    "host": _read_host,
    "port": _read_port,
    "method": _read_method,
    "scheme": _read_scheme,
    "user": _read_user,
    "path": _read_path,
}
