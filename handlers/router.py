"""Several handlers behind one address, chosen by host and path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from handlers.api import Api
from handlers.pages import respond_error, respond_options
from reactor.errors import ConfigError
from reactor.exchange import Exchange, Handler
from reactor.http.uri import split_authority

Mount = tuple[bytes, Handler]
KNOWN_HERE = (b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS")


class Misdirected:
    """Answers for hosts that nothing is served for (RFC 9110 section 15.5.20)."""

    def handle(self, exchange: Exchange) -> None:
        respond_error(exchange, 421, "This host is not served here.")


class Router:
    """Offers an exchange to the `apis`, else gives it to the handler whose prefix fits the path best, else to `default`.

    A prefix ends where a segment does: `/docs` is `/docs`, `/docs/x` and `/docs?x`, not `/docserver`. Paths are compared
    as they were sent. `hosts` maps a host (in lower case, without a port; `*.` before it means any name below) to mounts
    of its own, and no others are its. The APIs are every host's. A path whose first segment is an Api's (`/api/…`)
    belongs to the APIs, and is answered 404 by them where none has it. Raises ConfigError where a prefix is no path or is
    given twice.
    """

    def __init__(
        self,
        default: Handler | None,
        apis: Sequence[Api] = (),
        mounts: Sequence[Mount] = (),
        hosts: Mapping[bytes, Sequence[Mount]] | None = None,
    ) -> None:
        self.default = default
        self._apis = list(apis)
        self._api_segments: frozenset[bytes] = frozenset().union(*(api.routes.first_segments() for api in apis))
        self._api_starts = tuple(self._api_segments)
        self._literal = {path: api for api in reversed(apis) for path in api.routes.literal_paths()}
        self._mounts = _ordered(mounts)
        if self._mounts and not self._mounts[-1][0]:  # it is for every path, so that it need not be compared
            self.default = self._mounts.pop()[1]
        self._hosts = {host.lower(): _ordered(own) for host, own in (hosts or {}).items()}

    def handle(self, exchange: Exchange) -> None:
        path: bytes = exchange.request.path
        api = self._literal.get(path)
        if api is not None:
            api.offer(exchange)
            return
        # A percent sign may spell what begins otherwise.
        if (path.startswith(self._api_starts) or b"%" in path) and self._taken_by_api(exchange, path):
            return
        handler = self._choose(exchange.request.authority, path) if self._mounts or self._hosts else self.default
        if handler is not None:
            handler.handle(exchange)
        elif path == b"*" and exchange.request.method == b"OPTIONS":  # RFC 9110 section 9.3.7: of the server as a whole
            respond_options(exchange, KNOWN_HERE)
        else:
            respond_error(exchange, 404, "Nothing is found at this path.")

    def _choose(self, authority: bytes, path: bytes) -> Handler | None:
        own = self._mounts_of(authority)
        return _find(self._mounts, path) or self.default if own is None else _find(own, path)

    def _taken_by_api(self, exchange: Exchange, path: bytes) -> bool:
        """An empty first segment among theirs stands for routes that may fit any path."""
        segments = self._api_segments
        end = path.find(b"/", 1)
        segment = path[:end] if end > 0 else path.partition(b"?")[0]
        theirs = segment in segments
        if theirs or b"" in segments or b"%" in segment:
            for api in self._apis:
                if api.offer(exchange):
                    return True
            if theirs:
                self._apis[0].answer_not_found(exchange)
        return theirs

    def _mounts_of(self, authority: bytes) -> list[Mount] | None:
        """None for a host that has none of its own. The dot of DNS's own root makes no difference."""
        host = split_authority(authority)[0].removesuffix(b".")
        hosts = self._hosts
        if host in hosts:
            return hosts[host]
        while b"." in host:
            host = host.partition(b".")[2]
            if (found := hosts.get(b"*." + host)) is not None:
                return found
        return None


def _ordered(mounts: Sequence[Mount]) -> list[Mount]:
    """The longest prefix first, without the slash at its end."""
    found: dict[bytes, Handler] = {}
    for prefix, handler in mounts:
        if not prefix.startswith(b"/"):
            raise ConfigError(f"a path begins with a slash: {prefix.decode('latin-1')}")
        if prefix.rstrip(b"/") in found:
            raise ConfigError(f"two handlers for {prefix.decode('latin-1')}")
        found[prefix.rstrip(b"/")] = handler
    return sorted(found.items(), key=lambda mount: -len(mount[0]))


def _find(mounts: list[Mount], path: bytes) -> Handler | None:
    for prefix, handler in mounts:
        if path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in (b"", b"/", b"?"):
            return handler
    return None
