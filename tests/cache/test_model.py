"""Random histories of one URI against a slow and obvious model: what is served may be served, what may be is not missed.

The model knows a response by the facts it was drawn from, never by its text; the text is spelled in random ways. It follows
the RFC's sentences one by one, without regard to speed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from cache.entry import Entry
from cache.policy import DEFAULT_POLICY, Policy
from cache.rules import Hit, Miss, Pass, Revalidate, Stale, Unavailable, Verdict, lookup, stale_on_error
from cache.storing import displaced, may_store
from cache.validation import Freshened, validate
from reactor.http.fields import Fields
from reactor.http.parser import Request
from tests.cache.cases import NOW, URI, WALL, date, request

SECONDS = st.sampled_from([0, 0, 1, 5, 10, 30])
FLAGS = ["no-store", "private", "no-cache", "public", "must-revalidate", "proxy-revalidate", "immutable"]
NUMBERS = ["max-age", "s-maxage", "stale-while-revalidate", "stale-if-error"]
POLICIES = st.builds(Policy, grace=st.sampled_from([0, 0, 7]), grace_on_failure=st.sampled_from([0, 20]))


@dataclass
class Asked:
    """A request, as facts."""

    method: str = "GET"
    selecting: dict[str, str] = field(default_factory=dict)
    flags: frozenset[str] = frozenset()
    numbers: dict[str, int] = field(default_factory=dict)
    authorized: bool = False

    def build(self) -> Request:
        lines = [f"{name}: {value}" for name, value in self.selecting.items()]
        directives = [*self.flags, *[f"{name}={seconds}" for name, seconds in self.numbers.items()]]
        if directives:
            lines.append("Cache-Control: " + ", ".join(directives))
        if self.authorized:
            lines.append("Authorization: Basic eDp5")
        return request("\n".join(lines), self.method)


@dataclass
class Said:
    """A response, as facts: ages and dates in seconds before it came."""

    flags: frozenset[str]
    numbers: dict[str, int]
    vary: tuple[str, ...]
    age: int
    dated: int
    expires: int | None  # after its Date
    tagged: bool
    asked: Asked = field(default_factory=Asked)
    came: float = 0.0  # after NOW
    skew: int = 0  # of our wall clock when it came; the origin's is right

    def build(self, spell: int) -> Fields:
        directives = [
            *self.flags,
            *[f'{name}="{seconds}"' if spell & 1 else f"{name}={seconds}" for name, seconds in self.numbers.items()],
        ]
        if spell & 2:
            directives = [directive.upper() if '"' not in directive else directive.title() for directive in directives]
        if spell & 4:
            directives = ["unknown", 'x="no-store, max-age=99"', *reversed(directives), ""]
        fields = Fields()
        if spell & 8 and len(directives) > 1:
            fields.add("Cache-Control", directives[0])
            fields.add("cache-control", " ,".join(directives[1:]))
        elif directives:
            fields.add("Cache-Control", (" , " if spell & 16 else ",").join(directives))
        if self.vary:
            fields.add("Vary", ", ".join(self.vary))
        if self.age:
            fields.add("Age", str(self.age))
        fields.add("Date", date(self.came - self.dated))
        if self.expires is not None:
            fields.add("Expires", date(self.came - self.dated + self.expires))
        if self.tagged:
            fields.add("ETag", '"x"')
        return fields

    # The model.

    def may_be_stored(self) -> bool:
        if self.asked.flags & {"no-store"} or self.flags & {"no-store", "private"}:
            return False
        if "*" in self.vary:
            return False
        return not self.asked.authorized or bool(self.flags & {"public", "must-revalidate"} or "s-maxage" in self.numbers)

    def lifetime(self) -> int:
        for name in ("s-maxage", "max-age"):
            if name in self.numbers:
                return self.numbers[name]
        return max(0, self.expires or 0)

    def current_age(self, now: float) -> float:
        return max(self.dated + self.skew, self.age) + now - self.came

    def stale_for(self, now: float) -> float:
        """Seconds beyond freshness; negative while it is fresh."""
        return self.current_age(now) - self.lifetime()

    def matches(self, asked: Asked) -> bool:
        if self.asked.method == "HEAD" and asked.method == "GET":
            return False
        return all(self.asked.selecting.get(name) == asked.selecting.get(name) for name in self.vary)

    def forbids_stale(self) -> bool:
        return bool(self.flags & {"must-revalidate", "proxy-revalidate", "no-cache"}) or "s-maxage" in self.numbers

    def may_be_served(
        self, asked: Asked, now: float, policy: Policy, failed: bool = False, disconnected: bool = False
    ) -> bool:
        """Whether it may answer without validation (sections 4, 4.2.4, 5.2; RFC 5861)."""
        if not self.may_be_stored() or not self.matches(asked) or "no-cache" in self.flags:
            return False
        stale = self.stale_for(now)
        if stale < 0:
            return True
        if self.forbids_stale():
            return False
        windows: list[float] = [policy.grace, self.numbers.get("stale-while-revalidate", 0)]
        if "max-stale" in asked.numbers:
            windows.append(asked.numbers["max-stale"] + 1e-6)
        if failed:
            windows += [self.numbers.get("stale-if-error", 0), asked.numbers.get("stale-if-error", 0)]
        if disconnected:
            windows.append(policy.grace_on_failure)
        return stale < max(windows)


def numbers_of(names: list[str]) -> st.SearchStrategy[dict[str, int]]:
    return st.dictionaries(st.sampled_from(names), SECONDS, max_size=2)


def few(names: list[str], most: int) -> st.SearchStrategy[frozenset[str]]:
    return st.frozensets(st.sampled_from(names), max_size=most)


askeds = st.builds(
    Asked,
    method=st.sampled_from(["GET", "GET", "GET", "HEAD"]),
    selecting=st.dictionaries(st.sampled_from(["Foo", "Bar"]), st.sampled_from(["1", "2"]), max_size=2),
    flags=st.one_of(st.just(frozenset[str]()), few(["no-store", "no-cache", "only-if-cached", "unknown"], 1)),
    numbers=st.one_of(st.just({}), numbers_of(["max-age", "min-fresh", "max-stale", "stale-if-error"])),
    authorized=st.sampled_from([False, False, True]),
)
saids = st.builds(
    Said,
    flags=few(FLAGS, 2),
    numbers=numbers_of(NUMBERS),
    vary=st.sampled_from([(), (), ("Foo",), ("Foo", "Bar"), ("*",)]),
    age=SECONDS,
    dated=SECONDS,
    expires=st.sampled_from([None, None, -5, 0, 20]),
    tagged=st.booleans(),
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("store"), askeds, saids, st.integers(0, 31)),
        st.tuples(st.just("look"), askeds),
        st.tuples(st.just("look"), askeds),
        st.tuples(st.just("wait"), st.floats(0, 20)),
        st.tuples(st.just("set the wall clock"), st.integers(-50, 50)),
        st.tuples(st.just("invalidate")),
    ),
    min_size=2,
    max_size=12,
)


class History:
    """One URI's stored responses, the model's beside the real ones, with a clock, and a wall clock that may be set."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.now = 0.0
        self.skew = 0
        self.entries: dict[Entry, Said] = {}
        self.invalid: set[Entry] = set()

    def store(self, asked: Asked, said: Said, spell: int) -> None:
        said.asked, said.came, said.skew = asked, self.now, self.skew
        built = asked.build()
        decision = may_store(built, URI, 200, None, said.build(spell), *self.times(), self.policy)
        if decision.entry is not None:
            assert said.may_be_stored(), "never shared when private, no-store, authorized or Vary: *"
            for old in displaced(built, list(self.entries), decision.entry):
                del self.entries[old]
            self.entries[decision.entry] = said
        else:
            stale = said.lifetime() <= max(said.age, said.dated + said.skew) and (said.forbids_stale() or not said.lifetime())
            useless = not said.tagged and (stale or "no-cache" in said.flags)
            unsaid = not said.may_be_stored()
            assert useless or unsaid, f"{decision.reason}: what may be stored and used is stored"

    def times(self) -> tuple[float, float, float]:
        return NOW + self.now, NOW + self.now, WALL + self.now + self.skew

    def look(self, asked: Asked) -> None:
        built = asked.build()
        verdict = lookup(built, list(self.entries), NOW + self.now, self.policy)
        self.check_served(asked, verdict)
        self.check_not_missed(asked, verdict)
        if isinstance(verdict, Revalidate):
            self.check_failures(asked, built, verdict)
            self.check_freshening(built, verdict)

    def check_served(self, asked: Asked, verdict: Verdict) -> None:
        if isinstance(verdict, Hit | Stale):
            said = self.entries[verdict.entry]
            assert said.may_be_served(asked, self.now, self.policy)
            assert verdict.entry not in self.invalid
            assert isinstance(verdict, Hit) is (said.stale_for(self.now) < 0)
            assert "no-cache" not in asked.flags
            if "max-age" in asked.numbers and not (isinstance(verdict, Hit) and "immutable" in said.flags):
                assert said.current_age(self.now) <= asked.numbers["max-age"]
            if "min-fresh" in asked.numbers:
                assert said.stale_for(self.now) <= -asked.numbers["min-fresh"]
            newer = [
                other for other in self.entries.values()
                if other.vary and other.matches(asked) and other.came - other.dated > said.came - said.dated + 1
            ]  # fmt: skip
            assert not newer, "the most recent is used"
        elif isinstance(verdict, Pass):
            assert "no-store" in asked.flags
        elif isinstance(verdict, Unavailable):
            assert "only-if-cached" in asked.flags
        else:
            assert not asked.flags & {"no-store", "only-if-cached"}

    def check_not_missed(self, asked: Asked, verdict: Verdict) -> None:
        plain = not asked.flags and not asked.numbers
        one_vary = len({said.vary for said in self.entries.values()}) < 2
        good = [
            said for entry, said in self.entries.items()
            if entry not in self.invalid and said.stale_for(self.now) < 0
            and said.may_be_served(asked, self.now, DEFAULT_POLICY)
        ]  # fmt: skip
        every = [said for said in self.entries.values() if said.matches(asked)]
        if plain and one_vary and every and len(good) == len(every):
            assert isinstance(verdict, Hit), "what is fresh and matches is used"
        if not every:
            assert not isinstance(verdict, Hit | Stale | Revalidate)
            if isinstance(verdict, Miss):
                assert verdict.fwd in ("uri-miss", "vary-miss")

    def check_failures(self, asked: Asked, built: Request, verdict: Revalidate) -> None:
        said = self.entries[verdict.entry]
        for status in (None, 503, 404):
            stale = stale_on_error(built, verdict.entry, NOW + self.now, self.policy, status)
            if stale is not None:
                assert status != 404 and verdict.entry not in self.invalid
                assert said.may_be_served(asked, self.now, self.policy, failed=True, disconnected=status is None)

    def check_freshening(self, built: Request, verdict: Revalidate) -> None:
        if not self.entries[verdict.entry].tagged:
            return
        answer = Fields([("ETag", '"x"'), ("Cache-Control", "max-age=10"), ("Date", date(self.now + self.skew))])
        found = validate(built, verdict, 304, answer, *self.times(), self.policy)
        assert isinstance(found, Freshened) and found.entry.is_fresh(NOW + self.now + 8)
        assert not found.entry.is_fresh(NOW + self.now + 11)

    def check_ages(self) -> None:
        for entry in self.entries:
            ages = [entry.current_age(NOW + self.now + after) for after in (0, 0.5, 20)]
            assert ages == sorted(ages) and ages[0] >= 0


@settings(max_examples=300, deadline=None)
@given(POLICIES, steps)
def test_histories(policy: Policy, steps: list[tuple]) -> None:  # type: ignore[type-arg]
    history = History(policy)
    for kind, *values in steps:
        if kind == "store":
            history.store(*values)
        elif kind == "look":
            history.look(*values)
        elif kind == "wait":
            history.now += values[0]
        elif kind == "set the wall clock":
            history.skew = values[0]
        else:
            for entry in history.entries:
                entry.invalidate()
                history.invalid.add(entry)
        history.check_ages()
