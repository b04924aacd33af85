"""Access control: who may ask for what. Rules in order, the first that holds decides."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

from handlers.access_rules import NAME_LENGTH, Network, Rule
from handlers.matching import canonical_host, path_readings
from reactor.addresses import numeric
from reactor.exchange import NO_STORE, NOSNIFF, Exchange, Handler, error_page
from reactor.http.uri import DEFAULT_PORTS, MEMO_AUTHORITY_LENGTH, split_authority

MEMO_DECISIONS = 4096  # remembered (authority, scheme, method, client, user); at the limit the memo starts anew
MEMO_ADDRESSES = 4096  # remembered client addresses, the same

Address = tuple[int, int]  # 4 or 6, its number


class _Clients(dict[str, tuple[Address | None, list[int]]]):
    """A client's address → the same as a number (None for a Unix socket's), and those of `numbers` whose rules may be for it."""

    def __init__(self, rules: Sequence[Rule], numbers: Sequence[int]) -> None:
        super().__init__()
        self._rules = rules
        self._numbers = numbers

    def __missing__(self, peer: str) -> tuple[Address | None, list[int]]:
        try:
            address = numeric(peer)
            client = address.version, int(address)
        except ValueError:
            client = None
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
            hosts = rule.hosts
            if hosts is None or hosts.globs:
                everywhere.append(number)
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
    """Lets through what the rules allow, and answers 403 to the rest. What no rule decides is the opposite of the last one."""

    def __init__(self, handler: Handler, rules: Sequence[Rule]) -> None:
        self._handler = handler
        self.replace(rules)

    def replace(self, rules: Sequence[Rule]) -> None:
        """Put other rules in force; exchanges that were let through go on."""
        self.rules = RuleSet(rules)
        self.default_allow = not rules or not rules[-1].allow
        self._open = not rules

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
    exchange.reason = why
    exchange.respond(*error_page(403, why, NOSNIFF, NO_STORE))
