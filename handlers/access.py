"""Access control: who may ask for what. Rules in order, the first that holds decides.

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

import heapq
import ipaddress
import logging
import re
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple, Protocol
from urllib.parse import unquote_to_bytes

from reactor.errors import ConfigError
from reactor.exchange import Exchange, Handler, error_page
from reactor.http.grammar import TOKEN
from reactor.http.uri import DEFAULT_PORTS, split_authority

log = logging.getLogger("handlers.access")

Kind = Literal["allow", "deny"]

MEMO_DECISIONS = 4096  # remembered (authority, scheme, method, client, user); at the limit the memo starts anew
MEMO_ADDRESSES = 4096  # remembered client addresses, the same
MEMO_AUTHORITY_LENGTH = 255  # bytes, its scheme's included; a longer authority is looked up each time
REGEX_BYTES = 2048  # of a plain path that a regular expression is tried on
REGEX_SECONDS = 0.02  # of processor time that this may take
NAME_LENGTH = 253  # RFC 1035 section 2.3.4: a host name in a rule is at most this long

_WORD = re.compile(r"[^ \t]+")
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_HOST_GLOB = re.compile(r"[A-Za-z0-9\-._~*?:]+")
_COMMENT = re.compile(r"(?:^|(?<=[ \t]))#.*")
_KINDS: dict[str, Kind] = {"allow": "allow", "deny": "deny"}
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
        return any(glob.search(host) for glob in self.globs)


class PathPattern(Protocol):
    """What a path is searched with."""

    def search(self, path: bytes, /) -> object: ...


class Rule:
    """One rule; a condition that is None holds always. `str()` is the rule as it was written."""

    __slots__ = ("allow", "text", "clients", "hosts", "ports", "methods", "schemes", "users", "path")

    def __init__(self, kind: Kind, text: str) -> None:
        self.allow = kind == "allow"
        self.text = f"{kind} {text}"
        self.clients: tuple[Network, ...] | None = None
        self.hosts: Hosts | None = None
        self.ports: tuple[range, ...] | None = None
        self.methods: frozenset[bytes] | None = None
        self.schemes: frozenset[bytes] | None = None
        self.users: frozenset[str] | None = None
        self.path: PathPattern | None = None

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"<Rule {self.text}>"


# Reading rules.


class _BadRule(Exception):
    def __init__(self, reason: str, at: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.at = at  # characters before the place


def parse_rule(kind: Kind, text: str) -> Rule:
    """The rule that `text` (conditions alone) describes; raises ConfigError, which names the column."""
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
            kind = _KINDS.get(word[0])
            if kind is None:
                raise _BadRule("a rule begins with allow or deny", word.start())
            rules.append(_parse(kind, line, word.end()))
        except _BadRule as error:
            raise ConfigError(f"line {number}, column {error.at + 1}: {error.reason}") from None
    return rules


def default_after(rules: Sequence[Rule]) -> bool:
    """Whether what no rule decides is allowed: the opposite of the last rule, and everything without any rule."""
    return not rules or not rules[-1].allow


def is_loopback(host: str) -> bool:
    """Whether listening on `host` (a name, or an address with or without brackets) is for this machine alone."""
    name = host.lower().removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):  # RFC 6761 section 6.3
        return True
    try:
        address = ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _parse(kind: Kind, text: str, start: int) -> Rule:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _BadRule("not UTF-8", error.start) from None
    rule = Rule(kind, text[start:].strip(" \t"))
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
        network = ipaddress.ip_network(text.removeprefix("[").replace("]", "", 1))
    except ValueError as error:
        reason = "host bits set" if "host bits" in str(error) else "not an address or a network (address/bits)"
        raise _BadRule(f"{text!r}: {reason}", at) from None
    number, mask = int(network.network_address), int(network.netmask)
    if network.version == 6 and number >> 32 == 0xFFFF and network.prefixlen >= 96:
        return Network(4, number & 0xFFFFFFFF, mask & 0xFFFFFFFF)  # RFC 4291 section 2.5.5.2: IPv4-mapped
    return Network(network.version, number, mask)


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
    rule.hosts = Hosts(frozenset(names), frozenset(parents), tuple(map(_glob, globs)), tuple(globs))


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
    if ":" in pattern and not bracketed and not _is_ipv6(pattern):
        raise _BadRule(f"{text!r}: a port is its own condition, port=", at)
    if bracketed and not _is_ipv6(pattern) and "*" not in pattern and "?" not in pattern:
        raise _BadRule(f"{text!r} is no IPv6 address", at)
    pattern = pattern.lower().removesuffix(".")
    if not pattern.strip(".") or ".." in pattern or len(pattern) > NAME_LENGTH:
        raise _BadRule(f"{text!r} is no host name", at)
    return pattern


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


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
            rule.path = _Regex(rule, re.compile(value[1:-1].encode("utf-8"), re.DOTALL))
        except (re.error, OverflowError, RecursionError) as error:
            raise _BadRule(f"regular expression: {error}", at) from None
    elif value.startswith(("/", "*")):
        rule.path = _glob(value)
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


def _glob(pattern: str) -> re.Pattern[bytes]:
    """`*` and `?` as an anchored pattern for `search`.

    Every run but the last takes the first place where what follows it fits, and gives nothing back: a target cannot
    make the search try every division of itself.
    """
    first, *others = (_literal(part) for part in re.split(r"\*+", pattern))
    if not others:
        return re.compile(rb"\A" + first + rb"\Z", re.DOTALL)
    middle = b"".join(b"(?>.*?%b)" % part for part in others[:-1])
    return re.compile(rb"\A" + first + middle + b".*" + others[-1] + rb"\Z", re.DOTALL)


def _literal(text: str) -> bytes:
    return b".".join(re.escape(part.encode("utf-8")) for part in text.split("?"))


class _TooSlow(Exception):
    """A search was interrupted."""


class _Regex:
    """A regular expression of the operator's own, which some path may make run for longer than the world lasts.

    The engine looks for signals now and then, and so a timer can interrupt it: one that counts this process's own
    processor time, so that a machine that is busy with others does not change what a rule says.
    """

    __slots__ = ("_rule", "_pattern", "_warned")

    armed = False  # whether the timer's signal is for a search that still runs
    installed = False  # whether that signal is ours

    def __init__(self, rule: Rule, pattern: re.Pattern[bytes]) -> None:
        self._rule = rule
        self._pattern = pattern
        self._warned = False

    def search(self, path: bytes, /) -> bool:
        if len(path) > REGEX_BYTES:
            return not self._rule.allow
        if not _Regex.installed:
            signal.signal(signal.SIGVTALRM, _interrupt)
            _Regex.installed = True
        _Regex.armed = True
        try:
            signal.setitimer(signal.ITIMER_VIRTUAL, REGEX_SECONDS)
            found = self._pattern.search(path) is not None
            _Regex.armed = False
            return found
        except _TooSlow:
            self._warn()
            return not self._rule.allow
        finally:
            _Regex.armed = False
            signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)

    def _warn(self) -> None:
        if not self._warned:
            self._warned = True
            log.warning("the access rule %s takes longer than %g s on some paths; such are denied", self._rule, REGEX_SECONDS)


def _interrupt(number: int, frame: object) -> None:
    if _Regex.armed:
        raise _TooSlow


# What a request is compared by.


def canonical_host(host: bytes) -> bytes:
    """A host in lower case (brackets around IPv6) as rules compare it.

    Without final dots; an address in its usual spelling, as IPv4 where it is an IPv4-mapped one, and as loopback where it is
    the unspecified one, which connect(2) takes for that.
    """
    found = _canonical_address(host)
    return _CONNECTED_TO.get(found, found)


_CONNECTED_TO = {b"0.0.0.0": b"127.0.0.1", b"::": b"::1"}


def _canonical_address(host: bytes) -> bytes:
    if host.startswith(b"["):
        return _canonical_ipv6(host[1:-1])
    host = host.rstrip(b".")
    if host.rpartition(b".")[2][:1].isdigit():
        try:
            # getaddrinfo takes 127.1, 0x7f000001 and 2130706433 for addresses, as inet_aton does.
            return socket.inet_ntoa(socket.inet_aton(host.decode("ascii"))).encode("ascii")
        except OSError:
            return host
    return _canonical_ipv6(host) if b":" in host else host


def _canonical_ipv6(host: bytes) -> bytes:
    try:
        address = ipaddress.IPv6Address(host.decode("ascii"))
    except ValueError:
        return host
    return str(address.ipv4_mapped or address).encode("ascii")


def plain_path(path: bytes) -> bytes:
    """A request's path without its query, decoded once, without empty and dot segments (RFC 3986 section 5.2.4)."""
    path = path.partition(b"?")[0]
    return _resolved(unquote_to_bytes(path) if b"%" in path else path)


def _resolved(path: bytes) -> bytes:
    if not path.startswith(b"/") or (b"//" not in path and b"/." not in path):
        return path
    segments: list[bytes] = []
    for segment in path.split(b"/"):
        if segment == b"..":
            del segments[-1:]
        elif segment and segment != b".":
            segments.append(segment)
    if segments and path.endswith((b"/", b"/.", b"/..")):
        segments.append(b"")
    return b"/" + b"/".join(segments)


def path_readings(path: bytes) -> tuple[bytes, ...]:
    """A request's path as RFC 3986 reads it, and beside that as some origins do; () where it has none."""
    plain = plain_path(path)
    if not plain:
        return ()
    octets = unquote_to_bytes(path.partition(b"?")[0])
    if b";" not in octets and b"\\" not in octets:
        return (plain,)
    return plain, _resolved(_SEGMENT_PARAMETERS.sub(b"", octets.replace(b"\\", b"/")))


_SEGMENT_PARAMETERS = re.compile(rb";[^/]*")  # RFC 3986 section 3.3


Address = tuple[int, int]  # 4 or 6, its number


class _Clients(dict[str, tuple[Address | None, list[int]]]):
    """A client's address → the same as a number (None for a Unix socket's), and those of `numbers` whose rules may be for it."""

    def __init__(self, rules: Sequence[Rule], numbers: Sequence[int]) -> None:
        super().__init__()
        self._rules = rules
        self._numbers = numbers

    def __missing__(self, peer: str) -> tuple[Address | None, list[int]]:
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:
            client = None
        else:
            address = getattr(address, "ipv4_mapped", None) or address
            client = address.version, int(address)
        found = client, [number for number in self._numbers if _is_for(client, self._rules[number].clients)]
        if len(self) >= MEMO_ADDRESSES:
            self.clear()
        self[peer] = found
        return found


Question = tuple[bytes, bytes, bytes, str, str | None]  # authority, scheme, method, client, user


class RuleSet(dict[Question, tuple[Rule, ...]]):
    """Rules in order, with an index over their hosts, and itself the memo of what was asked.

    An answer is every rule that holds for a question but for its path, in order, up to the first without a path: so
    that one look-up decides what was asked before. A question that was not asked before costs about as many look-ups as
    its host has labels, and a look at each rule without a host, or with a glob, that is not for other clients alone and
    stands before the one that decides.
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        super().__init__()
        self.rules = tuple(rules)
        self._names: dict[bytes, list[int]] = {}
        self._parents: dict[bytes, list[int]] = {}
        everywhere: list[int] = []  # rules without a host, or with a glob, which no index finds
        self._clients = _Clients(self.rules, everywhere)
        for number, rule in enumerate(self.rules):
            if rule.hosts is None or rule.hosts.globs:
                everywhere.append(number)
            self._index(number, rule.hosts)

    def _index(self, number: int, hosts: Hosts | None) -> None:
        if hosts is not None:
            for name in hosts.names:
                self._names.setdefault(name, []).append(number)
            for name in hosts.parents:
                self._parents.setdefault(name, []).append(number)

    def first(self, exchange: Exchange) -> Rule | None:
        """The rule that decides, None where none holds."""
        request = exchange.request
        question = (request.authority, request.scheme or exchange.scheme, request.method, exchange.peer, exchange.user)
        paths = None
        for rule in self[question]:
            if rule.path is None:
                return rule
            if paths is None:
                paths = path_readings(request.path)
            if paths and (all if rule.allow else any)(map(rule.path.search, paths)):  # a tunnel has no path
                return rule
        return None

    def for_client(self, peer: str) -> Iterator[Rule]:
        """The rules whose client condition holds, in order."""
        client, _ = self._clients[peer]
        return (rule for rule in self.rules if _is_for(client, rule.clients))

    def __missing__(self, question: Question) -> tuple[Rule, ...]:
        authority, scheme, method, peer, user = question
        host, port = split_authority(authority)
        client, everywhere = self._clients[peer]
        if port is None:
            port = DEFAULT_PORTS.get(scheme)
        answer = []
        for rule in self._with_host(canonical_host(host), everywhere):
            if _holds(rule, scheme, method, client, user, port):
                answer.append(rule)
                if rule.path is None:
                    break
        if len(authority) + len(scheme) <= MEMO_AUTHORITY_LENGTH:
            if len(self) >= MEMO_DECISIONS:
                self.clear()
            self[question] = tuple(answer)
        return tuple(answer)

    def _with_host(self, host: bytes, everywhere: list[int]) -> Iterator[Rule]:
        """The rules whose host condition holds, those `everywhere` among them, in order, each found when it is asked for."""
        named = set(self._names.get(host, ()))
        name = host[-NAME_LENGTH - 1 :]  # no rule has a longer one
        at = name.find(b".")
        while at >= 0:
            named.update(self._parents.get(name[at + 1 :], ()))
            at = name.find(b".", at + 1)
        last = -1
        for number in heapq.merge(sorted(named), everywhere):
            rule = self.rules[number]
            if number != last and (rule.hosts is None or number in named or rule.hosts.match_glob(host)):
                yield rule
            last = number  # a rule with names and globs is found by both


def _holds(
    rule: Rule, scheme: bytes, method: bytes, client: Address | None, user: str | None, port: int | None
) -> bool:
    """Whether every condition holds but those on host and path."""
    if rule.methods is not None and method not in rule.methods:
        return False
    if rule.ports is not None and not any(port in ports for ports in rule.ports):
        return False
    if rule.schemes is not None and (method == b"CONNECT" or scheme not in rule.schemes):
        return False
    if rule.users is not None and (user is None or (user not in rule.users and "*" not in rule.users)):
        return False
    return _is_for(client, rule.clients)


def _is_for(client: Address | None, networks: tuple[Network, ...] | None) -> bool:
    if networks is None:
        return True
    if client is None:
        return False
    version, number = client
    return any(version == one.version and number & one.mask == one.number for one in networks)


class AccessControl:
    """Lets through what the rules allow, and answers 403 to the rest; `default_allow` is for what no rule decides."""

    def __init__(self, handler: Handler, rules: Sequence[Rule], default_allow: bool) -> None:
        self._handler = handler
        self.replace(rules, default_allow)

    def replace(self, rules: Sequence[Rule], default_allow: bool) -> None:
        """Put other rules in force; exchanges that were let through go on."""
        self.rules = RuleSet(rules)
        self.default_allow = default_allow
        self._open = not rules and default_allow

    def handle(self, exchange: Exchange) -> None:
        if not self._open:
            rule = self.rules.first(exchange)
            if not (self.default_allow if rule is None else rule.allow):
                refuse(exchange, rule)
                return
        self._handler.handle(exchange)


def refuse(exchange: Exchange, rule: Rule | None) -> None:
    """403, with a page that names the rule; None where no rule decided."""
    exchange.verdict = "denied"
    why = "no access rule allows this request" if rule is None else f"refused by the access rule: {rule}"
    # Plain text: a browser takes it for a page of the site that was asked for, and nothing of it may be markup there.
    exchange.reason = why
    head, page = error_page(403, why)
    head.fields.add(b"X-Content-Type-Options", b"nosniff")
    head.fields.add(b"Cache-Control", b"no-store")
    exchange.respond(head, page)
