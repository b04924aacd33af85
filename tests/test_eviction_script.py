"""scripts/eviction: its trace, its policies, its table."""

from __future__ import annotations

import collections
import importlib.machinery
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "eviction"


def load() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("eviction_script", str(SCRIPT))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


eviction = load()
NAMES = list(eviction.POLICIES)


def test_the_trace_is_the_same_each_time_and_popular_objects_are_asked_for_most() -> None:
    trace = eviction.make_trace(20_000, 1000, 1.0, 0.0)
    assert trace == eviction.make_trace(20_000, 1000, 1.0, 0.0) != eviction.make_trace(20_000, 1000, 1.0, 0.0, seed=2)
    counts = collections.Counter(trace)
    assert set(counts) <= set(range(1000))
    assert counts[0] > counts[9] > counts[99]
    assert 0.8 < counts[0] / counts[1] / 2 < 1.25 and 0.8 < counts[0] / counts[3] / 4 < 1.25


def test_scans_ask_for_a_run_of_other_objects_once() -> None:
    trace = eviction.make_trace(200_000, 1000, 0.9, 0.3)
    scanned = [key for key in trace if key >= 1000]
    assert 0.2 < len(scanned) / len(trace) < 0.4 and len(trace) == 200_000
    runs = sum(later == earlier + 1 for earlier, later in zip(scanned, scanned[1:], strict=False))
    assert runs >= len(scanned) * (1 - 1 / eviction.SCAN_LENGTH) - len(scanned) / eviction.SCAN_LENGTH - 1


@pytest.mark.parametrize("name", NAMES)
@given(st.lists(st.integers(0, 12)), st.integers(1, 8))
def test_a_policy_holds_what_it_says_it_holds(name: str, asked: list[int], capacity: int) -> None:
    cache = eviction.POLICIES[name](capacity)
    held: set[int] = set()
    for key in asked:
        assert not cache.ask(key) or key in held
        held.add(key)
        assert len(cache) <= min(capacity, len(held))
        assert cache.ask(key), "what was just brought is there"


@pytest.mark.parametrize(
    ("name", "asked", "hits"),
    [
        ("LRU", [1, 2, 1, 3, 1, 2], [False, False, True, False, True, False]),
        ("FIFO", [1, 2, 1, 3, 2, 1], [False, False, True, False, True, False]),
        ("SIEVE", [1, 2, 1, 3, 1, 2], [False, False, True, False, True, False]),
        ("S3-FIFO", [1, 2, 1, 3, 2], [False, False, True, False, True]),
    ],
)
def test_who_goes(name: str, asked: list[int], hits: list[bool]) -> None:
    cache = eviction.POLICIES[name](2)
    assert [cache.ask(key) for key in asked] == hits


def test_ours_withstands_scans() -> None:
    trace = eviction.make_trace(60_000, 5000, 0.9, 0.2)
    ratios = {name: eviction.measure(policy, 500, trace)[0] for name, policy in eviction.POLICIES.items()}
    assert ratios["SIEVE"] > ratios["LRU"] > ratios["FIFO"]
    assert abs(ratios["SIEVE"] - ratios["S3-FIFO"]) < 0.02


def test_it_prints_a_table() -> None:
    assert os.access(SCRIPT, os.X_OK)
    command = [sys.executable, str(SCRIPT), "--requests", "2000", "--objects", "300", "--rounds", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
    said, names, *rows = done.stdout.splitlines()
    assert said.startswith("2000 requests for ") and names.split() == ["cache", *NAMES]
    assert [row.split()[0] for row in rows] == ["3", "15", "30", "60"] and all("%" in row for row in rows)


@pytest.mark.parametrize("wrong", [["--scans", "1"], ["--requests", "0"], ["--alpha", "-1"]])
def test_what_is_wrong_is_said(wrong: list[str]) -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), *wrong], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "must be positive" in done.stderr
