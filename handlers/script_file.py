"""The file of a script: read at the start, and again when it has changed."""

from __future__ import annotations

import inspect
import logging
import os
import sys
import types
from collections.abc import Callable
from typing import Any, NamedTuple

from handlers.traffic import Traffic
from reactor.errors import RAISED, ConfigError

log = logging.getLogger("handlers.script")

Hook = Callable[[Traffic], Any]
Stamp = tuple[int, int, int]


class Hooks(NamedTuple):
    """What one reading of the file defined."""

    request: Hook | None
    response: Hook | None


class ScriptFile:
    """The file, and the hooks that are in force: those of its last version that could be read."""

    def __init__(self, path: str) -> None:
        """Raises ConfigError, with the line, where it cannot be read or run."""
        self.path = path
        self._broken = False
        self._stamp: Stamp | None = None
        folder = os.path.dirname(os.path.abspath(path))
        if folder not in sys.path:
            sys.path.append(folder)  # for modules of the script's own, behind everything else
        self._stamp = self._look()
        self.hooks = self._read()

    def look_again(self) -> None:
        """Read the file again if it has changed; a broken one leaves the old hooks in force."""
        stamp = self._look()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self.hooks = self._read()
        except ConfigError as error:
            self._broken = True
            log.error("%s; the one read before stays in force", error)
        else:
            log.log(logging.WARNING if self._broken else logging.INFO, "script %s: read again, and in force", self.path)
            self._broken = False

    def _look(self) -> Stamp | None:
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _read(self) -> Hooks:
        path = os.path.abspath(self.path)
        name = "script_" + os.path.basename(path).partition(".")[0]
        module = types.ModuleType(name)
        module.__file__ = path
        before = sys.modules.get(name)
        sys.modules[name] = module  # dataclasses, pickle and the like look their module up
        try:
            with open(path, "rb") as file:
                exec(compile(file.read(), path, "exec", dont_inherit=True), module.__dict__)
            hooks = Hooks(getattr(module, "request", None), getattr(module, "response", None))
            for hook, what in zip(hooks, Hooks._fields, strict=True):
                if hook is not None:
                    _check(hook, what)
        except RAISED as error:
            sys.modules.pop(name)
            if before is not None:
                sys.modules[name] = before
            raise ConfigError(self._what_is_wrong(path, error)) from None
        if hooks == (None, None):
            log.warning("script %s: defines neither request(exchange) nor response(exchange), and does nothing", self.path)
        return hooks

    def _what_is_wrong(self, path: str, error: BaseException) -> str:
        if isinstance(error, OSError) and error.filename == path:
            return f"script {self.path}: {error.strerror}"
        line = error.lineno if isinstance(error, SyntaxError) and error.filename == path else _line_in(path, error)
        why = error.msg if isinstance(error, SyntaxError) else str(error)
        return f"script {self.path}{f', line {line}' if line else ''}: {type(error).__name__}{f': {why}' if why else ''}"


def _check(hook: object, what: str) -> None:
    """Raises TypeError for what could not be called with an exchange."""
    if not callable(hook):
        raise TypeError(f"{what} is no function")
    try:
        inspect.signature(hook).bind(None)
    except TypeError:
        raise TypeError(f"{what} must be callable with one argument, the exchange") from None
    except ValueError:
        pass  # some that are written in C do not tell


def _line_in(path: str, error: BaseException) -> int | None:
    line, step = None, error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == path:
            line = step.tb_lineno
        step = step.tb_next
    return line
