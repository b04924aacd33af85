"""--host and --root: which names are served what, read in the order given."""

from __future__ import annotations

import argparse
import os
import re
from dataclasses import dataclass, field
from typing import Any

from reactor.errors import ConfigError, ProtocolError
from reactor.http.uri import split_authority

_PREFIX = re.compile(r"(/[A-Za-z0-9._~!$&'()*+,;:@-]*)+")
_DOTS = re.compile(r"(^|/)\.\.?(/|$)")


@dataclass
class Site:
    """What some hosts are served: directories by path. The site without a name is for every other host."""

    hosts: tuple[bytes, ...] = ()
    roots: dict[bytes, str] = field(default_factory=dict)


class SiteAction(argparse.Action):
    """--host opens a site; the --root behind it are its own."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: str | None = None) -> None:
        sites: list[Site] = getattr(namespace, self.dest) or [Site()]
        setattr(namespace, self.dest, sites)
        if option == "--host":
            sites.append(Site(_hosts(values, sites)))
            return
        path, directory = _root(values)
        if path in sites[-1].roots:
            raise ConfigError(f"--root {values}: there is one for {path.decode('ascii')} already")
        sites[-1].roots[path] = directory


def _hosts(text: str, sites: list[Site]) -> tuple[bytes, ...]:
    taken = {host for site in sites for host in site.hosts}
    hosts = []
    for name in text.split(","):
        try:
            host, port = split_authority(name.removeprefix("*.").encode("ascii"))
        except (ProtocolError, UnicodeEncodeError):
            host, port = b"", None
        if not host or port is not None or b"*" in host:
            raise ConfigError(f"--host {text}: {name!r} is no host such as example.com or *.example.com, without a port")
        host = b"*." + host if name.startswith("*.") else host
        if host in taken:
            raise ConfigError(f"--host {text}: {name} is named twice")
        taken.add(host)
        hosts.append(host)
    return tuple(hosts)


def _root(text: str) -> tuple[bytes, str]:
    """`/PATH=DIR`, or DIR alone for `/`."""
    path, equals, directory = text.partition("=")
    if not equals or not path.startswith("/"):
        return b"/", text
    if _PREFIX.fullmatch(path) is None or _DOTS.search(path) or "//" in path:
        raise ConfigError(f"--root {text}: {path!r} is no path such as /assets (folders with a `=` are written /=FOLDER)")
    return path.rstrip("/").encode("ascii") or b"/", directory


def checked(sites: list[Site] | None) -> list[Site]:
    """The sites, the nameless one first; without any --root at all it is the present directory. Raises ConfigError."""
    sites = sites or [Site(roots={b"/": "."})]
    for site in sites:
        if site.hosts and not site.roots:
            raise ConfigError(f"--host {site.hosts[0].decode('ascii')}: no --root behind it")
        for directory in site.roots.values():
            if not os.path.isdir(directory):
                raise ConfigError(f"--root {directory}: not a directory")
            if not os.access(directory, os.X_OK):
                raise ConfigError(f"--root {directory}: Permission denied")
    return sites
