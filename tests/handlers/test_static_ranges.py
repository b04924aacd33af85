"""Any set of ranges and any conditions on a file, against slices of its bytes and a plain model of RFC 9110."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.static import Static
from reactor.http.dates import format_date
from tests.handlers.asking import NOON, Answer, ask
from tests.strategies import thorough

# One that comes as bytes, one from its descriptor; with bytes in them that look like parts of an answer.
CONTENTS = {"small": (b"--\r\nContent-Range: " + bytes(range(256))) * 2, "large": bytes(range(251)) * 100, "one": b"1"}
CHANGED = int(NOON) - 3600

positions = st.integers(0, 30_000) | st.integers(0, 5) | st.integers(500, 560)
specs = st.one_of(
    st.tuples(positions, st.none()), st.tuples(st.none(), positions), st.tuples(positions, positions).map(sorted).map(tuple)
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Static]:
    root: Path = tmp_path_factory.mktemp("ranges")
    for name, content in CONTENTS.items():
        (root / name).write_bytes(content)
        os.utime(root / name, (CHANGED, CHANGED))
    handler = Static(root)
    yield handler
    handler.close()


def written(wanted: list[tuple[int | None, int | None]]) -> str:
    return ",".join(f"{'' if first is None else first}-{'' if last is None else last}" for first, last in wanted)


def chosen(wanted: tuple[int | None, int | None], size: int) -> range:
    """RFC 9110 section 14.1.2: the positions that one spec selects."""
    first, last = wanted
    if first is None:
        assert last is not None
        return range(max(0, size - last), size)
    return range(first, size if last is None else min(last + 1, size))


def parts_of(answer: Answer) -> list[tuple[str, bytes]]:
    """Content-Range and content of each part, found by the lengths that they tell and not by their boundaries."""
    single = answer.field("Content-Range")
    if single is not None:
        return [(single, answer.content)]
    kind = re.fullmatch("multipart/byteranges; boundary=([0-9a-f]+)", answer.field("Content-Type") or "")
    assert kind is not None
    rest, mark, parts = answer.content, b"--" + kind[1].encode(), []
    while not rest.startswith(mark + b"--\r\n"):
        head, _, rest = rest.partition(b"\r\n\r\n")
        assert head.startswith(mark + b"\r\n")
        told = re.search(rb"Content-Range: (bytes ([0-9]+)-([0-9]+)/[0-9]+)", head)
        assert told is not None
        size = int(told[3]) - int(told[2]) + 1
        parts.append((told[1].decode(), rest[:size]))
        assert rest[size : size + 2] == b"\r\n"
        rest = rest[size + 2 :]
    return parts


@thorough
@given(st.sampled_from(sorted(CONTENTS)), st.lists(specs, min_size=1, max_size=6))
def test_any_set_of_ranges(files: Static, name: str, wanted: list[tuple[int | None, int | None]]) -> None:
    content = CONTENTS[name]
    answer = ask(files, f"GET /{name}\nRange: bytes={written(wanted)}")
    selected = set().union(*(chosen(spec, len(content)) for spec in wanted))
    if not selected:
        assert (answer.status, answer.field("Content-Range")) == (416, f"bytes */{len(content)}")
        return
    assert answer.status == 206
    sent: list[int] = []
    for told, part in parts_of(answer):
        match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", told)
        assert match is not None and int(match[3]) == len(content)
        start, stop = int(match[1]), int(match[2]) + 1
        assert part == content[start:stop]
        sent += range(start, stop)
    assert len(sent) == len(set(sent)), "no byte twice"
    assert selected <= set(sent)


dates = st.sampled_from([CHANGED - 10, CHANGED, CHANGED + 10])
conditions = st.fixed_dictionaries(
    {},
    optional={
        "If-Match": st.sampled_from(["*", '"x"', "TAG", '"x", TAG', "W/TAG"]),
        "If-Unmodified-Since": dates,
        "If-None-Match": st.sampled_from(["*", '"x"', "TAG", '"x", TAG', "W/TAG"]),
        "If-Modified-Since": dates,
        "If-Range": st.sampled_from(['"x"', "TAG", "W/TAG"]) | dates,
        "Range": st.sampled_from(["bytes=0-0", "bytes=0-0,-0", "bytes=100000-", "lines=1-2"]),
    },
)


def expected(method: str, fields: dict[str, str | int]) -> int:
    """RFC 9110 section 13.2.2, step by step, for a strong tag."""

    def matches(name: str, strong: bool) -> bool:
        value = str(fields[name])
        return value == "*" or "TAG" in value and not (strong and "W/" in value)

    def older(name: str) -> bool:
        return CHANGED > int(fields[name])

    if "If-Match" in fields:
        if not matches("If-Match", strong=True):
            return 412
    elif "If-Unmodified-Since" in fields and older("If-Unmodified-Since"):
        return 412
    if "If-None-Match" in fields:
        if matches("If-None-Match", strong=False):
            return 304
    elif "If-Modified-Since" in fields and not older("If-Modified-Since"):
        return 304
    if method == "HEAD" or fields.get("Range", "lines=1-2") == "lines=1-2":
        return 200
    if "If-Range" in fields and fields["If-Range"] not in ("TAG", CHANGED):
        return 200
    return 416 if fields["Range"] == "bytes=100000-" else 206


@thorough
@given(st.sampled_from(["GET", "HEAD"]), conditions)
def test_any_conditions(files: Static, method: str, fields: dict[str, str | int]) -> None:
    tag = ask(files, "HEAD /large").field("ETag")
    assert tag is not None and tag.startswith('"')
    lines = [
        f"{name}: {format_date(value).decode() if isinstance(value, int) else value.replace('TAG', tag)}"
        for name, value in fields.items()
    ]
    assert ask(files, "\n".join([f"{method} /large", *lines])).status == expected(method, fields)
