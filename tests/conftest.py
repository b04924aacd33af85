"""For every test: the collector has nothing to do with what pytest collected."""

from __future__ import annotations

import gc


def pytest_collection_finish() -> None:
    """Some 9,000 tests are a heap that a collection would go through again and again: half a second each time."""
    gc.collect()
    gc.freeze()
