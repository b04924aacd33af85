"""Which entry goes: SIEVE (Zhang et al., NSDI 2024), every operation O(1), amortized.

Entries stand in the order they came. A hit only sets a bit, so that it costs next to nothing and moves nobody; the
hand walks from the oldest to the newest, spares what was visited (and clears its bit), and takes the first that was
not. What is asked for once, as in a scan, goes soon; what is asked for again stays.
"""

from __future__ import annotations


class Node:
    """A place in the order; who is evictable has one. `visited` is set at each hit."""

    __slots__ = ("visited", "_older", "_newer")

    def __init__(self) -> None:
        self.visited = False
        self._older: Node | None = None
        self._newer: Node | None = None


class Sieve:
    """The order, and the hand in it."""

    __slots__ = ("_oldest", "_newest", "_hand", "size")

    def __init__(self) -> None:
        self._oldest: Node | None = None
        self._newest: Node | None = None
        self._hand: Node | None = None
        self.size = 0

    def add(self, node: Node) -> None:
        """A new entry, in front of all others."""
        node._older, node._newer = self._newest, None
        if self._newest is None:
            self._oldest = node
        else:
            self._newest._newer = node
        self._newest = node
        self.size += 1

    def remove(self, node: Node) -> None:
        """Take an entry out, whoever decided that."""
        if self._hand is node:
            self._hand = node._newer
        older, newer = node._older, node._newer
        if older is None:
            self._oldest = newer
        else:
            older._newer = newer
        if newer is None:
            self._newest = older
        else:
            newer._older = older
        node._older = node._newer = None
        self.size -= 1

    def victim(self) -> Node | None:
        """The entry to evict next (it is not taken out), or None where there is none."""
        node = self._hand if self._hand is not None else self._oldest
        while node is not None and node.visited:
            node.visited = False
            node = node._newer if node._newer is not None else self._oldest
        self._hand = node
        return node
