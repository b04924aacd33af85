"""--role server: files beneath a root, and API routes."""

from __future__ import annotations

import argparse
import os
from typing import Any

from handlers.api import Api, builtin_api
from handlers.router import Router
from handlers.static import Static
from reactor.errors import ConfigError
from reactor.exchange import Handler
from reactor.roles.listening import Listening, listen_flags
from reactor.roles.process import Process
from reactor.roles.values import load


def add_flags(to: Any) -> None:
    listen_flags(to, "127.0.0.1:8000")
    to.add_argument("--root", default=".", metavar="DIR", help="what is served (.)")
    to.add_argument("--api", action="append", default=[], metavar="MODULE:ATTRIBUTE", help="an Api of your own, beside the built-in one")


class ServerGroup(Listening):
    """Files beneath a root, and API routes."""

    def __init__(self, process: Process, flags: argparse.Namespace, name: str) -> None:
        super().__init__(process, name, flags, ("127.0.0.1", 8000))
        if not os.path.isdir(flags.root):
            raise ConfigError(f"--root {flags.root}: not a directory")
        self.root = flags.root
        self.apis = [load(text, "--api", Api) for text in flags.api]
        self.static: Static | None = None

    def make_handler(self) -> Handler:
        self.static = Static(self.root)
        return self.scripted(Router(self.static, [*self.apis, builtin_api()]))

    def close(self) -> None:
        super().close()
        if self.static is not None:
            self.static.close()
