"""No path leads out of the root: over trees with links and odd names, and while they change."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.beneath import MAX_DEPTH, MAX_LINKS, Root
from handlers.static import Static
from tests.handlers.asking import Clock, ask
from tests.strategies import thorough


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A root called `site`, with what must not be seen beside it."""
    (tmp_path / "site/in").mkdir(parents=True)
    (tmp_path / "site/in/file").write_bytes(b"inside")
    (tmp_path / "secret").write_bytes(b"outside")
    (tmp_path / "site2").mkdir()
    (tmp_path / "site2/file").write_bytes(b"outside")
    return tmp_path


@pytest.fixture
def files(place: Path) -> Iterator[Static]:
    handler = Static(place / "site", listing=True)
    yield handler
    handler.close()


@pytest.mark.parametrize(
    "target",
    [
        "in/file",
        "./in/../in/file",
        "{site}/in/file",
        "in//file",
        "{site}/./in/file",
        "hop",
        "in2/file",
        "{site}/in2/../in/file",
    ],
)
def test_links_within_the_root(place: Path, files: Static, target: str) -> None:
    (place / "site/hop").symlink_to("in/file")
    (place / "site/in2").symlink_to("in")
    (place / "site/link").symlink_to(target.format(site=place / "site"))
    assert ask(files, "GET /link").content == b"inside"


@pytest.mark.parametrize(
    "target",
    [
        "../secret",
        "../site2/file",
        "/etc/passwd",
        "{place}/secret",
        "{place}/site2/file",
        "in/../../secret",
        "../site/../secret",
        "{site}/../secret",
        "up/secret",
        "{site}2/file",
        "/proc/self/root{place}/secret",
        "/",
    ],
)
def test_links_out_of_the_root(place: Path, files: Static, target: str) -> None:
    (place / "site/up").symlink_to("..")
    (place / "site/link").symlink_to(target.format(site=place / "site", place=place))
    for path in ("/link", "/link/", "/up/secret", "/up/site2/file", "/in/../up/secret"):
        answer = ask(files, f"GET {path}")
        assert answer.status in (403, 404), path
        assert b"outside" not in answer.content
    assert "link" not in [entry["name"] for entry in ask(files, "GET /\nAccept: application/json").json["entries"]]


def test_links_out_of_the_root_where_they_are_wanted(place: Path) -> None:
    (place / "site/link").symlink_to("../secret")
    (place / "site/up").symlink_to("..")
    handler = Static(place / "site", follow_symlinks=True)
    for path in ("/link", "/up/secret", "/up/site/link"):
        assert ask(handler, f"GET {path}").content == b"outside"
    assert ask(handler, "GET /../secret").status == 404, "a link may leave, a path may not"
    handler.close()


def test_links_that_go_in_circles(place: Path, files: Static) -> None:
    (place / "site/one").symlink_to("two")
    (place / "site/two").symlink_to("one")
    (place / "site/self").symlink_to("self/self")
    (place / "site/here").symlink_to(".")
    for path in ("/one", "/two/", "/self", "/self/x"):
        assert ask(files, f"GET {path}").status == 404
    assert ask(files, "GET /here/here/here/in/file").content == b"inside"
    assert ask(files, "GET /" + "here/" * (MAX_LINKS + 1)).status == 404
    assert ask(files, "GET /" + "in/../" * 200 + "in/file").content == b"inside"


def test_depth_is_bounded(place: Path, files: Static) -> None:
    deep = place / "site"
    for _ in range(MAX_DEPTH + 2):
        deep = deep / "d"
        deep.mkdir()
        (deep / "file").write_bytes(b"inside")
    assert ask(files, "GET /" + "d/" * (MAX_DEPTH - 1) + "file").content == b"inside"
    assert ask(files, "GET /" + "d/" * MAX_DEPTH + "file").status == 404


def test_what_is_no_file(place: Path, files: Static) -> None:
    os.mkfifo(place / "site/pipe")
    (place / "site/null").symlink_to("/dev/null")
    listener = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    os.chdir(place / "site")  # the path of a socket has to be short
    listener.bind("socket")
    os.chdir(here)
    for path in ("/pipe", "/null", "/socket", "/pipe/", "/pipe/x"):
        assert ask(files, f"GET {path}").status in (403, 404)
    listener.close()


def test_a_fifo_that_took_the_place_of_a_file_is_not_waited_for(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Root(place / "site")
    os.mkfifo(place / "site/pipe")
    with root.walk() as walk:
        monkeypatch.setattr(type(walk), "_mode", lambda self, name: stat.S_IFREG)
        with pytest.raises(PermissionError):
            walk.open([b"pipe"])
    root.close()


def test_a_directory_replaced_by_a_link_between_two_steps(place: Path) -> None:
    """The walk stands in the directory it opened; and a link in its place is seen as a link."""
    root = Root(place / "site")
    with root.walk() as walk:
        assert walk.open([b"in"]) is None
        (place / "site/in").rename(place / "site/was")
        (place / "site/in").symlink_to("../site2")
        found = walk.open([b"file"])
        assert found is not None and os.read(found.fd, 99) == b"inside"
        os.close(found.fd)
    with root.walk() as walk, pytest.raises(PermissionError):
        walk.open([b"in", b"file"])
    root.close()


def test_a_root_that_is_renamed_stays_the_root(place: Path, files: Static) -> None:
    (place / "site").rename(place / "moved")
    (place / "site2").rename(place / "site")
    assert ask(files, "GET /in/file").content == b"inside"
    assert ask(files, "GET /file").status == 404


def test_a_root_reached_by_a_link(place: Path) -> None:
    (place / "alias").symlink_to("site")
    (place / "site/real").symlink_to(place / "site/in/file")
    (place / "site/spelled").symlink_to(place / "alias/in/file")
    handler = Static(place / "alias")
    assert ask(handler, "GET /real").content == ask(handler, "GET /spelled").content == b"inside"
    handler.close()


NAMES = [b"a", b"b", b"c d", b"\xff", b"...", b"a%2fb", b"-", b"caf\xc3\xa9", b"x\ny"]
names = st.sampled_from(NAMES)
link_pieces = st.lists(st.one_of(names, st.sampled_from([b"..", b".", b""])), min_size=1, max_size=5).map(b"/".join)
links = st.one_of(
    st.tuples(st.sampled_from([b"", b"", b"ROOT/", b"ROOT/../", b"/", b"PLACE/", b"OTHER/"]), link_pieces).map(b"".join),
    st.sampled_from(
        [b"..", b"../..", b"../root2", b"../../root2", b"ROOT", b"OTHER", b"PLACE", b"/", b"../root2/a", b"OTHER/b"]
    ),
)
directories = st.lists(names, max_size=3)


@st.composite
def trees(draw: st.DrawFn) -> list[tuple[str, list[bytes], bytes]]:
    steps = []
    for _ in range(draw(st.integers(1, 10))):
        kind = draw(st.sampled_from(["directory", "file", "link"]))
        where = [*draw(directories), draw(names)]
        steps.append((kind, where, draw(links) if kind == "link" else b""))
    return steps


def _build(place: bytes, steps: list[tuple[str, list[bytes], bytes]]) -> None:
    """Make the tree; steps that meet something that is there already are left out."""
    root = place + b"/root"
    os.mkdir(root)
    os.mkdir(root + b"2")
    for name in NAMES:
        for beside in (place + b"/" + name, root + b"2/" + name):
            with open(beside, "wb") as file:
                file.write(b"OUTSIDE")
    for kind, where, target in steps:
        path = b"/".join([root, *where])
        try:
            # Only beneath real directories: a link must not lead the test itself out of the root.
            if os.path.realpath(os.path.dirname(path)) != os.path.dirname(path):
                continue
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if kind == "directory":
                os.mkdir(path)
            elif kind == "file":
                with open(path, "xb") as file:
                    file.write(b"INSIDE " + path[len(root) :])
            else:
                os.symlink(target.replace(b"OTHER", root + b"2").replace(b"ROOT", root).replace(b"PLACE", place), path)
        except OSError:
            continue


@thorough
@given(
    trees(),
    st.lists(
        st.lists(st.one_of(names, st.sampled_from([b"..", b".", b""])), min_size=1, max_size=5), min_size=1, max_size=8
    ),
)
def test_any_tree_any_path(steps: list[tuple[str, list[bytes], bytes]], paths: list[list[bytes]]) -> None:
    place = os.fsencode(os.path.realpath(tempfile.mkdtemp()))
    root = place + b"/root"
    try:
        _build(place, steps)
        handler = Static(os.fsdecode(root), listing=True, dot_files=True, index=())
        clock = Clock()
        wanted = [*paths, *(where for _, where, _ in steps)]
        wanted += [[*where, name] for kind, where, _ in steps if kind == "link" for name in NAMES]
        wanted += [[*where, b"root2", b"a"] for kind, where, _ in steps if kind == "link"]
        for pieces in wanted:
            target = b"/" + b"/".join(quote_from_bytes(piece, safe="").encode() for piece in pieces)
            answer = ask(handler, b"GET " + target, clock)
            assert b"OUTSIDE" not in answer.content
            assert answer.status in (200, 301, 403, 404)
            path = b"/".join([root, *pieces])
            real = os.path.realpath(path)
            if answer.status == 200 and answer.content.startswith(b"INSIDE"):
                assert answer.content[7:].startswith(b"/") and os.path.isfile(root + answer.content[7:])
            if not {b"..", b".", b""} & set(pieces) and os.path.isfile(path) and real.startswith(root + b"/"):
                # It is there, and within the root: it is found, unless a link on the way left the root and came back.
                assert answer.content == b"INSIDE " + real[len(root) :] or _leaves(root, pieces)
        handler.close()
    finally:
        shutil.rmtree(place)


def _leaves(root: bytes, pieces: list[bytes]) -> bool:
    """Whether the walk, link by link, is ever above or beside the root."""
    to_go, here = pieces[::-1], root
    for _ in range(200):
        if not to_go:
            return False
        piece = to_go.pop()
        if piece in (b"", b"."):
            continue
        here = os.path.dirname(here) if piece == b".." else here + b"/" + piece
        if os.path.islink(here):
            target = os.readlink(here)
            here = b"" if target.startswith(b"/") else os.path.dirname(here)
            if target.startswith(root + b"/"):
                here, target = root, target[len(root) :]
            to_go += target.split(b"/")[::-1]
        if here != root and not here.startswith(root + b"/"):
            return True
    return True
