"""SIEVE, against the paper's algorithm written down over a plain list."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from cache.eviction import Node, Sieve


class Named(Node):
    __slots__ = ("name",)

    def __init__(self, name: int) -> None:
        super().__init__()
        self.name = name


class Model:
    """Entries from the oldest to the newest, each with its bit; the hand is an index into them."""

    def __init__(self) -> None:
        self.entries: list[list[int]] = []  # name, visited
        self.hand = 0

    def add(self, name: int) -> None:
        if self.hand == len(self.entries):
            self.hand = 0  # past the newest means: at the oldest again
        self.entries.append([name, 0])

    def remove(self, name: int) -> None:
        at = [entry[0] for entry in self.entries].index(name)
        del self.entries[at]
        if at < self.hand:
            self.hand -= 1

    def visit(self, name: int) -> None:
        self.entry(name)[1] = 1

    def entry(self, name: int) -> list[int]:
        (found,) = [entry for entry in self.entries if entry[0] == name]
        return found

    def victim(self) -> int | None:
        if not self.entries:
            return None
        while True:
            self.hand %= len(self.entries)
            entry = self.entries[self.hand]
            if not entry[1]:
                return entry[0]
            entry[1] = 0
            self.hand += 1


def add(sieve: Sieve, *names: int) -> list[Named]:
    nodes = [Named(name) for name in names]
    for node in nodes:
        sieve.add(node)
    return nodes


def evict(sieve: Sieve) -> int | None:
    victim = sieve.victim()
    if victim is None:
        return None
    sieve.remove(victim)
    assert isinstance(victim, Named)
    return victim.name


def test_an_empty_one_has_no_victim() -> None:
    assert Sieve().victim() is None


def test_without_hits_the_oldest_goes() -> None:
    sieve = Sieve()
    add(sieve, 1, 2, 3)
    assert [evict(sieve) for _ in range(4)] == [1, 2, 3, None]
    assert sieve.size == 0


def test_what_was_hit_is_spared_once() -> None:
    sieve = Sieve()
    one, _, three = add(sieve, 1, 2, 3)
    one.visited = three.visited = True
    assert evict(sieve) == 2  # the hand stands at 3 now
    assert [evict(sieve), evict(sieve)] == [1, 3]


def test_a_scan_does_not_drive_out_what_is_asked_for_again() -> None:
    sieve = Sieve()
    hot = add(sieve, *range(10))
    for name in range(100, 1000):
        for node in hot:
            node.visited = True
        add(sieve, name)
        gone = evict(sieve)
        assert gone is not None and gone >= 100


def test_asking_for_the_victim_twice_takes_nothing_out() -> None:
    sieve = Sieve()
    add(sieve, 1, 2)
    assert sieve.victim() is sieve.victim()
    assert sieve.size == 2


def test_all_visited() -> None:
    sieve = Sieve()
    for node in add(sieve, 1, 2, 3):
        node.visited = True
    assert [evict(sieve) for _ in range(3)] == [1, 2, 3]


STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "add", "visit", "visit", "evict", "evict", "remove", "victim"]), st.integers(0, 1000))
)


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_it_does_what_the_model_does(steps: list[tuple[str, int]]) -> None:
    sieve, model = Sieve(), Model()
    nodes: list[Named] = []
    for number, (what, choice) in enumerate(steps):
        if what == "add":
            nodes += add(sieve, number)
            model.add(number)
        elif what == "evict":
            gone = model.victim()
            assert evict(sieve) == gone
            if gone is not None:
                model.remove(gone)
                nodes = [node for node in nodes if node.name != gone]
        elif what == "victim":
            victim = sieve.victim()
            assert (victim.name if isinstance(victim, Named) else None) == model.victim()
        elif nodes:
            node = nodes[choice % len(nodes)]
            if what == "visit":
                node.visited = True
                model.visit(node.name)
            else:
                nodes.remove(node)
                sieve.remove(node)
                model.remove(node.name)
        assert sieve.size == len(model.entries)
        assert [node.visited for node in nodes] == [bool(model.entry(node.name)[1]) for node in nodes]
