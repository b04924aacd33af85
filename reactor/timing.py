"""Where an exchange's time went. Noted only where a log asks for it: `Exchange.timing` is None otherwise.

Moments are seconds on the loop's clock, 0.0 for what did not happen; spans are seconds.
"""

from __future__ import annotations


class FetchTimes:
    """A request to an origin, step by step; shared by all exchanges that its answer serves."""

    __slots__ = ("began", "resolved", "connected", "sent", "answered")

    def __init__(self) -> None:
        self.began = 0.0  # asked of the pool
        self.resolved = 0.0  # the name was; 0.0 where a kept connection was taken
        self.connected = 0.0  # likewise
        self.sent = 0.0  # the request's first byte
        self.answered = 0.0  # the final head


class Timing:
    """One exchange's phases and waits.

    A stage lasts from `enter` to the next `enter`, or to `leave`; one that is entered again is added up. At most one peer
    is waited for at a time.
    """

    __slots__ = (
        "parse", "stages", "fetch", "client_wait", "source_wait", "head_at", "cache_status",
        "_stage", "_since", "_waits_for", "_paused",
    )  # fmt: skip

    def __init__(self, parse: float = 0.0) -> None:
        self.parse = parse  # from the head's first byte until it was understood
        self.stages: dict[str, float] = {}
        self.fetch = FetchTimes()
        self.client_wait = 0.0  # for bytes of the request's body, and for room for the response's
        self.source_wait = 0.0  # for bytes of the response's body
        self.head_at = 0.0  # the client's answer was decided
        self.cache_status: bytes | None = None  # the field that the client was sent
        self._stage: str | None = None
        self._since = 0.0
        self._waits_for: str | None = None
        self._paused = 0.0

    def enter(self, stage: str, now: float) -> None:
        self.leave(now)
        self._stage = stage
        self._since = now

    def leave(self, now: float) -> None:
        """The stage that was entered last is over, if it is not already."""
        stage, self._stage = self._stage, None
        if stage is not None:
            self.stages[stage] = self.stages.get(stage, 0.0) + now - self._since

    def wait_for_client(self, now: float) -> None:
        self.go_on(now)
        self._waits_for = "client"
        self._paused = now

    def wait_for_source(self, now: float) -> None:
        self.go_on(now)
        self._waits_for = "source"
        self._paused = now

    def go_on(self, now: float) -> None:
        """What was waited for, if anything was, is there."""
        who, self._waits_for = self._waits_for, None
        if who == "client":
            self.client_wait += now - self._paused
        elif who == "source":
            self.source_wait += now - self._paused
