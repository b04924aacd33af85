"""epoll(7) behind the `selectors` interface, with as little as possible done for each event.

The standard library's own EpollSelector makes a method call, four look-ups of attributes and three tests for every event;
on a loop that does one recv and one send for it, that is felt.
"""

from __future__ import annotations

import math
import select
import selectors
from collections.abc import Mapping
from selectors import EVENT_READ, EVENT_WRITE, SelectorKey
from typing import Any

_IN, _OUT = 1, 4  # EPOLLIN and EPOLLOUT, as the kernel has them


def default_selector() -> selectors.BaseSelector:
    """The one below on Linux, the standard library's choice elsewhere."""
    return EpollSelector() if hasattr(select, "epoll") else selectors.DefaultSelector()


class EpollSelector(selectors.BaseSelector):
    """Watches sockets by epoll(7), level-triggered; the contract is that of `selectors.BaseSelector`."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._keys: dict[int, SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> SelectorKey:
        """Raises KeyError where it is registered already, OSError where it cannot be watched."""
        fd: int = fileobj.fileno()
        if fd in self._keys:
            raise KeyError(f"descriptor {fd} is registered already")
        self._epoll.register(fd, _asked(events))
        self._keys[fd] = key = SelectorKey(fileobj, fd, events, data)
        return key

    def unregister(self, fileobj: Any) -> SelectorKey:
        """Raises KeyError where it is not registered."""
        key = self._key_of(fileobj)
        del self._keys[key.fd]
        try:
            self._epoll.unregister(key.fd)
        except OSError:
            pass  # it was closed first, and that unregistered it
        return key

    def modify(self, fileobj: Any, events: int, data: Any = None) -> SelectorKey:
        """Raises KeyError where it is not registered."""
        key = self._key_of(fileobj)
        if events != key.events:
            self._epoll.modify(key.fd, _asked(events))
        self._keys[key.fd] = key = SelectorKey(fileobj, key.fd, events, data)
        return key

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        """Wait at most `timeout` seconds (None: as long as it takes) for events; they are those asked for alone."""
        wait = -1.0 if timeout is None else 0.0 if timeout <= 0 else math.ceil(timeout * 1e3) * 1e-3  # epoll counts milliseconds
        keys = self._keys
        try:
            events = self._epoll.poll(wait, len(keys) or 1)
        except InterruptedError:
            return []
        return [
            (keys[fd], EVENT_READ if event == _IN else _happened(event) & keys[fd].events) for fd, event in events if fd in keys
        ]

    def get_key(self, fileobj: Any) -> SelectorKey:
        """Raises KeyError where it is not registered."""
        return self._key_of(fileobj)

    def get_map(self) -> Mapping[Any, SelectorKey]:
        """Descriptor → key of all that is watched."""
        return self._keys

    def close(self) -> None:
        self._epoll.close()
        self._keys.clear()

    def _key_of(self, fileobj: Any) -> SelectorKey:
        fd = fileobj.fileno()
        if fd < 0:  # closed already: its key is found the slow way
            fd = next((key.fd for key in self._keys.values() if key.fileobj is fileobj), fd)
        return self._keys[fd]


def _asked(events: int) -> int:
    return (_IN if events & EVENT_READ else 0) | (_OUT if events & EVENT_WRITE else 0)


def _happened(event: int) -> int:
    """What an error or a hang-up is, is found out by reading or writing."""
    return (EVENT_WRITE if event & ~_IN else 0) | (EVENT_READ if event & ~_OUT else 0)
