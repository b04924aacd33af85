"""The floors of the house: a file imports only from its own floor or a lower one.

    4   the front door: argv → configuration → handlers on a loop
    3   the roles: what to answer
    2   HTTP over a stream; entries, stores, fills
    1   sockets and time, no HTTP
    0   pure: bytes and values in, values out; no socket, no clock, no I/O

Imports are read from the source, those inside functions too. A file that the table does not name fails: whoever adds one
says on which floor it stands.
"""

from __future__ import annotations

import ast
import fnmatch
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HOUSE = Path(__file__).resolve().parent.parent
PACKAGES = ("reactor", "cache", "handlers")

FLOORS: dict[int, tuple[str, ...]] = {
    4: ("reactor/run.py", "reactor/roles/*.py"),
    3: ("handlers/*.py",),
    2: (
        "reactor/exchange.py",
        "reactor/sources.py",
        "reactor/server.py",
        "reactor/server_connection.py",
        "reactor/request_body.py",
        "reactor/response_body.py",
        "reactor/timed_connection.py",
        "reactor/client.py",
        "reactor/client_connection.py",
        "reactor/proxied.py",
        "reactor/relay.py",
        "reactor/splicing.py",
        "cache/fill.py",
        "cache/stores/*.py",
    ),
    1: (
        "reactor/loop.py",
        "reactor/polling.py",
        "reactor/stream.py",
        "reactor/listener.py",
        "reactor/connector.py",
        "reactor/resolver.py",
        "reactor/helpers.py",
        "reactor/helper_process.py",
        "reactor/lookup.py",
        "reactor/tls.py",
        "reactor/tls_stream.py",
        "reactor/records.py",
    ),
    0: (
        "reactor/addresses.py",
        "reactor/errors.py",
        "reactor/timing.py",
        "reactor/http/*.py",
        "cache/answering.py",
        "cache/directives.py",
        "cache/entry.py",
        "cache/eviction.py",
        "cache/explain.py",
        "cache/freshness.py",
        "cache/invalidation.py",
        "cache/key.py",
        "cache/lists.py",
        "cache/memo.py",
        "cache/partial.py",
        "cache/policy.py",
        "cache/rules.py",
        "cache/status.py",
        "cache/storing.py",
        "cache/validation.py",
    ),
}
PATTERNS = [(pattern, floor) for floor, patterns in FLOORS.items() for pattern in patterns]

# What a pure file cannot need, and what nobody here uses at all.
IMPURE = frozenset(
    "fcntl io mmap os pathlib random secrets select selectors shutil signal socket ssl subprocess sys tempfile time".split()
)
NOT_IN_THIS_HOUSE = frozenset("asyncio concurrent multiprocessing queue threading _thread socketserver http".split())
IMPURE_CALLS = frozenset(("open", "print", "input", "exec", "eval"))

FILES = sorted(path.relative_to(HOUSE).as_posix() for package in PACKAGES for path in (HOUSE / package).rglob("*.py"))
ROOMS = [file for file in FILES if not file.endswith("/__init__.py")]


def floors_of(file: str) -> set[int]:
    return {floor for pattern, floor in PATTERNS if fnmatch.fnmatchcase(file, pattern)}


def floor_of(file: str) -> int:
    (floor,) = floors_of(file)
    return floor


def tree(file: str) -> ast.Module:
    return ast.parse((HOUSE / file).read_text("utf-8"), file)


def imported(file: str) -> Iterator[str]:
    """The dotted names of the modules that a file imports."""
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}, line {node.lineno}: a relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if as_file(inner) else str(node.module)


def as_file(module: str) -> str | None:
    """The file of this house that a dotted name stands for."""
    path = module.replace(".", "/") + ".py"
    return path if path in FILES else None


@pytest.mark.parametrize("file", ROOMS)
def test_every_file_stands_on_one_floor(file: str) -> None:
    assert len(floors_of(file)) == 1, f"{file} is on the floors {floors_of(file)}: name it in the table"


@pytest.mark.parametrize("pattern", [pattern for pattern, _ in PATTERNS])
def test_every_line_of_the_table_names_something(pattern: str) -> None:
    assert fnmatch.filter(ROOMS, pattern)


@pytest.mark.parametrize("file", ROOMS)
def test_nobody_looks_up_the_stairs(file: str) -> None:
    above = {module for module in imported(file) if (other := as_file(module)) and floor_of(other) > floor_of(file)}
    assert not above


@pytest.mark.parametrize("file", [file for file in ROOMS if 0 in floors_of(file)])
def test_the_ground_floor_is_pure(file: str) -> None:
    assert not IMPURE & {module.partition(".")[0] for module in imported(file)}
    called = {
        node.func.id for node in ast.walk(tree(file)) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not IMPURE_CALLS & called


@pytest.mark.parametrize("file", [file for file in ROOMS if 1 in floors_of(file)])
def test_the_first_floor_knows_no_http(file: str) -> None:
    assert not {module for module in imported(file) if module.startswith("reactor.http")}


@pytest.mark.parametrize("file", FILES)
def test_nothing_but_the_standard_library_is_needed(file: str) -> None:
    roots = {module.partition(".")[0] for module in imported(file)}
    assert roots <= sys.stdlib_module_names | set(PACKAGES)


@pytest.mark.parametrize("file", FILES)
def test_there_is_one_loop_and_no_thread(file: str) -> None:
    modules = set(imported(file)) - {"http"}  # of http, the table of status codes alone
    assert not NOT_IN_THIS_HOUSE & {module.partition(".")[0] for module in modules}


@pytest.mark.parametrize("file", [file for file in FILES if file.endswith("/__init__.py")])
def test_packages_import_nothing(file: str) -> None:
    assert not list(imported(file))
