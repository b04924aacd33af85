"""Who may use a group, from its flags and the files they name: read at the start, and again on SIGHUP."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from handlers.access import AccessControl
from handlers.access_rules import Rule, parse_rule, parse_rules_file
from handlers.client_limits import ClientConnections, ClientRate
from handlers.config_file import read_config
from handlers.pac import Pac
from handlers.users import PasswordChecker, Users
from handlers.users_file import Entry, parse_users_file
from reactor.addresses import is_loopback
from reactor.errors import ConfigError
from reactor.exchange import Handler
from reactor.roles.process import Process
from reactor.roles.values import count_from_1, rate

log = logging.getLogger("reactor.run")


class RuleAction(argparse.Action):
    """--allow, --deny and --rules share one list, in the order given: of rules, and of paths of files."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: str | None = None) -> None:
        rules = getattr(namespace, self.dest) or []
        rules.append(values if option == "--rules" else parse_rule(str(option).removeprefix("--"), values))
        setattr(namespace, self.dest, rules)


def access_flags(to: Any) -> None:
    add = to.add_argument
    note = (
        "who and what may pass, the first rule that matches decides: client=CIDR user=NAME host=GLOB port=N method=NAME "
        "scheme=NAME path=GLOB|/REGEX/, several joined by spaces"
    )
    add("--allow", action=RuleAction, dest="rules", metavar="RULE", help=note)
    add("--deny", action=RuleAction, dest="rules", metavar="RULE", help="the same for what is answered 403")
    add("--rules", action=RuleAction, dest="rules", metavar="FILE",
        help="rules, one a line, `allow …` or `deny …`; SIGHUP reads it again")  # fmt: skip
    add("--users", metavar="FILE",
        help="names and passwords, without one of which nobody passes; scripts/user-entry makes them; SIGHUP reads it "
        "again")  # fmt: skip
    add("--client-connections", type=count_from_1, metavar="N",
        help="connections at a time of one client (an address, an IPv6 /64), 503 beyond them (any number)")  # fmt: skip
    add("--client-rate", type=rate, metavar="N",
        help="requests a second of one client, twice as many at once, 429 beyond them (any number)")  # fmt: skip


class Access:
    """Rules, users and limits of one group. `forward_on` are the hosts a forward proxy listens on, None for all others."""

    def __init__(self, process: Process, flags: argparse.Namespace, forward_on: Sequence[str] | None = None) -> None:
        """Raises ConfigError where a file cannot be read, or everybody could use a forward proxy."""
        self._process = process
        self._sources: list[Rule | str] = flags.rules or []
        self._users_path: str | None = flags.users
        self._rate: float | None = flags.client_rate
        self._forward = forward_on is not None
        self._exposed = next((host for host in forward_on or () if not is_loopback(host)), None)
        self.door = ClientConnections(flags.client_connections) if flags.client_connections else None
        self.rules = self._read_rules()
        self.users = self._read_users()
        self._control: AccessControl | None = None
        self._checker: PasswordChecker | None = None
        if self._users_path is not None or any(isinstance(source, str) for source in self._sources):
            process.at_hangup.append(self.reload)

    def around(self, handler: Handler) -> Handler:
        """The handler behind all that this group asks of its clients."""
        if self._sources:
            handler = self._control = AccessControl(handler, self.rules)
        if self.users is not None:
            self._checker = PasswordChecker(self._process.reactor, self.users)
            handler = Users(handler, self._checker, self._forward)
        if self._forward:
            handler = Pac(handler, self._control)
        if self._rate is not None:
            handler = ClientRate(handler, self._rate)
        return handler

    def _read_rules(self) -> list[Rule]:
        rules: list[Rule] = []
        for source in self._sources:
            rules += read_config("--rules", source, parse_rules_file) if isinstance(source, str) else [source]
        if self._users_path is None:
            for rule in rules:
                if rule.users is not None:
                    raise ConfigError(f"the rule `{rule}` can never hold: nobody is asked for a name without --users")
            if self._exposed is not None and not any(rule.allow for rule in rules):
                raise ConfigError(
                    f"a forward proxy on {self._exposed} would be open to everybody: say who may use it, such as --allow"
                    " client=10.0.0.0/8, or by --users"
                )
        return rules

    def _read_users(self) -> Mapping[str, Entry] | None:
        return None if self._users_path is None else read_config("--users", self._users_path, parse_users_file)

    def reload(self) -> None:
        """Read the files again; one that is wrong changes nothing."""
        try:
            rules = self._read_rules()
            if self._control is not None:
                self._control.replace(rules)
            self.rules = rules
            log.info("%d access rules are in force", len(rules))
        except ConfigError as error:
            log.error("%s; the old rules stay in force", error)
        try:
            users = self._read_users()
            if self._checker is not None and users is not None:
                self._checker.replace(users)
                log.info("%d users are known", len(users))
        except ConfigError as error:
            log.error("%s; the old users stay in force", error)

    def close(self) -> None:
        """End what checks passwords. Idempotent."""
        if self._checker is not None:
            self._checker.close()
