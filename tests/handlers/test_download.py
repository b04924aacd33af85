"""Bodies into files: whole under their name, in parts beside it, and never two versions in one."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from handlers.download import CannotResume, Download, strong_validator
from reactor.http.fields import Fields
from reactor.http.parser import Response

URL = "http://a/file"


def response(status: int = 200, **fields: str) -> Response:
    pairs = [(name.replace("_", "-"), value) for name, value in fields.items()]
    return Response(status, b"", 11, Fields(pairs), 0, True)


def broken_off(path: Path, data: bytes, **fields: str) -> str:
    """A first try of which so much came; what was said of it."""
    download = Download(str(path))
    assert download.begin(URL, response(**fields), False)
    download.write(data)
    return download.break_off()


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_it_gets_its_name_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")
    path.chmod(0o640)
    download = Download(str(path))
    assert download.begin(URL, response(ETag='"1"'), False)
    download.write(b"new")
    assert path.read_bytes() == b"before" and names(tmp_path) == ["file", "file.part", "file.part.json"]
    download.write(memoryview(b"er"))
    download.finish(modified=1_000_000_000.0)
    assert path.read_bytes() == b"newer" and names(tmp_path) == ["file"]
    assert (stat.S_IMODE(path.stat().st_mode), path.stat().st_mtime) == (0o640, 1_000_000_000.0)


def test_what_came_is_kept_and_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert broken_off(path, b"hel", ETag='"1"') == f"3 bytes of it are in {path}.part: -C - goes on from there"
    assert names(tmp_path) == ["file.part", "file.part.json"]
    download = Download(str(path))
    assert download.resume_fields(URL) == [("Range", "bytes=3-"), ("If-Range", '"1"')]
    assert download.begin(URL, response(206, Content_Range="bytes 3-4/5", ETag='"1"'), False)
    download.write(b"lo")
    download.finish()
    assert path.read_bytes() == b"hello" and names(tmp_path) == ["file"]


def test_another_version_starts_anew(tmp_path: Path) -> None:
    path = tmp_path / "file"
    broken_off(path, b"old old old", ETag='"1"')
    download = Download(str(path))
    assert download.resume_fields(URL)
    assert download.begin(URL, response(200, ETag='"2"'), False)
    download.write(b"new")
    assert "3 bytes" in download.break_off()
    again = Download(str(path))
    assert again.resume_fields(URL) == [("Range", "bytes=3-"), ("If-Range", '"2"')]


def test_a_part_that_was_whole_already(tmp_path: Path) -> None:
    path = tmp_path / "file"
    broken_off(path, b"hello", ETag='"1"')
    download = Download(str(path))
    assert download.resume_fields(URL)
    assert not download.begin(URL, response(416, Content_Range="bytes */5"), False)
    download.finish()
    assert path.read_bytes() == b"hello" and names(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("status", "fields"),
    [
        (206, {"Content_Range": "bytes 2-4/5"}),
        (206, {"Content_Range": "nonsense"}),
        (206, {"Content_Range": "bytes +3-4/5"}),
        (206, {}),
        (206, {"Content_Range": "bytes 3-4/5", "ETag": '"2"'}),
        (416, {"Content_Range": "bytes */9"}),
        (503, {}),
        (404, {"ETag": '"1"'}),
    ],
)
def test_what_does_not_fit_leaves_the_part_alone(tmp_path: Path, status: int, fields: dict[str, str]) -> None:
    path = tmp_path / "file"
    broken_off(path, b"hel", ETag='"1"')
    download = Download(str(path))
    assert download.resume_fields(URL)
    with pytest.raises(CannotResume):
        download.begin(URL, response(status, **fields), False)
    assert download.break_off() == ""
    assert Path(f"{path}.part").read_bytes() == b"hel" and not path.exists()


def test_less_than_what_was_missing_is_not_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    broken_off(path, b"hel", ETag='"1"')
    download = Download(str(path))
    download.resume_fields(URL)
    assert download.begin(URL, response(206, Content_Range="bytes 3-3/5", ETag='"1"'), False)
    download.write(b"l")
    with pytest.raises(CannotResume):
        download.finish()
    assert "4 bytes" in download.break_off() and not path.exists()


@pytest.mark.parametrize("fields", [{}, {"ETag": 'W/"1"'}, {"Last_Modified": "Sun, 06 Nov 1994 08:49:37 GMT"}])
def test_without_a_strong_validator_nothing_goes_on(tmp_path: Path, fields: dict[str, str]) -> None:
    path = tmp_path / "file"
    assert "nothing can go on" in broken_off(path, b"hel", **fields)
    assert Download(str(path)).resume_fields(URL) == []


def test_what_was_decoded_cannot_go_on(tmp_path: Path) -> None:
    path = tmp_path / "file"
    download = Download(str(path))
    download.begin(URL, response(ETag='"1"'), True)
    download.write(b"hel")
    assert "nothing can go on" in download.break_off()


@pytest.mark.parametrize("note", [b"", b"{}", b"[]", b"nonsense", b'{"url": "http://a/file", "validator": 1}', b'{"url": "http://b/", "validator": "x"}'])
def test_a_note_that_does_not_help(tmp_path: Path, note: bytes) -> None:
    path = tmp_path / "file"
    broken_off(path, b"hel", ETag='"1"')
    Path(f"{path}.part.json").write_bytes(note)
    assert Download(str(path)).resume_fields(URL) == []


def test_the_note_says_of_what_it_is_a_part(tmp_path: Path) -> None:
    path = tmp_path / "file"
    broken_off(path, b"hel", ETag='"1"')
    assert json.loads(Path(f"{path}.part.json").read_bytes()) == {"url": URL, "validator": '"1"'}


@pytest.mark.parametrize(
    ("fields", "validator"),
    [
        ({"ETag": '"a"', "Last_Modified": "x"}, '"a"'),
        ({"Last_Modified": "Sun, 06 Nov 1994 08:49:37 GMT", "Date": "Sun, 06 Nov 1994 08:49:38 GMT"}, "Sun, 06 Nov 1994 08:49:37 GMT"),
        ({"Last_Modified": "Sun, 06 Nov 1994 08:49:37 GMT", "Date": "Sun, 06 Nov 1994 08:49:37 GMT"}, None),
        ({"ETag": 'W/"a"', "Last_Modified": "Sun, 06 Nov 1994 08:49:37 GMT", "Date": "Sun, 06 Nov 1994 09:49:37 GMT"}, None),
        ({"Last_Modified": "then", "Date": "now"}, None),
    ],
)
def test_what_if_range_may_name(fields: dict[str, str], validator: str | None) -> None:
    assert strong_validator(response(**fields)) == validator


def test_nothing_came(tmp_path: Path) -> None:
    assert broken_off(tmp_path / "file", b"", ETag='"1"') == ""
    assert names(tmp_path) == []


def test_an_offset_of_the_users_own(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"hello there")
    download = Download(str(path))
    assert download.resume_at(5) == [("Range", "bytes=5-")]
    download.begin(URL, response(206, Content_Range="bytes 5-5/6"), False)
    download.write(b"!")
    download.finish()
    assert path.read_bytes() == b"hello!" and names(tmp_path) == ["file"]
    with pytest.raises(CannotResume):
        Download(str(path)).resume_at(7)
    download = Download(str(path))
    download.resume_at(5)
    with pytest.raises(CannotResume):
        download.begin(URL, response(200), False)


def test_devices_are_written_where_they_are() -> None:
    download = Download("/dev/null")
    assert download.begin(URL, response(ETag='"1"'), False)
    download.write(b"hello")
    download.finish()
    assert not os.path.exists("/dev/null.part") and stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_where_it_cannot_be_written(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "no" / "file"):
        with pytest.raises(OSError):
            Download(str(path)).begin(URL, response(), False)


def test_a_link_in_the_place_of_the_part_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"mine")
    (tmp_path / "file.part").symlink_to(tmp_path / "mine")
    with pytest.raises(OSError):
        Download(str(tmp_path / "file")).begin(URL, response(), False)
    assert (tmp_path / "mine").read_bytes() == b"mine"


def test_a_link_in_the_place_of_the_file_is(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "file").symlink_to(tmp_path / "there" / "real")
    download = Download(str(tmp_path / "file"))
    download.begin(URL, response(), False)
    download.write(b"hello")
    download.finish()
    assert (tmp_path / "there" / "real").read_bytes() == b"hello" and (tmp_path / "file").is_symlink()


def test_two_do_not_write_one_part(tmp_path: Path) -> None:
    first, second = Download(str(tmp_path / "file")), Download(str(tmp_path / "file"))
    first.begin(URL, response(), False)
    first.write(b"first")
    with pytest.raises(OSError):
        second.begin(URL, response(), False)
    second.break_off()
    first.finish()
    assert (tmp_path / "file").read_bytes() == b"first"
