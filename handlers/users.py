"""Who the client is: Basic authentication (RFC 7617) against a file of salted scrypt hashes.

A forward proxy asks by 407 and Proxy-Authenticate and is answered by Proxy-Authorization; whatever stands in an origin's
place asks by 401 and WWW-Authenticate and is answered by Authorization (RFC 9110 sections 11.6 and 11.7). Either way the
field ends here: what is behind sees `exchange.user`, and no password.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import unicodedata
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence

from handlers import passwords
from handlers.client_limits import Buckets, client_of, refuse_for_now
from handlers.users_file import CONTROL, CREDENTIALS_BYTES, LOG2_N, Entry, P, R, normal
from reactor.exchange import Exchange, Handler, error_page
from reactor.helpers import HelperPool, Job, helper_command
from reactor.loop import Reactor

REALM = b'Basic realm="reactor", charset="UTF-8"'  # RFC 7617 sections 2 and 2.1
HELPERS = 2  # checks at the same time
CHECK_SECONDS = 5.0  # that one check may take in its helper: 503
QUEUE_LIMIT = 64  # checks waiting for a helper; a further one is answered 503
CHECKS_PER_CLIENT = 16  # of these from one client; a further one is answered 429
REMEMBERED_SECONDS = 60.0  # credentials that were good are taken without another check
REMEMBERED_LIMIT = 4096  # such credentials; the oldest go first
FAILURES = 10  # wrong passwords from one client before it is answered 429, unchecked, and must wait
FAILURE_SECONDS = 10.0  # after which one of those is forgiven
RETRY_SECONDS = 2.0  # told with a 503

# RFC 9110 section 11.4; base64 by RFC 4648 section 4.
_BASIC = re.compile(rb"[Bb][Aa][Ss][Ii][Cc] +((?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?)")


def parse_basic(value: bytes) -> tuple[str, bytes] | None:
    """Name and password (UTF-8, RFC 7617 section 2.1) of a field's value; None where it is nothing of the kind."""
    match = _BASIC.fullmatch(value)
    if match is None:
        return None
    try:
        text = base64.b64decode(match[1]).decode("utf-8")
    except UnicodeDecodeError:
        return None
    name, colon, password = text.partition(":")
    if not colon or CONTROL.search(text):
        return None
    return unicodedata.normalize("NFC", name), normal(password)


class PasswordChecker:
    """Checks credentials in helper processes, and remembers for a moment those that were good.

    `command` is the helper's, whose standard input is the socket it answers on. A name that is not in the file is checked
    against a hash that nobody knows the password of, so that it takes as long as any other.
    """

    def __init__(
        self,
        reactor: Reactor,
        users: Mapping[str, Entry],
        command: Sequence[str] | None = None,
        timeout: float = CHECK_SECONDS,
    ) -> None:
        self.reactor = reactor
        self._pool = HelperPool(reactor, command or helper_command(passwords), "password", HELPERS, QUEUE_LIMIT, timeout)
        self._secret = secrets.token_bytes(32)  # so that memory holds no digest of a password that could be tried elsewhere
        self._remembered: OrderedDict[bytes, tuple[str, float]] = OrderedDict()  # credentials' digest → name, until when
        self._checks: dict[bytes, _Check] = {}  # credentials' digest → queued or asked
        self._clients: Counter[str] = Counter()  # checks of each client, queued or asked
        self._failures = Buckets(1 / FAILURE_SECONDS, FAILURES)
        self._users: Mapping[str, Entry] = {}
        self.replace(users)

    def replace(self, users: Mapping[str, Entry]) -> None:
        """Put another file in force; whose entry is still the same stays remembered."""
        before, self._users = self._users, users
        for key, (name, _) in list(self._remembered.items()):
            if users.get(name) != before.get(name):
                del self._remembered[key]
        usual = Entry(1 << LOG2_N, R, P, b"", b"")
        dearest = max(users.values(), key=lambda entry: entry.n * entry.r * entry.p, default=usual)
        self._nobody = dearest._replace(salt=secrets.token_bytes(16), digest=secrets.token_bytes(32))

    def key_of(self, value: bytes) -> bytes:
        """What stands for a field's value in the memory of this process."""
        return hashlib.blake2b(value, key=self._secret, digest_size=16).digest()

    def remembered(self, key: bytes) -> str | None:
        """The name of credentials that were good a moment ago."""
        found = self._remembered.get(key)
        return found[0] if found is not None and found[1] > self.reactor.now else None

    def refusal(self, key: bytes, client: str) -> tuple[int, str, float] | None:
        """Why these credentials are not checked now: a status, a reason, and the seconds after which to come again."""
        wait = self._failures.wait(client, self.reactor.now)
        if wait:
            return 429, "too many wrong passwords", wait
        if key not in self._checks:
            if self._clients[client] >= CHECKS_PER_CLIENT:
                return 429, "too many passwords at a time", RETRY_SECONDS
            if self._pool.full:
                return 503, "too many passwords wait to be checked", RETRY_SECONDS
        return None

    def check(self, key: bytes, client: str, name: str, password: bytes, waiter: _Waiter) -> None:
        """Have them checked; the waiter's `checked` is called by the loop. Only where there is no `refusal`."""
        check = self._checks.get(key)
        if check is None:
            check = self._checks[key] = _Check(self, key, client, name, self._users.get(name, self._nobody), password)
            self._clients[client] += 1
            check.join(waiter)
            self._pool.ask(check)
        else:
            check.join(waiter)

    def _settled(self, check: _Check, good: bool | None) -> None:
        """`good` is None where it could not be found out."""
        del self._checks[check.key]
        self._clients[check.client] -= 1
        if not self._clients[check.client]:
            del self._clients[check.client]
        if good and self._users.get(check.name) != check.entry:  # nobody, or changed meanwhile
            good = False
        if good:
            self._remember(check)
        elif good is not None:
            self._failures.charge(check.client, self.reactor.now)
        for waiter in check.dismiss():
            self.reactor.call_soon(waiter.checked, good)

    def _remember(self, check: _Check) -> None:
        self._remembered.pop(check.key, None)
        if len(self._remembered) >= REMEMBERED_LIMIT:
            self._remembered.popitem(last=False)
        self._remembered[check.key] = (check.name, self.reactor.now + REMEMBERED_SECONDS)

    def close(self) -> None:
        """End all helpers; who waits is refused. Idempotent."""
        self._pool.close("the server is going down")


class _Check(Job):
    """Credentials being checked, for all the exchanges that came with them."""

    __slots__ = ("checker", "key", "client", "name", "entry")

    def __init__(self, checker: PasswordChecker, key: bytes, client: str, name: str, entry: Entry, password: bytes) -> None:
        octets = b" ".join(map(base64.b64encode, (entry.salt, entry.digest, password)))
        super().__init__(b"%d %d %d %b" % (entry.n, entry.r, entry.p, octets))
        self.checker = checker
        self.key = key
        self.client = client
        self.name = name
        self.entry = entry

    def answered(self, line: str) -> None:
        if line not in ("yes", "no"):
            raise ValueError("neither yes nor no")
        self.checker._settled(self, line == "yes")

    def given_up(self, reason: str, status: int) -> None:
        self.checker._settled(self, None)


class _Waiter:
    """An exchange that waits for its credentials to be checked."""

    __slots__ = ("users", "exchange", "name", "job")

    def __init__(self, users: Users, exchange: Exchange, name: str) -> None:
        self.users = users
        self.exchange = exchange
        self.name = name
        self.job: _Check | None = None
        exchange.on_end(self._ended)

    def checked(self, good: bool | None) -> None:
        if self.exchange.ended:
            return
        if good:
            self.users._pass(self.exchange, self.name)
        elif good is None:
            refuse_for_now(self.exchange, 503, "the password could not be checked", RETRY_SECONDS)
        else:
            self.users._challenge(self.exchange)

    def _ended(self, exchange: Exchange) -> None:
        check, self.job = self.job, None
        if check is not None:
            check.checker._pool.leave(check, self)

    def failed(self, error: Exception) -> None:
        """The handler raised (logged by the loop)."""
        self.exchange.failed(error)


class Users:
    """Lets through who proves to be a user, and sets `exchange.user`; asks everybody else for credentials."""

    def __init__(self, handler: Handler, checker: PasswordChecker, proxy: bool) -> None:
        """`proxy` says that this is a forward proxy: 407 instead of 401."""
        self._handler = handler
        self._checker = checker
        self._field = b"proxy-authorization" if proxy else b"authorization"
        self._asking = (407, b"Proxy-Authenticate") if proxy else (401, b"WWW-Authenticate")

    def handle(self, exchange: Exchange) -> None:
        value = exchange.request.fields.index.get(self._field)
        if value is None or len(value) > CREDENTIALS_BYTES:
            self._challenge(exchange)
            return
        key = self._checker.key_of(value)
        name = self._checker.remembered(key)
        if name is None:
            self._check(exchange, key, value)
        else:
            self._pass(exchange, name)

    def _check(self, exchange: Exchange, key: bytes, value: bytes) -> None:
        credentials = parse_basic(value)
        if credentials is None:
            self._challenge(exchange)
            return
        client = client_of(exchange.peer)
        refusal = self._checker.refusal(key, client)
        if refusal is None:
            self._checker.check(key, client, *credentials, _Waiter(self, exchange, credentials[0]))
        else:
            refuse_for_now(exchange, *refusal)

    def _pass(self, exchange: Exchange, name: str) -> None:
        exchange.user = name
        exchange.request.fields.remove(self._field)
        self._handler.handle(exchange)

    def _challenge(self, exchange: Exchange) -> None:
        status, field = self._asking
        exchange.verdict = "unauthenticated"
        exchange.respond(*error_page(status, "a user's name and password are needed", (field, REALM)))
