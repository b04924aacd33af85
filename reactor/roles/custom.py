"""--role package.module:Factory: a user's own handler."""

from __future__ import annotations

import argparse
from typing import Any

from reactor.errors import RAISED, ConfigError
from reactor.exchange import Handler
from reactor.roles.access import Access
from reactor.roles.listening import Listening, is_handler
from reactor.roles.process import Process
from reactor.roles.values import load, raised


class CustomGroup(Listening):
    """A user's own handler."""

    def __init__(self, process: Process, flags: argparse.Namespace, name: str) -> None:
        super().__init__(process, name, flags, ("127.0.0.1", 9000))
        self.access = Access(process, flags)
        self.handler = self._made(load(name, "--role"))

    def _made(self, found: Any) -> Handler:
        """Raises ConfigError."""
        if not callable(found) and not is_handler(found):
            raise ConfigError(f"--role {self.name}: neither a handler nor what makes one")
        try:
            handler: Handler = found() if isinstance(found, type) or not is_handler(found) else found
        except RAISED as error:  # the user's own program
            raise ConfigError(f"--role {self.name}: {raised(error)}") from None
        if not is_handler(handler):
            raise ConfigError(f"--role {self.name}: what it makes has no handle(exchange)")
        return handler

    def make_handler(self) -> Handler:
        return self.staged("access", self.access.around(self.scripted(self.handler)))
