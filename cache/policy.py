"""What the operator decides about the cache: heuristics, grace, targeted fields, and rules that depart from the RFC."""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass, field

from reactor.errors import ConfigError
from reactor.http.uri import split_authority

# Of the origin's restrictions; and what a client asks to be newer than it must be (its no-cache, max-age and min-fresh).
IGNORABLE = frozenset(("no-cache", "no-store", "private", "set-cookie", "reload"))
_SECONDS = re.compile(r"[0-9]{1,9}", re.ASCII)
# A dot segment, as some origin or other may read it: an octet that ends a segment may be encoded, or be a backslash.
_DOTS = re.compile(rb"(?:[/\\]|%2f|%5c)(?:\.|%2e){1,2}(?:[/\\;]|%2f|%5c|%3b|\Z)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class OperatorRule:
    """`host=… path=… ttl=… [stale=…] [ignore=…]`: for responses of URIs that match both globs.

    `ttl` is the freshness lifetime in seconds, whatever the origin says, of what is no error (0: of that too); `stale` for how
    many seconds after it the response may still be served while it is validated, or where the origin fails; `ignore` names
    what is overridden of the origin's own restrictions, and `reload` among them the client's. A departure from the RFC, asked for by the operator.
    """

    host: str = "*"
    path: str = "*"
    ttl: int | None = None
    stale: int = 0
    ignore: frozenset[str] = frozenset()
    _host: re.Pattern[str] = field(init=False, repr=False, compare=False)
    _path: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_host", re.compile(fnmatch.translate(self.host.lower())))
        object.__setattr__(self, "_path", re.compile(fnmatch.translate(self.path)))

    @classmethod
    def parse(cls, text: str) -> OperatorRule:
        """Read the command line's form; raises ConfigError."""
        values: dict[str, str] = {}
        for word in text.split():
            name, equals, value = word.partition("=")
            if not equals or not value or name not in ("host", "path", "ttl", "stale", "ignore") or name in values:
                raise ConfigError(f"cache rule: {word!r} is not one of host= path= ttl= stale= ignore=, each given once")
            values[name] = value
        for name in ("ttl", "stale"):
            if name in values and _SECONDS.fullmatch(values[name]) is None:
                raise ConfigError(f"cache rule: {name}={values[name]} is not a number of seconds")
        ignore = frozenset(values["ignore"].split(",")) if "ignore" in values else frozenset()
        if unknown := ignore - IGNORABLE:
            raise ConfigError(f"cache rule: cannot ignore {', '.join(sorted(unknown))}; only {', '.join(sorted(IGNORABLE))}")
        if not values.keys() - {"host", "path"}:
            raise ConfigError("cache rule: it changes nothing without ttl=, stale= or ignore=")
        ttl = int(values["ttl"]) if "ttl" in values else None
        return cls(values.get("host", "*"), values.get("path", "*"), ttl, int(values.get("stale", "0")), ignore)

    def matches(self, authority: bytes, path: bytes) -> bool:
        """Whether it is for this URI; the host glob sees no port, the path glob the query too.

        None is for a path with dot segments: it may lead to what another path names, and that may be private.
        """
        if _DOTS.search(path.partition(b"?")[0]):
            return False
        host = split_authority(authority)[0].decode("latin-1")
        return self._host.match(host) is not None and self._path.match(path.decode("latin-1")) is not None

    def __str__(self) -> str:
        words = [f"host={self.host}", f"path={self.path}"]
        if self.ttl is not None:
            words.append(f"ttl={self.ttl}")
        if self.stale:
            words.append(f"stale={self.stale}")
        if self.ignore:
            words.append(f"ignore={','.join(sorted(self.ignore))}")
        return " ".join(words)


@dataclass(frozen=True, slots=True)
class Policy:
    """What the RFCs leave to a shared cache's configuration. Times in seconds."""

    heuristic_fraction: float = 0.1  # of the time since Last-Modified (RFC 9111 section 4.2.2)
    heuristic_cap: int = 86400  # a day: heuristics guess, and a wrong guess should be over soon
    grace: int = 0  # stale responses served while they are validated, where nothing forbids it (section 4.2.4)
    grace_on_failure: int = 86400  # the same while the origin cannot be reached: the cache is disconnected (section 4.2.4)
    targets: tuple[bytes, ...] = ()  # RFC 9213 target list, lower case, most applicable first
    rules: tuple[OperatorRule, ...] = ()  # the first that matches counts
    store_partial: bool = False  # 206 responses are stored (section 3.3), and 200s that broke off, as what came of them
    status_key: bool = False  # Cache-Status tells the key (RFC 9211 section 2.7)
    fetch_whole: bool = False  # a range request that misses fetches the whole response, and is answered from it

    def rule_for(self, authority: bytes, path: bytes) -> OperatorRule | None:
        """The operator's rule for a URI, if any."""
        for rule in self.rules:
            if rule.matches(authority, path):
                return rule
        return None


DEFAULT_POLICY = Policy()
