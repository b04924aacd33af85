"""For every test: the collector has nothing to do with what pytest collected."""

from __future__ import annotations

import gc


def pytest_collection_finish() -> None:
    """The tests themselves are a large heap, which every test that collects would go through: half a second each time."""
    gc.collect()
    gc.freeze()
