"""--role package.module:Factory: a user's own handler."""

from __future__ import annotations

import argparse
from typing import Any

from reactor.errors import ConfigError
from reactor.exchange import Handler
from reactor.roles.access import Access, access_flags
from reactor.roles.listening import Listening, is_handler, listen_flags
from reactor.roles.process import Process
from reactor.roles.values import load


def add_flags(to: Any) -> None:
    listen_flags(to, "127.0.0.1:9000")
    access_flags(to)


class CustomGroup(Listening):
    """A user's own handler."""

    def __init__(self, process: Process, flags: argparse.Namespace, name: str) -> None:
        super().__init__(process, name, flags, ("127.0.0.1", 9000))
        self.access = Access(process, flags)
        self.factory = load(name, "--role")

        if not callable(self.factory) and not is_handler(self.factory):
            raise ConfigError(f"--role {name}: neither a handler nor what makes one")

    def make_handler(self) -> Handler:
        made = self.factory
        handler = made() if isinstance(made, type) or not is_handler(made) else made
        if not is_handler(handler):
            raise ConfigError(f"--role {self.name}: what it makes has no handle(exchange)")
        return self.staged("access", self.access.around(self.scripted(handler)))
